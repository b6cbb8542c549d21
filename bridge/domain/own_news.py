"""The bridge's own events about one sink, which that sink itself does not get: they would never end."""

from __future__ import annotations

from bridge.domain.event import WireEvent
from bridge.domain.event_view import plain_values

DEAD_TOPIC = "bridge.delivery.dead"
_TOPICS = frozenset({DEAD_TOPIC, "bridge.sink.failing"})


def sink_subject(sink: str) -> str:
    """Return the subject of the bridge's own events about a sink."""
    return f"/sinks/{sink}"


def is_about(event: WireEvent, sink: str) -> bool:
    """Say whether an event tells of what a sink did not get; then it is not for this sink."""
    return event.topic in _TOPICS and plain_values(event.body).get("subject") == sink_subject(sink)
