"""When an update may begin: metered links, maintenance windows and room on the disk, decided.

A window that an order names holds the change of the model, even to one that is here already; the
device's own is about downloads alone. One that has begun is not broken off when its window closes.
No clock and no disk here.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import DeliveryPolicy

DAY = 24 * 60  # minutes
RESERVE = 4 * 1024 * 1024  # bytes that stay free for state and outbox
Kind = Literal["metered", "window", "room"]


class DailyWindow(msgspec.Struct, frozen=True):
    """From one minute of the day to another, past midnight if it ends before it begins."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> "DailyWindow":
        """Raises InvalidInputError.

        >>> DailyWindow.parse("22:30-04:00")
        DailyWindow(begin=1350, end=240)
        """
        found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text.strip())
        numbers = [int(part) for part in found.groups()] if found else []
        if not numbers or max(numbers[::2]) > 23 or max(numbers[1::2]) > 59:
            raise InvalidInputError(f"window {text!r} must look like 02:00-04:00, in local time")
        begin, end = 60 * numbers[0] + numbers[1], 60 * numbers[2] + numbers[3]
        if begin == end:
            raise InvalidInputError(f"window {text!r} begins when it ends")
        return cls(begin, end)

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day lies in it."""
        return (minute - self.begin) % DAY < (self.end - self.begin) % DAY

    def __str__(self) -> str:
        clock = (f"{at // 60:02d}:{at % 60:02d}" for at in (self.begin, self.end))
        return "-".join(clock)


class Manners(msgspec.Struct, frozen=True):
    """What was asked of this device; `defer_above` is in bytes, for a metered link.

    `window` is the device's own, for downloads; `ordered` the one that the order itself names.
    """

    metered: bool = False
    defer_above: int = 0
    window: DailyWindow | None = None
    ordered: DailyWindow | None = None


class Moment(msgspec.Struct, frozen=True):
    """What counts when a download could begin; `minute` of the local day, `free` bytes on disk."""

    minute: int
    free: int
    runs: bool


class Hold(msgspec.Struct, frozen=True):
    """Why it waits. The same `kind` is told once, though its words may change with the moment."""

    kind: Kind
    words: str


def tightened(manners: Manners, policy: DeliveryPolicy) -> Manners:
    """The device's manners under an order: the order may ask for more patience, never for less.

    Raises:
        InvalidInputError: the order's window can't be read.
    """
    return msgspec.structs.replace(
        manners,
        defer_above=manners.defer_above if policy.metered else 0,
        ordered=DailyWindow.parse(policy.window) if policy.window else None,
    )


def tighter_rate(own: int, ordered: int) -> int:
    """The lower of two byte rates, where 0 is no limit.

    >>> tighter_rate(0, 500), tighter_rate(300, 500), tighter_rate(300, 0)
    (500, 300, 300)
    """
    return min((rate for rate in (own, ordered) if rate > 0), default=0)


def why_wait(manners: Manners, coming: int, moment: Moment) -> Hold | None:
    """Why `coming` bytes must wait; None if they may come now."""
    if manners.metered and coming > manners.defer_above:
        return Hold(
            "metered",
            f"the link is metered and {coming:,} bytes are above the {manners.defer_above:,} "
            "allowed on it: waits until [link] metered is false, or for a USB stick",
        )
    if shut := _shut((manners.window, manners.ordered), moment):
        return shut
    if moment.free < coming + RESERVE:
        return Hold(
            "room",
            f"{coming:,} bytes are to come and {RESERVE:,} must stay free, the state folder's "
            f"disk has {moment.free:,}: waits until there is room",
        )
    return None


def why_not_change(manners: Manners, moment: Moment) -> Hold | None:
    """Why an order for a bundle that is here must wait; None if the model may change now."""
    return _shut((manners.ordered,), moment)


def _shut(windows: Iterable[DailyWindow | None], moment: Moment) -> Hold | None:
    """A device on which nothing runs has nothing to protect, so it waits for no window."""
    for window in windows:
        if window and moment.runs and not window.holds(moment.minute):
            return Hold("window", f"waits for the maintenance window {window} (local time)")
    return None
