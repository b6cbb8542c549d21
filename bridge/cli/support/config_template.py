"""A configuration to start from, written from the settings models: each key with its meaning and its default."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bridge.cli.support.schemas import plain_default
from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.settings import Secret, Settings
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import SourceSettings

_WIDTH_CHARACTERS = 100
_FIRST = ("type", "topics", "url")
_SHARED = {*SourceSettings.model_fields, *SinkSettings.model_fields} - {*_FIRST}


@dataclass(slots=True)
class _Starter:
    variables: list[str] = field(default_factory=list)

    def part(self, kind: registry.Kind, name: str) -> Iterator[str]:
        plugin = registry.load(kind, name)
        if getattr(plugin, "settings_for", None) is not None:
            yield from (f"  # {line}" for line in _defined(kind, name))
            return
        model = plugin.settings
        chosen = secrets_needed(model)
        yield f"  {name}:"
        for key in sorted(model.model_fields, key=lambda item: _rank(item, model, chosen)):
            yield from (f"    {line}".rstrip() for line in self._field(name, key, model, given=key in chosen))

    def _field(self, name: str, key: str, model: type[Settings], *, given: bool) -> Iterator[str]:
        info = model.model_fields[key]
        if key == "type":
            yield f"type: {name}"
            return
        secret = key in model.secret_fields()
        yield from comment_lines(info.description, f"or {key}_file: PATH" if secret else "")
        if key == "topics":
            yield 'topics: ["#"]'
        elif secret or info.is_required():
            value = _example(info) if not secret else None
            if value is None and (given or info.is_required()):
                variable = re.sub(r"\W", "_", f"{name}_{key}").upper()
                self.variables.append(variable)
                yield f"{key}: ${{{variable}}}"
            elif value is not None:
                yield f"{key}: {flow(value)}"
            else:
                yield f"#{key}: ${{{re.sub(r'[^A-Za-z0-9_]', '_', f'{name}_{key}').upper()}}}"
        else:
            yield f"#{key}: {flow(plain_default(model, key))}"


def _defined(kind: registry.Kind, name: str) -> tuple[str, ...]:
    """Return the lines of a part whose settings depend on what it names: a person has to choose that first."""
    if kind == "sink":
        return (
            f"{name}: any HTTP endpoint, by a form that ships; or write a `request` of your own",
            f"type: {name}",
            'topics: ["#"]',
            "preset: NAME, one of those that `bridgectl sinks form` lists",
        )
    return (
        f"{name}: any provider that a definition describes; `bridgectl providers show NAME` lists its settings",
        f"type: {name}",
        "provider: NAME, one of those that `bridgectl providers list` shows",
    )


def starter(sources: Sequence[str], sinks: Sequence[str]) -> str:
    """Return the text of a configuration with these plugins; raises `PluginError` for one that cannot be used."""
    made = _Starter()
    body = [*_sections(), "", "sources:"]
    for name in sources:
        body += made.part("source", name)
    body += ["", "sinks:" if sinks else "sinks: {}"]
    for name in sinks:
        body += made.part("sink", name)
    head = [
        "# Configuration of the bridge. `bridgectl check -c FILE` says what is wrong with it, file, line and key.",
        "# Lines that begin with #key: are optional, and most show the default; take the # away to change it.",
        "# ${NAME} and ${NAME:-default} are filled in from the environment.",
    ]
    if made.variables:
        head += ["# Set these, or write the values here:", *(f"#   {name}" for name in made.variables)]
    return "\n".join([*head, "", *body]) + "\n"


def _sections() -> Iterator[str]:
    for key, info in Config.model_fields.items():
        if key in ("sources", "sinks"):
            continue
        yield from comment_lines(info.description, "")
        value = "${PRIVACY_KEY}" if key == "privacy_key" else SHOWN.get(key) or flow(plain_default(Config, key))
        yield f"#{key}: {value}"


SHOWN = {
    "store": "redis://localhost:6379/0",
    "broker": "amqp://guest:guest@localhost:5672//",
    "state": "/var/lib/bridge",
}


def _rank(key: str, model: type[Settings], chosen: set[str]) -> tuple[int, int]:
    given = key in chosen or model.model_fields[key].is_required()
    if key in _FIRST:
        return (0, _FIRST.index(key))
    return (1, 0) if given else (3, 0) if key in _SHARED else (2, 0)


def comment_lines(text: str | None, more: str = "") -> Iterator[str]:
    """Yield a setting's description as lines of a comment."""
    said = " ".join((text or "").split())
    said = "; ".join(part for part in (said.rstrip("."), more) if part)
    for line in textwrap.wrap(said, _WIDTH_CHARACTERS):
        yield f"# {line}"


def _example(info: FieldInfo) -> Any:
    return info.examples[0] if info.examples else None


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def secrets_needed(model: type[Settings]) -> set[str]:
    """Return which optional secrets a first configuration has to have: none, or the first that makes it valid."""
    values: dict[str, Any] = {"type": "x"}
    for key, info in model.model_fields.items():
        if key == "topics":
            values[key] = ["#"]
        elif info.is_required() and key != "type":
            example = _example(info)
            values[key] = Secret("x") if key in model.secret_fields() else "x" if example is None else example
    optional = [key for key in model.secret_fields() if not model.model_fields[key].is_required()]
    for chosen in (set[str](), *({key} for key in optional), set(optional)):
        extra = {key: _example(model.model_fields[key]) or Secret("x") for key in chosen}
        if _fits(model, values | extra):
            return chosen
    return set(optional[:1])


def _fits(model: type[Settings], values: dict[str, Any]) -> bool:
    try:
        model.model_validate(values)
    except ValidationError as error:
        # A made-up value that does not look right is no reason to ask for more secrets; a model that misses one is.
        return all(item["loc"] for item in error.errors())
    return True
