"""The pages of definitions: the vocabulary, read from its models, and the definitions that ship."""

# ruff: noqa: INP001 - a module next to the pages, and no package

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from bridge.domain.settings import Settings
from bridge.providers import loading
from bridge.providers.events import built_in, data_model, event_classes, lifecycle
from bridge.providers.models import Definition

Cell = Callable[[str | None], str]

_INTRODUCTION = """What the file of a definition may say. A source of `type: rest` names such a file, or an
[installed one](shipped-providers.md), by its setting `provider`. [Your provider in a
page](../tutorial/your-provider.md) writes one.

- Unknown keys are errors. `bridgectl providers check FILE` names file, line and key of whatever is wrong.
- A *path* leads into the answer: `$.message.id`, `$.to[*].status` (the first that is there), `$['a.b']`. Of a list of
  paths, the first that leads to a value counts.
- A *format of times* is `iso`, `iso_ms`, `date`, `rfc2822`, `epoch_s`, `epoch_ms`, or a pattern such as
  `%Y-%m-%d %H:%M:%S`.
- There are no templates and no code. The bridge keeps the cursor, and makes scopes and ids itself.

"""


_SHIPPED = """Name one of these as `provider` of a source of `type: rest`. `bridgectl providers list` also shows those
of other distributions. What is marked as unsure stands on no page of the vendor: check it with your account.

"""


def vocabulary(made: str, table: Callable[[type[Settings]], str]) -> str:
    """Return the page of the vocabulary; `table` writes the settings of a model."""
    parts = ["# Definitions of providers\n\n", made, _INTRODUCTION, "## The file\n\n", table(Definition)]
    for place, model in _blocks(Definition, ""):
        about = " ".join((model.__doc__ or "").split())
        parts += [f"## `{place}`\n\n{about}\n\n", table(model)]
    return "".join(parts).rstrip() + "\n"


def _blocks(model: type[Settings], place: str) -> Iterator[tuple[str, type[Settings]]]:
    for name, info in model.model_fields.items():
        for inner in _models(info.annotation):
            if inner.__name__ == "SettingRef":
                continue
            at = f"{place}{name}"
            yield at, inner
            yield from _blocks(inner, f"{at}.")


def _models(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)


def shipped(made: str, cell: Cell, fields: Callable[[Any], str]) -> str:
    """Return the page of the definitions that ship."""
    parts = ["# Providers that ship as definitions\n\n", made, _SHIPPED]
    for name in loading.installed():
        definition = loading.load(loading.find(name, Path()))
        parts.append(f"## `{name}`\n\n{cell(definition.title)}. ")
        parts.append(f"Polled by {_shapes(definition)}. From {_links(definition)}.\n\n")
        parts += [f"- Unsure: {cell(fact)}\n" for fact in definition.unsure]
        parts += ["\n", *_settings(definition, cell)]
        known = built_in(definition)
        if known:
            words = ", ".join(f"`{event.channels[0]}.{event.entity}.{event.status}`" for event in known.values())
            parts.append(f"Its [events](events.md) are the bridge's own: {words}.\n\n")
        else:
            parts += [*_events(definition, cell), fields(data_model(definition))]
    return "".join(parts).rstrip() + "\n"


def _shapes(definition: Definition) -> str:
    return " and ".join(name for name in ("window", "feed", "follow") if getattr(definition, name) is not None)


def _links(definition: Definition) -> str:
    return " and ".join(f"[{link.removeprefix('https://').partition('/')[0]}]({link})" for link in definition.docs)


def _settings(definition: Definition, cell: Cell) -> Iterator[str]:
    yield "| setting | default | meaning |\n| --- | --- | --- |\n"
    for name, spec in definition.settings.items():
        default = "required" if spec.default is None else f"`{spec.default}`"
        secret = "*Secret.* " if spec.type == "secret" else ""
        yield f"| {name} | {default} | {secret}{cell(spec.about)} |\n"
    yield "\n"


def _events(definition: Definition, cell: Cell) -> Iterator[str]:
    table = lifecycle(definition)
    yield "| class | topic | followed by | meaning |\n| --- | --- | --- | --- |\n"
    for word, event in event_classes(definition).items():
        topic = f"{event.channels[0]}.{event.entity}.{word}"
        after = ", ".join(table.follows.get(word, ())) or "final"
        yield f"| `{event.__name__}` | `{topic}` | {after} | {cell(event.__doc__)} |\n"
    yield "\n"
