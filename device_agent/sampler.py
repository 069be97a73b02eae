"""Rows worth a label: chosen window by window as the server asked, and as the owner allows.

The inference loop only scores what passes; what is sent is decided when the window ends. Nothing
leaves without the owner's opt-in for the model; names are pseudonyms under a key that stays here.
"""

import hashlib
import heapq
import hmac
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from device_agent.diverse import far_apart
from device_agent.inference import Answered
from device_agent.runtime import Model
from device_agent.transforms import parse
from edge_sdk.channels import Array, answer_channels, input_channels, watched_inputs
from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.interpreter import flat_embeddings
from edge_sdk.messages import MAX_MESSAGE, Command, Policy, Sample
from edge_sdk.sketch import Floats
from edge_sdk.subspace import NOVELTY

PER_WINDOW = 16  # samples of one window; a burst of odd rows is one finding
POOL = 256  # rows of one window, drawn at random, that clusters are looked for in
MAX_DATA = MAX_MESSAGE // 2  # bytes of a row that may travel
DAY = 86_400.0


class Consent(msgspec.Struct, frozen=True):
    """What the owner of the device allows.

    Attributes:
        models: whose rows may be sampled at all; empty is none.
        raw: whether rows leave, and not only what the model answered to them.
        transforms: what is done to a row first, in order.
        per_day: samples in 24 hours, whoever asks.
    """

    models: tuple[str, ...] = ()
    raw: bool = False
    transforms: tuple[str, ...] = ()
    per_day: int = 100


class Kept(msgspec.Struct, frozen=True):
    """What survives a restart; `key` (hex) makes the pseudonyms."""

    key: str
    command: Command | None = None
    sent: int = 0
    day: float = 0.0
    sent_today: int = 0
    format: int = 1


class _Pick(msgspec.Struct, order=True):
    score: float
    tie: float
    row: "_Row" = msgspec.field(name="row")


class _Row:
    """A row that waits for its window to end; never compared."""

    def __init__(
        self, model: Model, row: Array, name: str, answer: Floats, shadow: tuple[str, int] | None
    ) -> None:
        self.model, self.row, self.name = model, row, name
        self.answer, self.shadow = answer, shadow

    def __lt__(self, _other: "_Row") -> bool:
        return False


class Sampler:
    """The wish that stands now, and what was picked for it in the present window."""

    def __init__(self, path: Path, consent: Consent, chance: Random) -> None:
        self._path, self._consent, self._chance = path, consent, chance
        self._transforms = [parse(line) for line in consent.transforms]
        self._lock = threading.Lock()
        self._picks: list[_Pick] = []
        self._seen = 0
        try:
            self._kept = from_json(Kept, path.read_bytes(), str(path))
        except (FileNotFoundError, FormatError):
            self._kept = Kept(secrets.token_hex(32))
            with suppress(OSError):  # then it holds until the next start
                self._save()

    @property
    def number(self) -> int:
        """Of the last command that was taken."""
        return self._kept.command.number if self._kept.command else 0

    def command(self, command: Command) -> str:
        """Take the server's wish; why it is not taken, in words, "" if it is."""
        if command.number <= self.number:
            same = command == self._kept.command
            return "" if same else f"command {command.number} is not above {self.number}"
        with self._lock:
            self._picks.clear()
            before = self._kept.command
            stands = before is not None and before.samples == command.samples
            measures = command.measure > 0 and command.measure_number == command.number
            goes_on = stands and measures  # it only repeats the wish
            self._save(command=command, sent=self._kept.sent if goes_on else 0)
        wish = command.samples
        if wish and wish.model not in ("", *self._consent.models):
            return f"samples of {wish.model} are asked for, [samples] models does not allow them"
        return ""

    def wants(self, policy: Policy | None = None) -> bool:
        """Whether rows are looked at now (for one policy, if named)."""
        command = self._kept.command
        wish = command.samples if command else None
        if wish is None or self._kept.sent >= wish.quota or not self._consent.models:
            return False
        return policy is None or wish.policy == policy

    def see(self, answered: Answered) -> None:
        """Answers as the loop gives them, on its thread."""
        if not self.wants() or self.wants("disagreement"):
            return
        scores = self._scores(answered)
        if scores is None:
            return
        answers, names = answered.answers, answered.names
        with self._lock:
            self._seen += len(answered.rows)
            for index in np.flatnonzero(np.isfinite(scores)).tolist():
                name = names[index] if index < len(names) else ""
                row = _Row(answered.model, answered.rows[index], name, answers[index], None)
                self._pick(float(scores[index]), row)

    def disagreed(self, model: Model, row: Array, answer: Floats, shadow: tuple[str, int]) -> None:
        """A row that primary and shadow answered differently, on the shadow's thread."""
        if self.wants("disagreement") and self._allowed(model):
            with self._lock:
                self._seen += 1
                self._pick(float(answer.max()), _Row(model, row, "", answer, shadow))

    def take(self, rows: int, now: float) -> list[Sample]:
        """The window has ended after so many `rows`: what leaves of it; `now` is the wall clock."""
        with self._lock:
            picks, self._picks, self._seen = self._picks, [], 0
            command = self._kept.command
            wish = command.samples if command else None
            if not picks or command is None or wish is None or now >= wish.until:
                return []
            if not 0 <= now - self._kept.day < DAY:
                self._save(day=now, sent_today=0)
            room = min(wish.quota - self._kept.sent, self._consent.per_day - self._kept.sent_today)
            chosen = _best(picks, min(max(0, room), PER_WINDOW), wish.policy)
            self._save(
                sent=self._kept.sent + len(chosen),
                sent_today=self._kept.sent_today + len(chosen),
            )
        share = len(chosen) / rows if rows else 0.0
        raw = wish.raw and self._consent.raw
        return [self._sample(command, pick, share, raw=raw) for pick in chosen]

    def _pick(self, score: float, row: _Row) -> None:
        pick = _Pick(score, self._chance.random(), row)
        if len(self._picks) < (POOL if self.wants("cluster") else PER_WINDOW):
            heapq.heappush(self._picks, pick)
        elif pick > self._picks[0]:
            heapq.heapreplace(self._picks, pick)

    def _allowed(self, model: Model) -> bool:
        command = self._kept.command
        wish = command.samples if command else None
        running = model.running
        return (
            wish is not None
            and running.model in self._consent.models
            and wish.model in ("", running.model)
            and wish.version in ("", running.version)
        )

    def _scores(self, answered: Answered) -> Floats | None:
        """How much each row is wanted (n,), NaN if not at all; None if none is."""
        command = self._kept.command
        wish = command.samples if command else None
        if wish is None or not self._allowed(answered.model):
            return None
        manifest, answers = answered.model.manifest, answered.answers
        outputs = answer_channels(answered.scores, manifest.scores)
        wanted = np.ones(len(answers), bool)
        if wish.classes and "output.class" in outputs:
            known = [i for i, label in enumerate(manifest.labels) if label in wish.classes]
            wanted &= np.isin(outputs["output.class"], known)
        channels = outputs
        if wish.between or wish.policy == "novelty":
            inside, spec = answered.inside, manifest.embedding
            real = flat_embeddings(inside, spec) if inside is not None and spec else None
            subspace = answered.model.baseline.subspace
            channels = {**outputs, **watched_inputs(manifest.input, answered.rows, subspace, real)}
        for name, (low, high) in wish.between.items():
            values = channels.get(name)
            wanted &= (values >= low) & (values <= high) if values is not None else False
        scores = _wanted(wish.policy, answers, channels)
        return np.where(wanted, scores, np.nan) if wanted.any() else None

    def _sample(self, command: Command, pick: _Pick, share: float, *, raw: bool) -> Sample:
        row, running = pick.row, pick.row.model.running
        data, transforms = row.row, list(self._consent.transforms)
        if raw:
            try:
                for transform in self._transforms:
                    data = transform(data, row.model.manifest.input)
            except InvalidInputError:  # a column that this model does not have: rather nothing
                raw = False
        raw = raw and data.nbytes <= MAX_DATA
        policy: Policy = command.samples.policy if command.samples else "random"
        return Sample(
            model=running.model,
            version=running.version,
            digest=running.digest,
            command=command.number,
            policy=policy,
            id=self._pseudonym(row.row.tobytes()),
            subject=self._pseudonym(row.name.encode()) if row.name else "",
            score=0.0 if policy == "random" else pick.score,
            share=share,
            probabilities=tuple(round(float(value), 6) for value in row.answer),
            shadow=row.shadow,
            dtype=data.dtype.name if raw else "",
            shape=tuple(data.shape) if raw else (),
            data=np.ascontiguousarray(data).tobytes() if raw else b"",
            transforms=tuple(transforms) if raw else (),
        )

    def _pseudonym(self, content: bytes) -> str:
        key = bytes.fromhex(self._kept.key)
        return hmac.digest(key, hashlib.sha256(content).digest(), "sha256").hex()[:32]

    def _save(self, **changes: object) -> None:
        self._kept = msgspec.structs.replace(self._kept, **changes)
        write_atomic(self._path, to_json(self._kept), mode=0o600)


def _best(picks: list[_Pick], count: int, policy: Policy) -> list[_Pick]:
    """The most wanted ones; of clusters those that are farthest apart by what is watched."""
    if policy != "cluster" or not count:
        return heapq.nlargest(count, picks)
    model = picks[0].row.model
    same = [pick for pick in picks if pick.row.model is model]
    known = model.baseline.channels
    columns = input_channels(model.manifest.input, np.stack([pick.row.row for pick in same]))
    scaled = [(columns[n] - known[n].mean) / known[n].sd for n in columns if known[n].sd > 0]
    points = np.nan_to_num(np.stack(scaled, axis=1)) if scaled else np.zeros((len(same), 1))
    taken, apart = far_apart(points, count)
    return [
        _Pick(score, same[at].tie, same[at].row)
        for at, score in zip(taken.tolist(), apart.tolist(), strict=True)
    ]


def _wanted(policy: Policy, answers: Floats, channels: dict[str, Floats]) -> Floats:
    """How much each row (n, classes) is wanted (n,); where its policy can't tell, the tie decides.

    Of a model that gives numbers, margin and entropy say nothing.
    """
    if policy == "novelty" and NOVELTY in channels:
        return channels[NOVELTY]
    if policy == "margin" and "output.margin" in channels:
        return np.asarray(1.0 - channels["output.margin"], np.float64)
    if policy == "entropy" and "output.class" in channels:
        safe = np.clip(answers, 1e-12, 1.0)
        return np.asarray(-(safe * np.log(safe)).sum(axis=1) / np.log(answers.shape[1]), np.float64)
    return np.zeros(len(answers))
