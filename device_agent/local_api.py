"""HTTP on the device itself: the Open Inference Protocol v2, `/status`, and Prometheus' `/metrics`.

https://github.com/kserve/open-inference-protocol: health, metadata and inference for what answers
now and, under its own version, for the shadow beside it. Listens on this machine alone by default.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import msgspec
import numpy as np

from device_agent.inference import Answered, Totals
from device_agent.runtime import Model
from edge_sdk import __version__
from edge_sdk.channels import Array, fits, of_classes
from edge_sdk.errors import EdgeError, InvalidInputError

MAX_BODY = 16 * 1024 * 1024
AT_ONCE = 8  # requests; more are told to come again
TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
LOCAL = ("127.0.0.1", "::1", "localhost")


class Serving(Protocol):
    """What the API shows; the agent's loop is one."""

    @property
    def models(self) -> list[Model]:
        """What answers, and then what runs beside it."""

    @property
    def totals(self) -> Totals: ...
    def infer(self, model: Model, rows: Array) -> Answered: ...


class Tensor(msgspec.Struct, frozen=True):
    """One input of a request; `data` may be nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(msgspec.Struct, frozen=True):
    """As the protocol has it."""

    inputs: list[Tensor]
    id: str = ""


class NotFoundError(EdgeError):
    """No such path, model or version."""


class LocalApi:
    """Listens from `start` to `stop`.

    Raises:
        InvalidInputError: the port can't be had.
    """

    def __init__(
        self, host: str, port: int, serving: Serving, status: Callable[[], msgspec.Struct]
    ) -> None:
        self._serving, self._status = serving, status
        self._room = threading.BoundedSemaphore(AT_ONCE)
        api = self

        class Answer(BaseHTTPRequestHandler):
            timeout = 10.0
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._answer(self, b"")

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdigit() or int(length) > MAX_BODY:
                    self.close_connection = True
                    _send(self, 413, _words(f"a request may have {MAX_BODY} bytes"))
                    return
                api._answer(self, self.rfile.read(int(length)))

            def log_message(self, *_: object) -> None:
                """The journal is for what happens rarely."""

        try:
            self._server = ThreadingHTTPServer((host, port), Answer)
        except OSError as error:
            raise InvalidInputError(f"[api] {host}:{port} can't be listened on: {error}") from error
        self._server.daemon_threads = True
        self._allowed = {*LOCAL, host}
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="local-api", daemon=True
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """No more of them."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        named = request.headers.get("Host", "").rpartition(":")[0].strip("[]")
        if (named or request.headers.get("Host", "")) not in self._allowed:
            _send(request, 403, _words("this host name is not served"))  # a page in a browser
            return
        if not self._room.acquire(blocking=False):
            _send(request, 503, _words("too many requests at once"))
            return
        try:
            _send(request, *self._reply(request.command, request.path.partition("?")[0], body))
        finally:
            self._room.release()

    def _reply(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        try:
            return 200, self._found(method, [part for part in path.split("/") if part], body)
        except NotFoundError as error:
            return 404, _words(str(error))
        except EdgeError as error:
            return 400, _words(str(error))
        except (RuntimeError, ValueError) as error:
            return 500, _words(f"the model could not answer: {error}")

    def _found(self, method: str, parts: list[str], body: bytes) -> object:
        models = self._serving.models
        match (method, *parts):
            case ("GET", "status"):
                return self._status()
            case ("GET", "metrics"):
                return metrics(self._serving)
            case ("GET", "v2"):
                return {"name": "edge-agent", "version": __version__, "extensions": []}
            case ("GET", "v2", "health", "live"):
                return {"live": True}
            case ("GET", "v2", "health", "ready"):
                if not models:
                    raise NotFoundError("no model is ready")
                return {"ready": True}
            case (_, "v2", "models", name, "versions", version, *rest):
                return self._model(method, _chosen(models, name, version), rest, body)
            case (_, "v2", "models", name, *rest):
                return self._model(method, _chosen(models, name, None), rest, body)
            case _:
                raise NotFoundError(f"{method} /{'/'.join(parts)} is not served")

    def _model(self, method: str, model: Model, rest: list[str], body: bytes) -> object:
        match (method, *rest):
            case ("GET",):
                return _metadata(model, self._serving.models)
            case ("GET", "ready"):
                return {"name": model.running.model, "ready": True}
            case ("POST", "infer"):
                return self._infer(model, body)
            case _:
                raise NotFoundError(f"{method} {'/'.join(rest)} is not served for a model")

    def _infer(self, model: Model, body: bytes) -> object:
        try:
            asked = msgspec.json.decode(body, type=InferRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"not an inference request: {error}") from error
        if len(asked.inputs) != 1:
            raise InvalidInputError(f"{len(asked.inputs)} inputs were given, the model has one")
        answered = self._serving.infer(model, _rows(asked.inputs[0], model))
        answers = answered.answers
        return {
            "model_name": model.running.model,
            "model_version": model.running.version,
            "id": asked.id,
            "outputs": [
                {
                    "name": _output_name(model),
                    "datatype": "FP32",
                    "shape": list(answers.shape),
                    "data": answers.astype(np.float32).ravel().tolist(),
                    "parameters": {"labels": list(model.manifest.labels)},
                }
            ],
        }


def _chosen(models: list[Model], name: str, version: str | None) -> Model:
    for model in models:
        if model.running.model == name and version in (None, model.running.version):
            return model
    there = ", ".join(f"{m.running.model} {m.running.version}" for m in models) or "none"
    raise NotFoundError(f"no model {name} {version or ''} here; there is {there}")


def _metadata(model: Model, models: list[Model]) -> object:
    schema, name = model.manifest.input, model.running.model
    return {
        "name": name,
        "versions": [m.running.version for m in models if m.running.model == name],
        "platform": "tflite",
        "inputs": [{"name": schema.name, "datatype": "FP32", "shape": [-1, *schema.shape]}],
        "outputs": [
            {
                "name": _output_name(model),
                "datatype": "FP32",
                "shape": [-1, model.manifest.answer_width],
            }
        ],
    }


def _output_name(model: Model) -> str:
    return "probabilities" if of_classes(model.manifest.scores) else model.manifest.scores


def _rows(tensor: Tensor, model: Model) -> Array:
    """Raw rows (n, *shape) that fit the model; a single row may come without its n."""
    schema = model.manifest.input
    if tensor.datatype not in TYPES:
        raise InvalidInputError(f"datatype {tensor.datatype!r} is none of {', '.join(TYPES)}")
    try:
        values = np.array(tensor.data, TYPES[tensor.datatype])
        rows = values.reshape(tensor.shape)
        if rows.shape == schema.shape:
            rows = rows[np.newaxis]
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInputError(f"input {tensor.name!r}: {error}") from error
    if rows.ndim < 2 or not len(rows) or not fits(schema, rows):
        raise InvalidInputError(
            f"input {tensor.name!r} of shape {tensor.shape} is not rows of shape "
            f"{list(schema.shape)} with values in {schema.low:g}..{schema.high:g}"
        )
    return rows


def metrics(serving: Serving) -> str:
    """Prometheus' text format."""
    totals, lines = serving.totals, []
    for name, kind, value, meaning in (
        ("edge_rows_total", "counter", totals.rows, "Rows answered."),
        ("edge_errors_total", "counter", totals.errors, "Inferences that raised."),
        ("edge_dropped_total", "counter", totals.dropped, "Rows that nobody took in time."),
        ("edge_skewed_total", "counter", totals.skewed, "Rows that did not fit the schema."),
        ("edge_inference_seconds_total", "counter", totals.seconds, "Time spent answering."),
    ):
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f"{name} {value:.9g}"]
    lines += ["# HELP edge_model_info What runs here.", "# TYPE edge_model_info gauge"]
    for role, model in zip(("primary", "shadow"), serving.models, strict=False):
        running = model.running
        labels = {
            "role": role, "model": running.model, "version": running.version,
            "digest": running.digest, "runtime": model.description,
        }  # fmt: skip
        quoted = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
        lines.append(f"edge_model_info{{{quoted}}} 1")
    return "\n".join(lines) + "\n"


def _words(error: str) -> dict[str, str]:
    return {"error": error}


def _send(request: BaseHTTPRequestHandler, status: int, answer: object) -> None:
    text = isinstance(answer, str)
    body = answer.encode() if isinstance(answer, str) else msgspec.json.encode(answer)
    request.send_response(status)
    request.send_header("Content-Type", "text/plain; version=0.0.4" if text else "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
