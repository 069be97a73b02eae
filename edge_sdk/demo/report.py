"""The demo's summary: `report.json` for programs, `report.html` with pictures for people."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from edge_sdk import __version__
from edge_sdk.demo import charts
from edge_sdk.demo.chronicle import Chronicle
from edge_sdk.demo.view import Step
from edge_sdk.files import write_atomic
from fleet_server.views import RolloutRow


def write_report(
    folder: Path,
    steps: Sequence[Step],
    conversion: Mapping[str, Any],
    chronicle: Chronicle | None,
) -> None:
    """Write both files into `folder`."""
    done = [step for step in steps if step.ok is not None]
    summary = {
        "format": 1,
        "ok": all(step.ok for step in steps),
        "version": __version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seconds": round(sum(step.seconds for step in done), 2),
        "steps": [
            {
                "name": s.name,
                "title": s.title,
                "ok": bool(s.ok),
                "seconds": round(s.seconds, 2),
                "evidence": s.evidence,
            }
            for s in steps
        ],
    }
    write_atomic(folder / "report.json", msgspec.json.format(msgspec.json.encode(summary)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edge_sdk.demo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html").render(
        summary=summary,
        conversion=conversion,
        pictures=_pictures(chronicle) if chronicle and chronicle.looks else [],
        rollouts=_rollouts(chronicle),
    )
    write_atomic(folder / "report.html", page.encode())


def _rollouts(chronicle: Chronicle | None) -> Sequence[RolloutRow]:
    """Every rollout as last seen, oldest first."""
    if chronicle is None or not chronicle.looks:
        return ()
    _, last = chronicle.looks[-1]
    return sorted(last.rollouts, key=lambda r: r.started_at)


def _pictures(chronicle: Chronicle) -> list[tuple[str, str, str]]:
    """(title, words, svg) each."""
    marks = [charts.Mark(m.at, m.label) for m in chronicle.marks]
    _, last = chronicle.looks[-1]
    sites: dict[str, Sequence[str]] = {}
    for site in sorted({d.site for d in last.devices}):
        sites[f"site {site}"] = [d.id for d in last.devices if d.site == site]
    canaries = sorted(chronicle.ran("3"))
    others = [d.id for d in last.devices if d.id not in canaries]
    cohorts: dict[str, Sequence[str]] = {"v3 canaries": canaries, "all others": others}
    return [
        (
            "Who ran what",
            "Devices by the version that their interpreter reports.",
            charts.stacked_steps(chronicle.running(), marks, "devices"),
        ),
        (
            "A sensor drifts at one site",
            "Mean confidence by site: the drift hits every version there alike.",
            charts.lines(chronicle.confidence(sites), marks, "mean confidence"),
        ),
        (
            "The version against its control",
            "Mean confidence of the devices that got v3 and of those that did not.",
            charts.lines(chronicle.confidence(cohorts), marks, "mean confidence"),
        ),
    ]
