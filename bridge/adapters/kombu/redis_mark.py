"""The mark of an installation in Redis as a broker: one key next to the queues."""

from __future__ import annotations

from typing import Any

from bridge.domain.installation import Mark


def read(client: Any, key: str) -> Mark | None:
    """Return the mark; None if there is none."""
    return _parse(client.get(key))


def give(client: Any, key: str, mark: Mark) -> Mark:
    """Give Redis this mark if it has none; return the one that it has. Costs one round trip."""
    with client.pipeline(transaction=False) as pipe:
        pipe.set(key, str(mark), nx=True)
        pipe.get(key)
        # A server without memory refuses to write, and still tells.
        written, value = pipe.execute(raise_on_error=False)
    if isinstance(value, Exception):
        raise value
    if value is None and isinstance(written, Exception):
        raise written
    return _parse(value) or mark


def _parse(value: bytes | str | None) -> Mark | None:
    if value is None:
        return None
    return Mark.parse(value.decode() if isinstance(value, bytes) else value)
