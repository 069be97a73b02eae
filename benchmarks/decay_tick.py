"""What following 1,000 devices for drift costs the server, a second at a time.

Each device sends a window of 600 rows of 74 channels a minute, so a tick of one second takes in 17
of them, judges all devices and puts those that stand out together. Beside it, the same with a tenth
of the fleet (and of the windows), and the second that a tick has.
"""

import json
import statistics
import time

from benchmarks._drift_fleet import Fleet
from fleet_server.decay import Watch, findings

FLEETS, CHANNELS, WINDOW_SECONDS = (100, 1000), 74, 60
TICKS, FIRST_DAY = 40, 26  # windows of a shortened first day


def tick_seconds(devices: int) -> float:
    """Median seconds of a tick, once every device has a past."""
    fleet = Fleet(devices, 20, CHANNELS, seed=4)
    watch = Watch(past_seconds=24 * 3600.0)
    for _ in range(FIRST_DAY):
        for taken in fleet.next_hour():
            watch.add(taken)
        watch.states(fleet.places)
    waiting, took = list(fleet.next_hour()), []
    many = max(1, round(devices / WINDOW_SECONDS))
    for number in range(TICKS):
        begun = time.perf_counter()
        for taken in waiting[number * many : (number + 1) * many]:
            watch.add(taken)
        findings(watch.states(fleet.places))
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main() -> None:
    """Milliseconds of a tick."""
    found = {devices: tick_seconds(devices) for devices in FLEETS}
    for devices, seconds in found.items():
        print(f"{devices} devices: {1000 * seconds:.1f} ms a tick", flush=True)
    few, many = FLEETS
    result = {
        "name": "decay-tick",
        "value": round(100 * found[many], 2),
        "unit": "% of a second that a tick has, 1,000 devices x 74 channels",
        "better": "lower",
        "against": f"{few} devices: {100 * found[few]:.2f} %",
        "detail": f"a window a minute and device, median of {TICKS} ticks: "
        f"{1000 * found[many]:.1f} ms and {1000 * found[few]:.1f} ms, "
        f"{found[many] / found[few]:.1f} x for {many // few} x the devices",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
