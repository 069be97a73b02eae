"""The Pareto front and its picture."""

import xml.etree.ElementTree as ET

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


def test_a_conversion_without_a_model_says_so():
    assert "no candidate was measured" in picture(conversion(Candidate(recipe="qat", failed="x")))
