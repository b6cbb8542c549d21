"""One message in its two shapes: an event of ours, and the properties, headers and bytes that a broker carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from bridge.domain.event import CONTENT_TYPE, JournalEntry, Position, WireEvent
from bridge.protocols.broker import Received

POSITION_HEADER = "bridge-position"
ENCODING = "utf-8"
PERSISTENT = 2
"""AMQP's delivery mode for a message that the broker keeps on its disk."""


def headers(entry: JournalEntry) -> dict[str, str]:
    """Return the headers of an entry's message."""
    return {POSITION_HEADER: str(entry.position)}


def properties(event: WireEvent) -> dict[str, Any]:
    """Return the AMQP properties of an event's message, apart from content type and encoding."""
    return {"message_id": event.id, "type": event.type, "timestamp": amqp_timestamp(event), "delivery_mode": PERSISTENT}


def amqp_timestamp(event: WireEvent) -> int:
    """Return the AMQP property `timestamp`.

    AMQP gives it no sign, and journals of earlier versions hold times before 1970: these become 0.
    """
    return max(0, event.time)


def received(topic: str, body: object, properties: Mapping[str, Any], headers: object, tag: object) -> Received:
    """Read any message of a queue; never raises.

    A message that cannot be an event has its `problem` set, and an id that depends on nothing but its bytes.
    """
    data = body if isinstance(body, bytes) else str(body or "").encode(ENCODING, "surrogatepass")
    content = _json_object(data)
    problem = None if content is not None else "the body is not a JSON object"
    identity = properties.get("message_id") or (content or {}).get("id")
    if not isinstance(identity, str) or not identity:
        identity = hashlib.sha256(data).hexdigest()
        problem = problem or "the message has no id"
    event = WireEvent(id=identity, topic=topic, time=_time(properties.get("timestamp"), content), body=data)
    return Received(event=event, position=_position(headers), tag=tag, problem=problem)


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        content = from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _position(headers: object) -> Position | None:
    text = headers.get(POSITION_HEADER) if isinstance(headers, Mapping) else None
    if not isinstance(text, str):
        return None
    try:
        return Position.parse(text)
    except ValueError:
        return None


def _time(timestamp: object, content: Mapping[str, Any] | None) -> int:
    if isinstance(timestamp, int):
        return timestamp
    text = (content or {}).get("time")
    try:
        return int(datetime.fromisoformat(text).timestamp()) if isinstance(text, str) else 0
    except (ValueError, OverflowError):
        return 0


__all__ = [
    "CONTENT_TYPE",
    "ENCODING",
    "PERSISTENT",
    "POSITION_HEADER",
    "amqp_timestamp",
    "headers",
    "properties",
    "received",
]
