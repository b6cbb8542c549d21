"""What every benchmark stands on: private servers, a far side of its own, and the real command line as a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Self

import kombu
import redis
import yaml

from benchmarks.remote_server import Remote, remote_server
from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.testing.servers import RabbitMQServer, RedisServer

EXCHANGE = "bridge.events"
SECRET = "whsec_" + "A" * 43 + "="
_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the whole run is bounded, and a quick one shows only that everything works."""

    quick: bool = False

    def of(self, whole: int, quick: int) -> int:
        """Return the count for this run."""
        return quick if self.quick else whole

    @property
    def rounds(self) -> int:
        """How many times two things take turns."""
        return self.of(5, 2)


class Rig:
    """Servers, started when they are first asked for and ended with the run."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-bench-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def redis(self) -> RedisServer:
        """The Redis of whatever needs only one."""
        return self._stack.enter_context(RedisServer())

    @cached_property
    def rabbitmq(self) -> RabbitMQServer:
        """The RabbitMQ node."""
        return self._stack.enter_context(RabbitMQServer())

    @cached_property
    def far(self) -> Remote:
        """Provider and receiver."""
        return self._stack.enter_context(remote_server())

    def reset(self) -> None:
        """Forget everything in Redis and RabbitMQ."""
        with redis.Redis(port=self.redis.port) as client:
            client.flushall()
        self.rabbitmq.wipe()

    def config(self, name: str, **sections: Any) -> Path:
        """Write a configuration on this rig's servers; `sections` add to it or replace parts of it."""
        file = self.folder / f"{name}.yaml"
        values = {
            "store": self.redis.url,
            "broker": self.rabbitmq.url,
            "exchange": EXCHANGE,
            "http": {"listen": None},
            "log": {"level": "warning"},
            "state": str(self.folder / f"{name}-state"),
            **sections,
        }
        file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
        return file

    def source(self, messages: Sequence[str], **settings: Any) -> dict[str, Any]:
        """Return the settings of a source that follows these messages of the far side without pause."""
        return {
            "type": "govdelivery", "url": self.far.url, "token": "t", "channels": ["sms"], "discover": False,
            "messages": list(messages), "interval": "20ms", "rate": "100000/s", **settings,
        }  # fmt: skip

    @contextmanager
    def bridge(self, config: Path, *roles: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `bridgectl run` for as long as the block."""
        words = [word for role in roles for word in ("--role", role)]
        with (self.folder / "bridge.err").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", "-c", str(config), *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=self.folder,
                env={**os.environ, "NO_COLOR": "1"},
            )  # fmt: skip
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    @asynccontextmanager
    async def store(self, server: RedisServer | None = None) -> AsyncIterator[RedisStore]:
        """Give a store of our own on a Redis of this rig."""
        store = RedisStore((server or self.redis).url, clock=Clock())
        try:
            yield store
        finally:
            await store.close()

    def queue(self, name: str, topics: Sequence[str] = ("#",), *, kind: str = "quorum", keeps: bool = True) -> None:
        """Make an empty queue on RabbitMQ, bound to our exchange."""
        with kombu.Connection(self.rabbitmq.url) as connection:
            channel = connection.default_channel
            channel.exchange_declare(exchange=EXCHANGE, type="topic", durable=True, auto_delete=False)
            arguments = {"x-queue-type": kind} if keeps else {}
            channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments)
            channel.queue_purge(queue=name)
            for topic in topics:
                channel.queue_bind(queue=name, exchange=EXCHANGE, routing_key=topic)

    def drop(self, *names: str) -> None:
        """Delete queues."""
        with kombu.Connection(self.rabbitmq.url) as connection:
            for name in names:
                connection.default_channel.queue_delete(queue=name)


async def until(
    done: Callable[[], Awaitable[bool]], what: str, *, within: float = _WITHIN, poll_seconds: float = 0.01
) -> None:
    """Return as soon as `done` says so."""
    deadline = time.monotonic() + within
    while not await done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:.0f} s")
        await asyncio.sleep(poll_seconds)


@dataclass(slots=True)
class Sides:
    """What several things came to, round by round; they took turns, so that what disturbs one disturbs all."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, rate: float) -> None:
        """Add a round of one thing."""
        self.rates.setdefault(name, []).append(rate)

    def rate(self, name: str) -> float:
        """Return the median of its rounds."""
        return median(self.rates[name])

    def spread(self) -> str:
        """Say how far the rounds lay apart."""
        return ", ".join(f"{name} {_short(min(all_))}-{_short(max(all_))}" for name, all_ in self.rates.items())


def _short(rate: float) -> str:
    return f"{rate / 1000:.1f}k" if rate >= 1000 else f"{rate:.3g}"


def resident(pid: int) -> Mapping[str, int]:
    """Return the memory of a process in bytes, as Linux counts it."""
    text = Path(f"/proc/{pid}/status").read_text()
    lines = (line.split() for line in text.splitlines() if line.startswith("Vm"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
