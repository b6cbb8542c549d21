"""A service on embedded parts in the test's own process: a scripted source, a sink that keeps, and a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogue import CATALOGUE

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.delivery.claims import CLAIM
from bridge.domain.catalogue import Catalogue
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import Page, SourceSettings
from bridge.runtime.parts import ConfiguredSink, ConfiguredSource, Limits, ServiceParts
from bridge.runtime.service import Service
from bridge.testing.fakes import KeepingSink, ScriptedSource, observe

_AT = datetime(2026, 3, 1, tzinfo=UTC)
LIMITS = Limits(
    lease=2.0,
    claim=CLAIM,
    drain=3.0,
    journal_keep=168 * 3600.0,
    journal_bytes=1024**3,
    audit_every=10.0,
    reconcile_every=None,
)


class EmbeddedService:
    """The parts of services that share one folder; `store` is a further process's view of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = ScriptedSource()
        self.sink = KeepingSink()
        self.settings = SourceSettings(type="scripted", interval="20ms", stall_after="100ms")
        self.sink_settings = SinkSettings(type="keeping", topics=["#"])
        self.more_sources: dict[str, ConfiguredSource] = {}
        self.store_fails = False
        self.limits = LIMITS
        self.store = SqliteStore(folder / "bridge.db", clock=Clock())

    def says(self, *statuses: str, key: str = "1") -> None:
        """Have each of the next polls find one status of a resource."""
        self.source.polls += [[Page([observe(key, status)], _AT)] for status in statuses]

    def service(self, roles: Collection[str] = ("poll", "relay", "sink"), **limits: Any) -> Service:
        clock = Clock()
        store = SqliteStore(self.folder / "bridge.db", clock=clock)
        broker = SqliteBroker(self.folder / "broker.db", clock=clock)

        async def opening() -> None:
            if self.store_fails:
                raise Unavailable("the store is away")
            await store.open()
            await broker.open()

        parts = ServiceParts(
            store=store,
            broker=broker,
            sources={"city": ConfiguredSource("scripted", self.settings, self.source), **self.more_sources},
            sinks={"crm": ConfiguredSink(self.sink_settings, self.sink, lambda wire: wire)},
            read=Catalogue(CATALOGUE).read,
            open=opening,
            limits=replace(self.limits, **limits),
            generation="0badcafe",
        )
        return Service(parts, clock, roles=roles)

    @asynccontextmanager
    async def running(
        self, *, roles: Collection[str] = ("poll", "relay", "sink"), listen: tuple[str, int] | None = None
    ) -> AsyncIterator[Service]:
        service, stop = self.service(roles), asyncio.Event()
        task = asyncio.ensure_future(service.run(stop, listen=listen))
        try:
            yield service
        finally:
            stop.set()
            await task


@asynccontextmanager
async def with_frequent_gauges(folder: Path) -> AsyncIterator[EmbeddedService]:
    """Have services that look at store and orders ten times a second, and close the store at the end."""
    world = EmbeddedService(folder)
    world.limits = replace(LIMITS, gauges_every=0.1)
    yield world
    await world.store.close()
