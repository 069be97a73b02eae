"""Operating modes: a machine that idles, or runs, looks different in each, and both are normal.

A mode is a cluster of a device's own first windows that it comes back to. A rhythm of the day is
none: between modes is a gap that the windows jump over. Pure.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edge_sdk.sketch import Floats

APART = 4.0  # how wide the gap is, in standard deviations within the modes
SWITCHES = 3  # changes from one to the other; a step that happened once is no mode
FEWEST, SHARE = 4, 0.1  # windows of a mode
MOST_MODES = 4

Members = NDArray[np.intp]  # of each window, the number of its mode


def modes_of(values: Floats, floors: Floats) -> Members:
    """The mode of each window: groups between the widest gaps along the longest axis.

    Args:
        values: features of the windows (n, features), in the order in which they came.
        floors: the smallest change of each feature that matters (features,).

    >>> back_and_forth = np.array([[0.0], [5.0]] * 8) + np.linspace(0, 0.1, 16)[:, None]
    >>> modes_of(back_and_forth, np.ones(1)).tolist()[:4]
    [0, 1, 0, 1]
    """
    centred = (values - values.mean(axis=0)) / floors
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    ordered = np.sort(along)
    gaps = np.diff(ordered)
    for modes in range(2, MOST_MODES + 1):
        widest = np.sort(np.argsort(gaps)[1 - modes :])
        cuts = (ordered[widest] + ordered[widest + 1]) / 2
        members = np.searchsorted(cuts, along)
        if _are_modes(members, along, float(gaps[widest].min())):
            return np.asarray(members)
    return np.zeros(len(values), np.intp)


def _are_modes(members: Members, along: Floats, gap: float) -> bool:
    groups = [along[members == m] for m in range(members.max() + 1)]
    if min(map(len, groups)) < max(FEWEST, SHARE * len(along)):
        return False
    if np.count_nonzero(np.diff(members)) < SWITCHES * (len(groups) - 1):
        return False
    within = math.sqrt(sum(float(g.var()) * len(g) for g in groups) / len(along))
    return gap >= max(1.0, APART * within)
