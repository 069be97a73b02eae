"""Tell systemd that we are up, and then that we are alive: sd_notify in a few lines."""

import os
import socket


def notify(state: str) -> bool:
    """Send one state, as `READY=1` or `WATCHDOG=1`; False if nobody asked for it or listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        try:
            link.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError:
            return False  # no reason to stop inferring
    return True


class Watchdog:
    """Says `WATCHDOG=1`, but not more often than every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every, self._due = every, 0.0

    def alive(self, now: float) -> None:
        """Called by the thread that decides, with a monotonic clock; if it is stuck, so is this."""
        if now >= self._due:
            self._due = now + self._every
            notify("WATCHDOG=1")
