"""What a conversion found, as types: what `--json` prints and what proves a bundle."""

import os
import platform
from pathlib import Path

import msgspec

from converters.explain import Explanation
from converters.gate import RULE, Measurement
from converters.recipe import SourceFacts


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe tried: measured, or why there is nothing to measure."""

    recipe: str
    measurement: Measurement | None = None
    failed: str = ""
    seconds: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate judged for one board; no reasons means it fits.

    Attributes:
        ram_bytes: what the board would need, by `gate.ram_needed`.
        estimated_ms: on the board; None where its profile knows no ratio. An estimate.
        proven: whether even the worse end of the drop's interval is allowed.
    """

    recipe: str
    reasons: tuple[str, ...]
    proven: bool = False
    ram_bytes: int | None = None
    estimated_ms: float | None = None


class ProfileResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts for one board and what was written for it, if anything fits."""

    profile: str
    verdicts: tuple[Verdict, ...]
    chosen: str | None = None
    bundle: str | None = None
    digest: str | None = None
    bundle_bytes: int | None = None


class Host(msgspec.Struct, frozen=True):
    """The machine on which latency and memory were measured."""

    machine: str
    cpu: str
    cores: int
    system: str
    python: str


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        calibration_rows, held_out_rows, train_rows: how many rows did what.
        left_out_rows: training rows that are also held out, and so were not trained on.
        balance: held-out rows of each class.
        fastest: the recipe that is surely the fastest on the host; None within the noise.
        front: recipes than which no other is both no larger and no worse, the smallest first.
        explanations: of the models that were chosen, by recipe, if asked for.
    """

    format: int = 1
    name: str
    version: str
    source: SourceFacts
    calibration_rows: int
    held_out_rows: int
    train_rows: int
    left_out_rows: int
    balance: dict[str, int] = {}
    fastest: str | None = None
    front: tuple[str, ...] = ()
    max_drop: float
    candidates: tuple[Candidate, ...]
    profiles: tuple[ProfileResult, ...]
    explanations: dict[str, Explanation] = {}
    rule: str = RULE
    host: Host
    seconds: float

    @property
    def unfit(self) -> list[str]:
        """Boards that nothing fits."""
        return [found.profile for found in self.profiles if found.chosen is None]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured for one bundle; kept outside of it, since measuring differs run by run.

    Attributes:
        explanation: of its model, if asked for.
        picture: of all candidates, as SVG.
    """

    format: int = 1
    bundle: str
    digest: str
    result: ProfileResult
    candidates: tuple[Candidate, ...]
    explanation: Explanation | None = None
    picture: str = ""
    host: Host


def this_host() -> Host:
    """The machine this runs on."""
    return Host(
        machine=platform.machine(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        system=platform.system(),
        python=platform.python_version(),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
