"""An inbox over a connection's thread: it keeps the messages that arrived until they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from bridge.adapters.kombu.connection import KombuConnection
from bridge.adapters.kombu.connection_thread import ConnectionThread
from bridge.domain.errors import Unavailable
from bridge.protocols.broker import Received


class KombuSubscription:
    """An inbox. When its connection breaks, the next `get` raises, and the one after that connects anew."""

    def __init__(
        self, thread: ConnectionThread, begin: Callable[[KombuConnection], None], *, acks_itself: bool, within: float
    ) -> None:
        self._thread = thread
        self._begin = begin
        self._acks_itself = acks_itself
        self._within = within
        self._waiting: deque[Received] = deque()
        self._news = asyncio.Event()
        self._failure: Unavailable | None = None
        self._connected = False
        self._connecting: asyncio.Future[None] | None = None
        thread.on_messages = self._on_messages
        thread.on_disconnect = self._on_disconnect

    async def connect(self) -> None:
        """Begin to consume. If the caller is cancelled, the beginning goes on for the next caller."""
        if self._connecting is None:
            self._waiting.clear()
            self._failure = None
            self._connected = True  # set first: the connection may break before we learn that it was made
            self._connecting = asyncio.ensure_future(self._thread.call(self._begin, within=self._within))
            self._connecting.add_done_callback(self._on_begun)
        await asyncio.shield(self._connecting)

    def _on_begun(self, connecting: asyncio.Future[None]) -> None:
        self._connecting = None
        if connecting.cancelled() or connecting.exception() is not None:
            self._connected = False

    def _on_messages(self, messages: list[Received]) -> None:
        """Keep what the thread brought; the prefetch limit bounds it, because it is unacknowledged."""
        self._waiting.extend(messages)
        self._news.set()

    def _on_disconnect(self, error: Unavailable) -> None:
        self._connected = False
        self._failure = error
        self._waiting.clear()  # the broker has put them back into the queue
        self._news.set()

    async def get(self, limit: int, timeout: float) -> Sequence[Received]:  # noqa: ASYNC109 - as the protocol has it
        """Return up to `limit` messages; a call that is cancelled removes none."""
        if self._connecting is not None or (not self._connected and self._failure is None):
            await self.connect()
        if not self._waiting and self._failure is None:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        messages = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._acks_itself and messages:
            self._thread.submit(partial(_ack, messages))
        return messages

    async def ack(self, received: Sequence[Received]) -> None:
        """Acknowledge; the messages of a lost connection are left out, because they come again."""
        if received and self._connected and not self._acks_itself:
            try:
                await self._thread.call(partial(_ack, received), within=self._within)
            except Unavailable:
                self._connected = False
                self._waiting.clear()
                raise


def _ack(received: Sequence[Received], connection: KombuConnection) -> None:
    connection.ack([message.tag for message in received])
