"""The model card in a bundle: Hugging Face's YAML head, then what people ask first. Pure.

Holds nothing that was timed on a host, so that the same input gives the same bytes.
"""

import json

from converters.facts import TfliteFacts
from edge_sdk.bundle import Figure, Manifest

_PIPELINES = {
    ("image", "classification"): "image-classification",
    ("vector", "classification"): "tabular-classification",
    ("vector", "regression"): "tabular-regression",
}


_INTENDED = (
    "Intended for the board it was converted for, on inputs like those it was evaluated on; not "
    "for decisions about people without a human, nor where a wrong answer can hurt somebody."
)


def render(manifest: Manifest, facts: TfliteFacts, model_bytes: int) -> str:
    """Markdown with a YAML head."""
    parts = (
        _head(manifest),
        f"# {manifest.name} {manifest.version} for {manifest.profile}",
        _use(manifest),
        _table(manifest, facts, model_bytes),
        _classes(manifest),
        _limits(manifest),
        _lineage(manifest),
    )
    return "\n\n".join(parts) + "\n"


def _pipeline(manifest: Manifest) -> str:
    return _PIPELINES.get((manifest.input.kind, manifest.task), "other")


def _head(manifest: Manifest) -> str:
    metrics = manifest.metrics
    lines = (
        "---",
        "library_name: litert",
        f"pipeline_tag: {_pipeline(manifest)}",
        "tags:",
        "- tflite",
        f"- {manifest.recipe.name}",
        f"- {manifest.profile}",
        "model-index:",
        f"- name: {json.dumps(manifest.name)}",
        "  results:",
        "  - task:",
        f"      type: {_pipeline(manifest)}",
        "    dataset:",
        f"      name: held-out rows (file sha256 {manifest.lineage.data[:12]})",
        "      type: private",
        "    metrics:",
        f"    - type: {metrics.quality}",
        f"      value: {metrics.accuracy:.4f}",
        "---",
    )
    return "\n".join(lines)


def _use(manifest: Manifest) -> str:
    raw = manifest.input
    shape = " x ".join(str(n) for n in raw.shape)
    what = {
        "classification": f"Sorts one {raw.kind} of {shape} raw values into "
        f"{len(manifest.labels)} classes",
        "regression": f"Tells {manifest.answer_width} target values of one {raw.kind} of {shape} "
        "raw values",
        "anomaly": f"Tells how far one {raw.kind} of {shape} raw values is from normal",
    }[manifest.task]
    return (
        f"{what}. Values are between {raw.low:g} and {raw.high:g}. The device computes "
        f"{manifest.preprocessing} before the model; answers are {manifest.scores}.\n\n"
        f"{_INTENDED}"
    )


def _table(manifest: Manifest, facts: TfliteFacts, model_bytes: int) -> str:
    metrics = manifest.metrics
    rows = (
        ("recipe", f"{manifest.recipe.name}: {'; then '.join(manifest.recipe.steps)}"),
        ("runtime", manifest.runtime),
        ("model file", f"{model_bytes:,} bytes, {facts.precision}"),
        ("operators", ", ".join(facts.ops)),
        ("live tensors", f"{facts.tensor_bytes:,} bytes at most"),
        ("held-out rows", f"{metrics.rows:,}"),
        (metrics.quality, f"{metrics.accuracy:.4f} (float model {metrics.float_accuracy:.4f})"),
        (
            "drop, 95 % interval",
            f"{metrics.drop * 100:+.2f} points "
            f"[{metrics.drop_low * 100:+.2f}, {metrics.drop_high * 100:+.2f}]",
        ),
        ("same answer as float", f"{metrics.agreement:.2%} of rows"),
        *((name, _figure(figure)) for name, figure in metrics.figures.items()),
    )
    return "\n".join(["| what | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _figure(found: Figure) -> str:
    return (
        f"{found.converted:.4f} (float model {found.float_model:.4f}; change {found.change:+.4f} "
        f"[{found.low:+.4f}, {found.high:+.4f}])"
    )


def _classes(manifest: Manifest) -> str:
    if not manifest.labels:
        return f"Task: {manifest.task}."
    found = manifest.metrics.per_class.items()
    return "\n".join(
        [
            "| class | accuracy |",
            "|---|---|",
            *(f"| {name} | {value:.4f} |" for name, value in found),
        ]
    )


def _limits(manifest: Manifest) -> str:
    board = (
        " The model is not compiled for the Edge TPU yet: without edgetpu_compiler it runs on the "
        "host's CPU."
        if manifest.runtime == "edgetpu"
        else ""
    )
    found = manifest.metrics.per_class
    weakest = min(found, key=lambda name: (found[name], name), default="")
    weak = f" Weakest class there: {weakest} ({found[weakest]:.4f})." if weakest else ""
    return (
        "## Limits\n\n"
        f"Quality is that of {manifest.metrics.rows:,} held-out rows of one file; on other data "
        f"it is unknown.{weak} Values outside "
        f"{manifest.input.low:g} to {manifest.input.high:g} were never seen. Latency and memory on "
        f"the board are not stated here: the agent measures them.{board}"
    )


def _lineage(manifest: Manifest) -> str:
    lineage = manifest.lineage
    rows = (
        ("source model", lineage.source),
        ("data", lineage.data),
        ("calibration", lineage.calibration),
        ("training rows", lineage.train or "none"),
    )
    tools = ", ".join(f"{name} {version}" for name, version in sorted(lineage.tools.items()))
    return "\n".join(
        ["## Lineage (sha256)", "", *(f"- {what}: {digest}" for what, digest in rows),
         f"- tools: {tools}"]
    )  # fmt: skip
