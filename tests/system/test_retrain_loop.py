"""The way back, whole: devices send rows, they get labels, `edge retrain` makes a challenger."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.server_side import server_process, until

pytestmark = [pytest.mark.system, pytest.mark.tensorflow, pytest.mark.timeout(900)]
EDGE = (sys.executable, "-m", "edge_sdk.cli")

TRAIN = """
import argparse
import numpy as np
import tensorflow as tf

parser = argparse.ArgumentParser()
for name in ("--old", "--new", "--out"):
    parser.add_argument(name)
given = parser.parse_args()
old, new = np.load(given.old), np.load(given.new)
x = np.concatenate([old["x"], *[new["x"]] * 10]).astype("float32") / 16
y = np.concatenate([old["y"], *[new["y"]] * 10])
tf.keras.utils.set_random_seed(1)
model = tf.keras.Sequential([
    tf.keras.layers.Input((8, 8, 1)), tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(48, activation="relu"), tf.keras.layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, epochs=12, batch_size=64, verbose=0)
model.save(given.out)
"""


def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images[..., None].astype(np.uint8), found.target


def edge(home, *arguments):
    """What a user types; its output."""
    environment = os.environ | {
        "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data"),
    }  # fmt: skip
    done = subprocess.run(
        [*EDGE, *map(str, arguments)], env=environment, text=True, capture_output=True, cwd=home
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def agent(home, name, token, url):
    """A device that watches digits which are dark on bright."""
    config = home / f"{name}.toml"
    config.write_text(
        f'[device]\nid = "{name}"\nprofile = "raspberry-pi-4"\nlabels = {{ site = "north" }}\n'
        f'[link]\nserver = "{url}"\n[input]\nsource = "npz:field.npz"\nrows_per_second = 60\n'
        "[telemetry]\nwindow_seconds = 1\n[trial]\nwindows = 2\n"
        f'[state]\ndir = "{name}"\n[samples]\nmodels = ["digits"]\nraw = true\n'
    )
    with (home / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*EDGE, "agent", "run", "--config", str(config)],
            cwd=home, env=os.environ | {"EDGE_ENROL_TOKEN": token}, stdout=log, stderr=log,
        )  # fmt: skip


def test_rows_of_devices_become_a_challenger_in_shadow_that_is_better_on_them(tmp_path):
    home = tmp_path
    x, y = digits()
    dark = (16 - x).astype(np.uint8)  # dark on bright
    np.savez(home / "old.npz", x=x[:1000], y=y[:1000])
    np.savez(home / "none.npz", x=x[:1], y=y[:1])
    np.savez(home / "field.npz", x=dark[1000:1400])
    (home / "train.py").write_text(TRAIN)
    subprocess.run(
        [sys.executable, "train.py", "--old", "old.npz", "--new", "none.npz", "--out", "one.keras"],
        cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    shape = ("--scale", 1 / 16, "--profile", "raspberry-pi-4")
    edge(home, "convert", "one.keras", "--data", "old.npz", "--name", "digits", "--version", "1",
         "--out", "bundles", "--recipe", "int8", *shape)  # fmt: skip
    trusted = ("--publisher", str(home / "config/edge/signing.pub"))
    with server_process(home / "server", *trusted) as up, up.client() as client:
        asks = ("--data-dir", home / "server")
        edge(home, "publish", "bundles/digits-1-raspberry-pi-4.edge", *asks)
        token = edge(home, "enroll", "key", "new", "--uses", "2", *asks).split()[0]
        devices = [agent(home, f"pi-{n}", token, up.where.url) for n in range(2)]
        try:
            until(lambda: len(client.devices()) == 2, 120)
            edge(home, "rollout", "create", "digits", "1", "--strategy", "all-at-once", *asks)
            until(lambda: [d.running for d in client.devices()] == ["1", "1"], 180)
            edge(home, "label", "ask", "digits", "--policy", "random", "--quota", "40", *asks)
            until(lambda: len(client.samples("digits")) >= 60, 180)
            labels(home, client, dict(zip(map(bytes, dark[1000:1400]), y[1000:1400], strict=True)))
            edge(home, "label", "add", "labels.csv", *asks)
            told = edge(home, "label", "accuracy", "digits", "--json", *asks)
            [version] = json.loads(told)
            before = version["accuracy"]["right"] / version["accuracy"]["labelled"]
            made = json.loads(
                edge(home, "retrain", "digits", "--train", "train.py", "--data", "old.npz",
                     "--version", "2", "--out", "again", "--scale", 1 / 16, "--max-drop", "0.05",
                     "--json", *asks)
            )  # fmt: skip
            until(lambda: "shadow" in {d.phase for d in client.devices()}, 240)
        finally:
            for device in devices:
                device.send_signal(signal.SIGTERM)
            for device in devices:
                device.wait(30)
    assert made["rows"] >= 60
    assert before < 0.5
    verified = edge(home, "verify", "bundles/digits-1-raspberry-pi-4.edge", made["bundles"][0],
                    "--data", "again/new-held.npz", "--key", "config/edge/signing.pub",
                    "--json")  # fmt: skip
    found = json.loads(verified)
    assert found["metrics"]["accuracy"] > before
    lineage = json.loads((home / "again" / "lineage.json").read_text())
    assert lineage["model"] == "digits"
    assert not {row["device"] for row in lineage["rows"]} & {"pi-0", "pi-1"}  # pseudonyms


def rows_of(client):
    with np.load(io.BytesIO(client.waiting("digits"))) as file:
        return {name: file[name] for name in file.files}


def labels(home, client, truth):
    """What a person would say of each row, as a file."""
    rows = rows_of(client)
    with (home / "labels.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["device", "row", "model", "version", "predicted", "label", "taken_at"])
        for i, row in enumerate(rows["x"]):
            out.writerow([rows["device"][i], rows["row"][i], "digits", rows["version"][i],
                          rows["predicted"][i], truth[bytes(row)],
                          rows["taken_at"][i]])  # fmt: skip
