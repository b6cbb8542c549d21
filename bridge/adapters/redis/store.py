"""One Redis as the bridge's whole memory: ledger, deliveries, roster and hints over one connection pool."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from bridge.adapters.redis.client import RedisClient, describe
from bridge.adapters.redis.deliveries import RedisDeliveries
from bridge.adapters.redis.hints import RedisHints
from bridge.adapters.redis.keys import Keys
from bridge.adapters.redis.ledger import RedisLedger
from bridge.adapters.redis.mark import RedisMark
from bridge.adapters.redis.rights import check_rights
from bridge.adapters.redis.roster import RedisRoster
from bridge.adapters.redis.unsent import RedisUnsent
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.installation import Mark
from bridge.domain.namespace import DEFAULT, Namespace

__all__ = ["RedisStore", "describe"]

log = structlog.get_logger()
_OLDEST = (6, 2)


class RedisStore(RedisLedger, RedisDeliveries, RedisUnsent, RedisRoster, RedisHints):
    """`Ledger`, `DeliveryStore`, `Roster` and `HintStore` in one Redis (6.2 or later).

    That is a server, a Sentinel's primary, or a Redis Cluster.

    `url` is `redis://`, `rediss://`, `unix://`, `redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY/DB` or
    `redis+cluster://HOST:PORT,HOST:PORT` (both also with `rediss`); raises `ValueError`, without the password, for
    another one. Nothing is connected before the first call, and after a failure the next call connects again.
    Keys start with the stem of `namespace`. A new journal's numbers follow `begin`; by default they go by the clock,
    so that a server that was emptied never gives a number twice. A call fails with `Unavailable` when no answer came
    within `timeout` seconds. One that is `read_only` does not ask how the server is set up.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: Namespace = DEFAULT,
        clock: Clock,
        timeout: float = 5.0,
        connections: int = 32,
        begin: int | None = None,
        read_only: bool = False,
    ) -> None:
        self._read_only = read_only
        link = RedisClient(url, timeout=timeout, connections=connections)
        keys = Keys(namespace.stem)
        RedisLedger.__init__(self, link, keys, clock, begin=begin)
        RedisDeliveries.__init__(self, link, keys, clock)
        RedisUnsent.__init__(self, link, keys)
        RedisRoster.__init__(self, link, keys)
        RedisHints.__init__(self, link, keys, clock)
        self._mark = RedisMark(link, keys.common("installation"))

    @property
    def place(self) -> str:
        """Where the store is, without credentials."""
        return self._link.place

    async def open(self) -> None:
        """Connect, and say in the log what would let the server forget; raises `Unavailable` if it cannot be used."""
        await self._link.command("PING")  # one without memory can be used: what ends deliveries gives it back
        if self._read_only:
            return
        try:
            facts = await self._link.server_info()
        except Unavailable as error:
            log.info("store.info_denied", store=self._link.place, reason=str(error))
            return
        version = facts.get("redis_version", "")
        if version and tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise Unavailable(f"{self._link.place} is Redis {version}; the bridge needs 6.2 or later")
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
            risk = "statuses may vanish and their events be sent again; set maxmemory-policy noeviction"
            log.warning("store.may_evict", store=self._link.place, policy=policy, consequence=risk)
        if facts.get("aof_enabled") == "0":
            risk = "a crash of the server loses what it has not saved; set appendonly yes"
            log.warning("store.not_appendonly", store=self._link.place, consequence=risk)

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the store has; None if it has none."""
        return await self._mark.read()

    async def claim_for(self, mark: Mark) -> Mark:
        """Return the store's mark, `mark` if it had none; every later call is refused where another one is met."""
        return await self._mark.claim(mark)

    async def take_over(self, mark: Mark) -> None:
        """Give the store this mark instead of its own."""
        await self._mark.write(mark)

    async def ping(self) -> None:
        """Return if the store answers, can be written to and is ours; one that was emptied gets its mark again."""
        await RedisLedger.ping(self)
        await self._mark.check()

    async def check_rights(self, sources: Collection[str], sinks: Collection[str]) -> None:
        """Try what the service does with these; nothing is executed, nothing is left behind."""
        await check_rights(self._link, self._keys, sources, sinks)

    async def close(self) -> None:
        """Give back connections."""
        await self._link.close()
