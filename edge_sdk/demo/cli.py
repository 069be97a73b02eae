"""`edge demo`: tell the story, write the report, leave the server up for a look around."""

import contextlib
import threading
from pathlib import Path

import click

from edge_sdk.demo.report import write_report
from edge_sdk.demo.stage import Stage
from edge_sdk.demo.story import Story, prepare
from edge_sdk.demo.view import make_view


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Where everything goes; an earlier demo's folder is emptied first.",
)
@click.option("--ci", is_flag=True, help="End when the story does.")
@click.option("--good-v3", is_flag=True, help="Calibrate v3 well: then it is promoted.")
@click.pass_context
def demo(ctx: click.Context, out: Path, ci: bool, good_v3: bool) -> None:  # noqa: FBT001
    """From a trained model to a fleet that rolls a bad model back by itself.

    Exit 1 if any step did not really happen.
    """
    folder = out.absolute()
    prepare(folder)
    stage = Stage(folder)
    story = Story(stage, good_v3)
    view = make_view(story.steps)
    try:
        story.tell(view)
        if story.chronicle:
            story.chronicle.close()
        view.close()
        write_report(folder, story.steps, story.conversion, story.chronicle)
        click.echo(f"report: {folder / 'report.html'}", err=True)
        if story.ok and not ci:
            _look_around(story.login)
    finally:
        view.close()
        stage.close()
    ctx.exit(0 if story.ok else 1)


def _look_around(login: str) -> None:
    click.echo(f"the server and its devices stay up: {login}\nCtrl-C ends them", err=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
