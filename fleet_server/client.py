"""The operator API for Python: what the `edge` commands are thin over."""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError, ServerError
from fleet_server.api_types import (
    AliasWish,
    Asked,
    AskSamples,
    AuditPage,
    AuditRow,
    Created,
    DeliveryRow,
    EnrolmentToken,
    Erased,
    HistoryRow,
    HookRow,
    HookSecret,
    LabelsTaken,
    Me,
    Measure,
    Measured,
    Mute,
    NewHook,
    NewPassword,
    NewRole,
    NewRollout,
    NewToken,
    NewUser,
    Page,
    Problem,
    RolloutOrder,
    RolloutStory,
    TokenRow,
    TokenText,
    UserRow,
)
from fleet_server.drift_views import DeviceDriftRow, DriftReport, SumsRow
from fleet_server.field_latency import FieldLatency
from fleet_server.labels import Label
from fleet_server.views import (
    OVER,
    AlertRow,
    AliasRow,
    DeviceRow,
    Overview,
    RolloutDevice,
    RolloutPlan,
    RolloutRow,
    RunRow,
    SampleRow,
    VersionRow,
    VersionStory,
)

T = TypeVar("T")
TIMEOUT = httpx2.Timeout(60.0, connect=5.0)


class Client:
    """One server's operator API; every method raises ServerError if it can't be reached.

    >>> with Client("http://127.0.0.1:8080", token) as fleet:  # doctest: +SKIP
    ...     fleet.publish(Path("digits-2-raspberry-pi-4.edge").read_bytes())
    ...     rollout = fleet.create_rollout("digits", "2", {"name": "canary"})

    What the server refuses is raised as the error it was there: InvalidInputError for something
    wrong in the question, RefusedError for a check that said no.
    """

    def __init__(self, url: str, token: str, ca: Path | None = None) -> None:
        """`ca` is the server's CA certificate; without it HTTPS is checked as the system does.

        Raises:
            InvalidInputError: `ca` can't be read.
        """
        self.url = url.rstrip("/")
        self._http = httpx2.Client(
            base_url=f"{self.url}/api/v1/",
            headers=[(b"authorization", b"Bearer " + token.encode())],
            timeout=TIMEOUT,
            verify=_verify(ca) if ca else True,
        )

    @classmethod
    def of_person(cls, url: str, name: str, password: str, ca: Path | None = None) -> Self:
        """A client that may make a token (`new_token`), and nothing else.

        Raises:
            InvalidInputError: as for a client with a token.
        """
        made = cls(url, "", ca)
        made._http.auth = (name, password)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def overview(self) -> Overview:
        return self._get("overview", Overview)

    def devices(self, **filters: str) -> list[DeviceRow]:
        """Every device, page by page; `filters` as the API has them (`site`, `model`, `q`, …)."""
        return list(self._all("devices", DeviceRow, filters))

    def device(self, device: str) -> DeviceRow:
        return self._get(f"devices/{_part(device)}", DeviceRow)

    def latency(self, device: str) -> list[FieldLatency]:
        return self._get(f"devices/{quote(device, safe='')}/latency", list[FieldLatency])

    def measure(self, device: str, runs: int) -> Measured:
        """Have a device time answers of its model; `measured` has what it says."""
        body = msgspec.json.encode(Measure(runs))
        return self._post(f"devices/{_part(device)}/measure", body, Measured)

    def measured(self, asked: Measured) -> Measured:
        return self._get(f"devices/{_part(asked.device)}/measured/{asked.command}", Measured)

    def bundles(self, **filters: str) -> list[VersionRow]:
        """Every bundle, newest first; `filters` are `model`, `version`, `profile`."""
        return list(self._all("bundles", VersionRow, filters))

    def alerts(self, **filters: str) -> list[AlertRow]:
        """The costliest first, then what is over; `filters` are `state`, `kind`, `model`."""
        return list(self._all("alerts", AlertRow, filters))

    def open_alerts(self, **filters: str) -> list[AlertRow]:
        """What needs a person, the costliest first; asks for no page of what is over alone."""
        rows: Iterator[AlertRow] = self._all("alerts", AlertRow, filters)
        return list(takewhile(lambda row: row.state not in OVER, rows))

    def alert(self, alert: str) -> AlertRow:
        return self._get(f"alerts/{_part(alert)}", AlertRow)

    def rollouts(self, **filters: str) -> list[RolloutRow]:
        """Every rollout, newest first; `filters` are `model`, `version`, `status`."""
        return list(self._all("rollouts", RolloutRow, filters))

    def history(self, **filters: str) -> Iterator[HistoryRow]:
        """What happened, newest first, page by page; `filters` are `device`, `name`."""
        return self._all("events", HistoryRow, filters)

    def rollout(self, rollout: str) -> RolloutStory:
        return self._get(f"rollouts/{_part(rollout)}", RolloutStory)

    def publish(self, bundle: bytes) -> VersionRow:
        return self._post("bundles", bundle, VersionRow)

    def create_rollout(
        self,
        model: str,
        version: str,
        strategy: dict[str, Any],
        *,
        start_at: float = 0.0,
        supersede: bool = False,
    ) -> str:
        """The new rollout's id."""
        wish = NewRollout(model, version, strategy, start_at, supersede)
        return self._post("rollouts", msgspec.json.encode(wish), Created).id

    def plan_rollout(self, model: str, version: str, strategy: dict[str, Any]) -> RolloutPlan:
        """What it would do."""
        wish = NewRollout(model, version, strategy, supersede=True)
        return self._post("rollouts/plan", msgspec.json.encode(wish), RolloutPlan)

    def command_rollout(self, rollout: str, command: str, reason: str = "") -> RolloutStory:
        """Pause, resume, approve, retry, abort or rollback."""
        body = msgspec.json.encode(RolloutOrder(reason))
        return self._post(f"rollouts/{_part(rollout)}/{_part(command)}", body, RolloutStory)

    def rollout_devices(self, rollout: str) -> list[RolloutDevice]:
        """Every device of a rollout, with where it stands and why."""
        return list(self._all(f"rollouts/{_part(rollout)}/devices", RolloutDevice))

    def version(self, model: str, version: str) -> VersionStory:
        """A version's bundles, lineage and aliases over time."""
        return self._get(f"models/{_part(model)}/{_part(version)}", VersionStory)

    def aliases(self, model: str) -> list[AliasRow]:
        """Every change of every alias of a model, oldest first."""
        return list(self._all(f"models/{_part(model)}", AliasRow))

    def set_alias(self, model: str, alias: str, version: str, reason: str = "") -> AliasRow:
        """Let an alias mean a version; an empty one takes it away."""
        body = msgspec.json.encode(AliasWish(version, reason))
        return self._post(f"models/{_part(model)}/aliases/{_part(alias)}", body, AliasRow)

    def ran(self, device: str, at: float | None = None) -> list[RunRow]:
        """What a device ran at a time (Unix seconds), or all that it ran, newest first."""
        when = {} if at is None else {"at": repr(at)}
        return list(self._all(f"devices/{_part(device)}/ran", RunRow, when))

    def revoke(self, device: str) -> DeviceRow:
        """Shut a device out."""
        return self._post(f"devices/{_part(device)}/revoke", b"", DeviceRow)

    def readmit(self, device: str) -> DeviceRow:
        """Let a revoked device in again."""
        return self._post(f"devices/{_part(device)}/readmit", b"", DeviceRow)

    def mute(self, alert: str, hours: float) -> AlertRow:
        """Say nothing of an alert for some hours."""
        return self._post(f"alerts/{_part(alert)}/mute", msgspec.json.encode(Mute(hours)), AlertRow)

    def rebaseline(self, alert: str) -> AlertRow:
        """What an alert's devices look like now is how they shall look."""
        return self._post(f"alerts/{_part(alert)}/rebaseline", b"", AlertRow)

    def drift(self, model: str, hours: float) -> DriftReport:
        """How a model fared in the last hours."""
        return self._get(f"drift/{_part(model)}?hours={hours}", DriftReport)

    def drift_devices(self, model: str) -> list[DeviceDriftRow]:
        """Every device of a model against its own past."""
        return list(self._all(f"drift/{_part(model)}/devices", DeviceDriftRow))

    def drift_page(self, model: str, hours: float) -> bytes:
        """The same as a page that needs nothing else."""
        return self._bytes("GET", f"drift/{_part(model)}/page?hours={hours}", b"")

    def add_labels(self, labels: Sequence[Label]) -> LabelsTaken:
        """What was right for some rows; all are kept, or none."""
        return self._post("labels", msgspec.json.encode(labels), LabelsTaken)

    def ask_samples(self, model: str, wish: AskSamples) -> int:
        """Ask devices for rows to label; how many were asked."""
        return self._post(f"samples/{_part(model)}", msgspec.json.encode(wish), Asked).devices

    def samples(self, model: str) -> list[SampleRow]:
        """Rows that wait for a label, the most wanted first."""
        return list(self._all(f"samples/{_part(model)}", SampleRow))

    def dataset(self, model: str) -> bytes:
        """Labelled rows as an .npz for training."""
        return self._bytes("GET", f"samples/{_part(model)}/dataset", b"")

    def waiting(self, model: str) -> bytes:
        """All rows that came with their data, labelled or not, as an .npz."""
        return self._bytes("GET", f"samples/{_part(model)}/rows", b"")

    def sums(self, model: str, hours: float) -> list[SumsRow]:
        """A model's windows of the last hours, summed by hour or day."""
        return list(self._all(f"drift/{_part(model)}/sums", SumsRow, {"hours": str(hours)}))

    def forget(self, device: str) -> dict[str, int]:
        """Erase all that came from a device; how many rows of each kind there were."""
        return self._post(f"devices/{_part(device)}/forget", b"", Erased).rows

    def acknowledge(self, alert: str) -> AlertRow:
        return self._post(f"alerts/{_part(alert)}/acknowledge", b"", AlertRow)

    def me(self) -> Me:
        """Whose token this is."""
        return self._get("me", Me)

    def users(self) -> list[UserRow]:
        return list(self._all("users", UserRow))

    def add_user(self, name: str, role: str, password: str) -> UserRow:
        wish = NewUser(name, role, password)
        return self._post("users", msgspec.json.encode(wish), UserRow)

    def set_password(self, name: str, password: str) -> UserRow:
        body = msgspec.json.encode(NewPassword(password))
        return self._post(f"users/{_part(name)}/password", body, UserRow)

    def set_role(self, name: str, role: str) -> UserRow:
        return self._post(f"users/{_part(name)}/role", msgspec.json.encode(NewRole(role)), UserRow)

    def disable_user(self, name: str) -> UserRow:
        """Shut a user out."""
        return self._post(f"users/{_part(name)}/disable", b"", UserRow)

    def enable_user(self, name: str) -> UserRow:
        """Let a user in again."""
        return self._post(f"users/{_part(name)}/enable", b"", UserRow)

    def tokens(self) -> list[TokenRow]:
        return list(self._all("tokens", TokenRow))

    def new_token(self, name: str, scopes: Sequence[str] | None, hours: float) -> str:
        """The token's text; the server can't show it again. None is every scope of one's own."""
        wish = NewToken(name, None if scopes is None else tuple(scopes), hours)
        return self._post("tokens", msgspec.json.encode(wish), TokenText).token

    def revoke_token(self, token: str) -> TokenRow:
        """End a token; what it was."""
        return self._post(f"tokens/{_part(token)}/revoke", b"", TokenRow)

    def log_out(self) -> TokenRow:
        """End the token of this client; what it was."""
        return self._post("logout", b"", TokenRow)

    def audit(self, *, actor: str = "", target: str = "") -> Iterator[AuditRow]:
        """The audit log, newest first, page by page."""
        before: int | None = None
        while True:
            asked = {"limit": "500", "actor": actor, "target": target}
            if before is not None:
                asked["before"] = str(before)
            page = self._get(f"audit?{urlencode(asked)}", AuditPage)
            yield from page.items
            if page.next is None:
                return
            before = page.next

    def webhooks(self) -> list[HookRow]:
        return list(self._all("webhooks", HookRow))

    def add_webhook(
        self, url: str, events: Sequence[str] = (), *, private: bool = False
    ) -> HookSecret:
        """Tell `url` what happens; the secret is shown this once."""
        wish = NewHook(url, tuple(events), private)
        return self._post("webhooks", msgspec.json.encode(wish), HookSecret)

    def deliveries(self, hook: str) -> Iterator[DeliveryRow]:
        """The last tries to tell a webhook, newest first, page by page."""
        return self._all(f"webhooks/{_part(hook)}/deliveries", DeliveryRow)

    def remove_webhook(self, hook: str) -> HookRow:
        """End a webhook; what it was."""
        return self._post(f"webhooks/{_part(hook)}/remove", b"", HookRow)

    def new_login_link(self) -> str:
        """An address that opens the pages once."""
        return self.url + self._post("login-links", b"", Created).id

    def new_enrolment_key(
        self, *, uses: int = 1, hours: float = 24.0, note: str = "", device: str = ""
    ) -> EnrolmentToken:
        wish = {"uses": uses, "hours": hours, "note": note, "device": device}
        return self._post("enrolment-keys", msgspec.json.encode(wish), EnrolmentToken)

    def order_of(self, device: str) -> bytes:
        """A device's signed order, for a stick."""
        return self._bytes("GET", f"sticks/orders/{_part(device)}", b"")

    def bundle(self, digest: str) -> bytes:
        """A published bundle's bytes."""
        return self._bytes("GET", f"sticks/bundles/{_part(digest)}", b"")

    def metadata(self) -> dict[str, str]:
        """The trust repository's metadata files by name."""
        return self._get("sticks/metadata", dict[str, str])

    def bring_reports(self, file: bytes) -> dict[str, int]:
        """Hand in a report file from a stick; how many messages were `taken` and `refused`."""
        return self._post("sticks/reports", file, dict[str, int])

    def _all(
        self, path: str, kind: type[T], filters: Mapping[str, str] | None = None
    ) -> Iterator[T]:
        """The rows of a list, page by page."""
        after: str | None = ""
        while after is not None:
            query = urlencode({**(filters or {}), "after": after, "limit": "500"})
            page = self._get(f"{path}?{query}", Page[kind])  # type: ignore[valid-type]
            yield from page.items
            after = page.next

    def _get(self, path: str, kind: type[T]) -> T:
        return self._ask("GET", path, b"", kind)

    def _post(self, path: str, content: bytes, kind: type[T]) -> T:
        return self._ask("POST", path, content, kind)

    def _ask(self, method: str, path: str, content: bytes, kind: type[T]) -> T:
        data = self._bytes(method, path, content)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ServerError(
                f"{self.url} does not answer as a fleet server of this version: {error}"
            ) from error

    def _bytes(self, method: str, path: str, content: bytes) -> bytes:
        try:
            response = self._http.request(method, path, content=content)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise InvalidInputError(f"{self.url!r} is no address of a server: {error}") from error
        except httpx2.TransportError as error:
            raise ServerError(
                f"{self.url} can't be reached ({error}): is 'edge server run' running there?"
            ) from error
        if response.is_success:
            return response.content
        raise _refusal(self.url, response)


def _refusal(url: str, response: httpx2.Response) -> EdgeError:
    try:
        words = msgspec.json.decode(response.content, type=Problem).detail
    except msgspec.DecodeError:
        words = f"HTTP {response.status_code}, and no reason given"
    match response.status_code:
        case 401 | 403:
            return ServerError(f"{url} did not let us in: {words}")
        case 400 | 404 | 413:
            return InvalidInputError(words)
        case 409 | 422:
            return RefusedError(words)
        case _:
            return ServerError(f"{url} failed: {words}")


def _verify(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidInputError(f"CA certificate {ca} can't be read: {error}") from error


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")
