"""A real HTTP server for tests of sinks and sources: it writes down what it gets; it answers or fails as it is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web

from bridge.testing.free_port import free_port

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it arrived."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    connection: int
    """Which connection brought it, counted from 1."""


Step = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""How one request is answered."""


def reply(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Step:
    """Answer at once."""

    async def step(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return step


def redirect(to: str, status: int = 302) -> Step:
    """Point elsewhere; `to` may be a path of this receiver."""
    return reply(status, headers={"Location": to})


def silence() -> Step:
    """Take the request and never answer; the connection stays open until the receiver stops or the caller leaves."""

    async def step(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.get_running_loop().create_future()
        return web.Response()

    return step


def drip(status: int = 200, interval: float = 0.02) -> Step:
    """Answer with a status at once, and then with a body that never ends, a byte every `interval` seconds."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(interval)

    return step


def flood(status: int = 200, block: int = 64 * 1024) -> Step:
    """Answer with a status at once, and then with a body that never ends, as fast as it is read."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while True:
            await response.write(b"." * block)

    return step


def reset() -> Step:
    """Answer nothing and reset the connection."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        _reset(request)
        return web.Response()

    return step


def torn(status: int = 200, body: bytes = b'{"ok"') -> Step:
    """Answer with a status and the beginning of a body, then reset the connection."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Length": str(len(body) + 100)})
        await response.prepare(request)
        await response.write(body)
        _reset(request)
        return response

    return step


def raw(answer: bytes) -> Step:
    """Answer with these bytes, whether or not they are HTTP, and close the connection."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(answer)
        request.transport.close()
        return web.Response()

    return step


def _reset(request: web.BaseRequest) -> None:
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    request.transport.abort()


class FakeEndpoint:
    """An HTTP server on 127.0.0.1; use it with `async with`.

    Every request is written to `requests` when its body has arrived. `answers` are used one by one, then `default`.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, default: Step | None = None) -> None:
        self.default = default or reply()
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        """How many connections were opened to it so far, by those that sent a request."""
        self.port = 0
        self._tls = tls
        self._answers: deque[Step] = deque()
        self._numbers: dict[object, int] = {}
        self._arrived = asyncio.Condition()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def answer(self, *steps: Step) -> None:
        """Answer the next requests so, one after the other."""
        self._answers.extend(steps)

    def forget(self) -> None:
        """Answer what comes next as by default, whatever was to be answered before."""
        self._answers.clear()

    async def arrived(self, count: int, within: float = 30.0) -> list[ReceivedRequest]:
        """Wait until `count` requests have come in all, and return them; raises `TimeoutError`."""
        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def start(self, port: int = 0) -> None:
        """Listen, on a free port or the given one."""
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        # Not one that the system chooses: while this one is stopped, it might choose the port again.
        await web.TCPSite(self._runner, "127.0.0.1", port or free_port(), ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no longer, and end what is still being answered; `start(receiver.port)` brings it back."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        number = self._numbers.setdefault(request.protocol, len(self._numbers) + 1)
        self.connections = len(self._numbers)
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self._arrived:
            self.requests.append(ReceivedRequest(request.method, request.path_qs, headers, body, number))
            self._arrived.notify_all()
        step = self._answers.popleft() if self._answers else self.default
        return await step(request)
