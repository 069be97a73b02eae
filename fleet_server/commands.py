"""Commands to devices: numbered, signed, kept for those that are away."""

from collections.abc import Sequence

from msgspec.structs import replace

from edge_sdk.messages import Command, SampleRequest, open_command, sign_command
from fleet_server.parts import Parts


def send(
    parts: Parts,
    devices: Sequence[str],
    now: float,
    *,
    samples: SampleRequest | None = None,
    measure: int = 0,
) -> dict[str, int]:
    """Give each device a command, and the number of each.

    It takes the place of the one before, which a device that is away never sees: what that one
    asked is repeated, unless the same is asked anew. A device knows by the numbers what it did.
    """
    store, director = parts.store, parts.keyring.director
    with store.transaction():
        last = store.command_numbers(devices)
        signed = {}
        for device in devices:
            command = Command(
                device=device, number=last.get(device, 0) + 1, issued=now, samples=samples,
                measure=measure,
            )  # fmt: skip
            command = _with_what_stands(command, _standing(parts, device))
            signed[device] = (command.number, sign_command(command, director))
        store.save_commands(signed, now)
    for device, (_, envelope) in signed.items():
        parts.command(device, envelope)
    return {device: number for device, (number, _) in signed.items()}


def _standing(parts: Parts, device: str) -> Command | None:
    envelope = parts.store.command(device)
    return open_command(envelope, device, parts.keyring.director.public) if envelope else None


def _with_what_stands(command: Command, before: Command | None) -> Command:
    if before is None:
        return command
    if command.samples is None:
        command = replace(command, samples=before.samples)
    if not command.measure and before.measure:
        command = replace(command, measure=before.measure, measure_since=before.measure_number)
    return command
