"""The file of the embedded broker: its tables, and what is written to them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge.adapters import taps
from bridge.domain import topics as topic_patterns
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry, Position
from bridge.protocols.broker import Unpublishable

_BUSY_MS = 5_000
_ROW_BYTES = 4096
"""More than what id, topic and position add to an event's body in one row."""


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


class BrokerFile:
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


def check_readable(path: Path) -> None:
    """Read from the file without writing to it; one that is not there yet has nothing to read."""
    if path.exists():
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            db.close()


def mark_of(db: sqlite3.Connection) -> str | None:
    """Return the mark of the installation that uses the file; None if it has none."""
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'installation'").fetchone():
        return None  # of before there were marks
    row = db.execute("SELECT mark FROM installation").fetchone()
    return None if row is None else str(row[0])


def set_mark(db: sqlite3.Connection, mark: str, *, replace: bool) -> None:
    """Give the file a mark if it has none, or with `replace` in any case."""
    with writing(db):
        # Not a part of the schema's version: a bridge of before opens the file all the same.
        db.execute(
            "CREATE TABLE IF NOT EXISTS installation (id INTEGER PRIMARY KEY CHECK (id = 1), mark TEXT NOT NULL)"
        )
        if replace:
            db.execute("DELETE FROM installation")
        db.execute("INSERT OR IGNORE INTO installation VALUES (1, ?)", (mark,))


def declare(db: sqlite3.Connection, queue: str, topics: Sequence[str]) -> None:
    """Make a queue bound to `topics`; repeating it changes nothing."""
    with writing(db):
        db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))
        bind(db, queue, topics)


def bind(db: sqlite3.Connection, queue: str, topics: Sequence[str]) -> None:
    """Bind a queue to `topics`."""
    db.executemany(
        "INSERT OR IGNORE INTO bindings (queue, pattern) SELECT id, ? FROM queues WHERE name = ?",
        [(topic, queue) for topic in topics],
    )


def publish_entries(
    db: sqlite3.Connection, entries: Sequence[JournalEntry], now: float, queue: str | None = None
) -> int:
    """Write each body once, and an item for each queue that wants it, or for `queue`."""
    unpublishable = _over_limit(db, entries)
    if unpublishable:
        fitting = [entry for entry in entries if entry.position not in unpublishable]
        raise Unpublishable(unpublishable, publish_entries(db, fitting, now, queue))
    with writing(db):
        db.execute("DELETE FROM queues WHERE tap_until < ?", (now,))
        routes = _routes(db) if queue is None else {_queue_id(db, queue): ("#",)}
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
            items.extend((wants, number) for wants in queues)
        db.executemany("INSERT INTO bodies (id, event, topic, time, position, body) VALUES (?, ?, ?, ?, ?, ?)", bodies)
        db.executemany("INSERT INTO items (queue, body) VALUES (?, ?)", items)
        _trim_taps(db)
    return unroutable


def _over_limit(db: sqlite3.Connection, entries: Sequence[JournalEntry]) -> dict[Position, str]:
    """Return why the file can never hold some of these: a row is bounded."""
    limit = db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROW_BYTES
    return {
        entry.position: f"the event has {len(entry.event.body):,} bytes, and the embedded broker accepts {limit:,}"
        for entry in entries
        if len(entry.event.body) > limit
    }


def _trim_taps(db: sqlite3.Connection) -> None:
    for (tap,) in db.execute("SELECT id FROM queues WHERE tap_until IS NOT NULL").fetchall():
        db.execute(
            "DELETE FROM items WHERE queue = ? AND owner IS NULL AND id <= "
            "(SELECT id FROM items WHERE queue = ? AND owner IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (tap, tap, taps.MAX_MESSAGES),
        )


def _queue_id(db: sqlite3.Connection, queue: str) -> int:
    row = db.execute("SELECT id FROM queues WHERE name = ?", (queue,)).fetchone()
    if row is None:
        raise Unavailable(f"{queue}: there is no such queue; it has to be declared")
    return int(row[0])


def _routes(db: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    routes: dict[int, tuple[str, ...]] = {}
    for queue, pattern in db.execute("SELECT queue, pattern FROM bindings ORDER BY queue, pattern"):
        routes[queue] = (*routes.get(queue, ()), pattern)
    return routes


def depth_of(db: sqlite3.Connection, queue: str) -> int:
    """Return how many messages of a queue no consumer has claimed."""
    (count,) = db.execute(
        "SELECT count(*) FROM items WHERE queue = (SELECT id FROM queues WHERE name = ?) AND owner IS NULL", (queue,)
    ).fetchone()
    return int(count)


def has_queue(db: sqlite3.Connection, queue: str) -> bool:
    """Return whether a queue exists."""
    return db.execute("SELECT 1 FROM queues WHERE name = ?", (queue,)).fetchone() is not None


def check_writable(db: sqlite3.Connection) -> None:
    """Return if the file can be written to."""
    with writing(db):
        db.execute("DELETE FROM consumers WHERE id = ''")
