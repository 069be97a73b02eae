"""Whether a message can be what it claims. Pure; the words go beside the message set aside."""

import math
from collections.abc import Mapping

from edge_sdk.messages import MAX_WORDS, Comparison, Connection, Event, Report, Sealed, Window
from edge_sdk.sketch import Sketch, bins
from fleet_server.records import BundleRecord

MAX_CHANNELS = 600
MAX_BINS = 4096
MAX_COUNT = 2**40
MAX_NUMBER = 2**53
MAX_TEXT = 2 * MAX_WORDS
NUL = "\0"  # PostgreSQL holds no text with it


def why_not_numbered(message: Sealed) -> str | None:
    """Why the message's own numbers can't be stored; None if they can."""
    if message.seq > MAX_NUMBER:
        return f"it is numbered {message.seq}"
    if not (math.isfinite(message.wall) and math.isfinite(message.uptime)):
        return "its clock shows no number"
    if NUL in message.boot:
        return "the name of its boot has a NUL in it"
    return None


def why_not_connection(connection: Connection) -> str:
    """Why what a connection tells of itself can't be stored; empty if it can."""
    if not 1 <= connection.number <= MAX_NUMBER:
        return f"its connection is numbered {connection.number}"
    return ""


def why_not_event(event: Event) -> str | None:
    """Why an event can't be written down; None if it can."""
    if not event.name or max(len(event.name), len(event.detail)) > MAX_TEXT:
        return f"its name is empty, or a text in it is longer than {MAX_TEXT} characters"
    if NUL in event.name or NUL in event.detail:
        return "a text in it has a NUL"
    return None


def why_not_window(
    window: Window, bundle: BundleRecord | None, plain: Mapping[str, Sketch]
) -> str | None:
    """Why the window can't be counted, given the bundle it names; None if it can.

    `plain` are its channels that did not come packed: what was unpacked has been looked at.
    """
    if bundle is None:
        return f"no bundle {window.digest[:12]!r} is published here"
    if (window.model, window.version) != (bundle.model, bundle.version):
        return f"bundle {bundle.digest[:12]} is {bundle.model} {bundle.version}, not as claimed"
    if window.edges_id != bundle.edges_id:
        return f"its sketches use edges {window.edges_id[:16]!r}, the bundle has {bundle.edges_id}"
    counts = [window.rows, window.errors, window.dropped, *window.skew.values(), window.rss_bytes]
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        return "a count is negative or beyond belief"
    if not (math.isfinite(window.seconds) and 0 < window.seconds < MAX_COUNT):
        return f"its length is {window.seconds} seconds"
    if max(len(window.channels), len(window.skew)) > MAX_CHANNELS:
        return f"it has {len(window.channels)} channels, {MAX_CHANNELS} are the most"
    return _why_not_channels(plain, bundle) or _why_not_comparison(window.comparison)


def _why_not_comparison(seen: Comparison | None) -> str | None:
    if seen is None:
        return None
    counts = (seen.rows, seen.agreed, seen.errors, seen.skipped)
    if not all(0 <= count <= MAX_COUNT for count in counts) or seen.agreed > seen.rows:
        return "a count of its comparison is negative or beyond belief"
    texts = (seen.model, seen.version, seen.digest)
    if any(len(text) > MAX_TEXT or NUL in text for text in texts):
        return f"a text of its comparison is longer than {MAX_TEXT} characters, or has a NUL"
    sides = (seen.primary, seen.shadow)
    sketches = [seen.lead, *(s for side in sides for s in (side.confidence, side.latency_ms))]
    if any(len(sketch.counts) > MAX_BINS or not _sane(sketch) for sketch in sketches):
        return "the numbers of its comparison contradict each other"
    return None


def _why_not_channels(plain: Mapping[str, Sketch], bundle: BundleRecord) -> str | None:
    for name, sketch in plain.items():
        known = bundle.baseline.channels.get(name)
        if known is None and len(sketch.counts) > MAX_BINS:
            return f"channel {name[:64]!r} has {len(sketch.counts)} bins"
        if known is not None and len(sketch.counts) != bins(known):
            return f"channel {name} has {len(sketch.counts)} bins, its baseline {bins(known)}"
        if not _sane(sketch):
            return f"the numbers of channel {name[:64]!r} contradict each other"
    return None


def _sane(sketch: Sketch) -> bool:
    return (
        min(sketch.counts, default=0) >= 0
        and sum(sketch.counts) == sketch.rows <= MAX_COUNT
        and 0 <= sketch.missing <= MAX_COUNT
        and math.isfinite(sketch.total + sketch.squares + sketch.low + sketch.high)
    )


def why_not_report(report: Report) -> str | None:
    """Why a report can't be written down; None if it can."""
    if not (0 <= report.generation <= MAX_NUMBER and 0 <= report.resumed_at <= MAX_NUMBER):
        return "its generation or resume position is no number of ours"
    texts = [report.reason, report.runtime, report.agent]
    for loaded in (report.running, report.beside):
        if loaded:
            texts += [loaded.model, loaded.version, loaded.digest]
    if any(len(text) > MAX_TEXT for text in texts):
        return f"a text in it is longer than {MAX_TEXT} characters"
    if any(NUL in text for text in texts):
        return "a text in it has a NUL"
    return None
