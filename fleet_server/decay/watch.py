"""Every device of one model against its own past; who stands out now, and by what. Pure."""

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from edge_sdk.calibration import CLASSES, CONFIDENCE
from edge_sdk.files import sha256
from edge_sdk.messages import Window
from edge_sdk.sketch import Baseline
from fleet_server.decay.accuracy import Estimator, Fitted, Seen
from fleet_server.decay.control import Tail, discoveries, level
from fleet_server.decay.layout import (
    GROUPS,
    Counts,
    Group,
    Layout,
    baseline_counts,
    counts_of,
    group_of,
    layout_of,
)
from fleet_server.decay.past import DAY, Season
from fleet_server.decay.stream import Movement, Stream

UNUSUAL = 0.1  # a channel is named if it is off by more than the worst of most clean windows


class Taken(msgspec.Struct, frozen=True):
    """A window and what is known about it.

    Attributes:
        at: when it was taken, Unix seconds.
        latency_budget_ms: of the board; 0 for none.
    """

    device: str
    at: float
    window: Window
    baseline: Baseline
    latency_budget_ms: float = 0.0


class Place(msgspec.Struct, frozen=True):
    """Where a device is, by which findings are put together."""

    device: str
    site: str = ""
    profile: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one device does now.

    Attributes:
        judged: whether the past of its inputs is complete.
        alarmed: whether it stands out, false alarms controlled; for so many units `lasted`.
        season: it is the same as at this hour days ago, or weeks ago; "" if it is new.
        moved: channels that moved, whether or not that is enough for an alarm; most first.
        since: when that began, Unix seconds; None if nothing moved.
        skewed: how its first day differed from the training data.
        version, version_since: what answers, and since when it does.
        accuracy_change: estimated accuracy now minus in its past, -1..1; None if not known.
        unit_seconds: length of what is held against the past at a time.
    """

    device: str
    site: str
    profile: str = ""
    judged: bool = False
    alarmed: bool = False
    lasted: int = 0
    season: Season = ""
    moved: tuple[Movement, ...] = ()
    since: float | None = None
    skewed: tuple[Movement, ...] = ()
    version: str = ""
    version_since: float | None = None
    accuracy_change: float | None = None
    unit_seconds: float = 0.0


class Device(msgspec.Struct, eq=False):
    """What is followed of one device.

    Attributes:
        keys: what a stream's past belongs to: the input edges, the bundle's digest. Another key
            starts a new past.
        accepted: a person said that it may differ from the training data.
    """

    streams: dict[Group, Stream] = {}
    keys: dict[Group, str] = {}
    skewed: tuple[Movement, ...] = ()
    version: str = ""
    version_since: float | None = None
    digest: str = ""
    accepted: bool = False


class Watch:
    """Follows the devices of one model.

    Args:
        past_seconds: how long a device's first past lasts: a day, so that it holds the rhythm.
            A shorter one, for a trial, makes everything else faster by as much.
    """

    def __init__(self, past_seconds: float = DAY) -> None:
        self._past_seconds = past_seconds
        self.devices: dict[str, Device] = {}
        self._changed: set[str] = set()
        self._unjudged: set[str] = set()
        self._known: dict[str, State] = {}  # what did not change since it was worked out
        self._input_keys: dict[str, str] = {}
        self._fitted = Fitted()
        self.tails: dict[Group, Tail] = {group: Tail() for group in GROUPS}

    def add(self, taken: Taken) -> None:
        """Take one window in."""
        window = taken.window
        if window.rows < 1 and not window.skew:
            return
        if taken.device in self._unjudged:  # catching up: no window may be learnt unjudged
            self._judge()
        self._unjudged.add(taken.device)
        self._known.pop(taken.device, None)
        device = self.devices.setdefault(taken.device, Device())
        if device.version != window.version:
            device.version_since = taken.at if device.version else None
            device.version = window.version
        device.digest = window.digest
        self._fitted(window.digest, taken.baseline)
        self._changed.add(taken.device)
        for group in GROUPS:
            stream = self._stream(device, group, taken)
            fresh = stream.past is None
            counts = counts_of(window, stream.layout)
            self.tails[group].add(stream.add(counts, taken.at, window.seconds))
            if fresh and stream.past and group == "inputs" and not device.accepted:
                device.skewed = stream.skews(baseline_counts(taken.baseline, stream.layout))

    def restore(self, name: str, device: Device) -> None:
        """Go on with what was known of a device."""
        self.devices[name] = device

    def scores(self) -> dict[Group, list[float]]:
        """The scores of clean windows, newest last."""
        return {group: list(tail.scores) for group, tail in self.tails.items()}

    def restore_tails(self, scores: Mapping[Group, list[float]]) -> None:
        for group, kept in scores.items():
            self.tails[group].add(kept)

    def take_changed(self) -> list[str]:
        """Devices that took a window in since the last call."""
        changed = [name for name in self._changed if name in self.devices]
        self._changed.clear()
        return changed

    def forget(self, device: str) -> None:
        """Nothing of this device is kept; what it adds from now on starts a new past."""
        self._known.pop(device, None)
        self.devices.pop(device, None)

    def rebaseline(self, device: str) -> None:
        """What the device looks like from now on is how it shall look."""
        self._known.pop(device, None)
        self.devices[device] = Device(accepted=True)
        self._changed.add(device)

    def states(self, places: Iterable[Place]) -> list[State]:
        """How each device stands against its own past."""
        self._judge()
        found = []
        for place in places:
            state = self._known.get(place.device)
            if state is None or (state.site, state.profile) != (place.site, place.profile):
                state = self._known[place.device] = self._state(place)
            found.append(state)
        return found

    def _stream(self, device: Device, group: Group, taken: Taken) -> Stream:
        key = self._input_key(taken) if group == "inputs" else taken.window.digest
        if device.keys.get(group) != key:
            device.keys[group] = key
            layout = layout_of(taken.baseline, group, taken.latency_budget_ms)
            device.streams[group] = Stream(layout, self._past_seconds)
        return device.streams[group]

    def _input_key(self, taken: Taken) -> str:
        """Names edges and units of the inputs: a version that keeps them keeps the past."""
        digest = taken.window.digest
        if digest not in self._input_keys:
            channels = [
                (name, channel.kind, channel.edges, channel.sd)
                for name, channel in sorted(taken.baseline.channels.items())
                if group_of(name) == "inputs"
            ]
            self._input_keys[digest] = sha256(msgspec.msgpack.encode(channels))
        return self._input_keys[digest]

    def _compare(self) -> None:
        """Tell every stream how much those with the same channels vary."""
        alike: dict[tuple[Group, str], list[Stream]] = {}
        for device in self.devices.values():
            for group, stream in device.streams.items():
                if stream.past is not None:
                    alike.setdefault((group, device.keys[group]), []).append(stream)
        for streams in alike.values():
            usual = np.mean([s.past.normal.variance for s in streams if s.past], axis=0)
            for stream in streams:
                stream.others = usual

    def _judge(self) -> None:
        """Sound or end alarms: Benjamini-Hochberg over everything that is followed."""
        self._unjudged.clear()
        self._compare()
        p_values: dict[tuple[str, Group], float] = {}
        lengths: list[float] = []
        for name, device in self.devices.items():
            for group, stream in device.streams.items():
                if stream.past is None:
                    continue
                lengths.append(stream.recent[-1][1].seconds)
                score = stream.moved[0].score if stream.moved else 0.0
                p_values[name, group] = self.tails[group].p_value(score)
        if not lengths:
            return
        share = level(float(np.median(lengths)), self._past_seconds)
        found = discoveries(p_values, share)
        for name, group in p_values:
            stream = self.devices[name].streams[group]
            sounds = (name, group) in found or (stream.alarmed and bool(stream.moved))
            if sounds != stream.alarmed:
                stream.alarmed = sounds
                self._known.pop(name, None)

    def _state(self, place: Place) -> State:
        device = self.devices.get(place.device)
        if device is None:
            return State(device=place.device, site=place.site, profile=place.profile)
        streams = device.streams
        moved = [
            m
            for group in GROUPS
            if group in streams
            for m in streams[group].moved
            if self.tails[group].p_value(m.score) <= UNUSUAL
        ]
        since = [s.since for s in streams.values() if s.since is not None]
        return State(
            device=place.device,
            site=place.site,
            profile=place.profile,
            judged="inputs" in streams and streams["inputs"].past is not None,
            alarmed=any(s.alarmed for s in streams.values()),
            lasted=max((s.lasted for s in streams.values()), default=0),
            season=next((s.season for s in streams.values() if s.alarmed and s.season), ""),
            moved=tuple(moved),
            since=min(since, default=None),
            skewed=device.skewed,
            version=device.version,
            version_since=device.version_since,
            accuracy_change=_accuracy_change(device, self._fitted.known(device.digest)),
            unit_seconds=max(
                (s.recent[-1][1].seconds for s in streams.values() if s.recent), default=0.0
            ),
        )


def _accuracy_change(device: Device, known: Estimator | None) -> float | None:
    """Estimated accuracy of the last windows minus that of the past; None if not known.

    A version that has no past yet is held against the held-out rows. A bundle without a calibration
    is taken for one that is calibrated well enough to say so.
    """
    answers, inputs = (device.streams.get(group) for group in ("answers", "inputs"))
    if answers is None or not answers.recent or CONFIDENCE not in answers.layout.names:
        return None
    now, past = _newest(answers), answers.past
    if known is None:
        i = answers.layout.names.index(CONFIDENCE)
        return float(now.means[i] - past.counts.means[i]) if past else None
    if inputs is None or not inputs.recent:
        return None
    here = known(_seen(answers.layout, now, inputs.layout, _newest(inputs)))
    if here is None:
        return None
    if past is None or inputs.past is None:
        return here.accuracy - known.usual
    before = known(_seen(answers.layout, past.counts, inputs.layout, inputs.past.counts))
    return here.accuracy - before.accuracy if before else None


def _newest(stream: Stream) -> Counts:
    """The last windows as one."""
    now = stream.recent[-1][2]
    for _, _, unit in stream.recent[-2:-1]:
        now = now + unit
    return now


def _seen(layout: Layout, answers: Counts, of_inputs: Layout, inputs: Counts) -> Seen:
    confidence, classes = (layout.names.index(name) for name in (CONFIDENCE, CLASSES))
    sizes = [len(layout.edges[CONFIDENCE]) + 1, layout.width]
    return Seen(
        answers.bins[confidence][: sizes[0]],
        answers.bins[classes],
        {**_input_means(of_inputs, inputs), **_input_means(layout, answers)},
    )


def _input_means(layout: Layout, counts: Counts) -> dict[str, float]:
    told = zip(layout.names, counts.means.tolist(), counts.rows.tolist(), strict=True)
    return {
        name: mean
        for name, mean, rows in told
        if rows and name in layout.edges and name.startswith("input.")
    }
