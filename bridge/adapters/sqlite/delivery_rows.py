"""The rows of deliveries: books, settled bitmaps, and the deliveries that wait."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Literal

from bridge.domain.event import Position, WireEvent
from bridge.protocols.deliveries import Attempt, Delivery, KeptAnswer, NewDelivery

DUE, HELD, DEAD = 0, 1, 2
"""The states of a row: due at its time, behind another delivery of its partition, or a dead letter."""
CHUNK_ITEMS = 4096
CHUNK_BITS = 40
"""The key of a chunk's row is the book's number, shifted by so many bits, and the chunk's number."""
_FILTERED_CHUNKS = 1 << (CHUNK_BITS - 1)
"""The number of the first chunk that tells, of the settled ones, those that the sink's filter did not select."""
_FOREIGN_KEPT_SECONDS = 30 * 86400.0
"""After so long a settled event of another publisher is forgotten."""


class SettledBitmap:
    """The settled marks of one book, or with `filtered` those that its filter set, read as they are asked for."""

    def __init__(self, db: Connection, book: int, *, filtered: bool = False) -> None:
        self._db = db
        self._first = (book << CHUNK_BITS) + filtered * _FILTERED_CHUNKS
        self._chunks: dict[int, bytearray] = {}

    def _chunk(self, number: int) -> bytearray:
        bits = self._chunks.get(number)
        if bits is None:
            row = self._db.execute("SELECT bits FROM mark WHERE key = ?", (self._first + number,)).fetchone()
            bits = self._chunks[number] = bytearray(row[0] if row else CHUNK_ITEMS // 8)
        return bits

    def has(self, seq: int) -> bool:
        """Say whether a number is marked."""
        chunk, offset = divmod(seq, CHUNK_ITEMS)
        return bool(self._chunk(chunk)[offset >> 3] & (1 << (offset & 7)))

    def write(self, seqs: Iterable[int], *, settled: bool) -> None:
        """Mark numbers, or take their marks away."""
        touched = set()
        for seq in seqs:
            chunk, offset = divmod(seq, CHUNK_ITEMS)
            bits, mask = self._chunk(chunk), 1 << (offset & 7)
            bits[offset >> 3] = bits[offset >> 3] | mask if settled else bits[offset >> 3] & ~mask
            touched.add(chunk)
        self._db.executemany(
            "INSERT OR REPLACE INTO mark VALUES (?, ?)",
            [(self._first + chunk, bytes(self._chunks[chunk])) for chunk in touched],
        )


def by_source(positions: Iterable[Position]) -> dict[str, list[int]]:
    """Return the numbers of each source, in order."""
    groups: dict[str, list[int]] = {}
    for source, seq in positions:
        groups.setdefault(source, []).append(seq)
    return groups


def find_book(db: Connection, sink: str, source: str) -> int | None:
    """Return the number of a book; None if there is none."""
    row = db.execute("SELECT id FROM book WHERE sink = ? AND source = ?", (sink, source)).fetchone()
    return None if row is None else int(row[0])


def book_of(db: Connection, sink: str, source: str) -> int:
    """Return the number of a book, which is made if there is none."""
    book = find_book(db, sink, source)
    if book is None:
        return int(db.execute("INSERT INTO book (sink, source) VALUES (?, ?)", (sink, source)).lastrowid or 0)
    return book


def count(
    db: Connection, book: int, *, delivered: int = 0, waiting: int = 0, dead: int = 0, discarded: int = 0
) -> None:
    """Add to the counts of a book."""
    db.execute(
        "UPDATE book SET taken = taken + ?, waiting = waiting + ?, dead = dead + ?, discarded = discarded + ? "
        "WHERE id = ?",
        (delivered, waiting, dead, discarded, book),
    )


def rows_of(db: Connection, book: int, seqs: Sequence[int]) -> dict[int, tuple[int, str | None]]:
    """Return state and partition of those that are waiting or dead, by number."""
    rows = db.execute(
        "SELECT seq, state, lane FROM delivery WHERE book = ? AND seq IN (SELECT value FROM json_each(?))",
        (book, json.dumps(list(seqs))),
    )
    return {seq: (state, partition) for seq, state, partition in rows}


def waiting_rows(rows: Mapping[int, tuple[int, str | None]]) -> dict[int, str | None]:
    """Return the rows that are no dead letters, with their partitions."""
    return {seq: partition for seq, (state, partition) in rows.items() if state != DEAD}


def delete_rows(db: Connection, book: int, seqs: Iterable[int]) -> None:
    """Delete the rows of deliveries."""
    db.executemany("DELETE FROM delivery WHERE book = ? AND seq = ?", [(book, seq) for seq in seqs])


def insert_delivery(
    db: Connection, sink: str, book: int, seq: int, partition: str | None, due: float, held_due: float
) -> bool:
    """Make a delivery wait, at the end of its partition if it has one; return whether nothing is before it."""
    if partition is None:
        db.execute("INSERT INTO delivery (book, seq, sink, state, due) VALUES (?, ?, ?, 0, ?)", (book, seq, sink, due))
        return True
    where = (sink, partition)
    last = db.execute("SELECT max(rank) FROM delivery WHERE sink = ? AND lane = ? AND state < 2", where).fetchone()[0]
    values = (
        book,
        seq,
        sink,
        DUE if last is None else HELD,
        due if last is None else held_due,
        partition,
        (last or 0) + 1,
    )
    db.execute("INSERT INTO delivery (book, seq, sink, state, due, lane, rank) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    return last is None


def accept_rows(
    db: Connection, sink: str, arrivals: Sequence[NewDelivery], due: float, held_due: float
) -> tuple[int, list[Position]]:
    """Accept what is unknown; return how many there were, and those that are due."""
    known: dict[str, tuple[int, SettledBitmap, set[int]]] = {}
    for source, seqs in by_source(arrival.position for arrival in arrivals).items():
        book = book_of(db, sink, source)
        known[source] = (book, SettledBitmap(db, book), set(rows_of(db, book, seqs)))
    ready: list[Position] = []
    unknown: dict[int, int] = {}
    for position, partition in ((arrival.position, arrival.partition) for arrival in arrivals):
        book, marks, present = known[position.source]
        if position.seq in present or marks.has(position.seq):
            continue
        present.add(position.seq)
        unknown[book] = unknown.get(book, 0) + 1
        if insert_delivery(db, sink, book, position.seq, partition, due, held_due):
            ready.append(position)
    for book, number in unknown.items():
        count(db, book, waiting=number)
    return sum(unknown.values()), ready


def release_partitions(db: Connection, sink: str, partitions: Iterable[str], now: float) -> int:
    """Make the first of each partition due that is still held; return how many are due now."""
    number = 0
    for partition in dict.fromkeys(partitions):
        row = db.execute(
            "SELECT book, seq, state, due FROM delivery WHERE sink = ? AND lane = ? AND state < 2 "
            "ORDER BY rank LIMIT 1",
            (sink, partition),
        ).fetchone()
        if row is not None and row[2] == HELD:
            due = max(row[3], now)
            db.execute("UPDATE delivery SET state = 0, due = ? WHERE book = ? AND seq = ?", (due, row[0], row[1]))
            number += due <= now
    return number


def write_attempt(db: Connection, book: int, seq: int, attempt: Attempt | None) -> None:
    """Add a try to the history; one that is told again, because its telling seemed to fail, is one try."""
    if attempt is not None:
        written = json.dumps([attempt.at, attempt.error, attempt.kind])
        db.execute(
            "UPDATE delivery SET tries = coalesce(tries || char(10), '') || ?1 WHERE book = ?2 AND seq = ?3 "
            "AND substr(coalesce(tries, ''), -length(?1)) <> ?1",
            (written, book, seq),
        )


def write_answer(db: Connection, book: int, seq: int, answer: KeptAnswer | None) -> None:
    """Keep what the endpoint answered, in the place of what it may have answered before."""
    if answer is None:
        db.execute("DELETE FROM answer WHERE book = ? AND seq = ?", (book, seq))
    else:
        db.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)", (book, seq, answer.status, answer.body))


def filter_out_rows(db: Connection, book: int, seqs: Sequence[int]) -> int:
    """Settle what is unknown, as not selected by the sink's filter; return how many there were."""
    marks, present = SettledBitmap(db, book), rows_of(db, book, seqs)
    unknown = [seq for seq in dict.fromkeys(seqs) if seq not in present and not marks.has(seq)]
    marks.write(unknown, settled=True)
    SettledBitmap(db, book, filtered=True).write(unknown, settled=True)
    count_apart(db, "filtered", book, len(unknown))
    return len(unknown)


def unsettle(db: Connection, book: int, seq: int) -> None:
    """Make a settled number unknown again, and take it out of the count in which it stands."""
    SettledBitmap(db, book).write([seq], settled=False)
    filtered = SettledBitmap(db, book, filtered=True)
    unsent = db.execute("SELECT kind FROM unsent WHERE book = ? AND seq = ?", (book, seq)).fetchone()
    if unsent is not None:
        db.execute("DELETE FROM unsent WHERE book = ? AND seq = ?", (book, seq))
    if filtered.has(seq):
        filtered.write([seq], settled=False)
        count_apart(db, "filtered", book, -1)
        return
    if unsent is not None:
        count_apart(db, "expired", book, -1)
        return
    discarded = db.execute("DELETE FROM discarded WHERE book = ? AND seq = ?", (book, seq)).rowcount
    count(db, book, discarded=-discarded, delivered=discarded - 1)


_ADD_APART = {
    "filtered": "INSERT INTO filtered VALUES (?, ?) ON CONFLICT (book) DO UPDATE SET number = number + excluded.number",
    "expired": "INSERT INTO expired VALUES (?, ?) ON CONFLICT (book) DO UPDATE SET number = number + excluded.number",
}


def count_apart(db: Connection, table: Literal["filtered", "expired"], book: int, number: int) -> None:
    """Add to a count of a book that has a table of its own."""
    db.execute(_ADD_APART[table], (book, number))


def forget_marks(db: Connection, book: int, before: int) -> None:
    """Drop the marks of numbers below one."""
    chunk = before // CHUNK_ITEMS
    for first, filtered in ((book << CHUNK_BITS, False), ((book << CHUNK_BITS) + _FILTERED_CHUNKS, True)):
        db.execute("DELETE FROM mark WHERE key >= ? AND key < ?", (first, first + chunk))
        SettledBitmap(db, book, filtered=filtered).write(range(chunk * CHUNK_ITEMS, before), settled=False)


def forget_answers(db: Connection, book: int, rows: Mapping[int, tuple[int, str | None]]) -> None:
    """Forget the answers to those that were dead letters."""
    dead = [(book, seq) for seq, (state, _) in rows.items() if state == DEAD]
    if dead:
        db.executemany("DELETE FROM answer WHERE book = ? AND seq = ?", dead)


def accept_foreign_event(db: Connection, sink: str, event: WireEvent, now: float) -> int:
    """Keep an event of another publisher, and return its number."""
    row = db.execute("SELECT seq FROM adopted WHERE sink = ? AND id = ?", (sink, event.id)).fetchone()
    if row is not None:
        return int(row[0])
    old = db.execute(
        "SELECT seq FROM adopted WHERE sink = ? AND at <= ? ORDER BY at LIMIT 10", (sink, now - _FOREIGN_KEPT_SECONDS)
    ).fetchall()
    book = book_of(db, sink, f"@{sink}")
    kept = rows_of(db, book, [seq for (seq,) in old])
    for (seq,) in old:
        if seq in kept:
            db.execute("UPDATE adopted SET at = ? WHERE seq = ?", (now, seq))
        else:
            db.execute("DELETE FROM adopted WHERE seq = ?", (seq,))
            db.execute("DELETE FROM unsent WHERE book = ? AND seq = ?", (book, seq))
    values = (sink, event.id, now, event.topic, event.time, event.body)
    cursor = db.execute("INSERT INTO adopted (sink, id, at, topic, time, body) VALUES (?, ?, ?, ?, ?, ?)", values)
    return int(cursor.lastrowid or 0)


def delivery_of(sink: str, row: Sequence[Any]) -> Delivery:
    """Return a row as a delivery."""
    source, seq, due, state, reason, tries, *answer = row
    attempts = tuple(Attempt(*json.loads(line)) for line in tries.split("\n")) if tries else ()
    kept = KeptAnswer(*answer) if answer and answer[0] is not None else None
    state = "dead" if state == DEAD else "waiting"
    return Delivery(sink, Position(source, seq), due, attempts, state, reason or "", kept)
