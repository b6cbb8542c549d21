"""A long run in which the machine takes things away and gives them back: log pipes, disk, descriptors, rights.

    python tests/faults/resource_soak.py --minutes 15 --seed 3

Nothing may be lost. Whenever work stands still, `/livez` or `/readyz` has to say so within 15 seconds.
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
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiohttp
import redis
import yaml
from aiohttp import web

from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port
from bridge.testing.servers import RedisServer

SAID_WITHIN_SECONDS = 15.0
DRAIN_SECONDS = 10.0
_LAST_EVENTS_SECONDS = 120.0
_NEW_EVENT_EVERY_SECONDS = 0.1
_PROBE_EVERY_SECONDS = 0.5
_PROBE_TIMEOUT_SECONDS = 5.0
_PAUSE_SECONDS = (1.0, 5.0)
_UNLIMITED = resource.RLIM_INFINITY
_RIGHTS = {"scripts": "-eval -evalsha", "keys": "resetkeys ~nothing", "writes": "-@write"}


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

    @property
    def lost(self) -> int:
        """How many resources nobody heard of."""
        return len(self.made.keys() - self.arrivals.keys())

    def standstills(self) -> list[tuple[float, float]]:
        """Return the times in which something was on its way and nothing arrived, if longer than may go unsaid."""
        ends = sorted(self.arrivals.values())
        stills = []
        for start, end in pairwise(ends):
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


class Faults:
    """What the machine takes away for a while; each method returns how it is given back."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: LogReader, admin: redis.Redis, rng: random.Random
    ) -> None:
        self._pid = process.pid
        self._log = log
        self._admin = admin
        self._rng = rng

    def log_closed(self) -> Callable[[], object]:
        self._log.close()
        return self._log.open

    def log_filled(self) -> Callable[[], object]:
        self._log.pause()
        return self._log.resume

    def disk_full(self) -> Callable[[], object]:
        """Let no file grow or be written beyond its first page."""
        return self._limit(resource.RLIMIT_FSIZE, 4096)

    def descriptors_exhausted(self) -> Callable[[], object]:
        return self._limit(resource.RLIMIT_NOFILE, len(list(Path(f"/proc/{self._pid}/fd").iterdir())))

    def rights_revoked(self) -> Callable[[], object]:
        self._admin.execute_command("ACL", "SETUSER", "bridge", *self._rng.choice(list(_RIGHTS.values())).split())
        return lambda: self._admin.execute_command("ACL", "SETUSER", "bridge", "~*", "+@all")

    def _limit(self, kind: int, value: int) -> Callable[[], object]:
        before = resource.prlimit(self._pid, kind)
        resource.prlimit(self._pid, kind, (value, before[1]))
        return lambda: resource.prlimit(self._pid, kind, before)


FAULTS = ("log_closed", "log_filled", "disk_full", "descriptors_exhausted", "rights_revoked")


@asynccontextmanager
async def stage(folder: Path, result: Result, port: int) -> AsyncIterator[tuple[Simulator, Path, redis.Redis]]:
    """Give the provider, the configuration, and the administrator of the store; the receiver notes into `result`."""
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

    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(appendonly=True))
        admin = stack.enter_context(redis.Redis(port=server.port))
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pass", "~*", "&*", "+@all")
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings.still(keep_records=10**6)))
        receiver = await stack.enter_async_context(FakeEndpoint(default=answer))
        polled = {"drops": sources(simulator.urls, simulator.settings, interval="300ms")["drops"] | {"rate": "200/s"}}
        webhook = {
            "type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True, "retry": ["300ms"] * 1000,
        }  # fmt: skip
        config = folder / "bridge.yaml"
        config.write_text(
            yaml.safe_dump({
                "state": str(folder / "state"), "store": f"redis://bridge:pass@127.0.0.1:{server.port}/0",
                "http": {"listen": f"127.0.0.1:{port}"}, "log": {"level": "debug"}, "lease": "3s", "claim": "3s",
                "audit": "2s", "drain_timeout": f"{DRAIN_SECONDS:g}s", "sources": polled, "sinks": {"crm": webhook},
            })
        )  # fmt: skip
        yield simulator, config, admin


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
    faults: Faults, result: Result, rng: random.Random, longest: float, say: Callable[[str], None]
) -> None:
    """Take something away, give it back, and so on: each kind once before any comes again."""
    while True:
        for name in rng.sample(FAULTS, len(FAULTS)):
            await asyncio.sleep(rng.uniform(*_PAUSE_SECONDS))
            seconds = rng.uniform(longest / 3, longest)
            say(f"{name} for {seconds:.0f} s")
            result.faults[name] += 1
            restore = getattr(faults, name)()
            try:
                await asyncio.sleep(seconds)
            finally:
                restore()


async def soak(
    seconds: float,
    *,
    seed: int = 1,
    longest: float = 30.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Run for so long, with faults that last for `longest` seconds at most; then all of it has to arrive."""
    folder = folder or Path(tempfile.mkdtemp(prefix="bridge-resource-soak-"))
    result, port, rng = Result(), free_port(), random.Random(seed)
    async with stage(folder, result, port) as (simulator, config, admin):
        log = LogReader(folder / "log")
        descriptor = os.open(folder / "log", os.O_WRONLY)
        process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
            [sys.executable, "-m", "bridge", "run", "-c", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=descriptor, cwd=folder,
        )  # fmt: skip
        os.close(descriptor)
        try:
            result.made[simulator.world.add_drop().path] = time.monotonic()
            await _until(lambda: bool(result.arrivals) or process.poll() is not None)
            faults = Faults(process, log, admin, rng)
            work = [_make(simulator, result), _probe(port, result), _break(faults, result, rng, longest, say)]
            tasks = [asyncio.ensure_future(task) for task in work]
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            for task in (tasks[0], tasks[2]):
                task.cancel()
            await asyncio.gather(tasks[0], tasks[2], return_exceptions=True)
            await _until(lambda: not result.lost or process.poll() is not None)
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
            process.send_signal(signal.SIGTERM)
            result.exit_code = await asyncio.to_thread(process.wait, DRAIN_SECONDS + 2)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            log.close()
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
    result = asyncio.run(soak(options.minutes * 60, seed=options.seed, longest=options.longest, say=_print))
    _print(f"\n{result.table()}")
    sys.exit(bool(result.lost or result.changed or result.unsaid() or result.exit_code))


if __name__ == "__main__":
    main()
