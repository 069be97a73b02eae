"""From a bundle on disk to a model that answers: verified, loaded, self-tested."""

from pathlib import Path

import msgspec

from edge_sdk.bundle import Bundle, Manifest, unpack
from edge_sdk.errors import CorruptBundleError, NotConvertibleError, RefusedError
from edge_sdk.interpreter import Interpreter, LiteRt, self_test
from edge_sdk.messages import Assignment, Running
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import PublicKey
from edge_sdk.sketch import Baseline

# No delegate for an accelerator or a microcontroller is built in: the CPU stands in, openly.
STANDS_IN = {
    "litert": "",
    "edgetpu": " (no Edge TPU found)",
    "tflite-micro": " (stands in for TFLite Micro)",
    "tflite-runtime": " (stands in for tflite-runtime)",
}


class Model(msgspec.Struct, frozen=True):
    """A model in memory that passed its self-test."""

    running: Running
    manifest: Manifest
    baseline: Baseline
    interpreter: Interpreter
    description: str


def verified(path: Path, order: Assignment, keys: list[PublicKey]) -> Bundle:
    """The bundle at `path`, if it is the ordered one and signed by one of `keys`.

    Raises:
        RefusedError, FormatError: it is not; in words.
    """
    try:
        bundle = unpack(path.read_bytes(), keys)
    except FileNotFoundError as error:
        raise CorruptBundleError("its bundle is gone from the disk") from error
    if bundle.digest != order.digest:
        raise CorruptBundleError(
            f"the bundle has SHA-256 {bundle.digest[:12]}…, the order says {order.digest[:12]}…"
        )
    manifest = bundle.manifest
    said = (manifest.name, manifest.version, manifest.profile)
    ordered = (order.model, order.version, order.profile)
    if said != ordered:
        raise RefusedError(f"the bundle is {' '.join(said)}, the order is for {' '.join(ordered)}")
    return bundle


def load(path: Path, order: Assignment, keys: list[PublicKey], profile: HardwareProfile) -> Model:
    """The model, ready to answer.

    Raises:
        EdgeError: not the ordered bundle, does not load, or fails its self-test; in words.
    """
    return prepare(verified(path, order, keys), order, profile)


def prepare(bundle: Bundle, order: Assignment, profile: HardwareProfile) -> Model:
    """The model of a verified bundle, ready to answer; raises EdgeError as `load` does."""
    manifest, golden = bundle.manifest, bundle.golden
    interpreter = LiteRt(
        bundle.model,
        manifest.preprocessing,
        family="xnnpack" if "xnnpack" in golden.expected else "builtin",
        threads=profile.threads,
        reconstructs=manifest.reconstructs,
    )
    try:
        problem = self_test(interpreter, golden, manifest)
    except (ValueError, RuntimeError) as error:
        raise NotConvertibleError(f"the model can't run its golden samples: {error}") from error
    if problem:
        raise RefusedError(f"self-test failed: {problem}")
    return Model(
        Running(order.model, order.version, order.digest),
        manifest,
        bundle.baseline,
        interpreter,
        interpreter.description + STANDS_IN[profile.runtime],
    )
