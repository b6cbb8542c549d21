"""The health pages answer whoever asks, however many others only hold connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from bridge.observability.metrics import Metrics
from bridge.web.health_server import Health, HealthServer
from bridge.web.listener import MAX_CONNECTIONS

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
QUICK_SECONDS = 0.3


@asynccontextmanager
async def serving(**bounds: float) -> AsyncIterator[HealthServer]:
    async def refresh() -> None:
        pass

    server = HealthServer(Metrics(), Health(), refresh=refresh, heartbeat_age=lambda: 0.0, **bounds)
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


async def connect(server: HealthServer) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def ask(server: HealthServer, path: str = "/livez") -> int:
    reader, writer = await connect(server)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    status = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return int(status.split()[1])


async def closed(streams: Streams) -> bool:
    try:
        return await asyncio.wait_for(streams[0].read(), 20) == b""
    except ConnectionError:
        return True
    finally:
        streams[1].close()


async def test_probe_is_answered_among_hundreds_of_idle_connections() -> None:
    async with serving() as server:
        with capture_logs() as logs:
            idle = [await connect(server) for _ in range(400)]
            assert await ask(server) == await ask(server, "/readyz") == 200
        assert len(server._listener.connections) <= MAX_CONNECTIONS
        assert {entry["event"] for entry in logs} == {"http.too_many_connections"}
        for _, writer in idle:
            writer.close()


def _nothing(_: asyncio.StreamWriter) -> None:
    pass


def _half_a_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /livez HTTP/1.1\r\nHost: ")


def _one_request(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.parametrize("begin", [_nothing, _half_a_head])
async def test_connection_that_asks_nothing_is_closed(begin: Callable[[asyncio.StreamWriter], None]) -> None:
    async with serving(request_seconds=QUICK_SECONDS) as server:
        streams = await connect(server)
        begin(streams[1])
        assert await closed(streams)


async def test_head_that_comes_byte_by_byte_is_not_waited_for() -> None:
    async with serving(request_seconds=QUICK_SECONDS) as server:
        reader, writer = await connect(server)
        _half_a_head(writer)

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        assert await closed((reader, writer))
        dripping.cancel()


async def test_connection_is_kept_for_the_next_request() -> None:
    async with serving() as server:
        reader, writer = await connect(server)
        for _ in range(2):
            _one_request(writer)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            assert json.loads(await reader.readexactly(length))["status"] == "alive"
        writer.close()
