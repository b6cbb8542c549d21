"""The names that a shell completes: of the configuration's sources and sinks, of topics, plugins and events.

It is asked at each press of the Tab key: of the configuration only the names are read, and nothing is connected to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bridge.config.model import Config


def complete_sources(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the configuration's sources."""
    return _items(_configured(context, "sources"), incomplete)


def complete_sinks(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the configuration's sinks."""
    return _items(_configured(context, "sinks"), incomplete)


def complete_parts(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the configuration's sources and sinks."""
    return _items(dict.fromkeys([*_configured(context, "sources"), *_configured(context, "sinks")]), incomplete)


def complete_topics(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete topics: of every event that an installed source, or the bridge itself, can publish."""
    from bridge.cli.support.known_topics import known_topics

    topics = known_topics(_configuration(context))
    stems = sorted({f"{topic.rpartition('.')[0]}.#" for topic in topics if topic.count(".") > 2})  # noqa: PLR2004 - a topic has three words, and some a detail
    return _items([*topics, *stems], incomplete)


def complete_plugins(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of installed plugins; for `--source` and `--sink`, those of that kind."""
    from bridge.config import registry

    wanted = context.params.get("kind") or (parameter.name or "").removesuffix("s")
    kinds = [kind for kind in registry.KINDS if kind == wanted] or registry.KINDS
    return _items([name for kind in kinds for name in registry.installed(kind)], incomplete)


def complete_events(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of events: by class, and as `dataschema` has them."""
    from bridge.cli.support.known_topics import installed_events

    classes, _left_out = installed_events(_configuration(context))
    return _items(["all", *(name for cls in classes for name in (cls.__name__, cls.schema_name()))], incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _configured(context: click.Context, section: str) -> list[str]:
    from bridge.config import yaml_document
    from bridge.domain.errors import ConfigError

    with suppress(ConfigError):
        values = yaml_document.read(_file(context)).values.get(section)
        return list(values) if isinstance(values, dict) else []
    return []


def _configuration(context: click.Context) -> Config | None:
    """Return the configuration, whose definitions have events of their own; None if there is none, or a wrong one."""
    from bridge.config.loading import load
    from bridge.domain.errors import ConfigError

    with suppress(ConfigError):
        return load(_file(context), with_secrets=False)
    return None


def _file(context: click.Context) -> Path:
    """Return the configuration that the command line means so far; raises `ConfigError` if there is none."""
    from bridge.config.places import choose

    named = context.params.get("config_file") or (context.parent and context.parent.params.get("config_file"))
    return Path(named) if named else choose(os.environ)
