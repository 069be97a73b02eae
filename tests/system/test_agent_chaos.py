"""A short bad time for a small fleet; `benchmarks/chaos.py` is the long one."""

import pytest

from tests.chaos import chaos

pytestmark = pytest.mark.system


def test_whoever_is_killed_every_window_that_was_sent_is_in_the_server_once(tmp_path):
    found = chaos(tmp_path, devices=4, seconds=3)
    assert (found.gaps, found.doubled, found.waiting, found.silent) == (0, 0, 0, 0)
    assert found.windows > 5
    assert found.server_kills + found.agent_kills > 0
