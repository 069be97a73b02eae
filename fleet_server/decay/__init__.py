"""Knowing that a model gets worse: where, why, what it costs and what to do.

Pure: windows in, findings out. `Watch` follows the devices of one model, `findings` puts those that
stand out together by cause. `drift_alerts` is the shell around it.
"""

from fleet_server.decay.causes import Finding, Kind, findings
from fleet_server.decay.distances import psi
from fleet_server.decay.past import DAY
from fleet_server.decay.stream import Movement
from fleet_server.decay.watch import Place, State, Taken, Watch

__all__ = [
    "DAY",
    "Finding",
    "Kind",
    "Movement",
    "Place",
    "State",
    "Taken",
    "Watch",
    "findings",
    "psi",
]
