"""Small drawings of results, as SVG without a library."""

from collections.abc import Mapping
from html import escape

LEFT, WIDTH, ROW = 150, 420, 26


def bars(title: str, values: Mapping[str, float], limit: float) -> str:
    """Horizontal bars of shares (0..1) with a line at `limit`."""
    height = 44 + ROW * len(values)
    mark = LEFT + limit * WIDTH
    rows = []
    for number, (name, value) in enumerate(values.items()):
        y = 34 + number * ROW
        good = value <= limit
        rows.append(
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{max(value * WIDTH, 1):.1f}" height="18" '
            f'fill="{"#2a7f62" if good else "#b3413b"}"/>'
            f'<text x="{LEFT + value * WIDTH + 6:.1f}" y="{y + 13}">{value:.3f}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>{"".join(rows)}'
        f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="28" y2="{height - 6}" stroke="black" '
        f'stroke-dasharray="4 3"/></svg>\n'
    )
