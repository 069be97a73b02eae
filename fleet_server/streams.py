"""Which numbered messages of one boot of a device have arrived. Pure.

Delivery is at least once and may leave gaps for a while; a message counts once, and what may be
acknowledged is everything up to the first gap.
"""

from bisect import bisect_left

import msgspec

MAX_GAPS = 1000


class Stream(msgspec.Struct, frozen=True):
    """What has arrived of one boot.

    Attributes:
        contiguous: everything up to and including this number.
        ahead: closed ranges beyond it, ascending, with a gap before each.
    """

    contiguous: int = 0
    ahead: tuple[tuple[int, int], ...] = ()


def admit(stream: Stream, seq: int) -> Stream | None:
    """The stream with `seq` in it; None if it was there already.

    >>> admit(admit(Stream(), 1), 3)
    Stream(contiguous=1, ahead=((3, 3),))
    >>> admit(Stream(1, ((3, 3),)), 2)
    Stream(contiguous=3, ahead=())
    """
    if seq <= stream.contiguous:
        return None
    if seq == stream.contiguous + 1 and not stream.ahead:
        return Stream(seq)
    ranges = list(stream.ahead)
    at = bisect_left(ranges, seq, key=lambda pair: pair[1])
    if at < len(ranges) and ranges[at][0] <= seq:
        return None
    first = last = seq
    if at < len(ranges) and ranges[at][0] == seq + 1:
        last = ranges.pop(at)[1]
    if at > 0 and ranges[at - 1][1] == seq - 1:
        at -= 1
        first = ranges.pop(at)[0]
    ranges.insert(at, (first, last))
    if ranges[0][0] == stream.contiguous + 1:
        return Stream(ranges[0][1], tuple(ranges[1:]))
    return Stream(stream.contiguous, tuple(ranges))
