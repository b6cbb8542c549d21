"""One Redis, however it is reached: URLs, time limits, scripts, and every failure named in one place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions as failures
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from bridge.adapters.lua import Script
from bridge.adapters.redis.connect import Client, connector
from bridge.adapters.redis_rights import Command, queued
from bridge.adapters.redis_url import parse_redis_url
from bridge.adapters.redis_words import redis_reason, redis_refusal


def describe(url: str) -> str:
    """Return `url` as it may be shown: without its password and its options."""
    plain = url.partition("?")[0]
    scheme, separator, rest = plain.partition("://")
    if not separator:
        return "a URL without a scheme"
    user, at, place = rest.rpartition("@")
    name = user.partition(":")[0]
    return f"{scheme}://{name}@{place}" if at and re.fullmatch(r"[\w.%-]+", name) else f"{scheme}://{place}"


class RedisClient:
    """A connection pool to one Redis, a Sentinel's primary or a cluster; connects by itself, on the next call.

    No command is ever sent a second time behind the caller's back: a script may have been run although its answer was
    lost, and only the caller knows what that means. Calls end within `timeout` seconds, plus as much for connecting.
    """

    def __init__(self, url: str, *, timeout: float, connections: int) -> None:
        self.place = describe(url)
        self._timeout = timeout
        try:
            address = parse_redis_url(url)
        except ValueError as error:
            raise ValueError(f"the store's URL {error}") from None
        self._connect = connector(address, timeout, connections)
        self._client: Client | None = None
        self._close: Callable[[], Awaitable[None]] | None = None

    @property
    def client(self) -> Client:
        """The library's client, made at first use."""
        if self._client is None:
            self._client, self._close = self._connect()
        return self._client

    async def close(self) -> None:
        """Give back all connections."""
        if self._close is not None:
            close, self._client, self._close = self._close, None, None
            with self.translated():
                await close()

    async def command(self, *args: Any) -> Any:
        """Run one command."""
        with self.translated():
            return await self.client.execute_command(*args)

    async def commands(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run several commands in one round trip (one for each node of a cluster); not atomic."""
        if len(commands) == 1:
            return [await self.command(*commands[0])]
        with self.translated():
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute())

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Yield the names of all keys that match, on all nodes; a name may come twice."""
        names = self.client.scan_iter(match=pattern, count=1000)
        while True:
            with self.translated():
                name = await anext(names, None)
            if name is None:
                return
            yield name.decode()

    async def queue_and_discard(self, key: str, commands: Sequence[Command]) -> list[BaseException | None]:
        """Have commands queued where `key` lies, and thrown away; return what the server said, None if allowed.

        There is an answer to each of `queued(commands)`, or only that to the first of them if it is refused.
        """
        with self.translated():
            client = self.client
            await client.initialize()
            owner: Any = client.get_node_from_key(key) if isinstance(client, RedisCluster) else client.connection_pool
            if owner is None:
                raise failures.ClusterDownError("no node has the key's slot")
            connection = owner.acquire_connection() if isinstance(owner, ClusterNode) else await owner.get_connection()
            try:
                return await _answers(connection, queued(commands))
            finally:
                await connection.disconnect()  # whatever was queued goes with it
                if isinstance(owner, ClusterNode):
                    owner.release(connection)
                else:
                    await owner.release(connection)

    async def server_info(self) -> dict[str, str]:
        """Return what the server says of itself (`INFO`); of a cluster, one node's answer."""
        answer = await self.command("INFO")
        values = list(answer.values())
        info = values[0] if values and "redis_version" not in answer and isinstance(values[0], dict) else answer
        return {str(name): str(value) for name, value in info.items()}

    async def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Run a script; its text travels only to a server that does not know it yet."""
        with self.translated():
            client = self.client
            try:
                return await client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except failures.NoScriptError:
                return await client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn whatever the library raises into `Unavailable`, and let no cancellation be lost.

        The library sends under `asyncio.wait_for`, which up to Python 3.11 swallows a cancellation that comes together
        with its result: the caller that was cancelled would go on for ever, and so would all that wait for it.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            yield
        except (failures.RedisError, failures.RedisClusterException, OSError, TimeoutError) as error:
            if task is not None and task.cancelling() > before:
                raise asyncio.CancelledError from error
            raise redis_refusal(error)(f"{self.place} {redis_reason(error, self._timeout)}") from error
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _answers(connection: Any, commands: Sequence[Command]) -> list[BaseException | None]:
    """Send the first command, and the others only if it is allowed."""
    await connection.connect()
    answers: list[BaseException | None] = []
    for part in (commands[:1], commands[1:]):
        for command in part:
            await connection.send_command(*command)
        answers += [await _refusal(connection) for _ in part]
        if answers[0] is not None:
            break
    return answers


async def _refusal(connection: Any) -> BaseException | None:
    try:
        await connection.read_response()
    except failures.ResponseError as error:
        return error
    return None
