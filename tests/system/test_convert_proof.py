"""What comes with a bundle: slices, explanations, cards, benchmarks, searches, runs in MLflow."""

import contextlib
import csv
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from converters.cards import card
from converters.order import Order
from converters.pipeline import convert
from converters.result import Proof
from converters.search_order import Search
from edge_sdk.bundle import read_manifest
from edge_sdk.channels import Preprocessing
from edge_sdk.cli.benchmarks import benchmark
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.features import Standardise
from edge_sdk.formats import from_json
from edge_sdk.interpreter import LiteRt
from edge_sdk.signing import SigningKey
from tests.micro_models import dense_net, save

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
NET = dense_net(200)
X = np.random.default_rng(4).normal(0, 1, (400, 16)).astype(np.float32)
Y = LiteRt(NET, Preprocessing()).run_rows(X).argmax(axis=1)
COLUMNS = tuple(f"sensor {i}" for i in range(16))
BUNDLE = "out/net-1-raspberry-pi-4.edge"


def edge(*words, cwd=ROOT, **environment):
    command = [sys.executable, "-m", "edge_sdk.cli", *(str(word) for word in words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def order(tmp_path):
    (tmp_path / "net.tflite").write_bytes(NET)
    return Order(
        model=tmp_path / "net.tflite",
        profiles=("raspberry-pi-4",),
        data=save(tmp_path / "data.npz", X, Y),
        out=tmp_path / "out",
        recipes=("int8",),
        max_drop=0.05,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A folder with what one command made, and what it printed."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "net.tflite").write_bytes(NET)
    with (folder / "rows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS, "site", "class"])
        for i, (row, kind) in enumerate(zip(X * 2 + 1, Y, strict=True)):
            rows.writerow([*row.tolist(), ("north", "south")[i % 2], kind])
    (folder / "steps.toml").write_text('[[steps]]\ntype = "standardise"\nmean = [1]\nsd = [2]\n')
    shown = edge(
        "convert", folder / "net.tflite", "--profile", "raspberry-pi-4", "--data",
        folder / "rows.csv", "--slice", "site", "--features", folder / "steps.toml",
        "--recipe", "float32", "--recipe", "int8", "--max-drop", "0.05", "--explain",
        "--out", folder / "out", "--json",
        cwd=folder,  # where MLflow puts what belongs to a database's runs
        EDGE_SIGNING_KEY=str(folder / "key"),
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return folder, json.loads(shown.stdout)


def test_a_conversion_is_told_by_slice_explained_and_logged_in_mlflow(told):
    folder, found = told
    int8 = found["candidates"][1]["measurement"]
    assert [one["label"] for one in int8["slices"]] == ["site=north", "site=south"]
    assert {"f1"} <= set(int8["metrics"]["figures"])
    assert sum(found["balance"].values()) == found["held_out_rows"]
    [explanation] = found["explanations"].values()
    assert {part["name"] for part in explanation["parts"]} == set(COLUMNS)
    assert 0 < explanation["shap_moved"] < 0.3
    assert 0 < explanation["lime_moved"] < 0.3
    assert len(explanation["dependence"]) == 16
    manifest = read_manifest((folder / BUNDLE).read_bytes())
    assert manifest.preprocessing.steps == (Standardise((1.0,), (2.0,)),)
    assert manifest.input.columns == COLUMNS
    logged(folder / "mlflow.db", found["profiles"][0]["chosen"])


def test_the_card_is_a_page_with_pictures_and_can_be_made_again(told):
    folder, _ = told
    page = (folder / BUNDLE).with_suffix(".card.html").read_text()
    assert page.count("<svg") == 3
    for words in ("<h2>By slice</h2>", "site=north", "What it looks at", "Intended for the board"):
        assert words in page
    run, bundle = CliRunner(), str(folder / BUNDLE)
    again = run.invoke(
        card, [bundle, "--html", str(folder / "card.html"), "--key", str(folder / "key.pub")]
    )
    assert again.exit_code == 0, again.output
    assert (folder / "card.html").read_text() == page
    assert run.invoke(card, [bundle]).stdout.startswith("---\nlibrary_name: litert\n")


def logged(database, chosen):
    """What MLflow wrote, read without it."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        runs = {name: run for run, name in db.execute("SELECT run_uuid, name FROM runs")}
        params = db.execute("SELECT key, value FROM params WHERE run_uuid = ?", (runs["net 1"],))
        figures = db.execute("SELECT key, value FROM metrics WHERE run_uuid = ?", (runs["int8"],))
        assert set(runs) == {"net 1", "float32", "int8"}
        assert ("chosen.raspberry-pi-4", chosen) in params.fetchall()
        assert dict(figures.fetchall())["accuracy"] > 0.9


def test_models_are_timed_side_by_side_and_none_wins_within_the_noise(told):
    folder, _ = told
    net, bundle, key = (str(folder / name) for name in ("net.tflite", BUNDLE, "key.pub"))
    run = CliRunner()
    shown = run.invoke(benchmark, [net, net, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert [one["bytes"] for one in found["models"]] == [len(NET)] * 2
    assert all(one["runs"] >= 50 and one["ms_p50"] <= one["ms_p90"] for one in found["models"])
    given = save(folder / "data.npz", X * 2 + 1)
    words = run.invoke(benchmark, [bundle, "--data", str(given), "--key", key])
    assert words.exit_code == 0, words.output
    assert "ms p50" in words.stdout
    few = save(folder / "few.npz", X[:, :3])
    wrong = run.invoke(benchmark, [bundle, "--data", str(few), "--key", key])
    assert isinstance(wrong.exception, InvalidInputError)
    assert "takes rows of shape (16,), these have (3,)" in str(wrong.exception)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_interrupted_search_goes_on_where_it_was(order, tmp_path):
    wanted = Search(strategy="grid", candidates=2, jobs=2, study=tmp_path / "study")
    key, steps = SigningKey.generate(), []
    order = msgspec.structs.replace(
        order, search=wanted, recipes=("int8", "int8-mse", "dynamic-range")
    )
    first = convert(order, lambda: key)
    assert len(first.candidates) == 2
    more = msgspec.structs.replace(
        order, out=tmp_path / "more", search=msgspec.structs.replace(wanted, candidates=9)
    )
    second = convert(more, lambda: key, steps.append)
    made = [step for step in steps if ": candidate " in step]
    assert len(made) == 1
    again = {one.recipe: one.measurement for one in second.candidates}
    assert len(again) == 3  # the whole grid
    assert all(again[one.recipe] == one.measurement for one in first.candidates)
    assert set(second.front) <= {one.recipe for one in second.candidates}
    assert second.profiles[0].bundle is not None


@pytest.mark.filterwarnings("ignore")
def test_candidates_are_made_on_a_dask_cluster(order, tmp_path):
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://",
        dashboard_address=None, host="127.0.0.1",
    )  # fmt: skip
    with cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        wanted = Search(strategy="random", candidates=1, executor=f"dask://{address}")
        found = convert(msgspec.structs.replace(order, search=wanted), SigningKey.generate)
    assert [one.failed for one in found.candidates] == [""]
    proof = from_json(
        Proof, (order.out / "net-1-raspberry-pi-4.proof.json").read_bytes(), "the proof"
    )
    assert proof.result.chosen == "int8"


def test_a_scheduler_that_is_not_there_is_told(order):
    wanted = Search(strategy="random", candidates=1, executor="dask://127.0.0.1:9")
    with pytest.raises(EdgeError, match=r"no Dask scheduler answers at 127\.0\.0\.1:9"):
        convert(msgspec.structs.replace(order, search=wanted), SigningKey.generate)
