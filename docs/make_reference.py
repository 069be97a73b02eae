"""The reference pages of the docs, made of the code each time that `make docs` builds them."""

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Union, get_args, get_origin

import click
import msgspec

from device_agent.config import AgentConfig
from edge_sdk import bundle, messages
from edge_sdk.cli import COMMANDS, edge
from edge_sdk.profiles import HardwareProfile
from fleet_server.cli.server import run
from fleet_server.cli.settings_file import known_settings

PAGES = Path(__file__).parent / "reference"
MADE = "*Made of the code: it says what this version does.*\n"


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    return {
        "cli.md": "\n".join(_commands()),
        "configuration.md": "\n".join(_configuration()),
        "messages.md": "\n".join(_messages()),
        "bundle.md": "\n".join(_bundle()),
    }


def _commands() -> Iterator[str]:
    yield f"# Commands\n\n{MADE}"
    yield f"{inspect.getdoc(edge.callback)}\n"
    context = click.Context(edge, info_name="edge")
    for name in sorted(COMMANDS):
        command = edge.get_command(context, name)
        if command is not None:
            yield from _command(command, f"edge {name}", context)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield f"## {name}\n"
    yield f"{_text(command.help or '')}\n"
    if isinstance(command, click.Group):
        for inner in sorted(command.commands.values(), key=lambda one: one.name or ""):
            yield from _command(inner, f"{name} {inner.name}", context)
        return
    arguments = " ".join(p.make_metavar(context) for p in command.params if _is_argument(p))
    yield f"    {name} [OPTIONS] {arguments}".rstrip() + "\n"
    options = [
        record
        for p in command.params
        if isinstance(p, click.Option) and (record := p.get_help_record(context))
    ]
    if options:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{_cell(one)}` | {_cell(meaning)} |" for one, meaning in options)
        yield ""


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def _configuration() -> Iterator[str]:
    yield f"# Configuration\n\n{MADE}"
    yield "## The agent's file\n\nTOML, one table a section; a key that is not known is an error.\n"
    for field in msgspec.structs.fields(AgentConfig):
        yield f"### [{field.name}]\n"
        yield from _struct(field.type)
    yield "## The server's file\n"
    yield f"{_text('`server.toml` in the data folder: options of `edge server run`.')}\n"
    yield "| key | meaning |\n|---|---|"
    context = click.Context(run, info_name="run")
    for name, option in sorted(known_settings(run).items()):
        record = option.get_help_record(context)
        yield f"| `{name}` | {_cell(record[1] if record else '')} |"
    yield "\n## Hardware profiles\n"
    yield from _struct(HardwareProfile)


def _messages() -> Iterator[str]:
    yield f"# Messages\n\n{MADE}"
    yield f"{_text(inspect.getdoc(messages) or '')}\n"
    for kind in _structs_of(messages):
        yield f"## {kind.__name__}\n"
        yield from _struct(kind)


def _bundle() -> Iterator[str]:
    yield f"# The bundle\n\n{MADE}"
    yield f"{_text(inspect.getdoc(bundle) or '')}\n"
    seen: set[type] = set()
    waiting: list[type] = [bundle.Manifest]
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        yield f"## {kind.__name__}\n"
        yield from _struct(kind)
        for field in msgspec.structs.fields(kind):
            waiting += _inside(field.type)


def _structs_of(module: types.ModuleType) -> list[type]:
    own = [one for one in vars(module).values() if inspect.isclass(one)]
    return [
        one
        for one in own
        if issubclass(one, msgspec.Struct)
        and one.__module__ == module.__name__
        and not one.__name__.startswith("_")
    ]


def _inside(kind: object) -> list[type]:
    """The structs that a type is made of."""
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for part in get_args(kind) for found in _inside(part)]


def _struct(kind: type) -> Iterator[str]:
    words, told = _documented(inspect.getdoc(kind) or "")
    yield f"{words}\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for field in msgspec.structs.fields(kind):
        default = "needed"
        if field.default is not msgspec.NODEFAULT:
            default = f"`{_cell(repr(field.default))}`" if _plain(field.default) else "see there"
        elif field.default_factory is not msgspec.NODEFAULT:
            default = f"`{_cell(repr(field.default_factory()))}`"
        name, shown = field.encode_name, _cell(_type(field.type))
        yield f"| `{name}` | `{shown}` | {default} | {_cell(told.get(field.name, ''))} |"
    yield ""


def _plain(value: object) -> bool:
    return not isinstance(value, msgspec.Struct)


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's words, and what its `Attributes` say by field."""
    words, _, attributes = text.partition("\nAttributes:\n")
    told: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        begins = re.match(r" {4}([\w, ]+): (.*)", line)
        if begins:
            names = [name.strip() for name in begins[1].split(",")]
            told |= dict.fromkeys(names, begins[2])
        elif line.strip():
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
    return _text(words), told


def _type(kind: object) -> str:
    if kind is type(None):
        return "null"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(kind))
    if inspect.isclass(kind) and not get_args(kind):
        return kind.__name__
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(kind))
    return text.removeprefix("Literal")


def _text(text: str) -> str:
    """A docstring or help as Markdown: what click keeps as it is becomes code."""
    parts = text.replace("\f", "").split("\b\n")
    first, rest = inspect.cleandoc(parts[0]), parts[1:]
    kept = [f"```text\n{inspect.cleandoc(part)}\n```" for part in rest]
    return _angles("\n\n".join([first, *kept]))


def _angles(text: str) -> str:
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return _angles(" ".join(text.split())).replace("|", "\\|")


def write() -> None:
    """Write every page."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    write()
