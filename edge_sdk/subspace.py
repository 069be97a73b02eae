"""Novelty: how far a row is from the training data when its channels are looked at together.

Two channels may each be where they always were and yet never have been there at the same time; only
a multivariate distance shows it. It is the Mahalanobis distance under the Gaussian of probabilistic
principal components (Tipping and Bishop, J. R. Stat. Soc. B 61, 1999): along the components in
units of their own spread, and across them (the reconstruction error) in units of what is left.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NOVELTY = "input.novelty"  # the channel
EXPLAINED = 0.99  # of the variance, by the components that are kept
MAX_NUMBERS = 16_384  # in the components of one baseline
MAX_REFERENCE = 10_000  # rows
FAR = 1e6  # of a dimension's own spread: farther is no farther, so that squares stay numbers
SMALL = 1 << 18  # multiplications that OpenBLAS does not spread over threads, which would spin


class Subspace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the reference's rows lie, in k dimensions and along c components.

    Attributes:
        columns: the channels that are its k dimensions, in order; empty if these are the model's
            own embedding.
        mean, scale: of each dimension (k,), float32 little-endian: `(value - mean) / scale`.
        components: orthonormal rows (c, k), the same.
        spread: variance along each component (c,).
        rest: mean variance across them.
    """

    columns: tuple[str, ...] = ()
    mean: bytes
    scale: bytes
    components: bytes
    spread: tuple[float, ...]
    rest: float

    def __post_init__(self) -> None:
        """Refuse what does not fit together; to msgspec that is a file that can't be read."""
        k, c = len(self.mean) // 4, len(self.spread)
        lengths = (len(self.mean), len(self.scale), len(self.components))
        if not (k and c) or lengths != (4 * k, 4 * k, 4 * k * c) or c > k:
            raise ValueError("the numbers of a subspace are not as many as it has dimensions")
        if self.columns and len(self.columns) != k:
            raise ValueError(f"a subspace of {k} dimensions names {len(self.columns)} channels")
        numbers = [_read(part) for part in (self.mean, self.scale, self.components)]
        if not all(np.isfinite(part).all() for part in numbers) or not (
            (numbers[1] > 0).all() and min(*self.spread, self.rest) > 0
        ):
            raise ValueError("the numbers of a subspace must be finite, its spreads above 0")


def fit_subspace(values: Floats, columns: tuple[str, ...] = ()) -> Subspace | None:
    """The subspace of reference rows `values` (n, k); None if nothing varies in them.

    The covariance is shrunk as if k rows of independent dimensions had been seen beside the n, so
    that few rows do not look like certainty. Dimensions that never change are left out of channels,
    and count in an embedding as if they varied by 1. The first `MAX_REFERENCE` finite rows count.

    Args:
        values: (n, k).
        columns: names of the k channels; empty for an embedding.
    """
    seen = values[np.isfinite(values).all(axis=1)][:MAX_REFERENCE]
    varies = seen.std(axis=0) > 0 if len(seen) > 1 else np.zeros(values.shape[1], bool)
    if not varies.any():
        return None
    if columns:
        seen, columns = seen[:, varies], tuple(np.array(columns)[varies].tolist())
    mean, scale = seen.mean(axis=0), seen.std(axis=0)
    scale[scale == 0] = 1.0
    n, k = seen.shape
    standard = (seen - mean) / scale
    variances, vectors = np.linalg.eigh((standard.T @ standard + k * np.eye(k)) / (n + k))
    variances, rows = variances[::-1], vectors.T[::-1]
    share = np.cumsum(variances) / variances.sum()
    kept = min(int(np.searchsorted(share, EXPLAINED)) + 1, max(1, MAX_NUMBERS // k), k)
    return Subspace(
        columns=columns,
        mean=_stored(mean),
        scale=_stored(scale),
        components=_stored(rows[:kept]),
        spread=tuple(variances[:kept].tolist()),
        rest=float(variances[kept:].mean() if kept < k else variances[-1]),
    )


def fit_channels(channels: Mapping[str, Floats]) -> Subspace | None:
    """The subspace of reference channels, (n,) each; None if one of them has the name NOVELTY."""
    if not channels or NOVELTY in channels:
        return None
    return fit_subspace(np.stack([*channels.values()], axis=1), tuple(channels))


def novelty(space: Subspace, values: NDArray[np.generic]) -> Floats:
    """Distances (n,) of rows (n, k): the root of the mean square over k, about 1 as in training.

    >>> line = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]] * 50)
    >>> space = fit_subspace(line, ("a", "b"))
    >>> usual, never = novelty(space, np.array([[1.0, 1.0], [1.0, -1.0]]))
    >>> bool(usual < 1 < 8 < never)
    True
    """
    with np.errstate(over="ignore"):
        centred = values.astype(np.float32) - _read(space.mean)
        centred /= _read(space.scale)
    np.clip(centred, -FAR, FAR, out=centred)
    components = _read(space.components).reshape(len(space.spread), -1)
    step = max(1, SMALL // components.size)
    parts = [centred[at : at + step] @ components.T for at in range(0, max(len(centred), 1), step)]
    along = np.concatenate(parts)
    np.square(along, out=along)
    across = np.einsum("ij,ij->i", centred, centred) - along.sum(axis=1)
    squares = along @ (1 / np.array(space.spread, np.float32))
    squares += across.clip(0) / np.float32(space.rest)
    return np.asarray(np.sqrt(squares / centred.shape[1]), np.float64)


def channel_novelty(space: Subspace, channels: Mapping[str, Floats]) -> Floats:
    """The same of rows that are given as channels, (n,) each."""
    return novelty(space, np.stack([channels[name] for name in space.columns]).T)


def _stored(values: Floats) -> bytes:
    return values.astype("<f4").tobytes()


def _read(stored: bytes) -> NDArray[np.float32]:
    return np.frombuffer(stored, "<f4")
