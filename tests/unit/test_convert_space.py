"""What a search may try, and that what was tried is not made again."""

import numpy as np
import pytest

from converters.bench import Missed
from converters.kept import Kept
from converters.ranges import BINS, narrowed
from converters.recipe import RECIPES, SourceFacts, recipe_named
from converters.search import Quest, search
from converters.search_order import Search, check
from converters.space import SPACE, chosen, for_boards, grid, space_of
from edge_sdk.errors import InvalidInputError
from edge_sdk.profiles import load_profile

TRAINABLE = SourceFacts("tf_keras", (4,), (2,), 9)
FROZEN = SourceFacts("tflite", (4,), (2,), 9, "it can't be trained")


def test_every_point_of_the_space_is_a_recipe():
    every = grid(SPACE)
    assert len(every) == len(set(every)) > 80
    for words in every:
        assert recipe_named(words).name == words


def test_only_what_the_model_and_its_rows_allow_is_tried():
    assert set(space_of((), TRAINABLE, 100, {})) == set(SPACE)
    without = space_of((), FROZEN, 100, {})
    assert without
    assert not any(RECIPES[name].trains for name in without)
    assert list(space_of(("qat", "int8"), TRAINABLE, 0, {})) == ["int8"]
    own = {"build:nets:small": {"units": ("8", "16")}}
    assert grid(space_of(tuple(own), TRAINABLE, 9, own)) == [
        "build:nets:small:units=8", "build:nets:small:units=16",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="no recipe can be searched over without --train"):
        space_of(("qat",), TRAINABLE, 0, {})
    with pytest.raises(InvalidInputError, match="recipe float32 can't be searched over"):
        space_of(("float32",), TRAINABLE, 0, {})


def test_what_no_board_runs_is_not_tried():
    every, micro = set(SPACE), set(for_boards([load_profile("cortex-m7")]))
    assert every - micro == {"dynamic-range", "float16", "mixed-int4"}
    assert set(for_boards([load_profile("coral-usb")])) < every - {"float16", "dynamic-range"}
    both = [load_profile("cortex-m7"), load_profile("raspberry-pi-4")]
    assert set(for_boards(both)) == every


def test_a_recipe_is_put_together_from_its_choices():
    last = chosen(SPACE, lambda what, among: among[-1] if what != "recipe" else "cut-pcqat")
    assert last == "cut-pcqat:share=0.5,sparsity=0.8,clusters=32"


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("strategy", ["tpe", "random", "grid", "evolution"])
def test_candidates_that_were_kept_are_not_made_again_by_any_strategy(tmp_path, strategy):
    space = {name: SPACE[name] for name in ("int8", "cut-int8", "low-rank-int8")}
    kept = Kept(tmp_path, "the model and its rows")
    for words in grid(space):
        kept.save(Missed(recipe_named(words), f"{words} died", 1.0))
    made = []
    quest = Quest(None, space, Search(strategy=strategy, candidates=6), kept, lambda one: 0)
    found = search(quest, lambda: 0.0, made.append)
    assert made == []
    assert len({one.recipe.name for one in found}) == len(found) == 6
    assert all(one.reason == f"{one.recipe.name} died" for one in found)


def test_another_model_s_candidates_do_not_count_and_a_cut_off_file_is_none(tmp_path):
    recipe = recipe_named("int8")
    Kept(tmp_path, "one").save(Missed(recipe, "died", 1.0))
    assert Kept(tmp_path, "other").load(recipe) is None
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert Kept(tmp_path, "one").load(recipe) is None


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (Search(strategy="tpe", candidates=0), "above 0"),
        (Search(strategy="tpe", minutes=float("nan")), "above 0"),
        (Search(strategy="tpe", executor="slurm"), "known are local and dask://HOST:PORT"),
    ],
)
def test_a_budget_that_nothing_can_be_done_with_is_refused(search, words):
    with pytest.raises(InvalidInputError, match=words):
        check(search)


def test_a_range_is_narrowed_where_few_values_are_far_out():
    counts = np.zeros(BINS)
    counts[:200] = 1000.0  # all values within the first tenth
    counts[-1] = 2.0
    for how in ("percentile", "mse"):
        low, high = narrowed(counts, 0.0, 10.0, how)
        assert low == 0.0
        assert 0.9 < high < 9.0
    even = np.full(BINS, 10.0)
    assert narrowed(even, -1.0, 1.0, "mse") == (-1.0, 1.0)
    assert narrowed(even, -1.0, 1.0, "percentile") == pytest.approx((-1.0, 1.0), abs=0.01)
    assert narrowed(np.zeros(BINS), -1.0, 1.0, "mse") == (-1.0, 1.0)
