"""What labels tell: alerts about answers that became wrong, or are sure for no reason."""

import msgspec
import numpy as np
import pytest

from edge_sdk.sketch import make_baseline
from fleet_server.labels import Label
from fleet_server.rollups import Slice, Whereabouts
from fleet_server.truth import told_by_labels
from tests.fleet_sim import FleetSim

SITES = ("north", "south", "east")
PLACES = {f"d{i}": Whereabouts("p", Slice("", SITES[i % 3], "")) for i in range(9)}


def rows(wrong, rng, count=1800, confidence=0.9):
    """Labels of nine devices in turn, where `wrong(site, i)` is the chance of a wrong answer."""
    made = []
    for i in range(count):
        label = "a" if rng.random() >= wrong(SITES[i % 3], i) else "b"
        made.append(
            Label(device=f"d{i % 9}", row=str(i), model="digits", version="1", predicted="a",
                  label=label, taken_at=1000.0 + i, confidence=confidence)
        )  # fmt: skip
    return made


def calibrated(rng, accuracy):
    held = np.full(2000, 0.9)
    right = (rng.random(2000) < accuracy).astype(float)
    columns = {"output.confidence": held, "output.class": np.zeros(2000)}
    return {"1": make_baseline(columns, ("a", "b"), right)}


def test_a_site_whose_right_answers_changed_is_one_finding_with_its_cost():
    rng = np.random.default_rng(1)

    def wrong(site, i):
        return 0.6 if site == "north" and i >= 900 else 0.1

    [found] = told_by_labels(rows(wrong, rng), PLACES, calibrated(rng, 0.9))
    assert (found.kind, found.cause, found.scope) == ("concept drift", "labels", "site=north")
    assert found.devices == ("d0", "d3", "d6")
    assert found.loss == pytest.approx(0.5, abs=0.1)
    assert found.severity == "critical"
    assert "60 %" in found.title or "wrong in" in found.title
    assert found.versions == ("1",)


def test_a_model_that_is_right_less_often_than_it_says_is_a_calibration_drift():
    rng = np.random.default_rng(2)
    labels = rows(lambda site, i: 0.3, rng)
    [found] = told_by_labels(labels, PLACES, calibrated(rng, 0.9))
    assert (found.kind, found.scope) == ("calibration drift", "fleet")
    assert found.loss == pytest.approx(0.2, abs=0.03)
    assert "its confidences promise 90 %" in found.title
    assert told_by_labels(labels, PLACES, calibrated(rng, 0.7)) == []  # it promised no more
    assert told_by_labels(labels[:99], PLACES, calibrated(rng, 0.9)) == []  # too few to tell


@pytest.mark.parametrize("seed", range(8))
def test_labels_without_a_change_say_nothing(seed):
    rng = np.random.default_rng(seed)
    labels = rows(lambda site, i: 0.1, rng)
    assert told_by_labels(labels, PLACES, calibrated(rng, 0.9)) == []
    picked = [msgspec.structs.replace(x, audit=False, label="b") for x in labels]
    assert told_by_labels(picked, PLACES, calibrated(rng, 0.9)) == []  # no audit


def test_labels_that_arrive_open_an_alert_that_closes_when_they_say_otherwise(tmp_path, database):
    sim = FleetSim(tmp_path, database, devices=3)
    with sim.store:
        sim.publish("1")
        sim.run(2)
        rng = np.random.default_rng(3)
        made = [
            msgspec.structs.replace(x, device=f"d{i % 3:02}", taken_at=sim.now - 1800 + i)
            for i, x in enumerate(rows(lambda site, i: 0.1 if i < 900 else 0.6, rng))
        ]
        sim.store.add_labels(made, sim.now)
        sim.now += 60
        sim.run(2)
        [alert] = sim.store.open_alerts()
        assert (alert.kind, alert.scope) == ("concept drift", "digits fleet")
        sim.store.add_labels([msgspec.structs.replace(x, label=x.predicted) for x in made], sim.now)
        sim.now += 60
        sim.run(15)
        assert sim.store.open_alerts() == []
