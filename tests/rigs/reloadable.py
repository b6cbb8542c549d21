"""A service on embedded parts that can be given another configuration while it works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogue import CATALOGUE

from bridge.adapters.sqlite.store import SqliteStore
from bridge.config.model import Config
from bridge.domain.catalogue import Catalogue
from bridge.domain.clock import Clock
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import Page, SourceSettings
from bridge.runtime.assembly import Assembly
from bridge.runtime.config_file import ConfigFile
from bridge.runtime.parts import build
from bridge.runtime.reload import ReloadOutcome
from bridge.runtime.service import Service
from bridge.testing.fakes import KeepingSink, ScriptedSource, observe

AT = datetime(2026, 3, 1, tzinfo=UTC)


async def until(condition: Callable[[], Any], what: str, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while True:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.005)
    raise AssertionError(what)


@dataclass
class HeldSource(ScriptedSource):
    """A scripted source whose polls can be held in flight, and that knows when it was closed."""

    name: str = ""
    hold: asyncio.Event | None = None
    """Polls wait until it is set."""
    in_flight: int = 0
    closed: bool = False
    monotonic: Callable[[], float] = time.monotonic
    polled_at: list[float] = field(default_factory=list)

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        assert not self.closed
        self.in_flight += 1
        self.polled_at.append(self.monotonic())
        try:
            if self.hold is not None:
                await self.hold.wait()
            async for page in super().pages(cursor, watched):
                yield page
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        assert not self.in_flight
        self.closed = True


class AccountSource(HeldSource):
    """A source of the one account that all of these have."""

    account = "https://tms.example.com 5f0c"


@dataclass
class ClosingSink(KeepingSink):
    """A sink that knows when it was closed."""

    closed: bool = False

    async def close(self) -> None:
        assert not self._now
        self.closed = True


class ScriptedAssembly(Assembly):
    """The parts of a configuration whose sources and sinks are scripted."""

    def __init__(self, config: Config, clock: Clock, world: Reloadable) -> None:
        super().__init__(config, clock)
        self._world = world

    def source(self, name: str) -> HeldSource:
        made = self._world.make_source(name)
        self._world.made_sources.append(made)
        return made

    def sink(self, name: str) -> ClosingSink:
        made = ClosingSink()
        self._world.made_sinks.append(made)
        return made

    def catalogue(self) -> Catalogue:
        return Catalogue(CATALOGUE)


@dataclass
class Reloadable:
    """What stands in the file, and what was made of it."""

    folder: Path
    sources: dict[str, SourceSettings] = field(default_factory=lambda: {"city": scripted()})
    sinks: dict[str, SinkSettings] = field(default_factory=lambda: {"crm": keeping()})
    settings: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    """What is wrong with the file."""
    source_class: type[HeldSource] = HeldSource
    made_sources: list[HeldSource] = field(default_factory=list)
    made_sinks: list[ClosingSink] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    is_readable: threading.Event | None = None
    """Reading the file waits until it is set."""

    def __post_init__(self) -> None:
        self.path = self.folder / "bridge.yaml"
        self.path.write_text("1")
        self.store = SqliteStore(self.folder / "bridge.db", clock=self.clock)

    def make_source(self, name: str) -> HeldSource:
        return self.source_class(name=name, monotonic=self.clock.monotonic)

    def read(self, path: Path) -> Config:
        assert path == self.path
        if self.is_readable is not None:
            assert self.is_readable.wait(60)
        if self.error is not None:
            raise self.error
        values = {"state": self.folder, "drain_timeout": "3s", "lease": "2s", **self.settings}
        return Config(sources=dict(self.sources), sinks=dict(self.sinks), **values)

    @asynccontextmanager
    async def running(
        self, *, roles: Collection[str] = ("poll", "relay", "sink"), listen: tuple[str, int] | None = None
    ) -> AsyncIterator[Service]:
        clock = self.clock
        file = ConfigFile(self.path, self.read)
        file.load()
        assembly = file.assemble_by(lambda config: ScriptedAssembly(config, clock, self))
        service, stop = Service(build(assembly), clock, roles=roles, file=file), asyncio.Event()
        running = asyncio.ensure_future(service.run(stop, listen=listen))
        try:
            yield service
        finally:
            stop.set()
            await running
        assert all(source.closed for source in self.made_sources if source.cursors)
        assert service.process.leaving == {}

    async def reload(self, service: Service) -> ReloadOutcome:
        assert service.reloader is not None
        return await service.reloader.outcome("test")


def scripted(interval: str = "20ms", **values: Any) -> SourceSettings:
    return SourceSettings(type="scripted", interval=interval, stall_after="1s", **values)


def keeping(**values: Any) -> SinkSettings:
    return SinkSettings(**{"type": "keeping", "topics": ["#"], "privacy": "full"} | values)


def shows(source: HeldSource, *statuses: str, key: str = "1") -> None:
    source.polls += [[Page([observe(key, status)], AT)] for status in statuses]
