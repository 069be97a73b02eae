"""The Pareto front and its picture."""

import itertools
import xml.etree.ElementTree as ET

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from converters.front import Point, front, picture
from converters.recipe import SourceFacts
from converters.result import Candidate, Conversion, Host
from tests.unit.test_convert_gate import GOOD, changed

SIZES = st.tuples(st.integers(1, 50), st.integers(0, 20))


@given(st.lists(SIZES, min_size=1, max_size=12))
def test_nothing_beats_the_front_and_whatever_is_off_it_is_beaten(values):
    all_points = [Point(str(i), size, hits / 20) for i, (size, hits) in enumerate(values)]
    best = front(all_points)

    def beaten(point):
        return any(
            other.bytes <= point.bytes
            and other.accuracy >= point.accuracy
            and (other.bytes, other.accuracy) != (point.bytes, point.accuracy)
            for other in all_points
        )

    assert not any(beaten(point) for point in best)
    places = {(point.bytes, point.accuracy) for point in best}
    assert all(beaten(p) or (p.bytes, p.accuracy) in places for p in all_points)


def conversion(*candidates):
    return Conversion(
        name="net", version="1", source=SourceFacts("tf_keras", (4,), (2,), 9), calibration_rows=9,
        held_out_rows=90, train_rows=0, left_out_rows=0, max_drop=0.01, candidates=candidates,
        profiles=(), host=Host("x", "x", 1, "x", "3"), seconds=1.0,
    )  # fmt: skip


def test_the_picture_shows_each_measured_candidate_and_the_float_model():
    names = ("int8", "a<b", "float32")
    sizes = {"int8": 20_000, "a<b": 12_000, "float32": 70_000}
    made = [
        Candidate(recipe=n, measurement=changed(GOOD, compressed_bytes=sizes[n])) for n in names
    ]
    found = picture(conversion(*made, Candidate(recipe="qat", failed="no training rows")))
    root = ET.fromstring(found)  # noqa: S314 - our own picture
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*names, "float model 0.9800"} <= {*texts}
    assert "qat" not in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3


def test_names_stand_apart_and_what_loses_far_more_than_allowed_squeezes_nothing():
    close = {f"r{i}": GOOD.metrics.accuracy + i * 1e-4 for i in range(9)}
    made = [
        Candidate(
            recipe=name,
            measurement=changed(
                GOOD,
                compressed_bytes=9000 + i,
                metrics=msgspec.structs.replace(GOOD.metrics, accuracy=value),
            ),
        )
        for i, (name, value) in enumerate({**close, "lost": 0.1}.items())
    ]
    root = ET.fromstring(picture(conversion(*made)))  # noqa: S314 - our own picture
    texts = {t.text: t for t in root.iter("{http://www.w3.org/2000/svg}text")}
    heights = sorted(float(texts[name].get("y")) for name in close)
    assert all(after - before >= 13.9 for before, after in itertools.pairwise(heights))
    assert "lost (0.1000)" in texts
    circles = [float(c.get("cy")) for c in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert max(circles) - min(circles) > 300
    ticks = [float(t) for t in texts if t.replace(".", "").isdigit() and t.startswith("0.")]
    assert min(ticks) > 0.9


def test_a_conversion_without_a_model_says_so():
    assert "no candidate was measured" in picture(conversion(Candidate(recipe="qat", failed="x")))
