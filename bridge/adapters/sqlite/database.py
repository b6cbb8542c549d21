"""One SQLite file and two threads: a writer that commits what queued up as one, and a reader."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from bridge.adapters.sqlite.schema import ForeignFileError, NewerFileError, add_missing, is_empty, prepare
from bridge.domain.errors import Unavailable

T = TypeVar("T")
_GROUP = 512
"""Writes that share one commit, at most: one that is slow should not hold up too many."""
_REASONS = {
    sqlite3.SQLITE_BUSY: "is locked by another process for too long",
    sqlite3.SQLITE_LOCKED: "is locked by another process for too long",
    sqlite3.SQLITE_FULL: "is full, or its disk is; free some space",
    sqlite3.SQLITE_READONLY: "cannot be written to; look at its permissions",
    sqlite3.SQLITE_PERM: "cannot be written to; look at its permissions",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; look at the folder and its permissions",
    sqlite3.SQLITE_CORRUPT: "is damaged; put it aside or restore a copy",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database; name another file",
    sqlite3.SQLITE_IOERR: "cannot be read or written; look at its disk",
}


@dataclass(slots=True)
class _Job:
    """One piece of work and who waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    waiting: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work and keep what came of it; a failure of the file itself is raised, for it concerns all jobs."""
        try:
            result = self.work(connection)
        except Exception as error:  # noqa: BLE001 - it is raised where the job came from
            if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                raise
            self.error = error
        else:
            # A cursor resets its statement when it is freed. On another thread this one might be using it by then.
            self.result = None if isinstance(result, sqlite3.Cursor) else result

    def answer(self) -> None:
        """Wake the waiting task; called on the thread. Its loop may be gone by now."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        if self.waiting.done():
            return
        if self.error is None:
            self.waiting.set_result(self.result)
        else:
            self.waiting.set_exception(self.error)


class _Worker:
    """A thread with a connection of its own; it opens the file at the first job, and again after a failure."""

    def __init__(self, file: SqliteDatabase, name: str) -> None:
        self._file = file
        self._name = name
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False
        self._threads: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the thread; what it raises is raised here."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), loop)
        with self._lock:
            if self._closed:
                raise Unavailable(f"the store {self._file.path} was closed")
            self._jobs.append(job)
            if not self._busy:
                self._busy = True
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{self._name}")
                self._threads.submit(self._drain)
        return cast("T", await job.waiting)

    def _drain(self) -> None:
        while jobs := self._next():
            try:
                self._run(self._open(), jobs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting tasks have to be told
                self._fail(error, jobs)
            for job in jobs:
                job.answer()

    def _next(self) -> list[_Job]:
        with self._lock:
            jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _GROUP))]
            self._busy = bool(jobs)
            return jobs

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect()
        return self._connection

    def _fail(self, error: Exception, jobs: list[_Job]) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            self._drop()
        refusal = self._file.refusal(error)
        for job in jobs:
            job.result, job.error = None, refusal

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Do all jobs; an exception fails them all, and the file is opened anew."""
        raise NotImplementedError

    async def close(self) -> None:
        """Finish what was queued, close the connection and end the thread; later jobs are refused."""
        with self._lock:
            threads, self._threads, self._closed = self._threads, None, True
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(threads, self._drop)
            threads.shutdown(wait=False)


class _Writer(_Worker):
    """Commits all that queued up in one transaction: one wait for the disk instead of many.

    A job that refuses (a conflict, a lost lease) takes back its own part alone; a disk that fails, fails them all.
    """

    def _run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if job.waiting.cancelled():
                continue
            connection.execute("SAVEPOINT job")
            job.run(connection)
            if job.error is not None:
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")


class _Reader(_Worker):
    """Reads while the writer writes; all that queued up sees one unchanging state of the file."""

    def _run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        connection.execute("BEGIN")
        for job in jobs:
            job.run(connection)
        connection.execute("COMMIT")


class SqliteDatabase:
    """A database file in WAL mode, shared with other processes; `Unavailable` names it when it cannot be used.

    With `read_only`, nothing is written or made: a file that is not there yet is read as an empty one.
    """

    def __init__(self, path: Path, busy_timeout: float, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._busy_timeout = busy_timeout
        self.check: Callable[[sqlite3.Connection], None] = lambda _: None
        """Called with each new connection, on its thread; what it raises is what callers are told."""
        self.writer = _Writer(self, "writer")
        self.reader = _Reader(self, "reader")

    def connect(self) -> sqlite3.Connection:
        """Open the file, making it and its folder if need be; nobody else may read it, for it holds phone numbers."""
        if self.path.is_dir():
            raise IsADirectoryError
        if self._read_only:
            return self._reading()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Only a file that is not there yet is opened by us: closing it would end this process's locks on it (fcntl).
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            prepare(connection)
            self.check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reading(self) -> sqlite3.Connection:
        if not self.path.exists():
            return _empty()
        try:
            return self._opened_for_reading("mode=ro")
        except sqlite3.OperationalError:
            # To read a file in WAL mode, SQLite has to write next to it, unless nobody has it open.
            if self.path.with_name(f"{self.path.name}-wal").exists():
                raise
            return self._opened_for_reading("mode=ro&immutable=1")

    def _opened_for_reading(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=self._busy_timeout, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            nothing_there = is_empty(connection)
        except BaseException:
            connection.close()
            raise
        if nothing_there:
            connection.close()
            return _empty()
        add_missing(connection, temporary="TEMP")  # in memory: the file is not ours to change
        return connection

    def refusal(self, error: Exception) -> Exception:
        """Return what callers are told of a failure; what is no failure of the file stays what it is."""
        match error:
            case NewerFileError() | ForeignFileError():
                return Unavailable(f"the store {self.path} {error}")
            case IsADirectoryError():
                return Unavailable(f"the store {self.path} is a directory; name a file in it")
            case OSError():
                return Unavailable(f"the store {self.path} cannot be opened: {error.strerror}")
            case sqlite3.Error():
                code = getattr(error, "sqlite_errorcode", None)
                known = _REASONS.get(code & 0xFF) if isinstance(code, int) else None
                return Unavailable(f"the store {self.path} {known or f'failed ({type(error).__name__}: {error})'}")
            case _:
                return error

    async def close(self) -> None:
        """Finish what was queued and close the file."""
        await self.writer.close()
        await self.reader.close()


def _empty() -> sqlite3.Connection:
    """Return what a file is read as that is not there yet."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    prepare(connection)
    connection.execute("PRAGMA query_only = 1")
    return connection
