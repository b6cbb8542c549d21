"""Which events were written lately, by their identity, so that a repetition is written only once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b

REMEMBERED_EVENTS = 100_000
"""More than all processes of an installation have in flight: only those can come again after a crash."""
_IDENTITY_BYTES = 16


def identity(line: bytes) -> bytes:
    """Return what an event has in common with its repetitions: its `source` and its `id`."""
    try:
        event = json.loads(line)
        text = f"{event['source']}\0{event['id']}".encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, LookupError, RecursionError):  # no event of ours: it is only equal to itself
        text = line
    return blake2b(text, digest_size=_IDENTITY_BYTES).digest()


class RecentEvents:
    """The identities of the events that were written last; the oldest are forgotten first."""

    def __init__(self, limit: int = REMEMBERED_EVENTS) -> None:
        self._limit = limit
        self._identities: dict[bytes, None] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._identities

    def __len__(self) -> int:
        return len(self._identities)

    def add(self, keys: Iterable[bytes]) -> None:
        """Remember more, and forget what is too much."""
        for key in keys:
            self._identities[key] = None
            if len(self._identities) > self._limit:
                del self._identities[next(iter(self._identities))]
