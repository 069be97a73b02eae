"""Windows in the words of other tools: expectations, TFDV's files, Parquet; and weak labels."""

import json
import math

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge_sdk.cli import edge
from edge_sdk.errors import EdgeError, FormatError, InvalidInputError
from edge_sdk.sketch import make_baseline, sketch
from fleet_server import tfdv
from fleet_server.cli.retrain import champions_of, split
from fleet_server.cli.weak import load, vote
from fleet_server.drift_views import AccuracyRow, ChannelRow, DriftReport, SplitRow, SumsRow
from fleet_server.expectations import Expectation, Suite, judge, read_suite
from fleet_server.mlflow_registry import aliases_now, entries, sync
from fleet_server.rollups import Sums
from fleet_server.samples import region_of
from fleet_server.views import AliasRow, VersionRow
from fleet_server.warehouse import write_parquet
from fleet_server.weak import label_model, spread, spread_accuracy

RNG = np.random.default_rng(1)
VALUES = RNG.normal(10, 2, 1000)
BASELINE = make_baseline({"input.heat": VALUES}, ())
KINDS = make_baseline({"output.class": np.array([0.0, 0.0, 1.0])}, ("cat", "dog"))
CHANNELS = {**BASELINE.channels, **KINDS.channels}


def seen(values=VALUES):
    return {
        "input.heat": sketch(CHANNELS["input.heat"], values),
        "output.class": sketch(CHANNELS["output.class"], np.array([0.0, 1.0, 1.0, 1.0])),
    }


def holds(kind, values=VALUES, column="heat", **arguments):
    suite = Suite((Expectation(f"expect_column_{kind}", {"column": column, **arguments}),))
    [verdict] = judge(suite, CHANNELS, seen(values))
    return verdict.success


def test_expectations_are_judged_as_on_the_rows_themselves():
    assert holds("to_exist")
    assert not holds("to_exist", column="cold")
    assert holds("mean_to_be_between", min_value=9.5, max_value=10.5)
    assert not holds("mean_to_be_between", min_value=11)
    assert holds("stdev_to_be_between", max_value=2.5)
    assert holds("min_to_be_between", min_value=VALUES.min())
    assert not holds("max_to_be_between", max_value=VALUES.max() - 0.01)
    assert holds("values_to_be_between", min_value=VALUES.min(), max_value=VALUES.max())
    assert not holds("values_to_be_between", max_value=VALUES.max() - 0.01)
    assert not holds("max_to_be_between", max_value=VALUES.max(), strict_max=True)
    assert not holds("values_to_be_between", min_value=VALUES.min(), strict_min=True)
    assert holds("values_to_be_between", max_value=12, mostly=0.8)
    assert not holds("values_to_be_between", max_value=10, mostly=0.7)
    gaps = np.where(np.arange(1000) % 10 == 0, np.nan, VALUES)
    assert holds("values_to_not_be_null", gaps, mostly=0.9)
    assert not holds("values_to_not_be_null", gaps, mostly=0.95)
    assert holds("values_to_be_in_set", column="output.class", value_set=["cat", "dog"])
    assert not holds("values_to_be_in_set", column="output.class", value_set=["cat"])


def test_what_sketches_can_not_answer_and_what_is_no_suite_is_refused():
    with pytest.raises(InvalidInputError, match="can't be judged on sketches"):
        holds("values_to_match_regex", regex="x")
    with pytest.raises(InvalidInputError, match="no number"):
        holds("mean_to_be_between", min_value="ten")
    with pytest.raises(FormatError, match="suite can't be read"):
        read_suite(b"[]")
    with pytest.raises(FormatError, match="no type"):
        read_suite(b'{"expectations": [{"kwargs": {}}]}')
    chosen = {"type": "expect_column_to_exist", "kwargs": {"row_condition": "heat > 3"}}
    with pytest.raises(FormatError, match="row_condition"):
        read_suite(json.dumps({"expectations": [chosen]}).encode())


def test_suites_of_great_expectations_before_and_since_its_1_0_say_the_same():
    before = {"expectation_type": "expect_column_to_exist", "kwargs": {"column": "heat"}}
    since = {  # as 1.24 writes one
        "type": "expect_column_to_exist", "kwargs": {"column": "heat"}, "meta": {},
        "id": "82de73c9-5577-4abb-aa74-d241d2dac8b8", "severity": "critical",
    }  # fmt: skip
    written = {"name": "s", "expectations": [before, since], "meta": {}, "notes": None}
    old, new = read_suite(json.dumps(written).encode()).expectations
    assert old == new == Expectation("expect_column_to_exist", {"column": "heat"})


def test_a_tfdv_schema_of_ours_is_read_back_as_expectations_that_our_windows_meet():
    text = tfdv.schema_text(BASELINE.channels, seen())
    assert 'name: "heat"' in text
    suite = tfdv.read_schema(text)
    assert all(v.success for v in judge(suite, CHANNELS, seen()))
    verdicts = judge(suite, CHANNELS, seen(VALUES + 20))
    assert [v.success for v in verdicts] == [True, False]
    with pytest.raises(FormatError, match="schema can't be read"):
        tfdv.read_schema("feature { what }")


def test_a_schema_that_tfdv_inferred_is_read_with_the_domains_that_its_features_share():
    text = """
        feature { name: "heat" value_count { min: 1 max: 1 } type: FLOAT presence { min_count: 1 } }
        feature { name: "kind" type: BYTES domain: "kind"
                  presence { min_fraction: 1.0 min_count: 1 } shape { dim { size: 1 } } }
        string_domain { name: "kind" value: "cat" value: "dog" }
    """
    assert [(e.type, e.kwargs) for e in tfdv.read_schema(text).expectations] == [
        ("expect_column_values_to_not_be_null", {"column": "kind", "mostly": 1.0}),
        ("expect_column_values_to_be_in_set", {"column": "kind", "value_set": ["cat", "dog"]}),
    ]


def test_tfdv_finds_a_standard_histogram_the_only_kind_that_it_compares():
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import statistics_pb2

    text = tfdv.statistics_text("m", 1000, BASELINE.channels, seen())
    found = text_format.Parse(text, statistics_pb2.DatasetFeatureStatisticsList())
    [histogram] = found.datasets[0].features[0].num_stats.histograms
    assert histogram.type == statistics_pb2.Histogram.STANDARD
    known = seen()["input.heat"]
    assert [bucket.sample_count for bucket in histogram.buckets] == known.counts
    assert (histogram.buckets[0].low_value, histogram.buckets[-1].high_value) == (
        known.low, known.high,
    )  # fmt: skip


def test_tfdv_statistics_of_ours_are_read_back_with_the_same_numbers():
    gaps = np.where(np.arange(1000) % 10 == 0, np.nan, VALUES)
    [heat] = tfdv.read_statistics(
        tfdv.statistics_text("m", 1000, BASELINE.channels, seen(gaps))
    ).values()
    known = seen(gaps)["input.heat"]
    assert (heat.rows, heat.missing, heat.low, heat.high) == (
        known.rows, known.missing, known.low, known.high,
    )  # fmt: skip
    assert heat.mean == pytest.approx(known.mean)
    assert heat.variance == pytest.approx(known.variance)


def test_roll_ups_become_parquet_files_that_duckdb_reads_back(tmp_path):
    import duckdb

    row = SumsRow(
        start=1_800_000_000.0, model="m", version="1", profile="p", site="o'hare", labels="",
        digest="d", sums=Sums(windows=2, seconds=7200.0, rows=1000, channels=seen()),
    )  # fmt: skip
    windows, channels = write_parquet([row], tmp_path / "it's here")
    with duckdb.connect() as connection:
        found = connection.execute("SELECT site, rows FROM read_parquet(?)", [str(windows)])
        assert found.fetchall() == [("o'hare", 1000)]
        query = "SELECT channel, mean, list_sum(counts) FROM read_parquet(?) ORDER BY channel"
        name, mean, rows = connection.execute(query, [str(channels)]).fetchall()[0]
    assert (name, rows) == ("input.heat", 1000)
    assert mean == pytest.approx(VALUES.mean())


def test_the_label_model_finds_who_can_be_trusted_and_beats_the_majority():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 2000)
    good = [0.9, 0.85, 0.5, 0.45, 0.4]
    votes = np.stack(
        [
            np.where(rng.random(2000) < a, truth, (truth + rng.integers(1, 3, 2000)) % 3)
            for a in good
        ],
        axis=1,
    )
    votes[rng.random(votes.shape) < 0.3] = -1
    chances, accuracy = label_model(votes, 3)
    assert accuracy == pytest.approx(good, abs=0.06)
    told = (votes >= 0).any(axis=1)
    majority = np.array([np.bincount(row[row >= 0], minlength=3).argmax() for row in votes[told]])
    ours = (chances.argmax(axis=1)[told] == truth[told]).mean()
    assert ours > (majority == truth[told]).mean() + 0.02
    sure = chances.max(axis=1) > 0.9
    assert (chances.argmax(axis=1) == truth)[sure].mean() > 0.9
    for wrong in (votes[:, :1], np.full((3, 2), 7)):
        with pytest.raises(InvalidInputError):
            label_model(wrong, 3)


def test_a_labelling_function_that_nothing_speaks_for_or_against_counts_for_nothing():
    votes = np.array([[1, -1], [1, -1], [-1, 0], [-1, -1]])
    chances, accuracy = label_model(votes, 2)
    assert np.isnan(accuracy).all()
    assert np.allclose(chances, 0.5)
    chances, accuracy = label_model(votes, 2, known=np.array([1, -1, -1, 0]))
    assert accuracy[0] > 0.7
    assert np.isnan(accuracy[1])
    assert chances[1].argmax() == 1
    right = label_model(np.array([[1, 1]] * 40), 2)[1]
    wrong = label_model(np.array([[1, 0]] * 40), 2, known=np.ones(40, int))[1]
    assert (right > 0.9).all()
    assert wrong[0] > 0.9 > 0.2 > wrong[1]


def test_labels_spread_to_rows_that_look_alike():
    rng = np.random.default_rng(3)
    features = np.concatenate([rng.normal(0, 1, (50, 2)), rng.normal(6, 1, (50, 2))])
    known = np.full(100, -1)
    known[[0, 1, 50, 51]] = [0, 0, 1, 1]
    found, certainty = spread(features, known)
    assert found.tolist() == [0] * 50 + [1] * 50
    assert certainty.min() > 0.5
    with pytest.raises(InvalidInputError, match="nothing to spread"):
        spread(features, np.full(100, -1))


def test_spreading_tells_how_often_it_is_right_on_labels_that_it_did_not_see():
    rng = np.random.default_rng(3)
    truth = np.arange(200) % 2
    features = truth[:, None] * 6.0 + rng.normal(0, 1, (200, 2))
    known = np.where(np.arange(200) < 40, truth, -1)
    assert spread_accuracy(features, known) > 0.95
    assert spread_accuracy(rng.normal(0, 1, (200, 2)), known) < 0.8
    assert spread_accuracy(features, np.where(np.arange(200) < 9, truth, -1)) is None


def test_labelling_functions_come_from_the_users_file_and_their_mistakes_are_named(tmp_path):
    file = tmp_path / "rules.py"
    file.write_text(
        "def label_bright(row):\n    return 1 if row.mean() > 5 else -1\n"
        "def label_dark(row):\n    return 0 if row.mean() < 5 else -1\n"
        "def helper(row):\n    return 9\n"
    )
    functions = load(file)
    assert [name for name, _ in functions] == ["label_bright", "label_dark"]
    assert vote(functions, np.array([[9.0], [1.0]])).tolist() == [[1, -1], [-1, 0]]
    file.write_text("def label_a(row):\n    return row.nope\ndef label_b(row):\n    return 0\n")
    with pytest.raises(EdgeError, match="label_a fails at row 0"):
        vote(load(file), np.zeros((1, 2)))
    for text, words in (("x = (", "can't be run"), ("def label_a(r): return 0", "two functions")):
        file.write_text(text)
        with pytest.raises(InvalidInputError, match=words):
            load(file)


def test_rows_keep_their_side_of_the_split_when_the_dataset_grows(tmp_path):
    def dataset(rows):
        file = tmp_path / f"{rows}.npz"
        x = np.arange(rows * 4, dtype=np.uint16).reshape(rows, 4)
        lineage = np.array(msgspec.json.encode({"id": "x"}))
        np.savez(file, x=x, y=np.zeros(rows, np.int64), weight=np.ones(rows), lineage=lineage)
        return file.read_bytes()

    sides = {}
    for rows in (100, 150):
        assert split(dataset(rows), tmp_path) == rows
        for name in ("new", "new-held"):
            with np.load(tmp_path / f"{name}.npz") as file:
                sides[rows, name] = {tuple(row) for row in file["x"].tolist()}
    assert sides[100, "new"] < sides[150, "new"]
    assert sides[100, "new-held"] < sides[150, "new-held"]
    assert 10 < len(sides[100, "new-held"]) < 50
    with pytest.raises(InvalidInputError, match="too few"):
        split(dataset(5), tmp_path)


def test_the_champion_is_what_most_devices_run():
    def row(version, profile, devices):
        return VersionRow(
            model="m", version=version, profile=profile, digest=version, length=1, recipe="r",
            accuracy=1.0, drop=0.0, signed_by="", published_at=1.0, devices=devices,
        )  # fmt: skip

    found = champions_of([row("3", "a", 1), row("2", "a", 9), row("2", "b", 0)], "m")
    assert [(r.profile, r.version) for r in found] == [("a", "2"), ("b", "2")]
    with pytest.raises(InvalidInputError, match="no champion"):
        champions_of([], "m")


def test_the_commands_say_what_they_take():
    from fleet_server.cli.interchange import drift
    from fleet_server.cli.weak import label

    for group, names in ((drift, ("expect", "export", "report", "tfdv")), (label, ("weak", "ask"))):
        words = CliRunner().invoke(group, ["--help"]).output
        assert all(name in words for name in names)
    assert math.isfinite(VALUES.mean())


def a_bundle(version, at, **changes):
    row = VersionRow(
        model="digits", version=version, profile="pi", digest=f"d{version}", length=1,
        recipe="int8", accuracy=0.95, drop=0.0, published_at=at, signed_by="", devices=3,
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


def a_report(*splits, alerts=()):
    return DriftReport(
        model="digits", since=0.0, until=1.0, reference="", alerts=alerts, trend=(), channels=(),
        splits=splits, devices=(), changes=(),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
def test_mlflows_registry_has_our_versions_aliases_and_how_they_fare_and_follows_them(
    tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    accuracy = AccuracyRow(estimated=0.91, low=0.9, high=0.92, labelled=10, right=9)
    split = SplitRow(by="version", value="2", rows=5, accuracy=accuracy)
    bundles = [
        a_bundle("2", 2.0),
        a_bundle("1", 1.0),
        a_bundle("1", 1.5, profile="mcu", digest="e"),
    ]

    def at(alias, version):
        return AliasRow(model="digits", alias=alias, version=version, by="ann", reason="", at=1.0)

    first = entries("digits", bundles, a_report(), "http://fleet")
    assert [one.version for one in first] == ["1", "2"]
    sync(uri, "digits", first, aliases_now([at("champion", "1"), at("old", "1")]))
    again = entries("digits", [a_bundle("3", 3.0), *bundles], a_report(split), "http://fleet")
    history = [at("champion", "1"), at("old", "1"), at("old", ""), at("champion", "3")]
    numbers = sync(uri, "digits", again, aliases_now(history))
    assert numbers == {"1": "1", "2": "2", "3": "3"}

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    aliases = client.get_registered_model("digits").aliases
    assert {name: str(of) for name, of in aliases.items()} == {"champion": "3"}
    tags = client.get_model_version("digits", "2").tags
    assert tags["edge.estimated_accuracy"] == "0.9100"
    assert tags["edge.labelled_accuracy"] == "0.9000"
    both = client.get_model_version("digits", "1").tags
    assert (both["edge.digest.pi"], both["edge.digest.mcu"], both["edge.devices"]) == (
        "d1",
        "e",
        "6",
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(EdgeError, match="does not take digits"):
        sync("http://127.0.0.1:1", "digits", again, {})


def test_the_region_that_is_asked_for_is_where_rows_lie_now_and_did_not_before():
    row = ChannelRow(
        name="input.heat", jensen_shannon=0.5, hellinger=0.5, psi=1.0, cramers_v=0.5, ks=None,
        wasserstein=None, shift=1.0, mean_before=0.0, mean=1.0, missing_before=0.0, missing=0.0,
        edges=(1.0, 2.0, 3.0), categories=(), before=(0.4, 0.4, 0.1, 0.1), now=(0.1, 0.2, 0.3, 0.4),
    )  # fmt: skip
    low, high = region_of([row])["input.heat"]
    assert (low, high) == (2.0, 1e300)
    calm = msgspec.structs.replace(row, jensen_shannon=0.05)
    with pytest.raises(InvalidInputError, match="no input moved"):
        region_of([calm])
    said = CliRunner().invoke(edge, ["label", "ask", "digits", "--between", "input.heat=3:1"])
    assert said.exit_code == 2
    assert "CHANNEL=LOW:HIGH" in said.output
