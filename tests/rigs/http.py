"""A provider of which each test says what it answers, and how a client's refusal is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.domain import errors
from bridge.http.client import HttpClient

TOKEN = "s3cr3t-t0ken"
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


@dataclass
class Far:
    """A provider of which each test says what it answers."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.answer is not None
        return await self.answer(request)

    def says(self, *responses: web.Response | Callable[[], web.Response], **options) -> None:
        """Answer one after the other, the last one for ever."""
        left = list(responses) or [lambda: web.Response(**options)]

        async def answer(_: web.Request) -> web.StreamResponse:
            now = left.pop(0) if len(left) > 1 else left[0]
            return now() if callable(now) else now

        self.answer = answer


@asynccontextmanager
async def serving() -> AsyncIterator[Far]:
    far = Far()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    async with TestServer(app) as server:
        far.url = str(server.make_url("/"))
        yield far


async def refused(
    client: HttpClient, target: str = "/messages/sms/1?phone=%2B16515551000", **options
) -> errors.BridgeError:
    with pytest.raises(errors.BridgeError) as caught:
        await client.get(target, **options)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "6515551000" not in str(error)
    assert TOKEN not in str(error)
    assert "\n" not in str(error)
    return error
