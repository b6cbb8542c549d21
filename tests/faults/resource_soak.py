"""A long run in which the machine takes things away and gives them back: log pipes, disk, descriptors, rights.

    python tests/faults/resource_soak.py --minutes 15 --seed 3

Two bridges run at the same time. Redis and RabbitMQ take rights away from the one, which logs into a pipe. The other
has its store, its broker, its log and a sink's file on a disk that is full at times. Nothing may be lost, and no sink's
file may hold half a line. Whenever work stands still, `/livez` or `/readyz` has to say so within 15 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, pairwise, repeat
from pathlib import Path

import aiohttp
import redis
import yaml
from aiohttp import web

from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer, RedisServer

SAID_WITHIN_SECONDS = 15.0
DRAIN_SECONDS = 10.0
_LAST_EVENTS_SECONDS = 120.0
_NEW_EVENT_EVERY_SECONDS = 0.1
_PROBE_EVERY_SECONDS = 0.5
_PROBE_TIMEOUT_SECONDS = 5.0
_PAUSE_SECONDS = (1.0, 5.0)
_UNLIMITED = resource.RLIM_INFINITY
_STORE_RIGHTS = ("-eval -evalsha", "resetkeys ~nothing", "-@write")
_BROKER_RIGHTS = (("^$", ".*", ".*"), (".*", "^$", ".*"), (".*", ".*", "^$"))
"""What is left to configure, write and read."""


@dataclass
class Result:
    """What a run came to."""

    made: dict[str, float] = field(default_factory=dict)
    """When each resource was made, by its path."""
    arrivals: dict[str, float] = field(default_factory=dict)
    """When each resource's event arrived first."""
    changed: int = 0
    """Ids that came twice with different bytes."""
    repeats: int = 0
    probes: list[tuple[float, bool]] = field(default_factory=list)
    """When the health pages were asked, and whether both said that all is well."""
    faults: Counter[str] = field(default_factory=Counter)
    exit_code: int | None = None
    written: set[str] = field(default_factory=set)
    """The resources in the file of the stdout sink."""
    broken_lines: int = 0
    """Lines of that file that are no event."""

    @property
    def lost(self) -> int:
        """How many resources a sink does not know."""
        return len(self.made.keys() - self.arrivals.keys()) + len(self.made.keys() - self.written)

    def read_events(self, folder: Path) -> None:
        """Read the file of the stdout sink, with what was rotated away."""
        self.written, self.broken_lines = set(), 0
        for line in (line for path in folder.glob("events*/*") for line in path.read_bytes().splitlines()):
            try:
                self.written.add(json.loads(line)["subject"])
            except ValueError:
                self.broken_lines += 1

    def standstills(self) -> list[tuple[float, float]]:
        """Return the times in which something was on its way and nothing arrived, if longer than may go unsaid."""
        ends = sorted(self.arrivals.values())
        stills = []
        for start, end in pairwise(ends):
            if end - start <= SAID_WITHIN_SECONDS:
                continue
            waiting = [at for path, at in self.made.items() if at < end and self.arrivals.get(path, end) >= end]
            since = max(start, min(waiting, default=end))
            if end - since > SAID_WITHIN_SECONDS:
                stills.append((since, end))
        return stills

    def unsaid(self) -> list[tuple[float, float]]:
        """Return the standstills of which no health page said anything in time."""
        return [
            (start, end)
            for start, end in self.standstills()
            if not any(start <= at <= start + SAID_WITHIN_SECONDS and not well for at, well in self.probes)
        ]

    def table(self) -> str:
        """Return the figures for a reader."""
        not_well = sum(not well for _, well in self.probes)
        rows = {
            "resources made by the provider": len(self.made),
            "lost": self.lost,
            "broken lines in the file": self.broken_lines,
            "repeated with other bytes": self.changed,
            "repeats": self.repeats,
            "faults": ", ".join(f"{count} {name}" for name, count in self.faults.items()),
            f"standstills of more than {SAID_WITHIN_SECONDS:g} s": len(self.standstills()),
            "  not said in time": len(self.unsaid()),
            "probes, of them not well": f"{len(self.probes)}, {not_well}",
            "exit code": self.exit_code,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


class LogReader:
    """Reads the process's log from a named pipe; may stop reading, or go away and come back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self._descriptor: int | None = None
        self.open()

    def open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self.resume()

    def resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._descriptor or 0, self._read)

    def pause(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor or 0)

    def close(self) -> None:
        if self._descriptor is not None:
            self.pause()
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> None:
        with suppress(BlockingIOError):
            if not os.read(self._descriptor or 0, 65536):
                self.pause()  # the writer is gone


Fault = Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _limited(pid: int, kind: int, value: int) -> AsyncIterator[None]:
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


def process_faults(pid: int) -> dict[str, Fault]:
    """Return what can be withdrawn from every process."""
    # No file grows or is written beyond its first page: the sink's file, and where they are files, log, store, broker.
    return {
        "disk_full": lambda: _limited(pid, resource.RLIMIT_FSIZE, 4096),
        "descriptors_exhausted": lambda: _limited(
            pid, resource.RLIMIT_NOFILE, len(list(Path(f"/proc/{pid}/fd").iterdir()))
        ),
    }


def pipe_faults(log: LogReader) -> dict[str, Fault]:
    """Return what the reader of a log can do to it."""

    @asynccontextmanager
    async def closed() -> AsyncIterator[None]:
        log.close()
        try:
            yield
        finally:
            log.open()

    @asynccontextmanager
    async def filled() -> AsyncIterator[None]:
        log.pause()
        try:
            yield
        finally:
            log.resume()

    return {"log_closed": closed, "log_filled": filled}


def folder_faults(folder: Path) -> dict[str, Fault]:
    """Return what can happen to the file of the stdout sink."""
    numbers = count(1)

    @asynccontextmanager
    async def moved() -> AsyncIterator[None]:
        hidden = (folder / "events").rename(folder / f"events.{next(numbers)}")
        try:
            yield
        finally:
            hidden.rename(folder / "events")

    @asynccontextmanager
    async def rotated() -> AsyncIterator[None]:
        with suppress(FileNotFoundError):
            (folder / "events/all").rename(folder / f"events/all.{next(numbers)}")
        yield

    return {"events_folder_moved": moved, "events_rotated": rotated}


def rights_faults(admin: redis.Redis, broker: RabbitMQServer, rng: random.Random) -> dict[str, Fault]:
    """Return how the servers take rights away."""

    @asynccontextmanager
    async def of_store() -> AsyncIterator[None]:
        admin.execute_command("ACL", "SETUSER", "bridge", *rng.choice(_STORE_RIGHTS).split())
        try:
            yield
        finally:
            admin.execute_command("ACL", "SETUSER", "bridge", "~*", "+@all")

    @asynccontextmanager
    async def of_broker() -> AsyncIterator[None]:
        await asyncio.to_thread(broker.ctl, "set_permissions", "bridge", *rng.choice(_BROKER_RIGHTS))
        try:
            # The server remembers what a channel may do: only a new connection is sure to meet the new rights.
            await asyncio.to_thread(broker.ctl, "close_all_user_connections", "bridge", "its rights have changed")
            yield
        finally:
            await asyncio.to_thread(broker.ctl, "set_permissions", "bridge", ".*", ".*", ".*")

    return {"store_rights_revoked": of_store, "broker_rights_revoked": of_broker}


@dataclass
class Stage:
    """All around one bridge."""

    simulator: Simulator
    folder: Path
    port: int
    rng: random.Random
    store: dict[str, str] = field(default_factory=dict)
    """The keys of the configuration that say where store and broker are."""
    faults: dict[str, Fault] = field(default_factory=dict)
    stderr: int = -1

    def configuration(self, receiver: str) -> dict[str, object]:
        polled = sources(self.simulator.urls, self.simulator.settings, interval="300ms")["drops"] | {"rate": "200/s"}
        common = {"topics": ["#"], "retry": ["300ms"] * 1000}
        webhook = {"type": "webhook", "url": receiver, "allow_private": True, **common}
        written = {"type": "stdout", "path": str(self.folder / "events/all"), **common}
        return {
            "state": str(self.folder / "state"), **self.store, "http": {"listen": f"127.0.0.1:{self.port}"},
            "log": {"level": "debug"}, "lease": "3s", "claim": "3s", "audit": "2s",
            "drain_timeout": f"{DRAIN_SECONDS:g}s", "sources": {"drops": polled},
            "sinks": {"crm": webhook, "file": written},
        }  # fmt: skip


@asynccontextmanager
async def on_servers(stage: Stage) -> AsyncIterator[None]:
    """Give store and broker on servers that take rights away, and a log that is a pipe."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(appendonly=True))
        broker = RabbitMQServer()
        stack.callback(broker.remove)
        await asyncio.to_thread(broker.start)
        admin = stack.enter_context(redis.Redis(port=server.port))
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pass", "~*", "&*", "+@all")
        await asyncio.to_thread(broker.ctl, "add_user", "bridge", "pass")
        await asyncio.to_thread(broker.ctl, "set_permissions", "bridge", ".*", ".*", ".*")
        stage.store = {
            "store": f"redis://bridge:pass@127.0.0.1:{server.port}/0",
            "broker": f"amqp://bridge:pass@127.0.0.1:{broker.port}//",
        }
        log = LogReader(stage.folder / "log")
        stack.callback(log.close)
        stage.stderr = os.open(stage.folder / "log", os.O_WRONLY)
        stage.faults = pipe_faults(log) | rights_faults(admin, broker, stage.rng)
        yield


@asynccontextmanager
async def on_disk(stage: Stage) -> AsyncIterator[None]:
    """Give store, broker, log and a sink's file on a disk that is full at times."""
    stage.stderr = os.open(stage.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    stage.faults = folder_faults(stage.folder)
    yield


STAGES = {"servers": on_servers, "disk": on_disk}
FAULTS = {
    "servers": {
        "log_closed", "log_filled", "store_rights_revoked", "broker_rights_revoked", "disk_full",
        "descriptors_exhausted",
    },
    "disk": {"events_folder_moved", "events_rotated", "disk_full", "descriptors_exhausted"},
}  # fmt: skip


@asynccontextmanager
async def receiver_of(result: Result) -> AsyncIterator[str]:
    """Give the URL of a webhook's receiver, which notes what arrives."""
    bodies: dict[str, bytes] = {}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        receiver.requests.clear()
        event_id, body = request.headers["webhook-id"], await request.read()
        if event_id in bodies:
            result.repeats += 1
            result.changed += bodies[event_id] != body
        bodies[event_id] = body
        result.arrivals.setdefault(json.loads(body)["subject"], time.monotonic())
        return web.Response()

    async with FakeEndpoint(default=answer) as receiver:
        yield receiver.url


async def _make(simulator: Simulator, result: Result) -> None:
    while True:
        result.made[simulator.world.add_drop().path] = time.monotonic()
        await asyncio.sleep(_NEW_EVENT_EVERY_SECONDS)


async def _probe(port: int, result: Result) -> None:
    """Ask both pages again and again; no answer is no good news either."""
    timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_SECONDS)
    while True:
        well = True
        for page in ("livez", "readyz"):
            try:
                url = f"http://127.0.0.1:{port}/{page}"
                async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                    well = well and answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                well = False
        result.probes.append((time.monotonic(), well))
        await asyncio.sleep(_PROBE_EVERY_SECONDS)


async def _break(
    faults: Mapping[str, Fault], result: Result, rng: random.Random, longest: float, say: Callable[[str], None],
    rounds: int | None,
) -> None:  # fmt: skip
    """Take something away, give it back, and so on: each kind once before any comes again."""
    for _ in range(rounds) if rounds else repeat(None):
        for name in rng.sample(sorted(faults), len(faults)):
            await asyncio.sleep(rng.uniform(*_PAUSE_SECONDS))
            seconds = rng.uniform(longest / 3, longest)
            say(f"{name} for {seconds:.0f} s")
            result.faults[name] += 1
            async with faults[name]():
                await asyncio.sleep(seconds)


async def soak(
    setup: str,
    *,
    seconds: float | None = None,
    rounds: int | None = None,
    seed: int = 1,
    longest: float = 30.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Run for so long, or until each fault came `rounds` times, for `longest` seconds at most; then all has to arrive."""
    folder = folder or Path(tempfile.mkdtemp(prefix="bridge-resource-soak-"))
    (folder / "events").mkdir()
    result, rng = Result(), random.Random(seed)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings.still(keep_records=10**6)))
        stage = Stage(simulator, folder, free_port(), rng)
        receiver = await stack.enter_async_context(receiver_of(result))
        await stack.enter_async_context(STAGES[setup](stage))
        config = folder / "bridge.yaml"
        config.write_text(yaml.safe_dump(stage.configuration(receiver)))
        process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
            [sys.executable, "-m", "bridge", "run", "-c", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stage.stderr, cwd=folder,
        )  # fmt: skip
        os.close(stage.stderr)
        try:
            result.made[simulator.world.add_drop().path] = time.monotonic()
            await _until(lambda: bool(result.arrivals) or process.poll() is not None)
            faults = stage.faults | process_faults(process.pid)
            breaking = asyncio.ensure_future(_break(faults, result, rng, longest, say, rounds))
            making, probing = (
                asyncio.ensure_future(work) for work in (_make(simulator, result), _probe(stage.port, result))
            )
            await asyncio.wait([breaking, making, probing], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in (breaking, making):
                task.cancel()
            await asyncio.gather(breaking, making, return_exceptions=True)
            await _until(lambda: result.read_events(folder) or not result.lost or process.poll() is not None)
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            process.send_signal(signal.SIGTERM)
            result.exit_code = await asyncio.to_thread(process.wait, DRAIN_SECONDS + 2)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    result.read_events(folder)
    return result


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LAST_EVENTS_SECONDS
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


def _print(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that a fault lasts at most")
    options = parser.parse_args()
    results = asyncio.run(_soak_all(options.minutes * 60, options.seed, options.longest))
    for setup, result in results.items():
        _print(f"\n\n{setup}\n{result.table()}")
    sys.exit(any(
        result.lost or result.broken_lines or result.changed or result.unsaid() or result.exit_code
        for result in results.values()
    ))  # fmt: skip


async def _soak_all(seconds: float, seed: int, longest: float) -> dict[str, Result]:
    runs = {
        setup: soak(
            setup, seconds=seconds, seed=seed, longest=longest,
            say=lambda text, setup=setup: _print(f"{setup}: {text}"),
        )
        for setup in STAGES
    }  # fmt: skip
    return dict(zip(runs, await asyncio.gather(*runs.values()), strict=True))


if __name__ == "__main__":
    main()
