"""Numbers of messages: each once, acknowledged up to the first gap."""

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.streams import Stream, admit


@given(st.lists(st.integers(1, 40), max_size=80))
def test_whatever_the_order_each_number_counts_once_and_the_prefix_is_acknowledged(numbers):
    stream, seen = Stream(), set()
    for seq in numbers:
        after = admit(stream, seq)
        assert (after is None) == (seq in seen)
        stream = after or stream
        seen.add(seq)
        prefix = next(n for n in range(50) if n + 1 not in seen)
        assert stream.contiguous == prefix
    held = {n for first, last in stream.ahead for n in range(first, last + 1)}
    assert held == {n for n in seen if n > stream.contiguous}


@given(st.permutations(range(1, 12)))
def test_when_all_have_come_nothing_is_left_to_remember(numbers):
    stream = Stream()
    for seq in numbers:
        stream = admit(stream, seq)
    assert stream == Stream(11)
