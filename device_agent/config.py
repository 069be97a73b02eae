"""What the agent is told, read once from one TOML file; a key that is not known is an error."""

import difflib
import math
import os
from pathlib import Path
from typing import Literal

import msgspec

from device_agent.manners import DailyWindow
from edge_sdk.errors import InvalidInputError
from edge_sdk.identity import Token
from edge_sdk.topics import valid_device_id

TOKEN_VARIABLE = "EDGE_ENROL_TOKEN"  # noqa: S105 - the name of a variable, not a secret


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class DeviceConfig(_Section, frozen=True):
    """Who this device is; `auto` makes an id from the host's name at the first start."""

    profile: str
    id: str = "auto"
    labels: dict[str, str] = {}


class LinkConfig(_Section, frozen=True):
    """Where the fleet server is, and what the link to it bears.

    Attributes:
        rate_limit_bytes: a second, for downloads; 0 for no limit.
        metered: bytes cost money: bundles above `defer_above_bytes` wait.
        http_after_seconds: without MQTT for so long, messages go over HTTP(S) alone.
        poll_seconds: how often the order is asked for then.
    """

    server: str
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
    """What the model is fed with: the rows of an .npz, replayed for ever in shuffled order."""

    path: Path
    kind: Literal["npz"] = "npz"
    rows_per_second: float = 10.0
    seed: int = 0


class TelemetryConfig(_Section, frozen=True):
    """How long a window is, and how much may wait on disk while the server is away."""

    window_seconds: float = 60.0
    outbox_bytes: int = 16 * 1024 * 1024


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
        "[trial] windows": config.trial.windows,
        "[link] poll_seconds": config.link.poll_seconds,
    }
    found = [
        f"{name} must be above zero, not {value}"
        for name, value in positive.items()
        if not (value > 0 and math.isfinite(value))
    ]
    for name, value in (
        ("defer_above_bytes", config.link.defer_above_bytes),
        ("http_after_seconds", config.link.http_after_seconds),
    ):
        if not value >= 0:
            found.append(f"[link] {name} must be 0 or above, not {value}")
    try:
        DailyWindow.parse(config.update.window or "00:00-23:59")
    except InvalidInputError as error:
        found.append(f"[update] {error}")
    if config.link.rate_limit_bytes < 0:
        found.append("[link] rate_limit_bytes must be 0 (no limit) or above")
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
        input=replace(config.input, path=folder / config.input.path.expanduser()),
        state=replace(config.state, dir=folder / config.state.dir.expanduser()),
        enrol=EnrolConfig(token_file=folder / token_file.expanduser() if token_file else None),
    )
