"""`edge convert` as a function: candidates made, measured, judged per board, the best one bundled.

Files appear in the output folder after everything else is done, or not at all.
"""

import importlib.util
import tempfile
import time
from pathlib import Path

from converters import gate
from converters.assemble import Identity, build, score_kind
from converters.bench import Bench, Made, Missed, Progress, score_source
from converters.foreman import TFLITE_WORKER, WORKER, Foreman
from converters.order import Order, check_fit, model_sha256, plan, read_inputs
from converters.result import (
    Candidate,
    Conversion,
    Host,
    ProfileResult,
    Proof,
    Verdict,
    this_host,
)
from edge_sdk.bundle import Lineage, file_name
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import sha256, write_atomic
from edge_sdk.formats import to_json
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import SigningKey

_NEEDED = ("ai_edge_litert", "ai_edge_quantizer")
_NEEDED_TO_TRAIN = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def quiet(_step: str) -> None:
    """Progress for those who do not look."""


def convert(order: Order, key: SigningKey, progress: Progress = quiet) -> Conversion:
    """Make, measure and judge every candidate, and write the best for each board.

    A board that nothing fits gets no bundle, and its result says why.

    Raises:
        InvalidInputError: the order can't be carried out as given; nothing was written.
        EdgeError: the convert extra is not installed.
    """
    started = time.perf_counter()
    tflite = order.model.suffix == ".tflite"
    _check_extra(_NEEDED if tflite else (*_NEEDED, *_NEEDED_TO_TRAIN))
    worker = TFLITE_WORKER if tflite else WORKER
    planned = plan(order)
    with (
        tempfile.TemporaryDirectory(prefix="edge-convert-") as folder,
        Foreman(order.model, Path(folder, "worker.log"), worker) as foreman,
    ):
        bench = _set_up(order, foreman, Path(folder), progress)
        tried = [bench.attempt(recipe, progress) for recipe in planned.recipes]
    progress("judging and signing")
    identity = _identity(order, planned.name, bench)
    candidates = tuple(_candidate(one) for one in tried)
    made = {one.recipe.name: one for one in tried if isinstance(one, Made)}
    results, files, host = [], {}, this_host()
    limits = gate.Limits(order.max_drop, order.max_class_drop)
    for profile in planned.profiles:
        verdicts = tuple(_verdict(one, profile, limits) for one in tried)
        fitting = {v.recipe: made[v.recipe].measurement for v in verdicts if not v.reasons}
        chosen = gate.best(fitting)
        result = ProfileResult(profile=profile.name, verdicts=verdicts)
        if chosen is not None:
            manifest, data = build(made[chosen], profile, identity, bench.inputs.rows, key)
            path = order.out / file_name(manifest.name, manifest.version, manifest.profile)
            result = ProfileResult(
                profile=profile.name,
                verdicts=verdicts,
                chosen=chosen,
                bundle=path.name,
                digest=sha256(data),
                bundle_bytes=len(data),
            )
            files[path] = data
            files[path.with_suffix(".proof.json")] = _proof(result, candidates, host)
        results.append(result)
    _write(order.out, files)
    train = bench.inputs.train
    return Conversion(
        name=planned.name,
        version=planned.version,
        source=bench.opened.facts,
        calibration_rows=len(bench.inputs.rows.calibration),
        held_out_rows=len(bench.inputs.rows.held_x),
        train_rows=0 if train is None else len(train.x),
        left_out_rows=bench.inputs.left_out,
        max_drop=order.max_drop,
        candidates=candidates,
        profiles=tuple(results),
        host=host,
        seconds=time.perf_counter() - started,
    )


def _check_extra(needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgeError(
            f"converting needs {', '.join(missing)}: pip install 'edge-deployment-sdk[convert]'"
        )


def _set_up(order: Order, foreman: Foreman, folder: Path, progress: Progress) -> Bench:
    """The worker imports TensorFlow meanwhile: it was started before the data is read."""
    progress("reading the data")
    inputs = read_inputs(order)
    progress("loading the model")
    opened = foreman.open()
    labels = check_fit(order, inputs, opened.facts)
    progress("running the float model")
    scores = score_source(foreman, folder, inputs, order.preprocessing)
    return Bench(foreman, folder, inputs, labels, order.preprocessing, opened, scores)


def _identity(order: Order, name: str, bench: Bench) -> Identity:
    inputs = bench.inputs
    return Identity(
        name=name,
        version=order.version,
        labels=bench.labels,
        input=inputs.schema,
        preprocessing=order.preprocessing,
        scores=score_kind(bench.float_scores),
        lineage=Lineage(
            source=model_sha256(order.model),
            data=inputs.data.sha256,
            calibration=inputs.calibration_sha256,
            train=None if inputs.train is None else inputs.train.sha256,
            tools=bench.opened.tools,
        ),
    )


def _candidate(one: Made | Missed) -> Candidate:
    if isinstance(one, Missed):
        return Candidate(recipe=one.recipe.name, failed=one.reason, seconds=one.seconds)
    return Candidate(recipe=one.recipe.name, measurement=one.measurement, seconds=one.seconds)


def _verdict(one: Made | Missed, profile: HardwareProfile, limits: gate.Limits) -> Verdict:
    if isinstance(one, Missed):
        return Verdict(recipe=one.recipe.name, reasons=(one.reason,))
    return Verdict(
        recipe=one.recipe.name,
        reasons=tuple(gate.reasons_to_refuse(one.measurement, profile, limits)),
        ram_bytes=gate.ram_needed(one.measurement, profile),
        estimated_ms=gate.estimated_ms(one.measurement, profile),
    )


def _proof(result: ProfileResult, candidates: tuple[Candidate, ...], host: Host) -> bytes:
    return to_json(
        Proof(
            bundle=result.bundle or "",
            digest=result.digest or "",
            result=result,
            candidates=candidates,
            host=host,
        )
    )


def _write(out: Path, files: dict[Path, bytes]) -> None:
    """All files or none; raises InvalidInputError if the folder can't take them."""
    written: list[Path] = []
    try:
        if files:
            out.mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            write_atomic(path, data)
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise InvalidInputError(f"{out} can't be written: {error.strerror}") from error
