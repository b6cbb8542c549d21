"""The books of all sinks in SQLite: deliveries as rows while they wait, then one bit each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import Any

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.delivery_rows import (
    DEAD,
    DUE,
    HELD,
    SettledBitmap,
    accept_foreign_event,
    accept_rows,
    book_of,
    by_source,
    count,
    delete_rows,
    delivery_of,
    filter_out_rows,
    find_book,
    forget_answers,
    forget_marks,
    insert_delivery,
    release_partitions,
    rows_of,
    unsettle,
    waiting_rows,
    write_answer,
    write_attempt,
)
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryCounts, KeptAnswer, NewDelivery, Place

_COLUMNS = "b.source, d.seq, d.due, d.state, d.reason, d.tries FROM delivery d JOIN book b ON b.id = d.book"
_WITH_ANSWER = (
    "b.source, d.seq, d.due, d.state, d.reason, d.tries, a.status, a.body FROM delivery d "
    "JOIN book b ON b.id = d.book LEFT JOIN answer a ON a.book = d.book AND a.seq = d.seq AND d.state = 2"
)


class SqliteDeliveries:
    """`Settlements` in one SQLite file."""

    def __init__(self, file: SqliteDatabase, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    async def accept(self, sink: str, arrivals: Sequence[NewDelivery], until: float) -> Sequence[Position]:
        """Accept arrivals that are unknown so far and claim them until `until`; return the claimed ones."""
        now = self._clock.epoch()
        return (await self._file.writer.do(lambda db: accept_rows(db, sink, arrivals, until, now)))[1]

    async def enqueue(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Take charge as `take` does, but claim nothing: the deliveries are due at `due`. Return how many were new."""
        return (await self._file.writer.do(lambda db: accept_rows(db, sink, arrivals, due, due)))[0]

    async def filter_out(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the sink's filter did not select these; return how many were unknown so far."""

        def work(db: Connection) -> int:
            groups = by_source(positions).items()
            return sum(filter_out_rows(db, book_of(db, sink, source), seqs) for source, seqs in groups)

        return await self._file.writer.do(work)

    async def filtered(self, sink: str, position: Position) -> bool:
        """Say whether the sink's filter did not select it, or an operator had muted it."""
        return await self._has_mark(sink, position, filtered=True)

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
            return [delivery_of(sink, (source, seq, until, *rest)) for _, source, seq, _, *rest in rows]

        return await self._file.writer.do(work)

    async def extend(self, sink: str, positions: Sequence[Position], until: float) -> None:
        """Hold the claims on these until `until`; what is not waiting any more is left alone."""

        def work(db: Connection) -> None:
            for source, seqs in by_source(positions).items():
                book = find_book(db, sink, source)
                statement = "UPDATE delivery SET due = ? WHERE book = ? AND seq = ? AND state = 0"
                db.executemany(statement, [(until, book, seq) for seq in seqs])

        await self._file.writer.do(work)

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the endpoint accepted these; return how many deliveries behind them in a partition became due."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            partitions: list[str] = []
            for source, seqs in by_source(positions).items():
                book = book_of(db, sink, source)
                marks = SettledBitmap(db, book)
                unknown = [seq for seq in dict.fromkeys(seqs) if not marks.has(seq)]
                marks.write(unknown, settled=True)
                rows = rows_of(db, book, unknown)
                delete_rows(db, book, rows)
                dead = sum(1 for state, _ in rows.values() if state == DEAD)
                if dead:
                    forget_answers(db, book, rows)
                count(db, book, delivered=len(unknown), waiting=dead - len(rows), dead=-dead)
                partitions += [partition for partition in waiting_rows(rows).values() if partition]
            return release_partitions(db, sink, partitions, now)

        return await self._file.writer.do(work)

    async def postpone(self, sink: str, position: Position, due: float, attempt: Attempt | None) -> None:
        """Wait until `due`; `attempt` is added to the history (None for a claim handed back unused)."""

        def work(db: Connection) -> None:
            book = book_of(db, sink, position.source)
            if position.seq in waiting_rows(rows_of(db, book, [position.seq])):
                where = (due, book, position.seq)
                db.execute("UPDATE delivery SET due = ? WHERE book = ? AND seq = ?", where)
                write_attempt(db, book, position.seq, attempt)

        await self._file.writer.do(work)

    async def dead_letter(
        self, sink: str, position: Position, reason: str, attempt: Attempt | None, answer: KeptAnswer | None = None
    ) -> int:
        """Make a dead letter of it, with its history and the endpoint's answer."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            book = book_of(db, sink, position.source)
            rows = waiting_rows(rows_of(db, book, [position.seq]))
            if not rows:
                return 0
            values = (DEAD, now, reason, book, position.seq)
            db.execute("UPDATE delivery SET state = ?, due = ?, reason = ? WHERE book = ? AND seq = ?", values)
            write_attempt(db, book, position.seq, attempt)
            write_answer(db, book, position.seq, answer)
            count(db, book, waiting=-1, dead=1)
            return release_partitions(db, sink, [partition for partition in rows.values() if partition], now)

        return await self._file.writer.do(work)

    async def unaccounted(self, sink: str, source: str, seqs: Sequence[int]) -> Sequence[int]:
        """Return those of `seqs` that are unknown: neither waiting, dead nor settled."""

        def work(db: Connection) -> list[int]:
            book = find_book(db, sink, source)
            if book is None:
                return list(seqs)
            marks = SettledBitmap(db, book)
            unsettled = [seq for seq in seqs if not marks.has(seq)]
            known = rows_of(db, book, unsettled)
            return [seq for seq in unsettled if seq not in known]

        return await self._file.reader.do(work)

    async def counts(self, sink: str) -> dict[str, DeliveryCounts]:
        """Return the books of a sink by source; a source without any delivery is left out."""
        query = (
            "SELECT source, taken, waiting, dead, discarded, coalesce(f.number, 0), coalesce(e.number, 0) FROM book "
            "LEFT JOIN filtered f ON f.book = book.id LEFT JOIN expired e ON e.book = book.id "
            "WHERE sink = ? ORDER BY source"
        )
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
        self,
        sink: str,
        *,
        states: Collection[str] = ("waiting", "dead"),
        limit: int = 100,
        after: Place | None = None,
    ) -> Sequence[Delivery]:
        """Return waiting and dead deliveries, those due first at the front, from behind `after` on."""
        wanted = [state for state in (DUE, HELD, DEAD) if ("dead" if state == DEAD else "waiting") in states]
        due, position = after or (float("-inf"), Position("", 0))
        query = (
            f"SELECT {_WITH_ANSWER} WHERE d.sink = ? AND d.state = ? AND d.due >= ? "
            "AND (d.due, b.source, d.seq) > (?, ?, ?) ORDER BY d.due, b.source, d.seq LIMIT ?"
        )
        behind = (due, due, *position, max(limit, 0))

        def work(db: Connection) -> list[Any]:
            return [row for state in wanted for row in db.execute(query, (sink, state, *behind))]

        rows = sorted(await self._file.reader.do(work), key=lambda row: (row[2], *row[:2]))
        return [delivery_of(sink, row) for row in rows[: max(limit, 0)]]

    async def delivery(self, sink: str, position: Position) -> Delivery | None:
        """Return one waiting or dead delivery."""
        query, values = f"SELECT {_WITH_ANSWER} WHERE b.sink = ? AND b.source = ? AND d.seq = ?", (sink, *position)
        row = await self._file.reader.do(lambda db: db.execute(query, values).fetchone())
        return None if row is None else delivery_of(sink, row)

    async def settled(self, sink: str, position: Position) -> bool:
        """Say whether it is over: the endpoint accepted it, or it ended without being sent."""
        return await self._has_mark(sink, position)

    async def _has_mark(self, sink: str, position: Position, *, filtered: bool = False) -> bool:
        def work(db: Connection) -> bool:
            book = find_book(db, sink, position.source)
            return book is not None and SettledBitmap(db, book, filtered=filtered).has(position.seq)

        return await self._file.reader.do(work)

    async def redrive(self, sink: str, positions: Sequence[Position], due: float, hold: float = 0.0) -> int:
        """Make dead or waiting deliveries due at `due`, with the count of tries starting again; return how many.

        A dead letter joins the end of its partition, if it had one. One that is due by itself within `hold` seconds
        after `due` keeps its time.
        """
        statement = (
            "UPDATE delivery SET tries = NULL, "
            "due = CASE WHEN state = 0 AND due > ? AND due <= ? THEN due ELSE ? END WHERE book = ? AND seq = ?"
        )

        def work(db: Connection) -> int:
            number = 0
            for source, seq in dict.fromkeys(positions):
                book = book_of(db, sink, source)
                rows = rows_of(db, book, [seq])
                for state, partition in rows.values():
                    if state == DEAD:
                        delete_rows(db, book, rows)
                        forget_answers(db, book, rows)
                        insert_delivery(db, sink, book, seq, partition, due, due)
                        count(db, book, dead=-1, waiting=1)
                    number += db.execute(statement, (due, due + hold, due, book, seq)).rowcount
            return number

        return await self._file.writer.do(work)

    async def discard(self, sink: str, positions: Sequence[Position]) -> int:
        """End waiting or dead deliveries without sending them; return how many."""
        now = self._clock.epoch()

        def work(db: Connection) -> int:
            number, partitions = 0, []
            for source, seqs in by_source(positions).items():
                book = book_of(db, sink, source)
                rows = rows_of(db, book, seqs)
                delete_rows(db, book, rows)
                forget_answers(db, book, rows)
                SettledBitmap(db, book).write(rows, settled=True)
                db.executemany("INSERT OR IGNORE INTO discarded VALUES (?, ?)", [(book, seq) for seq in rows])
                dead = sum(1 for state, _ in rows.values() if state == DEAD)
                count(db, book, discarded=len(rows), waiting=dead - len(rows), dead=-dead)
                partitions += [partition for partition in waiting_rows(rows).values() if partition]
                number += len(rows)
            release_partitions(db, sink, partitions, now)
            return number

        return await self._file.writer.do(work)

    async def replay(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Make settled (or unknown) events due once more; return how many. Waiting and dead ones are left alone."""

        def work(db: Connection) -> int:
            number = 0
            for (source, seq), partition in {arrival.position: arrival.partition for arrival in arrivals}.items():
                book = book_of(db, sink, source)
                if rows_of(db, book, [seq]):
                    continue
                if SettledBitmap(db, book).has(seq):
                    unsettle(db, book, seq)
                insert_delivery(db, sink, book, seq, partition, due, due)
                count(db, book, waiting=1)
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
            db.execute(statement, (upto, book_of(db, sink, source)))

        await self._file.writer.do(work)

    async def accept_foreign(self, sink: str, event: WireEvent) -> Position:
        """Keep an event that came without a position of ours; idempotent by its id while it is kept.

        Kept for 30 days, and longer while it waits or is dead.
        """
        now = self._clock.epoch()
        return Position(f"@{sink}", await self._file.writer.do(lambda db: accept_foreign_event(db, sink, event, now)))

    async def forget(self, source: str, before: int) -> None:
        """Drop the settled marks of numbers below `before`, which the journal no longer keeps."""

        def work(db: Connection) -> None:
            for (book,) in db.execute("SELECT id FROM book WHERE source = ?", (source,)).fetchall():
                forget_marks(db, book, before)
                db.execute("DELETE FROM discarded WHERE book = ? AND seq < ?", (book, before))
                db.execute("DELETE FROM unsent WHERE book = ? AND seq < ?", (book, before))

        await self._file.writer.do(work)
