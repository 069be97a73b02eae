"""`edge run`: a model over files, as a person would call it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edge_sdk.cli import edge, main
from edge_sdk.signing import SigningKey
from tests.agent_world import LABELS, MODEL, rows, tiny_bundle

pytestmark = pytest.mark.system
KEY = SigningKey.generate()


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "quarters.edge"
    path.write_bytes(tiny_bundle(KEY))
    return path


def run(*arguments):
    return CliRunner().invoke(edge, ["run", *map(str, arguments)], catch_exceptions=False)


def test_every_row_of_a_file_is_answered_once_with_throughput(bundle, tmp_path):
    np.savez(tmp_path / "x.npz", x=rows(30))
    found = run(bundle, "--input", tmp_path / "x.npz", "--json", "--scores")
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [a["name"] for a in answers] == [str(n) for n in range(30)]
    assert {a["label"] for a in answers} <= set(LABELS)
    assert len(answers[0]["scores"]) == 4
    summary = json.loads(found.stderr.splitlines()[-1])
    assert (summary["answered"], summary["errors"]) == (30, 0)
    assert summary["rows_per_second"] > 0


def test_pictures_are_brought_to_the_models_size(bundle, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = np.zeros((32, 32), np.uint8)
    picture[16:, 16:] = 14
    image.fromarray(picture).save(folder / "one.png")
    for given in (folder, folder / "one.png"):
        answer = json.loads(run(bundle, "--input", given).stdout)
        assert (answer["name"], answer["label"]) == ("one.png", "bottom-right")


def test_a_bare_tflite_runs_without_labels_and_output_goes_to_a_file(tmp_path):
    np.savez(tmp_path / "x.npz", x=rows(5))
    out = tmp_path / "answers.jsonl"
    found = run(MODEL, "--input", tmp_path / "x.npz", "--output", out, "--limit", 2)
    assert found.stdout == ""
    assert len(out.read_text().splitlines()) == 2


def test_rows_that_do_not_fit_are_told_and_none_answered_is_exit_3(bundle, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(bundle), "--input", str(tmp_path / "x.csv")])
    assert ended.value.code == 3
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["skew"] == "shape"
    assert first["error"]


def test_a_damaged_or_foreign_bundle_and_an_endless_input_are_refused(bundle, tmp_path, capsys):
    SigningKey.generate().save(tmp_path / "other.key")
    other = tmp_path / "other.pub"
    np.savez(tmp_path / "x.npz", x=rows(1))
    for arguments, says in (
        ([bundle, "--key", other, "--input", tmp_path / "x.npz"], "does not hold"),
        ([bundle, "--input", "camera:0"], "give a folder of pictures"),
        ([tmp_path / "x.npz", "--input", tmp_path / "x.npz"], "no readable manifest"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["run", *map(str, arguments)])
        assert ended.value.code in (2, 3)
        assert says in capsys.readouterr().err
