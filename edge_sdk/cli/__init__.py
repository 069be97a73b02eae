"""`edge`: a table of commands, each imported only when it is used.

So `edge --help` imports click and nothing else, and a missing extra is one sentence.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

from edge_sdk import __version__
from edge_sdk.errors import EdgeError

OURS = ("converters", "device_agent", "edge_sdk", "fleet_server")

# command: (where it lives, the extra it needs, its line in --help)
COMMANDS = {
    "agent": ("device_agent.cli:agent", "agent", "Run a model on this device."),
    "alert": ("fleet_server.cli.alerts:alert", "server", "What needs a person's eye."),
    "audit": ("fleet_server.cli.people:audit", "server", "Who did what."),
    "benchmark": (
        "edge_sdk.cli.benchmarks:benchmark",
        "",
        "How fast are models really?",
    ),
    "card": ("converters.cards:card", "convert", "A bundle's model card."),
    "convert": ("converters.cli:convert", "convert", "The best TFLite model for a board, signed."),
    "demo": ("edge_sdk.demo.cli:demo", "demo", "The whole story on this machine."),
    "device": ("fleet_server.cli.fleet:device", "server", "The devices of a fleet."),
    "doctor": ("edge_sdk.cli.doctor:doctor", "", "Is this machine ready, and if not, why?"),
    "drift": (
        "fleet_server.cli.interchange:drift",
        "server",
        "Whether a model gets worse, and why.",
    ),
    "enroll": ("fleet_server.cli.fleet:enroll", "server", "Keys by which devices join."),
    "export-usb": (
        "fleet_server.cli.sticks:export_usb",
        "server",
        "Orders and bundles on a stick.",
    ),
    "import-usb": (
        "fleet_server.cli.sticks:import_usb",
        "server",
        "Devices' reports from a stick.",
    ),
    "inspect": ("edge_sdk.cli.bundles:inspect", "", "What a bundle holds."),
    "keys": ("edge_sdk.cli.keys:keys", "", "Keys that sign bundles."),
    "label": ("fleet_server.cli.weak:label", "server", "The truth about answered rows."),
    "login": ("fleet_server.cli.logins:login", "server", "Ask a server in your own name."),
    "logout": ("fleet_server.cli.logins:logout", "server", "End that."),
    "model": ("fleet_server.cli.mlflow:model", "server", "Models and versions of a fleet."),
    "profile": ("edge_sdk.cli.profiles:profile", "", "Hardware profiles."),
    "publish": ("fleet_server.cli.fleet:publish", "server", "Hand a bundle to the fleet server."),
    "retrain": (
        "fleet_server.cli.retrain:retrain",
        "server",
        "From labelled rows to a challenger.",
    ),
    "rollout": ("fleet_server.cli.rollouts:rollout", "server", "Bring a version to devices."),
    "run": ("device_agent.run:run_file", "agent", "A model over a file or a folder."),
    "server": ("fleet_server.cli.server:server", "server", "The fleet server."),
    "simulate": ("device_agent.cli:simulate", "agent", "Many real agents in one process."),
    "token": ("fleet_server.cli.people:token", "server", "Tokens for programs."),
    "trust": ("fleet_server.cli.trust:trust", "server", "Which bundles devices believe."),
    "user": ("fleet_server.cli.people:user", "server", "People who may use the server."),
    "webhook": (
        "fleet_server.cli.webhooks:webhook",
        "server",
        "Services that hear what happens.",
    ),
    "verify": ("converters.verify:verify", "convert", "Is model B as good as model A?"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        target, extra, _ = COMMANDS[cmd_name]
        module, _, attribute = target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if not extra or (error.name or "").partition(".")[0] in OURS:
                raise
            raise EdgeError(
                f"edge {cmd_name} needs {error.name}, which is not installed: "
                f"pip install 'edge-deployment-sdk[{extra}]'"
            ) from error
        if not isinstance(found, click.Command):
            raise TypeError(f"{target} is not a command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in sorted(COMMANDS)])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge")
def edge() -> None:
    """Get models onto small devices, keep them honest there, replace them safely."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `edge`; exit 0 done, 1 error, 2 wrong use, 3 a check said no, 4 server, 5 no model."""
    try:
        code = edge.main(arguments, prog_name="edge", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except EdgeError as error:
        click.echo(f"edge: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"edge: {error.filename} can't be used: {error.strerror}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
