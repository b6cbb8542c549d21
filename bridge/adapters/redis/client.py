"""One Redis, however it is reached: URLs, time limits, scripts, and every failure named in one place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from hiredis import pack_command
from redis import exceptions as failures
from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from bridge.adapters.lua import Script
from bridge.adapters.os_errors import os_error_reason
from bridge.domain.errors import AccessRefused, OtherInstallation, Unavailable

Client = Redis | RedisCluster
_SCHEMES = re.compile(r"(rediss?)(\+sentinel|\+cluster)?://(.*)|(unix)://(.*)", re.DOTALL)
Greeting = Callable[[Connection], Awaitable[None]]
_CODE = re.compile(
    r"-?\b(OOM|READONLY|LOADING|CLUSTERDOWN|MASTERDOWN|MISCONF|NOREPLICAS|BUSY|NOPERM|NOAUTH|WRONGTYPE)\b"
)
_MEANING = {
    "OOM": "is out of memory and takes no writes; raise its maxmemory",
    "READONLY": "is a read-only replica; nothing is written until a primary answers",
    "LOADING": "is still loading its data",
    "CLUSTERDOWN": "is a cluster with hash slots that no node serves",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "cannot persist its data and takes no writes; look at its disk",
    "NOREPLICAS": "has too few replicas and takes no writes",
    "BUSY": "is busy with a script of somebody else",
    "NOPERM": "refuses the command to this user; look at its ACL",
    "NOAUTH": "wants a password",
    "WRONGTYPE": "holds another program's data under our keys; use a database or a prefix of its own",
    "WRONGPASS": "refuses the credentials; look at the user and the password in its URL",
    "NONODE": "has no node that serves the whole cluster",
    "TIMEOUT": "did not answer within {timeout:g} s",
    "CONNECTION": "cannot be reached",
}
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (failures.OutOfMemoryError, "OOM"),
    (failures.ReadOnlyError, "READONLY"),
    (failures.BusyLoadingError, "LOADING"),
    (failures.NoPermissionError, "NOPERM"),
    (failures.AuthenticationError, "WRONGPASS"),
    (failures.ClusterDownError, "CLUSTERDOWN"),
    (failures.ClusterError, "NONODE"),
    (failures.RedisClusterException, "NONODE"),
    (failures.TimeoutError, "TIMEOUT"),
    (TimeoutError, "TIMEOUT"),
    (failures.ConnectionError, "CONNECTION"),
    (OSError, "CONNECTION"),
)
"""The library takes the code off the text of the errors that it knows; the first that fits counts."""
_REFUSED = frozenset({"NOPERM", "NOAUTH", "WRONGPASS"})


class ForeignServer(failures.RedisError):
    """A server that another installation uses: raised by a greeting, and said to the caller as it is."""


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
        self._connect = _connector(url, self.place, timeout, connections, self._greet)
        self.greeting: Greeting | None = None
        """Called with each new connection before it is used; not in a cluster."""
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

    async def _greet(self, connection: Connection) -> None:
        await connection.on_connect()
        if self.greeting is not None:
            await self.greeting(connection)

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
            if isinstance(error, ForeignServer):
                raise OtherInstallation(str(error)) from error
            code = _code(error)
            kind = AccessRefused if code in _REFUSED else Unavailable
            raise kind(f"{self.place} {self._reason(code, error)}") from error
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError

    def _reason(self, code: str, error: Exception) -> str:
        if not code:
            return f"answered with an error ({str(error).partition(' ')[0]})"
        meaning = _MEANING[code].format(timeout=self._timeout)
        why = os_error_reason(error) if code == "CONNECTION" else None
        return f"{meaning}: {why}" if why else meaning


def _code(error: Exception) -> str:
    match = _CODE.search(str(error))
    return match[1] if match is not None else next((name for kind, name in _KINDS if isinstance(error, kind)), "")


class _Packing:
    """A connection whose commands are packed by hiredis, as those of the library's synchronous connections are.

    The asynchronous ones do it in Python, word by word: a commit of 50 events has some 400 words.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it travels; its name may have two words."""
        name, *words = args
        return [pack_command((*name.split(), *words))]


def _packing(base: type[Connection]) -> type[Connection]:
    return type(f"Packing{base.__name__}", (_Packing, base), {})


Connector = Callable[[], tuple[Client, Callable[[], Awaitable[None]]]]


def _connector(url: str, place: str, timeout: float, connections: int, greet: Greeting) -> Connector:
    match = _SCHEMES.fullmatch(url)
    if match is None:
        raise ValueError(
            f"{place}: not a Redis URL; it starts with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    options: dict[str, Any] = {
        "socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2, "retry": Retry(NoBackoff(), 0),
    }  # fmt: skip
    try:
        match match[2]:
            case "+sentinel":
                return _sentinel(match[1], match[3], {**options, "redis_connect_func": greet}, connections)
            case "+cluster":
                return _cluster(match[1], match[3], options, connections)
            case _:
                return _single(url, {**options, "redis_connect_func": greet}, connections)
    except ValueError:
        # The library's text may quote a piece of a password that holds a reserved character.
        raise ValueError(f"{place}: cannot be read as a URL; percent-encode special characters of a password") from None


def _single(url: str, options: dict[str, Any], connections: int) -> Connector:
    arguments = {**options, **parse_url(url)}
    kind = arguments.pop("connection_class", Connection)
    if "path" in arguments:
        del arguments["socket_connect_timeout"]

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        pool = BlockingConnectionPool(
            connections, options["socket_timeout"], connection_class=_packing(kind), **arguments
        )
        client = Redis.from_pool(pool)
        return client, client.aclose

    return connect


def _hosts(text: str, port: int) -> tuple[str, list[tuple[str, int]]]:
    credentials, at, hosts = text.rpartition("@")
    pairs = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError("a host is missing")
        pairs.append((parts.hostname, parts.port or port))
    return credentials + at, pairs


def _split(rest: str) -> tuple[str, str, str]:
    plain, _, query = rest.partition("?")
    netloc, _, path = plain.partition("/")
    return netloc, path, query


def _server_options(scheme: str, credentials: str, query: str) -> dict[str, Any]:
    arguments = dict(parse_url(f"{scheme}://{credentials}localhost?{query}"))
    for name in ("host", "port", "connection_class"):
        arguments.pop(name, None)
    return arguments


def _sentinel(scheme: str, rest: str, options: dict[str, Any], connections: int) -> Connector:
    netloc, path, query = _split(rest)
    credentials, hosts = _hosts(netloc, 26379)
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("the name of the primary is missing")
    arguments = _server_options(scheme, credentials, query) | {"db": int(database or 0)}
    own = {
        name: arguments.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in arguments
    }

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        server: dict[str, Any] = {**options, **arguments, "max_connections": connections}
        sentinel: dict[str, Any] = {**options, **own}
        del sentinel["redis_connect_func"]  # that is for what the sentinels lead to
        if scheme == "rediss":
            server["ssl"] = sentinel["ssl"] = True
        manager = Sentinel(hosts, sentinel_kwargs=sentinel)  # type: ignore[no-untyped-call]  # the library has no types here
        client = manager.master_for(unquote(service), **server)

        async def close() -> None:
            await client.aclose()
            await manager.aclose()

        return client, close

    return connect


def _cluster(scheme: str, rest: str, options: dict[str, Any], connections: int) -> Connector:
    netloc, path, query = _split(rest)
    credentials, hosts = _hosts(netloc, 6379)
    if path not in {"", "0"}:
        raise ValueError("a cluster has only database 0")
    arguments = _server_options(scheme, credentials, query)

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        nodes = [ClusterNode(host, port) for host, port in hosts]
        client = RedisCluster(
            startup_nodes=nodes, max_connections=connections, ssl=scheme == "rediss", **options, **arguments
        )
        return client, client.aclose

    return connect
