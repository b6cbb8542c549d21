"""Listens on one address and bounds what listens cost: connections, their time, and file descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

MAX_CONNECTIONS = 64
"""Connections at once; a new one takes the place of the one that has asked nothing for longest."""
REQUEST_SECONDS = 10.0
"""Seconds in which a connection has to ask for something, first or again, and to take the answer."""
_BACKLOG_CONNECTIONS = 128
_SWEEP_SECONDS = 1.0
_RESERVED_DESCRIPTORS = 4
"""File descriptors that are kept for connections when all others are used up."""
_ACCEPTED_AT_ONCE_CONNECTIONS = 32
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


@dataclass(slots=True)
class Connection:
    """One accepted connection."""

    transport: asyncio.Transport
    since: float
    """When it was accepted, or began or ended its last request."""
    active: bool = False
    """Whether a request of it is being answered."""


class Listener:
    """Accepts connections, each for a protocol of its own.

    A few file descriptors are kept in reserve: even if all others are used up, connections are accepted and answered. A
    single one would not do: another thread may open a file before the connection is accepted.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
        serves: str = "the health pages",
    ) -> None:
        """Prepare; `serves` is what it is for, in the words of a log line."""
        self._serves = serves
        self._protocol = protocol
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._sockets: list[socket.socket] = []
        self.connections: dict[object, Connection] = {}
        """By protocol."""
        self._accepting: set[asyncio.Task[None]] = set()
        self._reserve: list[int] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; raises `OSError` if the address is taken."""
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, proto, _, address in dict.fromkeys(infos):
                self._sockets.append(_bound(socket.socket(family, kind, proto), address))
        except OSError:
            self.stop()
            raise
        self.port = int(self._sockets[0].getsockname()[1])
        self._keep_reserve()
        self._sweep()

    def stop(self) -> None:
        """Listen no more, and break the connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for task in self._accepting:
            task.cancel()
        for connection in self.connections.values():
            connection.transport.abort()
        self.connections.clear()
        while self._give_reserve():
            pass

    def begin_request(self, protocol: object) -> None:
        """Note that a request came on a connection."""
        self._note(protocol, active=True)

    def end_request(self, protocol: object) -> None:
        """Note that its answer is made."""
        self._note(protocol, active=False)

    def _note(self, protocol: object, *, active: bool) -> None:
        if connection := self.connections.get(protocol):
            connection.active = active
            connection.since = asyncio.get_running_loop().time()

    # accepting

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE_CONNECTIONS):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._on_accept_error(listening, error)
                return
            accepted.setblocking(False)
            task = asyncio.ensure_future(self._connect(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _on_accept_error(self, listening: socket.socket, error: OSError) -> None:
        if error.errno in _OUT_OF_DESCRIPTORS and (self._evict() or self._give_reserve()):
            return  # the loop calls again at once: the connection still waits
        asyncio.get_running_loop().remove_reader(listening)  # until the next sweep
        log.warning(
            "http.cannot_accept", reason=error.strerror or "it is refused",
            consequence=f"nobody is connected to {self._serves} until it can",
        )  # fmt: skip

    async def _connect(self, accepted: socket.socket) -> None:
        while len(self.connections) >= self._max_connections and self._evict():
            log.warning(
                "http.too_many_connections", connections=self._max_connections,
                consequence="the one that has asked nothing for longest is closed",
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.connect_accepted_socket(self._protocol, accepted)
        except BaseException:
            accepted.close()
            raise
        self.connections[protocol] = Connection(transport, loop.time())

    # bounds

    def _evict(self) -> bool:
        """Break the connection that has asked nothing for longest; say whether there was one."""
        idle = [
            (connection.since, id(key), key) for key, connection in self.connections.items() if not connection.active
        ]
        if not idle:
            return False
        self.connections.pop(min(idle)[2]).transport.abort()
        return True

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)
        for protocol, connection in list(self.connections.items()):
            if not connection.transport.is_closing() and loop.time() - connection.since < self._request_seconds:
                continue
            connection.transport.abort()
            del self.connections[protocol]
        self._keep_reserve()
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    def _keep_reserve(self) -> None:
        with suppress(OSError):
            while len(self._reserve) < _RESERVED_DESCRIPTORS:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY))

    def _give_reserve(self) -> bool:
        if not self._reserve:
            return False
        os.close(self._reserve.pop())
        return True


def _bound(listening: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG_CONNECTIONS)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
