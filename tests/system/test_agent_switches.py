"""A hundred switches between two models while rows come as fast as they are taken."""

import threading
import time
from collections import Counter

import numpy as np
import pytest

from device_agent.feed import Feed
from device_agent.inference import Inference
from tests.agent_world import eventually, rows
from tests.unit.test_agent_window import model

pytestmark = pytest.mark.system
SWITCHES = 100


class Watcher:
    """Every answer, by the model that gave it and the row's name."""

    wanted = True

    def __init__(self):
        self.seen = []

    def see(self, answered):
        digest = answered.model.running.digest
        self.seen.extend((digest, name) for name in answered.names)


def test_no_frame_is_lost_or_attributed_to_the_wrong_version():
    x, given, closed = rows(64), [], []
    go_on = threading.Event()

    def produce(put, stop):
        number = 0
        while not stop.is_set():
            go_on.wait(1)
            if not go_on.is_set():
                continue
            if len(given) - len(watcher.seen) >= 500:  # as fast as they are taken
                stop.wait(0.001)
                continue
            put(x[number % 64], str(number))
            given.append(str(number))
            number += 1

    watcher = Watcher()
    feed = Feed("load", produce, room=1000)
    inference = Inference(feed, 0.05, time.monotonic, closed.append, watcher)
    models = [model("d0"), model("d1")]
    shadow = model("d2")
    inference.switch(models[0])
    go_on.set()
    stop = threading.Event()
    thread = threading.Thread(target=inference.run, args=(stop,))
    thread.start()
    try:
        for number in range(1, SWITCHES + 1):
            digest = f"d{number % 2}"
            inference.switch(models[number % 2])
            inference.accompany(shadow if number % 3 == 0 else None)
            eventually(lambda d=digest: watcher.seen and watcher.seen[-1][0] == d, "it answers")
        go_on.clear()
        eventually(lambda: len(watcher.seen) == len(given), "all are answered", 30)
    finally:
        stop.set()
        thread.join(30)
        feed.close()
    assert [name for _, name in watcher.seen] == given  # each once, in order
    answered = Counter(digest for digest, _ in watcher.seen)
    told = Counter()
    for one in closed:
        told[one.filled.model.running.digest] += one.filled.rows
    assert told == answered
    assert min(told["d0"], told["d1"]) >= SWITCHES // 2
    runs = np.count_nonzero(np.diff([digest == "d0" for digest, _ in watcher.seen]))
    assert runs >= SWITCHES - 1
    assert sum(one.filled.dropped + one.filled.errors for one in closed) == 0
    assert inference.totals.rows == len(given)
