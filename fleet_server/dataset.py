"""Labelled samples as a dataset for training, with where every row came from.

Its name is the hash of its content, so the same rows and labels are the same version. Devices are
named by pseudonyms that differ from one export to the next.
"""

import hashlib
import io
import secrets

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InvalidInputError
from fleet_server.sample_views import row_of
from fleet_server.store import Store

ASK = (
    "ask for some with 'edge label ask {model}'; a device sends them if [samples] in its agent's "
    "configuration names the model"
)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where one row of a dataset came from.

    Attributes:
        device: a pseudonym.
        audit: the row was drawn at random.
        source, certainty: who labelled it, and how sure they are.
    """

    device: str
    row: str
    version: str
    policy: str
    predicted: str
    label: str
    audit: bool
    source: str
    certainty: float


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset is.

    Attributes:
        id: hash of rows and labels.
        labels: names of the classes that `y` counts.
    """

    format: int = 1
    id: str
    model: str
    made_at: float
    labels: tuple[str, ...]
    rows: tuple[Origin, ...]


def make_dataset(store: Store, model: str, now: float) -> bytes:
    """An .npz with `x` (n, ...), `y` (n,) class numbers, `weight` (n,) and `lineage` (JSON).

    Raises:
        InvalidInputError: unknown model, or no labelled row with its data and a known class.
    """
    bundles = store.bundles(model)
    if not bundles:
        raise InvalidInputError(f"there is no model {model[:40]!r}: edge model list")
    classes = bundles[-1].manifest.labels
    truth = {(x.device, x.row): x for x in store.labels(model)}
    salt = secrets.token_bytes(16)
    rows: list[NDArray[np.generic]] = []
    numbers: list[int] = []
    weights: list[float] = []
    origins: list[Origin] = []
    for record in sorted(store.samples(model, labelled=True), key=lambda r: (r.device, r.row)):
        label, row = truth[record.device, record.row], row_of(record)
        if row is None or label.label not in classes or (rows and row.shape != rows[0].shape):
            continue
        rows.append(row)
        numbers.append(classes.index(label.label))
        weights.append(label.certainty)
        origins.append(
            Origin(
                device=hashlib.sha256(salt + record.device.encode()).hexdigest()[:12],
                row=record.row,
                version=record.version,
                policy=record.policy,
                predicted=record.predicted,
                label=label.label,
                audit=label.audit,
                source=label.source,
                certainty=label.certainty,
            )
        )
    if not rows:
        raise InvalidInputError(
            f"no row of {model} is labelled that came with its data: {ASK.format(model=model)}"
        )
    x, y = np.stack(rows), np.array(numbers, np.int64)
    content = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16]
    lineage = Lineage(id=content, model=model, made_at=now, labels=classes, rows=tuple(origins))
    out = io.BytesIO()
    np.savez_compressed(
        out, x=x, y=y, weight=np.array(weights), lineage=np.array(msgspec.json.encode(lineage))
    )
    return out.getvalue()


def waiting_rows(store: Store, model: str) -> bytes:
    """An .npz of all samples that came with their data, labelled or not.

    `x`, `device`, `row`, `version`, `predicted`, `taken_at`, the names of the `classes`, and
    `known`: the class number of a person's label, -1 without one.

    Raises:
        InvalidInputError: unknown model, or no sample with data.
    """
    bundles = store.bundles(model)
    if not bundles:
        raise InvalidInputError(f"there is no model {model[:40]!r}: edge model list")
    classes = bundles[-1].manifest.labels
    truth = {(x.device, x.row): x for x in store.labels(model) if x.source != "weak"}
    found = [(record, row_of(record)) for record in store.samples(model)]
    kept = [(record, row) for record, row in found if row is not None]
    kept = [(record, row) for record, row in kept if row.shape == kept[0][1].shape]
    if not kept:
        raise InvalidInputError(f"no row of {model} came with its data: {ASK.format(model=model)}")

    def known(device: str, row: str) -> int:
        label = truth.get((device, row))
        return classes.index(label.label) if label and label.label in classes else -1

    out = io.BytesIO()
    np.savez_compressed(
        out,
        x=np.stack([row for _, row in kept]),
        known=np.array([known(r.device, r.row) for r, _ in kept]),
        classes=np.array(classes),
        taken_at=np.array([r.received_at for r, _ in kept]),
        device=np.array([r.device for r, _ in kept]),
        row=np.array([r.row for r, _ in kept]),
        version=np.array([r.version for r, _ in kept]),
        predicted=np.array([r.predicted for r, _ in kept]),
    )
    return out.getvalue()
