"""The ledger in SQLite: statuses by scope, the journal in the order of its keys, each commit one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.expectations import FORGET_SOURCE, SqliteExpectations, forget_scope, write_expectations
from bridge.adapters.sqlite.journal_rows import append, foreign_events, journalled, key_base, trim_journal
from bridge.adapters.sqlite.schema import SEQ_BITS
from bridge.adapters.sqlite.status_rows import SLACK, stored_histories, stored_name, write_cursor, write_statuses
from bridge.domain.clock import Clock
from bridge.domain.errors import LeaseLost
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.protocols.ledger import Commit, JournalState, Key, Lease, new_base

_SCOPES_REMEMBERED = 100_000
_SWEEP_EVERY = 1.0
"""Seconds between two looks for scopes that are over."""
_SWEEP_STEP = 500
"""Statuses deleted at once: a commit should not wait for more."""
_LONGEST_LEASE = 120.0
"""Seconds; one that seems to hold for longer, and for twice its time, is of a time before the clock was set back."""


_RESET = (
    *FORGET_SOURCE,
    "UPDATE scope SET name = NULL, expires = 0 WHERE source = (SELECT id FROM source WHERE name = ?)",
    "DELETE FROM watch WHERE source = ?",
    "DELETE FROM hint WHERE source = ?",
    "DELETE FROM cursor WHERE source = (SELECT id FROM source WHERE name = ?)",
)


class SqliteLedger(SqliteExpectations):
    """`Ledger` in one SQLite file, which several processes may share."""

    def __init__(self, file: SqliteDatabase, clock: Clock, *, begin: int | None = None) -> None:
        SqliteExpectations.__init__(self, file)
        self._clock = clock
        self._begin = begin
        self._kept: dict[tuple[str, str], float] = {}
        self._swept = clock.monotonic()

    # leases

    async def acquire(self, name: str, owner: str, ttl: float) -> Lease | None:
        """Take the lease if it is free or already `owner`'s; the token is new unless it was already held."""

        def work(db: Connection) -> int | None:
            now = self._clock.epoch()
            row = db.execute("SELECT owner, token, expires FROM lease WHERE name = ?", (name,)).fetchone()
            held = row is not None and _holds(row[2], now, ttl)
            if held and row[0] != owner:
                return None
            token = int(row[1]) if held else (row[1] if row else 0) + 1
            db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (name, owner, token, now + ttl))
            return token

        token = await self._file.writer.do(work)
        return None if token is None else Lease(name, owner, token, ttl)

    async def renew(self, lease: Lease) -> None:
        """Hold the lease for another `ttl`; raises `LeaseLost` if it has ended or somebody else has it."""

        def work(db: Connection) -> None:
            self._check(db, lease)
            db.execute("UPDATE lease SET expires = ? WHERE name = ?", (self._clock.epoch() + lease.ttl, lease.name))

        await self._file.writer.do(work)

    async def release(self, lease: Lease) -> None:
        """Give the lease back at once; nothing happens if it was lost."""
        where = (lease.name, lease.owner, lease.token)
        await self._file.writer.do(
            lambda db: db.execute("UPDATE lease SET expires = 0 WHERE name = ? AND owner = ? AND token = ?", where)
        )

    async def holder(self, name: str) -> str | None:
        """Return the owner of a lease that is held now."""
        where = (name, self._clock.epoch())
        row = await self._one("SELECT owner FROM lease WHERE name = ? AND expires > ?", where)
        return None if row is None else str(row[0])

    def _check(self, db: Connection, lease: Lease) -> None:
        where = (lease.name, lease.owner, lease.token)
        row = db.execute("SELECT expires FROM lease WHERE name = ? AND owner = ? AND token = ?", where).fetchone()
        if row is None or not _holds(row[0], self._clock.epoch(), lease.ttl):
            raise LeaseLost(f"the lease {lease.name} has ended or another replica holds it; nothing was written")

    # statuses, cursor

    async def last_seen(self, source: str, keys: Sequence[Key], retention: float) -> Sequence[str | None]:
        """Return the history of each key in order, None if there is none, and keep their scopes for `retention`."""
        scopes: dict[str, list[str | int]] = {}
        for scope, name in keys:
            scopes.setdefault(scope, []).append(stored_name(name))
        await self._keep(source, scopes, retention)
        now = self._clock.epoch()
        histories_by_scope = await self._file.reader.do(
            lambda db: {scope: stored_histories(db, source, scope, names, now)[1] for scope, names in scopes.items()}
        )
        return [histories_by_scope[scope].get(stored_name(name)) for scope, name in keys]

    async def _keep(self, source: str, scopes: Mapping[str, Any], retention: float) -> None:
        """Extend what would end too soon: one write in a quarter of `retention`, not one at every read."""
        now, kept = self._clock.epoch(), self._kept
        late = [scope for scope in scopes if kept.get((source, scope), 0.0) < now + retention]
        if not late:
            return
        until = now + retention * SLACK

        def work(db: Connection) -> None:
            db.executemany(
                "UPDATE scope SET expires = ? WHERE source = (SELECT id FROM source WHERE name = ?) AND name = ? "
                "AND expires < ? AND expires > ?",
                [(until, source, scope, until, now) for scope in late],
            )

        await self._file.writer.do(work)
        if len(kept) > _SCOPES_REMEMBERED:
            kept.clear()
        for scope in late:
            kept[source, scope] = until

    async def scope(self, source: str, scope: str) -> Mapping[str, str]:
        """Return the histories of all resources of a scope by name."""
        query = (
            "SELECT status.name, trail FROM status JOIN scope ON scope.id = status.scope "
            "JOIN source ON source.id = scope.source WHERE source.name = ? AND scope.name = ? AND expires > ?"
        )
        rows = await self._all(query, (source, scope, self._clock.epoch()))
        return {str(name): history for name, history in rows}

    async def cursor(self, source: str) -> dict[str, str]:
        """Return all entries of the source's cursor."""
        query = "SELECT name, value FROM cursor WHERE source = (SELECT id FROM source WHERE name = ?)"
        return dict(await self._all(query, (source,)))

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        """Write statuses, events and cursor as one; return the number of the journal's last event.

        Raises `LeaseLost` or `Conflict` with nothing written.
        """

        def work(db: Connection) -> int:
            if lease is not None:
                self._check(db, lease)
            source, committed = self._source(db, commit.source)
            write_statuses(db, source, commit, self._clock.epoch())
            write_cursor(db, source, commit.cursor)
            number = append(db, source, committed, commit.events)
            if commit.expected or commit.met:
                write_expectations(db, source, commit, number)
            self._sweep(db)
            return number

        return await self._file.writer.do(work)

    def _source(self, db: Connection, name: str) -> tuple[int, int]:
        row = db.execute("SELECT id, committed FROM source WHERE name = ?", (name,)).fetchone()
        if row is None:
            base = new_base(self._clock.epoch()) if self._begin is None else self._begin
            statement = "INSERT INTO source (name, base, committed, confirmed, first) VALUES (?, ?, ?, ?, ?)"
            return int(db.execute(statement, (name, base, base, base, base + 1)).lastrowid or 0), base
        return int(row[0]), int(row[1])

    def _sweep(self, db: Connection) -> None:
        """Delete a few statuses of a scope that is over; a big one takes many commits, one after the other."""
        if self._clock.monotonic() - self._swept < _SWEEP_EVERY:
            return
        self._swept = self._clock.monotonic()
        row = db.execute(
            "SELECT id FROM scope WHERE expires <= ? ORDER BY expires LIMIT 1", (self._clock.epoch(),)
        ).fetchone()
        if row is None:
            return
        gone = db.execute(
            "DELETE FROM status WHERE scope = ? AND name IN (SELECT name FROM status WHERE scope = ? LIMIT ?)",
            (row[0], row[0], _SWEEP_STEP),
        ).rowcount
        if gone < _SWEEP_STEP:
            forget_scope(db, row[0])
            db.execute("DELETE FROM scope WHERE id = ?", row)
        else:
            self._swept -= _SWEEP_EVERY

    async def drop_expectations(self, lease: Lease, source: str) -> None:
        """Forget all expectations of a source."""

        def work(db: Connection) -> None:
            self._check(db, lease)
            for statement in FORGET_SOURCE:
                db.execute(statement, (source,))

        await self._file.writer.do(work)

    # journal

    async def sources(self) -> Sequence[str]:
        """Return the names of all sources that have a journal or a cursor, in alphabetical order."""
        query = "SELECT name FROM source WHERE committed > base OR id IN (SELECT source FROM cursor) ORDER BY name"
        return [name for (name,) in await self._all(query)]

    async def journal(self, source: str) -> JournalState:
        """Return how far the journal reaches."""
        query = "SELECT base, committed, confirmed, first, unroutable, bytes FROM source WHERE name = ?"
        row = await self._one(query, (source,))
        return JournalState() if row is None else JournalState(*row)

    async def read(self, source: str, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return up to `limit` kept entries with numbers above `after`, in order."""

        def work(db: Connection) -> list[JournalEntry]:
            base = key_base(db, source)
            rows = db.execute(
                "SELECT key, id, topic, time, body FROM journal WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
                (base + max(after, 0), base + (1 << SEQ_BITS), max(limit, 0)),
            )
            return [JournalEntry(Position(source, key - base), WireEvent(*rest)) for key, *rest in rows]

        return await self._file.reader.do(work)

    async def entries(self, positions: Sequence[Position]) -> Sequence[JournalEntry | None]:
        """Return the entries at `positions` in order; None where one is no longer kept."""
        wanted: dict[str, list[int]] = {}
        for source, seq in positions:
            wanted.setdefault(source, []).append(seq)

        def work(db: Connection) -> dict[Position, JournalEntry]:
            entries_by_position: dict[Position, JournalEntry] = {}
            for source, seqs in wanted.items():
                for seq, event in (
                    foreign_events(db, source, seqs) if source.startswith("@") else journalled(db, source, seqs)
                ):
                    entries_by_position[Position(source, seq)] = JournalEntry(Position(source, seq), event)
            return entries_by_position

        rows = await self._file.reader.do(work)
        return [rows.get(position) for position in positions]

    async def confirm(self, lease: Lease, source: str, upto: int, unroutable: int = 0) -> None:
        """Note that the broker holds everything up to `upto`, and how many of it no queue wanted."""

        def work(db: Connection) -> None:
            self._check(db, lease)
            db.execute(
                "UPDATE source SET confirmed = min(?, committed), unroutable = unroutable + ? "
                "WHERE name = ? AND confirmed < min(?, committed)",
                (upto, unroutable, source, upto),
            )

        await self._file.writer.do(work)

    async def trim(self, source: str, before: int) -> int:
        """Forget entries with numbers below `before`, never unconfirmed ones; return how many were forgotten.

        Done in steps, so that other writers get their turn.
        """
        forgotten, more = 0, True
        while more:
            gone, more = await self._file.writer.do(lambda db: trim_journal(db, source, before))
            forgotten += gone
        return forgotten

    async def reset_source(self, lease: Lease, source: str) -> None:
        """Forget a source's cursor, statuses and watched resources; its journal stays, with what is not published yet.

        The statuses are out of sight at once; the sweeps of later commits delete them.
        """

        def work(db: Connection) -> None:
            self._check(db, lease)
            for statement in _RESET:
                db.execute(statement, (source,))

        await self._file.writer.do(work)
        self._kept.clear()

    # what operators ask for, and what runs tell

    async def watch(self, source: str, resource: str) -> bool:
        """Follow a resource; False if it was already followed."""
        values = (source, resource)
        return (
            await self._file.writer.do(
                lambda db: db.execute("INSERT OR IGNORE INTO watch VALUES (?, ?)", values).rowcount
            )
            > 0
        )

    async def unwatch(self, source: str, resource: str) -> bool:
        """Follow a resource no longer; False if it was not followed."""
        statement, values = "DELETE FROM watch WHERE source = ? AND resource = ?", (source, resource)
        return await self._file.writer.do(lambda db: db.execute(statement, values).rowcount) > 0

    async def watched(self, source: str) -> Sequence[str]:
        """Return the resources that operators named, sorted."""
        return [
            name for (name,) in await self._all("SELECT resource FROM watch WHERE source = ? ORDER BY 1", (source,))
        ]

    async def set_status(self, name: str, values: Mapping[str, str]) -> None:
        """Keep what a part tells about itself; what it told before under other names stays."""
        rows = [(name, key, value) for key, value in values.items()]
        await self._file.writer.do(lambda db: db.executemany("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", rows))

    async def statuses(self, prefix: str) -> Mapping[str, Mapping[str, str]]:
        """Return what parts have told about themselves, by name."""
        values_by_name: dict[str, dict[str, str]] = {}
        for name, key, value in await self._all("SELECT name, key, value FROM note ORDER BY name, key"):
            if name.startswith(prefix):
                values_by_name.setdefault(name, {})[key] = value
        return values_by_name

    async def ping(self) -> None:
        """Return if the store answers and can be written to."""
        now = self._clock.epoch()
        await self._file.writer.do(lambda db: db.execute("INSERT OR REPLACE INTO ping VALUES (1, ?)", (now,)))

    async def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return await self._file.reader.do(lambda db: db.execute(query, values).fetchall())

    async def _one(self, query: str, values: tuple[Any, ...]) -> Any:
        return await self._file.reader.do(lambda db: db.execute(query, values).fetchone())


def _holds(expires: float, now: float, ttl: float) -> bool:
    """Say whether a lease is held; that of a killed process not for hours because the clock was set back by hours."""
    return now < expires <= now + max(2 * ttl, _LONGEST_LEASE)
