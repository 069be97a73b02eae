"""What the board tells of itself, from files as a Pi's kernel writes them."""

import pytest

from device_agent.hardware import Gauges


@pytest.fixture
def pi(tmp_path):
    """A /proc and a /sys; returns a function that writes a file there."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/loadavg", "0.42 0.3 0.2 1/100 999\n")
    write("proc/self/statm", "5000 2500 100 1 0 2000 0\n")
    write("proc/meminfo", "MemTotal: 490308 kB\nMemAvailable: 300000 kB\n")
    write("proc/self/io", "rchar: 1\nwrite_bytes: 4096\n")
    write("sys/class/thermal/thermal_zone0/temp", "61235\n")
    write("sys/class/thermal/thermal_zone1/temp", "48000\n")
    return write


def board(tmp_path):
    return Gauges(tmp_path / "proc", tmp_path / "sys")


def test_a_pi_tells_heat_memory_and_what_it_wrote_since_the_last_window(pi, tmp_path):
    one = board(tmp_path)
    pi("proc/self/io", "write_bytes: 12288\n")
    found = one.read(1000, 3, 0)
    assert (found.temperature, found.load) == (61.235, 0.42)
    assert found.free_bytes == 300_000 * 1024
    assert found.rss_bytes > 0
    assert (found.disk_bytes, found.link_bytes, found.waiting) == (8192, 1000, 3)
    again = one.read(1500, 0, 7)
    assert (again.disk_bytes, again.link_bytes, again.answers_lost) == (0, 500, 7)
    assert 0 <= again.cpu < 64


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("0", ()),
        ("50005", ("under-voltage", "throttled", "under-voltage-before", "throttled-before")),
        ("80000", ("soft-temperature-limit-before",)),
    ],
)
def test_throttling_is_told_by_name(pi, tmp_path, text, flags):
    pi("sys/devices/platform/soc/soc:firmware/get_throttled", text)
    assert board(tmp_path).read(0, 0, 0).flags == flags


def test_an_under_voltage_alarm_of_newer_kernels_counts_too(pi, tmp_path):
    pi("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    assert board(tmp_path).read(0, 0, 0).flags == ("under-voltage",)


def test_a_board_that_tells_nothing_is_no_error(tmp_path):
    found = board(tmp_path).read(0, 0, 0)
    assert (found.temperature, found.flags, found.rss_bytes) == (None, (), 0)
