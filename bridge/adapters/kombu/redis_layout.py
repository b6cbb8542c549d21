"""What kombu keeps in Redis: its bindings, and the envelopes of its messages."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from bridge.adapters import message
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Received


class Routes:
    """Which queues want a topic, by the bindings as they were last read."""

    def __init__(self) -> None:
        self._members: frozenset[bytes] | set[bytes] = frozenset()
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        self._queues: dict[str, tuple[str, ...]] = {}

    def learn(self, members: set[bytes], separator: str) -> None:
        """Take these bindings from now on."""
        if members == self._members:
            return
        self._members = members
        rows = [text_of(member).split(separator) for member in sorted(members)]
        self._patterns = [(row[-1], _expression(row[0])) for row in rows if len(row) > 1 and row[-1]]
        self._queues = {}

    def of(self, topic: str) -> tuple[str, ...]:
        """Return the queues that want `topic`, each once."""
        queues = self._queues.get(topic)
        if queues is None:
            dotted = f".{topic}"
            wanted = dict.fromkeys(queue for queue, pattern in self._patterns if pattern.fullmatch(dotted))
            queues = self._queues[topic] = tuple(wanted)
        return queues


def _expression(binding: str) -> re.Pattern[str]:
    """Return the meaning that AMQP gives a binding, `#` anywhere included, for a topic with a dot before each word."""
    words = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    return re.compile("".join(words.get(word, r"\." + re.escape(word)) for word in binding.split(".")))


def text_of(member: bytes | str) -> str:
    """Return a member of a set as text."""
    return member.decode("utf-8", "replace") if isinstance(member, bytes) else member


def queue_of(member: str, separator: str) -> str:
    """Return the queue that a binding names."""
    return member.rpartition(separator)[2]


def envelope(entry: JournalEntry, exchange: str) -> str:
    """Return kombu's envelope up to the delivery tag, which each copy gets by itself."""
    event = entry.event
    text = json.dumps(
        {
            "body": b64encode(event.body).decode(),
            "content-encoding": message.ENCODING,
            "content-type": message.CONTENT_TYPE,
            "headers": message.headers(entry),
            "properties": {
                **message.properties(event),
                "delivery_info": {"exchange": exchange, "routing_key": event.topic},
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    )
    return text[:-2] + ', "delivery_tag": '


def envelopes_by_queue(
    entries: Sequence[JournalEntry], exchange: str, routes: Routes, queue: str | None
) -> tuple[dict[str, list[str]], int]:
    """Return the envelopes for each queue that wants them, or for `queue`, and how many entries no queue wants."""
    unroutable = 0
    envelopes: dict[str, list[str]] = {}
    stem, number = uuid.uuid4().hex, itertools.count()
    for entry in entries:
        queues = routes.of(entry.event.topic) if queue is None else (queue,)
        if not queues:
            unroutable += 1
            continue
        front = envelope(entry, exchange)
        for name in queues:
            # A tag of its own for each copy: kombu's consumers keep what is unacknowledged by tag, for all queues.
            envelopes.setdefault(name, []).append(f'{front}"{stem}-{next(number)}"}}}}')
    return envelopes, unroutable


def waiting_in(client: Any, lists: Iterable[str]) -> int:
    """Return how many messages the lists of a queue have."""
    with client.pipeline(transaction=False) as pipe:
        for key in lists:
            pipe.llen(key)
        return sum(pipe.execute())


def is_bound(client: Any, bindings: str, queue: str, separator: str) -> bool:
    """Return whether a queue is among an exchange's bindings."""
    return any(queue_of(text_of(member), separator) == queue for member in client.smembers(bindings))


def received_from(payload: bytes, tag: object) -> Received:
    """Read an envelope of kombu's; what is none becomes a message with a problem."""
    try:
        envelope = json.loads(payload)
        properties = envelope["properties"]
        body = envelope["body"]
        if properties.get("body_encoding") == "base64":
            body = b64decode(body)
        topic = str((properties.get("delivery_info") or {}).get("routing_key") or "")
        return message.received(topic, body, properties, envelope.get("headers"), tag)
    except (ValueError, TypeError, KeyError, AttributeError):
        return message.received("", bytes(payload), {}, None, tag)
