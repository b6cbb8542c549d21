"""Each task of the process is killed from inside, one after the other: work goes on, or `/livez` says that it does not."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from harness import until

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint

pytestmark = pytest.mark.faults

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside", default=False)


async def _short_sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.1))


class Tasks:
    """All tasks that the service has begun, and none of the simulator or the test."""

    def __init__(self) -> None:
        self.alive: set[asyncio.Task[Any]] = set()
        self.kinds: set[str] = set()
        """The names of all coroutines that were ever begun in a task."""
        self.doomed: str | None = None
        """The next task of this kind is killed after its first step."""

    def factory(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = asyncio.Task(work, loop=loop, **options)
        if not _inside.get():
            return task
        self.alive.add(task)
        task.add_done_callback(self.alive.discard)
        self.kinds.add(work.__qualname__)
        if work.__qualname__ == self.doomed:
            self.doomed = None
            loop.call_soon(task.cancel)
        return task


@asynccontextmanager
async def running(folder: Path, simulator: Simulator, **config: Any) -> AsyncIterator[tuple[Service, Tasks]]:
    polled = sources(simulator.urls, simulator.settings, interval="100ms")
    for source in polled.values():
        source["rate"] = "1000/s"
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump({"state": str(folder / "state"), "sources": polled, **config}))
    clock = Clock(sleep=_short_sleep)
    service, stop, tasks = Service(build(Assembly(load(path), clock)), clock), asyncio.Event(), Tasks()
    asyncio.get_running_loop().set_task_factory(tasks.factory)
    context = contextvars.copy_context()
    context.run(_inside.set, True)
    root = asyncio.get_running_loop().create_task(service.run(stop, listen=("127.0.0.1", 0)), context=context)
    await asyncio.sleep(0)
    tasks.alive.discard(root)
    try:
        yield service, tasks
    finally:
        stop.set()
        await asyncio.wait_for(root, 30)
        asyncio.get_running_loop().set_task_factory(None)


async def _livez(service: Service) -> int:
    try:
        url = f"http://127.0.0.1:{service.health.server.port}/livez"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


async def works(simulator: Simulator, receiver: FakeEndpoint, service: Service) -> None:
    """Make a transition at two providers; return once both arrived and the health pages answer, or tell of trouble."""
    paths = {simulator.world.add_drop().path, simulator.world.add_send_event().path}

    async def is_well() -> bool:
        status = await _livez(service)
        arrived = {json.loads(request.body)["subject"] for request in receiver.requests}
        return status == 503 or (status == 200 and paths <= arrived)

    await until(is_well, "work goes on, or the process says that it does not", within=60)


@pytest.mark.parametrize("backends", ["embedded", "servers"])
async def test_each_killed_task_leaves_the_process_at_work(
    backends: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config: dict[str, Any] = {}
    if backends == "servers":
        config = {"store": request.getfixturevalue("redis_url"), "broker": request.getfixturevalue("rabbitmq_url")}
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        webhook = {"type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True}
        async with running(tmp_path, simulator, sinks={"crm": webhook}, lease="1s", **config) as (service, tasks):
            await until(lambda: service.health.server.port, "the health pages are there")
            await works(simulator, receiver, service)
            for task in list(tasks.alive):
                if task.cancel():
                    await works(simulator, receiver, service)
            for kind in sorted(tasks.kinds):
                tasks.doomed = kind
                await works(simulator, receiver, service)
            tasks.doomed = None
    assert {"Supervisor._run", "Claims.renew", "Sender._run_task", "Relay._read"} <= tasks.kinds
