"""The server to which providers push: what it answers, what it keeps, and what it does under a flood."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import yarl
from structlog.testing import capture_logs

from bridge.domain.errors import Unauthorized, Unavailable
from bridge.domain.pushes import Push, PushRefused, PushRequest
from bridge.observability.logging import configure_logging
from bridge.web.hook_server import MAX_PUSH_BYTES, PushServer

CANARY = "canary-5551234"
URL = "https://hooks.example.com/bridge/"


def resident() -> int:
    """Return the memory of this process in KB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class Reader:
    """Reads pushes as a test says."""

    secret_in_path = True

    def __init__(self) -> None:
        self.requests: list[PushRequest] = []
        self.error: Exception | None = None
        self.things: Collection[str] = ("a",)

    def read(self, request: PushRequest, now: float) -> Push:
        assert now > 1e9
        self.requests.append(request)
        if self.error is not None:
            raise type(self.error)(*self.error.args)  # a new one: an exception that is raised again keeps its past
        return Push(list(self.things))


class Store:
    """Keeps hints as a test says."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, list[str]]] = []
        self.error: Exception | None = None
        self.full = False
        self.waits = 0.0

    async def keep(self, source: str, things: Collection[str]) -> bool:
        await asyncio.sleep(self.waits)
        if self.error is not None:
            raise self.error
        if not self.full:
            self.kept.append((source, list(things)))
        return not self.full


class Rig:
    """A server, and what stands around it."""

    def __init__(self) -> None:
        self.reader, self.store = Reader(), Store()
        self.results: list[tuple[str, str]] = []
        self.server = PushServer(
            URL, {"city": self.reader}, self.store.keep, epoch=time.time, report=lambda *result: self.results.append(result)
        )  # fmt: skip

    async def post(self, path: str = "/bridge/city/s1", data: bytes = b"a=1", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                yarl.URL(f"http://127.0.0.1:{self.server.port}{path}", encoded=True),
                data=io.BytesIO(data),
                headers=headers,
            ) as answer,
        ):
            return answer.status


@asynccontextmanager
async def listening() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.server.start("127.0.0.1", 0)
    try:
        yield rig
    finally:
        await rig.server.stop()


async def test_push_is_kept_and_then_answered() -> None:
    async with listening() as rig:
        assert await rig.post("/bridge/city/s%311?q=%20x", b"\x00body", **{"X-Signature": "s"}) == 200
        assert rig.store.kept == [("city", ["a"])]
        assert rig.results == [("city", "ok")]
        (request,) = rig.reader.requests
        assert (request.secret, request.body, request.headers["x-signature"]) == ("s11", b"\x00body", "s")
        assert request.url == "https://hooks.example.com/bridge/city/s%311?q=%20x"


async def test_push_about_nothing_is_answered_without_the_store() -> None:
    async with listening() as rig:
        rig.reader.things = ()
        rig.store.error = AssertionError("asked")
        assert await rig.post() == 200


@pytest.mark.parametrize(
    ("error", "status", "result"),
    [
        (PushRefused("secret"), 404, "refused"),
        (PushRefused("signature"), 401, "refused"),
        (PushRefused("time"), 401, "refused"),
        (PushRefused("content"), 400, "unreadable"),
        (Unauthorized("the secret's file cannot be read"), 503, "failed"),
        (ValueError(CANARY), 503, "failed"),
    ],
)
async def test_refused_push_is_not_kept(error: Exception, status: int, result: str) -> None:
    async with listening() as rig:
        rig.reader.error = error
        with capture_logs() as logs:
            assert await rig.post(data=CANARY.encode()) == status
        assert (rig.store.kept, rig.results) == ([], [("city", result)])
        assert CANARY not in str(logs)
        assert bool(logs) is (status == 503)


async def test_foreign_address_is_not_found() -> None:
    async with listening() as rig:
        assert [await rig.post(path) for path in ("/", "/city/s1", "/bridge/town/s1", "/bridge/city/s1/more")] == [
            404
        ] * 4
        assert (rig.reader.requests, rig.results) == ([], [])


@pytest.mark.parametrize(
    ("error", "full", "waits"), [(Unavailable("away"), False, 0), (None, True, 0), (None, False, 5)]
)
async def test_push_that_cannot_be_kept_is_told_to_come_again(
    error: Exception | None, full: bool, waits: float
) -> None:
    async with listening() as rig:
        rig.store.error, rig.store.full, rig.store.waits = error, full, waits
        started = time.monotonic()
        assert await rig.post() == 503
        assert time.monotonic() - started < 2.0
        assert rig.results == [("city", "too_many" if full else "failed")]


async def test_large_or_packed_body_is_refused_unread() -> None:
    async with listening() as rig:
        assert await rig.post(data=b"x" * MAX_PUSH_BYTES) == 200
        bomb = gzip.compress(bytes(50 * MAX_PUSH_BYTES))
        assert await rig.post(data=bomb, **{"Content-Encoding": "gzip"}) == 415
        with suppress(aiohttp.ClientError):  # it may be cut off while it still sends
            assert await rig.post(data=b"x" * (MAX_PUSH_BYTES + 1)) == 413
        assert len(rig.reader.requests) == 1


async def test_garbage_costs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """10,000 pushes of garbage: nothing is kept, the memory is flat, and the loop stays free for the polls."""
    configure_logging("debug", "json")
    async with listening() as rig:
        rig.reader.error = PushRefused("signature")
        gaps = [0.0]

        async def tick() -> None:
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.005)
                gaps.append(time.monotonic() - last)
                last = time.monotonic()

        async def flood(count: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
            for number in range(count):
                body = f"{CANARY}{number}".encode() + os.urandom(8)
                writer.write(
                    b"POST /bridge/city/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                    % (CANARY.encode(), len(body))
                    + body
                )
                assert (await reader.readline()).split()[1] == b"401"
                while await reader.readline() != b"\r\n":
                    pass
            writer.write(f"GARBAGE {CANARY}\r\n\r\n".encode())
            await reader.read()
            writer.close()

        await asyncio.gather(*(flood(100) for _ in range(20)))
        before = resident()
        rig.reader.requests.clear()
        rig.reader.requests = _Forgetful()
        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*(flood(400) for _ in range(20)))
        ticking.cancel()
        grown = resident() - before
        assert rig.store.kept == []
        assert grown < 20_000, f"{grown} KB more"
        assert sorted(gaps)[int(len(gaps) * 0.99)] < 0.5
    assert CANARY not in "".join(capfd.readouterr())


class _Forgetful(list[PushRequest]):
    """A list that keeps nothing, so that the test itself needs no memory."""

    def append(self, _: PushRequest) -> None:
        pass
