"""The tables of the embedded store, and the version by which a file tells what it is."""

from __future__ import annotations

import sqlite3

VERSION = 1
APPLICATION = 0x42524447
"""`PRAGMA application_id` of our files: the letters BRDG."""
SEQ_BITS = 50
"""A journal row's key is the source's number and the event's, side by side: one source's events lie together."""

SCHEMA = """
CREATE TABLE source (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  base INTEGER NOT NULL,
  committed INTEGER NOT NULL,
  confirmed INTEGER NOT NULL,
  first INTEGER NOT NULL,
  unroutable INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE cursor (
  source INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (source, name)
) WITHOUT ROWID;
-- A scope whose name is NULL is over; its statuses are deleted a few at a time.
CREATE TABLE scope (
  id INTEGER PRIMARY KEY, source INTEGER NOT NULL, name TEXT, expires REAL NOT NULL, UNIQUE (source, name)
);
CREATE INDEX scope_expires ON scope (expires);
-- `name` has no type: decimal names are kept as integers.
CREATE TABLE status (
  scope INTEGER NOT NULL, name NOT NULL, trail TEXT NOT NULL, PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE journal (
  key INTEGER PRIMARY KEY, id TEXT NOT NULL, topic TEXT NOT NULL, time INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE lease (
  name TEXT PRIMARY KEY, owner TEXT NOT NULL, token INTEGER NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE watch (source TEXT NOT NULL, resource TEXT NOT NULL, PRIMARY KEY (source, resource)) WITHOUT ROWID;
CREATE TABLE note (
  name TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE ping (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);

-- The books of one sink and one source.
CREATE TABLE book (
  id INTEGER PRIMARY KEY,
  sink TEXT NOT NULL,
  source TEXT NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  waiting INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0,
  discarded INTEGER NOT NULL DEFAULT 0,
  floor INTEGER NOT NULL DEFAULT 0,
  UNIQUE (sink, source)
);
-- `state`: 0 due at `due`, 1 held behind another one of its partition, 2 dead. `rank`: the order within a partition.
CREATE TABLE delivery (
  book INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  sink TEXT NOT NULL,
  state INTEGER NOT NULL,
  due REAL NOT NULL,
  lane TEXT,
  rank INTEGER,
  reason TEXT,
  tries TEXT,
  PRIMARY KEY (book, seq)
) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (sink, state, due);
CREATE INDEX delivery_lane ON delivery (sink, lane, rank) WHERE lane IS NOT NULL AND state < 2;
-- The settled marks: a bit for each number, in rows of 4096.
CREATE TABLE mark (key INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE discarded (book INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (book, seq)) WITHOUT ROWID;
-- Events that came without a position of ours. AUTOINCREMENT: a number that was given up is not given again.
CREATE TABLE adopted (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  sink TEXT NOT NULL,
  id TEXT NOT NULL,
  at REAL NOT NULL,
  topic TEXT NOT NULL,
  time INTEGER NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (sink, id)
);
CREATE INDEX adopted_at ON adopted (sink, at);
"""


class NewerFileError(Exception):
    """The file was written by a later version of the bridge; the text says so."""


class ForeignFileError(Exception):
    """The file is another program's database."""


ADDED = {
    "answer": """
CREATE {temporary} TABLE IF NOT EXISTS answer (
  book INTEGER NOT NULL, seq INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (book, seq)
) WITHOUT ROWID
""",
    "filtered": """
CREATE {temporary} TABLE IF NOT EXISTS filtered (book INTEGER PRIMARY KEY, number INTEGER NOT NULL)
""",
    "expectation": """
CREATE {temporary} TABLE IF NOT EXISTS expectation (
  scope INTEGER NOT NULL, name NOT NULL, source INTEGER NOT NULL, due INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (scope, name)
) WITHOUT ROWID
""",
    "expectation_due": """
CREATE {temporary} TABLE IF NOT EXISTS expectation_due (
  source INTEGER NOT NULL, due INTEGER NOT NULL, scope INTEGER NOT NULL, name NOT NULL,
  PRIMARY KEY (source, due, scope, name)
) WITHOUT ROWID
""",
    "hint": """
CREATE {temporary} TABLE IF NOT EXISTS hint (
  source TEXT NOT NULL, thing TEXT NOT NULL, since REAL NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (source, thing)
) WITHOUT ROWID
""",
    "expired": """
CREATE {temporary} TABLE IF NOT EXISTS expired (book INTEGER PRIMARY KEY, number INTEGER NOT NULL)
""",
    "unsent": """
CREATE {temporary} TABLE IF NOT EXISTS unsent (
  book INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL, mute TEXT NOT NULL,
  PRIMARY KEY (book, seq)
) WITHOUT ROWID
""",
    "totals": """
CREATE {temporary} TABLE IF NOT EXISTS totals (
  sink TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (sink, id)
) WITHOUT ROWID
""",
}
"""Tables that files of earlier releases lack: the answers of endpoints, how many events a sink's filter did not select,
the hints of pushes, what ended unsent, with its totals (the id is empty until they are opened), which resources wait
for a final status, and the same by their times. Older versions do not look at them."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file, or see that the file is one of ours; several processes may do so at once."""
    if _is_ours(connection):
        add_missing(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection):
            for statement in _statements():
                connection.execute(statement)
            add_missing(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def add_missing(connection: sqlite3.Connection, *, temporary: str = "") -> None:
    """Make the tables that a file of an earlier release lacks; with `temporary="TEMP"`, in memory alone."""
    named = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for name, statement in ADDED.items():
        if name not in named:
            connection.execute(statement.format(temporary=temporary))


def is_empty(connection: sqlite3.Connection) -> bool:
    """Say whether the file has no tables yet; raises as `prepare` does if it is not one of ours."""
    return not _is_ours(connection)


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Say whether the tables are there; False is an empty file."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application == APPLICATION:
        if version > VERSION:
            raise NewerFileError(f"has schema {version}, and this bridge knows {VERSION}: a later bridge wrote it")
        return True
    if version or application or connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise ForeignFileError("is another program's database; name another file")
    return False


def _statements() -> list[str]:
    plain = "\n".join(line for line in SCHEMA.splitlines() if not line.startswith("--"))
    return [statement for statement in plain.split(";") if statement.strip()]
