"""The embedded broker: queues, bindings and messages in one SQLite file that several processes may share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from bridge.adapters import message
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain import topics as topic_patterns
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, Unavailable
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Inbox, Received

T = TypeVar("T")
log = structlog.get_logger()

TAP_PREFIX = "bridge.tap."
TAP_KEEPS = 10_000
"""Messages that wait for a slow tap; then the oldest are dropped."""

_READ_EVERY_SECONDS = 0.05
_BUSY_MS = 5_000
_TAP_PREFETCH_MESSAGES = 1000
_CALL_SECONDS = 30.0
_LONGEST_LEASE = 120.0
"""Seconds; what seems to hold for longer is of a time before the clock was set back, and over."""
_SCHEMA_VERSION = 1
# Deleting a queue deletes its items; deleting a consumer frees what it had claimed; the last item takes the body along.
_SCHEMA = """
CREATE TABLE queues (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, tap_until REAL);
CREATE TABLE bindings (
  queue INTEGER NOT NULL REFERENCES queues ON DELETE CASCADE, pattern TEXT NOT NULL, PRIMARY KEY (queue, pattern)
) WITHOUT ROWID;
CREATE TABLE consumers (
  id TEXT PRIMARY KEY, queue INTEGER NOT NULL REFERENCES queues ON DELETE CASCADE, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX consumers_queue ON consumers (queue);
CREATE TABLE bodies (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, topic TEXT NOT NULL, time INTEGER NOT NULL,
  position TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE items (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL REFERENCES queues ON DELETE CASCADE,
  body INTEGER NOT NULL REFERENCES bodies, owner TEXT REFERENCES consumers ON DELETE SET NULL
);
CREATE INDEX items_next ON items (queue, owner, id);
CREATE INDEX items_body ON items (body);
CREATE INDEX items_owner ON items (owner);
CREATE TRIGGER items_last AFTER DELETE ON items WHEN NOT EXISTS (SELECT 1 FROM items WHERE body = OLD.body)
BEGIN DELETE FROM bodies WHERE id = OLD.body; END;
"""


class _File:
    """The two connections to the file; all methods belong to the worker's thread.

    Publishing is synced to the disk before it returns. Claims and acknowledgements are not: a power cut that takes one
    back makes a message come again, which is allowed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Events hold phone numbers: the file is nobody else's to read. SQLite gives its side files the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.durable = self._connect("FULL")
        try:
            self.lax = self._connect("NORMAL")
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self) -> None:
        with writing(self.durable) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _statements(_SCHEMA):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise Unavailable(f"{self.path}: made by another version of the bridge; use that one, or another file")

    def interrupt(self) -> None:
        """Stop a statement that runs; for another thread."""
        for db in (self.durable, self.lax):
            with contextlib.suppress(sqlite3.Error):
                db.interrupt()

    def close(self) -> None:
        """Close both connections."""
        for db in (getattr(self, "lax", None), self.durable):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Hold the write lock from the start, commit at the end; all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


class SqliteBroker:
    """A broker in a SQLite file, for one machine. Construction has no side effects.

    `publish` is one transaction, synced to the disk. The messages of a consumer whose process died come back after
    `lease` seconds. Queues are shared by all processes that open the file.
    """

    def __init__(self, path: Path, *, clock: Clock, lease: float = 10.0) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lease = lease
        self._file: _File | None = None
        self._subscriptions: set[_Subscription] = set()
        self._renewed = 0.0
        self._worker = ThreadWorker(
            "bridge-embedded-broker", rest=self._rest, end=self._drop, interrupt=self._interrupt
        )

    async def open(self) -> None:
        """Open the file, and make it if it is not there."""
        await self.call(lambda _file: None)

    async def close(self) -> None:
        """End the thread and close the file."""
        await self._worker.close()

    async def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a queue bound to `topics`; repeating it changes nothing."""
        await self.call(lambda file: _declare(file.durable, queue, topics))

    async def publish(self, entries: Sequence[JournalEntry]) -> int:
        """Return when the file holds them all, in every queue that wants them; the number that no queue wanted."""
        if not entries:
            return 0
        now = self._clock.epoch()
        unroutable = await self.call(lambda file: _publish(file.durable, entries, now))
        self.wake()
        return unroutable

    @asynccontextmanager
    async def inbox(self, queue: str, *, prefetch: int = 256) -> AsyncIterator[Inbox]:
        """Consume a queue that was declared."""
        async with self._subscribed(_Subscription(self, self._clock, queue, None, prefetch)) as inbox:
            yield inbox

    @asynccontextmanager
    async def tap(self, topics: Sequence[str]) -> AsyncIterator[Inbox]:
        """Consume what is published from now on; its messages need no acknowledgement."""
        queue = f"{TAP_PREFIX}{uuid.uuid4().hex}"
        async with self._subscribed(
            _Subscription(self, self._clock, queue, tuple(topics), _TAP_PREFETCH_MESSAGES)
        ) as inbox:
            yield inbox

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 for one that does not exist."""
        return await self.call(lambda file: _depth(file.lax, queue))

    async def ping(self) -> None:
        """Return if the file can be written to."""
        await self.call(lambda file: _ping(file.lax))

    # shared with subscriptions

    def submit(self, job: Callable[[_File], T]) -> asyncio.Future[T]:
        """Do `job` in the thread."""
        return self._worker.submit(lambda: self._with_file(job))

    async def call(self, job: Callable[[_File], T]) -> T:
        """Do `job` in the thread and return its result; raises `Unavailable`."""
        return await self._worker.call(lambda: self._with_file(job), within=_CALL_SECONDS, what=str(self._path))

    def wake(self) -> None:
        """Have this process's subscriptions look again."""
        for subscription in self._subscriptions:
            subscription.look_again()

    @asynccontextmanager
    async def _subscribed(self, subscription: _Subscription) -> AsyncIterator[Inbox]:
        await self.call(lambda file: subscription.renew(file.lax, self._until()))
        subscription.check()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            with contextlib.suppress(Unavailable):  # what cannot be given back now comes back when the lease ends
                await asyncio.shield(self.call(lambda file: subscription.leave(file.lax)))
            self.wake()

    def _until(self) -> float:
        return self._clock.epoch() + self._lease

    # for the thread

    def _with_file(self, job: Callable[[_File], T]) -> T:
        """Do `job`; this is the one place where SQLite's errors become ours."""
        try:
            if self._file is None:
                self._file = _File(self._path)
            self._renew()
            return job(self._file)
        except BridgeError:
            raise
        except (sqlite3.Error, OSError) as error:
            self._drop()
            text = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"{self._path}: {text}") from error

    def _renew(self) -> None:
        """Prolong the leases of this process's consumers, whatever the event loop is busy with."""
        now = self._clock.monotonic()
        if self._file is None or now - self._renewed < self._lease / 3:
            return
        self._renewed = now
        for subscription in tuple(self._subscriptions):
            subscription.renew(self._file.lax, self._until())

    def _rest(self, wake: int) -> None:
        wait_readable(wake, seconds=self._lease / 3)
        if self._file is not None and self._subscriptions:
            try:
                self._with_file(lambda _file: None)
            except Unavailable as error:
                log.warning("broker.lease_not_renewed", reason=str(error), consequence="messages may be taken twice")

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _interrupt(self) -> None:
        if (file := self._file) is not None:
            file.interrupt()


def _declare(db: sqlite3.Connection, queue: str, topics: Sequence[str]) -> None:
    with writing(db):
        db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))
        _bind(db, queue, topics)


def _bind(db: sqlite3.Connection, queue: str, topics: Sequence[str]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO bindings (queue, pattern) SELECT id, ? FROM queues WHERE name = ?",
        [(topic, queue) for topic in topics],
    )


def _publish(db: sqlite3.Connection, entries: Sequence[JournalEntry], now: float) -> int:
    """Write each body once, and an item for each queue that wants it."""
    with writing(db):
        db.execute("DELETE FROM queues WHERE tap_until < ?", (now,))
        routes = _routes(db)
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'bodies'").fetchone()
        number = row[0] if row else 0
        wanted: dict[str, list[int]] = {}
        bodies: list[tuple[object, ...]] = []
        items: list[tuple[int, int]] = []
        unroutable = 0
        for entry in entries:
            event = entry.event
            queues = wanted.get(event.topic)
            if queues is None:
                queues = wanted[event.topic] = [
                    queue for queue, patterns in routes.items() if topic_patterns.matches(patterns, event.topic)
                ]
            if not queues:
                unroutable += 1
                continue
            number += 1
            bodies.append((number, event.id, event.topic, event.time, str(entry.position), event.body))
            items.extend((queue, number) for queue in queues)
        db.executemany("INSERT INTO bodies (id, event, topic, time, position, body) VALUES (?, ?, ?, ?, ?, ?)", bodies)
        db.executemany("INSERT INTO items (queue, body) VALUES (?, ?)", items)
        _trim_taps(db)
    return unroutable


def _trim_taps(db: sqlite3.Connection) -> None:
    for (tap,) in db.execute("SELECT id FROM queues WHERE tap_until IS NOT NULL").fetchall():
        db.execute(
            "DELETE FROM items WHERE queue = ? AND owner IS NULL AND id <= "
            "(SELECT id FROM items WHERE queue = ? AND owner IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (tap, tap, TAP_KEEPS),
        )


def _routes(db: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    routes: dict[int, tuple[str, ...]] = {}
    for queue, pattern in db.execute("SELECT queue, pattern FROM bindings ORDER BY queue, pattern"):
        routes[queue] = (*routes.get(queue, ()), pattern)
    return routes


def _depth(db: sqlite3.Connection, queue: str) -> int:
    (count,) = db.execute(
        "SELECT count(*) FROM items WHERE queue = (SELECT id FROM queues WHERE name = ?) AND owner IS NULL", (queue,)
    ).fetchone()
    return int(count)


def _ping(db: sqlite3.Connection) -> None:
    with writing(db):
        db.execute("DELETE FROM consumers WHERE id = ''")


class _Subscription:
    """A consumer of one queue. Those of its methods that take a connection belong to the worker's thread."""

    def __init__(
        self, broker: SqliteBroker, clock: Clock, queue: str, tapped: tuple[str, ...] | None, prefetch: int
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

    def look_again(self) -> None:
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
        taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._tapped is not None and taken:
            self._broker.submit(self._acknowledges(taken))
        return taken

    async def ack(self, received: Sequence[Received]) -> None:
        """Acknowledge; what has gone to another consumer meanwhile is left to that one."""
        if received and self._tapped is None:
            await self._broker.call(self._acknowledges(received))

    async def _fetch(self) -> None:
        claim = self._broker.submit(lambda file: self._claim(file.lax))
        claim.add_done_callback(self._stock)
        await asyncio.shield(claim)  # what was claimed is kept, even if this caller is gone by then

    def _stock(self, claim: asyncio.Future[list[Received]]) -> None:
        if not claim.cancelled() and claim.exception() is None:
            self._waiting.extend(claim.result())

    def _acknowledges(self, received: Sequence[Received]) -> Callable[[_File], None]:
        return lambda file: self._forget(file.lax, [each.tag for each in received])

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
                _bind(db, self._queue, self._tapped)
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
                (now, now + _LONGEST_LEASE, self._owner, self._queue),
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
            (now, now + _LONGEST_LEASE, self._queue),
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
