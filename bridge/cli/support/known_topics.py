"""Whether any event can have a topic: what `check` and `tail` say of patterns that select nothing."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.domain.event import Event
from bridge.domain.topic_reach import event_topics, meant, selects_any
from bridge.protocols.source import SourceSettings


def installed_events(config: Config | None = None) -> tuple[list[type[Event]], list[str]]:
    """Return the bridge's own events and those of all installed sources, and why a source could not be asked.

    With a configuration, the events that its sources' own settings bring along are among them.
    """
    classes: dict[type[Event], None] = {}
    left_out = []
    for name in registry.installed("source"):
        try:
            classes |= dict.fromkeys(registry.load_source(name).events)
        except ConfigError as error:
            left_out.append(str(error))
    for settings in () if config is None else config.sources.values():
        classes |= dict.fromkeys(settings.own_events)
    return list(classes | dict.fromkeys(INTERNAL_EVENTS)), left_out


def known_topics(config: Config | None = None) -> list[str]:
    """Return every topic that an event of an installed or configured source, or of the bridge itself, may have."""
    return event_topics(installed_events(config)[0])


def source_events(settings: SourceSettings) -> tuple[type[Event], ...]:
    """Return the events of a configured source: those of its plugin, and those that its own settings bring along."""
    return (*registry.load_source(settings.type).events, *settings.own_events)


def unknown_topic(pattern: str, known: list[str]) -> str | None:
    """Return what is wrong with a pattern that no event can have, or None."""
    if selects_any(pattern, known):
        return None
    near = meant(pattern, known)
    remedy = f"did you mean {near!r}?" if near else "`bridgectl events list` names the topics"
    return f"no event can have the topic {pattern!r}; {remedy}"


def check_topics(config: Config) -> None:
    """Raise `ConfigError` with each of the sinks' topics that no event of any installed source can have.

    Nothing is wrong if a configured source does not say which events it has.
    """
    if not all(map(source_events, config.sources.values())):
        return
    known = known_topics(config)
    problems: list[ConfigProblem] = [
        problem
        for place, pattern in _patterns(config)
        if (wrong := unknown_topic(pattern, known)) is not None
        for problem in config.problem(place, wrong).problems
    ]
    if problems:
        raise ConfigError(problems)


def topic_notes(config: Config) -> list[str]:
    """Return a line for each of the sinks' topics that is possible, and that no configured source has events of."""
    of_sources = [source_events(settings) for settings in config.sources.values()]
    if not all(of_sources):
        return []
    events = dict.fromkeys(event for own in of_sources for event in own)
    own = event_topics([*events, *INTERNAL_EVENTS])
    return [
        f"{config.file}: sinks.{place[1]}: no source of this file has events of the topic {pattern!r}"
        for place, pattern in _patterns(config)
        if not selects_any(pattern, own)
    ]


def _patterns(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name, settings in config.sinks.items():
        for index, pattern in enumerate(settings.topics):
            yield ("sinks", name, "topics", index), pattern
