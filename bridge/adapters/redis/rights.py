"""The rights that the store needs in Redis, tried without leaving anything behind."""

from __future__ import annotations

from collections.abc import Collection

from bridge.adapters import lua
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.adapters.redis_rights import Rights, commands_of, missing, queued, summary
from bridge.domain.errors import MissingRight

PAGE = "docs/how-to/set-up-redis.md"
_SENT = frozenset(
    {
        "EVAL", "EVALSHA", "EXISTS", "GET", "GETBIT", "HDEL", "HGET", "HGETALL", "HMGET", "HSET", "HSETNX", "PING",
        "SADD", "SCAN", "SET", "SISMEMBER", "SMEMBERS", "SREM", "XRANGE", "ZRANGE", "ZRANK", "ZSCAN", "ZSCORE",
    }
)  # fmt: skip
"""Commands that the store sends by itself; its scripts call more."""


def needed() -> frozenset[str]:
    """Return all commands that the store needs."""
    return _SENT | commands_of(lua.load_all("bridge.adapters.redis"))


async def check_rights(link: RedisClient, keys: Keys, sources: Collection[str], sinks: Collection[str]) -> None:
    """Raise `MissingRight` that names what the user may not do with the keys of these sources and sinks."""
    places = [
        keys.common("check"),
        keys.lease("check"),
        keys.roster,
        *(f"{keys.source(name)}:s" for name in sources),
        *(f"{keys.sink(name)}:due" for name in sinks),
    ]
    said: dict[str, None] = {}
    for place in places:  # one by one: in a cluster, each lies elsewhere
        commands = Rights(needed(), [place]).commands()
        answers = await link.queue_and_discard(place, commands)
        with link.translated():
            said.update(dict.fromkeys(missing(queued(commands), answers)))
    if said:
        raise MissingRight(f"{link.place} {summary(list(said), PAGE)}")
