"""One model over some time, from roll-ups and labels: as long for a thousand devices as for ten.

Reads only; what is told of single devices comes from the last look of `drift_alerts`.
"""

from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest

import msgspec
import numpy as np

from edge_sdk.errors import InvalidInputError
from edge_sdk.sketch import Channel, Floats, Sketch
from fleet_server.api_types import Page
from fleet_server.concept import concept_drift
from fleet_server.decay import State
from fleet_server.decay import distances as d
from fleet_server.decay.accuracy import Estimator, estimator, seen_of
from fleet_server.decay.causes import words
from fleet_server.drift_views import (
    AccuracyRow,
    ChannelRow,
    DeviceDriftRow,
    DriftReport,
    SplitRow,
    SumsRow,
    TrendRow,
)
from fleet_server.fleet import urgent_first
from fleet_server.labels import Counted, Label, calibration_error, wilson
from fleet_server.paging import first_of, place_of, within
from fleet_server.parts import Parts
from fleet_server.records import BundleRecord, RollupRecord
from fleet_server.rollups import SECONDS, Span, Sums, Whereabouts, each_label, together
from fleet_server.store import Store
from fleet_server.store.listing import AlertFilter, EventFilter
from fleet_server.views import EventRow

LONGEST = 366 * 24.0  # hours
LONGEST_BY_HOUR = 4 * 86400.0
SPLITS: dict[str, Callable[[RollupRecord], Sequence[str]]] = {
    "version": lambda r: [r.version],
    "site": lambda r: [r.slice.site],
    "profile": lambda r: [r.profile],
    "label": lambda r: each_label(r.slice.labels),
}
EVENTS = 200
DEVICES = 200  # shown of a large fleet
Estimators = Mapping[str, Estimator | None]  # by digest


def report_of(parts: Parts, model: str, hours: float) -> DriftReport:
    """The report of the last `hours`. Raises InvalidInputError for a time that makes no sense."""
    since, now = _stretch(parts, hours)
    states = parts.controls.drift_states(model)
    return drift_report(parts.store, model, states, since, now)


def states_of(parts: Parts, model: str) -> Sequence[State]:
    """Every device by name as last looked at; raises InvalidInputError for an unknown model."""
    _bundles(parts.store, model)
    return sorted(parts.controls.drift_states(model), key=lambda state: state.device)


def sums_page(parts: Parts, model: str, hours: float, after: str, limit: int) -> Page[SumsRow]:
    """Some of the sums that a report reads, oldest first; raises as `report_of` does.

    A page ends with the start and the number of its last row, behind which the next begins.
    """
    since, now = _stretch(parts, hours)
    _bundles(parts.store, model)
    span = _span(since, now)
    start, _, number = after.partition("-")
    behind = (float(place_of(start)), place_of(number))
    found = parts.store.rollup_page(model, span, since - SECONDS[span], behind, within(limit) + 1)
    page = first_of(found, lambda row: f"{row.start:.0f}-{row.id}", limit)
    return Page(tuple(map(_sums_row, page.items)), page.next)


def _sums_row(record: RollupRecord) -> SumsRow:
    return SumsRow(
        start=record.start,
        model=record.model,
        version=record.version,
        profile=record.profile,
        site=record.slice.site,
        labels=record.slice.labels,
        digest=record.slice.digest,
        sums=record.sums,
    )


def _stretch(parts: Parts, hours: float) -> tuple[float, float]:
    if not 0 < hours <= LONGEST:
        raise InvalidInputError(f"hours must be above 0 and at most {LONGEST:.0f}")
    now = parts.now()
    return now - hours * 3600, now


def _span(since: float, until: float) -> Span:
    return "hour" if until - since <= LONGEST_BY_HOUR else "day"


def drift_report(
    store: Store, model: str, states: Sequence[State], since: float, until: float
) -> DriftReport:
    """The report.

    Raises:
        InvalidInputError: no bundle of this model is published.
    """
    bundles = _bundles(store, model)
    span = _span(since, until)
    parts = store.rollups(model, span, since - SECONDS[span], until)
    labels = [label for label in store.labels(model, since) if label.taken_at < until]
    places = store.whereabouts({label.device for label in labels})
    seen = {part.slice.digest for part in parts} & bundles.keys()
    estimators = {digest: estimator(bundles[digest].baseline) for digest in seen}
    starts = sorted({part.start for part in parts})
    before, reference = _reference(parts, bundles, starts)
    return DriftReport(
        model=model,
        since=since,
        until=until,
        reference=reference,
        alerts=urgent_first(store.open_alerts(AlertFilter(model=model))),
        trend=tuple(_trend(start, span, parts, labels, estimators) for start in starts),
        splits=tuple(_splits(parts, labels, places, bundles, estimators)),
        channels=_channels([p for p in parts if p.start == starts[-1]], before, bundles)
        if starts
        else (),
        devices=tuple(device_row(state) for state in nlargest(DEVICES, states, key=_stands_out)),
        followed=len(states),
        stand_out=sum(state.alarmed for state in states),
        changes=tuple(
            EventRow(at=e.at, source=e.source, name=e.name, detail=e.detail)
            for e in store.event_page(EventFilter(of_server=True), 0, EVENTS)
            if since <= e.at < until
        ),
        concept=concept_drift(labels),
    )


def _bundles(store: Store, model: str) -> dict[str, BundleRecord]:
    bundles = {b.digest: b for b in store.bundles(model)}
    if not bundles:
        raise InvalidInputError(f"there is no model {model[:40]!r}: edge model list")
    return bundles


def _reference(
    parts: Sequence[RollupRecord], bundles: Mapping[str, BundleRecord], starts: Sequence[float]
) -> tuple[dict[str, Sketch], str]:
    """What the newest hour or day is held against: the time before it, else the training data."""
    newest = _newest(parts, bundles)
    earlier = (
        [p for p in parts if p.start < starts[-1] and p.slice.digest == newest.digest]
        if starts and newest
        else []
    )
    if earlier:
        return together([p.sums for p in earlier]).channels, "the time before, in the same version"
    if newest is None:
        return {}, "nothing yet"
    return {n: _sketch(c) for n, c in newest.baseline.channels.items()}, "the training data"


def _newest(
    parts: Sequence[RollupRecord], bundles: Mapping[str, BundleRecord]
) -> BundleRecord | None:
    """The bundle that answered most rows in the last hour or day."""
    last = max((p.start for p in parts), default=0.0)
    rows: dict[str, int] = {}
    for part in parts:
        if part.start == last and part.slice.digest in bundles:
            rows[part.slice.digest] = rows.get(part.slice.digest, 0) + part.sums.rows
    return bundles[max(rows, key=lambda digest: rows[digest])] if rows else None


def _trend(
    start: float,
    span: Span,
    parts: Sequence[RollupRecord],
    labels: Sequence[Label],
    estimators: Estimators,
) -> TrendRow:
    here = [p for p in parts if p.start == start]
    then = [x for x in labels if start <= x.taken_at < start + SECONDS[span]]
    return TrendRow(
        start=start,
        rows=sum(p.sums.rows for p in here),
        skew=sum(sum(p.sums.skew.values()) for p in here),
        errors=sum(p.sums.errors for p in here),
        accuracy=accuracy(here, then, estimators),
    )


def _splits(
    parts: Sequence[RollupRecord],
    labels: Sequence[Label],
    places: Mapping[str, Whereabouts],
    bundles: Mapping[str, BundleRecord],
    estimators: Estimators,
) -> list[SplitRow]:
    rows = []
    for by, values_of in SPLITS.items():
        for value in sorted({value for p in parts for value in values_of(p)}):
            here = [p for p in parts if value in values_of(p)]
            there = [x for x in labels if value in _values_of_label(by, x, places)]
            worst, distance = _furthest(here, bundles)
            rows.append(
                SplitRow(
                    by=by,
                    value=value or "(none)",
                    rows=sum(p.sums.rows for p in here),
                    accuracy=accuracy(here, there, estimators),
                    worst=worst,
                    distance=distance,
                )
            )
    return rows


def _values_of_label(by: str, label: Label, places: Mapping[str, Whereabouts]) -> Sequence[str]:
    """On which sides of a split a labelled row is; none if its device is gone."""
    if by == "version":
        return [label.version]
    found = places.get(label.device)
    if found is None:
        return []
    if by == "label":
        return each_label(found.slice.labels)
    return [found.slice.site if by == "site" else found.profile]


def _furthest(
    parts: Sequence[RollupRecord], bundles: Mapping[str, BundleRecord]
) -> tuple[str, float]:
    far: dict[str, float] = {}
    for digest, sums in _by_bundle(parts).items():
        baseline = bundles[digest].baseline if digest in bundles else None
        for name, channel in baseline.channels.items() if baseline else ():
            found = sums.channels.get(name)
            if name.startswith("input.") and found is not None and found.rows:
                both = _floats(channel.counts), _floats(found.counts)
                far[name] = max(far.get(name, 0.0), float(d.jensen_shannon(*both)))
    worst = max(far, key=lambda name: far[name], default="")
    return worst, far.get(worst, 0.0)


def accuracy(
    parts: Sequence[RollupRecord], labels: Sequence[Label], estimators: Estimators
) -> AccuracyRow:
    """Estimated and counted accuracy of some roll-ups; versions weigh by their rows."""
    counted = _counted(labels)
    found = []
    for digest, sums in _by_bundle(parts).items():
        seen, known = seen_of(sums.channels), estimators.get(digest)
        one = known(seen) if known is not None and seen is not None else None
        if one is not None:
            found.append(one)
    if not found:
        return counted
    rows = np.array([one.rows for one in found], dtype=float)
    numbers = np.array([[one.accuracy, one.low, one.high] for one in found])
    estimated, low, high = (rows @ numbers / rows.sum()).tolist()
    return msgspec.structs.replace(
        counted,
        estimated=estimated,
        low=low,
        high=high,
        note=next((one.note for one in found if one.note), ""),
    )


def _counted(labels: Sequence[Label]) -> AccuracyRow:
    """Accuracy by labels alone."""
    audit = [x for x in labels if x.audit and x.predicted]
    count = Counted(sum(x.label == x.predicted for x in audit), len(audit))
    low, high = wilson(count)
    return AccuracyRow(
        labelled=count.rows,
        right=count.right,
        counted_low=low,
        counted_high=high,
        calibration_error=calibration_error(audit),
    )


def _by_bundle(parts: Sequence[RollupRecord]) -> dict[str, Sums]:
    grouped: dict[str, list[Sums]] = {}
    for part in parts:
        grouped.setdefault(part.slice.digest, []).append(part.sums)
    return {digest: together(sums) for digest, sums in grouped.items()}


def _channels(
    newest: Sequence[RollupRecord],
    before: Mapping[str, Sketch],
    bundles: Mapping[str, BundleRecord],
) -> tuple[ChannelRow, ...]:
    bundle = _newest(newest, bundles)
    if bundle is None:
        return ()
    now = together([p.sums for p in newest if p.slice.digest == bundle.digest]).channels
    rows = [
        _channel(name, channel, before[name], now[name])
        for name, channel in bundle.baseline.channels.items()
        if name in now and name in before and now[name].rows
    ]
    return tuple(sorted(rows, key=lambda row: -row.jensen_shannon))


def _channel(name: str, channel: Channel, before: Sketch, now: Sketch) -> ChannelRow:
    old, new = _floats(before.counts), _floats(now.counts)
    numeric = channel.kind == "numeric"
    low = min(before.low, now.low, channel.edges[0] if channel.edges else 0.0)
    high = max(before.high, now.high, channel.edges[-1] if channel.edges else 0.0)
    points = np.array([low, *channel.edges, high])
    return ChannelRow(
        name=name,
        jensen_shannon=float(d.jensen_shannon(old, new)),
        hellinger=d.hellinger(old, new),
        psi=d.psi(old, new),
        cramers_v=d.cramers_v(old, new),
        chi_squared=None if numeric else d.chi_squared(old, new),
        ks=d.ks(old, new) if numeric else None,
        wasserstein=d.wasserstein(old, new, points) if numeric else None,
        shift=(now.mean - before.mean) / channel.sd if numeric and channel.sd else 0.0,
        mean_before=before.mean,
        mean=now.mean,
        missing_before=before.missing / max(before.rows + before.missing, 1),
        missing=now.missing / max(now.rows + now.missing, 1),
        edges=channel.edges,
        categories=channel.categories,
        before=tuple(float(v) for v in old / max(old.sum(), 1.0)),
        now=tuple(float(v) for v in new / max(new.sum(), 1.0)),
    )


def _sketch(channel: Channel) -> Sketch:
    """The training data as if a device had sent it."""
    rows = sum(channel.counts)
    square = channel.sd**2 + channel.mean**2
    ends = (channel.edges[0], channel.edges[-1]) if channel.edges else (0.0, 0.0)
    return Sketch(list(channel.counts), rows, 0, rows * channel.mean, rows * square, *ends)


def _stands_out(state: State) -> tuple[bool, bool]:
    return state.alarmed, bool(state.moved)


def device_row(state: State) -> DeviceDriftRow:
    return DeviceDriftRow(
        device=state.device,
        site=state.site,
        version=state.version,
        judged=state.judged,
        alarmed=state.alarmed,
        moved=tuple(words(m) for m in state.moved),
        since=state.since,
        accuracy_change=state.accuracy_change,
    )


def _floats(counts: Sequence[int]) -> Floats:
    return np.array(counts, dtype=float)
