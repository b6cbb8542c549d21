"""The mark of an installation in Redis: one key, looked at with each new connection."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from redis import exceptions as failures
from redis.asyncio import Connection

from bridge.adapters.redis.client import ForeignServer, RedisClient
from bridge.domain.installation import Mark, other_store
from bridge.domain.namespace import Namespace


class RedisMark:
    """The mark in one store."""

    def __init__(self, link: RedisClient, key: str) -> None:
        self._link = link
        self._key = key
        self._own: Mark | None = None

    async def read(self) -> Mark | None:
        """Return the mark; None if there is none."""
        value: bytes | None = await self._link.command("GET", self._key)
        return None if value is None else Mark.parse(value.decode())

    async def claim(self, mark: Mark) -> Mark:
        """Return the mark that the store has, `mark` if it had none, and expect it of each new connection.

        It is read first: a server without memory refuses to write what is there already.
        """
        kept = await self.read()
        if kept is None:
            await self._link.command("SET", self._key, str(mark), "NX")
            kept = await self.read() or mark
        self._own, self._link.greeting = kept, partial(self._greet, kept)
        return kept

    async def write(self, mark: Mark) -> None:
        """Have the store keep this mark instead of the one that it has."""
        self._link.greeting = None
        await self._link.command("SET", self._key, str(mark))

    async def check(self) -> None:
        """Raise `OtherInstallation` if the store has another mark than the claimed one; an empty one gets it."""
        own = self._own
        if own is None:
            return
        present = await self.read()
        if present is None:
            await self._link.command("SET", self._key, str(own), "NX")
        elif present != own:
            raise other_store(self._link.place, present, Namespace(own.namespace))

    async def _greet(self, own: Mark, connection: Connection) -> None:
        """See that the server behind a new connection has the mark; an empty one gets it. Costs one round trip."""
        await connection.send_command("SET", self._key, str(own), "NX")
        await connection.send_command("GET", self._key)
        with suppress(failures.ResponseError):  # a replica, or no memory: what it holds counts all the same
            await connection.read_response()
        value = await connection.read_response()
        if value is not None and (present := Mark.parse(value.decode())) != own:
            raise ForeignServer(str(other_store(self._link.place, present, Namespace(own.namespace))))
