"""What comes back is normal (weekdays, modes, seasons); what creeps is never learnt."""

import msgspec
import numpy as np

from edge_sdk.messages import Hardware, Window
from edge_sdk.sketch import make_baseline, sketch
from fleet_server.decay import Place, Taken, Watch, findings
from fleet_server.decay.keeping import pack, unpack
from fleet_server.decay.modes import modes_of

HOUR, DAY = 3600.0, 86400.0
MONDAY = 1_799_625_600.0  # 2027-01-11, midnight UTC
NAMES = ("input.a", "input.b", "input.c")
BASELINE = make_baseline(
    {name: np.random.default_rng(i).normal(0, 1, 2000) for i, name in enumerate(NAMES)}, ()
)
DEVICES = ("n1", "n2", "s1", "s2")
PLACES = [Place(d, "north" if d[0] == "n" else "south") for d in DEVICES]


def live(days, mean_of, *, every=HOUR, restart_at=None, board=None):
    """What is found hour by hour where `mean_of(device, t)` moves the first channel; t in hours."""
    rng, watch, told = np.random.default_rng(3), Watch(), []
    for hour in range(int(days * DAY / every)):
        at = MONDAY + hour * every
        if restart_at is not None and hour == int(restart_at * DAY / every):
            watch = restarted(watch)
        for device in DEVICES:
            means = (mean_of(device, hour * every / HOUR), 0.0, 0.0)
            columns = {n: rng.normal(m, 1, 200) for n, m in zip(NAMES, means, strict=True)}
            window = Window(
                model="m", version="1", digest="d", edges_id="e", seconds=every, rows=200,
                channels={n: sketch(BASELINE.channels[n], v) for n, v in columns.items()},
                hardware=board(device, hour) if board else None,
            )  # fmt: skip
            watch.add(Taken(device, at, window, BASELINE))
        told.append(findings(watch.states(PLACES)))
    return told


def restarted(watch):
    again = Watch()
    for name, device in watch.devices.items():
        again.restore(name, unpack(pack(device)))
    again.restore_tails(watch.scores())
    return again


def first(told, kind):
    return next((i for i, found in enumerate(told) if any(f.kind == kind for f in found)), None)


def weekend(device, t):
    return 1.5 if device[0] == "n" and int(t // 24) % 7 >= 5 else 0.0


def test_a_weekend_is_news_once_then_a_season_then_normal_and_on_a_wednesday_it_is_a_drift():
    def also_on_a_wednesday(device, t):
        broken = device[0] == "n" and t >= 24 * 30 + 6  # the fifth week's Wednesday
        return 1.5 if broken else weekend(device, t)

    told = live(30.5, also_on_a_wednesday, restart_at=10)[3:]  # a weekend is over by 3 on Monday
    week = [{f.kind for found in told[n * 168 :][:168] for f in found} for n in range(5)]
    assert week[:2] == [{"data drift"}, {"season"}]
    assert week[2] <= {"season"}
    assert week[3:] == [set(), {"data drift"}]
    season = next(f for found in told[168:336] for f in found)
    assert (season.scope, season.cause, season.severity) == ("site=north", "season", "info")
    assert "whole weeks before" in season.detail


def test_modes_that_a_device_changes_between_are_normal_and_a_drift_within_one_is_seen():
    def machine(device, t, off=0.0):
        running = int(t // 3) % 2  # three hours on, three hours off
        return 4.0 * running + (off if device[0] == "n" else 0.0)

    assert {f.kind for found in live(6, machine) for f in found} == {"distribution skew"}
    told = live(4, lambda device, t: machine(device, t, 0.8 if t >= 72 else 0.0))
    assert first(told[:72], "data drift") is None
    assert first(told[72:], "data drift") <= 3


def test_modes_are_clusters_that_come_back_no_rhythm_no_step_and_no_noise():
    rng = np.random.default_rng(1)
    hours = np.arange(48)

    def modes(values):
        features = np.stack([values + rng.normal(0, 0.1, 48), rng.normal(0, 0.1, 48)], axis=1)
        return len(set(modes_of(features, np.array([0.3, 0.3])).tolist()))

    assert modes(np.sin(2 * np.pi * hours / 24)) == 1
    assert modes(np.where(hours < 24, 0.0, 3.0)) == 1
    assert modes(np.zeros(48)) == 1
    assert modes(np.where(hours % 4 < 2, 0.0, 3.0)) == 2
    assert modes(np.choose(hours // 2 % 3, [0.0, 3.0, 7.0])) == 3


def test_a_slow_drift_is_not_learnt_whatever_hour_and_weekday_it_passes():
    a_day = 0.08  # deviations
    told = live(21, lambda device, t: a_day * t / 24 if device[0] == "n" else 0.0)
    found = first(told, "data drift")
    assert found is not None
    assert found * a_day / 24 < 1.2
    assert [f.scope for f in told[-1]] == ["site=north"]


def test_boards_that_get_hot_and_are_held_back_are_hardware_drift():
    def board(device, hour):
        hot = hour >= 30 and device[0] == "n"
        flags = ("throttled", "throttled-before") if hot else ("under-voltage-before",)
        return Hardware(temperature=78.0 if hot else 52.0 + hour % 3, flags=flags)

    told = live(1.5, lambda device, t: 0.0, board=board)
    assert not any(told[:30])
    [found] = told[33]
    assert (found.kind, found.cause, found.scope) == ("hardware drift", "hardware", "site=north")
    assert "temperature rose from 53 to 78 °C" in found.title
    assert "throttled or under-voltage in 100 % of windows" in found.detail


def test_what_is_known_of_a_device_comes_back_from_its_bytes():
    watch = Watch()
    rng = np.random.default_rng(5)
    for hour in range(40):
        columns = {n: rng.normal(3.0 * (hour // 2 % 2), 1, 100) for n in NAMES}
        window = Window(
            model="m", version="1", digest="d", edges_id="e", seconds=HOUR, rows=100,
            channels={n: sketch(BASELINE.channels[n], v) for n, v in columns.items()},
        )  # fmt: skip
        watch.add(Taken("a", MONDAY + hour * HOUR, window, BASELINE))
    stream = unpack(pack(watch.devices["a"])).streams["inputs"]
    known = watch.devices["a"].streams["inputs"].past.normal
    assert len(stream.past.normal.modes) == 2
    for name in ("hours", "weekdays"):
        mine, theirs = getattr(known, name), getattr(stream.past.normal, name)
        for field in msgspec.structs.fields(mine):
            pair = getattr(mine, field.name), getattr(theirs, field.name)
            assert np.allclose(*pair, atol=1e-5), field.name
