"""Writes the reference pages from the code itself: commands, settings and events. `--check` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

HERE = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/generate.py; edit the code instead -->\n\n"


def commands() -> str:
    """Return the page of all commands: their help as it is printed."""
    from bridge.cli import main

    parts = ["# Commands\n", MADE]
    for path, command in _walk(main, ["bridge"]):
        context = click.Context(command, info_name=" ".join(path), terminal_width=100, max_content_width=100)
        parts.append(f"## `{' '.join(path)}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n\n")
    return "".join(parts)


def _walk(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _walk(found, [*path, name])


def configuration() -> str:
    """Return the page of all settings."""
    from bridge import plugins
    from bridge.config import Config

    parts = ["# Configuration\n", MADE, _INTRODUCTION, "## The file\n\n", _table(Config)]
    for name in ("http", "log", "journal"):
        parts += [f"### `{name}`\n\n", _table(Config.model_fields[name].annotation)]
    for kind in ("source", "sink"):
        for name in plugins.installed(kind):
            plugin = plugins.load(kind, name)
            parts += [f"## {kind.capitalize()} `{name}`\n\n", f"{plugin.summary}\n\n" if plugin.summary else ""]
            parts.append(_table(plugin.settings))
    return "".join(parts)


_INTRODUCTION = """One YAML file. `${NAME}` and `${NAME:-default}` expand from the environment, only inside values; an
unset variable without a default is an error. Any secret `x` may be given as `x_file: PATH`, which is read again whenever
it changes. Unknown keys are errors. Durations are `500ms`, `30s`, `5m`, `72h`. `bridge check --offline -c FILE` names
file, line and key of whatever is wrong; `bridge config schema` prints a JSON Schema for editors.

"""


def _table(model: Any) -> str:
    rows = ["| key | default | meaning |\n| --- | --- | --- |\n"]
    for name, field in model.model_fields.items():
        default = _default(model, name)
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {default} | {text} |\n")
    return "".join(rows) + "\n"


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    if name == "state":
        return "see there"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, BaseModel):
        return "see below"
    shown = model.__pydantic_serializer__.to_python(
        model.model_construct(**{name: value}), mode="json", include={name}, warnings=False
    ).get(name, value)
    if isinstance(shown, bool):
        shown = str(shown).lower()
    if isinstance(shown, list):
        shown = f"[{', '.join(map(str, shown))}]"
    return f"`{shown}`" if shown not in ("", {}, "[]") else "empty"


def events() -> str:
    """Return the page of all events."""
    from bridge import plugins
    from bridge.event import CATALOGUE

    parts = ["# Events\n", MADE, "| class | topic | provider | meaning |\n| --- | --- | --- | --- |\n"]
    types = [*CATALOGUE, *(event for name in plugins.installed("source") for event in plugins.load_source(name).events)]
    for cls in dict.fromkeys(types):
        topic = f"<{'|'.join(cls.channels)}>" if len(cls.channels) > 1 else cls.channels[0]
        topic += f".{cls.entity or '<entity>'}.{cls.status}"
        details = "|".join(word for words in cls.details.values() for word in words)
        topic += f"[.<{details}>]" if details else ""
        topic = topic.replace("|", "\\|")
        meaning = " ".join((cls.__doc__ or "").split())
        parts.append(f"| `{cls.__name__}` | `{topic}` | {cls.provider or 'any'} | {meaning} |\n")
    parts.append("\n## Data\n\nBeside the fields of every event, by data class:\n\n")
    seen = dict.fromkeys(cls.model_fields["data"].annotation for cls in dict.fromkeys(types))
    for model in seen:
        parts += [f"### `{model.__name__}`\n\n{' '.join((model.__doc__ or '').split())}\n\n", _table(model)]
    return "".join(parts)


PAGES = {"commands.md": commands, "configuration.md": configuration, "events.md": events}


def main() -> None:
    """Write the pages, or with `--check` exit with 1 if one of them is not what would be written."""
    check = "--check" in sys.argv
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run `make docs`")


if __name__ == "__main__":
    main()
