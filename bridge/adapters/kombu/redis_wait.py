"""A wait for the next message of a Redis list, on a connection of its own, that another descriptor can end."""

from __future__ import annotations

from typing import Any

import redis

from bridge.concurrency.thread_worker import wait_readable
from bridge.domain.clock import Clock


class RedisWait:
    """Has Redis move the next message of a list to another as soon as there is one. Used by one thread."""

    def __init__(self, client: redis.Redis, clock: Clock, *, retry_seconds: float, answer_within: float) -> None:
        self._client = client
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._answer_within = answer_within
        self._connection: Any = None
        self._connection_id = 0
        self._since: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether Redis has not answered yet."""
        return self._since is not None

    def begin(self, source: str, destination: str) -> None:
        """Ask for the move; Redis answers after `retry_seconds` in any case."""
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
            self._connection.send_command("CLIENT", "ID")
            self._connection_id = int(self._connection.read_response())
        self._connection.send_command("BLMOVE", source, destination, "RIGHT", "LEFT", self._retry_seconds)
        self._since = self._clock.monotonic()

    def wait(self, wake: int) -> None:
        """Return when Redis has answered, or when the descriptor `wake` is readable."""
        descriptor = self._connection._sock.fileno()  # noqa: SLF001 - redis-py has no public name for it
        wait_readable(descriptor, wake, seconds=self._answer_within)
        if wait_readable(descriptor, seconds=0):
            self._since = None
            try:
                self._connection.read_response()
            except redis.exceptions.OutOfMemoryError:  # it moves nothing then; claiming does, and is tried again soon
                wait_readable(wake, seconds=self._retry_seconds)
        elif (
            self._since is not None
            and self._clock.monotonic() - self._since > self._retry_seconds + self._answer_within
        ):
            raise TimeoutError("Redis did not answer")

    def end(self) -> None:
        """Stop a wait, and see it stopped: a move that happened afterwards would hide a message for good."""
        if self._since is not None:
            self._client.client_unblock(self._connection_id)
            self._connection.read_response()

    def drop(self) -> None:
        """Close the connection without a word."""
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
