"""The hints of pushes in SQLite: one row for each thing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.domain.clock import Clock
from bridge.protocols.hints import Hint

_MICROSECONDS = 1_000_000
"""Microseconds in a second."""
_COUNT = "SELECT count(*) FROM hint WHERE source = ?"
_ADD = "INSERT INTO hint VALUES (?, ?, ?, ?) ON CONFLICT (source, thing) DO UPDATE SET version = excluded.version"
_RENEW = "UPDATE hint SET since = version / 1000000.0 WHERE source = ? AND thing = ?"


class SqliteHints:
    """`HintStore` in one SQLite file."""

    def __init__(self, file: SqliteDatabase, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    async def add_hints(self, source: str, things: Collection[str], limit: int) -> bool:
        """Keep a hint for each of the things; False, and nothing is kept, if there would be more than `limit`."""
        now = self._clock.epoch()

        def work(db: Connection) -> bool:
            count = db.execute(_COUNT, (source,)).fetchone()[0]
            known = "SELECT 1 FROM hint WHERE source = ? AND thing = ?"
            new = [thing for thing in set(things) if db.execute(known, (source, thing)).fetchone() is None]
            if new and count + len(new) > limit:
                return False
            last = db.execute("SELECT max(version) FROM hint WHERE source = ?", (source,)).fetchone()[0]
            version = max((last or 0) + 1, round(now * _MICROSECONDS))
            db.executemany(_ADD, [(source, thing, version / _MICROSECONDS, version) for thing in things])
            return True

        return await self._file.writer.do(work)

    async def hints(self, source: str, limit: int) -> Sequence[Hint]:
        """Return up to `limit` hints, the oldest first; writes nothing."""
        query = "SELECT thing, since, version FROM hint WHERE source = ? ORDER BY since, thing LIMIT ?"
        rows = await self._file.reader.do(lambda db: db.execute(query, (source, limit)).fetchall())
        return [Hint(*row) for row in rows]

    async def count_hints(self, source: str) -> int:
        """Return how many things have a hint; writes nothing."""
        return int(await self._file.reader.do(lambda db: db.execute(_COUNT, (source,)).fetchone()[0]))

    async def drop_hints(self, source: str, hints: Sequence[Hint]) -> None:
        """Forget hints, apart from those that had a further push since they were read."""
        if not hints:
            return

        def work(db: Connection) -> None:
            for hint in hints:
                gone = db.execute(
                    "DELETE FROM hint WHERE source = ? AND thing = ? AND version = ?",
                    (source, hint.thing, hint.version),
                )
                if not gone.rowcount:
                    db.execute(_RENEW, (source, hint.thing))

        await self._file.writer.do(work)
