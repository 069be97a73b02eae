"""The only SQL of the server; rows come and go as `records`."""

from fleet_server.store.control import Control
from fleet_server.store.devices import Devices
from fleet_server.store.erasure import Erasure
from fleet_server.store.listing import Listing
from fleet_server.store.rollouts import Rollouts
from fleet_server.store.samples import Samples
from fleet_server.store.upkeep import Upkeep

__all__ = ["Store"]


class Store(Devices, Control, Rollouts, Listing, Erasure, Samples, Upkeep):
    """The server's database: `Store(where)` opens and migrates it."""
