"""The bundle: one signed file that holds a model for one board and everything needed to trust it.

A zip of `manifest.json`, `signatures.json` (detached DSSE over the manifest) and the members the
manifest lists with length and SHA-256: the model, golden samples, the baseline, the card. Bytes in,
bytes out: no file and no clock, and the same input gives the same bytes.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.channels import InputSchema, Preprocessing, ScoreKind
from edge_sdk.errors import CorruptBundleError
from edge_sdk.files import sha256
from edge_sdk.formats import from_json, to_json
from edge_sdk.ops import Op
from edge_sdk.profiles import Runtime
from edge_sdk.signing import MANIFEST, PublicKey, Signature, SigningKey, verify
from edge_sdk.sketch import Baseline

MODEL = "model.tflite"
GOLDEN = "golden.npz"
BASELINE = "baseline.json"
CARD = "card.md"
MANIFEST_FILE, SIGNATURES_FILE = "manifest.json", "signatures.json"
MEMBERS = (MODEL, GOLDEN, BASELINE, CARD)
MAX_BUNDLE = 512 * 1024 * 1024
MAX_MANIFEST = 4 * 1024 * 1024
MAX_FILES = 16
_UNREADABLE = (  # what numpy and zipfile say to a file of arrays that lies
    ValueError, TypeError, KeyError, OSError, EOFError, MemoryError, RuntimeError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
KernelFamily = Literal["xnnpack", "builtin"]
Task = Literal["classification", "regression", "anomaly"]


class Member(msgspec.Struct, frozen=True):
    """A file of the bundle, as it must be."""

    sha256: str
    length: int


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The model's own tensor; `real = (stored - zero_point) * scale` if quantised."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both models; `change` is converted minus float, with its 95 % interval."""

    float_model: float
    converted: float
    change: float
    low: float
    high: float


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Held-out results of the float model and the converted one, on the same rows.

    Attributes:
        rows: held-out rows.
        quality: what `accuracy` is by task: the share of right answers (classification), the area
            under the ROC curve (anomaly), or `skill` (regression): 1 - MAE / mean distance of the
            targets from their median, so that 0 is what the best constant gets.
        float_accuracy, accuracy: of the two models, 1 is best.
        drop: float minus converted, in the same unit (0.01 is one point).
        drop_low, drop_high: its paired 95 % interval.
        agreement: share of rows where both give the same class; of numbers, where they differ by
            less than a tenth of how the float model's answers spread.
        per_class: converted model's accuracy by label.
        figures: others of the task by name: `f1` (macro), `auc`, `mae`.
    """

    rows: int
    float_accuracy: float
    accuracy: float
    drop: float
    drop_low: float
    drop_high: float
    agreement: float
    per_class: dict[str, float]
    quality: Literal["accuracy", "auc", "skill"] = "accuracy"
    figures: dict[str, Figure] = {}


class Recipe(msgspec.Struct, frozen=True):
    """What was done to the model, in order; data, so that it can be done again."""

    name: str
    steps: tuple[str, ...]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model came from: SHA-256 of every input, and the tools' versions."""

    source: str
    data: str
    calibration: str
    train: str | None
    tools: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must know to run the model, and what people want to know about it.

    `ops` are the builtin operators that the runtime must have, each in the newest version used;
    `embedding` is the second output of a model that has one.
    """

    format: int = 1
    name: str
    version: str
    profile: str
    runtime: Runtime
    task: Task = "classification"
    labels: tuple[str, ...]
    input: InputSchema
    preprocessing: Preprocessing
    model_input: TensorSpec
    model_output: TensorSpec
    scores: ScoreKind
    latency_budget_ms: float
    ram_bytes: int
    golden_tolerance: dict[KernelFamily, float]
    recipe: Recipe
    metrics: Metrics
    lineage: Lineage
    members: dict[str, Member]
    ops: tuple[Op, ...] = ()
    embedding: TensorSpec | None = None

    @property
    def reconstructs(self) -> bool:
        """Whether an answer is how far what the model makes is from what it was given."""
        return self.scores == "error"

    @property
    def answer_width(self) -> int:
        """How many numbers one answer has."""
        return 1 if self.reconstructs else self.model_output.shape[-1]


class Golden(msgspec.Struct, frozen=True):
    """The device's self-test.

    Attributes:
        inputs: raw rows (n, *shape), before preprocessing.
        expected: dequantised outputs (n, classes) by kernel family; they differ between families.
    """

    inputs: NDArray[np.generic]
    expected: dict[KernelFamily, NDArray[np.float32]]


class Bundle(msgspec.Struct, frozen=True):
    """A bundle that was read: manifest and members verified against it."""

    manifest: Manifest
    members: dict[str, bytes]
    digest: str
    signed_by: str

    @property
    def model(self) -> bytes:
        return self.members[MODEL]

    @property
    def golden(self) -> Golden:
        """Raises CorruptBundleError if the arrays can't be read."""
        return decode_golden(self.members[GOLDEN])

    @property
    def baseline(self) -> Baseline:
        return from_json(Baseline, self.members[BASELINE], BASELINE)


def file_name(name: str, version: str, profile: str) -> str:
    """A bundle's file is called `NAME-VERSION-PROFILE.edge`."""
    return f"{name}-{version}-{profile}.edge"


def pack(manifest: Manifest, members: Mapping[str, bytes], key: SigningKey) -> bytes:
    """The bundle's bytes; the manifest's member list is filled in from `members`."""
    if set(members) != set(MEMBERS):
        raise ValueError(f"a bundle holds {MEMBERS}, got {sorted(members)}")
    listed = {name: Member(sha256(members[name]), len(members[name])) for name in MEMBERS}
    head = to_json(msgspec.structs.replace(manifest, members=listed))
    signatures = msgspec.json.encode([key.sign(head, MANIFEST)])
    listed_members = {name: members[name] for name in MEMBERS}
    return archive({MANIFEST_FILE: head, SIGNATURES_FILE: signatures, **listed_members})


def archive(files: Mapping[str, bytes]) -> bytes:
    """A bundle's zip: the same files in the same order give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # its date is fixed: same input, same bytes
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            made.writestr(entry, data)
    return out.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    """Every file of a bundle in its order, unverified; raises CorruptBundleError."""
    with _opened(data) as opened:
        return {name: _member(opened, name, MAX_BUNDLE) for name in opened.namelist()}


def unpack(data: bytes, keys: list[PublicKey]) -> Bundle:
    """Read a bundle and check everything: signature first, then each member's length and digest.

    Raises:
        CorruptBundleError: not a bundle, something missing, or bytes other than listed.
        UntrustedError: the manifest is not signed by one of `keys`.
        UnsupportedVersionError: made by a newer converter.
    """
    with _opened(data) as opened:
        head = _member(opened, MANIFEST_FILE, MAX_MANIFEST)
        signatures = msgspec.json.decode(
            _member(opened, SIGNATURES_FILE, MAX_MANIFEST), type=tuple[Signature, ...]
        )
        signed_by = verify(head, MANIFEST, signatures, keys)
        manifest = from_json(Manifest, head, "the bundle's manifest")
        members = {name: _listed(opened, manifest, name) for name in MEMBERS}
    return Bundle(manifest, members, sha256(data), signed_by)


def _listed(archive: zipfile.ZipFile, manifest: Manifest, name: str) -> bytes:
    listed = manifest.members.get(name)
    if listed is None:
        raise CorruptBundleError(f"the manifest does not list {name}")
    data = _member(archive, name, listed.length)
    if len(data) != listed.length or sha256(data) != listed.sha256:
        raise CorruptBundleError(f"{name} is not what the signed manifest lists")
    return data


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """At most `limit` bytes of a member, whatever the archive claims (a zip bomb stops here)."""
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except (KeyError, RuntimeError) as error:
        raise CorruptBundleError(f"the bundle holds no readable {name}") from error
    except zlib.error as error:
        raise CorruptBundleError(f"{name} can't be decompressed: {error}") from error
    if len(data) > limit:
        raise CorruptBundleError(f"{name} is longer than {limit:,} bytes")
    return data


def _refuse_bomb(archive: zipfile.ZipFile) -> None:
    """Raises CorruptBundleError for too many files, or too large ones; zipfile holds them to it."""
    files = archive.infolist()
    unpacked = sum(file.file_size for file in files)
    if len(files) > MAX_FILES or unpacked > MAX_BUNDLE:
        raise CorruptBundleError(
            f"{len(files)} files that unpack to {unpacked:,} bytes are over the limit of "
            f"{MAX_FILES} and {MAX_BUNDLE:,}"
        )


def encode_golden(golden: Golden) -> bytes:
    """A deterministic .npz."""
    out = io.BytesIO()
    arrays = {f"expected_{family}": values for family, values in sorted(golden.expected.items())}
    np.savez_compressed(out, allow_pickle=False, inputs=golden.inputs, **arrays)
    return out.getvalue()


def decode_golden(data: bytes) -> Golden:
    """Raises CorruptBundleError for anything but our arrays."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            _refuse_bomb(arrays.zip)
            expected = {
                family: arrays[f"expected_{family}"]
                for family in ("xnnpack", "builtin")
                if f"expected_{family}" in arrays.files
            }
            golden = Golden(arrays["inputs"], expected)  # type: ignore[arg-type]
            if not all(
                isinstance(part, np.ndarray) for part in (golden.inputs, *expected.values())
            ):
                raise ValueError("a file in it is no array")
    except _UNREADABLE as error:
        raise CorruptBundleError(f"{GOLDEN} can't be read: {error}") from error
    if not golden.expected or not len(golden.inputs):
        raise CorruptBundleError(f"{GOLDEN} holds no sample")
    return golden


def read_manifest(data: bytes) -> Manifest:
    """The manifest of a bundle that holds what it lists, without asking who signed it: to look at.

    Raises:
        CorruptBundleError: not a bundle, or a damaged one.
        FormatError: a manifest of another format.
    """
    with _opened(data) as opened:
        head = _member(opened, MANIFEST_FILE, MAX_MANIFEST)
        manifest = from_json(Manifest, head, "the bundle's manifest")
        for name in MEMBERS:
            _listed(opened, manifest, name)
    return manifest


@contextmanager
def _opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    """The zip; what is wrong with it is told as CorruptBundleError."""
    if len(data) > MAX_BUNDLE:
        raise CorruptBundleError(
            f"a bundle of {len(data):,} bytes is over the limit {MAX_BUNDLE:,}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            _refuse_bomb(opened)
            yield opened
    except (
        zipfile.BadZipFile,
        msgspec.DecodeError,
        NotImplementedError,
        ValueError,  # zipfile's answer to some damaged directories
        OSError,
        EOFError,
    ) as error:
        raise CorruptBundleError(f"not a bundle, or a damaged one: {error}") from error
