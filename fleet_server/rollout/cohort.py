"""Who is reached when: a stratified hash, so neither the first to answer nor the healthiest."""

import hashlib
import math
from collections.abc import Mapping, Sequence

from fleet_server.rollout.grammar import Phase


def reached_by(phase: Phase, devices: int) -> int:
    """How many of the devices a phase reaches."""
    return min(devices, phase.count) if phase.count else reach(phase.share, devices)


def reach(share: float, devices: int) -> int:
    """How many devices a share is; at least one for any share above zero."""
    return min(devices, max(1, math.ceil(share * devices - 1e-9))) if devices and share else 0


def cohort_order(devices: Sequence[tuple[str, str, str]], seed: str) -> list[str]:
    """Device ids in the order in which a rollout reaches them, from (id, site, profile).

    A stratified hash: every prefix holds about the same share of each site, and within a site of
    each profile; inside a stratum the order is a hash of seed and id.

    >>> fleet = [(f"d{i}", "ns"[i % 2], "pi") for i in range(8)]
    >>> sorted(id[1:] in "0246" for id in cohort_order(fleet, "r1")[:4])
    [False, False, True, True]
    """

    def draw(device: str) -> str:
        return hashlib.sha256(f"{seed}/{device}".encode()).hexdigest()

    def spread(groups: Mapping[str, list[str]]) -> list[str]:
        placed = [
            ((rank + 0.5) / len(ids), draw(device), device)
            for ids in groups.values()
            for rank, device in enumerate(ids)
        ]
        return [device for _, _, device in sorted(placed)]

    sites: dict[str, dict[str, list[str]]] = {}
    for device, site, profile in sorted(devices, key=lambda d: draw(d[0])):
        sites.setdefault(site, {}).setdefault(profile, []).append(device)
    return spread({site: spread(profiles) for site, profiles in sites.items()})
