"""The names of the sources that have a journal or a cursor: asked for often, and changing rarely."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.domain.clock import Clock

_KNOWN_FOR_SECONDS = 60.0
"""Seconds for which a source that was there is not looked up again, as long as the set of names has it."""


class SourceNames:
    """Reads the set of names; it is written before a source's first commit, which may then have been refused."""

    def __init__(self, link: RedisClient, keys: Keys, clock: Clock) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._seen: dict[str, float] = {}
        """When each source was last looked up and there, in monotonic seconds."""

    async def read(self) -> Sequence[str]:
        """Return the names in alphabetical order."""
        names = sorted(name.decode() for name in await self._link.command("SMEMBERS", self._keys.common("sources")))
        now = self._clock.monotonic()
        self._seen = {name: at for name, at in self._seen.items() if name in names and now - at < _KNOWN_FOR_SECONDS}
        asked = [name for name in names if name not in self._seen]
        if asked:
            bases = [self._keys.source(name) for name in asked]
            exists = await self._link.commands([("EXISTS", f"{base}:s", f"{base}:c") for base in bases])
            self._seen |= {name: now for name, count in zip(asked, exists, strict=True) if count}
        return [name for name in names if name in self._seen]
