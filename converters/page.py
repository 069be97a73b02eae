"""A bundle's card as one HTML page that stands alone: its own words, and pictures. Pure."""

from html import escape

from markdown_it import MarkdownIt

from converters.explain import Explanation, Part
from converters.gate import Measurement
from converters.result import Proof

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:52rem;margin:2rem auto;"
    "padding:0 1rem}table{border-collapse:collapse;margin:1rem 0;width:100%}"
    "td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}pre{background:#f4f4f4;padding:.8rem;overflow:auto}svg{max-width:100%}"
    "li{overflow-wrap:anywhere}"
)
_BAR, _ROW, _NAME, _LETTERS = 300, 22, 230, 30


def page(card: str, proof: Proof | None = None) -> str:
    """The page.

    Args:
        card: Markdown with a YAML head.
        proof: what was measured, with the picture of all candidates.
    """
    head, text = _split(card)
    title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), "model card")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        MarkdownIt("commonmark", {"html": False}).enable("table").render(text),
    ]
    if proof is not None:
        parts.append(_proved(proof))
    parts.append(f"<h2>For registries</h2><pre>{escape(head)}</pre></body></html>\n")
    return "".join(parts)


def _proved(proof: Proof) -> str:
    taken = (one for one in proof.candidates if one.recipe == proof.result.chosen)
    chosen = next((one.measurement for one in taken if one.measurement), None)
    parts = [f"<h2>All candidates</h2>{proof.picture}" if proof.picture else ""]
    if chosen is not None:
        parts += [_slices(chosen), _layers(chosen)]
    if proof.explanation is not None:
        parts.append(_explanation(proof.explanation))
    return "".join(parts)


def _slices(found: Measurement) -> str:
    if not found.slices:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.label)}</td><td>{one.rows:,}</td><td>{one.drop * 100:+.2f} "
        f"[{one.low * 100:+.2f}, {one.high * 100:+.2f}]</td></tr>"
        for one in found.slices
    )
    return (
        "<h2>By slice</h2><table><tr><th>rows with</th><th>how many</th>"
        f"<th>drop, points [95 %]</th></tr>{rows}</table>"
    )


def _split(card: str) -> tuple[str, str]:
    _, head, text = card.split("---\n", 2)
    return f"---\n{head}---\n", text


def _layers(measured: Measurement) -> str:
    found = measured.worst_layers
    if not found:
        return ""
    widest = max(layer.error for layer in found) or 1.0
    bars = [
        _bar(i, f"{layer.op} {layer.name}", layer.error / widest, f"{layer.error:.2%}")
        for i, layer in enumerate(found)
    ]
    return f"<h2>Layers farthest from float</h2>{_chart(bars)}"


def _explanation(found: Explanation) -> str:
    widest = max((max(p.shap, p.shap_float) for p in found.parts), default=0.0) or 1.0
    bars = [
        _bar(i, part.name, part.shap / widest, _shap(part)) for i, part in enumerate(found.parts)
    ]
    return (
        f"<h2>What it looks at</h2><p>Mean size of SHAP values over {found.rows} rows. Against the "
        f"float model they moved by {found.shap_moved:.1%} of their size, LIME's weights by "
        f"{found.lime_moved:.1%}, partial dependence by {found.dependence_moved:.1%} of its range."
        f"</p>{_chart(bars)}"
    )


def _shap(part: Part) -> str:
    return f"{part.shap:.3g} (float {part.shap_float:.3g})"


def _bar(row: int, name: str, share: float, said: str) -> str:
    y, width = row * _ROW, share * _BAR
    short = name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"
    return (
        f'<text x="{_NAME - 8}" y="{y + 15}" text-anchor="end">{escape(short)}</text>'
        f'<rect x="{_NAME}" y="{y + 4}" width="{width:.1f}" height="14" fill="#0b6"/>'
        f'<text x="{_NAME + width + 6:.1f}" y="{y + 15}">{escape(said)}</text>'
    )


def _chart(bars: list[str]) -> str:
    height = len(bars) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {height}" role="img" '
        'aria-label="bars"><style>text{font:12px system-ui,sans-serif;fill:#333}</style>'
        f"{''.join(bars)}</svg>"
    )
