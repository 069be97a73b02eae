"""PURE: lists in pages. A page tells where the next one begins; asking costs the same anywhere."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from edge_sdk.errors import InvalidInputError
from fleet_server.api_types import Page

T = TypeVar("T")
MAX_PAGE = 500
LONGEST_PLACE = 18  # digits; any such number fits a column


def page_of(rows: Sequence[T], key: Callable[[T], str], after: str, limit: int) -> Page[T]:
    """The rows behind the one whose key is `after`; from the first on if that is empty.

    Raises:
        InvalidInputError: no row has that key, so nobody can say what comes behind it.

    >>> page_of("abc", str, "a", 1)
    Page(items=('b',), next='b')
    """
    begin = 0
    if after:
        places = [place for place, row in enumerate(rows) if key(row) == after]
        if not places:
            raise InvalidInputError(f"no entry {after[:64]!r} is left here: begin without 'after'")
        begin = places[0] + 1
    return first_of(rows[begin:], key, limit)


def place_of(after: str) -> int:
    """Behind which place a list of numbered rows goes on; 0 for its beginning.

    Raises:
        InvalidInputError: no page ever named this place.

    >>> place_of("")
    0
    >>> place_of("17")
    17
    """
    if not after:
        return 0
    if not (after.isascii() and after.isdecimal() and len(after) <= LONGEST_PLACE):
        raise InvalidInputError(f"'after' is {after[:64]!r}, which no page gave: begin without it")
    return int(after)


def appended(rows: Sequence[T], after: str, limit: int) -> Page[T]:
    """A page of a list that only grows at its end; the cursor is a place in it.

    >>> appended("abc", "1", 1)
    Page(items=('b',), next='2')
    """
    begin = place_of(after)
    end = begin + within(limit)
    return Page(tuple(rows[begin:end]), str(end) if end < len(rows) else None)


def first_of(rows: Sequence[T], key: Callable[[T], str], limit: int) -> Page[T]:
    """A page of rows that begin where it does; one more than `limit` tells of another page."""
    most = within(limit)
    shown = tuple(rows[:most])
    return Page(shown, key(shown[-1]) if len(rows) > most else None)


def within(limit: int) -> int:
    """How many rows a page may have."""
    return min(max(limit, 1), MAX_PAGE)
