"""`server.toml` in the data folder: what `edge server run` is told when the command line says less.

Its keys are the options of `run` without their dashes: one list of settings, with one help.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import click

from edge_sdk.errors import InvalidInputError

_NOT_THERE = ("data-dir", "help")


def known_settings(command: click.Command) -> dict[str, click.Option]:
    """A command's options by the name that they have in the file."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option):
            name = max(option.opts, key=len).lstrip("-")
            if name not in _NOT_THERE:
                found[name] = option
    return found


def read_settings(path: Path, command: click.Command) -> dict[str, object]:
    """The file as click's defaults of the command; nothing if there is none.

    Raises:
        InvalidInputError: it can't be read, or has a key that is no option.
    """
    if not path.exists():
        return {}
    try:
        told = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}") from error
    options = known_settings(command)
    for name in told:
        if name not in options:
            near = difflib.get_close_matches(name, list(options), 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InvalidInputError(
                f"{path}: unknown key {name!r}: {hint}known are {', '.join(sorted(options))}"
            )
    return {str(options[name].name): value for name, value in told.items()}


def settings_text(settings: Mapping[str, object]) -> str:
    """The file's text for a new server; what is empty is left out."""
    lines = [
        "# Made by 'edge server init'; 'edge server run' reads it, its options count more.",
        "# Every option of 'edge server run --help' may stand here without its dashes.",
    ]
    for name, value in settings.items():
        match value:
            case bool():
                lines.append(f"{name} = {str(value).lower()}")
            case int():
                lines.append(f"{name} = {value}")
            case list():
                lines.append(f"{name} = [{', '.join(_quoted(word) for word in value)}]")
            case _:
                lines.append(f"{name} = {_quoted(str(value))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
