"""Rows from folders of pictures and sounds, and from a function of the user's."""

import wave

import numpy as np
import pytest
from PIL import Image

from converters.dataset import read, split
from edge_sdk.errors import InvalidInputError

RNG = np.random.default_rng(1)


def picture(path, colours=3, size=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 256, (size, size, 3) if colours == 3 else (size, size), np.uint8)
    Image.fromarray(values).save(path)
    return values


def sound(path, samples, channels=1, width=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())


def test_a_folder_of_pictures_has_a_class_for_each_folder(tmp_path):
    first = picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "cat" / "deep" / "2.png")
    picture(tmp_path / "dog" / "1.bmp")
    found = read(tmp_path)
    assert found.x.shape == (3, 6, 6, 3)
    assert (found.x[0] == first).all()
    assert (found.y.tolist(), found.labels) == ([0, 0, 1], ("cat", "dog"))
    assert found.sha256 == read(tmp_path).sha256


def test_grey_pictures_have_one_colour_and_need_no_class_to_calibrate(tmp_path):
    picture(tmp_path / "1.png", colours=1)
    found = read(tmp_path, labelled=False)
    assert found.x.shape == (1, 6, 6, 1)
    assert len(found.y) == 0


def test_a_folder_of_sounds_is_samples(tmp_path):
    samples = RNG.integers(-9000, 9000, 40).astype("<i2")
    sound(tmp_path / "on" / "a.wav", samples)
    sound(tmp_path / "off" / "a.wav", -samples)
    found = read(tmp_path)
    assert (found.x.dtype, found.x.shape, found.labels) == (np.int16, (2, 40, 1), ("off", "on"))
    assert (found.x[1, :, 0] == samples).all()


def test_each_folder_that_can_t_be_used_gets_its_own_sentence(tmp_path):
    def said(name, words):
        with pytest.raises(InvalidInputError, match=words):
            read(tmp_path / name)

    (tmp_path / "none").mkdir()
    said("none", "holds no .png, .jpg, .bmp or .wav file")
    picture(tmp_path / "flat" / "1.png")
    said("flat", "one folder for each class")
    picture(tmp_path / "sizes" / "a" / "1.png")
    picture(tmp_path / "sizes" / "b" / "1.png", size=5)
    said("sizes", r"shape \(5, 5, 3\), .* has \(6, 6, 3\): all files must have the same size")
    picture(tmp_path / "both" / "a" / "1.png")
    sound(tmp_path / "both" / "b" / "1.wav", np.zeros(4, "<i2"))
    said("both", "pictures and sounds")
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "1.png").write_text("no picture")
    said("text", "no picture that can be read")
    (tmp_path / "noise" / "a").mkdir(parents=True)
    (tmp_path / "noise" / "a" / "1.wav").write_bytes(b"RIFF")
    said("noise", "no .wav file of plain samples")
    sound(tmp_path / "stereo" / "a" / "1.wav", np.zeros(8, "<i2"), channels=2)
    said("stereo", "has 2 channels of 16 bits")


def test_a_function_gives_rows_and_columns_to_slice_by(tmp_path, monkeypatch):
    (tmp_path / "my_rows.py").write_text(
        "import numpy as np\n"
        "x, y = np.arange(120.).reshape(60, 2), np.arange(60) % 3\n"
        "def pair(): return x, y\n"
        "def sites(): return {'x': x, 'y': y, 'site': np.array(['n', 's'] * 30)}\n"
        "def nothing(): return 3\n"
        "def broken(): raise RuntimeError('no sensor')\n"
        "number = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    assert read(pathlike("my_rows:pair")).x.shape == (60, 2)
    found = read(pathlike("my_rows:sites"), slices=("site",))
    held = split(found).held
    assert set(found.slices["site"]) == {"n", "s"}
    assert (held.slices["site"] == np.where(held.x[:, 0] % 4 == 0, "n", "s")).all()
    for words, said in {
        "my_rows:absent": "can't be used: module 'my_rows' has no attribute 'absent'",
        "no_such_rows:pair": "can't be used: No module named 'no_such_rows'",
        "my_rows:nothing": r"must give \(x, y\), or a dict",
        "my_rows:broken": "my_rows:broken failed: RuntimeError: no sensor",
        "my_rows:number": "is no function",
    }.items():
        with pytest.raises(InvalidInputError, match=said):
            read(pathlike(words))
    with pytest.raises(InvalidInputError, match="holds no column floor"):
        read(pathlike("my_rows:sites"), slices=("floor",))


def pathlike(words):
    from pathlib import Path

    return Path(words)


def test_a_csv_column_of_words_tells_rows_apart_and_is_no_input(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("site,a,target\nnorth,1,0.5\nsouth,2,1.5\n")
    found = read(path, task="regression", slices=("site",))
    assert (found.columns, found.y.tolist()) == (("a",), [0.5, 1.5])
    assert found.slices["site"].tolist() == ["north", "south"]


def test_a_share_to_train_on_is_apart_from_the_others():
    from converters.dataset import Dataset, row_keys

    x = np.random.default_rng(5).random((900, 3))
    parts = split(Dataset(x, np.zeros(900, np.int64), ""), 0.5)
    sizes = [len(parts.train.x), len(parts.calibration), len(parts.held_x)]
    assert sum(sizes) == 900
    assert 400 < sizes[0] < 500
    assert 60 < sizes[1] < 120
    keys = [set(row_keys(part)) for part in (parts.train.x, parts.calibration, parts.held_x)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    whole = split(Dataset(x, np.zeros(900, np.int64), ""), 0)
    assert whole.train is None
