"""How long a command takes to say something, and the service to look for the first time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.rig import Rig, until


@dataclass(frozen=True, slots=True)
class Startup:
    """Medians in seconds."""

    help: float
    python: float
    first_poll: float


def once(words: list[str]) -> float:
    """Run a program to its end; return seconds."""
    started = time.perf_counter()
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


async def first_poll(rig: Rig) -> float:
    """Start the service on Redis and RabbitMQ; return seconds until the first events are committed."""
    rig.reset()
    paths = rig.far.make(messages=1, recipients=50, phase="sending")
    config = rig.config("startup", sources={"a": rig.source(paths)}, sinks={"out": {"type": "stdout", "topics": ["#"]}})
    async with rig.store() as store:

        async def begun() -> bool:
            return (await store.journal("a")).events > 0

        await begun()
        started = time.perf_counter()
        with rig.bridge(config):
            await until(begun, "the first poll")
            return time.perf_counter() - started


def measure(rig: Rig) -> Startup:
    """Let the two commands take turns."""
    bridge = str(Path(sys.executable).with_name("bridge"))
    helps, pythons = [], []
    once([bridge, "--help"])
    for _ in range(rig.scale.of(15, 3)):
        helps.append(once([bridge, "--help"]))
        pythons.append(once([sys.executable, "-c", "pass"]))
    polls = [asyncio.run(first_poll(rig)) for _ in range(rig.scale.of(3, 1))]
    return Startup(median(helps), median(pythons), median(polls))
