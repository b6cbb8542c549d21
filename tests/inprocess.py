"""One source in the test's own process, polled as the service polls it: real HTTP, real intake, real store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bridge.adapters.sqlite.store import SqliteStore
from bridge.config import registry
from bridge.domain.catalogue import INTERNAL_EVENTS, Catalogue
from bridge.domain.clock import Clock
from bridge.domain.event import Event
from bridge.ingest.intake import Intake, PollResult
from bridge.ingest.poller import Poller, PollListener
from bridge.protocols.ledger import Lease
from bridge.simulator import Simulator
from bridge.simulator.config_snippet import sources

History = list[tuple[str, str | None, str | None]]


class Overheard(Intake):
    """The intake, of which the test hears how the last poll ended."""

    error: Exception | None = None
    round: PollResult | None = None

    async def poll(self, lease: Lease) -> PollResult:
        self.error, self.round = None, None
        try:
            self.round = await super().poll(lease)
        except Exception as error:
            self.error = error
            raise
        return self.round


async def _no_backpressure(_: str) -> str | None:
    return None


class Polled(PollListener):
    """One source as a running service has it, polled whenever the test says so."""

    def __init__(self, name: str, config: dict[str, Any], store: SqliteStore, clock: Clock) -> None:
        plugin = registry.load_source(config["type"])
        self.name = name
        self.store = store
        self.clock = clock
        self.settings = plugin.settings(**config)
        self.source = plugin.build(name, self.settings, clock)
        self.intake = Overheard(name, config["type"], self.source, store, clock)
        self.poller = Poller(
            name, self.settings, self.intake, store, clock, watcher=self, backpressure=_no_backpressure
        )  # fmt: skip
        self.states: list[tuple[str, str | None]] = []
        self.catalogue = Catalogue((*plugin.events, *INTERNAL_EVENTS))

    def state(self, source: str, state: str, reason: str | None) -> None:
        del source
        self.states.append((state, reason))

    async def poll(self) -> float:
        """Poll once; return how long the service would wait until the next time."""
        lease = await self.store.acquire(f"source/{self.name}", "test", 1e9)
        assert lease is not None
        return await self.poller.step(lease)

    @property
    def error(self) -> Exception | None:
        """What the last poll failed with."""
        return self.intake.error

    @property
    def problems(self) -> list[str]:
        """What the last poll said of single resources."""
        return list(self.source.problems)

    async def events(self) -> list[Event]:
        """All that was committed, in the journal's order."""
        events: list[Event] = []
        after = (await self.store.journal(self.name)).base
        while entries := await self.store.read(self.name, after, 10_000):
            assert [entry.position.seq for entry in entries] == [*range(after + 1, after + 1 + len(entries))]
            after = entries[-1].position.seq
            events += [self.catalogue.read(entry.event.body) for entry in entries]
        return events

    async def histories(self) -> dict[str, History]:
        """For each resource what was committed of it, in order; no id stands there twice."""
        histories: dict[str, History] = defaultdict(list)
        events = [event for event in await self.events() if event.data.channel != "bridge"]
        assert len({event.id for event in events}) == len(events)
        for event in events:
            histories[event.subject].append((event.data.status, event.data.previous, event.data.detail))
        return dict(histories)


@asynccontextmanager
async def polling(
    name: str, simulator: Simulator, folder: Path, clock: Clock, **settings: Any
) -> AsyncIterator[Polled]:
    """Give one of the simulator's sources (`city`, `drops`, `journeys`) on a store of its own."""
    config = sources(simulator.urls, simulator.settings)[name] | {"rate": "1000/s"} | settings
    store = SqliteStore(folder / "store.db", clock=clock)
    await store.open()
    polled = Polled(name, config, store, clock)
    try:
        yield polled
    finally:
        await polled.source.close()
        await store.close()
