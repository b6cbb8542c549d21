"""The promises of a source, held by a definition: the suite asks the provider that it describes, simulated."""

# ruff: noqa: D102 - the suite's own docstrings say what its parts are

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web

from bridge.domain.clock import Clock
from bridge.providers.models import Definition
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.defined_vendor import simulated_values
from bridge.sources.rest import plugin_of
from bridge.testing.source_suite import PHONE, Account, SourceSuite

_OF_A_CONNECTION = frozenset({"Host", "Connection", "Content-Length", "Transfer-Encoding", "Server"})


class DefinedAccount(Account):
    """An account of the provider that a definition describes."""

    def __init__(self, definition: Definition, clock: Clock) -> None:
        super().__init__(clock)
        world_clock = Clock(now=clock.now, monotonic=clock.monotonic)
        self._simulator = Simulator(SimulatorSettings.still(), world_clock, definition)
        vendor = self._simulator.defined
        assert vendor is not None
        self._vendor = vendor
        self._keys: dict[str, str] = {}

    def add(self) -> str:
        resource = self._vendor.world.add(PHONE)
        subject = self._vendor.subject_of(resource)
        self._keys[subject] = resource.key
        return subject

    def move(self, subject: str) -> None:
        self._vendor.world.move(self._keys[subject])

    async def open(self) -> None:
        await self._simulator.start()
        self._session = aiohttp.ClientSession(self._simulator.url, auto_decompress=False)

    async def close(self) -> None:
        await self._session.close()
        await self._simulator.stop()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name not in _OF_A_CONNECTION}
        asked = self._session.request(
            request.method, request.path_qs, data=await request.read(), headers=headers, allow_redirects=False
        )
        async with asked as answer:
            kept = {name: value for name, value in answer.headers.items() if name not in _OF_A_CONNECTION}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


class DefinitionSuite(SourceSuite):
    """Subclass it as `TestMyProvider(DefinitionSuite)`, and set `definition`; or let `suite_of` do so."""

    definition: Definition
    several = 45

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "definition" in vars(cls):
            cls.plugin = plugin_of(cls.definition)
            own = simulated_values(cls.definition)
            cls.secrets = tuple(
                str(own[name]) for name, spec in cls.definition.settings.items() if spec.type == "secret"
            )

    def values(self, url: str) -> dict[str, Any]:
        values = {"type": "rest", "provider": "simulated", "url": url, **simulated_values(self.definition)}
        return values if self.definition.auth.oauth2 is None else {**values, "token_url": f"{url}/_token"}

    def account(self, clock: Clock) -> Account:
        return DefinedAccount(self.definition, clock)


def suite_of(name: str, definition: Definition) -> type[DefinitionSuite]:
    """Return the suite of a definition, as a class that pytest collects under the name `Test…` of your module."""
    words = "".join(word.capitalize() for word in name.replace("_", "-").split("-"))
    return type(f"Test{words}", (DefinitionSuite,), {"definition": definition})
