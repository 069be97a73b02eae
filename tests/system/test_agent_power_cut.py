"""The power fails at any step of an update: afterwards a whole, signed model runs, always."""

import os
import random
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from edge_sdk.bundle import CARD, pack, unpack
from edge_sdk.messages import sign_assignment
from tests.agent_world import FleetServer, config, eventually, running, tiny_bundle
from tests.power_cut import Plan, Result

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
SEED = 20260
POINTS, MOMENTS, PROCESSES = 120, 12, 4


@pytest.fixture
def plan(tmp_path):
    """A device with version 1 confirmed, and an order for a version 2 of five chunks."""
    with FleetServer() as fleet:
        with running(config(tmp_path, fleet.url), fleet.token):
            safe = fleet.order("dev-1", tiny_bundle(fleet.publisher))
            eventually(lambda: (1, "confirmed") in fleet.phases("dev-1"), "confirmed")
        (tmp_path / "state").rename(tmp_path / "template")
        small = unpack(tiny_bundle(fleet.publisher, version="2"), [fleet.publisher.public])
        card = random.Random(SEED).randbytes(300_000)  # noqa: S311
        bundle = pack(small.manifest, {**small.members, CARD: card}, fleet.publisher)
        order = fleet.assignment("dev-1", bundle, version="2")
        fleet.publish(bundle)
        yield Plan(
            folder=str(tmp_path),
            url=fleet.url,
            order=sign_assignment(order, fleet.director),
            digest=order.digest,
            safe=safe.digest,
            length=order.length,
            publisher=fleet.publisher.public.hex,
            cuts=[],
            token=str(fleet.token),
        )


def run(plan: Plan, cuts: list[int]) -> list[Result]:
    """Every cut, shared out over the processes."""
    children = []
    for index in range(PROCESSES):
        share = msgspec.structs.replace(plan, cuts=cuts[index::PROCESSES])
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.power_cut"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        child.stdin.write(msgspec.json.encode(share))
        child.stdin.close()
        child.stdin = None
        children.append(child)
    answers = [child.communicate() for child in children]
    lines = [line for out, _ in answers for line in out.splitlines()]
    assert len(lines) == len(cuts), answers[0][1].decode()[-2000:]
    return [msgspec.json.decode(line, type=Result) for line in lines]


def test_wherever_the_power_fails_in_an_update_a_whole_signed_model_runs_afterwards(plan):
    [uncut] = run(plan, [1_000_000])
    assert (uncut.problem, uncut.killed) == ("", False)
    steps = int(uncut.state)
    assert steps > POINTS, "the update has too few steps to cut at"
    chance = random.Random(SEED)  # noqa: S311
    cuts = [1 + index * steps // POINTS for index in range(POINTS)]
    cuts += [-chance.randrange(1000, 300_000) for _ in range(MOMENTS)]
    results = run(plan, cuts)
    problems = [result for result in results if result.problem]
    assert not problems, problems[:5]
    killed = [result for result in results if result.killed]
    assert len(killed) >= POINTS
    states = Counter(result.state for result in killed)
    assert {"Idle", "Fetching", "Verified", "Trial"} <= set(states), states
