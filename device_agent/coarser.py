"""Two windows of one model made one, as long as both: coarser history in less room. Pure."""

import msgspec

from edge_sdk.errors import EdgeError
from edge_sdk.messages import Comparison, Hardware, Side, Window
from edge_sdk.packing import added_up
from edge_sdk.sketch import Sketch, merge

LONGEST = 7 * 86_400.0  # seconds


def coarser(one: Window, other: Window) -> Window | None:
    """Both as one window, `other` the later one; None if they can't be added up."""
    named = [(w.slot, w.model, w.version, w.digest, w.edges_id) for w in (one, other)]
    if named[0] != named[1] or one.seconds + other.seconds > LONGEST:
        return None
    blobs = [w.packed for w in (one, other) if w.packed]
    try:
        return Window(
            slot=one.slot,
            model=one.model,
            version=one.version,
            digest=one.digest,
            edges_id=one.edges_id,
            seconds=one.seconds + other.seconds,
            rows=one.rows + other.rows,
            errors=one.errors + other.errors,
            dropped=one.dropped + other.dropped,
            skew={
                reason: one.skew.get(reason, 0) + other.skew.get(reason, 0)
                for reason in {**one.skew, **other.skew}
            },
            channels=_channels(one.channels, other.channels),
            rss_bytes=other.rss_bytes,
            comparison=_comparison(one.comparison, other.comparison),
            packed=added_up(blobs) if len(blobs) > 1 else b"".join(blobs),
            hardware=_hardware(one, other),
        )
    except EdgeError:
        return None


def _channels(one: dict[str, Sketch], other: dict[str, Sketch]) -> dict[str, Sketch]:
    both = {name: merge(one[name], other[name]) for name in one if name in other}
    return {**one, **other, **both}


def _comparison(one: Comparison | None, other: Comparison | None) -> Comparison | None:
    """With the newer shadow, if it was not the same."""
    if one is None or other is None or one.digest != other.digest:
        return other or one
    return Comparison(
        model=one.model,
        version=one.version,
        digest=one.digest,
        rows=one.rows + other.rows,
        agreed=one.agreed + other.agreed,
        errors=one.errors + other.errors,
        skipped=one.skipped + other.skipped,
        primary=_side(one.primary, other.primary),
        shadow=_side(one.shadow, other.shadow),
        lead=merge(one.lead, other.lead),
    )


def _side(one: Side, other: Side) -> Side:
    return Side(merge(one.confidence, other.confidence), merge(one.latency_ms, other.latency_ms))


def _hardware(one: Window, other: Window) -> Hardware | None:
    """What was counted adds up, the load is averaged, the heat is the highest, the rest newest."""
    a, b = one.hardware, other.hardware
    if a is None or b is None:
        return b or a
    share = one.seconds / max(one.seconds + other.seconds, 1e-9)
    heats = [heat for heat in (a.temperature, b.temperature) if heat is not None]
    return msgspec.structs.replace(
        b,
        cpu=round(share * a.cpu + (1 - share) * b.cpu, 4),
        temperature=max(heats, default=None),
        flags=tuple(dict.fromkeys((*a.flags, *b.flags))),
        disk_bytes=a.disk_bytes + b.disk_bytes,
        link_bytes=a.link_bytes + b.link_bytes,
        answers_lost=a.answers_lost + b.answers_lost,
    )
