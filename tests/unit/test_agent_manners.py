"""When a download may begin."""

import pytest

from device_agent.manners import (
    RESERVE,
    DailyWindow,
    Manners,
    Moment,
    tightened,
    why_not_change,
    why_wait,
)
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import DeliveryPolicy

PLENTY = 10**12


def at(clock: str, *, free: int = PLENTY, runs: bool = True) -> Moment:
    hours, minutes = clock.split(":")
    return Moment(60 * int(hours) + int(minutes), free, runs)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("02:00-04:00", ["02:00", "03:59"], ["01:59", "04:00", "14:00"]),
        ("22:30-04:00", ["22:30", "00:00", "03:59"], ["22:29", "04:00", "12:00"]),
    ],
)
def test_a_download_waits_for_the_window_of_the_day_even_past_midnight(window, inside, outside):
    manners = Manners(window=DailyWindow.parse(window))
    assert all(why_wait(manners, 10, at(clock)) is None for clock in inside)
    for clock in outside:
        assert window in why_wait(manners, 10, at(clock)).words


def test_a_device_on_which_nothing_runs_waits_for_no_window():
    manners = Manners(window=DailyWindow.parse("02:00-04:00"))
    assert why_wait(manners, 10, at("12:00", runs=False)) is None


@pytest.mark.parametrize("text", ["", "2-4", "24:00-04:00", "02:60-04:00", "02:00-02:00", "x"])
def test_a_window_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(InvalidInputError):
        DailyWindow.parse(text)


def test_a_metered_link_defers_what_is_above_its_limit_and_says_both_numbers():
    manners = Manners(metered=True, defer_above=1000)
    assert why_wait(manners, 1000, at("12:00")) is None
    assert "1,001 bytes are above the 1,000" in why_wait(manners, 1001, at("12:00")).words
    assert why_wait(Manners(defer_above=1000), 1001, at("12:00")) is None


def test_an_order_may_ask_for_more_patience_than_the_device_but_never_for_less():
    own = Manners(metered=True, defer_above=1000, window=DailyWindow.parse("02:00-04:00"))
    free = tightened(own, DeliveryPolicy())
    assert why_wait(free, 1000, at("03:00")) is None
    assert why_wait(free, 1000, at("12:00")).kind == "window"
    strict = tightened(own, DeliveryPolicy(window="03:30-05:00", metered=False))
    assert why_wait(strict, 1, at("03:45")).kind == "metered"
    assert why_wait(strict, 0, at("03:45")) is None
    assert "03:30-05:00" in why_wait(strict, 0, at("03:00")).words
    assert "02:00-04:00" in why_wait(strict, 0, at("04:30")).words
    with pytest.raises(InvalidInputError, match="must look like"):
        tightened(own, DeliveryPolicy(window="at night"))


def test_a_model_that_is_here_changes_in_the_window_of_the_order_whatever_the_link_and_the_disk():
    own = Manners(metered=True, window=DailyWindow.parse("02:00-04:00"))
    noon = at("12:00", free=0)
    assert why_not_change(tightened(own, DeliveryPolicy()), noon) is None
    ordered = tightened(own, DeliveryPolicy(window="11:00-11:30"))
    assert "11:00-11:30" in why_not_change(ordered, noon).words
    assert why_not_change(ordered, at("11:29")) is None
    assert why_not_change(ordered, at("12:00", runs=False)) is None


def test_room_is_kept_for_state_and_outbox():
    assert why_wait(Manners(), 100, at("12:00", free=RESERVE + 100)) is None
    hold = why_wait(Manners(), 100, at("12:00", free=RESERVE + 99))
    assert hold.kind == "room"
