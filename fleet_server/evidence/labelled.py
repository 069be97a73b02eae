"""Labelled answers as the points of a metric: were they right, did the model know? Pure, numpy."""

import sys
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_server.evidence.changes import Bools, Floats, Ints, Points
from fleet_server.evidence.gates import Metric
from fleet_server.labels import Label

Names = NDArray[np.object_]


class Labelled(msgspec.Struct, frozen=True):
    """Labelled answers in the order in which they were given, as arrays.

    Attributes:
        device: its place in the rollout.
        right: 1 or 0; of several answers the share.
        confidence: of the model in them, NaN if it was not told.
        weight: how sure the labeller is; of several answers the sum.
    """

    device: Ints
    at: Floats
    version: Names
    right: Floats
    confidence: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.at)


def labelled(labels: Sequence[Label], index: Mapping[str, int]) -> Labelled:
    """The labels of the devices in `index`, by their place in it.

    Only labels of rows drawn at random count: those picked for being hard say little of the rest.
    """
    kept = [one for one in labels if one.audit and one.predicted and one.device in index]
    return Labelled(
        device=np.array([index[one.device] for one in kept], dtype=np.int64),
        at=np.array([one.taken_at for one in kept], dtype=np.float64),
        version=np.array([sys.intern(one.version) for one in kept], dtype=np.object_),
        right=np.array([one.label == one.predicted for one in kept], dtype=np.float64),
        confidence=np.array(
            [np.nan if one.confidence is None else one.confidence for one in kept], dtype=np.float64
        ),
        weight=np.array([one.certainty for one in kept], dtype=np.float64),
    )


def labelled_points(metric: Metric, found: Labelled, used: Bools, now: Bools) -> Points:
    """One metric of the answers that are `used`; `now` tells those that are judged.

    Calibration is confidence minus accuracy, which is 0 of a model that is calibrated in the large
    (Van Calster et al., BMC Medicine 17:230, 2019) and, unlike the error over bins of confidence,
    has no bias where a device has few labels.
    """
    value = found.confidence - found.right if metric == "calibration" else found.right
    kept = used & np.isfinite(value) & (found.weight > 0)
    return Points(found.device[kept], now[kept], value[kept], found.weight[kept])
