"""Drift: found where it is, told once, priced, and silent on a fleet that does not move."""

import msgspec
import numpy as np
import pytest

from edge_sdk.channels import InputSchema, input_channels, output_channels
from edge_sdk.messages import Window
from edge_sdk.sketch import make_baseline, sketch
from edge_sdk.subspace import NOVELTY, channel_novelty, fit_channels
from fleet_server.decay import Place, Taken, Watch, findings, psi
from fleet_server.decay.causes import words
from fleet_server.decay.stream import Movement

SCHEMA = InputSchema(name="x", kind="image", shape=(8, 8, 1), low=0.0, high=16.0)


def scenes(rng, rows, gain=1.0):
    strength = rng.uniform(0.6, 1.4, (rows, 1, 1, 1))
    return np.clip(gain * strength * rng.gamma(2, 2.5, (rows, 8, 8, 1)), 0, 16)


def answers(rng, rows, confidence):
    top = np.clip(rng.normal(confidence, 0.05, rows), 0.4, 0.99)
    rest = (1 - top) / 2
    return np.stack([top, rest, rest], axis=1)


def channels(rng, gain, confidence, rows=100):
    return {
        **input_channels(SCHEMA, scenes(rng, rows, gain)),
        **output_channels(answers(rng, rows, confidence)),
    }


BASELINE = make_baseline(channels(np.random.default_rng(0), 1.0, 0.9, rows=2000), ("a", "b", "c"))


def follow(fault, *, windows=60, seed=1, sites=("north", "south", "east"), per_site=4):
    """Findings after `windows`, where `fault(device, site, t)` gives (gain, confidence)."""
    rng = np.random.default_rng(seed)
    watch = Watch(past_seconds=16)
    where = {f"{site}-{i}": site for site in sites for i in range(per_site)}
    for t in range(windows):
        for device, site in where.items():
            columns = channels(rng, *fault(device, site, t))
            found = {n: sketch(c, columns[n]) for n, c in BASELINE.channels.items()}
            window = Window(
                model="m", version="1", digest="d", edges_id=BASELINE.edges_id,
                seconds=1.0, rows=100, channels=found,
            )  # fmt: skip
            watch.add(Taken(device, float(t), window, BASELINE))
        states = watch.states([Place(device, site) for device, site in where.items()])
    return findings(states)


def test_a_darker_sensor_at_one_site_is_one_finding_that_names_site_feature_size_and_cost():
    def dark(device, site, t):
        return (0.6, 0.7) if site == "north" and t >= 30 else (1.0, 0.9)

    [found] = follow(dark, windows=40)
    assert found.scope == "site=north"
    assert (len(found.devices), found.of) == (4, 4)
    assert {m.channel for m in found.moved} >= {"input.brightness", "input.contrast"}
    assert all(m.shift < 0 for m in found.moved if m.channel == "input.brightness")
    assert "data drift at site north" in found.title
    assert "on 4 of 4 devices" in found.title
    assert found.loss == pytest.approx(0.2, abs=0.03)
    assert found.severity == "critical"


def test_a_drift_without_consequence_is_told_quietly():
    def harmless(device, site, t):
        return (0.6 if site == "north" and t >= 30 else 1.0, 0.9)

    [found] = follow(harmless, windows=40)
    assert found.severity == "info"


def test_the_whole_fleet_moving_is_one_finding_not_three():
    [found] = follow(lambda device, site, t: (0.6 if t >= 30 else 1.0, 0.9), windows=40)
    assert found.scope == "fleet"
    assert len(found.devices) == 12
    assert "in the whole fleet, 3 of 3 sites: " in found.title


def test_one_device_alone_is_told_as_its_sensor_but_not_for_one_odd_window():
    def stuck(device, site, t):
        return (0.5 if device == "north-0" and t >= 30 else 1.0, 0.9)

    def blinded(device, site, t):
        return (0.5 if device == "north-0" and t == 30 else 1.0, 0.9)

    assert follow(blinded, windows=31) == follow(blinded, windows=32) == []
    [found] = follow(stuck, windows=33)
    assert (found.scope, found.cause) == ("device=north-0", "sensor")


@pytest.mark.parametrize("seed", range(3))
def test_a_fleet_that_does_not_move_is_silent(seed):
    assert follow(lambda device, site, t: (1.0, 0.9), windows=60, seed=seed, per_site=3) == []


def test_a_fleet_with_a_slow_rhythm_of_its_own_is_silent():
    """Autocorrelated inputs: thresholds come from runs of the device's own windows."""
    rhythm = [1.0 + 0.1 * np.sin(t / 2) for t in range(60)]
    assert follow(lambda device, site, t: (rhythm[t], 0.9), windows=60, per_site=3) == []


def test_psi_is_zero_for_equal_shares_and_grows_with_distance():
    even = np.array([50.0, 50.0])
    assert psi(even, even * 3) == pytest.approx(0, abs=1e-4)
    assert psi(even, np.array([60.0, 40.0])) < psi(even, np.array([90.0, 10.0]))


def test_a_mean_that_is_zero_but_for_rounding_is_told_as_zero():
    fell = Movement("input.bright", 1.0, 0.1, -1.9, 0.0, before=0.0895, now=-0.000554, score=9.0)
    assert words(fell) == "bright fell from 0.0895 to 0 (-1.9 sd)"


def test_a_device_that_begins_with_broken_rows_is_followed_all_the_same():
    rng = np.random.default_rng(4)
    watch = Watch(past_seconds=16)
    broken = Window(
        model="m", version="1", digest="d", edges_id=BASELINE.edges_id, seconds=1.0, rows=0,
        skew={"shape": 100},
    )  # fmt: skip
    watch.add(Taken("a", 0.0, broken, BASELINE))
    for t in range(1, 30):
        columns = channels(rng, 0.5 if t > 25 else 1.0, 0.9)
        found = {n: sketch(c, columns[n]) for n, c in BASELINE.channels.items()}
        window = msgspec.structs.replace(broken, rows=100, skew={}, channels=found)
        watch.add(Taken("a", float(t), window, BASELINE))
    [state] = watch.states([Place("a")])
    assert state.judged
    assert "input.brightness" in {m.channel for m in state.moved}


def test_rows_that_no_longer_fit_the_schema_are_told_as_the_pipelines_fault():
    rng = np.random.default_rng(5)
    watch = Watch(past_seconds=16)
    for t in range(24):
        for device in ("a", "b", "c", "d"):
            columns = channels(rng, 1.0, 0.9)
            found = {n: sketch(c, columns[n]) for n, c in BASELINE.channels.items()}
            window = Window(
                model="m", version="1", digest="d", edges_id=BASELINE.edges_id, seconds=1.0,
                rows=100, skew={"range": 30} if t >= 20 and device in "ab" else {},
                channels=found,
            )  # fmt: skip
            watch.add(Taken(device, float(t), window, BASELINE))
            states = watch.states([Place(d, "north" if d in "ab" else "south") for d in "abcd"])
    [told] = findings(states)
    assert (told.kind, told.cause, told.scope) == ("schema skew", "pipeline", "site=north")
    assert told.loss == pytest.approx(30 / 130, abs=0.02)
    assert told.severity == "critical"
    assert "do not fit the input schema" in told.title


def test_what_begins_with_a_version_and_only_there_is_blamed_on_it():
    rng = np.random.default_rng(6)
    watch = Watch(past_seconds=16)
    for t in range(26):
        for device in ("a", "b", "c", "d", "e", "f"):
            new = t >= 21 and device in "ab"
            columns = channels(rng, 0.6 if new else 1.0, 0.9)
            found = {n: sketch(c, columns[n]) for n, c in BASELINE.channels.items()}
            window = Window(
                model="m", version="2" if new else "1", digest="e" if new else "d",
                edges_id=BASELINE.edges_id, seconds=1.0, rows=100, channels=found,
            )  # fmt: skip
            watch.add(Taken(device, float(t), window, BASELINE))
            states = watch.states([Place(d, "north" if d in "abc" else "south") for d in "abcdef"])
    [told] = findings(states)
    assert (told.cause, told.versions, told.devices) == ("version", ("2",), ("a", "b"))
    assert "roll it back" in told.action


def test_an_alert_outlives_a_new_version_though_each_measures_novelty_in_its_own_space():
    def novel(columns, space):
        return {**columns, NOVELTY: channel_novelty(space, columns)}

    rng, watch = np.random.default_rng(7), Watch(past_seconds=16)
    shaped = channels(rng, 1.0, 0.9, rows=2000)
    pictured = {name: x for name, x in shaped.items() if name.startswith("input.")}
    spaces = [fit_channels({n: x[i::2] for n, x in pictured.items()}) for i in range(2)]
    bases = [make_baseline(novel(shaped, space), ("a", "b", "c")) for space in spaces]
    for t in range(40):
        for device in "abcdef":
            gain, new = 0.6 if t >= 24 and device in "abc" else 1.0, t >= 32
            columns = novel(channels(rng, gain, 0.9), spaces[new])
            window = Window(
                model="m", version="2" if new else "1", digest="e" if new else "d",
                edges_id=bases[new].edges_id, seconds=1.0, rows=100,
                channels={n: sketch(c, columns[n]) for n, c in bases[new].channels.items()},
            )  # fmt: skip
            watch.add(Taken(device, float(t), window, bases[new]))
        states = watch.states([Place(d, "north" if d in "abc" else "south") for d in "abcdef"])
    [told] = findings(states)
    assert (told.kind, told.scope, told.cause) == ("data drift", "site=north", "environment")
