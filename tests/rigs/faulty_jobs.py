"""Jobs of real processes for alerts: one on a normal day, and others each with faults of their own."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
import yaml
from harness import ask, until
from rigs.hangups import default_hangups
from rigs.prometheus import SHORT, Prometheus

from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.free_port import free_port
from bridge.testing.servers import RedisServer

NORMAL = "bridge"
AGAIN = ["200ms"] * 60
LIVELY = SimulatorSettings(speed=30.0, messages_per_minute=2.0, recipients_per_message=6.0)


class Job:
    """Processes of one configuration, each with its own port for Prometheus."""

    def __init__(self, folder: Path, name: str, *, replicas: int = 1, **values: Any) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.ports = [free_port() for _ in range(replicas)]
        self._values = {"state": str(self.folder / "state"), "lease": "2s", **values}
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def config(self, port: int) -> Path:
        path = self.folder / f"{port}.yaml"
        path.write_text(yaml.safe_dump({**self._values, "http": {"listen": f"127.0.0.1:{port}"}}))
        return path

    def start(self, *arguments: str, replica: int = 0, log: Path | None = None) -> None:
        port = self.ports[replica]
        with default_hangups(), (log or self.folder / f"{port}.log").open("ab") as err:
            self._running[replica] = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", "-c", str(self.config(port)), *arguments],
                cwd=self.folder, env={**os.environ, "NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip

    def kill(self, replica: int = 0) -> None:
        process = self._running.pop(replica, None)
        if process is not None:
            process.kill()
            process.wait(30)

    def pid(self, replica: int = 0) -> int:
        return self._running[replica].pid

    def end(self) -> None:
        for replica in list(self._running):
            self.kill(replica)


@dataclass
class Site:
    """Everything that is needed for the jobs, started; `jobs` by name."""

    folder: Path
    simulator: Simulator
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    jobs: dict[str, Job] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    """What belongs to one job alone: servers that are harmed, and what is in them."""

    async def __aenter__(self) -> Self:
        await self.stack.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        for job in self.jobs.values():
            job.end()
        await self.stack.aclose()

    def add(self, name: str, *, replicas: int = 1, **values: Any) -> Job:
        job = self.jobs[name] = Job(self.folder, name, replicas=replicas, **values)
        return job

    async def endpoint(self, status: int, headers: Mapping[str, str] | None = None) -> FakeEndpoint:
        return await self.stack.enter_async_context(FakeEndpoint(default=reply(status, headers=headers)))

    def sources(self, *names: str, **changes: Any) -> dict[str, Any]:
        every = sources(self.simulator.urls, self.simulator.settings, interval="1s")
        return {name: {**every[name], "rate": "200/s", **changes} for name in names}

    async def hook(self, status: int, **changes: Any) -> dict[str, Any]:
        endpoint = await self.endpoint(status)
        return {
            "type": "webhook", "topics": ["*.recipient.#", "voicemail.#"], "url": endpoint.url,
            "allow_private": True, "retry": AGAIN, **changes,
        }  # fmt: skip


async def normal(site: Site) -> None:
    """Start two replicas to which nothing happens."""
    store = site.stack.enter_context(RedisServer())
    crm = await site.hook(200)
    job = site.add(
        NORMAL, replicas=2, store=store.url, broker=store.url, sources=site.sources("city", "drops", "journeys"),
        sinks={"crm": crm}, audit="2s", reconcile={"every": "2s"},
    )  # fmt: skip
    job.start()
    job.start(replica=1)


Fault = Callable[[Site, Prometheus], Awaitable[None]]


async def broken_ends(site: Site, prometheus: Prometheus) -> None:
    """Pause a sink as an operator does, break the file, and take nearly all file descriptors away."""
    job = site.jobs["bridge-ends"]
    await until(lambda: _has(prometheus, 'bridge_sink_dead{sink="picky"}'), "the sinks are shown")
    done = await ask(job.folder, "pause", "sink/lazy", "-c", str(job.config(job.ports[0])))
    assert done.returncode == 0, done.stderr
    job.config(job.ports[0]).write_text("sources: [")
    os.kill(job.pid(), signal.SIGHUP)
    await until(lambda: _has(prometheus, 'bridge_sink_waiting{sink="broken"} > 0'), "the endpoint is down")
    busy = f'ALERTS{{job="{job.name}", alertname="BridgeSourceBudgetExhausted", alertstate="firing"}}'
    await until(lambda: _has(prometheus, busy), "the budget is exhausted", within=240)
    # Last: without descriptors no poll can go on.
    descriptors = len(list(Path(f"/proc/{job.pid()}/fd").iterdir()))
    resource.prlimit(job.pid(), resource.RLIMIT_NOFILE, (round(descriptors * 1.15), descriptors + 100))


async def prepare_broken_ends(site: Site) -> None:
    """Start sources whose providers refuse, and sinks whose endpoints do."""
    refusing, busy = await site.endpoint(401), await site.endpoint(429, {"Retry-After": "1"})
    (site.folder / "no-certificate.pem").write_text("no certificate")
    failing = {"stall_after": "1s", "interval": "500ms", "rate": "50/s"}
    sinks = {name: await site.hook(status) for name, status in
             {"gone": 410, "broken": 500, "locked": 401, "picky": 400, "lazy": 200}.items()}  # fmt: skip
    sinks["torn"] = await site.hook(200, ca_file=str(site.folder / "no-certificate.pem"))
    site.add(
        "bridge-ends",
        sources={
            **site.sources("city"),
            **site.sources("drops", rate="1/s", interval="200ms"),
            "locked": {"type": "spacivox", "url": refusing.url, "token": "wrong", **failing},
            "busy": {"type": "spacivox", "url": busy.url, "token": "right", **failing},
        },
        sinks=sinks,
    ).start()


async def prepare_mute(site: Site) -> None:
    """Start a process without a broker, with a small journal, and with a log that nobody can write to."""
    job = site.add(
        "bridge-mute", broker=f"redis://127.0.0.1:{free_port()}/0", sources=site.sources("city"), sinks={},
        journal={"max_bytes": "10KB"},
    )  # fmt: skip
    job.start(log=Path("/dev/full"))


async def mute(site: Site, prometheus: Prometheus) -> None:
    """Do nothing more: it begins with its faults."""


async def prepare_cut(site: Site) -> None:
    site.own["store"] = store = site.stack.enter_context(RedisServer())
    site.add("bridge-cut", store=store.url, sources=site.sources("city"), sinks={}).start()


async def cut(site: Site, prometheus: Prometheus) -> None:
    """Take the store away from a process that polls."""
    await until(lambda: _has(prometheus, 'bridge_source_last_ok_timestamp_seconds{job="bridge-cut"}'), "it polls")
    site.own["store"].kill()


async def prepare_crash(site: Site) -> None:
    site.add("bridge-crash", replicas=2, sources=site.sources("city"), sinks={}).start()


async def crash(site: Site, prometheus: Prometheus) -> None:
    """Kill a process three times; a second one is never started."""
    job, start = site.jobs["bridge-crash"], 'process_start_time_seconds{job="bridge-crash"}'
    for count in range(3):
        changes = f"changes({start}[10m]) >= {count} and {start}"
        await until(lambda changes=changes: _has(prometheus, changes), f"{count} restarts are seen")
        job.kill()
        job.start()


async def prepare_split(site: Site) -> None:
    site.own["broker"] = broker = site.stack.enter_context(RedisServer())
    site.add(
        "bridge-split", replicas=2, broker=broker.url, sources=site.sources("drops"),
        sinks={"crm": await site.hook(200)}, audit="1s",
    )  # fmt: skip
    site.jobs["bridge-split"].start("--role", "poll", "--role", "relay")


async def split(site: Site, prometheus: Prometheus) -> None:
    """Purge the queue of a sink to which no process delivers; then let a process deliver."""
    job = site.jobs["bridge-split"]
    await until(lambda: _has(prometheus, 'bridge_confirmed_total{job="bridge-split"} > 5'), "events are queued")

    async def missing() -> bool:
        return any(
            alert["labels"].get("role") == "sink" and alert["state"] == "firing" and is_short(alert)
            for alert in await prometheus.alerts()
        )

    await until(missing, "the missing role is noticed")
    with redis.Redis.from_url(site.own["broker"].url) as client:
        for key in client.scan_iter("*bridge.sink.crm*"):
            if client.type(key) == b"list":
                client.delete(key)
    job.start("--role", "sink", replica=1)


async def prepare_books(site: Site) -> None:
    site.own["provider"] = odd = await site.stack.enter_async_context(Simulator(SimulatorSettings.still()))
    site.own["message"] = odd.world.add_message("sms", 60, status="sending", recipient_status="sending")
    city = {**sources(odd.urls, odd.settings, interval="250ms")["city"], "rate": "200/s"}
    site.add("bridge-books", sources={"city": city}, sinks={}, reconcile={"every": "500ms"}).start()


async def books(site: Site, prometheus: Prometheus) -> None:
    """Let a provider leave a recipient out of its pages, and count it."""
    shown = 'sum(bridge_events_total{job="bridge-books"}) >= 61'
    await until(lambda: _has(prometheus, shown), "all recipients are known")
    provider = site.own["provider"]
    provider.switch_on("skipping_pages", path=r"/recipients\?page=")
    provider.world.move(site.own["message"].recipient(50), "failed")


FAULTS: dict[str, tuple[Callable[[Site], Awaitable[None]], Fault, frozenset[str]]] = {
    "bridge-ends": (
        prepare_broken_ends,
        broken_ends,
        frozenset({
            "BridgePartRestarts", "BridgeConfigRefused", "BridgePaused", "BridgeFileDescriptorsLow",
            "BridgeSourceStalled", "BridgeSourceFailsOften", "BridgeSourceCredentialsRefused", "BridgeSourceThrottled",
            "BridgeSourceBudgetExhausted", "BridgeSinkDisabled", "BridgeSinkCircuitOpen",
            "BridgeSinkCredentialsRefused", "BridgeDeliveriesLate", "BridgeDeadLetters", "BridgeDeadLettersGrow",
        }),
    ),
    "bridge-mute": (
        prepare_mute,
        mute,
        frozenset({
            "BridgeBrokerUnreachable", "BridgePartHasProblem", "BridgeLogLinesLost", "BridgeSourceHeld",
            "BridgeEventsUnpublished", "BridgeJournalFull",
        }),
    ),
    "bridge-cut": (
        prepare_cut, cut, frozenset({"BridgeStoreUnreachable", "BridgeLeaseNotHeld", "BridgeSourceNotPolled"}),
    ),
    "bridge-crash": (prepare_crash, crash, frozenset({"BridgeRestarts", "BridgeReplicaDown"})),
    "bridge-split": (prepare_split, split, frozenset({"BridgeRoleMissing", "BridgeBrokerLostEvents"})),
    "bridge-books": (prepare_books, books, frozenset({"BridgeBooksDiffer"})),
}  # fmt: skip
"""For each job with faults: how it begins, what happens to it, and which alerts fire of it."""


def is_short(alert: Mapping[str, Any]) -> bool:
    """Return whether an alert is of the rules with shorter times."""
    return bool(alert["labels"].get("times") == SHORT)


async def _has(prometheus: Prometheus, expression: str) -> bool:
    return bool(await prometheus.query(expression))


class Watch:
    """Notes after how many seconds each alert fired, by job."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self._began = asyncio.get_running_loop().time()
        self.fired: dict[str, dict[str, float]] = {}
        self.annotations: dict[str, dict[str, str]] = {}

    async def note(self) -> None:
        now = asyncio.get_running_loop().time() - self._began
        for alert in await self._prometheus.alerts():
            if is_short(alert) and alert["state"] == "firing":
                name, job = alert["labels"]["alertname"], alert["labels"].get("job", "")
                self.fired.setdefault(job, {}).setdefault(name, now)
                self.annotations.setdefault(name, alert["annotations"])

    async def until_silent(self, job: str) -> None:
        """Wait until no alert of the rules that ship is firing for a job, and none is about to."""

        async def is_silent() -> bool:
            return not any(
                alert["labels"].get("job") == job and not is_short(alert) for alert in await self._prometheus.alerts()
            )

        await until(is_silent, f"no alert of {job}")

    async def until_fired(self, job: str, names: frozenset[str], within: float) -> None:
        async def all_fired() -> bool:
            await self.note()
            return names <= self.fired.get(job, {}).keys()

        try:
            await until(all_fired, f"{job} alerts", within=within)
        except TimeoutError:
            missing = sorted(names - self.fired.get(job, {}).keys())
            raise TimeoutError(f"{job}: not within {within:g} s: {missing}") from None
