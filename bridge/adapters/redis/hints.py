"""The hints of pushes in Redis: one small hash for each source."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bridge.adapters.lua import load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.domain.clock import Clock
from bridge.protocols.hints import Hint

_ADD, _DROP = (load("bridge.adapters.redis", name) for name in ("add_hints", "drop_hints"))
_MICROSECONDS = 1_000_000
"""Microseconds in a second."""


class RedisHints:
    """`HintStore` on Redis 6.2 or later; what one call writes is written as one."""

    def __init__(self, link: RedisClient, keys: Keys, clock: Clock) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock

    async def add_hints(self, source: str, things: Collection[str], limit: int) -> bool:
        """Keep a hint for each of the things; False, and nothing is kept, if there would be more than `limit`."""
        now = round(self._clock.epoch() * _MICROSECONDS)
        return bool(await self._link.run(_ADD, [self._keys.source(source)], now, limit, *things))

    async def hints(self, source: str, limit: int) -> Sequence[Hint]:
        """Return up to `limit` hints, the oldest first; writes nothing."""
        fields = await self._link.command("HGETALL", f"{self._keys.source(source)}:h")
        hints = []
        for thing, value in fields.items():
            if thing:
                since, _, version = value.partition(b" ")
                hints.append(Hint(thing.decode(), int(since) / _MICROSECONDS, int(version)))
        return sorted(hints, key=_by_age)[:limit]

    async def count_hints(self, source: str) -> int:
        """Return how many things have a hint; writes nothing."""
        head = await self._link.command("HGET", f"{self._keys.source(source)}:h", "")
        return int(head.partition(b" ")[0]) if head else 0

    async def drop_hints(self, source: str, hints: Sequence[Hint]) -> None:
        """Forget hints, apart from those that had a further push since they were read."""
        words = [word for hint in hints for word in (hint.thing, hint.version)]
        if words:
            await self._link.run(_DROP, [self._keys.source(source)], *words)


def _by_age(hint: Hint) -> tuple[float, str]:
    return hint.since, hint.thing
