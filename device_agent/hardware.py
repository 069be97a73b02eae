"""The board itself, once a window: load, heat, throttling, memory, and bytes to disk and network.

Everything is read from /proc and /sys; what a board does not tell is left out. Raspberry Pi's
throttling flags: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""

import os
from pathlib import Path
from time import perf_counter, process_time

from edge_sdk.messages import Hardware

THROTTLED = ("under-voltage", "frequency-capped", "throttled", "soft-temperature-limit")
PROC, SYS = Path("/proc"), Path("/sys")


class Gauges:
    """Read what happened since they were last asked."""

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys = proc, sys
        self._time, self._cpu = perf_counter(), process_time()
        self._written, self._sent, self._lost = self._disk_bytes(), 0, 0

    def read(self, link_bytes: int, waiting: int, answers_lost: int) -> Hardware:
        """Since the last time; the arguments are what the agent itself counts, from its start."""
        time, cpu, written = perf_counter(), process_time(), self._disk_bytes()
        share = (cpu - self._cpu) / max(time - self._time, 1e-9)
        wrote = max(0, written - self._written)
        found = Hardware(
            cpu=round(share, 4),
            load=round(self._load(), 2),
            temperature=self._temperature(),
            flags=self._flags(),
            rss_bytes=self._resident(),
            free_bytes=self._free(),
            disk_bytes=wrote,
            link_bytes=link_bytes - self._sent,
            waiting=waiting,
            answers_lost=answers_lost - self._lost,
        )
        self._time, self._cpu, self._written = time, cpu, written
        self._sent, self._lost = link_bytes, answers_lost
        return found

    def _text(self, *paths: Path) -> str:
        for path in paths:
            try:
                return path.read_text()
            except OSError:
                continue
        return ""

    def _load(self) -> float:
        words = self._text(self._proc / "loadavg").split()
        return float(words[0]) if words else 0.0

    def _temperature(self) -> float | None:
        """Of the hottest zone, degrees Celsius."""
        found = []
        for path in self._sys.glob("class/thermal/thermal_zone*/temp"):
            text = self._text(path).strip()
            if text.lstrip("-").isdigit():
                found.append(int(text) / 1000)
        return max(found, default=None)

    def _flags(self) -> tuple[str, ...]:
        """What the firmware holds back at this moment, and what it once did since the boot."""
        text = self._text(self._sys / "devices/platform/soc/soc:firmware/get_throttled").strip()
        bits = int(text, 16) if text else 0
        if any(
            self._text(path).strip() == "1"
            for path in self._sys.glob("class/hwmon/hwmon*/in0_lcrit_alarm")
        ):
            bits |= 1
        now = [name for at, name in enumerate(THROTTLED) if bits >> at & 1]
        before = [f"{name}-before" for at, name in enumerate(THROTTLED) if bits >> (16 + at) & 1]
        return (*now, *before)

    def _resident(self) -> int:
        words = self._text(self._proc / "self/statm").split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else 0

    def _free(self) -> int:
        """Memory that could be had, of the whole board."""
        for line in self._text(self._proc / "meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0

    def _disk_bytes(self) -> int:
        """Written by this process: what wears an SD card."""
        for line in self._text(self._proc / "self/io").splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        return 0
