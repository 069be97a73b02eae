"""The fleet as a rollout's rules need it: what each device runs, by digest, and shall. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from edge_sdk.messages import Assignment
from fleet_server.records import BundleRecord, Seat
from fleet_server.rollout.orders import Target
from fleet_server.rollout.state import Device, Rollout

LOADED = ("standby", "shadow")


class RollCall:
    """One look at every device, every bundle and every newest order."""

    def __init__(
        self,
        seats: Iterable[Seat],
        bundles: Sequence[BundleRecord],
        failures: Mapping[str, int],
    ) -> None:
        self.seats = {seat.device: seat for seat in seats}
        self.bundles = {(b.model, b.version, b.profile): b for b in bundles}
        self._failures = failures

    def bundle(self, model: str, version: str, profile: str) -> BundleRecord | None:
        return self.bundles.get((model, version, profile))

    def profiles_of(self, model: str, version: str) -> set[str]:
        """The hardware profiles that a version has a bundle for."""
        return {p for m, v, p in self.bundles if (m, v) == (model, version)}

    def ordered(self, assignment: Assignment) -> None:
        """An order was given since."""
        self.seats[assignment.device] = replace(
            self.seats[assignment.device],
            order_generation=assignment.generation,
            order_model=assignment.model,
            order_version=assignment.version,
            order_digest=assignment.digest,
            order_rollout=assignment.rollout,
            ordered_at=assignment.not_before,
            role=assignment.role,
        )

    def views(self, rollout: Rollout) -> dict[str, Device]:
        """What the rules need to know of a rollout's members."""
        digests = {
            profile: bundle.digest
            for (model, version, profile), bundle in self.bundles.items()
            if (model, version) == (rollout.model, rollout.version)
        }
        found = (self.seats.get(member.device) for member in rollout.members)
        return {
            seat.device: self._view(seat, rollout, digests.get(seat.profile))
            for seat in found
            if seat is not None
        }

    def running(self, seat: Seat, model: str) -> str:
        """The version of a model that a device runs for good; else the one it was told to."""
        bundle = self.bundle(model, seat.running_version, seat.profile)
        if bundle is not None and bundle.digest == seat.running_digest and seat.phase != "trial":
            return seat.running_version
        return seat.order_version if seat.order_model == model else ""

    def needs(self, seat: Seat, model: str, wanted: Target) -> bool:
        """Whether it can take the wanted bundle, and its newest order is another one."""
        bundle = self.bundle(model, wanted.version, seat.profile)
        if bundle is None or seat.revoked:
            return False
        return (seat.order_digest, seat.role) != (bundle.digest, wanted.role)

    def _view(self, seat: Seat, rollout: Rollout, digest: str | None) -> Device:
        ours = seat.order_rollout == rollout.id
        told = ours and seat.generation == seat.order_generation
        runs = seat.running_digest == digest and seat.phase == "confirmed"
        beside = seat.beside_digest == digest and seat.phase in LOADED
        later = seat.ordered_at is not None and seat.ordered_at > rollout.started_at
        return Device(
            id=seat.device,
            running=rollout.version if digest and runs else "",
            beside=rollout.version if digest and beside else "",
            beside_as="shadow" if seat.phase == "shadow" else "standby",
            phase=seat.phase if told else "empty",
            reason=seat.reason if told else "",
            ordered_at=seat.ordered_at if ours else None,
            ordered=seat.order_version if ours else "",
            role=seat.role if ours else "serve",
            generation=seat.order_generation if ours else 0,
            superseded=bool(later and not ours and seat.order_model == rollout.model),
            last_seen=seat.last_seen,
            failures=self._failures.get(seat.device, 0),
            gone=seat.revoked,
        )
