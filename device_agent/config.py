"""What the agent is told, read once from one TOML file; a key that is not known is an error."""

import difflib
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from device_agent.endpoint import parse_websocket
from device_agent.inputs import Spec
from device_agent.manners import DailyWindow
from device_agent.outputs import check as check_output
from device_agent.outputs import rooted as rooted_output
from device_agent.transforms import parse as parse_transform
from edge_sdk.errors import InvalidInputError
from edge_sdk.identity import Token
from edge_sdk.topics import valid_device_id

TOKEN_VARIABLE = "EDGE_ENROL_TOKEN"  # noqa: S105 - the name of a variable, not a secret


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class DeviceConfig(_Section, frozen=True):
    """Who this device is; `auto` makes an id from the host's name at the first start.

    Attributes:
        port: serial port of a microcontroller that runs the model; "" is this machine itself.
    """

    profile: str
    port: str = ""
    baud: int = 115_200
    id: str = "auto"
    labels: dict[str, str] = {}


class LinkConfig(_Section, frozen=True):
    """Where the fleet server is, and what the link to it bears.

    Attributes:
        mqtt: `wss://HOST[:PORT][/mqtt]` (`ws://` where `server` is `http://`) for MQTT over a
            WebSocket, where only the web's port gets through; "" is the port told at enrolment.
        rate_limit_bytes: a second, for downloads; 0 for no limit.
        metered: bytes cost money: bundles above `defer_above_bytes` wait.
        http_after_seconds: without MQTT for so long, messages go over HTTP(S) alone.
        poll_seconds: how often the order is asked for then.
    """

    server: str
    mqtt: str = ""
    rate_limit_bytes: int = 0
    metered: bool = False
    defer_above_bytes: int = 1_000_000
    http_after_seconds: float = 60.0
    poll_seconds: float = 15.0


class UpdateConfig(_Section, frozen=True):
    """When a download may begin: `window` as "02:00-04:00", local time; empty for always."""

    window: str = ""

    @property
    def daily(self) -> DailyWindow | None:
        return DailyWindow.parse(self.window) if self.window else None


class EnrolConfig(_Section, frozen=True):
    """Where the enrolment token is, if not in the environment."""

    token_file: Path | None = None


class InputConfig(_Section, frozen=True):
    """What the model is fed with: a line as in `inputs`, and how fast a recording is replayed."""

    source: str
    rows_per_second: float = 10.0


class OutputConfig(_Section, frozen=True):
    """Where answers go beside the fleet server's telemetry: lines as in `outputs`."""

    to: tuple[str, ...] = ()


class ApiConfig(_Section, frozen=True):
    """Where the local API listens; port 0 is nowhere."""

    host: str = "127.0.0.1"
    port: int = 0


class SamplesConfig(_Section, frozen=True):
    """Which rows may leave for labelling: none, unless a model is named here; see `sampler`."""

    models: tuple[str, ...] = ()
    raw: bool = False
    transforms: tuple[str, ...] = ()
    per_day: int = 100


class TelemetryConfig(_Section, frozen=True):
    """How long a window is, how much may wait on disk while the server is away, and for how long.

    Attributes:
        bytes_per_day: that telemetry may cost on the link, 0 is no limit: windows widen to meet it.
    """

    window_seconds: float = 60.0
    outbox_bytes: int = 16 * 1024 * 1024
    outbox_days: float = 90.0
    bytes_per_day: int = 0


class TrialConfig(_Section, frozen=True):
    """When a new model is trusted: so many healthy windows, at most this share of errors."""

    windows: int = 3
    max_error_share: float = 0.05


class StateConfig(_Section, frozen=True):
    """Where the agent keeps its key, its models and what is not sent yet."""

    dir: Path


class AgentConfig(_Section, frozen=True):
    """The whole file."""

    device: DeviceConfig
    link: LinkConfig
    input: InputConfig
    state: StateConfig
    enrol: EnrolConfig = EnrolConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    trial: TrialConfig = TrialConfig()
    update: UpdateConfig = UpdateConfig()
    output: OutputConfig = OutputConfig()
    api: ApiConfig = ApiConfig()
    samples: SamplesConfig = SamplesConfig()


def load_config(path: Path) -> AgentConfig:
    """Read and check the file; relative paths in it start at its folder.

    Raises:
        InvalidInputError: no such file, a key unknown, missing or of a wrong type, a value that
            can't be.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}") from error
    try:
        raw = msgspec.toml.decode(text)
        _refuse_unknown(raw, path)
        config = msgspec.convert(raw, AgentConfig, dec_hook=_path)
    except msgspec.MsgspecError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    problems = _problems(config)
    if problems:
        raise InvalidInputError(f"{path}: {'; '.join(problems)}")
    return _rooted(config, path.absolute().parent)


def read_token(enrol: EnrolConfig) -> Token:
    """The enrolment token, from the environment or else the file that the config names.

    Raises:
        InvalidInputError: there is none, or it is not of a token's form.
    """
    if text := os.environ.get(TOKEN_VARIABLE):
        return Token.parse(text)
    if enrol.token_file is None:
        raise InvalidInputError(
            f"this device is not enrolled yet: set {TOKEN_VARIABLE} or [enrol] token_file to a "
            "token from 'edge enroll key new'"
        )
    try:
        return Token.parse(enrol.token_file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"token file {enrol.token_file} can't be read: {error}") from error


def _refuse_unknown(raw: object, path: Path) -> None:
    """Name the unknown key and the nearest known one; msgspec names only its section."""
    sections = {field.name: field.type for field in msgspec.structs.fields(AgentConfig)}
    if not isinstance(raw, dict):
        return
    for section, content in raw.items():
        if section not in sections:
            raise InvalidInputError(f"{path}: {_unknown(section, list(sections), 'section')}")
        known = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in content if isinstance(content, dict) else ():
            if key not in known:
                raise InvalidInputError(f"{path}: [{section}] {_unknown(key, known, 'key')}")


def _unknown(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {name!r}: {hint}known are {', '.join(sorted(known))}"


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a path as text, got {value!r}")


def _problems(config: AgentConfig) -> list[str]:
    positive = {
        "[input] rows_per_second": config.input.rows_per_second,
        "[telemetry] window_seconds": config.telemetry.window_seconds,
        "[telemetry] outbox_bytes": config.telemetry.outbox_bytes,
        "[telemetry] outbox_days": config.telemetry.outbox_days,
        "[trial] windows": config.trial.windows,
        "[link] poll_seconds": config.link.poll_seconds,
    }
    found = [
        f"{name} must be above zero, not {value}"
        for name, value in positive.items()
        if not (value > 0 and math.isfinite(value))
    ]
    at_least_zero = {
        "[link] defer_above_bytes": config.link.defer_above_bytes,
        "[link] http_after_seconds": config.link.http_after_seconds,
        "[link] rate_limit_bytes": config.link.rate_limit_bytes,
        "[telemetry] bytes_per_day": config.telemetry.bytes_per_day,
        "[samples] per_day": config.samples.per_day,
    }
    found += [
        f"{name} must be 0 or above, not {value}"
        for name, value in at_least_zero.items()
        if not value >= 0
    ]
    checks: list[tuple[str, Callable[[], object]]] = [
        ("link", lambda: parse_websocket(config.link.mqtt, config.link.server)),
        ("update", lambda: DailyWindow.parse(config.update.window or "00:00-23:59")),
        ("input", lambda: Spec.parse(config.input.source)),
        ("samples", lambda: [parse_transform(line) for line in config.samples.transforms]),
        *(("output", partial(check_output, line)) for line in config.output.to),
    ]
    for section, check in checks:
        try:
            check()
        except InvalidInputError as error:
            found.append(f"[{section}] {error}")
    if not 0 <= config.api.port < 65536:
        found.append(f"[api] port must be between 0 (off) and 65535, not {config.api.port}")
    if not 0 <= config.trial.max_error_share <= 1:
        found.append("[trial] max_error_share must be between 0 and 1")
    if config.device.id != "auto" and not valid_device_id(config.device.id):
        found.append(
            f"[device] id {config.device.id!r} must be 1 to 64 lower-case letters, digits, "
            "dots, dashes or underscores"
        )
    return found


def _rooted(config: AgentConfig, folder: Path) -> AgentConfig:
    replace = msgspec.structs.replace
    profile = config.device.profile
    if profile.endswith(".toml"):
        profile = str(folder / Path(profile).expanduser())
    token_file = config.enrol.token_file
    return replace(
        config,
        device=replace(config.device, profile=profile),
        input=replace(config.input, source=Spec.parse(config.input.source).rooted(folder)),
        output=OutputConfig(to=tuple(rooted_output(line, folder) for line in config.output.to)),
        state=replace(config.state, dir=folder / config.state.dir.expanduser()),
        enrol=EnrolConfig(token_file=folder / token_file.expanduser() if token_file else None),
    )
