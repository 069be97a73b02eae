"""`edge convert` as a function: candidates made, measured, judged per board, the best one bundled.

Files appear in the output folder after everything else is done, or not at all.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from converters import edgetpu, gate, tracking
from converters.assemble import Identity, build, score_kind
from converters.bench import Bench, Made, Missed, Progress, score_source
from converters.explain import Explanation, explained
from converters.foreman import (
    TFLITE_WORKER,
    WORKER,
    CannotConvertError,
    Foreman,
    WorkerDiedError,
)
from converters.front import front, picture, points
from converters.order import Order, Plan, check_fit, model_sha256, plan, read_inputs
from converters.page import page
from converters.protocol import Describe
from converters.recipe import BUILD, Recipe
from converters.result import (
    Candidate,
    Conversion,
    ProfileResult,
    Proof,
    Verdict,
    this_host,
)
from converters.search_order import Search
from converters.space import Hyper, for_boards, space_of
from converters.steps import Build
from edge_sdk.bundle import Lineage, Manifest, file_name
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import sha256, write_atomic
from edge_sdk.formats import to_json
from edge_sdk.interpreter import LiteRt
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import SigningKey

_NEEDED = ("ai_edge_litert", "ai_edge_quantizer")
_NEEDED_FOR_ONNX = ("onnx2tf", "onnxruntime", "onnx_graphsurgeon", "sng4onnx")
_NEEDED_TO_TRAIN = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def quiet(_step: str) -> None:
    """Progress for those who do not look."""


def convert(order: Order, key: Callable[[], SigningKey], progress: Progress = quiet) -> Conversion:
    """Make, measure and judge every candidate, and write the best for each board.

    A board that nothing fits gets no bundle, and its result says why. `key` is asked for when there
    is something to sign.

    Raises:
        InvalidInputError: the order can't be carried out as given; nothing was written.
        EdgeError: an extra is not installed.
    """
    started = time.perf_counter()
    tflite = order.model.suffix == ".tflite"
    _check_extra(_NEEDED if tflite else (*_NEEDED, *_NEEDED_TO_TRAIN), "convert")
    if order.model.suffix == ".onnx":
        _check_extra(_NEEDED_FOR_ONNX, "convert,onnx")
    if order.explain:
        _check_extra(("shap", "lime"), "explain")
    tracking.check()
    planned = plan(order)
    worker = TFLITE_WORKER if tflite else WORKER
    with (
        tempfile.TemporaryDirectory(prefix="edge-convert-") as folder,
        Foreman(order.model, Path(folder, "worker.log"), worker, memory=order.memory) as foreman,
    ):
        bench = _set_up(order, planned, foreman, Path(folder), progress)
        if order.search is None:
            tried = [bench.attempt(recipe, progress) for recipe in planned.recipes]
        else:
            tried = _searched(bench, planned, order.search, progress)
        progress("judging and signing")
        identity = _identity(order, planned.name, bench)
        boards = [_board(profile, tried, bench, identity, key) for profile in planned.profiles]
        explanations = _explanations(bench, boards, progress) if order.explain else {}
    conversion = _conversion(bench, planned, tried, boards, explanations)
    conversion = msgspec.structs.replace(conversion, seconds=time.perf_counter() - started)
    _write(order.out, _files(order.out, conversion, boards))
    tracking.log(conversion, order.out)
    return conversion


class _Board(msgspec.Struct, frozen=True):
    """What came out for one board; nothing was written yet."""

    result: ProfileResult
    manifest: Manifest | None = None
    card: str = ""
    bundle: bytes = b""
    compiled: bytes = b""
    made: Made | None = None


def _board(
    profile: HardwareProfile, tried: list[Made | Missed], bench: Bench, identity: Identity,
    key: Callable[[], SigningKey],
) -> _Board:  # fmt: skip
    limits = gate.Limits(bench.order.max_drop, bench.order.max_class_drop)
    verdicts = {one.recipe.name: _verdict(one, profile, limits) for one in tried}
    made = {one.recipe.name: one for one in tried if isinstance(one, Made)}
    compiled = b""
    while True:
        fitting = {name: made[name].measurement for name, v in verdicts.items() if not v.reasons}
        chosen = gate.best(fitting, limits)
        if chosen is None:
            return _Board(ProfileResult(profile=profile.name, verdicts=tuple(verdicts.values())))
        problem, compiled = _compiled(profile, made[chosen], bench.folder)
        if not problem:
            break
        verdicts[chosen] = msgspec.structs.replace(verdicts[chosen], reasons=(problem,))
    manifest, card, data = build(made[chosen], profile, identity, bench.inputs, key())
    name = file_name(manifest.name, manifest.version, manifest.profile)
    result = ProfileResult(
        profile=profile.name,
        verdicts=tuple(verdicts.values()),
        chosen=chosen,
        bundle=name,
        digest=sha256(data),
        bundle_bytes=len(data),
    )
    return _Board(result, manifest, card, data, compiled, made[chosen])


def _compiled(profile: HardwareProfile, made: Made, folder: Path) -> tuple[str, bytes]:
    """What the Edge TPU's own compiler has against a model, and its file; nothing without one."""
    path = edgetpu.compiler() if profile.runtime == "edgetpu" else None
    if path is None:
        return "", b""
    model = folder / "chosen.tflite"
    model.write_bytes(made.model)
    found = edgetpu.compiled(model, path)
    return found.problem, found.model


def _explanations(bench: Bench, boards: list[_Board], progress: Progress) -> dict[str, Explanation]:
    """Of every model that was chosen, by its recipe."""
    chosen = {board.made.recipe.name: board.made for board in boards if board.made is not None}
    found = {}
    for name, made in chosen.items():
        progress(f"{name}: explaining")
        model = LiteRt(made.model, made.preprocessing, reconstructs=bench.order.task == "anomaly")
        found[name] = explained(
            bench.source_answers, model.run_rows, bench.inputs.rows.held_x,
            bench.inputs.rows.calibration, bench.inputs.schema.columns,
        )  # fmt: skip
    return found


def _conversion(
    bench: Bench, planned: Plan, tried: list[Made | Missed], boards: list[_Board],
    explanations: dict[str, Explanation],
) -> Conversion:  # fmt: skip
    inputs, order = bench.inputs, bench.order
    made = {one.recipe.name: one.measurement for one in tried if isinstance(one, Made)}
    candidates = tuple(_candidate(one) for one in tried)
    return Conversion(
        name=planned.name,
        version=planned.version,
        source=bench.opened.facts,
        calibration_rows=len(inputs.rows.calibration),
        held_out_rows=len(inputs.rows.held_x),
        train_rows=0 if inputs.train is None else len(inputs.train.x),
        left_out_rows=inputs.left_out,
        balance=_balance(bench),
        fastest=gate.fastest(made),
        front=tuple(point.name for point in front(points(candidates))),
        max_drop=order.max_drop,
        candidates=candidates,
        profiles=tuple(board.result for board in boards),
        explanations=explanations,
        host=this_host(),
        seconds=0,
    )


def _files(out: Path, conversion: Conversion, boards: list[_Board]) -> dict[Path, bytes]:
    """Each board's bundle, its proof, its card as a page, and the file of the TPU's compiler."""
    files: dict[Path, bytes] = {}
    drawn = picture(conversion)
    for board in boards:
        result = board.result
        if result.bundle is None or result.chosen is None:
            continue
        proof = Proof(
            bundle=result.bundle,
            digest=result.digest or "",
            result=result,
            candidates=conversion.candidates,
            explanation=conversion.explanations.get(result.chosen),
            picture=drawn,
            host=conversion.host,
        )
        path = out / result.bundle
        files[path] = board.bundle
        files[path.with_suffix(".proof.json")] = to_json(proof)
        files[path.with_suffix(".card.html")] = page(board.card, proof).encode()
        if board.compiled:
            files[path.with_suffix(".edgetpu.tflite")] = board.compiled
    return files


def _check_extra(needed: tuple[str, ...], extra: str) -> None:
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgeError(
            f"this needs {', '.join(missing)}: pip install 'edge-deployment-sdk[{extra}]'"
        )


def _searched(
    bench: Bench, planned: Plan, wanted: Search, progress: Progress
) -> list[Made | Missed]:
    from converters.alone import parcel
    from converters.kept import Kept
    from converters.search import Quest, search

    order, inputs = bench.order, bench.inputs
    limits = gate.Limits(order.max_drop, order.max_class_drop)
    built = {}
    for recipe in planned.recipes:
        if recipe.name.startswith(BUILD):
            built[recipe.name] = {h.name: h.values for h in _hyperparameters(bench, recipe)}
    names = [recipe.name for recipe in planned.recipes] or for_boards(planned.profiles)
    train_rows = 0 if inputs.train is None else len(inputs.train.x)
    space = space_of(names, bench.opened.facts, train_rows, built)
    made_from = (
        model_sha256(order.model), inputs.data.sha256, inputs.calibration_sha256,
        "" if inputs.train is None else inputs.train.sha256, str(order.preprocessing), order.task,
        *order.slices, *bench.runtimes, *(["embedding"] if order.embedding else []),
    )  # fmt: skip

    def refused(one: Made) -> int:
        return sum(
            bool(gate.reasons_to_refuse(one.measurement, profile, limits))
            for profile in planned.profiles
        )

    kept = Kept(wanted.study or bench.folder / "kept", "\n".join(made_from))
    return search(Quest(parcel(bench), space, wanted, kept, refused), time.monotonic, progress)


def _hyperparameters(bench: Bench, recipe: Recipe) -> tuple[Hyper, ...]:
    [build] = [step for step in recipe.steps if isinstance(step, Build)]
    try:
        return bench.foreman.ask(Describe(build.function)).hyper
    except (CannotConvertError, WorkerDiedError) as error:
        raise InvalidInputError(f"recipe {recipe.name}: {error}") from error


def _set_up(
    order: Order, planned: Plan, foreman: Foreman, folder: Path, progress: Progress
) -> Bench:
    """The worker imports TensorFlow meanwhile: it was started before the data is read."""
    progress("reading the data")
    inputs = read_inputs(order)
    progress("loading the model")
    opened = foreman.open()
    labels = check_fit(order, inputs, opened.facts)
    progress("running the float model")
    scores = score_source(foreman, folder, order, inputs.rows.held_x)
    bench = Bench(
        foreman=foreman,
        folder=folder,
        order=order,
        inputs=inputs,
        runtimes=tuple(sorted({profile.runtime for profile in planned.profiles})),
        tpu_ops=next((p.ops for p in planned.profiles if p.runtime == "edgetpu"), ()),
        labels=labels,
        opened=opened,
        float_scores=scores,
    )
    bench.lay_out()
    return bench


def _identity(order: Order, name: str, bench: Bench) -> Identity:
    inputs = bench.inputs
    return Identity(
        name=name,
        version=order.version,
        labels=bench.labels,
        input=inputs.schema,
        task=order.task,
        scores=score_kind(bench.float_scores, order.task),
        lineage=Lineage(
            source=model_sha256(order.model),
            data=inputs.data.sha256,
            calibration=inputs.calibration_sha256,
            train=None if inputs.train is None else inputs.train.sha256,
            tools=bench.opened.tools,
        ),
    )


def _balance(bench: Bench) -> dict[str, int]:
    held = bench.inputs.rows.held_y
    return {label: int((held == i).sum()) for i, label in enumerate(bench.labels)}


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
        proven=gate.proven(one.measurement.metrics, limits),
        ram_bytes=gate.ram_needed(one.measurement, profile),
        estimated_ms=gate.estimated_ms(one.measurement, profile),
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
