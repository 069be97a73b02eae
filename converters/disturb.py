"""Held-out rows, disturbed on purpose: how right the answers are then, and how that looks.

Confidence is calibrated on rows like the training data. Where a sensor is worse than that, models
stay sure and are wrong, so what accuracy to expect is learnt from many small sets that are
disturbed in many ways (Deng & Zheng, "Are labels always necessary for classifier accuracy
evaluation?", CVPR 2021). The disturbances are general: no fault in particular is meant. Each set
takes other rows, so that the luck of a few of them does not lie in all.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from edge_sdk.calibration import CLASSES, CONFIDENCE, Disturbed, Reference, looks
from edge_sdk.channels import Array, InputSchema, ScoreKind, answer_channels, watched_inputs
from edge_sdk.interpreter import Scores
from edge_sdk.sketch import Baseline, Floats, Sketch, sketch_all

ROWS, FEWEST_ROWS = 600, 60  # of one set
NUMBERS = 3_000_000  # raw values of one set, so that large pictures take fewer rows
STRENGTHS = (0.15, 0.3, 0.5, 0.75, 1.0)
DIGITS = 4  # behind the point, of how a set looks
SEED = 20250101

# Rows whose usual values lie in 0..1, and how strong (0..1).
How = Callable[[Floats, float, np.random.Generator], Floats]


def disturbed(
    base: Baseline, schema: InputSchema, kind: ScoreKind, rows: tuple[Array, Array],
    run: Callable[[Array], Scores],
) -> tuple[Disturbed, ...]:  # fmt: skip
    """What `run` answers to disturbed rows, each set in a few numbers; none without a calibration.

    Args:
        base: the baseline of the undisturbed rows.
        schema: of the raw rows.
        kind: what the answers are.
        rows: raw rows (n, *shape), and their classes (n,).
        run: raw rows to answers (n, k).
    """
    reference = base.reference
    if reference is None:
        return ()
    raw, truth = rows
    most = min(max(FEWEST_ROWS, min(ROWS, NUMBERS // max(raw[0].size, 1))), len(raw))
    found = [_undisturbed(base, reference)]
    for number, (name, how, strength) in enumerate(_ways(schema, raw)):
        chosen = (number * most + np.arange(most)) % len(raw)
        made = _made(schema, raw[chosen], how, strength)
        scores = run(made)
        answers = answer_channels(scores, kind)
        columns = {**watched_inputs(schema, made, base.subspace), **answers}
        seen = sketch_all(base.channels, columns)
        right = int((scores.argmax(axis=1) == truth[chosen]).sum())
        found.append(Disturbed(name, len(made), right, _looks(reference, seen)))
    return tuple(found)


def _undisturbed(base: Baseline, reference: Reference) -> Disturbed:
    """All held-out rows as they are, which the baseline knows already."""
    counts = np.array(base.channels[CONFIDENCE].counts, float)
    found = looks(reference, counts, reference.classes, reference.middle)
    rows = int(reference.classes.sum())
    return Disturbed("", rows, sum(base.correct), _short(found))


def _looks(reference: Reference, seen: Mapping[str, Sketch]) -> tuple[float, ...]:
    confidence, classes = (np.array(seen[name].counts, float) for name in (CONFIDENCE, CLASSES))
    means = [seen[name].mean if name in seen else math.nan for name in reference.inputs]
    return _short(looks(reference, confidence, classes, np.array(means)))


def _short(found: Array) -> tuple[float, ...]:
    """With the digits that a few hundred rows can tell: a bundle has hundreds of these numbers."""
    return tuple(round(float(value), DIGITS) for value in found)


def _ways(schema: InputSchema, rows: Array) -> Iterator[tuple[str, How, float]]:
    """Each disturbance that such rows can have, at each strength."""
    picture = _pictures(schema, rows)
    ways = {**EVERYTHING, **PICTURES} if picture else {**EVERYTHING, **NUMBERS_ONLY}
    if picture and rows.ndim == 4 and rows.shape[3] == 3:
        ways |= COLOURS
    for name, how in ways.items():
        for strength in STRENGTHS:
            yield name, how, strength


def _made(schema: InputSchema, rows: Array, how: How, strength: float) -> Array:
    """The rows, disturbed; still rows of the schema."""
    low, span = _usual(schema, rows, picture=_pictures(schema, rows))
    values = (rows.astype(np.float64) - low) / span
    made = how(values, strength, np.random.default_rng(SEED)) * span + low
    return _like(rows, np.clip(made, schema.low, schema.high))


def _pictures(schema: InputSchema, rows: Array) -> bool:
    return schema.kind == "image" and rows.ndim in (3, 4)


def _usual(schema: InputSchema, rows: Array, *, picture: bool) -> tuple[Floats, Floats]:
    """Where usual values begin, and how far they reach: of numbers each has its own."""
    if picture:
        return np.array(schema.low, float), np.array((schema.high - schema.low) or 1.0)
    values = rows.astype(np.float64)
    spread = values.std(axis=0)
    return values.mean(axis=0) - 2 * spread, 4 * np.where(spread > 0, spread, 1.0)


def _like(rows: Array, made: Floats) -> Array:
    whole = rows.dtype.kind in "iu"
    return np.asarray((np.round(made) if whole else made).astype(rows.dtype))


def _noise(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    return x + rng.normal(0, 0.12 * s, x.shape)


def _speckle(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    return x * (1 + rng.normal(0, 0.4 * s, x.shape))


def _outliers(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    draw, share = rng.random(x.shape[:3] if x.ndim == 4 else x.shape), 0.06 * s
    low, high = draw < share, draw > 1 - share
    if x.ndim == 4:
        low, high = low[..., None], high[..., None]
    return np.where(low, 0.0, np.where(high, 1.0, x))


def _weaker(x: Floats, s: float, _: np.random.Generator) -> Floats:
    """Less contrast, around each row's own mean."""
    middle = x.reshape(len(x), -1).mean(axis=1).reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray(middle + (1 - 0.75 * s) * (x - middle))


def _higher(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return x + 0.4 * s


def _lower(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return x - 0.4 * s


def _bent(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return np.asarray(np.clip(x, 0, 1) ** (1 + 2 * s))


EVERYTHING: dict[str, How] = {
    "noise": _noise,
    "speckle": _speckle,
    "outliers": _outliers,
    "weaker": _weaker,
    "higher": _higher,
    "lower": _lower,
    "bent": _bent,
}


def _smeared(x: Floats, s: float, _: np.random.Generator) -> Floats:
    """Motion along the width."""
    steps = 1 + round(6 * s)
    return np.asarray(np.mean([np.roll(x, k - steps // 2, axis=2) for k in range(steps)], axis=0))


def _coarse(x: Floats, s: float, _: np.random.Generator) -> Floats:
    """Fewer pixels, each the mean of those it stands for."""
    height, width = x.shape[1:3]
    sizes = [max(2, round(size * (1 - 0.65 * s))) for size in (height, width)]
    small = _resized(_box(x, 1 + round(1.5 * s)), *sizes)
    return _resized(small, height, width)


def _nearer(x: Floats, s: float, _: np.random.Generator) -> Floats:
    """The middle of the picture, as large as the whole."""
    height, width = x.shape[1:3]
    top, left = round(0.25 * s * height), round(0.25 * s * width)
    return _resized(x[:, top : height - top, left : width - left], height, width)


def _moved(x: Floats, s: float, _: np.random.Generator) -> Floats:
    height, width = x.shape[1:3]
    rows = np.clip(np.arange(height) - round(0.25 * s * height), 0, height - 1)
    columns = np.clip(np.arange(width) + round(0.25 * s * width), 0, width - 1)
    return np.asarray(x[:, rows][:, :, columns])


def _covered(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    """A square of each picture hidden."""
    made, size = x.copy(), max(1, round(0.5 * s * min(x.shape[1:3])))
    tops = rng.integers(0, x.shape[1] - size + 1, len(x))
    lefts = rng.integers(0, x.shape[2] - size + 1, len(x))
    for picture, top, left in zip(made, tops, lefts, strict=True):
        picture[top : top + size, left : left + size] = picture.mean()
    return made


def _specks(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    """The same small bright or dark spots on every picture: dirt, or broken pixels."""
    made = x.copy()
    for number in range(round(0.06 * s * x.shape[1] * x.shape[2])):
        row, column = rng.integers(0, x.shape[1]), rng.integers(0, x.shape[2])
        made[:, row, column] = number % 2
    return made


PICTURES: dict[str, How] = {
    "smeared": _smeared,
    "coarse": _coarse,
    "nearer": _nearer,
    "moved": _moved,
    "covered": _covered,
    "specks": _specks,
}


def _greyer(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return np.asarray((1 - s) * x + s * x.mean(axis=3, keepdims=True))


def _tinted(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return np.asarray(x * np.array([1 - 0.35 * s, 1 + 0.15 * s, 1 + 0.35 * s]))


COLOURS: dict[str, How] = {"greyer": _greyer, "tinted": _tinted}


def _held(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    """Some numbers of each row stay at their usual value, as a sensor's that hangs."""
    stays = rng.random(x.shape) < 0.8 * s
    return np.where(stays, x.mean(axis=0, keepdims=True), x)


def _swapped(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    """Some numbers come from another row: each looks usual, together they don't."""
    other = rng.random(x.shape) < 0.6 * s
    return np.where(other, x[rng.permutation(len(x))], x)


def _stronger(x: Floats, s: float, _: np.random.Generator) -> Floats:
    """More gain, around the usual value of each number."""
    middle = x.mean(axis=0, keepdims=True)
    return np.asarray(middle + (1 + 1.5 * s) * (x - middle))


NUMBERS_ONLY: dict[str, How] = {"held": _held, "swapped": _swapped, "stronger": _stronger}


def _box(x: Floats, size: int) -> Floats:
    for axis in (1, 2):
        x = np.mean([np.roll(x, k, axis=axis) for k in range(size)], axis=0)
    return x


def _resized(x: Floats, height: int, width: int) -> Floats:
    """Bilinear, over axes 1 and 2."""
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, x.shape[axis] - 1, size)
        low = np.floor(at).astype(np.intp)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        x = np.take(x, low, axis=axis) * (1 - part) + np.take(x, high, axis=axis) * part
    return x
