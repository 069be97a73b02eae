"""From a bundle on disk to a model that answers: verified, loaded, self-tested."""

from importlib.util import find_spec
from pathlib import Path

import msgspec

from device_agent.accelerator import LIBRARY, why_no_edge_tpu
from device_agent.board import Board, OnBoard, put_on
from edge_sdk.bundle import Bundle, KernelFamily, Manifest, unpack
from edge_sdk.errors import CorruptBundleError, NotConvertibleError, RefusedError
from edge_sdk.interpreter import Interpreter, LiteRt, TfliteRuntime, self_test
from edge_sdk.messages import Assignment, Running
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import PublicKey
from edge_sdk.sketch import Baseline


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


def load(
    path: Path,
    order: Assignment,
    keys: list[PublicKey],
    profile: HardwareProfile,
    board: Board | None = None,
) -> Model:
    """The model, ready to answer; on `board`, if one is given.

    Raises:
        EdgeError: not the ordered bundle, does not load, or fails its self-test; in words.
    """
    return prepare(verified(path, order, keys), order, profile, board)


def prepare(
    bundle: Bundle, order: Assignment, profile: HardwareProfile, board: Board | None = None
) -> Model:
    """The model of a verified bundle, ready to answer; raises EdgeError as `load` does."""
    manifest, golden = bundle.manifest, bundle.golden
    interpreter: LiteRt | OnBoard
    if board is not None:
        interpreter, remark = put_on(board, bundle.model, manifest), ""
    else:
        interpreter, remark = _interpreter(bundle, profile)
    try:
        problem = self_test(interpreter, golden, manifest)
    except (ValueError, RuntimeError) as error:
        raise NotConvertibleError(f"the model can't run its golden samples: {error}") from error
    if isinstance(interpreter, OnBoard):
        interpreter.testing = False
    if problem:
        raise RefusedError(f"self-test failed: {problem}")
    return Model(
        Running(order.model, order.version, order.digest),
        manifest,
        bundle.baseline,
        interpreter,
        interpreter.description + remark,
    )


def _interpreter(bundle: Bundle, profile: HardwareProfile) -> tuple[LiteRt, str]:
    """The profile's runtime, and what stands in for it if it is not here, openly."""
    family: KernelFamily = "xnnpack" if "xnnpack" in bundle.golden.expected else "builtin"
    make, delegate, remark = LiteRt, "", ""
    match profile.runtime:
        case "litert":
            pass
        case "edgetpu":
            why = why_no_edge_tpu()
            remark = f" (no Edge TPU: {why})" if why else ""
            delegate = "" if why else LIBRARY
        case "tflite-runtime":
            if find_spec("tflite_runtime"):
                make, family = TfliteRuntime, "builtin"
            else:
                remark = " (stands in for tflite-runtime)"
        case "tflite-micro":
            remark = " (stands in for TFLite Micro)"
    manifest = bundle.manifest
    made = make(
        bundle.model,
        manifest.preprocessing,
        family=family,
        threads=profile.threads,
        reconstructs=manifest.reconstructs,
        delegate=delegate,
    )
    return made, remark
