"""What somebody wants converted, and everything about it that can be checked before TensorFlow."""

import hashlib
import itertools
import re
from pathlib import Path

import msgspec
import numpy as np

from converters.dataset import Dataset, Split, apart, read, schema, split, without
from converters.recipe import DEFAULT, Recipe, SourceFacts, recipe_named
from converters.search_order import Search, check
from edge_sdk.bundle import Task, file_name
from edge_sdk.channels import InputSchema, Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.features import Feature, problems
from edge_sdk.files import sha256
from edge_sdk.formats import from_toml
from edge_sdk.profiles import HardwareProfile, load_profile

_PYTORCH = {".pt", ".pth", ".pt2"}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, in the words of the command line.

    Attributes:
        model: a Keras or ONNX file, a SavedModel folder or a float .tflite file.
        profiles: names of boards, or paths of the user's own profiles.
        data: rows as `dataset.read` takes them: a part calibrates, the others evaluate.
        test: rows that evaluate in place of `data`, which then only calibrates.
        out: folder for the bundles.
        train: rows for recipes that train.
        train_share: part of `data` to train on, in place of `train`.
        calibration: rows without classes, in place of the calibrating part of `data`.
        name, version: of the model; by default the file's name and 1.
        task: what an answer is: a class, numbers, or how far a row is from normal.
        slices: columns to tell kinds of rows apart by.
        max_drop, max_class_drop: quality that may be lost over all rows and within one class or
            slice, as shares (0.01 is one point).
        preprocessing: what the device does to raw values.
        parallel: whether to train on all devices of this machine (`tf.distribute`).
        memory: bytes that a worker may take; most of the machine's if 0.
        embedding: whether the models also give what their last dense layer takes, so that devices
            measure novelty there.
        explain: whether to tell what the chosen models look at, and the given one.
        search: recipes are searched, among `recipes` if given.
        recipes: as `recipe.recipe_named` takes them; `recipe.DEFAULT` if none.
        labels: a name for each class; their numbers by default.
    """

    model: Path
    profiles: tuple[str, ...]
    data: Path
    out: Path
    test: Path | None = None
    train: Path | None = None
    train_share: float = 0.0
    calibration: Path | None = None
    name: str = ""
    version: str = "1"
    task: Task = "classification"
    slices: tuple[str, ...] = ()
    max_drop: float = 0.01
    max_class_drop: float = 0.1
    preprocessing: Preprocessing = Preprocessing()
    parallel: bool = False
    memory: int = 0
    embedding: bool = False
    explain: bool = False
    search: Search | None = None
    recipes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """An order whose words are checked."""

    name: str
    version: str
    profiles: tuple[HardwareProfile, ...]
    recipes: tuple[Recipe, ...]


class Inputs(msgspec.Struct, frozen=True):
    """The rows of an order.

    Attributes:
        data: what the held-out rows come from.
        calibration_sha256: of the file given for it, else of the rows taken from the data.
        left_out: training rows that are also held out, so not in `train`.
    """

    data: Dataset
    rows: Split
    schema: InputSchema
    calibration_sha256: str
    train: Dataset | None
    left_out: int


def plan(order: Order) -> Plan:
    """Check every word of an order; reads the profiles, but neither model nor data.

    Raises:
        InvalidInputError: something that can't be used, or a bundle that is there already.
    """
    if not order.model.exists():
        raise InvalidInputError(f"model {order.model} does not exist")
    _check_model(order.model)
    if not order.profiles:
        raise InvalidInputError("no profile given: name at least one board with --profile")
    for what, share in (
        ("max-drop", order.max_drop),
        ("max-class-drop", order.max_class_drop),
        ("train-share", order.train_share),
    ):
        if not 0 <= share <= 1:
            raise InvalidInputError(f"{what} is {share:g}, a share from 0 to 1 is needed")
    if order.train_share and (order.train or order.test):
        raise InvalidInputError("train-share splits the data: give it without --train and --test")
    if order.embedding and order.task != "classification":
        raise InvalidInputError("an embedding is what a classifier's last layer takes: --embedding")
    check_preprocessing(order.preprocessing)
    name = order.name or re.sub(r"[^a-z0-9._-]+", "-", order.model.stem.lower()).strip("-._")
    profiles = tuple(load_profile(profile) for profile in order.profiles)
    for what, word in (
        ("name", name),
        ("version", order.version),
        *(("profile name", profile.name) for profile in profiles),
    ):
        if not _NAME.fullmatch(word):
            raise InvalidInputError(
                f"{what} {word!r} can't be used: lower-case letters, digits, '.', '_' and '-' only"
            )
    _check_folder(order.out, name, order.version, profiles)
    if order.search is not None:
        check(order.search)
    words = order.recipes or (() if order.search else DEFAULT)
    return Plan(
        name, order.version, profiles, tuple(recipe_named(one) for one in dict.fromkeys(words))
    )


def _check_model(model: Path) -> None:
    """PyTorch's own files get the way in words."""
    if model.suffix.lower() in _PYTORCH:
        raise InvalidInputError(
            f"{model.suffix} is not read, it may hold code: export the model where it was made "
            "by torch.onnx.export(model.eval(), (sample,), 'model.onnx', external_data=False), and "
            "give that"
        )


def check_preprocessing(given: Preprocessing) -> None:
    """Raises InvalidInputError for numbers that nothing can be computed with."""
    if not np.isfinite([given.scale, given.offset]).all() or given.scale == 0:
        raise InvalidInputError(
            f"scale {given.scale:g} and offset {given.offset:g} must be numbers, the scale not 0"
        )
    wrong = problems(given.steps)
    if wrong:
        raise InvalidInputError("; ".join(wrong))


def _check_folder(
    out: Path, name: str, version: str, profiles: tuple[HardwareProfile, ...]
) -> None:
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} is a file: --out needs a folder")
    names = [profile.name for profile in profiles]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"a profile is given twice: {', '.join(names)}")
    for profile in names:
        path = out / file_name(name, version, profile)
        if path.exists():
            raise InvalidInputError(f"{path} exists: give another --version, or remove it")


class FeatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people write for `--features`."""

    steps: tuple[Feature, ...]
    format: int = 1


def read_features(path: Path | None) -> tuple[Feature, ...]:
    """The feature steps of a TOML file; none without one.

    Raises:
        InvalidInputError: it can't be read, or a step can't be used.
    """
    if path is None:
        return ()
    try:
        steps = from_toml(FeatureFile, path.read_bytes(), str(path)).steps
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
    wrong = problems(steps)
    if wrong:
        raise InvalidInputError(f"{path}: {'; '.join(wrong)}")
    return steps


def read_inputs(order: Order) -> Inputs:
    """Read and split the data.

    Raises:
        InvalidInputError: a file that can't be used, or files whose rows differ in shape.
    """
    data = _read(order, order.data)
    looks = schema(data.x, data.columns)
    if order.test is None:
        rows = split(data, order.train_share)
    else:
        test = _read(order, order.test)
        _same_rows(test, order.test, data, order.data)
        rows = apart(data, test)
        looks = schema(np.concatenate([data.x, test.x]), data.columns)
        data = test
    calibration_sha256 = sha256(np.ascontiguousarray(rows.calibration).tobytes())
    if order.calibration is not None:
        own = read(order.calibration, labelled=False)
        _same_rows(own, order.calibration, data, order.data)
        rows = msgspec.structs.replace(rows, calibration=own.x)
        calibration_sha256 = own.sha256
    train, left_out = rows.train, 0
    if order.train is not None:
        train, left_out = _training(order, rows, data)
    return Inputs(data, rows, looks, calibration_sha256, train, left_out)


def _read(order: Order, path: Path) -> Dataset:
    return read(path, task=order.task, slices=order.slices)


def _training(order: Order, rows: Split, data: Dataset) -> tuple[Dataset, int]:
    """Rows to train on, and how many were left out since they evaluate."""
    if order.train is None:
        raise ValueError("no training rows were ordered")
    given = read(order.train, task=order.task)
    _same_rows(given, order.train, data, order.data)
    train = without(given, rows.held_x)
    if not len(train.x):
        raise InvalidInputError(
            f"every row of {order.train} is also held out in {evaluated(order)}: "
            "nothing to train on"
        )
    return train, len(given.x) - len(train.x)


def evaluated(order: Order) -> Path:
    """The file that the held-out rows come from."""
    return order.test or order.data


def check_fit(order: Order, inputs: Inputs, source: SourceFacts) -> tuple[str, ...]:
    """The labels (none but of classes), once it is sure that the data fits the model.

    Raises:
        InvalidInputError: rows of another shape, outputs of another task, a class beyond the
            outputs, a wrong label count.
    """
    raw = inputs.data.x[:1]
    row = order.preprocessing.apply(raw).shape[1:]
    fits = len(row) == len(source.input_shape) and all(
        wanted in {None, found} for wanted, found in zip(source.input_shape, row, strict=True)
    )
    if not fits:
        wanted = tuple("any" if n is None else n for n in source.input_shape)
        became = "" if row == raw.shape[1:] else f", {row} after the feature steps"
        raise InvalidInputError(
            f"{order.data}: a row has shape {raw.shape[1:]}{became}, the model takes {wanted}: "
            "reshape x to fit"
        )
    if order.task == "classification":
        return _labels(order, inputs, source)
    if order.labels:
        raise InvalidInputError(f"labels are of classes, the task is {order.task}")
    _check_outputs(order, inputs, source, row)
    return ()


def _check_outputs(order: Order, inputs: Inputs, source: SourceFacts, row: tuple[int, ...]) -> None:
    gives = source.output_shape
    if order.task == "anomaly" and any(
        n not in {None, m} for n, m in itertools.zip_longest(gives, row)
    ):
        raise InvalidInputError(
            f"an anomaly is told by what a model makes of its input {row}: this one gives {gives}"
        )
    targets = inputs.data.y.shape[1:] or (1,)
    if order.task == "regression" and gives != targets:
        raise InvalidInputError(
            f"{evaluated(order)}: y has {targets[0]} targets a row, the model gives {gives}"
        )


def _labels(order: Order, inputs: Inputs, source: SourceFacts) -> tuple[str, ...]:
    if len(source.output_shape) != 1 or source.classes < 2:
        raise InvalidInputError(
            f"its output has shape {('rows', *source.output_shape)}, needed is (rows, classes) with"
            " 2 classes or more: for one number give --task regression, for a model that "
            "reconstructs its input --task anomaly"
        )
    for path, given in ((evaluated(order), inputs.data), (order.train, inputs.train)):
        if given is not None and int(given.y.max()) >= source.classes:
            raise InvalidInputError(
                f"{path}: y holds the class {int(given.y.max())}, the model gives "
                f"{source.classes} (0 to {source.classes - 1})"
            )
    labels = order.labels or inputs.data.labels or tuple(str(i) for i in range(source.classes))
    if len(labels) != source.classes or len({*labels, ""}) != len(labels) + 1:
        raise InvalidInputError(
            f"labels {', '.join(labels)}: the model has {source.classes} classes, "
            "each needs a name of its own"
        )
    return labels


def _same_rows(own: Dataset, path: Path, data: Dataset, data_path: Path) -> None:
    if own.x.shape[1:] != data.x.shape[1:]:
        raise InvalidInputError(
            f"{path}: a row has shape {own.x.shape[1:]}, those of {data_path} have "
            f"{data.x.shape[1:]}"
        )
    for what, mine, theirs in (
        ("columns", own.columns, data.columns), ("classes", own.labels, data.labels)
    ):  # fmt: skip
        if mine and theirs and mine != theirs:
            raise InvalidInputError(
                f"{path}: {what} are {', '.join(mine)}, those of {data_path} are "
                f"{', '.join(theirs)}: same names in the same order are needed"
            )


def model_sha256(model: Path) -> str:
    """Of the file; of a folder, over the names and digests of all files in it."""
    if model.is_file():
        return sha256(model.read_bytes())
    whole = hashlib.sha256()
    for path in sorted(p for p in model.rglob("*") if p.is_file()):
        whole.update(
            f"{path.relative_to(model).as_posix()}\0{sha256(path.read_bytes())}\n".encode()
        )
    return whole.hexdigest()
