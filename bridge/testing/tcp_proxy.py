"""A TCP relay for fault tests: it carries a connection, and cuts it, holds it up or refuses it when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Self

_CHUNK_BYTES = 65_536


class TcpProxy:
    """Listens on a free port of 127.0.0.1 and carries each connection to `port`.

    `upstream` counts the bytes that clients sent and the upstream server received. With `tls` it speaks TLS to its
    clients, and plain TCP to the upstream server.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._cut_after: int | None = None
        self._refusing = False
        self.upstream = 0
        self.cuts = 0
        """How often connections were cut."""
        self.connections = 0
        """How many connections were made."""

    @property
    def port(self) -> int:
        """The port to connect to."""
        assert self._server is not None, "the relay has not been entered"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._refusing = True
        self.cut()
        for carrier in tuple(self._carriers):
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def cut(self) -> None:
        """End all connections at once, as a pulled plug does; new connections are forwarded again."""
        self._cut_after = None
        self.cuts += bool(self._writers)
        for writer in tuple(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def cut_after(self, upstream: int) -> None:
        """Cut as soon as clients have sent that many bytes from now on; what comes after them is not carried."""
        self._cut_after = self.upstream + upstream

    def refuse(self, *, refuse: bool = True) -> None:
        """End new connections before a byte was carried, or with False carry them again."""
        self._refusing = refuse

    def stall(self) -> None:
        """Carry nothing any more, in either direction; connections stay open."""
        self._flows.clear()

    def resume(self) -> None:
        """Forward what was delayed, and all that comes."""
        self._flows.set()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carriers.add(task)
        try:
            if self._refusing:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers |= {writer, far_writer}
            self.connections += 1
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, far_writer, counted=True))
                    both.create_task(self._pump(far_reader, writer, counted=False))
            finally:
                self._writers -= {writer, far_writer}
                far_writer.transport.abort()
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._carriers.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._flows.wait()
            left = None if self._cut_after is None or not counted else self._cut_after - self.upstream
            if left is not None and left <= len(chunk):
                writer.write(chunk[:left])
                self.upstream += left
                with contextlib.suppress(OSError):
                    await writer.drain()
                self.cut()
                return
            writer.write(chunk)
            if counted:
                self.upstream += len(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
