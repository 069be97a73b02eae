"""One document of every format, with fixed content. `make golden` writes the files anew.

A change of these bytes is a change of a contract: add a new version beside the old one instead.
"""

import base64
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_sdk import bundle, identity, messages
from edge_sdk.calibration import Disturbed
from edge_sdk.channels import InputSchema, Preprocessing
from edge_sdk.formats import to_json, to_msgpack
from edge_sdk.ops import Op
from edge_sdk.signed_time import sign_time
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import Baseline, Channel, Sketch
from edge_sdk.subspace import Subspace

FOLDER = Path(__file__).parent / "golden"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
MAC_KEY = bytes(range(32, 64))

BASELINE = Baseline(
    channels={
        "input.brightness": Channel(
            kind="numeric", edges=(0.0, 0.5, 1.0), counts=(0, 3, 4, 1), mean=0.5, sd=0.25
        ),
        "output.class": Channel(
            kind="category", categories=("cat", "dog"), counts=(5, 3, 0), mean=0.375, sd=0.5
        ),
    },
    rows=8,
)
NOVEL_BASELINE = msgspec.structs.replace(
    BASELINE,
    channels={
        **BASELINE.channels,
        "input.novelty": Channel(
            kind="numeric", edges=(0.5, 1.0, 2.0), counts=(1, 4, 3, 0), mean=0.75, sd=0.25
        ),
    },
    subspace=Subspace(
        columns=("input.brightness",),
        mean=np.array([0.5], "<f4").tobytes(),
        scale=np.array([0.25], "<f4").tobytes(),
        components=np.array([1.0], "<f4").tobytes(),
        spread=(1.0,),
        rest=1.0,
    ),
    disturbed=(Disturbed(kind="noise", rows=8, right=6, looks=(0.75, 0.125, 0.5, 0.25)),),
)
MANIFEST = bundle.Manifest(
    name="pets",
    version="7",
    profile="raspberry-pi-4",
    runtime="litert",
    labels=("cat", "dog"),
    input=InputSchema(name="x", kind="image", shape=(2, 2, 1), low=0.0, high=255.0, unit="grey"),
    preprocessing=Preprocessing(scale=0.00390625),
    model_input=bundle.TensorSpec(
        name="x", dtype="int8", shape=(1, 2, 2, 1), scale=0.00390625, zero_point=-128
    ),
    model_output=bundle.TensorSpec(
        name="y", dtype="int8", shape=(1, 2), scale=0.00390625, zero_point=-128
    ),
    scores="probabilities",
    latency_budget_ms=50.0,
    ram_bytes=1_000_000,
    golden_tolerance={"xnnpack": 1e-6, "builtin": 1e-6},
    recipe=bundle.Recipe("int8", ("post-training int8",)),
    metrics=bundle.Metrics(
        rows=8,
        float_accuracy=1.0,
        accuracy=0.875,
        drop=0.125,
        drop_low=0.0,
        drop_high=0.375,
        agreement=0.875,
        per_class={"cat": 1.0, "dog": 0.75},
    ),
    lineage=bundle.Lineage(
        source="0" * 64, data="1" * 64, calibration="2" * 64, train=None, tools={"tool": "1.0"}
    ),
    members={},
    ops=(Op("CONV_2D", 3, 2), Op("SOFTMAX", 25, 1)),
)
WINDOW = messages.Window(
    model="pets",
    version="7",
    digest="ab" * 32,
    edges_id=BASELINE.edges_id,
    seconds=60.0,
    rows=3,
    skew={"range": 1},
    channels={"input.brightness": Sketch([0, 1, 2, 0], 3, 0, 1.5, 0.875, 0.25, 0.75)},
    rss_bytes=1000,
)
REPORT = messages.Report(
    generation=4,
    phase="confirmed",
    running=messages.Running("pets", "7", "ab" * 32),
    runtime="litert/xnnpack/cpu",
    agent="0.1.0",
)
EVENT = messages.Event(name="started", detail="agent 0.1.0")
SIDE = messages.Side(
    Sketch([0] * 21 + [3], 3, 0, 3.0, 3.0, 1.0, 1.0), Sketch([3] + [0] * 81, 3, 0, 0.003, 3e-6)
)
COMPARED_WINDOW = msgspec.structs.replace(
    WINDOW,
    comparison=messages.Comparison(
        model="pets",
        version="8",
        digest="cd" * 32,
        rows=3,
        agreed=2,
        skipped=1,
        primary=SIDE,
        shadow=SIDE,
        lead=Sketch([0] * 10 + [3] + [0] * 11, 3),
    ),
    hardware=messages.Hardware(cpu=0.25, temperature=61.5, flags=("under-voltage",)),
)
SAMPLE = messages.Sample(
    model="pets",
    version="7",
    digest="ab" * 32,
    command=2,
    policy="margin",
    id="0f" * 16,
    score=0.75,
    share=0.25,
    probabilities=(0.625, 0.375),
    shadow=("cd" * 32, 1),
    dtype="uint8",
    shape=(2, 2, 1),
    data=bytes([0, 1, 2, 255]),
    transforms=("blur 1",),
)
COMMAND = messages.Command(
    device="pi-7",
    number=2,
    issued=1_700_000_000.0,
    samples=messages.SampleRequest(
        policy="margin",
        quota=20,
        until=1_700_086_400.0,
        classes=("cat",),
        between={"input.brightness": (0.0, 0.25)},
    ),
)
ASSIGNMENT = messages.Assignment(
    device="pi-7",
    generation=4,
    model="pets",
    version="7",
    profile="raspberry-pi-4",
    digest="ab" * 32,
    length=1234,
    rollout="r1",
    not_before=1_700_000_000.0,
    needs=(Op("CONV_2D", 3, 2), Op("SOFTMAX", 25, 1)),
)
TRUST = identity.Trust(
    publishers=(KEY.public.hex,),
    director=KEY.public.hex,
    exchange=identity.exchange_public(bytes(range(32))),
    ca="cd" * 32,
    root="ef" * 32,
)


def sealed(body: messages.Body, seq: int) -> bytes:
    """An upward message with fixed numbers."""
    envelope = messages.Sealed(
        device="pi-7", boot="b1", seq=seq, wall=1_700_000_000.5, uptime=12.25, body=to_msgpack(body)
    )
    return messages.seal(envelope, messages.KIND_OF[type(body)], MAC_KEY)


def packed_bundle() -> bytes:
    """A bundle whose members are small and fixed; the model is no real one."""
    golden = bundle.Golden(
        inputs=np.zeros((1, 2, 2, 1), np.uint8),
        expected={"xnnpack": np.array([[0.25, 0.75]], np.float32)},
    )
    members = {
        bundle.MODEL: b"not a model",
        bundle.GOLDEN: bundle.encode_golden(golden),
        bundle.BASELINE: to_json(BASELINE),
        bundle.CARD: b"# pets\n",
    }
    return bundle.pack(MANIFEST, members, KEY)


def documents() -> dict[str, bytes]:
    """File name to bytes, for every format that crosses a process or lives on disk."""
    request = identity.EnrolRequest(
        token_id="t1", device="pi-7", public="0" * 64, profile="raspberry-pi-4",
        labels={"site": "north"}, csr="a certificate request",
    )  # fmt: skip
    answer = identity.EnrolAnswer(
        device="pi-7", trust=base64.b64encode(to_json(TRUST)).decode(), mqtt_port=1883,
        ca="a certificate", certificate="another certificate",
    )  # fmt: skip
    return {
        "manifest-1.json": to_json(MANIFEST),
        "baseline-1.json": to_json(BASELINE),
        "baseline-1-novelty.json": to_json(NOVEL_BASELINE),
        "trust-1.json": to_json(TRUST),
        "assignment-1.dsse.json": messages.sign_assignment(ASSIGNMENT, KEY),
        "enrol-request-1.json": msgspec.json.encode(identity.prove(request, b"k" * 32)),
        "enrol-answer-1.json": msgspec.json.encode(answer),
        "telemetry-1.msgpack": sealed(WINDOW, 1),
        "report-1.msgpack": sealed(REPORT, 2),
        "event-1.msgpack": sealed(EVENT, 3),
        "telemetry-1-compared.msgpack": sealed(COMPARED_WINDOW, 4),
        "sample-1.msgpack": sealed(SAMPLE, 5),
        "link-1.msgpack": sealed(messages.Connection(number=2, up=False), 0),
        "command-1.dsse.json": messages.sign_command(COMMAND, KEY),
        "ack-1.msgpack": messages.seal_ack("b1", 3, "pi-7", MAC_KEY),
        "time-1.dsse.json": sign_time("nonce-1", 1_700_000_000.5, KEY),
        "bundle-1.edge": packed_bundle(),
    }


if __name__ == "__main__":
    for name, data in documents().items():
        (FOLDER / name).write_bytes(data)
