"""One more ingest worker beside a server: its share of a broker's messages, into the database."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fleet_server.broker import BrokerLink, parse_broker
from fleet_server.credentials import Credentials
from fleet_server.data_dir import KEYS
from fleet_server.ingest import Ingest, collect_seldom
from fleet_server.keyring import open_keyring, pinned_root
from fleet_server.store import Store

FORGET_SECONDS = 10.0  # so soon a worker hears that a device was revoked


class Worker:
    """Runs until `stop`."""

    def __init__(
        self, data_dir: Path, database: str, broker: str, name: str, *, now: Callable[[], float]
    ) -> None:
        self._keys, self._database = data_dir / KEYS, database
        self._address, self._name = parse_broker(broker), f"edge-ingest-{name}"
        self._now = now
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End `work`; call it on the event loop."""
        self._stopping.set()

    async def work(self) -> None:
        """Raises EdgeError: no server ever ran on the data folder, the database can't be used."""
        collect_seldom()
        keyring = open_keyring(
            self._keys, [], self._keys / "nobody.pub", lambda: pinned_root(self._keys)
        )
        with Store(self._database) as store:
            credentials = Credentials(store, keyring.exchange)
            ingest = Ingest(
                store,
                credentials,
                acknowledge=lambda device, payload: link.publish(device, "ack", payload),
                changed=lambda: None,
                now=self._now,
            )
            link = BrokerLink(ingest, self._address, self._keys, worker=self._name)
            await link.start()
            storing = asyncio.create_task(ingest.run())
            while not self._stopping.is_set() and not storing.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), FORGET_SECONDS)
                credentials.forget_all()
            await link.stop()
            await ingest.close()
            await storing
