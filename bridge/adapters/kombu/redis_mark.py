"""The mark of an installation in Redis as a broker: one key next to the queues."""

from __future__ import annotations

from typing import Any

from bridge.domain.installation import Mark


class MarkedConnection:
    """The part of a connection that reads and writes the mark."""

    _redis: Any
    _mark_key: str

    def mark(self) -> Mark | None:
        """Return the installation whose mark Redis has; None if it has none."""
        return _parse(self._redis.get(self._mark_key))

    def marked(self, mark: Mark) -> Mark:
        """Return the mark that Redis has; one without any gets `mark`. Costs one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._mark_key, str(mark), nx=True)
            pipe.get(self._mark_key)
            # A server without memory refuses to write, and still tells.
            written, value = pipe.execute(raise_on_error=False)
        if isinstance(value, Exception):
            raise value
        if value is None and isinstance(written, Exception):
            raise written
        return _parse(value) or mark

    def take_over(self, mark: Mark) -> None:
        """Give Redis this mark instead of its own."""
        self._redis.set(self._mark_key, str(mark))


def _parse(value: bytes | str | None) -> Mark | None:
    if value is None:
        return None
    return Mark.parse(value.decode() if isinstance(value, bytes) else value)
