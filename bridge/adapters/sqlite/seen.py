"""Ids of handled events in a SQLite file, which the subscribers of one machine share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bridge.adapters.sqlite.broker_file import writing
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable

T = TypeVar("T")

_BUSY_MS = 5_000
_CALL_SECONDS = 30.0
_IDLE_SECONDS = 60.0
_TRIM_EVERY_EVENTS = 1_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
  queue TEXT NOT NULL, event TEXT NOT NULL, tries INTEGER NOT NULL, finished REAL, PRIMARY KEY (queue, event)
) WITHOUT ROWID
"""
_INDEX = "CREATE INDEX IF NOT EXISTS seen_finished ON seen (queue, finished)"
_COUNT_TRY = """
INSERT INTO seen (queue, event, tries) VALUES (?, ?, 1)
ON CONFLICT (queue, event) DO UPDATE SET tries = CASE WHEN finished IS NULL THEN tries + 1 ELSE 1 END, finished = NULL
WHERE finished IS NULL OR finished <= ? RETURNING tries
"""
_FINISH = """
INSERT INTO seen (queue, event, tries, finished) VALUES (?, ?, 0, ?)
ON CONFLICT (queue, event) DO UPDATE SET tries = 0, finished = excluded.finished
"""
_TRIM_IDS = """
DELETE FROM seen WHERE queue = ?1 AND finished <= (
  SELECT finished FROM seen WHERE queue = ?1 AND finished IS NOT NULL ORDER BY finished DESC LIMIT 1 OFFSET ?2
)
"""


class SqliteSeen:
    """`SeenEvents` of one queue in a file: the last `keep_ids` ids, each for `keep_seconds` at most.

    What was noted is kept if the process is killed; a power cut may take the last of it, and those events come again.
    Construction has no side effects. The windows are held roughly: the file is trimmed now and then.
    """

    def __init__(self, path: Path, queue: str, *, keep_ids: int, keep_seconds: float, clock: Clock) -> None:
        self._path = path
        self._queue = queue
        self._keep_ids = keep_ids
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._until_trim = 0
        self._worker = ThreadWorker("bridge-seen", rest=_idle, end=self._drop)

    async def begin(self, event_id: str, finished: str | None = None) -> int:
        """Note that `finished` is done, then count a try of `event_id`."""
        return await self._call(lambda db: self._begin(db, event_id, finished))

    async def finish(self, event_id: str) -> None:
        """Note that an event is done."""
        await self._call(lambda db: self._finish(db, event_id))

    async def forget_try(self, event_id: str) -> None:
        """Take back one try."""
        await self._call(
            lambda db: db.execute(
                "UPDATE seen SET tries = max(0, tries - 1) WHERE queue = ? AND event = ? AND finished IS NULL",
                (self._queue, event_id),
            )
        )

    async def close(self) -> None:
        """End the thread and close the file."""
        await self._worker.close()

    async def _call(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._worker.call(lambda: self._with_file(job), within=_CALL_SECONDS, what=str(self._path))

    # for the thread

    def _with_file(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = self._open()
            with writing(self._db) as db:
                return job(db)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            text = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"{self._path}: {text}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_SCHEMA)
            db.execute(_INDEX)
        except BaseException:
            db.close()
            raise
        return db

    def _begin(self, db: sqlite3.Connection, event_id: str, finished: str | None) -> int:
        if finished is not None:
            self._finish(db, finished)
        row = db.execute(_COUNT_TRY, (self._queue, event_id, self._oldest())).fetchone()
        return int(row[0]) if row is not None else 0

    def _finish(self, db: sqlite3.Connection, event_id: str) -> None:
        db.execute(_FINISH, (self._queue, event_id, self._clock.epoch()))
        self._until_trim -= 1
        if self._until_trim <= 0:
            self._until_trim = _TRIM_EVERY_EVENTS
            db.execute("DELETE FROM seen WHERE queue = ? AND finished <= ?", (self._queue, self._oldest()))
            db.execute(_TRIM_IDS, (self._queue, self._keep_ids))

    def _oldest(self) -> float:
        return self._clock.epoch() - self._keep_seconds

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _idle(wake: int) -> None:
    wait_readable(wake, seconds=_IDLE_SECONDS)
