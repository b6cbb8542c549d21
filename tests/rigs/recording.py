"""Recordings of sources: how they are made, read again and played."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import yaml
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.http.client import HttpRequest
from bridge.http.response import Response
from bridge.ingest.intake import Intake
from bridge.recording import Recorder, Replay, offline
from bridge.recording.files import Poll, polls
from bridge.recording.files import sources as tapes
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fakes import Jumping

NOW = datetime(2026, 3, 15, 21, 11, 2, 123456, tzinfo=UTC)
GIB = 1 << 30


def answer(
    body: Any, *, status: int = 200, url: str = "https://tms.example.com/messages/sms", **headers: str
) -> Response:
    given = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response("GET /messages/sms", status, raw, NOW, NOW, URL(url), CIMultiDictProxy(given))


def request(url: str, origin: str = "https://tms.example.com/", method: str = "GET") -> HttpRequest:
    return HttpRequest(f"{method} {URL(url).raw_path}", method, URL(url), URL(origin), None)


def read(folder: Path) -> list[Poll]:
    return [poll for runs in tapes(folder).values() for files in runs for poll in polls(files)]


SMALL = SimulatorSettings(
    seed=5,
    speed=60.0,
    messages_per_minute=0.25,
    recipients_per_message=7.0,
    max_recipients=150,
    drops_per_minute=1.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=1.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
    inconclusive_share=0.1,
    late_share=0.1,
    page_size=3,
)


def configured(folder: Path, simulator: Simulator, name: str = "bridge.yaml", **changes: dict[str, Any]) -> Path:
    """Write a configuration of all three sources, with changes to their settings."""
    opened = sources(simulator.urls, simulator.settings)
    for source in opened:
        opened[source] |= {"rate": "1000/s"} | changes.get(source, {})
    path = folder / name
    path.write_text(yaml.safe_dump({"state": str(folder / "state"), "sources": opened}))
    return path


@dataclass
class Life:
    """All sources of a configuration, polled one after the other as the service would, and recorded."""

    folder: Path
    config: Path
    clock: Clock
    options: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    polls: int = 0

    async def __aenter__(self) -> Self:
        self.recorder = Recorder(self.folder / "tape", self.clock, **{"limit": GIB} | self.options)
        assembly = self.recorder.assembly(load(self.config))
        assembly.make_state()
        self.store = assembly.store()
        await self.store.open()
        self.sources = assembly.sources()
        self.intakes = {
            name: Intake(name, assembly.config.sources[name].type, source, self.store, assembly.clock)
            for name, source in self.sources.items()
        }
        self.read = {name: (await self.store.journal(name)).committed for name in self.sources}
        return self

    async def __aexit__(self, *_: object) -> None:
        for source in self.sources.values():
            await source.close()
        self.recorder.close()
        await self.store.close()

    async def poll(self, *names: str) -> None:
        for name in names or self.sources:
            self.polls += 1
            lease = await self.store.acquire(f"source/{name}", "test", 1e9)
            assert lease is not None
            try:
                await self.intakes[name].poll(lease)
            except BridgeError as error:
                self.failures.append(f"{name}: {error}")
            self.failures += [f"{name}: {problem}" for problem in self.sources[name].problems]
            while entries := await self.store.read(name, self.read[name], 1000):
                self.events += [json.loads(entry.event.body) for entry in entries]
                self.read[name] = entries[-1].position.seq


async def play(folder: Path, config: Path) -> tuple[list[dict[str, Any]], Replay]:
    replay = Replay(folder / "tape", offline(config))
    return [json.loads(entry.event.body) async for entry in replay.events()], replay


def reasons(replay: Replay) -> list[str]:
    return [line.partition("  ")[2] for line in replay.summary.failures]


@asynccontextmanager
async def living(
    folder: Path,
    time: Jumping,
    *,
    world: SimulatorSettings = SMALL,
    changes: Mapping[str, Any] | None = None,
    **options,
) -> AsyncIterator[tuple[Simulator, Life]]:
    async with Simulator(world, time.world) as simulator:
        config = configured(folder, simulator, **changes or {})
        async with Life(folder, config, time.clock, options) as life:
            yield simulator, life


def everything_on(folder: Path) -> str:
    return "".join(
        (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        for path in folder.iterdir()
    )


async def recorded(folder: Path, time: Jumping, *faults: str, rounds: int = 2) -> tuple[Simulator, Life]:
    async with living(folder, time) as (simulator, life):
        for name in faults:
            simulator.switch_on(name, share=0.3)
        for _ in range(rounds):
            await life.poll()
            time.ahead += 15
    return simulator, life
