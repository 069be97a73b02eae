"""That something changed, told to whoever is looking; what changed they read from the store."""

import asyncio
from collections.abc import AsyncIterator


class Changes:
    """A bell: `notify` rings it, everyone in `rings` hears it. All on the event loop."""

    def __init__(self) -> None:
        self._number = 0
        self._closed = False
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._number += 1
        self._wake()

    def close(self) -> None:
        """End every `rings`, so that connections which wait can be closed."""
        self._closed = True
        self._wake()

    async def rings(self) -> AsyncIterator[int]:
        """The number of the newest change, each time there is one; a slow listener skips some."""
        heard = self._number
        while not self._closed:
            if heard == self._number:
                await self._next.wait()
                continue
            heard = self._number
            yield heard

    def _wake(self) -> None:
        event, self._next = self._next, asyncio.Event()
        event.set()
