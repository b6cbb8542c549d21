"""Deliveries that end unsent, in SQLite: a row for each, and totals as one text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.delivery_rows import (
    SettledBitmap,
    book_of,
    count,
    count_apart,
    delete_rows,
    find_book,
    release_partitions,
    rows_of,
    waiting_rows,
)
from bridge.domain.event import Position
from bridge.protocols.unsent import MAX_TOTALLED_TOPICS, ExpiryTotals, Unsent, UnsentDelivery

_READ = "SELECT value FROM totals WHERE sink = ? AND id = ?"
_WRITE = "INSERT OR REPLACE INTO totals VALUES (?, ?, ?)"


class SqliteUnsent:
    """`UnsentStore` in one SQLite file."""

    def __init__(self, file: SqliteDatabase) -> None:
        self._file = file

    async def wait_until(self, sink: str, dues: Sequence[tuple[Position, float]]) -> None:
        """Have claimed deliveries wait, each until its time; what is not waiting is left alone."""

        def work(db: Connection) -> None:
            books = {source: find_book(db, sink, source) for source in {position.source for position, _ in dues}}
            statement = "UPDATE delivery SET due = ? WHERE book = ? AND seq = ? AND state = 0"
            db.executemany(statement, [(due, books[position.source], position.seq) for position, due in dues])

        await self._file.writer.do(work)

    async def end_unsent(
        self, sink: str, deliveries: Sequence[UnsentDelivery], unsent: Unsent, *, is_totalled: bool = False
    ) -> int:
        """End waiting deliveries without sending them; return how many there were."""
        groups: dict[str, dict[int, UnsentDelivery]] = {}
        for delivery in deliveries:
            groups.setdefault(delivery.position.source, {})[delivery.position.seq] = delivery

        def work(db: Connection) -> int:
            ended: list[UnsentDelivery] = []
            partitions: list[str] = []
            for source, by_seq in groups.items():
                rows = waiting_rows(rows_of(db, book := book_of(db, sink, source), list(by_seq)))
                _end_rows(db, book, list(rows), unsent)
                partitions += [partition for partition in rows.values() if partition]
                ended += [by_seq[seq] for seq in rows]
            release_partitions(db, sink, partitions, unsent.at)
            if ended and is_totalled:
                _add_up(db, sink, ended)
            return len(ended)

        return await self._file.writer.do(work)

    async def unsent(self, sink: str, position: Position) -> Unsent | None:
        """Return why a delivery was ended unsent; None if it was not, or if its entry has left the journal."""
        query = (
            "SELECT u.kind, u.at, u.mute FROM unsent u JOIN book b ON b.id = u.book "
            "WHERE b.sink = ? AND b.source = ? AND u.seq = ?"
        )
        row = await self._file.reader.do(lambda db: db.execute(query, (sink, *position)).fetchone())
        return None if row is None else Unsent(*row)

    async def open_totals(self, sink: str, id: str) -> ExpiryTotals | None:  # noqa: A002 - what the totals call it
        """Return totals to tell: those that were opened before and not closed, or what has come since, as `id`."""

        def work(db: Connection) -> tuple[str, str] | None:
            statement = "SELECT id, value FROM totals WHERE sink = ? AND id <> ''"
            row: tuple[str, str] | None = db.execute(statement, (sink,)).fetchone()
            if row is None:
                db.execute("UPDATE totals SET id = ? WHERE sink = ? AND id = ''", (id, sink))
                row = db.execute(statement, (sink,)).fetchone()
            return row

        row = await self._file.writer.do(work)
        if row is None:
            return None
        values = json.loads(row[1])
        return ExpiryTotals(row[0], values["count"], values["oldest"], values["newest"], values["topics"])

    async def close_totals(self, sink: str, id: str) -> None:  # noqa: A002 - what the totals call it
        """Note that the totals with this id were told; told again, it changes nothing."""
        await self._file.writer.do(lambda db: db.execute("DELETE FROM totals WHERE sink = ? AND id = ?", (sink, id)))


def _end_rows(db: Connection, book: int, seqs: Sequence[int], unsent: Unsent) -> None:
    delete_rows(db, book, seqs)
    SettledBitmap(db, book).write(seqs, settled=True)
    if unsent.kind == "muted":
        SettledBitmap(db, book, filtered=True).write(seqs, settled=True)
    records = [(book, seq, unsent.kind, unsent.at, unsent.mute) for seq in seqs]
    db.executemany("INSERT OR REPLACE INTO unsent VALUES (?, ?, ?, ?, ?)", records)
    count(db, book, waiting=-len(seqs))
    count_apart(db, "filtered" if unsent.kind == "muted" else "expired", book, len(seqs))


def _add_up(db: Connection, sink: str, ended: Sequence[UnsentDelivery]) -> None:
    row = db.execute(_READ, (sink, "")).fetchone()
    values: dict[str, Any] = json.loads(row[0]) if row else {"count": 0, "oldest": None, "newest": None, "topics": {}}
    times = [delivery.recorded for delivery in ended if delivery.recorded is not None]
    values["count"] += len(ended)
    values["oldest"] = min([*times, *_known(values["oldest"])], default=None)
    values["newest"] = max([*times, *_known(values["newest"])], default=None)
    topics: dict[str, int] = values["topics"]
    for delivery in ended:
        if delivery.topic in topics or len(topics) < MAX_TOTALLED_TOPICS:
            topics[delivery.topic] = topics.get(delivery.topic, 0) + 1
    db.execute(_WRITE, (sink, "", json.dumps(values)))


def _known(time: float | None) -> list[float]:
    return [] if time is None else [time]
