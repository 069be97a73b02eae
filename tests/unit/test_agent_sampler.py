"""Which rows leave for labelling: as asked, as allowed, no more, and in disguise."""

from random import Random

import msgspec
import numpy as np
import pytest

from device_agent.inference import Answered
from device_agent.sampler import Consent, Sampler
from device_agent.transforms import parse
from edge_sdk.channels import InputSchema
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Command, SampleRequest
from tests.agent_world import rows
from tests.unit.test_agent_window import model, stored

YES = Consent(models=("quarters",), raw=True)
ONE = model()
CHANCE = Random(1)  # noqa: S311 - a test


def wish(number=1, **changes):
    asked = SampleRequest(**{"policy": "margin", "quota": 5, "until": 1e9, **changes})
    return Command(device="d", number=number, issued=0.0, samples=asked)


def answered(x, names=()):
    return Answered(ONE, x, names, stored(ONE.interpreter, x), np.ones(len(x)))


@pytest.fixture
def sampler(tmp_path):
    def make(consent=YES, **changes):
        made = Sampler(tmp_path / "samples.json", consent, CHANCE)
        assert made.command(wish(**changes)) == ""
        return made

    return make


@pytest.mark.parametrize("policy", ["margin", "entropy", "novelty"])
def test_the_rows_that_a_policy_wants_most_are_taken(sampler, policy):
    one, x = sampler(policy=policy), rows(60)
    x[7] = 8.0  # no quarter is brighter than another, and unlike any picture of the training
    one.see(answered(x[:30]))
    one.see(answered(x[30:]))
    taken = one.take(60, 0.0)
    assert len(taken) == 5
    assert taken[0].score == max(sample.score for sample in taken)
    assert any((np.frombuffer(one.data, one.dtype) == 8).all() for one in taken)
    assert taken[0].share == pytest.approx(5 / 60)
    assert one.take(60, 0.0) == []


def test_rows_that_are_asked_for_by_cluster_stand_for_each_cluster(sampler):
    """Of 200 rows nearly all alike, the few that are not are among the five taken."""
    one, x = sampler(policy="cluster"), rows(200)
    x[:] = x[0]
    x[17], x[120], x[160] = 0.0, 16.0, 8.0
    one.see(answered(x[:100]))
    one.see(answered(x[100:]))
    taken = [np.frombuffer(one.data, one.dtype) for one in one.take(200, 0.0)]
    for odd in (17, 120, 160):
        assert any((row == x[odd].reshape(-1)).all() for row in taken), odd
    assert len(taken) == 4  # the fifth would be one of them again


def test_a_random_audit_takes_any_row_alike(tmp_path):
    seen = np.zeros(10)
    for seed in range(60):
        one = Sampler(tmp_path / str(seed), YES, Random(seed))  # noqa: S311 - a test
        one.command(wish(policy="random", quota=2))
        x = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 8, 8, 1), np.float32)
        one.see(answered(x))
        for sample in one.take(10, 0.0):
            seen[int(np.frombuffer(sample.data, np.float32)[0])] += 1
            assert sample.score == 0
    assert seen.sum() == 120
    assert seen.min() >= 2
    assert seen.max() <= 28


def test_a_disagreement_of_primary_and_shadow_is_taken_with_both_answers(sampler):
    one = sampler(policy="disagreement")
    one.see(answered(rows(5)))  # agreed, as far as anybody knows
    one.disagreed(ONE, rows(1)[0], np.array([0.7, 0.1, 0.1, 0.1]), ("shadow", 2))
    [sample] = one.take(5, 0.0)
    assert (sample.shadow, sample.probabilities[0]) == (("shadow", 2), 0.7)


def test_slices_by_class_and_by_channel_are_kept_to(sampler):
    one = sampler(
        policy="random", quota=16, classes=("top-left",), between={"input.brightness": (0.3, 1.0)}
    )
    x = rows(60)
    one.see(answered(x))
    taken = one.take(60, 0.0)
    assert taken
    for sample in taken:
        assert int(np.argmax(sample.probabilities)) == 0
        assert np.frombuffer(sample.data, sample.dtype).mean() / 16 >= 0.3


def test_quota_day_and_expiry_end_it(sampler):
    one = sampler(Consent(("quarters",), per_day=3))
    one.see(answered(rows(20)))
    assert len(one.take(20, 0.0)) == 3
    one.see(answered(rows(20)))
    assert one.take(20, 10.0) == []
    one.see(answered(rows(20)))
    assert len(one.take(20, 90_000.0)) == 2  # the next day, what is left of the quota of 5
    assert not one.wants()
    late = sampler(number=2, until=50.0)
    late.see(answered(rows(20)))
    assert late.take(20, 51.0) == []


@pytest.mark.parametrize("consent", [Consent(), Consent(models=("other",))])
def test_without_the_owners_opt_in_nothing_is_taken(tmp_path, consent):
    one = Sampler(tmp_path / "s", consent, CHANCE)
    one.command(wish())
    one.see(answered(rows(20)))
    one.disagreed(ONE, rows(1)[0], np.ones(4) / 4, ("s", 1))
    assert one.take(20, 0.0) == []
    assert "does not allow" in one.command(wish(number=2, model="quarters"))


def test_rows_stay_unless_both_sides_say_raw(sampler):
    for consent, raw in ((Consent(("quarters",)), True), (YES, False)):
        one = sampler(consent, number=1 if raw else 2, raw=raw)
        one.see(answered(rows(20)))
        assert {(s.data, s.shape) for s in one.take(20, 0.0)} == {(b"", ())}


def test_an_older_or_forged_number_is_refused_and_a_repeated_one_changes_nothing(sampler):
    one = sampler(number=5)
    assert one.command(wish(number=5)) == ""
    assert "is not above 5" in one.command(wish(number=4))
    assert "is not above 5" in one.command(wish(number=5, quota=1_000_000))
    assert one.command(Command(device="d", number=6, issued=0.0)) == ""
    assert not one.wants()


def test_a_command_about_something_else_that_repeats_the_wish_begins_no_new_quota(sampler):
    one = sampler()
    one.see(answered(rows(20)))
    assert len(one.take(20, 0.0)) == 5
    same = msgspec.structs.replace(wish(number=2), measure=100)
    assert one.command(same) == ""
    assert not one.wants()


def test_names_are_pseudonyms_that_stay_the_same_on_one_device_only(tmp_path):
    found = []
    for folder in ("a", "a", "b"):
        one = Sampler(tmp_path / folder, YES, CHANCE)
        one.command(wish(number=one.number + 1, quota=1))
        one.see(answered(rows(1), ["alice.png"]))
        [sample] = one.take(1, 0.0)
        found.append((sample.id, sample.subject))
    assert found[0] == found[1] != found[2]
    assert "alice" not in str(found)
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_what_was_taken_survives_a_restart(sampler, tmp_path):
    one = sampler()
    one.see(answered(rows(20)))
    assert len(one.take(20, 0.0)) == 5
    again = Sampler(tmp_path / "samples.json", YES, CHANCE)
    assert (again.number, again.wants()) == (1, False)


def test_rows_are_transformed_before_they_leave(sampler):
    one = sampler(msgspec.structs.replace(YES, transforms=("blur 1", "crop 0 2 4 6")), quota=1)
    x = rows(1)
    one.see(answered(x))
    [sample] = one.take(1, 0.0)
    assert (sample.shape, sample.transforms) == ((4, 6, 1), ("blur 1", "crop 0 2 4 6"))
    left = np.frombuffer(sample.data, sample.dtype).reshape(sample.shape)
    assert left[1, 1, 0] == pytest.approx(x[0, 0:3, 2:5, 0].mean())


def test_columns_are_dropped_by_name_and_an_unknown_one_lets_nothing_through():
    schema = InputSchema(
        name="x", kind="vector", shape=(3,), low=0, high=9, columns=("age", "heat", "name")
    )
    row = np.array([1, 2, 3], np.float32)
    dropped = parse("drop age, name")(row, schema)
    assert np.isnan(dropped).tolist() == [True, False, True]
    with pytest.raises(InvalidInputError, match="no column salary"):
        parse("drop salary")(row, schema)


@pytest.mark.parametrize("line", ["blur", "blur x", "crop 1 2", "drop", "rotate 3", "crop 0 0 0 1"])
def test_what_is_no_transform_is_refused(line):
    with pytest.raises(InvalidInputError, match="must be 'blur RADIUS'"):
        parse(line)
