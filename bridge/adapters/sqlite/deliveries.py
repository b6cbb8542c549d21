"""The books of all sinks in SQLite: deliveries as rows while they wait, then one bit each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryCounts, NewDelivery

_DUE, _HELD, _DEAD = 0, 1, 2
_CHUNK_ITEMS = 4096
_CHUNK_BITS = 40
"""A row of marks goes by the book's number and the chunk's, side by side."""
_ADOPTED_FOR = 30 * 86400.0
"""Seconds after which an adopted event that is settled is given up."""
_COLUMNS = "b.source, d.seq, d.due, d.state, d.reason, d.tries FROM delivery d JOIN book b ON b.id = d.book"


class SqliteDeliveries:
    """`Settlements` in one SQLite file."""

    def __init__(self, file: SqliteDatabase, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    async def accept(self, sink: str, arrivals: Sequence[NewDelivery], until: float) -> Sequence[Position]:
        """Accept arrivals that are unknown so far and claim them until `until`; return the claimed ones."""
        now = self._clock.epoch()
        return (await self._file.writer.do(lambda db: _take(db, sink, arrivals, until, now)))[1]

    async def enqueue(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Take charge as `take` does, but claim nothing: the deliveries are due at `due`. Return how many were new."""
        return (await self._file.writer.do(lambda db: _take(db, sink, arrivals, due, due)))[0]

    async def claim(self, sink: str, now: float, until: float, limit: int) -> Sequence[Delivery]:
        """Claim up to `limit` deliveries that are due at `now`, those due longest first, until `until`."""

        def work(db: Connection) -> list[Delivery]:
            rows = db.execute(
                f"SELECT d.book, {_COLUMNS} WHERE d.sink = ? AND d.state = 0 AND d.due <= ? ORDER BY d.due LIMIT ?",
                (sink, now, max(limit, 0)),
            ).fetchall()
            db.executemany(
                "UPDATE delivery SET due = ? WHERE book = ? AND seq = ?", [(until, row[0], row[2]) for row in rows]
            )
            return [_delivery(sink, (source, seq, until, *rest)) for _, source, seq, _, *rest in rows]

        return await self._file.writer.do(work)

    async def extend(self, sink: str, positions: Sequence[Position], until: float) -> None:
        """Hold the claims on these until `until`; what is not waiting any more is left alone."""

        def work(db: Connection) -> None:
            for source, seqs in _by_source(positions).items():
                book = _find_book(db, sink, source)
                statement = "UPDATE delivery SET due = ? WHERE book = ? AND seq = ? AND state = 0"
                db.executemany(statement, [(until, book, seq) for seq in seqs])

        await self._file.writer.do(work)

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the endpoint accepted these; return how many deliveries behind them in a partition became due."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            lanes: list[str] = []
            for source, seqs in _by_source(positions).items():
                book = _book(db, sink, source)
                marks = _SettledBitmap(db, book)
                fresh = [seq for seq in dict.fromkeys(seqs) if not marks.has(seq)]
                marks.write(fresh, settled=True)
                rows = _rows(db, book, fresh)
                _delete(db, book, rows)
                dead = sum(1 for state, _ in rows.values() if state == _DEAD)
                _count(db, book, taken=len(fresh), waiting=dead - len(rows), dead=-dead)
                lanes += [lane for lane in _waiting(rows).values() if lane]
            return _release(db, sink, lanes, now)

        return await self._file.writer.do(work)

    async def postpone(self, sink: str, position: Position, due: float, attempt: Attempt | None) -> None:
        """Wait until `due`; `attempt` is added to the history (None for a claim handed back unused)."""

        def work(db: Connection) -> None:
            book = _book(db, sink, position.source)
            if position.seq in _waiting(_rows(db, book, [position.seq])):
                where = (due, book, position.seq)
                db.execute("UPDATE delivery SET due = ? WHERE book = ? AND seq = ?", where)
                _tried(db, book, position.seq, attempt)

        await self._file.writer.do(work)

    async def dead_letter(self, sink: str, position: Position, reason: str, attempt: Attempt | None) -> int:
        """Make a dead letter of it, with its history; return how many in its partition became due, as `settle`."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            book = _book(db, sink, position.source)
            rows = _waiting(_rows(db, book, [position.seq]))
            if not rows:
                return 0
            values = (_DEAD, now, reason, book, position.seq)
            db.execute("UPDATE delivery SET state = ?, due = ?, reason = ? WHERE book = ? AND seq = ?", values)
            _tried(db, book, position.seq, attempt)
            _count(db, book, waiting=-1, dead=1)
            return _release(db, sink, [lane for lane in rows.values() if lane], now)

        return await self._file.writer.do(work)

    async def unaccounted(self, sink: str, source: str, seqs: Sequence[int]) -> Sequence[int]:
        """Return those of `seqs` that are unknown: neither waiting, dead nor settled."""

        def work(db: Connection) -> list[int]:
            book = _find_book(db, sink, source)
            if book is None:
                return list(seqs)
            marks = _SettledBitmap(db, book)
            unsettled = [seq for seq in seqs if not marks.has(seq)]
            known = _rows(db, book, unsettled)
            return [seq for seq in unsettled if seq not in known]

        return await self._file.reader.do(work)

    async def counts(self, sink: str) -> dict[str, DeliveryCounts]:
        """Return the books of a sink by source; a source without any delivery is left out."""
        query = "SELECT source, taken, waiting, dead, discarded FROM book WHERE sink = ? ORDER BY source"
        rows = await self._file.reader.do(lambda db: db.execute(query, (sink,)).fetchall())
        return {source: DeliveryCounts(*counts) for source, *counts in rows if any(counts)}

    async def oldest(self, sink: str, source: str) -> int | None:
        """Return the lowest number of a source that this sink waits with, None when none waits."""
        query = (
            "SELECT min(d.seq) FROM delivery d JOIN book b ON b.id = d.book "
            "WHERE b.sink = ? AND b.source = ? AND d.state < 2"
        )
        row = await self._file.reader.do(lambda db: db.execute(query, (sink, source)).fetchone())
        return None if row[0] is None else int(row[0])

    async def next_due(self, sink: str) -> float | None:
        """Return when the next delivery is due, None when none waits."""
        query = "SELECT min(due) FROM delivery WHERE sink = ? AND state = 0"
        row = await self._file.reader.do(lambda db: db.execute(query, (sink,)).fetchone())
        return None if row[0] is None else float(row[0])

    async def deliveries(
        self, sink: str, *, states: Collection[str] = ("waiting", "dead"), limit: int = 100
    ) -> Sequence[Delivery]:
        """Return waiting and dead deliveries, those due first at the front."""
        wanted = [state for state in (_DUE, _HELD, _DEAD) if ("dead" if state == _DEAD else "waiting") in states]
        query = f"SELECT {_COLUMNS} WHERE d.sink = ? AND d.state = ? ORDER BY d.due LIMIT ?"

        def work(db: Connection) -> list[Any]:
            return [row for state in wanted for row in db.execute(query, (sink, state, max(limit, 0)))]

        rows = sorted(await self._file.reader.do(work), key=lambda row: row[2])
        return [_delivery(sink, row) for row in rows[: max(limit, 0)]]

    async def delivery(self, sink: str, position: Position) -> Delivery | None:
        """Return one waiting or dead delivery."""
        query, values = f"SELECT {_COLUMNS} WHERE b.sink = ? AND b.source = ? AND d.seq = ?", (sink, *position)
        row = await self._file.reader.do(lambda db: db.execute(query, values).fetchone())
        return None if row is None else _delivery(sink, row)

    async def settled(self, sink: str, position: Position) -> bool:
        """Say whether the endpoint accepted it, or an operator discarded it."""

        def work(db: Connection) -> bool:
            book = _find_book(db, sink, position.source)
            return book is not None and _SettledBitmap(db, book).has(position.seq)

        return await self._file.reader.do(work)

    async def redrive(self, sink: str, positions: Sequence[Position], due: float, hold: float = 0.0) -> int:
        """Make dead or waiting deliveries due at `due`, with the count of tries starting again; return how many.

        One that was dead joins the end of its lane, if it had one. One that is due by itself within `hold` seconds
        after `due` keeps its time.
        """
        statement = (
            "UPDATE delivery SET tries = NULL, "
            "due = CASE WHEN state = 0 AND due > ? AND due <= ? THEN due ELSE ? END WHERE book = ? AND seq = ?"
        )

        def work(db: Connection) -> int:
            number = 0
            for source, seq in dict.fromkeys(positions):
                book = _book(db, sink, source)
                rows = _rows(db, book, [seq])
                for state, lane in rows.values():
                    if state == _DEAD:
                        _delete(db, book, rows)
                        _insert(db, sink, book, seq, lane, due, due)
                        _count(db, book, dead=-1, waiting=1)
                    number += db.execute(statement, (due, due + hold, due, book, seq)).rowcount
            return number

        return await self._file.writer.do(work)

    async def discard(self, sink: str, positions: Sequence[Position]) -> int:
        """End waiting or dead deliveries without sending them; return how many."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            number, lanes = 0, []
            for source, seqs in _by_source(positions).items():
                book = _book(db, sink, source)
                rows = _rows(db, book, seqs)
                _delete(db, book, rows)
                _SettledBitmap(db, book).write(rows, settled=True)
                db.executemany("INSERT OR IGNORE INTO discarded VALUES (?, ?)", [(book, seq) for seq in rows])
                dead = sum(1 for state, _ in rows.values() if state == _DEAD)
                _count(db, book, discarded=len(rows), waiting=dead - len(rows), dead=-dead)
                lanes += [lane for lane in _waiting(rows).values() if lane]
                number += len(rows)
            _release(db, sink, lanes, now)
            return number

        return await self._file.writer.do(work)

    async def replay(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Make settled (or unknown) events due once more; return how many. Waiting and dead ones are left alone."""

        def work(db: Connection) -> int:
            number = 0
            for (source, seq), lane in {arrival.position: arrival.partition for arrival in arrivals}.items():
                book = _book(db, sink, source)
                if _rows(db, book, [seq]):
                    continue
                marks = _SettledBitmap(db, book)
                if marks.has(seq):
                    marks.write([seq], settled=False)
                    where = (book, seq)
                    discarded = db.execute("DELETE FROM discarded WHERE book = ? AND seq = ?", where).rowcount
                    _count(db, book, discarded=-discarded, taken=discarded - 1)
                _insert(db, sink, book, seq, lane, due, due)
                _count(db, book, waiting=1)
                number += 1
            return number

        return await self._file.writer.do(work)

    async def low_watermark(self, sink: str, source: str) -> int:
        """Return the number up to which the books of this sink were found complete; 0 at first."""
        query = "SELECT floor FROM book WHERE sink = ? AND source = ?"
        row = await self._file.reader.do(lambda db: db.execute(query, (sink, source)).fetchone())
        return 0 if row is None else int(row[0])

    async def raise_low_watermark(self, sink: str, source: str, upto: int) -> None:
        """Note that everything up to `upto` is accounted for; never moves back."""

        def work(db: Connection) -> None:
            statement = "UPDATE book SET floor = max(floor, ?) WHERE id = ?"
            db.execute(statement, (upto, _book(db, sink, source)))

        await self._file.writer.do(work)

    async def accept_foreign(self, sink: str, event: WireEvent) -> Position:
        """Keep an event that came without a position of ours; idempotent by its id while it is kept.

        Kept for 30 days, and longer while it waits or is dead.
        """
        now = self._clock.epoch()
        return Position(f"@{sink}", await self._file.writer.do(lambda db: _adopt(db, sink, event, now)))

    async def forget(self, source: str, before: int) -> None:
        """Drop the settled marks of numbers below `before`, which the journal no longer keeps."""

        def work(db: Connection) -> None:
            for (book,) in db.execute("SELECT id FROM book WHERE source = ?", (source,)).fetchall():
                chunk = before // _CHUNK_ITEMS
                first = book << _CHUNK_BITS
                db.execute("DELETE FROM mark WHERE key >= ? AND key < ?", (first, first + chunk))
                _SettledBitmap(db, book).write(range(chunk * _CHUNK_ITEMS, before), settled=False)
                db.execute("DELETE FROM discarded WHERE book = ? AND seq < ?", (book, before))

        await self._file.writer.do(work)


class _SettledBitmap:
    """The settled marks of one book, read chunk by chunk as they are asked for."""

    def __init__(self, db: Connection, book: int) -> None:
        self._db = db
        self._first = book << _CHUNK_BITS
        self._chunks: dict[int, bytearray] = {}

    def _chunk(self, number: int) -> bytearray:
        bits = self._chunks.get(number)
        if bits is None:
            row = self._db.execute("SELECT bits FROM mark WHERE key = ?", (self._first + number,)).fetchone()
            bits = self._chunks[number] = bytearray(row[0] if row else _CHUNK_ITEMS // 8)
        return bits

    def has(self, seq: int) -> bool:
        chunk, offset = divmod(seq, _CHUNK_ITEMS)
        return bool(self._chunk(chunk)[offset >> 3] & (1 << (offset & 7)))

    def write(self, seqs: Iterable[int], *, settled: bool) -> None:
        touched = set()
        for seq in seqs:
            chunk, offset = divmod(seq, _CHUNK_ITEMS)
            bits, mask = self._chunk(chunk), 1 << (offset & 7)
            bits[offset >> 3] = bits[offset >> 3] | mask if settled else bits[offset >> 3] & ~mask
            touched.add(chunk)
        self._db.executemany(
            "INSERT OR REPLACE INTO mark VALUES (?, ?)",
            [(self._first + chunk, bytes(self._chunks[chunk])) for chunk in touched],
        )


def _by_source(positions: Iterable[Position]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for source, seq in positions:
        groups.setdefault(source, []).append(seq)
    return groups


def _find_book(db: Connection, sink: str, source: str) -> int | None:
    row = db.execute("SELECT id FROM book WHERE sink = ? AND source = ?", (sink, source)).fetchone()
    return None if row is None else int(row[0])


def _book(db: Connection, sink: str, source: str) -> int:
    found = _find_book(db, sink, source)
    if found is None:
        return int(db.execute("INSERT INTO book (sink, source) VALUES (?, ?)", (sink, source)).lastrowid or 0)
    return found


def _count(db: Connection, book: int, *, taken: int = 0, waiting: int = 0, dead: int = 0, discarded: int = 0) -> None:
    db.execute(
        "UPDATE book SET taken = taken + ?, waiting = waiting + ?, dead = dead + ?, discarded = discarded + ? "
        "WHERE id = ?",
        (taken, waiting, dead, discarded, book),
    )


def _rows(db: Connection, book: int, seqs: Sequence[int]) -> dict[int, tuple[int, str | None]]:
    """Return state and lane of those that are waiting or dead."""
    rows = db.execute(
        "SELECT seq, state, lane FROM delivery WHERE book = ? AND seq IN (SELECT value FROM json_each(?))",
        (book, json.dumps(list(seqs))),
    )
    return {seq: (state, lane) for seq, state, lane in rows}


def _waiting(rows: Mapping[int, tuple[int, str | None]]) -> dict[int, str | None]:
    return {seq: lane for seq, (state, lane) in rows.items() if state != _DEAD}


def _delete(db: Connection, book: int, seqs: Iterable[int]) -> None:
    db.executemany("DELETE FROM delivery WHERE book = ? AND seq = ?", [(book, seq) for seq in seqs])


def _insert(db: Connection, sink: str, book: int, seq: int, lane: str | None, due: float, held_due: float) -> bool:
    """Make a delivery wait, at the end of its lane if it has one; return whether nothing is before it."""
    if lane is None:
        db.execute("INSERT INTO delivery (book, seq, sink, state, due) VALUES (?, ?, ?, 0, ?)", (book, seq, sink, due))
        return True
    where = (sink, lane)
    last = db.execute("SELECT max(rank) FROM delivery WHERE sink = ? AND lane = ? AND state < 2", where).fetchone()[0]
    values = (
        book,
        seq,
        sink,
        _DUE if last is None else _HELD,
        due if last is None else held_due,
        lane,
        (last or 0) + 1,
    )
    db.execute("INSERT INTO delivery (book, seq, sink, state, due, lane, rank) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    return last is None


def _take(
    db: Connection, sink: str, arrivals: Sequence[NewDelivery], due: float, held_due: float
) -> tuple[int, list[Position]]:
    """Take charge of what is unknown; return how many there were, and those that are due."""
    known: dict[str, tuple[int, _SettledBitmap, set[int]]] = {}
    for source, seqs in _by_source(arrival.position for arrival in arrivals).items():
        book = _book(db, sink, source)
        known[source] = (book, _SettledBitmap(db, book), set(_rows(db, book, seqs)))
    ready: list[Position] = []
    fresh: dict[int, int] = {}
    for position, lane in ((arrival.position, arrival.partition) for arrival in arrivals):
        book, marks, present = known[position.source]
        if position.seq in present or marks.has(position.seq):
            continue
        present.add(position.seq)
        fresh[book] = fresh.get(book, 0) + 1
        if _insert(db, sink, book, position.seq, lane, due, held_due):
            ready.append(position)
    for book, number in fresh.items():
        _count(db, book, waiting=number)
    return sum(fresh.values()), ready


def _release(db: Connection, sink: str, lanes: Iterable[str], now: float) -> int:
    """Make the first of each lane due that is still held; return how many are due now."""
    number = 0
    for lane in dict.fromkeys(lanes):
        row = db.execute(
            "SELECT book, seq, state, due FROM delivery WHERE sink = ? AND lane = ? AND state < 2 "
            "ORDER BY rank LIMIT 1",
            (sink, lane),
        ).fetchone()
        if row is not None and row[2] == _HELD:
            due = max(row[3], now)
            db.execute("UPDATE delivery SET state = 0, due = ? WHERE book = ? AND seq = ?", (due, row[0], row[1]))
            number += due <= now
    return number


def _tried(db: Connection, book: int, seq: int, attempt: Attempt | None) -> None:
    """Add a try to the history; one that is told again, because its telling seemed to fail, is one try."""
    if attempt is not None:
        written = json.dumps([attempt.at, attempt.error, attempt.kind])
        db.execute(
            "UPDATE delivery SET tries = coalesce(tries || char(10), '') || ?1 WHERE book = ?2 AND seq = ?3 "
            "AND substr(coalesce(tries, ''), -length(?1)) <> ?1",
            (written, book, seq),
        )


def _adopt(db: Connection, sink: str, event: WireEvent, now: float) -> int:
    row = db.execute("SELECT seq FROM adopted WHERE sink = ? AND id = ?", (sink, event.id)).fetchone()
    if row is not None:
        return int(row[0])
    old = db.execute(
        "SELECT seq FROM adopted WHERE sink = ? AND at <= ? ORDER BY at LIMIT 10", (sink, now - _ADOPTED_FOR)
    ).fetchall()
    book = _book(db, sink, f"@{sink}")
    kept = _rows(db, book, [seq for (seq,) in old])
    for (seq,) in old:
        if seq in kept:
            db.execute("UPDATE adopted SET at = ? WHERE seq = ?", (now, seq))
        else:
            db.execute("DELETE FROM adopted WHERE seq = ?", (seq,))
    values = (sink, event.id, now, event.topic, event.time, event.body)
    cursor = db.execute("INSERT INTO adopted (sink, id, at, topic, time, body) VALUES (?, ?, ?, ?, ?, ?)", values)
    return int(cursor.lastrowid or 0)


def _delivery(sink: str, row: Sequence[Any]) -> Delivery:
    source, seq, due, state, reason, tries = row
    attempts = tuple(Attempt(*json.loads(line)) for line in tries.split("\n")) if tries else ()
    return Delivery(sink, Position(source, seq), due, attempts, "dead" if state == _DEAD else "waiting", reason or "")
