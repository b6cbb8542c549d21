"""Ids of handled events in Redis, which the subscribers of all machines share."""

from __future__ import annotations

from bridge.adapters import lua
from bridge.adapters.redis.client import RedisClient

_TIMEOUT_SECONDS = 5.0
_POOL_CONNECTIONS = 4
_SCRIPT = lua.load("bridge.adapters.redis", "seen", folder="client_scripts")  # the service needs no right for it


class RedisSeen:
    """`SeenEvents` of one queue in Redis: the last `keep_ids` ids, each for `keep_seconds` at most.

    The time is the server's, so the clocks of the subscribers' machines do not matter. Raises `ValueError` for a URL
    that no Redis can have.
    """

    def __init__(self, url: str, queue: str, *, keep_ids: int, keep_seconds: float) -> None:
        self._link = RedisClient(url, timeout=_TIMEOUT_SECONDS, connections=_POOL_CONNECTIONS)
        self._keys = [f"bridge.seen.{{{queue}}}.finished", f"bridge.seen.{{{queue}}}.tries"]
        self._window = (int(keep_seconds * 1000), keep_ids)

    async def begin(self, event_id: str, finished: str | None = None) -> int:
        """Note that `finished` is done, then count a try of `event_id`."""
        return int(await self._link.run(_SCRIPT, self._keys, finished or "", event_id, *self._window))

    async def finish(self, event_id: str) -> None:
        """Note that an event is done."""
        await self._link.run(_SCRIPT, self._keys, event_id, "", *self._window)

    async def forget_try(self, event_id: str) -> None:
        """Take back one try."""
        await self._link.command("HINCRBY", self._keys[1], event_id, -1)

    async def close(self) -> None:
        """Give back connections."""
        await self._link.close()
