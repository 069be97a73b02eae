"""One commit's worth of messages: each counted once, the unbelievable set aside, state kept newest.

A report counts only if it is newer than the last one applied. Within a boot the numbers say so;
between boots the order in which the server first heard of them does, since a device sends what it
kept of an older boot first, and its clock may be wrong.
"""

from collections.abc import Callable, Sequence

import msgspec

from edge_sdk.calibration import CONFIDENCE
from edge_sdk.errors import FormatError
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Connection, Event, Report, Sample, Sealed, Window
from edge_sdk.packing import unpacked_all
from edge_sdk.sketch import Sketch
from edge_sdk.topics import Upward
from fleet_server import presence, rollups
from fleet_server.decay.accuracy import Fitted, seen_of
from fleet_server.evidence.measures import measures
from fleet_server.plausible import why_not_connection, why_not_event, why_not_report, why_not_window
from fleet_server.records import (
    BundleRecord,
    DeviceRecord,
    NewEvent,
    NewWindow,
    Poison,
    SampleRecord,
)
from fleet_server.samples import record_of, why_not_sample
from fleet_server.store import Store
from fleet_server.streams import MAX_GAPS, admit
from fleet_server.views import RunRow

Key = tuple[str, str]  # device, boot
Looked = tuple[NewWindow, Window] | str | None  # as it goes into the table, or why it does not
# A message, its numbers, its boot's place in the order, what it holds.
Fresh = tuple["Arrived", Sealed, int, Looked]
Bundles = Callable[[str], BundleRecord | None]


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it came in.

    Attributes:
        sealed: None if it does not hold that the device made it; then `reason` says why.
        body: None if it can't be read; then `reason` says why.
    """

    at: float
    device: str
    kind: Upward
    payload: bytes
    sealed: Sealed | None = None
    body: Report | Window | Event | Sample | Connection | None = None
    reason: str = ""


class Seen(msgspec.Struct, frozen=True):
    """A device came or went."""

    at: float
    device: str


class _Sorted(msgspec.Struct):
    windows: list[NewWindow] = []
    contents: list[Window] = []  # of `windows`, decoded
    events: list[NewEvent] = []
    reports: list[tuple[int, Sealed, Report, float]] = []  # boot's place in the order, time
    poison: list[Poison] = []
    samples: list[SampleRecord] = []
    spoke: set[str] = set()  # devices with a message that is new
    connections: list[tuple[float, Sealed, Connection]] = []
    asked: dict[str, int] = {}  # the number of each device's last command


def commit(
    store: Store, batch: Sequence[Arrived | Seen], bundles: Bundles, fitted: Fitted
) -> dict[Key, int]:
    """Write a batch as one; the highest number of each boot up to which all has arrived.

    Windows are looked at before the transaction, since other workers wait for its end.
    """
    out = _Sorted()
    arrived = [item for item in batch if isinstance(item, Arrived)]
    looked = _look_at_windows(arrived, bundles, fitted)
    asking = {i.device for i in batch if isinstance(i, Arrived) and i.kind == "sample"}
    with store.transaction():
        out.asked = store.command_numbers(asking)
        contiguous, fresh = _admitted(store, arrived, looked, out)
        for one in fresh:
            _sort(*one, bundles, out)
        store.add_windows(out.windows)
        _roll_up(store, out, bundles)
        store.add_device_events(out.events)
        store.add_samples(out.samples)
        store.set_aside(out.poison)
        _apply_reports(store, out.reports)
        rows: dict[str, int] = {}
        for window in out.windows:
            rows[window.device] = rows.get(window.device, 0) + window.rows
        periods = {window.device: window.seconds for window in out.windows}
        store.seen({item.device: item.at for item in batch}, rows, out.spoke, periods)
        _note_connections(store, out.connections)
    return contiguous


def _admitted(
    store: Store, arrived: Sequence[Arrived], looked: Sequence[Looked], out: _Sorted
) -> tuple[dict[Key, int], list[Fresh]]:
    """How far each boot has arrived without a gap, and what was not there before."""
    fresh: list[Fresh] = []
    keys = {(i.device, i.sealed.boot) for i in arrived if i.sealed and i.sealed.seq}
    streams = store.streams(sorted(keys))
    for item, found in zip(arrived, looked, strict=True):
        if item.sealed is None:
            out.poison.append(_poison(item, item.reason))
            continue
        if not item.sealed.seq:  # outside of the numbering: it is told by whoever serves MQTT
            told, reason = item.body, item.reason
            if isinstance(told, Connection) and not (reason := why_not_connection(told)):
                out.connections.append((item.at, item.sealed, told))
            else:
                out.poison.append(_poison(item, reason))
            continue
        key = (item.device, item.sealed.boot)
        place, stream = streams[key]
        after = admit(stream, item.sealed.seq)
        if after is None:
            continue  # a duplicate changes nothing
        if len(after.ahead) > MAX_GAPS:
            out.poison.append(_poison(item, "too many messages before it are missing"))
            continue
        streams[key] = (place, after)
        out.spoke.add(item.device)
        fresh.append((item, item.sealed, place, found))
    store.save_streams(streams)
    return {key: stream.contiguous for key, (_, stream) in streams.items()}, fresh


def _sort(
    item: Arrived, sealed: Sealed, place: int, looked: Looked, bundles: Bundles, out: _Sorted
) -> None:
    reason: str | None = None
    match item.body:
        case Window():
            if isinstance(looked, tuple):
                record, window = looked
                out.windows.append(record)
                out.contents.append(window)
            else:
                reason = looked
        case Event() as event:
            reason = why_not_event(event)
            if not reason:
                out.events.append(_event(item, sealed, event))
        case Report() as report:
            reason = why_not_report(report)
            if not reason:
                at = rollups.taken_at(item.at, sealed.wall)
                out.reports.append((place, sealed, report, at))
        case Sample() as sample:
            reason = _take_sample(item, sample, bundles(sample.digest), out)
        case _:
            reason = item.reason
    if reason:
        out.poison.append(_poison(item, reason))


def _look_at_windows(arrived: Sequence[Arrived], bundles: Bundles, fitted: Fitted) -> list[Looked]:
    """Of each message; windows of one bundle together, since many cost little more than one."""
    looked: list[Looked] = [None] * len(arrived)
    by_digest: dict[str, list[tuple[int, Arrived, Sealed, Window]]] = {}
    for at, item in enumerate(arrived):
        if isinstance(item.body, Window) and item.sealed:
            by_digest.setdefault(item.body.digest, []).append((at, item, item.sealed, item.body))
    for digest, sent in by_digest.items():
        bundle = bundles(digest)
        sound: list[tuple[int, Arrived, Sealed, Window]] = []
        found: Sequence[Window | FormatError] = [window for *_, window in sent]
        if bundle:
            found = unpacked_all([window for *_, window in sent], bundle.baseline)
        for (at, item, sealed, was), window in zip(sent, found, strict=True):
            if isinstance(window, FormatError):
                looked[at] = str(window)
            elif reason := why_not_window(window, bundle, was.channels):
                looked[at] = reason
            else:
                sound.append((at, item, sealed, window))
        told = _accuracies(fitted, bundle, [window for *_, window in sound])
        for (at, item, sealed, window), accuracy in zip(sound, told, strict=True):
            looked[at] = _window(item, sealed, window, measures(window, accuracy)), window
    return looked


def _accuracies(
    fitted: Fitted, bundle: BundleRecord | None, windows: Sequence[Window]
) -> list[float | None]:
    """Of each window without labels; None if its bundle tells nothing to estimate it from."""
    known = fitted(bundle.digest, bundle.baseline) if bundle else None
    if known is None:
        return [None] * len(windows)
    return known.accuracies([seen_of(window.channels) for window in windows])


def _roll_up(store: Store, out: _Sorted, bundles: Bundles) -> None:
    """Add the batch's windows to the sums of their hours and days."""
    labels = store.labels_of(window.device for window in out.windows)
    whose: dict[tuple[str, str], rollups.Slice] = {}
    hours: dict[tuple[rollups.Slice, float], list[Window]] = {}
    for record, window in zip(out.windows, out.contents, strict=True):
        known = record.device, window.digest
        if known not in whose:
            whose[known] = rollups.slice_of(window.digest, labels.get(record.device, {}))
        at = rollups.taken_at(record.received_at, record.wall)
        hours.setdefault((whose[known], rollups.hour_of(at)), []).append(window)
    found = {digest: bundles(digest) for _, digest in whose}
    store.roll_up(
        rollups.by_hour_and_day(hours),
        {digest: (b.model, b.version, b.profile) for digest, b in found.items() if b},
    )


def _take_sample(
    item: Arrived, sample: Sample, bundle: BundleRecord | None, out: _Sorted
) -> str | None:
    """Keep a sample that was asked for; else why it is not kept."""
    asked = out.asked.get(item.device, 0)
    if reason := why_not_sample(sample, bundle, asked):
        return reason
    labels = bundle.manifest.labels if bundle else ()
    out.samples.append(record_of(sample, item.device, labels, item.at))
    return None


def _apply_reports(store: Store, reports: Sequence[tuple[int, Sealed, Report, float]]) -> None:
    """In the order in which they were made; one older than what is known changes nothing."""
    known: dict[str, DeviceRecord | None] = {}
    changed: dict[str, DeviceRecord] = {}
    runs: list[RunRow] = []
    for place, sealed, report, at in sorted(reports, key=lambda r: (r[0], r[1].seq)):
        name = sealed.device
        if name not in known:
            known[name] = store.device(name)
        device = known[name]
        if device is None or (place, sealed.seq) <= (device.boot_order, device.report_seq):
            continue
        known[name] = changed[name] = after = _reported(device, place, sealed, report)
        if _loaded(after) != _loaded(device):
            runs.append(_run(after, report.slot, at))
    store.add_runs(runs)
    for device in changed.values():
        store.save_report(device)


def _note_connections(
    store: Store, connections: Sequence[tuple[float, Sealed, Connection]]
) -> None:
    """In the order in which they came; after the batch's other messages, which came before."""
    for at, sealed, connection in connections:
        device = store.device(sealed.device)
        if device is None:
            continue
        after = presence.told(device, sealed, connection, at, store.boots(device.id))
        if after != device:
            store.save_presence(after)


def _loaded(device: DeviceRecord) -> tuple[str, str]:
    return device.running_digest, device.beside_digest


def _run(device: DeviceRecord, slot: str, at: float) -> RunRow:
    return RunRow(
        device=device.id,
        slot=slot,
        model=device.running_model,
        version=device.running_version,
        digest=device.running_digest,
        beside=device.beside_digest,
        at=at,
    )


def _reported(device: DeviceRecord, place: int, sealed: Sealed, report: Report) -> DeviceRecord:
    running = report.running
    return msgspec.structs.replace(
        device,
        boot=sealed.boot,
        boot_order=place,
        report_seq=sealed.seq,
        running_model=running.model if running else "",
        running_version=running.version if running else "",
        running_digest=running.digest if running else "",
        phase=report.phase,
        reason=report.reason,
        generation=report.generation,
        runtime=report.runtime,
        agent=report.agent,
        resumed_at=report.resumed_at,
        beside_digest=report.beside.digest if report.beside else "",
    )


def _window(item: Arrived, sealed: Sealed, window: Window, measured: bytes) -> NewWindow:
    confidence = _filled(window.channels.get(CONFIDENCE))
    latency = _filled(window.channels.get("latency_ms"))
    return NewWindow(
        device=item.device,
        boot=sealed.boot,
        seq=sealed.seq,
        received_at=item.at,
        wall=sealed.wall,
        model=window.model,
        version=window.version,
        digest=window.digest,
        edges_id=window.edges_id,
        seconds=window.seconds,
        rows=window.rows,
        errors=window.errors,
        skew=sum(window.skew.values()),
        confidence_mean=confidence.mean if confidence else None,
        confidence_rows=confidence.rows if confidence else 0,
        latency_mean=latency.mean if latency else None,
        body=sealed.body if window is item.body else to_msgpack(window),
        measures=measured,
    )


def _filled(sketch: Sketch | None) -> Sketch | None:
    return sketch if sketch and sketch.rows else None


def _event(item: Arrived, sealed: Sealed, event: Event) -> NewEvent:
    return NewEvent(
        at=item.at,
        device=item.device,
        boot=sealed.boot,
        seq=sealed.seq,
        name=event.name,
        detail=event.detail,
    )


def _poison(item: Arrived, reason: str) -> Poison:
    return Poison(
        at=item.at, device=item.device, kind=item.kind, reason=reason, payload=item.payload
    )
