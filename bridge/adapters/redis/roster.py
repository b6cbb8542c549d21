"""The roster in Redis: two small hashes in one slot; the server's own time decides who is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.adapters import roster_records as records
from bridge.adapters.lua import load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.protocols.roster import Member, Mute, Orders, Pause, Presence, RosterAnswer, StartedPoll

_ANNOUNCE, _ROSTER, _WITHDRAW_POLL = (
    load("bridge.adapters.redis", name) for name in ("announce", "roster", "withdraw_poll")
)


class RedisRoster:
    """`Roster` on Redis 6.2 or later."""

    def __init__(self, link: RedisClient, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def announce(self, member: Member, ttl: float, started: Sequence[StartedPoll] = ()) -> RosterAnswer:
        """Say for `ttl` seconds that a process runs; return the orders, and who else runs."""
        words = [word for poll in started for word in (poll.source, poll.request, records.pack(poll))]
        times = (round(ttl * 1000), round(records.KEPT_SECONDS * 1000))
        now, orders, members = await self._link.run(
            _ANNOUNCE, [self._keys.roster], member.owner, records.pack(member), *times, *words
        )  # fmt: skip
        return RosterAnswer(records.read_orders(_texts(orders)), _presences(now, members))

    async def leave(self, owner: str) -> None:
        """Forget a process that ends in good order."""
        await self._link.command("HDEL", f"{self._keys.roster}:members", owner)

    async def presences(self) -> Sequence[Presence]:
        """Return the processes by the time at which they started; writes nothing."""
        return _presences(*await self._link.run(_ROSTER, [self._keys.roster]))

    async def orders(self) -> Orders:
        """Return the orders; writes nothing."""
        answer = await self._link.command("HGETALL", f"{self._keys.roster}:orders")
        return records.read_orders({name.decode(): value.decode() for name, value in answer.items()})

    async def pause(self, part: str, pause: Pause) -> bool:
        """Have a part rest until it is resumed; False if it is paused already, and stays so as it was."""
        values = (records.pause_field(part), records.pack(pause))
        return bool(await self._link.command("HSETNX", f"{self._keys.roster}:orders", *values))

    async def resume(self, part: str) -> bool:
        """Have a part work again; False if it was not paused."""
        return bool(await self._link.command("HDEL", f"{self._keys.roster}:orders", records.pause_field(part)))

    async def keep_mute(self, mute: Mute) -> None:
        """Keep a mute, in the place of one with the same id."""
        await self._link.command("HSET", f"{self._keys.roster}:orders", records.mute_field(mute.id), records.pack(mute))

    async def forget_mute(self, id: str) -> None:  # noqa: A002 - what the mute calls it
        """Forget a mute."""
        await self._link.command("HDEL", f"{self._keys.roster}:orders", records.mute_field(id))

    async def request_poll(self, source: str, request: str) -> None:
        """Ask the process that polls a source to do so now; a new request replaces an older one."""
        await self._link.command("HSET", f"{self._keys.roster}:orders", records.poll_field(source), request)

    async def withdraw_poll(self, source: str, request: str) -> bool:
        """Take a request back; False if a process has begun it, or another request has replaced it."""
        return bool(await self._link.run(_WITHDRAW_POLL, [self._keys.roster], records.poll_field(source), request))


def _presences(now: bytes, members: Sequence[Any]) -> list[Presence]:
    """Read all processes from a script's answer; `now` is the server's time."""
    presences = []
    for text in _texts(members).values():
        ends, announced, record = text.split(" ", 2)
        presences.append(
            records.presence(record, float(announced) / 1000, float(ends) / 1000, float(now) / 1000)
        )  # fmt: skip
    return records.by_start(presences)


def _texts(answer: Sequence[Any]) -> dict[str, str]:
    """Read a script's `HGETALL`: name and value by turns."""
    words = [word.decode() for word in answer]
    return dict(zip(words[::2], words[1::2], strict=True))
