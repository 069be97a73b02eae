"""Rows as unlike each other as can be, so that a few labels stand for many clusters. Pure."""

import numpy as np
from numpy.typing import NDArray

from edge_sdk.sketch import Floats


def far_apart(points: Floats, count: int) -> tuple[NDArray[np.intp], Floats]:
    """Which of the points (n, k) to take, and how far each is from those taken before it.

    Farthest first (Gonzalez, Theor. Comput. Sci. 38, 1985), which is the k-center greedy of
    core-set selection (Sener & Savarese, ICLR 2018): the first is the one nearest to the middle.

    >>> far_apart(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3)[0].tolist()
    [2, 4, 0]
    """
    taken = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    nearest = np.sqrt(np.square(points - points[taken[0]]).sum(axis=1))
    distances = [float(nearest.max())]
    while len(taken) < min(count, len(points)) and nearest.max() > 0:
        far = int(nearest.argmax())
        taken.append(far)
        distances.append(float(nearest[far]))
        away = np.sqrt(np.square(points - points[far]).sum(axis=1))
        nearest = np.minimum(nearest, away)
    return np.array(taken), np.array(distances)
