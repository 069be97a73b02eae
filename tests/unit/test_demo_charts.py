"""The report's pictures: well-formed, inside their frame, and with hostile names escaped."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.demo.charts import HEIGHT, WIDTH, Mark, lines, stacked_steps

values = st.floats(-1e6, 1e6)
series = st.dictionaries(
    st.text("ab<&\"'", min_size=1, max_size=4),
    st.lists(st.tuples(values, values), min_size=1, max_size=10),
    min_size=1,
    max_size=6,
)


def corners(svg):
    """Every point of the lines and areas of a chart."""
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    for shape in [*root.iter("polyline"), *root.iter("polygon")]:
        for pair in shape.attrib["points"].split():
            x, y = pair.split(",")
            yield float(x), float(y)


@given(series)
def test_every_point_lies_on_the_picture(given_series):
    for x, y in corners(lines(given_series, [Mark(0.0, "<b>")], "unit")):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_stacked_counts_fill_the_frame_where_they_add_up_to_the_most():
    svg = stacked_steps({"v1": [(0, 3), (1, 1)], "v2": [(0, 0), (1, 2)]}, [], "devices")
    tops = [y for _, y in corners(svg)]
    assert min(tops) == min(y for _, y in corners(stacked_steps({"v": [(0, 3)]}, [], "u")))


def test_without_data_it_says_so():
    assert lines({}, [], "unit") == "<p>no data</p>"
    assert stacked_steps({}, [], "unit") == "<p>no data</p>"
