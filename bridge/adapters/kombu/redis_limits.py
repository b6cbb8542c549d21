"""What Redis can be sent: its largest value, and how much at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from bridge.adapters.kombu.redis_layout import envelope
from bridge.domain.event import JournalEntry, Position

_LIMIT = "proto-max-bulk-len"
_DEFAULT_MAX_VALUE_BYTES = 512 * 1024 * 1024
"""Redis's own default for one value."""
_LARGE_BYTES = 512 * 1024
"""Bytes of a body from which on Redis is asked for its limit, which is 1 MiB at least; the envelope adds a third."""
_TAG_BYTES = 64
"""More than what the delivery tag adds to an envelope."""
_PART_BYTES = 64 * 1024 * 1024
"""Bytes of bodies in one transaction: Redis closes a connection that sends more than it keeps unread (1 GiB)."""


def over_limit(client: Any, exchange: str, entries: Sequence[JournalEntry]) -> dict[Position, str]:
    """Return why Redis will never accept some of these: it closes the connection for a value over its limit."""
    large = [entry for entry in entries if len(entry.event.body) > _LARGE_BYTES]
    if not large:
        return {}
    limit = _max_value_bytes(client)
    sizes = {entry.position: len(envelope(entry, exchange)) + _TAG_BYTES for entry in large}
    return {
        position: f"its message has {size:,} bytes, and Redis accepts {limit:,} ({_LIMIT})"
        for position, size in sizes.items()
        if size > limit
    }


def _max_value_bytes(client: Any) -> int:
    try:
        answer = client.config_get(_LIMIT)
    except redis.ResponseError:  # an operator, or a hosted service, does not allow to ask
        return _DEFAULT_MAX_VALUE_BYTES
    return int(answer.get(_LIMIT) or _DEFAULT_MAX_VALUE_BYTES)


def parts(entries: Sequence[JournalEntry]) -> Iterator[Sequence[JournalEntry]]:
    """Yield all entries, in order, in as few parts as their bytes allow."""
    start = size = 0
    for index, entry in enumerate(entries):
        size += len(entry.event.body)
        if size > _PART_BYTES and index > start:
            yield entries[start:index]
            start, size = index, len(entry.event.body)
    if start < len(entries):
        yield entries[start:]
