"""How an answer's bytes go out: whole, in drops, torn, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from bridge.simulator.provider_api import SimResponse

_BUFFER_BYTES = 1 << 20
_DRIP_SECONDS = 0.005


class Wire:
    """One connection, below HTTP: the bytes of one answer and what becomes of them."""

    def __init__(
        self,
        transport: asyncio.Transport,
        answer: SimResponse,
        sleep: Callable[[float], Awaitable[None]],
        stopped: asyncio.Event,
    ) -> None:
        self._transport = transport
        self.wait = sleep
        self._stopped = stopped
        self.answer = answer

    def head(self, length: int | None, **headers: str) -> bytes:
        """Return status line and headers; `length` is what they claim of the body, None makes it chunked."""
        lines = [f"HTTP/1.1 {self.answer.status} {HTTPStatus(self.answer.status).phrase}"]
        size = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        lines += [f"{name}: {value}" for name, value in {**self.answer.headers, **size, **own}.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    async def send(self, data: bytes) -> None:
        """Send bytes and wait until most of them have left; the server cancels a handler whose client has left."""
        self._transport.write(data)
        await self._until_left(_BUFFER_BYTES)

    async def flush(self) -> None:
        """Wait until all bytes have left."""
        await self._until_left(0)

    async def _until_left(self, rest: int) -> None:
        while self._transport.get_write_buffer_size() > rest:
            await self.wait(_DRIP_SECONDS)

    async def hold(self) -> None:
        """Keep the connection open and silent, until the simulator stops."""
        await self._stopped.wait()

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


class WireResponse(web.StreamResponse):
    """An answer whose bytes are written by hand; the connection is closed behind it."""

    def __init__(self, deliver: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._deliver = deliver

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write nothing yet."""
        del request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Deliver, and tell aiohttp that the connection is not to be used again."""
        del data
        await self._deliver()
        raise ConnectionResetError("the connection ends here")


class NotifyingResponse(web.Response):
    """An ordinary answer that tells when it has been sent whole."""

    def __init__(self, answer: SimResponse, sent: Callable[[], None]) -> None:
        super().__init__(status=answer.status, body=answer.body, headers=answer.headers)
        self._sent = sent

    async def write_eof(self, data: bytes = b"") -> None:
        """Send, then tell."""
        await super().write_eof(data)
        self._sent()
