"""Answers with irregular heads: a receiver's status counts, and a provider's body is read if it can be told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from raw_heads import BODY, NO_STATUS, OK, READABLE, UNREADABLE

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import ProviderError
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.limiter import Limiter

STATUSES = {200: type(None), 204: type(None), 503: Transient, 400: Permanent}


class RawServer:
    """Answers each request with the same bytes, in pieces of `size`, and closes the connection unless it `holds` it."""

    def __init__(self, answer: bytes, *, size: int | None = None, holds: bool = False) -> None:
        self.answer = answer
        self.size = size or max(1, len(answer))
        self.holds = holds
        self.requests = 0
        self.tasks = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks[asyncio.current_task()] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                for start in range(0, len(self.answer), self.size):
                    writer.write(self.answer[start : start + self.size])
                    await writer.drain()
                    await asyncio.sleep(0)
                if not self.holds:
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer, **options):
    raw = RawServer(answer, **options)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        for writer in raw.tasks.values():
            writer.transport.abort()
        await asyncio.gather(*raw.tasks)


async def post(answer, *, seconds=20.0, **options):
    client = GuardedClient(allow_private=True, clock=Clock(), timeout=seconds)
    await client.open()
    try:
        async with serving(answer, **options) as raw:
            return await client.post(Endpoint.of(f"{raw.url}/hook"), b"{}", {})
    finally:
        await client.close()


async def get(answer, **options):
    clock = Clock()
    async with serving(answer, **options) as raw:
        client = HttpClient(raw.url, limiter=Limiter(1000, clock), clock=clock, limits=HttpLimits(retries=0, read=2.0))
        try:
            return await client.get("/messages")
        finally:
            await client.close()


IRREGULAR = READABLE | UNREADABLE


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("head", IRREGULAR.values(), ids=IRREGULAR.keys())
async def test_a_status_that_came_counts_whatever_follows(head, status):
    answer = await post(head.replace(b"200", b"%d" % status, 1))
    assert answer.status == status
    assert isinstance(answer.error(), STATUSES[status])


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("head", IRREGULAR.values(), ids=IRREGULAR.keys())
async def test_a_status_in_pieces_counts(head, size):
    if len(head) // size > 10_000:
        size = 1000
    assert (await post(head, size=size)).status == 200


@pytest.mark.parametrize("head", NO_STATUS.values(), ids=NO_STATUS.keys())
async def test_without_a_status_nothing_counts_as_delivered(head):
    with pytest.raises(Transient):
        await post(head)


@pytest.mark.parametrize("head", [OK, OK + b"X-Serv", OK + b"A b : c\r\n", b"HTTP/1.1 200 OK"])
async def test_a_status_counts_although_its_head_never_ends(head):
    assert (await post(head, seconds=0.4, holds=True)).status == 200


@pytest.mark.parametrize("name", ["a blank before a colon", "150 headers", "a length beside chunked", "LF alone"])
async def test_the_body_behind_an_irregular_head_is_handed_on(name):
    assert (await post(READABLE[name])).body == BODY


async def test_headers_of_an_irregular_head_are_read():
    answer = await post(b"HTTP/1.1 503 Later\r\nA b: c\r\nRetry-After : 17\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.retry_after) == (503, 17.0)


async def test_a_connection_with_an_irregular_answer_is_not_used_again():
    client = GuardedClient(allow_private=True, clock=Clock())
    await client.open()
    async with serving(READABLE["a blank before a colon"], holds=True) as raw:
        for _ in range(3):
            assert (await client.post(Endpoint.of(raw.url), b"{}", {})).status == 200
        assert raw.requests == 3
    await client.close()


@pytest.mark.parametrize("head", READABLE.values(), ids=READABLE.keys())
async def test_a_providers_body_is_read_wherever_it_can_be_told(head):
    assert (await get(head)).json() == [{"id": 1}]


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("head", READABLE.values(), ids=READABLE.keys())
async def test_a_providers_body_is_read_in_pieces(head, size):
    if len(head) // size > 10_000:
        size = 1000
    assert (await get(head, size=size)).body == BODY


@pytest.mark.parametrize("head", (UNREADABLE | NO_STATUS).values(), ids=(UNREADABLE | NO_STATUS).keys())
async def test_a_providers_body_that_cannot_be_told_is_asked_again(head):
    with pytest.raises(ProviderError):
        await get(head)


def test_the_tables_of_irregular_heads_grow():
    assert len(IRREGULAR) >= 80
    assert len(READABLE) >= 50
