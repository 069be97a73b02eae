"""What the demo shows while it runs: a live screen on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Protocol

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fleet_server.views import Overview

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")


class Step(msgspec.Struct):
    """One step of the story: whether it really happened, how long it took, how one can tell."""

    name: str
    title: str
    ok: bool | None = None
    seconds: float = 0.0
    evidence: str = ""


class View(Protocol):
    """Where the story is told."""

    def begin(self, step: Step) -> None: ...
    def note(self, words: str) -> None: ...
    def end(self, step: Step) -> None: ...
    def fleet(self, overview: Overview) -> None: ...
    def close(self) -> None: ...


def make_view(steps: list[Step]) -> View:
    """The live screen if somebody is there to see it."""
    return LiveView(steps) if sys.stderr.isatty() else PlainView()


class PlainView:
    """A line an event, for logs and pipes."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def begin(self, step: Step) -> None:
        self._say("..", step.title)

    def note(self, words: str) -> None:
        self._say("  ", words)

    def end(self, step: Step) -> None:
        self._say(
            "ok" if step.ok else "NO", f"{step.title} ({step.seconds:.1f} s): {step.evidence}"
        )

    def fleet(self, overview: Overview) -> None:
        """The fleet is on the page; lines would drown the story."""

    def close(self) -> None:
        sys.stderr.flush()

    def _say(self, sign: str, words: str) -> None:
        click.echo(f"{time.monotonic() - self._start:6.1f} s {sign} {words}", err=True)


class LiveView:
    """Three panes: the story, the fleet by version, the last events."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._now = ""
        self._overview: Overview | None = None
        self._console = Console(stderr=True)
        self._live = Live(self._screen(), console=self._console, refresh_per_second=4)
        self._live.start()

    def begin(self, step: Step) -> None:
        self._now = step.title
        self._live.update(self._screen())

    def note(self, words: str) -> None:
        self._now = words
        self._live.update(self._screen())

    def end(self, step: Step) -> None:
        self._now = "" if step.ok else f"failed: {step.title}"
        self._live.update(self._screen())

    def fleet(self, overview: Overview) -> None:
        self._overview = overview
        self._live.update(self._screen())

    def close(self) -> None:
        self._live.stop()

    def _screen(self) -> Group:
        return Group(self._story(), self._bar(), self._events())

    def _story(self) -> Panel:
        rows = Table.grid(padding=(0, 1))
        for step in self._steps:
            if step.ok is None:
                rows.add_row(" ", Text(step.title, style="dim"), "")
                continue
            sign = Text("✓", style="green") if step.ok else Text("✗", style="bold red")
            words = Text(f"{step.title} ({step.seconds:.0f} s)  ")
            words.append(step.evidence, style="dim")
            rows.add_row(sign, words, "")
        return Panel(Group(rows, Text(f"→ {self._now}" if self._now else "")), title="story")

    def _bar(self) -> Panel:
        if self._overview is None:
            return Panel("the fleet is not up yet", title="fleet")
        bar = Text()
        names = sorted({f"{m} {v}" for m, v, _ in self._overview.running})
        for model, version, count in self._overview.running:
            colour = COLOURS[names.index(f"{model} {version}") % len(COLOURS)]
            bar.append("█" * 3 * count, style=colour)
            bar.append(f" {count} on {model} {version}  ")
        return Panel(Group(bar, Text(self._overview.headline)), title="fleet")

    def _events(self) -> Panel:
        events = self._overview.events[:6] if self._overview else ()
        lines = [Text(f"{e.source}: {e.name}  {e.detail}", overflow="ellipsis") for e in events]
        return Panel(Group(*(lines or [Text("")])), title="last events")
