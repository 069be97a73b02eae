"""What a drift report shows: plain values, ready to print, no decisions."""

import msgspec

from fleet_server.rollups import Sums
from fleet_server.views import AlertRow, EventRow


class AccuracyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy, 0..1, estimated without labels and counted with them.

    Attributes:
        estimated, low, high: from calibrated confidences with a 95 % interval; None if the bundle
            brings no calibration.
        note: why the estimate should not be believed; "" if nothing speaks against it.
        labelled, right: audit rows with a label, and how many of them were answered right.
        counted_low, counted_high: 95 % interval of their share.
        calibration_error: mean gap between confidence and share of right answers, labelled rows.
    """

    estimated: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""
    labelled: int = 0
    right: int = 0
    counted_low: float = 0.0
    counted_high: float = 1.0
    calibration_error: float | None = None


class TrendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One hour or day of a model."""

    start: float
    rows: int
    skew: int
    errors: int
    accuracy: AccuracyRow


class SplitRow(msgspec.Struct, frozen=True, kw_only=True):
    """The model at one site, on one profile, in one version, or on devices with one label.

    Attributes:
        by: `site`, `profile`, `version` or `label`, whose value is `name=value`.
        worst, distance: the input channel that is furthest from training there (Jensen-Shannon).
    """

    by: str
    value: str
    rows: int
    accuracy: AccuracyRow
    worst: str = ""
    distance: float = 0.0


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One channel now against the reference (the time before, or the training data).

    Attributes:
        jensen_shannon, hellinger, psi: distances of the histograms.
        ks, wasserstein: least and most that the rows behind the bins can have; None for categories.
        cramers_v: size of the chi-squared.
        chi_squared: the statistic and its degrees of freedom; None for numbers.
        shift: change of the mean in standard deviations of the training data.
        missing, missing_before: shares.
        edges, categories: of the bins.
        before, now: shares of the rows by bin.
    """

    name: str
    jensen_shannon: float
    hellinger: float
    psi: float
    cramers_v: float
    chi_squared: tuple[float, int] | None = None
    ks: tuple[float, float] | None
    wasserstein: tuple[float, float] | None
    shift: float
    mean_before: float
    mean: float
    missing_before: float
    missing: float
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]


class DeviceDriftRow(msgspec.Struct, frozen=True, kw_only=True):
    """One device against its own past.

    Attributes:
        judged: whether its past is complete.
        moved: channels with their size, in words.
    """

    device: str
    site: str
    version: str
    judged: bool
    alarmed: bool
    moved: tuple[str, ...]
    since: float | None
    accuracy_change: float | None


class SumsRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one slice of a model did during the hour or day that begins at `start`."""

    start: float
    model: str
    version: str
    profile: str
    site: str
    labels: str
    digest: str
    sums: Sums


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model over some time.

    Attributes:
        reference: what `channels` are held against, in words.
        devices: those that stand out first, 200 at most; of all, `followed`, so many stand out.
        changes: what else happened in the same hours.
        concept: what the detectors of concept drift say of the labelled rows, in words.
    """

    model: str
    since: float
    until: float
    reference: str
    alerts: tuple[AlertRow, ...]
    trend: tuple[TrendRow, ...]
    splits: tuple[SplitRow, ...]
    channels: tuple[ChannelRow, ...]
    devices: tuple[DeviceDriftRow, ...]
    followed: int = 0
    stand_out: int = 0
    changes: tuple[EventRow, ...]
    concept: tuple[str, ...] = ()
