"""Rows of statuses and cursors in a file: the histories of a scope by the names of its resources."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection

from bridge.domain.errors import Conflict
from bridge.protocols.ledger import Commit, StatusChange

SLACK = 1.25
"""Scopes are kept a quarter longer than asked for, so that most reads need not write."""
_DIGITS = 18
"""What a 64-bit number surely holds."""


def write_statuses(db: Connection, source: int, commit: Commit, now: float) -> None:
    """Write the histories of a commit; raises `Conflict` if one is not what the commit expects."""
    until = now + commit.retention * SLACK
    scopes: dict[str, list[StatusChange]] = {}
    for change in commit.statuses:
        scopes.setdefault(change.key.scope, []).append(change)
    for name, changes in scopes.items():
        names = [stored_name(change.key.name) for change in changes]
        scope, histories = stored_histories(db, commit.source, name, names, now)
        for stored, change in zip(names, changes, strict=True):
            if histories.get(stored) != change.expected:
                raise Conflict(
                    f"source {commit.source}: a status changed between reading and writing; nothing was written"
                )
        if scope is None:
            scope = _new_scope(db, source, name, until)
        else:
            db.execute("UPDATE scope SET expires = ? WHERE id = ? AND expires < ?", (until, scope, until))
        db.executemany(
            "INSERT INTO status VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET trail = excluded.trail",
            [(scope, stored, change.history) for stored, change in zip(names, changes, strict=True)],
        )


def write_cursor(db: Connection, source: int, cursor: Mapping[str, str | None]) -> None:
    """Set the named entries of a cursor; None removes one."""
    for name, value in cursor.items():
        if value is None:
            db.execute("DELETE FROM cursor WHERE source = ? AND name = ?", (source, name))
        else:
            db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", (source, name, value))


def stored_name(name: str) -> str | int:
    """Return a resource's name as it is kept: decimal numbers take a few bytes only."""
    plain = name.isdecimal() and name.isascii() and len(name) <= _DIGITS and (name[0] != "0" or name == "0")
    return int(name) if plain else name


def stored_histories(
    db: Connection, source: str, scope: str, names: Sequence[str | int], now: float
) -> tuple[int | None, dict[str | int, str]]:
    """Return the number of a scope that is not over, and the histories of those names that it has."""
    row = db.execute(
        "SELECT scope.id FROM scope JOIN source ON source.id = scope.source "
        "WHERE source.name = ? AND scope.name = ? AND expires > ?",
        (source, scope, now),
    ).fetchone()
    if row is None:
        return None, {}
    rows = db.execute(
        "SELECT name, trail FROM status WHERE scope = ? AND name IN (SELECT value FROM json_each(?))",
        (row[0], json.dumps(names)),
    )
    return int(row[0]), dict(rows.fetchall())


def _new_scope(db: Connection, source: int, name: str, until: float) -> int:
    # One of this name that is over keeps its statuses until the sweep comes to it, and gives up its name now.
    db.execute("UPDATE scope SET name = NULL WHERE source = ? AND name = ?", (source, name))
    values = (source, name, until)
    return int(db.execute("INSERT INTO scope (source, name, expires) VALUES (?, ?, ?)", values).lastrowid or 0)
