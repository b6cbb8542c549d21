"""Whether each sink's filter fits the events that the configured sources can publish on the sink's topics."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.config import registry
from bridge.config.model import Config
from bridge.config.yaml_document import Place
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import Event
from bridge.domain.filters.checking import problems
from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.filters.expression import Place as FilterPlace
from bridge.domain.filters.fields import FieldNode, fields_of
from bridge.domain.topic_reach import selects_any
from bridge.protocols.sink import SinkSettings

_OWN_SOURCE = "/bridge/sinks"
"""What the bridge's own events about sinks have as their source."""


def filter_problems(config: Config) -> Iterator[tuple[Place, str]]:
    """Yield the place and the text of everything that is wrong with the sinks' filters.

    Nothing is wrong if a configured source does not say which events it has.
    """
    filters = [
        (name, key, chosen)
        for name, sink in config.sinks.items()
        for key, chosen in (("where", sink.where), ("quiet_except", sink.quiet_except))
        if chosen is not None
    ]
    events = _events(config) if filters else []
    for name, key, chosen in filters:
        for place, text in _problems(config, name, chosen, events):
            yield ("sinks", name, key, *place), text


def problems_of(config: Config, sink: str, chosen: EventFilter) -> Iterator[tuple[FilterPlace, str]]:
    """Return the place inside a filter, and the text, of everything that is wrong with it for one configured sink."""
    return _problems(config, sink, chosen, _events(config))


def _problems(
    config: Config, sink: str, chosen: EventFilter, events: list[type[Event]]
) -> Iterator[tuple[FilterPlace, str]]:
    if events:
        yield from problems(chosen.expression, _fields(config, config.sinks[sink], events))


def _events(config: Config) -> list[type[Event]]:
    """Return the events of all configured sources and of the bridge; none if a source does not name its own."""
    events: dict[type[Event], None] = {}
    for settings in config.sources.values():
        own = (*registry.load_source(settings.type).events, *settings.own_events)
        if not own:
            return []
        events |= dict.fromkeys(own)
    return list(events | dict.fromkeys(INTERNAL_EVENTS))


def _fields(config: Config, sink: SinkSettings, events: list[type[Event]]) -> FieldNode:
    """Return the fields of the events that the sink's topics select; of all events, if they select none."""
    resources = {(channel, event.entity): None for event in events if event.entity for channel in event.channels}
    published = [
        (event, channel, entity)
        for event in events
        for channel, entity in ([(channel, event.entity) for channel in event.channels] if event.entity else resources)
    ]
    selected = [item for item in published if _is_selected(sink, *item)]
    sources = [f"/{settings.type}/{name}" for name, settings in config.sources.items()]
    return fields_of(selected or published, [*sources, _OWN_SOURCE])


def _is_selected(sink: SinkSettings, event: type[Event], channel: str, entity: str) -> bool:
    stem = f"{channel}.{entity}.{event.status}"
    topics = [stem, *(f"{stem}.{detail}" for detail in event.details.get(channel, ()))]
    # A detail that no class knows may be selected, too: behind the status, any word is possible.
    return any(selects_any(pattern, [*topics, f"{stem}.detail"]) for pattern in sink.topics)
