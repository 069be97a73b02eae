"""What gates ask of a window beyond its plain columns, taken out of it once, at ingest. Pure."""

import math

import msgspec

from edge_sdk.calibration import CLASSES as CLASSES_OF
from edge_sdk.messages import Comparison, Window

CLASSES = 64  # counted one by one; of a model with more, the rest fall together with the first ones


class Measures(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of one window.

    Attributes:
        memory: resident bytes of the process; 0 if not told.
        temperature: of the hottest sensor, degrees Celsius; None without one.
        classes: answers by class.
        shadow: version of the model that ran beside; "" if none did.
        compared, disagreed: rows that both answered, and of them those with different classes.
        lead: the shadow's mean confidence minus the primary's, on those rows.
        slower: the shadow's mean latency over the primary's; 0 if not measured.
        estimated: accuracy of the window without labels (`decay.accuracy`); None if the bundle
            tells nothing to estimate it from.
    """

    memory: int = 0
    temperature: float | None = None
    classes: tuple[int, ...] = ()
    shadow: str = ""
    compared: int = 0
    disagreed: int = 0
    lead: float = 0.0
    slower: float = 0.0
    estimated: float | None = None


def measures(window: Window, estimated: float | None = None) -> bytes:
    """A window's measures as they are stored."""
    answers, board = window.channels.get(CLASSES_OF), window.hardware
    found = Measures(
        memory=window.rss_bytes or (board.rss_bytes if board else 0),
        temperature=board.temperature if board else None,
        classes=_folded(answers.counts) if answers else (),
        estimated=estimated,
    )
    if window.comparison and window.comparison.rows:
        found = _compared(found, window.comparison)
    return msgspec.msgpack.encode(found)


def read_measures(data: bytes) -> Measures:
    """What `measures` wrote; an empty value is an old window's."""
    return msgspec.msgpack.decode(data, type=Measures) if data else Measures()


def _compared(found: Measures, seen: Comparison) -> Measures:
    own, other = seen.primary.latency_ms, seen.shadow.latency_ms
    timed = own.rows and other.rows and own.total > 0
    slower = other.mean / own.mean if timed else 0.0
    return msgspec.structs.replace(
        found,
        shadow=seen.version,
        compared=seen.rows + seen.errors,  # a row that the shadow alone can't answer is no match
        disagreed=seen.rows - seen.agreed + seen.errors,
        lead=seen.lead.mean if seen.lead.rows else 0.0,
        slower=slower if math.isfinite(slower) else 0.0,
    )


def _folded(counts: list[int]) -> tuple[int, ...]:
    folded = counts[:CLASSES]
    for index, count in enumerate(counts[CLASSES:]):
        folded[index % CLASSES] += count
    return tuple(folded)
