"""Writes the reference pages from the code itself: commands, settings and events. `--check` only compares."""

# ruff: noqa: INP001 - a script beside the pages, and no package

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import click
from pydantic import BaseModel

from bridge.cli import cli
from bridge.cli.support.schemas import event_topics, plain_default
from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import Data, Event, Transition
from bridge.domain.settings import Settings

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs" / "reference"
OURS = {"bridge", *(path.name for path in (ROOT / "plugins").iterdir())}
"""Distributions of this repository: what else is installed here has documentation of its own."""
MADE = "<!-- made by docs/generate.py; edit the code instead, then `make docs` -->\n\n"
_WIDTH = 100


def main() -> int:
    """Write the pages, or with `--check` return 1 if one of them is not what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the page of all commands: their help as it is printed."""
    parts = ["# Commands\n\n", MADE]
    for path, command in _walk(cli, ["bridge"]):
        context = click.Context(
            command, info_name=" ".join(path), terminal_width=_WIDTH, max_content_width=_WIDTH,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        parts.append(f"## `{' '.join(path)}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


def _walk(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _walk(found, [*path, name])


# --- settings ---------------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the page of all settings, by the part of the file that they stand in."""
    parts = ["# Configuration\n\n", MADE, _INTRODUCTION, "## The file\n\n", _settings(Config)]
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            parts += [f"### `{name}`\n\n", _settings(info.annotation)]
    for kind in registry.KINDS:
        for found in _ours(kind):
            plugin = registry.load(kind, found.name)
            summary = plugin.summary[:1].upper() + plugin.summary[1:]
            parts.append(f"## {kind.capitalize()} `{found.name}`\n\n")
            parts += [f"{summary}. Distribution `{found.distribution}`.\n\n", _settings(plugin.settings)]
    return "".join(parts).rstrip() + "\n"


_INTRODUCTION = """One YAML file. `${NAME}` and `${NAME:-default}` expand from the environment, only inside values; an
unset variable without a default is an error, and `$${` stands for the characters themselves. A key marked *secret* may
be given as `KEY_file: PATH` instead, which is read again whenever the file changes. Unknown keys are errors. Durations
are `500ms`, `30s`, `5m`, `72h`, `7d`, at most ten years; rates `4/s`, `100/m`; sizes `500MB`, `2GiB`.

| command | for |
| --- | --- |
| `bridge config new` | a commented file to start from |
| `bridge check --offline -c FILE` | file, line and key of whatever is wrong |
| `bridge config show -c FILE` | the effective configuration, secrets masked |
| `bridge config schema` | a JSON Schema for editors |

"""


def _ours(kind: registry.Kind) -> list[registry.Installed]:
    return [found for found in registry.installed(kind).values() if found.distribution in OURS]


def _settings(model: type[Settings]) -> str:
    secret = set(model.secret_fields())
    rows = ["| key | default | meaning |\n| --- | --- | --- |\n"]
    for name, info in model.model_fields.items():
        told = ["*Secret.*"] if name in secret else []
        told.append(_cell(info.description))
        rows.append(f"| `{name}` | {_default(model, name)} | {' '.join(told)} |\n")
    return "".join(rows) + "\n"


def _default(model: type[Settings], name: str) -> str:
    info = model.model_fields[name]
    if info.is_required():
        return "required"
    if name == "state":
        return "by the environment"  # and so not the same on two machines
    if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
        return f"[below](#{name})"
    return _written(plain_default(model, name))


def _written(value: Any) -> str:
    if value in (None, [], {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, list) else f"`{value}`"


# --- events -----------------------------------------------------------------------------------------------------------


def events() -> str:
    """Return the page of all events: their topics, their attributes and their data."""
    brought = [event for found in _ours("source") for event in registry.load_source(found.name).events]
    types = list(dict.fromkeys([*brought, *INTERNAL_EVENTS]))
    parts = ["# Events\n\n", MADE, "| class | topics | provider | meaning |\n| --- | --- | --- | --- |\n"]
    parts += [
        f"| `{cls.__name__}` | {_topics(cls)} | {cls.provider or 'any'} | {_cell(cls.__doc__)} |\n" for cls in types
    ]
    parts += [
        "\n`bridge events schema CLASS` prints the JSON Schema of an event's data.\n\n## Attributes\n\n",
        "The CloudEvents attributes of every event, which is one JSON object:\n\n",
        "| attribute | meaning |\n| --- | --- |\n",
    ]
    parts += [f"| `{name}` | {_cell(_ATTRIBUTES[name])} |\n" for name in Event.model_fields]
    parts += [
        "\n## Data\n\n`data` of every event has these fields:\n\n",
        _fields(Data, ()),
        f"`transition` is one of {_transitions()}.\n\nFurther fields by class of data:\n\n",
    ]
    for model, classes in _by_model(types).items():
        names = ", ".join(f"`{cls.__name__}`" for cls in classes)
        parts += [
            f"### `{model.__name__}`\n\n{_cell(model.__doc__)} In {names}.\n\n",
            _fields(model, Data.model_fields),
        ]
    return "".join(parts).rstrip() + "\n"


_ATTRIBUTES = {
    "specversion": "Always `1.0`.",
    "id": "32 hexadecimal digits, a function of the occurrence: seen again, it is the same. Deduplicate by it.",
    "source": "`/TYPE/NAME` of the source in the configuration.",
    "type": "`bridge.<channel>.<entity>.<status>`, never with a detail.",
    "subject": "The resource's path at the provider.",
    "time": "When it happened, by the provider's own account where it gives one; else when it was observed.",
    "recordedtime": "When the bridge wrote it down.",
    "partitionkey": "What `ordered: true` keeps in order: the subject.",
    "datacontenttype": "Always `application/json`.",
    "dataschema": "`urn:bridge:schemas/NAME/VERSION`, the `$id` of the data's JSON Schema.",
    "data": "What happened; see below.",
}


def _topics(cls: type[Event]) -> str:
    if not cls.entity:
        return f"`<channel>.<entity>.{cls.status}`"
    return ", ".join(f"`{topic}`" for topic in event_topics(cls))


def _transitions() -> str:
    return ", ".join(f"`{each.value}`" for each in Transition)


def _by_model(types: list[type[Event]]) -> dict[type[BaseModel], list[type[Event]]]:
    found: dict[type[BaseModel], list[type[Event]]] = {}
    for cls in types:
        model = cls.model_fields["data"].annotation
        if isinstance(model, type):
            found.setdefault(model, []).append(cls)
    return found


def _fields(model: type[BaseModel], known: Collection[str]) -> str:
    rows = ["| field | type | meaning |\n| --- | --- | --- |\n"]
    rows += [
        f"| `{name}` | {_type(info.annotation)} | {_cell(info.description) or _TOLD.get(name, '')} |\n"
        for name, info in model.model_fields.items()
        if name not in known
    ]
    return "".join(rows) + "\n"


_TOLD = {
    "channel": "The first word of the topic.",
    "status": "The third word of the topic.",
    "detail": "The word behind the status in the topic, where there is one.",
    "transition": "How the status was reached; see below.",
    "observed": "`after` and `by`: the interval in which the change happened, as far as polling can know.",
    "error": "What the provider says went wrong.",
    "created_at": "By the provider's clock.",
    "completed_at": "By the provider's clock.",
    "recipient_counts": "How many recipients are in each status.",
    "campaign": "The provider's number.",
    "job": "The provider's number.",
    "team": "The provider's number.",
    "timestamp": "The record's own time.",
    "event_id": "The provider's `eventID`.",
    "definition": "The provider's `definitionKey`.",
    "message_key": "The provider's `messageKey`.",
    "contact_key": "The provider's `contactKey`.",
    "phone": "E.164 where the provider gives it.",
    "provider": "Fields of the answer that no model knows.",
    "reason": "Why the polls failed; of a recovery, null.",
}
"""What a field means whose name says so in the code, and not on a page."""


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(dict.fromkeys(map(_type, parts)))
    return _TYPES.get(getattr(annotation, "__name__", ""), "object")


_TYPES = {"str": "text", "int": "number", "Annotated": "time", "datetime": "time", "Transition": "text"}


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


PAGES = {"commands.md": commands, "configuration.md": configuration, "events.md": events}

if __name__ == "__main__":
    sys.exit(main())
