"""Writes reference pages from the code itself: commands, settings, events, plugins. `--check` only compares."""

# ruff: noqa: INP001 - a script next to the pages, and no package

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import click
import form_pages
import metrics_page
import provider_pages
from pydantic import BaseModel

from bridge import plugin
from bridge.cli import cli
from bridge.cli.support.schemas import envelope_schema, event_schema, event_topics, plain_default
from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import Data, Event, Transition
from bridge.domain.settings import Settings
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import SourceSettings
from bridge.testing.schema_changes import breaking_changes

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs" / "reference"
OURS = {"bridge", *(path.name for path in (ROOT / "plugins").iterdir())}
"""Distributions of this repository: what else is installed here has documentation of its own."""
MADE = (
    "<!-- made by docs/generate.py; edit the code instead, then `make docs` -->\n\n"
    "The nouns are in the [glossary](../glossary.md).\n\n"
)
_WIDTH = 100


def main() -> int:
    """Write the pages, or with `--check` return 1 if one of them is not what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, text in (*_pages(), *_schemas()):
        path = HERE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            if path.suffix == ".json" and path.exists() and (broken := breaking_changes(path.read_text(), text)):
                sys.stderr.write(f"{name}: {'; '.join(broken)}; give the event another `version`\n")
                return 1
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


def _pages() -> Iterator[tuple[str, str]]:
    for name, make in PAGES.items():
        yield name, make()


def _schemas() -> Iterator[tuple[str, str]]:
    """Yield the schema of each event's data, that of the envelope, and the whole catalogue as AsyncAPI."""
    types = _event_types()
    schemas = {f"{cls.schema_name()}.{cls.version}.json": event_schema(cls) for cls in types}
    schemas[f"event.{Event.version}.json"] = envelope_schema()
    for name, schema in schemas.items():
        yield f"schemas/{name}", json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the page of all commands: their help as it is printed."""
    parts = ["# Commands\n\n", MADE]
    for path, command in _walk(cli, ["bridgectl"]):
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
            subcommand = command.get_command(context, name)
            if subcommand is not None:
                yield from _walk(subcommand, [*path, name])


# --- settings ---------------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the page of all settings, by the part of the file that they stand in."""
    parts = ["# Configuration\n\n", MADE, _INTRODUCTION, "## The file\n\n", _settings(Config)]
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            parts += [f"### `{name}`\n\n", _settings(info.annotation)]
    for kind in registry.KINDS:
        base = _BASES[kind]
        parts += [f"## Every {kind}\n\n", _settings(base)]
        for name, info in base.model_fields.items():
            parts_of = get_args(info.annotation)
            inner = [part for part in parts_of if isinstance(part, type) and issubclass(part, Settings)]
            parts += [f"### `{name}`\n\n{_settings(part)}" for part in inner]
        for installed in _ours(kind):
            loaded = registry.load(kind, installed.name)
            summary = loaded.summary[:1].upper() + loaded.summary[1:]
            parts += [
                f"## {kind.capitalize()} `{installed.name}`\n\n",
                f"{summary}. Distribution `{installed.distribution}`.\n\n",
                f"In addition to the settings of [every {kind}](#every-{kind}), or with another default:\n\n",
                _settings(loaded.settings, without=base),
            ]
    return "".join(parts).rstrip() + "\n"


_BASES: dict[registry.Kind, type[Settings]] = {"source": SourceSettings, "sink": SinkSettings}
_INTRODUCTION = """The configuration is one YAML file. Unknown keys are errors.

- `${NAME}` and `${NAME:-default}` expand from the environment, only inside values. An unset variable without a default
  is an error. `$${` stands for the characters themselves.
- A key marked *secret* may be given as `KEY_file: PATH` instead. The file is read again whenever it changes.
- Durations are `500ms`, `30s`, `5m`, `72h`, `7d`, at most ten years.
- Rates are `4/s`, `100/m`. Sizes are `500MB`, `2GiB`.

| command | for |
| --- | --- |
| `bridgectl config new` | a commented file to start from |
| `bridgectl check --offline -c FILE` | file, line and key of whatever is wrong |
| `bridgectl config show -c FILE` | the effective configuration, secrets masked |
| `bridgectl config schema` | a JSON Schema for editors |

"""


def _ours(kind: registry.Kind) -> list[registry.Installed]:
    return [installed for installed in registry.installed(kind).values() if installed.distribution in OURS]


def _settings(model: type[Settings], *, without: type[Settings] | None = None) -> str:
    """Return the table of a model's settings, without those that a base has in the same words and with that default."""
    known = _rows(without) if without else {}
    rows = [row for name, row in _rows(model).items() if known.get(name) != row]
    return "".join(["| key | default | meaning |\n| --- | --- | --- |\n", *rows, "\n"]) if rows else ""


def _rows(model: type[Settings]) -> dict[str, str]:
    secret = set(model.secret_fields())
    rows = {}
    for name, info in model.model_fields.items():
        meaning = f"{'*Secret.* ' if name in secret else ''}{_cell(info.description)}"
        rows[name] = f"| `{name}` | {_default(model, name)} | {meaning} |\n"
    return rows


def _default(model: type[Settings], name: str) -> str:
    info = model.model_fields[name]
    if info.is_required():
        return "required"
    if name in _DEFAULTS_IN_WORDS and model is Config:
        return _DEFAULTS_IN_WORDS[name]
    if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
        return f"[below](#{name})"
    return _written(plain_default(model, name))


_DEFAULTS_IN_WORDS = {
    "state": "by the environment",  # and so not the same on two machines
    "store": "a SQLite file",
    "broker": "`embedded`",
}


def _written(value: Any) -> str:
    if value in (None, [], {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str) and "\n" in value:
        return f"a text of {value.count(chr(10)) + 1} lines"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, list) else f"`{value}`"


# --- events -----------------------------------------------------------------------------------------------------------


def events() -> str:
    """Return the page of all events: their topics, their attributes and their data."""
    types = _event_types()
    parts = ["# Events\n\n", MADE, "| class | topics | provider | meaning |\n| --- | --- | --- | --- |\n"]
    parts += [
        f"| `{cls.__name__}` | {_topics(cls)} | {cls.provider or 'any'} | {_cell(cls.__doc__)} |\n" for cls in types
    ]
    parts += [
        "\n`bridgectl events schema CLASS` prints the JSON Schema of an event's data; `docs/reference/schemas/`\n",
        "has all of them as files. `bridgectl events asyncapi` prints everything as one AsyncAPI document.\n\n",
        "## Attributes\n\n",
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


def _event_types() -> list[type[Event]]:
    of_sources = [event for source in _ours("source") for event in registry.load_source(source.name).events]
    return list(dict.fromkeys([*of_sources, *INTERNAL_EVENTS]))


_ATTRIBUTES = {
    "specversion": "Always `1.0`.",
    "id": "32 hexadecimal digits, a function of the occurrence: seen again, it is the same. Deduplicate by it.",
    "source": "`/TYPE/NAME` of the source in the configuration.",
    "type": "`bridge.<channel>.<entity>.<status>`, never with a detail.",
    "subject": "The resource's path at the provider.",
    "time": "When it happened, by the provider's own account if it gives one; else when it was observed.",
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
    return ", ".join(f"`{transition.value}`" for transition in Transition)


def _by_model(types: list[type[Event]]) -> dict[type[BaseModel], list[type[Event]]]:
    by_model: dict[type[BaseModel], list[type[Event]]] = {}
    for cls in types:
        model = cls.model_fields["data"].annotation
        if isinstance(model, type):
            by_model.setdefault(model, []).append(cls)
    return by_model


def _fields(model: type[BaseModel], known: Collection[str]) -> str:
    rows = ["| field | type | meaning |\n| --- | --- | --- |\n"]
    rows += [
        f"| `{name}` | {_type(info.annotation)} | {_cell(info.description) or _MEANINGS.get(name, '')} |\n"
        for name, info in model.model_fields.items()
        if name not in known
    ]
    return "".join(rows) + "\n"


_MEANINGS = {
    "channel": "The first word of the topic.",
    "status": "The third word of the topic.",
    "detail": "The word behind the status in the topic, if there is one.",
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
    "phone": "E.164 if the provider gives it so.",
    "provider": "Fields of the answer that no model knows.",
    "sink": "The sink's name.",
    "provider_says": "The status that the provider shows.",
}
"""The meaning of fields whose names say enough in the code, and not on a page."""


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(dict.fromkeys(map(_type, parts)))
    return _TYPES.get(getattr(annotation, "__name__", ""), "object")


_TYPES = {
    "str": "text",
    "int": "number",
    "Annotated": "time",
    "datetime": "time",
    "Transition": "text",
    "float": "number",
}


# --- names for plugins ------------------------------------------------------------------------------------------------


def plugin_names() -> str:
    """Return the page of all names that a plugin may import: by purpose, with the summary of each."""
    parts = ["# Names for plugins\n\n", MADE, _NAMES_INTRODUCTION]
    for purpose, names in _by_purpose(Path(plugin.__file__).read_text(encoding="utf-8")).items():
        parts.append(f"## {purpose[:1].upper()}{purpose[1:]}\n\n| name | meaning |\n| --- | --- |\n")
        parts += [f"| {_linked(name)} | {_cell(_summary(name))} |\n" for name in names]
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


_NAMES_INTRODUCTION = """All that `bridge.plugin` offers. [The plugin interface](plugin-interface.md) says what a sink
and a source have to do. `help(bridge.plugin.NAME)` prints the whole of it.

"""


def _by_purpose(source: str) -> dict[str, list[str]]:
    """Return the names of `__all__` under the comments that group them."""
    groups: dict[str, list[str]] = {}
    purpose = ""
    for line in source.partition("__all__ = [")[2].partition("\n]")[0].splitlines()[1:]:
        text = line.strip()
        if text.startswith("#"):
            purpose = text.removeprefix("#").strip()
        else:
            groups.setdefault(purpose, []).append(text.strip('",'))
    return groups


def _linked(name: str) -> str:
    """Return a name, with a link if the page of events has it."""
    return f"[`{name}`](events.md)" if getattr(plugin, name) in INTERNAL_EVENTS else f"`{name}`"


def _summary(name: str) -> str:
    """Return the first paragraph of a class, a function or a module; values have no docstring that could be read."""
    value = inspect.unwrap(getattr(plugin, name))
    if name in _VALUES:
        return _VALUES[name]
    return (inspect.getdoc(value) or "").partition("\n\n")[0]


_VALUES = {
    "CONTENT_TYPE": "The media type of an event.",
    "Duration": "A setting in seconds, written as `30s`, `5m` or `72h`.",
    "Network": "A setting: a network of IP addresses, written as `10.2.0.0/16`.",
    "Origin": "A setting: the scheme, host and port of an API.",
    "Privacy": "A setting: `full`, `last4` or `token`.",
    "RETRY_AFTER_CAP": "The longest `Retry-After` of an endpoint that is honoured, in seconds.",
    "Rate": "A setting in requests a second, written as `4/s` or `100/m`.",
    "SecretUrl": "A setting: a URL whose path and query may be secrets.",
    "Size": "A setting in bytes, written as `500MB`, `1GB` or `2GiB`.",
    "Time": "A time with its zone, written as RFC 3339.",
    "UnmappedFields": "The type of `provider` in data: fields of the answer that no model knows.",
}
"""The meaning of names that are no class, function or module."""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


PAGES = {
    "commands.md": commands,
    "configuration.md": configuration,
    "events.md": events,
    "metrics.md": lambda: metrics_page.metrics(MADE),
    "plugin-names.md": plugin_names,
    "provider-definitions.md": lambda: provider_pages.vocabulary(MADE, _settings),
    "request-forms.md": lambda: form_pages.forms(MADE, _settings),
    "shipped-providers.md": lambda: provider_pages.shipped(
        MADE, _cell, lambda model: _fields(model, Data.model_fields)
    ),
}

if __name__ == "__main__":
    sys.exit(main())
