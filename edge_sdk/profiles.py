"""Hardware profiles: what a board can hold and run. One TOML file a board, users add their own.

A profile is data that somebody checked: every figure in the shipped files has its source beside it.
"""

import difflib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.formats import from_toml

Runtime = Literal["litert", "edgetpu", "tflite-micro", "tflite-runtime"]
Precision = Literal["float32", "dynamic-range", "int8"]


class HardwareProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One board.

    Attributes:
        format: version of this file's format.
        name: lower-case, digits and dashes; the file is called `NAME.toml`.
        title: the board as its maker calls it.
        cpu: core count, core and clock.
        architecture: as `uname -m` says it, or the core's name for microcontrollers.
        runtime: what interprets the model there.
        precisions: what that runtime executes; the converter offers nothing else.
        ops: allowed TFLite operators (upper case); empty means every built-in one.
        ram_bytes: memory the model may use at run time (weights loaded and tensor arena).
        flash_bytes: storage the .tflite file may take.
        latency_budget_ms: the slowest inference that is still useful there.
        slowdown: estimated latency there over latency on the converting host, one thread; absent
            where no honest estimate exists (an accelerator).
        slowdown_source: where that ratio comes from.
        threads: threads the agent gives the interpreter.
        power_watts: typical board power under load, for reports.
    """

    format: int = 1
    name: str
    title: str
    cpu: str
    architecture: str
    runtime: Runtime
    precisions: tuple[Precision, ...]
    ops: tuple[str, ...] = ()
    ram_bytes: int
    flash_bytes: int
    latency_budget_ms: float
    slowdown: float | None = None
    slowdown_source: str = ""
    threads: int = 1
    power_watts: float | None = None


def profile_names() -> list[str]:
    """The shipped profiles, sorted."""
    names = (Path(file.name) for file in resources.files("hw_profiles").iterdir())
    return sorted(name.stem for name in names if name.suffix == ".toml")


def load_profile(name_or_path: str) -> HardwareProfile:
    """A shipped profile by name, or the user's own by the path of its TOML file.

    Raises:
        InvalidInputError: no such profile (the nearest name is offered), or a bad file.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        try:
            return parse_profile(path.read_bytes(), str(path))
        except OSError as error:
            raise InvalidInputError(f"profile {path} can't be read: {error.strerror}") from error
    if name_or_path not in profile_names():
        near = difflib.get_close_matches(name_or_path, profile_names(), 1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InvalidInputError(
            f"unknown profile {name_or_path!r}: {hint}known are {', '.join(profile_names())}, "
            "or give the path of your own .toml"
        )
    file = resources.files("hw_profiles") / f"{name_or_path}.toml"
    return parse_profile(file.read_bytes(), f"{name_or_path}.toml")


def parse_profile(data: bytes, what: str) -> HardwareProfile:
    """Read and check one profile; raises InvalidInputError naming `what`."""
    profile = from_toml(HardwareProfile, data, what)
    problems = [
        f"{field} must be above zero"
        for field in ("ram_bytes", "flash_bytes", "latency_budget_ms", "threads")
        if getattr(profile, field) <= 0
    ]
    if profile.slowdown is not None and profile.slowdown <= 0:
        problems.append("slowdown must be above zero")
    if not profile.precisions:
        problems.append("precisions must name at least one")
    if problems:
        raise InvalidInputError(f"{what}: {'; '.join(problems)}")
    return profile
