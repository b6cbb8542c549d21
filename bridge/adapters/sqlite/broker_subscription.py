"""One consumer of a queue of the embedded broker."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from bridge.adapters import message
from bridge.adapters.sqlite.broker_file import (
    BrokerFile,
    bind,
    writing,
)
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.broker import Received

T = TypeVar("T")

_READ_EVERY_SECONDS = 0.05


_MAX_LEASE_SECONDS = 120.0
"""Seconds; what seems to hold for longer is of a time before the clock was set back, and over."""


class FileThread(Protocol):
    """The thread of a broker's file, as its subscriptions use it."""

    def submit(self, job: Callable[[BrokerFile], T]) -> asyncio.Future[T]:
        """Queue a job for the thread."""
        ...

    async def call(self, job: Callable[[BrokerFile], T]) -> T:
        """Do a job in the thread and return its result; raises `Unavailable`."""
        ...


class SqliteSubscription:
    """A consumer of one queue. Those of its methods that take a connection belong to the worker's thread."""

    def __init__(
        self, broker: FileThread, clock: Clock, queue: str, tapped: tuple[str, ...] | None, prefetch: int
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._queue = queue
        self._tapped = tapped
        self._prefetch = prefetch
        self._owner = uuid.uuid4().hex
        self._waiting: deque[Received] = deque()
        self._unacked: set[int] = set()
        self._seen: int | None = None
        self._left = False
        self._missing = False
        self.news = asyncio.Event()

    def check_now(self) -> None:
        """Look for messages now. What this process's own connection changed, SQLite does not count as a change."""
        self._seen = None
        self.news.set()

    def check(self) -> None:
        """Raise `Unavailable` when the queue does not exist."""
        if self._missing:
            raise Unavailable(f"{self._queue}: there is no such queue; it has to be declared")

    async def get(self, limit: int, timeout: float) -> Sequence[Received]:  # noqa: ASYNC109 - as the protocol has it
        """Return up to `limit` messages; a call that is cancelled takes none."""
        deadline = self._clock.monotonic() + timeout
        while not self._waiting:
            self.news.clear()
            await self._fetch()
            self.check()
            left = deadline - self._clock.monotonic()
            if self._waiting or left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _READ_EVERY_SECONDS)):
                    await self.news.wait()
        messages = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._tapped is not None and messages:
            self._broker.submit(self._acknowledges(messages))
        return messages

    async def ack(self, received: Sequence[Received]) -> None:
        """Acknowledge; what another consumer has by now is left to that one."""
        if received and self._tapped is None:
            await self._broker.call(self._acknowledges(received))

    async def _fetch(self) -> None:
        claim = self._broker.submit(lambda file: self._claim(file.lax))
        claim.add_done_callback(self._stock)
        await asyncio.shield(claim)  # what was claimed is kept, even if this caller is gone by then

    def _stock(self, claim: asyncio.Future[list[Received]]) -> None:
        if not claim.cancelled() and claim.exception() is None:
            self._waiting.extend(claim.result())

    def _acknowledges(self, received: Sequence[Received]) -> Callable[[BrokerFile], None]:
        return lambda file: self._forget(file.lax, [delivered.tag for delivered in received])

    # for the thread

    def renew(self, db: sqlite3.Connection, until: float) -> None:
        """Live until then; what was dropped because nobody renewed it in time is made again."""
        if self._left:
            return
        with writing(db):
            if self._tapped is not None:
                db.execute(
                    "INSERT INTO queues (name, tap_until) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET tap_until = excluded.tap_until",
                    (self._queue, until),
                )
                bind(db, self._queue, self._tapped)
            row = db.execute("SELECT id FROM queues WHERE name = ?", (self._queue,)).fetchone()
            self._missing = row is None
            if row is None:
                return
            if not db.execute("UPDATE consumers SET until = ? WHERE id = ?", (until, self._owner)).rowcount:
                db.execute("INSERT INTO consumers (id, queue, until) VALUES (?, ?, ?)", (self._owner, row[0], until))
                self._seen = None
                self._unacked.clear()

    def leave(self, db: sqlite3.Connection) -> None:
        """Give back what was not acknowledged; of a tap, remove everything."""
        self._left = True
        with writing(db):
            db.execute("DELETE FROM consumers WHERE id = ?", (self._owner,))
            db.execute("DELETE FROM queues WHERE name = ? AND tap_until IS NOT NULL", (self._queue,))

    def _claim(self, db: sqlite3.Connection) -> list[Received]:
        room = self._prefetch - len(self._unacked)
        now = self._clock.epoch()
        if room <= 0 or not self._something_new(db, now):
            return []
        with writing(db):
            db.execute(
                "DELETE FROM consumers WHERE until NOT BETWEEN ? AND ? AND id <> ? "
                "AND queue = (SELECT id FROM queues WHERE name = ?)",
                (now, now + _MAX_LEASE_SECONDS, self._owner, self._queue),
            )
            rows = db.execute(
                "SELECT items.id, event, topic, time, position, bodies.body FROM items "
                "JOIN bodies ON bodies.id = items.body "
                "WHERE queue = (SELECT queue FROM consumers WHERE id = ?) AND owner IS NULL ORDER BY items.id LIMIT ?",
                (self._owner, room),
            ).fetchall()
            db.executemany("UPDATE items SET owner = ? WHERE id = ?", [(self._owner, row[0]) for row in rows])
        self._unacked.update(row[0] for row in rows)
        return [_received(*row) for row in rows]

    def _something_new(self, db: sqlite3.Connection, now: float) -> bool:
        """Look without a lock: at first whether anybody has written at all."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        (expired,) = db.execute(
            "SELECT EXISTS (SELECT 1 FROM consumers WHERE until NOT BETWEEN ? AND ? "
            "AND queue = (SELECT id FROM queues WHERE name = ?))",
            (now, now + _MAX_LEASE_SECONDS, self._queue),
        ).fetchone()
        if version == self._seen and not expired:
            return False
        (waits,) = db.execute(
            "SELECT EXISTS (SELECT 1 FROM items WHERE queue = (SELECT queue FROM consumers WHERE id = ?) "
            "AND owner IS NULL)",
            (self._owner,),
        ).fetchone()
        if not waits:
            self._seen = version
        return bool(waits or expired)

    def _forget(self, db: sqlite3.Connection, tags: Sequence[int]) -> None:
        with writing(db):
            db.executemany("DELETE FROM items WHERE id = ? AND owner = ?", [(tag, self._owner) for tag in tags])
        self._unacked.difference_update(tags)


def _received(tag: int, event: str, topic: str, moment: int, position: str, body: bytes) -> Received:
    return message.received(
        topic, body, {"message_id": event, "timestamp": moment}, {message.POSITION_HEADER: position}, tag
    )
