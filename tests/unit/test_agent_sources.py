"""Replayed inputs and broken sensors."""

import os

import numpy as np
import pytest

from device_agent.sources import (
    FaultWatch,
    NpzReplay,
    SensorFault,
    apply_fault,
    read_faults,
    read_rows,
)
from edge_sdk.errors import InvalidInputError


def test_every_row_comes_once_an_epoch_in_an_order_that_the_seed_fixes():
    rows = np.arange(10).reshape(10, 1)
    taken = NpzReplay(rows, 1).take(10)[:, 0].tolist()
    assert sorted(taken) == list(range(10))
    assert taken == NpzReplay(rows, 1).take(10)[:, 0].tolist()
    assert taken != NpzReplay(rows, 2).take(10)[:, 0].tolist()


def test_the_replay_never_ends():
    replay = NpzReplay(np.arange(3).reshape(3, 1), 0)
    assert replay.take(100).shape == (100, 1)
    assert replay.take(0).shape == (0, 1)


def test_gain_and_offset_stay_inside_the_range_and_type():
    rows = np.array([[0, 8, 16]], np.uint8)
    broken = apply_fault(rows, SensorFault(site="n", gain=2.0, offset=-1.0), 0, 16)
    assert broken.tolist() == [[0, 15, 16]]
    assert broken.dtype == np.uint8


def test_a_blur_keeps_a_flat_picture_and_flattens_an_edge():
    fault = SensorFault(site="n", blur=1)
    assert (apply_fault(np.full((1, 5, 5), 3.0), fault, 0, 16) == 3.0).all()
    edge = np.zeros((1, 5, 5))
    edge[:, :, 2:] = 9.0
    assert apply_fault(edge, fault, 0, 16)[0, 2].tolist() == [0.0, 3.0, 6.0, 9.0, 9.0]


def test_stuck_rows_stand_at_the_lowest_value():
    broken = apply_fault(np.full((2, 4, 4), 5.0), SensorFault(site="n", stuck_rows=1), 1.0, 9.0)
    assert (broken[:, 0] == 1.0).all()
    assert (broken[:, 1:] == 5.0).all()


def test_the_faults_file_is_read_again_when_it_changes(tmp_path):
    path, now, troubles = tmp_path / "faults.toml", [0.0], []
    watch = FaultWatch(path, "north", lambda: now[0], troubles.append)
    assert watch.current() is None
    path.write_text('[[fault]]\nsite = "north"\ngain = 0.5\n[[fault]]\nsite = "south"\n')
    assert watch.current() is None  # looked a moment ago
    now[0] = 2.0
    assert watch.current() == SensorFault(site="north", gain=0.5)
    path.write_text("[[fault]]\nsite = 3")
    os.utime(path, ns=(1, 1))
    now[0] = 4.0
    assert watch.current() == SensorFault(site="north", gain=0.5)
    now[0] = 6.0
    watch.current()
    assert len(troubles) == 1
    path.unlink()
    now[0] = 8.0
    assert watch.current() is None


def test_a_key_that_no_fault_has_is_named(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nsite = "n"\ngian = 2')
    with pytest.raises(InvalidInputError, match="gian"):
        read_faults(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x05\x06" + bytes(18)])
def test_data_that_is_not_npz_is_refused_in_words(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"x\.npz"):
        read_rows(path)


def test_data_without_rows_is_refused_in_words(tmp_path):
    np.savez(tmp_path / "x.npz", y=np.zeros(3))
    with pytest.raises(InvalidInputError, match="no array 'x'"):
        read_rows(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=np.array(["a"]))
    with pytest.raises(InvalidInputError, match="rows of numbers"):
        read_rows(tmp_path / "x.npz")
