"""The mark of an installation in a store's SQLite file: two notes, looked at whenever the file is opened."""

from __future__ import annotations

from functools import partial
from sqlite3 import Connection

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.domain.installation import Mark, other_store
from bridge.domain.namespace import Namespace

_NAME, _KEY = "installation", "mark"


class SqliteMark:
    """The mark in one file."""

    def __init__(self, file: SqliteDatabase) -> None:
        self._file = file

    async def read(self) -> Mark | None:
        """Return the mark; None if there is none."""
        return await self._file.reader.do(_read)

    async def claim(self, mark: Mark) -> Mark:
        """Return the mark that the file has, `mark` if it had none, and expect it whenever the file is opened."""

        def work(db: Connection) -> Mark:
            db.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (_NAME, _KEY, str(mark)))
            return _read(db) or mark

        kept = await self._file.writer.do(work)
        self._file.check = partial(self._check, kept)
        return kept

    async def write(self, mark: Mark) -> None:
        """Have the file keep this mark instead of the one that it has."""
        row = (_NAME, _KEY, str(mark))
        await self._file.writer.do(lambda db: db.execute("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", row))

    def _check(self, own: Mark, db: Connection) -> None:
        """Raise `OtherInstallation` if the file that was opened is another installation's; a new one gets the mark."""
        present = _read(db)
        if present is None:
            db.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (_NAME, _KEY, str(own)))
        elif present != own:
            raise other_store(str(self._file.path), present, Namespace(own.namespace))


def _read(db: Connection) -> Mark | None:
    row = db.execute("SELECT value FROM note WHERE name = ? AND key = ?", (_NAME, _KEY)).fetchone()
    return None if row is None else Mark.parse(row[0])
