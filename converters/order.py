"""What somebody wants converted, and everything about it that can be checked before TensorFlow."""

import hashlib
import re
from pathlib import Path

import msgspec
import numpy as np

from converters.dataset import Dataset, Split, apart, read, schema, split, without
from converters.recipe import DEFAULT, Recipe, SourceFacts, recipe_named
from edge_sdk.bundle import file_name
from edge_sdk.channels import Array, InputSchema, Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256
from edge_sdk.profiles import HardwareProfile, load_profile

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, in the words of the command line.

    Attributes:
        model: a Keras file, a SavedModel folder or a float .tflite file.
        profiles: names of boards, or paths of the user's own profiles.
        data: .npz with `x` and `y`, or .csv: a part calibrates, the others evaluate.
        test: .npz or .csv with `x` and `y` that evaluates in place of `data`, which then only
            calibrates.
        out: folder for the bundles.
        train: .npz or .csv with `x` and `y`, for recipes that train.
        calibration: .npz or .csv with `x`, in place of the calibrating part of `data`.
        name, version: of the model; by default the file's name and 1.
        max_drop, max_class_drop: accuracy that may be lost over all rows and within one class, as
            shares (0.01 is one point).
        preprocessing: what the device does to a raw value.
        recipes: as `recipe.recipe_named` takes them; `recipe.DEFAULT` if none.
        labels: a name for each class; their numbers by default.
    """

    model: Path
    profiles: tuple[str, ...]
    data: Path
    out: Path
    test: Path | None = None
    train: Path | None = None
    calibration: Path | None = None
    name: str = ""
    version: str = "1"
    max_drop: float = 0.01
    max_class_drop: float = 0.1
    preprocessing: Preprocessing = Preprocessing()
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
    if not order.profiles:
        raise InvalidInputError("no profile given: name at least one board with --profile")
    for what, share in (("max-drop", order.max_drop), ("max-class-drop", order.max_class_drop)):
        if not 0 <= share <= 1:
            raise InvalidInputError(f"{what} is {share:g}, a share from 0 to 1 is needed")
    _check_preprocessing(order.preprocessing)
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
    return Plan(
        name,
        order.version,
        profiles,
        tuple(recipe_named(words) for words in dict.fromkeys(order.recipes or DEFAULT)),
    )


def _check_preprocessing(given: Preprocessing) -> None:
    if not np.isfinite([given.scale, given.offset]).all() or given.scale == 0:
        raise InvalidInputError(
            f"scale {given.scale:g} and offset {given.offset:g} must be numbers, the scale not 0"
        )


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


def read_inputs(order: Order) -> Inputs:
    """Read and split the data.

    Raises:
        InvalidInputError: a file that can't be used, or files whose rows differ in shape.
    """
    data = read(order.data)
    looks = schema(data.x, data.columns)
    if order.test is None:
        rows = split(data)
    else:
        test = read(order.test)
        _same_shape(test.x, order.test, data.x, order.data)
        rows = apart(data, test)
        _same_columns(test, order.test, data, order.data)
        looks = schema(np.concatenate([data.x, test.x]), data.columns)
        data = test
    calibration_sha256 = sha256(np.ascontiguousarray(rows.calibration).tobytes())
    if order.calibration is not None:
        own = read(order.calibration, labelled=False)
        _same_shape(own.x, order.calibration, data.x, order.data)
        _same_columns(own, order.calibration, data, order.data)
        rows = msgspec.structs.replace(rows, calibration=own.x)
        calibration_sha256 = own.sha256
    train, left_out = None, 0
    if order.train is not None:
        given = read(order.train)
        _same_shape(given.x, order.train, data.x, order.data)
        _same_columns(given, order.train, data, order.data)
        train = without(given, rows.held_x)
        left_out = len(given.x) - len(train.x)
        if not len(train.x):
            raise InvalidInputError(
                f"every row of {order.train} is also held out in {evaluated(order)}: "
                "nothing to train on"
            )
    return Inputs(data, rows, looks, calibration_sha256, train, left_out)


def evaluated(order: Order) -> Path:
    """The file that the held-out rows come from."""
    return order.test or order.data


def check_fit(order: Order, inputs: Inputs, source: SourceFacts) -> tuple[str, ...]:
    """The labels, once it is sure that the data fits the model.

    Raises:
        InvalidInputError: rows of another shape, a class beyond the outputs, a wrong label count.
    """
    row = inputs.data.x.shape[1:]
    fits = len(row) == len(source.input_shape) and all(
        wanted in {None, found} for wanted, found in zip(source.input_shape, row, strict=True)
    )
    if not fits:
        wanted = tuple("any" if n is None else n for n in source.input_shape)
        raise InvalidInputError(
            f"{order.data}: a row has shape {row}, the model takes {wanted}: reshape x to fit"
        )
    for path, given in ((evaluated(order), inputs.data), (order.train, inputs.train)):
        if given is not None and int(given.y.max()) >= source.classes:
            raise InvalidInputError(
                f"{path}: y holds the class {int(given.y.max())}, the model gives "
                f"{source.classes} (0 to {source.classes - 1})"
            )
    labels = order.labels or tuple(str(i) for i in range(source.classes))
    if len(labels) != source.classes or len({*labels, ""}) != len(labels) + 1:
        raise InvalidInputError(
            f"labels {', '.join(labels)}: the model has {source.classes} classes, "
            "each needs a name of its own"
        )
    return labels


def _same_shape(own: Array, path: Path, data: Array, data_path: Path) -> None:
    if own.shape[1:] != data.shape[1:]:
        raise InvalidInputError(
            f"{path}: a row has shape {own.shape[1:]}, those of {data_path} have {data.shape[1:]}"
        )


def _same_columns(own: Dataset, path: Path, data: Dataset, data_path: Path) -> None:
    if own.columns and data.columns and own.columns != data.columns:
        raise InvalidInputError(
            f"{path}: columns are {', '.join(own.columns)}, those of {data_path} are "
            f"{', '.join(data.columns)}: same names in the same order are needed"
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
