"""What may be judged, in which unit, and what is tolerated; and a verdict with its numbers."""

from typing import Literal

import msgspec

Metric = Literal[
    "errors",  # share of inferences that raised
    "crashes",  # devices whose process started anew more often than in all their past
    "confidence",  # mean of the best class's probability
    "accuracy",  # share of labelled answers that were right
    "calibration",  # confidence minus accuracy, over labelled answers
    "estimated accuracy",  # without labels, as drift estimates it (`decay.accuracy`)
    "latency",  # mean milliseconds of an answer
    "memory",  # resident bytes of the process
    "temperature",  # degrees Celsius
    "predictions",  # distance of the answered classes from the device's own past mix, 0..1
    "disagreement",  # share of rows that shadow and primary answered with different classes
    "shadow confidence",  # the shadow's confidence minus the primary's on the same rows
    "shadow latency",  # the shadow's mean latency over the primary's on the same rows
]
Against = Literal["control", "past", "primary"]
Verdict = Literal["pass", "fail", "inconclusive", "no data"]

# How it is compared: shares and levels are subtracted, ratios divided; of a hazard the ratio is how
# much sooner it happens; a gap is worse the farther it is from 0, on whichever side.
Kind = Literal["share", "level", "ratio", "hazard", "gap"]
# Which way is worse, and the kind.
MEASURES: dict[Metric, tuple[int, Kind]] = {
    "errors": (+1, "share"),
    "crashes": (+1, "hazard"),
    "confidence": (-1, "level"),
    "accuracy": (-1, "share"),
    "calibration": (+1, "gap"),
    "estimated accuracy": (-1, "level"),
    "latency": (+1, "ratio"),
    "memory": (+1, "ratio"),
    "temperature": (+1, "level"),
    "predictions": (+1, "level"),
    "disagreement": (+1, "share"),
    "shadow confidence": (-1, "level"),
    "shadow latency": (+1, "ratio"),
}
OF_LABELS: tuple[Metric, ...] = ("accuracy", "calibration")
RATIOS: tuple[Kind, ...] = ("ratio", "hazard")  # margins and numbers are ratios, told as logarithms
OF_A_SHADOW: tuple[Metric, ...] = ("disagreement", "shadow confidence", "shadow latency")


class Gate(msgspec.Struct, frozen=True):
    """A limit on harm.

    Attributes:
        margin: harm that is tolerated, in the metric's own unit; of a ratio the ratio itself, so
            1.2 tolerates a fifth more. A negative one demands that it got better by so much.
        must: `prove` needs evidence that the harm is below the margin before going on; `hold`
            only stops when there is evidence that it is above.
        against: devices of the control arm, or, where everyone has the new version, the devices'
            own past alone, which can't tell a version from a drift. What a shadow does is always
            compared with the primary on the same rows.
        too_good: a shift to the better side beyond this is harm too, since confidence that jumps
            has more often lost touch with accuracy than gained any; 0 believes any. In the metric's
            unit; not for ratios.
    """

    metric: Metric
    margin: float
    must: Literal["prove", "hold"] = "prove"
    against: Literal["control", "past"] = "control"
    too_good: float = 0.0

    @property
    def either_way(self) -> bool:
        """Whether a shift to either side may be blamed."""
        return self.too_good > 0 or MEASURES[self.metric][1] == "gap"

    @property
    def compares(self) -> Against:
        return "primary" if self.metric in OF_A_SHADOW else self.against


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's verdict with its numbers.

    Attributes:
        scope: the hardware profile it is about; "" for all devices together.
        treated, control: mean change of each arm against its own past; None where there is none.
        difference, low, high: what is judged, between always-valid bounds; ratios as logarithms.
            Of crashes the arms are told as failures over those expected if both were alike.
            The bound that blames holds with the error that all verdicts of a rollout share, the
            bound that passes with `ALPHA` by itself, since every gate must pass.
        level: the two-sided error behind the bound that blames.
        windows: windows of the treated arm that were judged, per device, on average.
    """

    metric: Metric
    verdict: Verdict
    limit: float
    scope: str = ""
    against: Against = "control"
    treated: float | None = None
    control: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.1
    treated_devices: int = 0
    control_devices: int = 0
    windows: float = 0
    words: str = ""
