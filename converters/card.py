"""The model card in a bundle: Hugging Face's YAML head, then what people ask first. Pure.

Holds nothing that was timed on a host, so that the same input gives the same bytes.
"""

import json

from converters.facts import TfliteFacts
from edge_sdk.bundle import Manifest

_PIPELINES = {
    "image": "image-classification",
    "vector": "tabular-classification",
    "tensor": "other",
}


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


def _head(manifest: Manifest) -> str:
    metrics = manifest.metrics
    lines = (
        "---",
        "library_name: litert",
        f"pipeline_tag: {_PIPELINES[manifest.input.kind]}",
        "tags:",
        "- tflite",
        f"- {manifest.recipe.name}",
        f"- {manifest.profile}",
        "model-index:",
        f"- name: {json.dumps(manifest.name)}",
        "  results:",
        "  - task:",
        f"      type: {_PIPELINES[manifest.input.kind]}",
        "    dataset:",
        f"      name: held-out rows (file sha256 {manifest.lineage.data[:12]})",
        "      type: private",
        "    metrics:",
        "    - type: accuracy",
        f"      value: {metrics.accuracy:.4f}",
        "---",
    )
    return "\n".join(lines)


def _use(manifest: Manifest) -> str:
    raw, how = manifest.input, manifest.preprocessing
    shape = " x ".join(str(n) for n in raw.shape)
    return (
        f"Sorts one {raw.kind} of {shape} raw values between {raw.low:g} and {raw.high:g} into "
        f"{len(manifest.labels)} classes. The device computes `raw * {how.scale:g} + "
        f"{how.offset:g}` before the model; scores are {manifest.scores}."
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
        ("accuracy", f"{metrics.accuracy:.4f} (float model {metrics.float_accuracy:.4f})"),
        (
            "drop, 95 % interval",
            f"{metrics.drop * 100:+.2f} points "
            f"[{metrics.drop_low * 100:+.2f}, {metrics.drop_high * 100:+.2f}]",
        ),
        ("same class as float", f"{metrics.agreement:.2%} of rows"),
    )
    return "\n".join(["| what | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _classes(manifest: Manifest) -> str:
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
    weakest = min(manifest.metrics.per_class.items(), key=lambda item: (item[1], item[0]))
    return (
        "## Limits\n\n"
        f"Accuracy is that of {manifest.metrics.rows:,} held-out rows of one file; on other data "
        f"it is unknown. Weakest class there: {weakest[0]} ({weakest[1]:.4f}). Values outside "
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
