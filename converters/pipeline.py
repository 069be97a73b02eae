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
from converters.foreman import (
    TFLITE_WORKER,
    WORKER,
    CannotConvertError,
    Foreman,
    WorkerDiedError,
)
from converters.order import Order, Plan, check_fit, model_sha256, plan, read_inputs
from converters.protocol import Describe
from converters.recipe import BUILD, Recipe
from converters.result import (
    Candidate,
    Conversion,
    Host,
    ProfileResult,
    Proof,
    Verdict,
    this_host,
)
from converters.search_order import Search
from converters.space import Hyper, space_of
from converters.steps import Build
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
        Foreman(order.model, Path(folder, "worker.log"), worker, memory=order.memory) as foreman,
    ):
        bench = _set_up(order, planned, foreman, Path(folder), progress)
        if order.search is None:
            tried = [bench.attempt(recipe, progress) for recipe in planned.recipes]
        else:
            tried = _searched(bench, planned, order.search, progress)
    progress("judging and signing")
    identity = _identity(order, planned.name, bench)
    candidates = tuple(_candidate(one) for one in tried)
    made = {one.recipe.name: one for one in tried if isinstance(one, Made)}
    results, files, host = [], {}, this_host()
    limits = gate.Limits(order.max_drop, order.max_class_drop)
    for profile in planned.profiles:
        verdicts = tuple(_verdict(one, profile, limits) for one in tried)
        fitting = {v.recipe: made[v.recipe].measurement for v in verdicts if not v.reasons}
        chosen = gate.best(fitting, limits)
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
        balance=_balance(bench),
        fastest=gate.fastest({name: one.measurement for name, one in made.items()}),
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
    names = [recipe.name for recipe in planned.recipes]
    train_rows = 0 if inputs.train is None else len(inputs.train.x)
    space = space_of(names, bench.opened.facts, train_rows, built)
    made_from = (
        model_sha256(order.model), inputs.data.sha256, inputs.calibration_sha256,
        "" if inputs.train is None else inputs.train.sha256, str(order.preprocessing), order.task,
        *order.slices, *bench.runtimes,
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
    scores = score_source(foreman, folder, inputs, order.preprocessing, order.task)
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
