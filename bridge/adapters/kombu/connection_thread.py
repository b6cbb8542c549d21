"""A thread with one connection to the broker, and the one place where a library's error becomes ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import amqp
import redis
import structlog

from bridge.adapters.kombu.amqp_publisher import PublishBlocked
from bridge.adapters.kombu.amqp_words import amqp_reason, amqp_refusal
from bridge.adapters.kombu.connection import KombuConnection
from bridge.adapters.os_errors import os_error_reason
from bridge.adapters.redis_words import redis_code, redis_reason, redis_refusal
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.errors import BridgeError, Unavailable
from bridge.protocols.broker import Received

T = TypeVar("T")
log = structlog.get_logger()

_CONNECTIONS = frozenset({"CONNECTION", "TIMEOUT"})
"""Codes for what no server said: the system's own words tell more."""
_IDLE_SECONDS = 60.0


class ConnectionThread:
    """A thread and its connection, which is made when it is needed and dropped when it failed."""

    def __init__(self, name: str, label: str, connect: Callable[[], KombuConnection]) -> None:
        self._label = label
        self._connect = connect
        self._connection: KombuConnection | None = None
        self.on_messages: Callable[[list[Received]], None] = lambda _messages: None
        """Called in the event loop with the messages that arrived."""
        self.on_disconnect: Callable[[Unavailable], None] = lambda _error: None
        """Called in the event loop when the connection broke and no call was running."""
        self.worker = ThreadWorker(name, rest=self._on_idle, end=self._on_close, interrupt=self._interrupt)

    async def call(self, job: Callable[[KombuConnection], T], *, within: float) -> T:
        """Do `job` with the connection, in the thread; raises `Unavailable`."""
        return await self.worker.call(lambda: self._with_connection(job), within=within, what=self._label)

    def submit(self, job: Callable[[KombuConnection], T]) -> asyncio.Future[T]:
        """Queue `job` for the thread, and do not wait for it."""
        return self.worker.submit(lambda: self._with_connection(job))

    def _with_connection(self, job: Callable[[KombuConnection], T]) -> T:
        """Do `job`, and translate every error.

        If the broker is dead, the library that notices first raises, and py-amqp and kombu also fail on attributes that
        a lost connection has set to None: no list of exception types would be complete.
        """
        try:
            if self._connection is None:
                self._connection = self._connect()
            return job(self._connection)
        except BridgeError:
            raise
        except Exception as error:
            self._drop()
            raise refusal(error)(f"{self._label}: {failure_reason(error)}") from error

    def _on_idle(self, wake: int) -> None:
        if self._connection is None:
            wait_readable(wake, seconds=_IDLE_SECONDS)
            return
        try:
            messages = self._with_connection(lambda connection: connection.receive(wake))
        except Unavailable as error:
            log.warning("broker.connection_lost", reason=str(error), consequence="the next call connects anew")
            self.worker.post(self.on_disconnect, error)
        else:
            if messages:
                self.worker.post(self.on_messages, messages)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.drop()

    def _interrupt(self) -> None:
        if (connection := self._connection) is not None:
            connection.interrupt()

    def _on_close(self) -> None:
        if self._connection is not None:  # it stays set while it closes, so that a close that hangs can be interrupted
            with contextlib.suppress(Exception):
                self._connection.close()
            self._drop()


def refusal(error: Exception) -> type[Unavailable]:
    """Return the class that says what the caller does next."""
    match error:
        case amqp.exceptions.AMQPError():
            return amqp_refusal(error)
        case redis.RedisError():
            return redis_refusal(error)
    return Unavailable


def failure_reason(error: Exception) -> str:
    """Say in one line why the broker is not available; the text quotes no message and no URL."""
    match error:
        case PublishBlocked():
            text = str(error)
        case ModuleNotFoundError() if error.name:
            text = f"the Python module {error.name} is not installed; kombu's extra for it brings it, as in kombu[sqs]"
        case amqp.exceptions.ConsumerCancelled():
            text = "the queue was deleted while it was being consumed; it has to be declared again"
        case amqp.exceptions.AMQPError() if (reason := amqp_reason(error)) is not None:
            text = reason
        case redis.RedisError() if redis_code(error) not in _CONNECTIONS:
            text = f"Redis {redis_reason(error, 0)}"
        case TimeoutError() | redis.TimeoutError():
            text = "no answer in time"
        case _:
            text = os_error_reason(error) or f"the connection was lost ({type(error).__name__})"
    return text
