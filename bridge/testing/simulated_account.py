"""An account of a simulated provider, as the suite of sources wants it."""

# ruff: noqa: D102 - the suite's own docstrings say what its parts are

from __future__ import annotations

import aiohttp
from aiohttp import web

from bridge.domain.clock import Clock
from bridge.simulator import Simulator
from bridge.testing.source_suite import Account

_OF_A_CONNECTION = frozenset({"Host", "Connection", "Content-Length", "Transfer-Encoding", "Server"})


class SimulatedAccount(Account):
    """Hands each request to a simulator, and its answer back; a subclass says what happens in the account."""

    def __init__(self, clock: Clock, simulator: Simulator) -> None:
        super().__init__(clock)
        self.simulator = simulator

    @property
    def url(self) -> str:
        """Where the simulated provider answers, once it is open."""
        return self.simulator.url

    async def open(self) -> None:
        await self.simulator.start()
        self._session = aiohttp.ClientSession(self.url, auto_decompress=False)

    async def close(self) -> None:
        await self._session.close()
        await self.simulator.stop()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name not in _OF_A_CONNECTION}
        asked = self._session.request(
            request.method, request.path_qs, data=await request.read(), headers=headers, allow_redirects=False
        )
        async with asked as answer:
            kept = {name: value for name, value in answer.headers.items() if name not in _OF_A_CONNECTION}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)
