"""A long run under kill -9: providers, Redis, RabbitMQ and a failing webhook, each ended at random; then the books.

    python tests/faults/soak.py --transitions 1000000 --kills 200 --within 1500

The provider's world is made so that nothing may be passed over: a recipient moves on only when the endpoint side has been
told of its status before. So each transition has to arrive, and the figure for what was lost has no excuse.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.deliveries import DeliveryCounts
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.simulator.world import Message
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.servers import RabbitMQServer, RedisServer

MAX_WAIT_SECONDS = 90.0
"""Seconds for the last events to arrive."""
RECIPIENTS = 98  # of a message: with the message's own two statuses, 198 transitions
PER_MESSAGE = 2 * RECIPIENTS + 2
SENDS = 2  # Marketing Cloud events beside each message
IN_FLIGHT = 40
REFUSED = 0.1
CLAIM = 2.0
CONCURRENCY = 32
MAX_IN_FLIGHT = 2 * CONCURRENCY
"""What a sink's process holds at most: so many may come twice when it is killed."""
ON_ITS_WAY = 0.5
"""Seconds for which the endpoint side may still find requests of a process that is dead."""
ROLES = {"poller": ("poll", "relay"), "sink": ("sink",)}
VICTIMS = {"poller": 8, "sink": 8, "redis": 3, "rabbitmq": 1}
"""How often each is killed, compared with the others; RabbitMQ takes long to come back."""


@dataclass
class Result:
    """What a run came to."""

    transitions: int = 0
    """How many the providers made."""
    lost: int = 0
    undefined: int = 0
    """Events of transitions that nobody made."""
    changed: int = 0
    """Ids that came twice with different bytes."""
    kills: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    repeats: int = 0
    """How often the endpoint side took something that it had taken before."""
    unexplained: int = 0
    """Repeats without a kill of the sink's process between the two."""
    worst: int = 0
    """The most repeats after one kill."""
    books: dict[str, str] = field(default_factory=dict)
    balanced: bool = False
    trimmed: int = 0
    """How many entries the journals gave up, of those that were settled."""
    seconds: float = 0.0

    def table(self) -> str:
        rows: list[tuple[str, Any]] = [
            ("transitions made by the providers", f"{self.transitions:,}"),
            ("lost", self.lost),
            ("made up", self.undefined),
            ("repeated with other bytes", self.changed),
            ("kills (SIGKILL)", f"{self.kills.total()}: " + ", ".join(f"{n} {who}" for who, n in self.kills.items())),
            ("requests refused by the endpoint side (503)", f"{self.refused:,}"),
            ("repeats at the endpoint side", f"{self.repeats:,}"),
            ("  most after one kill", self.worst),
            ("  not explained by a kill of the sink", self.unexplained),
            *((f"books of {name}", text) for name, text in self.books.items()),
            ("books balanced", "yes" if self.balanced else "NO"),
            ("journal entries trimmed meanwhile", f"{self.trimmed:,}"),
            ("seconds", f"{self.seconds:.0f}"),
            ("transitions a second, kills and all", f"{self.transitions / max(self.seconds, 1e-9):.0f}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


class SoakEndpoint:
    """Takes events, refuses one in ten at random, and remembers what it took and when."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.receiver = FakeEndpoint(default=self._answer)
        self.digests: dict[str, tuple[bytes, float]] = {}
        """Of each id, a digest of its bytes and when it was taken last."""
        self.delivered: Counter[tuple[str, str]] = Counter()
        """Of each resource and status, under how many ids it was told."""
        self.repeats: list[tuple[float, float]] = []
        """When something was taken, and when it was taken again."""
        self.changed = 0
        self.refused = 0
        self.news: Callable[[str, str], None] = lambda _subject, _status: None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.receiver.requests.clear()
        if self._rng.random() < REFUSED:
            self.refused += 1
            return web.Response(status=503)
        event_id, body = request.headers["webhook-id"], await request.read()
        now, digest = time.monotonic(), hashlib.blake2b(body, digest_size=8).digest()
        before = self.digests.get(event_id)
        self.digests[event_id] = (digest, now)
        if before is not None:
            self.changed += before[0] != digest
            self.repeats.append((before[1], now))
            return web.Response()
        event = json.loads(body)
        if event["data"]["channel"] != "bridge":
            self.delivered[event["subject"], event["data"]["status"]] += 1
            self.news(event["subject"], event["data"]["status"])
        return web.Response()


class Provider:
    """The world: messages whose recipients are sent to, and move on when that was told; and events of another feed."""

    def __init__(self, simulator: Simulator, endpoint: SoakEndpoint, transitions: int) -> None:
        self._world = simulator.world
        self._left = max(1, round(transitions / (PER_MESSAGE + SENDS)))
        self._waiting: dict[str, tuple[Message, set[str]]] = {}
        self.closed = False
        self.made: set[tuple[str, str]] = set()
        """Each transition: a resource's path and its status."""
        endpoint.news = self._on_delivered

    @property
    def done(self) -> bool:
        return not self._left and not self._waiting

    def close(self) -> None:
        """Make nothing new; what is on its way still goes on."""
        self._left = 0
        self.closed = True

    def fill(self) -> None:
        """Bear messages until enough are on their way."""
        while self._left and len(self._waiting) < IN_FLIGHT:
            self._left -= 1
            message = self._world.add_message("sms", RECIPIENTS, status="sending", recipient_status="sending")
            paths = {message.path, *message.recipients}
            self._waiting[message.path] = (message, paths)
            self.made.update((path, "sending") for path in paths)
            for _ in range(SENDS):
                self.made.add((self._world.add_send_event().path, "not_sent"))

    def _on_delivered(self, subject: str, status: str) -> None:
        path = subject.partition("/recipients/")[0]
        waiting = self._waiting.get(path)
        if status != "sending" or waiting is None:
            return
        message, silent = waiting
        silent.discard(subject)
        if silent:
            return
        # All of this message was told: it may move on.
        del self._waiting[path]
        for index in range(RECIPIENTS):
            status = "failed" if index % 5 == 0 else "sent"
            self._world.move(message.recipient(index), status)
            self.made.add((message.recipient(index), status))
        self._world.move(path, "completed")
        self.made.add((path, "completed"))


class Troupe:
    """The processes that live and die: two of the bridge's, and two servers. Who dies is started again at once."""

    def __init__(self, folder: Path, config: Path, store: RedisServer, broker: RabbitMQServer) -> None:
        self._folder = folder
        self._config = config
        self._servers = {"redis": store, "rabbitmq": broker}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills: list[tuple[float, str]] = []

    def start(self, name: str) -> None:
        roles = [word for role in ROLES[name] for word in ("--role", role)]
        with (self._folder / f"{name}.err").open("ab") as err:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", "-c", str(self._config), *roles],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                cwd=self._folder,
                env=os.environ,
            )

    async def kill(self, name: str) -> None:
        """End it as a power cut would, and start it again."""
        server = self._servers.get(name)
        if server is not None:
            await asyncio.to_thread(server.kill)
            self.kills.append((time.monotonic(), name))
            await asyncio.to_thread(server.start)
            return
        process = self._processes[name]
        assert process.poll() is None, f"{name} ended by itself with {process.returncode}; see its log"
        process.kill()
        await asyncio.to_thread(process.wait)
        self.kills.append((time.monotonic(), name))
        self.start(name)

    async def stop(self) -> list[int]:
        """Ask both to end, and return their exit codes."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        return [await asyncio.to_thread(process.wait, 60) for process in self._processes.values()]

    def end(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@asynccontextmanager
async def stage(
    folder: Path, transitions: int, seed: int
) -> AsyncIterator[tuple[Provider, SoakEndpoint, Troupe, RedisStore]]:
    """Give the world, the endpoint side, the processes, and the store to look into; all of it ends with the block."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(RedisServer(appendonly=True))
        broker = stack.enter_context(RabbitMQServer())
        settings = SimulatorSettings.still(seed=seed, keep_messages=10**6, keep_records=10**7)
        simulator = await stack.enter_async_context(Simulator(settings))
        endpoint = SoakEndpoint(random.Random(seed))
        await stack.enter_async_context(endpoint.receiver)
        polled = sources(simulator.urls, settings, interval="300ms")
        del polled["drops"]
        polled["city"] |= {"rate": "1000/s", "channels": ["sms"], "follow_for": "1s", "concurrency": 8}
        polled["journeys"] |= {"rate": "1000/s", "page_size": 500}
        config = folder / "bridge.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "store": store.url,
                    "broker": broker.url,
                    "http": {"listen": None},
                    "lease": "1s",
                    "claim": f"{CLAIM:g}s",
                    "audit": "2s",
                    "journal": {"max_bytes": "100MB"},
                    "sources": polled,
                    "sinks": {
                        "crm": {
                            "type": "webhook",
                            "topics": ["#"],
                            "url": endpoint.receiver.url,
                            "allow_private": True,
                            "concurrency": CONCURRENCY,
                            "retry": ["300ms"] * 1000,
                        }
                    },
                }
            )
        )
        troupe = Troupe(folder, config, store, broker)
        stack.callback(troupe.end)
        inspected = RedisStore(store.url, clock=Clock())
        stack.push_async_callback(inspected.close)
        yield Provider(simulator, endpoint, transitions), endpoint, troupe, inspected


async def soak(
    transitions: int,
    kills: int,
    *,
    seed: int = 1,
    within: float = 150.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Run until all transitions were told, with so many kills spread over it.

    After `within` seconds nothing new is made and nobody is killed any more, so that a run that was slower than hoped
    ends with fewer transitions, and the same questions to answer.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="bridge-soak-"))
    say(f"logs are in {folder}; seed {seed}")
    async with stage(folder, transitions, seed) as (provider, endpoint, troupe, store):
        for name in ("poller", "sink"):
            troupe.start(name)
        started = time.monotonic()
        killing = asyncio.ensure_future(_kill(troupe, provider, kills, random.Random(seed), endpoint, transitions))
        quoting = asyncio.ensure_future(_report(say, provider, endpoint, troupe, started, transitions))
        try:
            while not (provider.done and killing.done() and endpoint.delivered.keys() >= provider.made):
                passed = time.monotonic() - started
                if passed > within:
                    provider.close()
                if passed > within + MAX_WAIT_SECONDS:
                    say(f"given up after {passed:.0f} s")
                    break
                provider.fill()
                if killing.done():
                    killing.result()
                await asyncio.sleep(0.02)
        finally:
            quoting.cancel()
            killing.cancel()
            await asyncio.gather(quoting, killing, return_exceptions=True)
        seconds = time.monotonic() - started
        result = evaluate(provider, endpoint, troupe)
        result.seconds = seconds
        await _read_books(store, result, within=120)
        codes = await troupe.stop()
        assert codes == [0, 0], codes
    return result


async def _kill(
    troupe: Troupe, provider: Provider, kills: int, rng: random.Random, endpoint: SoakEndpoint, transitions: int
) -> None:
    """Kill somebody each time that another share of the transitions has been told, everybody once at least."""
    names, weights = list(VICTIMS), list(VICTIMS.values())
    plan = deque([*names, *rng.choices(names, weights, k=max(0, kills - len(names)))][:kills])
    rng.shuffle(plan)
    for number, name in enumerate(plan):
        goal = transitions * 0.9 * (number + 1) / (kills + 1)
        while len(endpoint.delivered) < goal and not provider.closed:
            await asyncio.sleep(0.02)
        if provider.closed:
            return
        await asyncio.sleep(rng.random() * 0.5)
        await troupe.kill(name)


async def _report(
    say: Callable[[str], None],
    provider: Provider,
    endpoint: SoakEndpoint,
    troupe: Troupe,
    started: float,
    transitions: int,
) -> None:
    while True:
        await asyncio.sleep(10)
        passed = time.monotonic() - started
        say(
            f"{passed:6.0f} s  told {len(endpoint.delivered):>9,} of {transitions:,} ({len(endpoint.delivered) / passed:.0f}/s)  "
            f"made {len(provider.made):,}  kills {len(troupe.kills)}  repeats {len(endpoint.repeats)}"
        )


def evaluate(provider: Provider, endpoint: SoakEndpoint, troupe: Troupe) -> Result:
    """Compare what was made with what was told, and find a kill for each repeat."""
    result = Result(transitions=len(provider.made), refused=endpoint.refused, changed=endpoint.changed)
    result.lost = len(provider.made - endpoint.delivered.keys())
    # A transition that was told under two ids would be two events.
    result.undefined = len(endpoint.delivered.keys() - provider.made) + sum(
        count - 1 for count in endpoint.delivered.values()
    )
    result.kills = Counter(name for _, name in troupe.kills)
    result.repeats = len(endpoint.repeats)
    deaths = [at for at, name in troupe.kills if name == "sink"]
    after: Counter[float] = Counter()
    for first, again in endpoint.repeats:
        between = [at for at in deaths if first - ON_ITS_WAY <= at <= again]
        if between:
            after[between[0]] += 1
        else:
            result.unexplained += 1
    result.worst = max(after.values(), default=0)
    return result


async def _read_books(store: RedisStore, result: Result, within: float) -> None:
    """Wait until the books of the sink balance, and write them down."""
    deadline = time.monotonic() + within
    while True:
        try:
            journals = {name: await store.journal(name) for name in await store.sources()}
            books = await store.counts("crm")
        except Unavailable:
            books, journals = {}, {}
        result.balanced = bool(books) and all(
            books.get(name, DeliveryCounts()) == DeliveryCounts(delivered=state.events)
            for name, state in journals.items()
        )
        if result.balanced or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    for name, state in journals.items():
        counts = books.get(name, DeliveryCounts())
        result.trimmed += state.first - state.base - 1
        result.books[name] = (
            f"{state.events:,} committed = {counts.delivered:,} delivered + {counts.waiting:,} waiting + {counts.dead:,} dead"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak the bridge under kill -9, and print what it cost.")
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--within", type=float, default=1500.0, help="seconds after which nothing new is made")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = asyncio.run(soak(options.transitions, options.kills, seed=options.seed, within=options.within, say=_say))
    _say(f"\n{result.table()}")
    sys.exit(0 if result.balanced and not (result.lost or result.undefined or result.unexplained) else 1)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script for a person


if __name__ == "__main__":
    main()
