"""A conversion as a table for people: one per board, drawn or as plain aligned lines. Pure."""

from converters.gate import Measurement
from converters.result import Candidate, Conversion, ProfileResult, Verdict

COLUMNS = (
    "", "recipe", "bytes", "compressed", "accuracy", "drop, points [95 %]",
    "host ms p50/p90", "board ms", "RAM", "verdict",
)  # fmt: skip
NUMERIC = {"bytes", "compressed", "accuracy", "host ms p50/p90", "board ms", "RAM"}
_NOTHING = "-"


def cells(conversion: Conversion, result: ProfileResult) -> list[tuple[str, ...]]:
    """The rows of one board's table, as text; `*` marks the one that was chosen."""
    candidates = {candidate.recipe: candidate for candidate in conversion.candidates}
    return [_row(candidates[v.recipe], v, result.chosen) for v in result.verdicts]


def _row(candidate: Candidate, verdict: Verdict, chosen: str | None) -> tuple[str, ...]:
    mark = "*" if verdict.recipe == chosen else ""
    said = "; ".join(verdict.reasons) or ("chosen" if mark else "fits")
    if not verdict.reasons and not verdict.proven:
        said += ", not proven: more rows are needed"
    found = candidate.measurement
    if found is None:
        return mark, verdict.recipe, *[_NOTHING] * 7, said
    return (
        mark,
        verdict.recipe,
        f"{found.model_bytes:,}",
        f"{found.compressed_bytes:,}",
        f"{found.metrics.accuracy:.4f}",
        _drop(found),
        f"{found.host_ms_p50:.3f}/{found.host_ms_p90:.3f}",
        _NOTHING if verdict.estimated_ms is None else f"~{verdict.estimated_ms:.3g}",
        _NOTHING if verdict.ram_bytes is None else _size(verdict.ram_bytes),
        said,
    )


def _drop(found: Measurement) -> str:
    metrics = found.metrics
    low, high = metrics.drop_low * 100, metrics.drop_high * 100
    return f"{metrics.drop * 100:+.2f} [{low:+.2f}, {high:+.2f}]"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.1f} KiB"


def heading(conversion: Conversion) -> str:
    """What was compared with what."""
    metrics = next((c.measurement.metrics for c in conversion.candidates if c.measurement), None)
    said = "" if metrics is None else f", float model {metrics.float_accuracy:.4f}"
    kind = "" if metrics is None or metrics.quality == "accuracy" else f" ({metrics.quality})"
    return (
        f"{conversion.name} {conversion.version}: {conversion.held_out_rows:,} held-out rows"
        f"{_balance(conversion)}{said}{kind}; {conversion.calibration_rows:,} calibration rows; "
        f"fastest here: {conversion.fastest or 'none beyond the noise'}; Pareto front: "
        f"{', '.join(conversion.front) or 'empty'}; taken: {conversion.rule}"
    )


def _balance(conversion: Conversion) -> str:
    rows = conversion.balance.values()
    return f" ({min(rows):,} to {max(rows):,} a class)" if rows else ""


def outcome(result: ProfileResult) -> str:
    """What was written for a board."""
    if result.bundle is None or result.bundle_bytes is None:
        return f"{result.profile}: nothing fits"
    return f"{result.profile}: {result.bundle} ({result.bundle_bytes:,} bytes)"


def plain(conversion: Conversion) -> str:
    """Aligned lines, for pipes and logs."""
    lines = [heading(conversion)]
    for result in conversion.profiles:
        rows = [COLUMNS, *cells(conversion, result)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
        lines += ["", outcome(result)]
        for row in rows:
            parts = [
                text.rjust(width) if name in NUMERIC else text.ljust(width)
                for name, text, width in zip(COLUMNS, row, widths, strict=False)
            ]
            lines.append("  ".join([*parts, row[-1]]).rstrip())
    return "\n".join(lines)
