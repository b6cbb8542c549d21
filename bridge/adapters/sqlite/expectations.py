"""Which resources wait for a final status, in SQLite: a row for each, and one that finds it by its time."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.status_rows import stored_name
from bridge.protocols.ledger import Commit, Expectation, Key

_SCOPE = "SELECT id FROM scope WHERE source = ? AND name = ?"
_ADD = (
    "INSERT INTO expectation VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, name) DO UPDATE SET seq = excluded.seq "
    "RETURNING due"
)
_INDEX = "INSERT OR IGNORE INTO expectation_due VALUES (?, ?, ?, ?)"
_REMOVE = "DELETE FROM expectation WHERE scope = ? AND name = ? RETURNING due"
_REMOVE_INDEX = "DELETE FROM expectation_due WHERE source = ? AND due = ? AND scope = ? AND name = ?"
_DUE = (
    "SELECT scope.name, d.name, d.due, e.seq FROM expectation_due AS d "
    "JOIN expectation AS e ON e.scope = d.scope AND e.name = d.name JOIN scope ON scope.id = d.scope "
    "WHERE d.source = (SELECT id FROM source WHERE name = ?) AND d.due <= ? AND scope.name IS NOT NULL "
    "ORDER BY d.due LIMIT ?"
)
_NEXT = "SELECT min(due) FROM expectation_due WHERE source = (SELECT id FROM source WHERE name = ?)"
_COUNT = "SELECT count(*) FROM expectation_due WHERE source = (SELECT id FROM source WHERE name = ?)"
_FORGET_INDEX = (
    "DELETE FROM expectation_due WHERE (source, due, scope, name) IN "
    "(SELECT source, due, scope, name FROM expectation WHERE scope = ?)"
)
_FORGET_ROWS = (
    "DELETE FROM expectation WHERE scope IN "
    "(SELECT scope.id FROM scope JOIN source ON source.id = scope.source WHERE source.name = ?)"
)
_FORGET_SCOPE = (
    _FORGET_INDEX,
    "DELETE FROM expectation WHERE scope = ?",
)
FORGET_SOURCE = (
    _FORGET_ROWS,
    "DELETE FROM expectation_due WHERE source = (SELECT id FROM source WHERE name = ?)",
)
"""Statements that forget all expectations of a source, by its name; for as long as its scopes have their rows."""


def write_expectations(db: Connection, source: int, commit: Commit, last: int) -> None:
    """Write the expectations of a commit whose last event has the number `last`."""
    scopes: dict[str, int | None] = {}

    def scope_of(name: str) -> int | None:
        if name not in scopes:
            row = db.execute(_SCOPE, (source, name)).fetchone()
            scopes[name] = None if row is None else int(row[0])
        return scopes[name]

    for key in commit.met:
        _remove(db, source, scope_of(key.scope), stored_name(key.name))
    for key, due, seq in commit.expected:
        scope = scope_of(key.scope)
        if scope is not None:
            name = stored_name(key.name)
            number = seq if seq >= 0 else last + 1 + seq
            (kept,) = db.execute(_ADD, (scope, name, source, due, number)).fetchone()
            db.execute(_INDEX, (source, kept, scope, name))


def _remove(db: Connection, source: int, scope: int | None, name: str | int) -> None:
    if scope is None:
        return
    for (due,) in db.execute(_REMOVE, (scope, name)).fetchall():
        db.execute(_REMOVE_INDEX, (source, due, scope, name))


def forget_scope(db: Connection, scope: int) -> None:
    """Forget the expectations of a scope that is over."""
    for statement in _FORGET_SCOPE:
        db.execute(statement, (scope,))


class SqliteExpectations:
    """The part of a ledger that tells which resources wait for a final status."""

    def __init__(self, file: SqliteDatabase) -> None:
        self._file = file

    async def expectations(self, source: str, upto: float, limit: int) -> Sequence[Expectation]:
        """Return up to `limit` expectations that are due at `upto` or before."""
        rows = await self._file.reader.do(lambda db: db.execute(_DUE, (source, int(upto), limit)).fetchall())
        return [Expectation(Key(scope, str(name)), due, seq) for scope, name, due, seq in rows]

    async def next_expectation(self, source: str) -> float | None:
        """Return a time before which no expectation is due, None if there is none."""
        due = await self._file.reader.do(lambda db: db.execute(_NEXT, (source,)).fetchone()[0])
        return None if due is None else float(due)

    async def count_expectations(self, source: str) -> int:
        """Return how many resources wait for a final status."""
        return int(await self._file.reader.do(lambda db: db.execute(_COUNT, (source,)).fetchone()[0]))
