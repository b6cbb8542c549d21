"""The rows of journals: events by number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection

from bridge.adapters.sqlite.schema import SEQ_BITS
from bridge.domain.event import WireEvent

_ROW_OVERHEAD_BYTES = 48
"""Roughly what a row adds to an event's own bytes."""
_TRIM_STEP_ENTRIES = 5000


def append(db: Connection, source: int, committed: int, events: Sequence[WireEvent]) -> int:
    """Append events to a journal, and return the number of the last one."""
    if not events:
        return committed
    base = (source << SEQ_BITS) + committed + 1
    db.executemany(
        "INSERT INTO journal VALUES (?, ?, ?, ?, ?)",
        [(base + index, event.id, event.topic, event.time, event.body) for index, event in enumerate(events)],
    )
    size = sum(len(event.body) + len(event.id) + len(event.topic) + _ROW_OVERHEAD_BYTES for event in events)
    db.execute(
        "UPDATE source SET committed = committed + ?, bytes = bytes + ? WHERE id = ?", (len(events), size, source)
    )
    return committed + len(events)


def key_base(db: Connection, source: str) -> int:
    """Return what is added to the numbers of a journal in its keys."""
    row = db.execute("SELECT id FROM source WHERE name = ?", (source,)).fetchone()
    return -1 << SEQ_BITS if row is None else int(row[0]) << SEQ_BITS


def journalled(db: Connection, source: str, seqs: Sequence[int]) -> list[tuple[int, WireEvent]]:
    """Return events of a journal by their numbers."""
    base = key_base(db, source)
    rows = db.execute(
        "SELECT key, id, topic, time, body FROM journal WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps([base + seq for seq in seqs]),),
    )
    return [(key - base, WireEvent(*rest)) for key, *rest in rows]


def foreign_events(db: Connection, source: str, seqs: Sequence[int]) -> list[tuple[int, WireEvent]]:
    """Return events of other publishers by their numbers."""
    rows = db.execute(
        "SELECT seq, id, topic, time, body FROM adopted WHERE sink = ? AND seq IN (SELECT value FROM json_each(?))",
        (source[1:], json.dumps(list(seqs))),
    )
    return [(seq, WireEvent(*rest)) for seq, *rest in rows]


def trim_journal(db: Connection, source: str, before: int) -> tuple[int, bool]:
    """Forget one step's worth of the oldest entries; return how many, and whether more are to go."""
    row = db.execute("SELECT id, first, confirmed, bytes, committed FROM source WHERE name = ?", (source,)).fetchone()
    if row is None:
        return 0, False
    number, first, confirmed, size, committed = row
    target = min(before, confirmed + 1)
    cut = min(target, first + _TRIM_STEP_ENTRIES)
    if cut <= first:
        return 0, False
    base = number << SEQ_BITS
    gone = db.execute("DELETE FROM journal WHERE key >= ? AND key < ?", (base + first, base + cut)).rowcount
    kept = size * (committed + 1 - cut) // (committed + 1 - first)
    db.execute("UPDATE source SET first = ?, bytes = ? WHERE id = ?", (cut, kept, number))
    return gone, cut < target
