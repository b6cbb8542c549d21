"""How the store connects to one Redis, to the primary that Sentinels name, or to a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import pack_command
from redis import exceptions as failures
from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff

from bridge.adapters.redis.renewal import Renewing
from bridge.adapters.redis_greeting import greeting
from bridge.adapters.redis_url import RedisUrl

Client = Redis | RedisCluster
Connector = Callable[[], tuple[Client, Callable[[], Awaitable[None]]]]


class _Packing:
    """A connection whose commands are packed by hiredis, as those of the library's synchronous connections are.

    The asynchronous ones do it in Python, word by word: a commit of 50 events has some 400 words. If the server closes
    the connection at once, the error has the words with which it did.
    """

    host: str
    port: Any

    async def connect(self) -> None:
        """Connect; called for a connection that is open, too."""
        try:
            await super().connect()  # type: ignore[misc]  # mixed into a connection of the library's
        except failures.ConnectionError as error:
            plain = not isinstance(self, SSLConnection | UnixDomainSocketConnection)
            said = await asyncio.to_thread(greeting, self.host, int(self.port)) if plain else None
            if said is None:
                raise
            raise failures.ConnectionError(said) from error

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it travels; its name may have two words."""
        name, *words = args
        return [pack_command((*name.split(), *words))]


class _Plain(_Packing, Connection):
    pass


class _Secure(_Packing, Renewing, SSLConnection):
    pass


class _Socket(_Packing, UnixDomainSocketConnection):
    pass


class _Primary(_Packing, SentinelManagedConnection):
    pass


class _SecurePrimary(_Packing, Renewing, SentinelManagedSSLConnection):
    pass


def connector(url: RedisUrl, timeout: float, connections: int) -> Connector:
    """Return what makes a client, and what closes it; calls and connecting end within `timeout` seconds each."""
    options: dict[str, Any] = {
        "socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2, "retry": Retry(NoBackoff(), 0),
        "username": url.username, "password": url.password, **url.server,
    }  # fmt: skip
    match url.kind:
        case "sentinel":
            return _sentinel(url, options, connections)
        case "cluster":
            return _cluster(url, options, connections)
    return _single(url, options, connections)


def _single(url: RedisUrl, options: dict[str, Any], connections: int) -> Connector:
    arguments = {**options, "db": url.database}
    kind: type[Any] = _Secure if url.tls else _Plain
    if url.kind == "unix":
        kind = _Socket
        del arguments["socket_connect_timeout"]
        arguments["path"] = url.path
    else:
        arguments["host"], arguments["port"] = url.hosts[0]

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        pool = BlockingConnectionPool(connections, options["socket_timeout"], connection_class=kind, **arguments)
        client = Redis.from_pool(pool)
        return client, client.aclose

    return connect


def _sentinel(url: RedisUrl, options: dict[str, Any], connections: int) -> Connector:
    kind: type[Any] = _SecurePrimary if url.tls else _Primary
    server = {**options, "db": url.database, "max_connections": connections, "connection_class": kind}
    sentinel = {**options, "username": None, "password": None, **url.sentinel}
    if url.tls:  # the Sentinels are behind the same authority as what they watch
        sentinel["ssl"] = True

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        manager = Sentinel(list(url.hosts), sentinel_kwargs=sentinel)  # type: ignore[no-untyped-call]  # the library has no types here
        for watcher in manager.sentinels:
            watcher.connection_pool.connection_class = _Secure if url.tls else _Plain
        client = manager.master_for(url.path, **server)

        async def close() -> None:
            await client.aclose()
            await manager.aclose()

        return client, close

    return connect


def _cluster(url: RedisUrl, options: dict[str, Any], connections: int) -> Connector:
    kind: type[Any] = _Secure if url.tls else _Plain
    late = {name: options.pop(name) for name in ("ssl_ca_path",) if name in options}  # the library's client has no such

    def connect() -> tuple[Client, Callable[[], Awaitable[None]]]:
        nodes = [ClusterNode(host, port) for host, port in url.hosts]
        client = RedisCluster(startup_nodes=nodes, max_connections=connections, ssl=url.tls, **options)
        client.connection_kwargs.update(connection_class=kind, **late)  # of the nodes that are found later
        for node in client.startup_nodes:
            node.connection_class = kind
            node.connection_kwargs.update(late)
        return client, client.aclose

    return connect
