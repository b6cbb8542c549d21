"""A long run under reloads: sources and sinks come, change and go, a third of the files is broken; then the books.

    PYTHONPATH=tests .venv/bin/python tests/faults/reload_proof.py --store redis --broker rabbitmq --reloads 50 --broken 15

The provider's world is that of `soak.py`: a resource moves on only when its last status has been delivered, so that each
transition has to arrive, and exactly once, for no process is killed here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from faults.soak import Provider, SoakEndpoint
from harness import Process, bridge, until
from rigs.hangups import default_hangups

from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.servers import RabbitMQServer, RedisServer

STORES, BROKERS = ("redis", "sqlite"), ("rabbitmq", "redis", "embedded")
INTERVAL_SECONDS = 0.5
"""Seconds between two polls of the source that no reload changes."""
JITTER_SHARE = 0.05
OUTCOMES = ("config.reloaded", "config.unchanged", "config.refused")

Values = dict[str, Any]


def _source_comes_or_goes(values: Values) -> None:
    values["sources"].pop("journeys", None) or values["sources"].update(journeys=values["spare"])


def _source_changes(values: Values) -> None:
    city = values["sources"]["city"]
    city["concurrency"] = 13 - city["concurrency"]


def _sink_comes_or_goes(values: Values) -> None:
    values["sinks"].pop("extra", None) or values["sinks"].update(
        extra=dict(values["sinks"]["crm"], url=values["extra"])
    )


def _sink_changes(values: Values) -> None:
    ops = values["sinks"]["ops"]
    ops["concurrency"] = 13 - ops["concurrency"]


def _setting_changes(values: Values) -> None:
    values["audit"] = "3s" if values.get("audit") == "2s" else "2s"


CHANGES = (_source_comes_or_goes, _source_changes, _sink_comes_or_goes, _sink_changes, _setting_changes)
BROKEN: tuple[Callable[[str], str], ...] = (
    lambda text: text[: len(text) // 2] + "\n  : [",
    lambda text: f"{text}\nunknown: 1\n",
    lambda _: "",
    lambda text: text.replace("type: govdelivery", "type: govdelivary"),
    lambda text: f"{text}\nexchange: other\n",
    lambda text: text.replace("  ops:\n", "  ops:\n    secret_file: /nowhere/at/all\n", 1),
)


@dataclass
class Result:
    """What a run came to."""

    setup: str
    outcomes: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    transitions: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    """For each sink that was there all the time: transitions that it was not told of."""
    repeats: dict[str, int] = field(default_factory=dict)
    """For each sink: ids that it got again."""
    made_up: int = 0
    """Transitions under two ids, or that nobody made."""
    restarts: int = 0
    exit_code: int | None = None
    longest_before: float = 0.0
    """Seconds between two polls of the unchanged source, at most, before the first reload."""
    longest: float = 0.0
    """The same from the first reload on."""
    polls: int = 0
    seconds: float = 0.0

    def table(self) -> str:
        rows: list[tuple[str, Any]] = [
            ("setup", self.setup),
            ("reloads", ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))),
            ("transitions made by the providers", f"{self.transitions:,}"),
            ("lost", self.lost),
            ("made up, or told under two ids", self.made_up),
            ("ids repeated", self.repeats),
            ("parts started again after a failure", self.restarts),
            ("polls of the unchanged source", self.polls),
            ("  longest from poll to poll", f"{self.longest:.3f} s, {self.longest_before:.3f} s before the reloads"),
            ("seconds", f"{self.seconds:.0f}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    @property
    def is_good(self) -> bool:
        nothing = not any(self.lost.values()) and not any(self.repeats.values()) and not self.made_up
        return nothing and self.outcomes == self.expected and not self.restarts and self.exit_code == 0


@dataclass
class Stage:
    """The world, the receivers, the file and the process."""

    provider: Provider
    simulator: Simulator
    endpoints: dict[str, SoakEndpoint]
    file: Path
    values: Values
    process: Process = field(init=False)

    @property
    def polls(self) -> list[float]:
        return self.simulator.traffic["spacivox"].times

    def count(self, *events: str) -> Counter[str]:
        return Counter(line["event"] for line in self.process.log if line["event"] in events)

    async def address(self) -> str:
        await until(lambda: self.count("http.listens"), "it listens")
        return next(str(line["address"]) for line in self.process.log if line["event"] == "http.listens")

    async def delivers(self, count: float) -> None:
        await until(lambda: len(self.endpoints["crm"].delivered) >= count, f"{count} are delivered", within=600)

    def write(self, text: str | None = None) -> None:
        """Put another file into its place, whole."""
        own = {key: value for key, value in self.values.items() if key not in ("spare", "extra")}
        following = self.file.with_suffix(".new")
        following.write_text(yaml.safe_dump(own, sort_keys=False) if text is None else text)
        following.replace(self.file)

    async def reload(self, *, by_http: bool) -> str:
        """Have the file read, and return what came of it."""
        before = self.count(*OUTCOMES).total()
        if by_http:
            url = f"http://{await self.address()}/-/reload"
            async with aiohttp.ClientSession() as client, client.post(url) as answer:
                assert answer.status in (200, 422, 503), await answer.text()
        else:
            self.process.process.send_signal(signal.SIGHUP)
        await until(lambda: self.count(*OUTCOMES).total() > before, "the file is read")
        return next(str(line["event"]) for line in reversed(self.process.log) if line["event"] in OUTCOMES)


@asynccontextmanager
async def stage(folder: Path, store: str, broker: str, transitions: int, seed: int) -> AsyncIterator[Stage]:
    """Give all that takes part; it ends with the block."""
    async with AsyncExitStack() as stack:
        stack.enter_context(default_hangups())
        settings = SimulatorSettings.still(seed=seed, keep_messages=10**6, keep_records=10**7)
        simulator = await stack.enter_async_context(Simulator(settings))
        endpoints = {name: SoakEndpoint(random.Random(seed)) for name in ("crm", "ops", "extra")}
        for endpoint in endpoints.values():
            await stack.enter_async_context(endpoint.receiver)
        polled = sources(simulator.urls, settings, interval="300ms")
        polled["city"] |= {"rate": "1000/s", "channels": ["sms"], "follow_for": "1s", "concurrency": 8}
        polled["journeys"] |= {"rate": "1000/s", "page_size": 500}
        polled["drops"] |= {"rate": "1000/s", "interval": f"{INTERVAL_SECONDS}s"}
        values: Values = {
            "state": str(folder / "state"),
            "http": {"listen": "127.0.0.1:0", "reload": True},
            "sources": polled,
            "sinks": {name: _hook(endpoints[name]) for name in ("crm", "ops")},
            "spare": polled["journeys"],
            "extra": endpoints["extra"].receiver.url,
        }
        if store == "redis":
            values["store"] = stack.enter_context(RedisServer(appendonly=True)).url
        if broker != "embedded":
            server = RabbitMQServer() if broker == "rabbitmq" else RedisServer(appendonly=True)
            values["broker"] = stack.enter_context(server).url
        file = folder / "bridge.yaml"
        provider = Provider(simulator, endpoints["crm"], transitions)
        made = Stage(provider, simulator, endpoints, file, values)
        made.write()
        made.process = stack.enter_context(bridge(folder, "run", "-c", str(file)))
        yield made


def _hook(endpoint: SoakEndpoint) -> Values:
    return {
        "type": "webhook", "topics": ["#"], "url": endpoint.receiver.url, "allow_private": True, "concurrency": 8,
        "retry": ["300ms"] * 1000,
    }  # fmt: skip


async def prove(
    store: str, broker: str, *, reloads: int, broken: int, transitions: int, quiet: float, folder: Path, seed: int = 1
) -> Result:
    """Reload so many times, evenly spread over the transitions, and compare what was made with what was delivered."""
    rng = random.Random(seed)
    plan: list[Callable[..., Any]] = [CHANGES[number % len(CHANGES)] for number in range(reloads - broken)]
    plan += [BROKEN[number % len(BROKEN)] for number in range(broken)]
    rng.shuffle(plan)
    result = Result(f"{store} store, {broker} broker")
    async with stage(folder, store, broker, transitions, seed) as scene:
        filling = asyncio.ensure_future(_fill(scene.provider))
        try:
            await until(lambda: scene.endpoints["crm"].delivered, "the first event")
            first, started = len(scene.polls), time.monotonic()
            await until(lambda: time.monotonic() - started >= quiet, "what is usual is known")
            result.longest_before = _longest(scene.polls[first:])
            first = len(scene.polls)
            for number, step in enumerate(plan):
                await scene.delivers(transitions * 0.8 * number / reloads)
                result.expected["config.refused" if step in BROKEN else "config.reloaded"] += 1
                result.outcomes[await _step(scene, step, number)] += 1
            last = len(scene.polls)
            await _finish(scene)
        finally:
            filling.cancel()
        result.longest, result.polls = _longest(scene.polls[max(0, first - 1) : last + 1]), last - first
        result.seconds = time.monotonic() - started
        result.exit_code = await asyncio.to_thread(scene.process.stop)
        _evaluate(scene, result)
    return result


async def _step(scene: Stage, step: Callable[..., Any], number: int) -> str:
    if step in BROKEN:
        scene.write(step(scene.file.read_text()))
        outcome = await scene.reload(by_http=number % 2 == 0)
        scene.write()
        return outcome
    step(scene.values)
    scene.write()
    return await scene.reload(by_http=number % 2 == 0)


async def _fill(provider: Provider) -> None:
    while True:
        provider.fill()
        await asyncio.sleep(0.02)


async def _finish(scene: Stage) -> None:
    """Have all parts there again, and wait for the last events."""
    if "journeys" not in scene.values["sources"]:
        _source_comes_or_goes(scene.values)
        scene.write()
        await scene.reload(by_http=False)
    made = scene.provider.made
    await until(
        lambda: scene.provider.done and all(scene.endpoints[name].delivered.keys() >= made for name in ("crm", "ops")),
        "all is delivered", within=120,
    )  # fmt: skip


def _longest(times: list[float]) -> float:
    return max((after - before for before, after in pairwise(times)), default=0.0)


def _evaluate(scene: Stage, result: Result) -> None:
    made = scene.provider.made
    result.transitions = len(made)
    for name, endpoint in scene.endpoints.items():
        result.repeats[name] = len(endpoint.repeats)
        result.made_up += len(endpoint.delivered.keys() - made) + sum(n - 1 for n in endpoint.delivered.values())
        if name != "extra":
            result.lost[name] = len(made - endpoint.delivered.keys())
    result.restarts = scene.count("part.restarted").total()


def main() -> None:
    parser = argparse.ArgumentParser(description="Reload the configuration under load, and print what came of it.")
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--broker", choices=BROKERS, action="append")
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--broken", type=int, default=15)
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    good = True
    for store in options.store or STORES:
        for broker in options.broker or BROKERS:
            folder = Path(tempfile.mkdtemp(prefix="bridge-reloads-"))
            result = asyncio.run(prove(
                store, broker, reloads=options.reloads, broken=options.broken, transitions=options.transitions,
                quiet=10.0, folder=folder, seed=options.seed,
            ))  # fmt: skip
            print(f"{result.table()}\n{json.dumps({'good': result.is_good, 'logs': str(folder)})}\n", flush=True)  # noqa: T201 - a script for a person
            good = good and result.is_good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
