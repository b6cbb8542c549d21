"""The roster in SQLite: rows among the notes, which every version of the file has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection

from bridge.adapters import roster_records as records
from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.domain.clock import Clock
from bridge.protocols.roster import Member, Mute, Orders, Pause, Presence, RosterAnswer, StartedPoll

_MEMBERS, _ORDERS = "roster/members", "roster/orders"
_READ = "SELECT key, value FROM note WHERE name = ?"
_WRITE = "INSERT OR REPLACE INTO note VALUES (?, ?, ?)"
_DELETE = "DELETE FROM note WHERE name = ? AND key = ?"
_DELETE_EQUAL = "DELETE FROM note WHERE name = ? AND key = ? AND value = ?"


class SqliteRoster:
    """`Roster` in one SQLite file; all its processes have the clock of one machine."""

    def __init__(self, file: SqliteDatabase, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    async def announce(self, member: Member, ttl: float, started: Sequence[StartedPoll] = ()) -> RosterAnswer:
        """Say for `ttl` seconds that a process runs; return the orders, and who else runs."""
        now = self._clock.epoch()

        def work(db: Connection) -> tuple[dict[str, str], list[tuple[str, str]]]:
            for owner, value in db.execute(_READ, (_MEMBERS,)).fetchall():
                if json.loads(value)[0] + records.KEPT_SECONDS < now:
                    db.execute(_DELETE, (_MEMBERS, owner))
            db.execute(_WRITE, (_MEMBERS, member.owner, json.dumps([now + ttl, now, records.pack(member)])))
            for poll in started:
                if db.execute(_DELETE_EQUAL, (_ORDERS, records.poll_field(poll.source), poll.request)).rowcount:
                    db.execute(_WRITE, (_ORDERS, records.started_field(poll.source), records.pack(poll)))
            return dict(db.execute(_READ, (_ORDERS,))), db.execute(_READ, (_MEMBERS,)).fetchall()

        orders, members = await self._file.writer.do(work)
        return RosterAnswer(records.read_orders(orders), _presences(members, now))

    async def leave(self, owner: str) -> None:
        """Forget a process that ends in good order."""
        await self._file.writer.do(lambda db: db.execute(_DELETE, (_MEMBERS, owner)))

    async def presences(self) -> Sequence[Presence]:
        """Return the processes by the time at which they started; writes nothing."""
        now = self._clock.epoch()
        rows = await self._file.reader.do(lambda db: db.execute(_READ, (_MEMBERS,)).fetchall())
        return _presences(rows, now)

    async def orders(self) -> Orders:
        """Return the orders; writes nothing."""
        return records.read_orders(await self._file.reader.do(lambda db: dict(db.execute(_READ, (_ORDERS,)))))

    async def pause(self, part: str, pause: Pause) -> bool:
        """Have a part rest until it is resumed; False if it is paused already, and stays so as it was."""
        values = (_ORDERS, records.pause_field(part), records.pack(pause))
        statement = "INSERT OR IGNORE INTO note VALUES (?, ?, ?)"
        return await self._file.writer.do(lambda db: db.execute(statement, values).rowcount) > 0

    async def resume(self, part: str) -> bool:
        """Have a part work again; False if it was not paused."""
        values = (_ORDERS, records.pause_field(part))
        return await self._file.writer.do(lambda db: db.execute(_DELETE, values).rowcount) > 0

    async def keep_mute(self, mute: Mute) -> None:
        """Keep a mute, in the place of one with the same id."""
        values = (_ORDERS, records.mute_field(mute.id), records.pack(mute))
        await self._file.writer.do(lambda db: db.execute(_WRITE, values))

    async def forget_mute(self, id: str) -> None:  # noqa: A002 - what the mute calls it
        """Forget a mute."""
        await self._file.writer.do(lambda db: db.execute(_DELETE, (_ORDERS, records.mute_field(id))))

    async def request_poll(self, source: str, request: str) -> None:
        """Ask the process that polls a source to do so now; a new request replaces an older one."""
        values = (_ORDERS, records.poll_field(source), request)
        await self._file.writer.do(lambda db: db.execute(_WRITE, values))

    async def withdraw_poll(self, source: str, request: str) -> bool:
        """Take a request back; False if a process has begun it, or another request has replaced it."""
        values = (_ORDERS, records.poll_field(source), request)
        return await self._file.writer.do(lambda db: db.execute(_DELETE_EQUAL, values).rowcount) > 0


def _presences(rows: Sequence[tuple[str, str]], now: float) -> list[Presence]:
    """Read all processes from their rows."""
    values = [json.loads(value) for _, value in rows]
    return records.by_start(records.presence(text, announced, ends, now) for ends, announced, text in values)
