"""The real command line in processes of its own, against simulated providers, watched by clients that are not ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import kombu
import yaml
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from rigs.forked_commands import fork_server

from bridge.simulator import Simulator
from bridge.simulator.config_snippet import sources

EXCHANGE = "bridge.events"


class Process:
    """One `bridge` command in a process of its own; its output goes to files.

    It is forked from a process that has imported everything: see `rigs.forked_commands`.
    """

    def __init__(self, folder: Path, *arguments: str, name: str = "bridge") -> None:
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        environ = {**os.environ, "NO_COLOR": "1"}
        self.process = fork_server().start(folder, *arguments, environ=environ, out=self.out, err=self.err)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def stop(self, within: float = 90) -> int:
        """Ask it to end, as a container engine would; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def wait(self, within: float = 120) -> int:
        return self.process.wait(within)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The JSON lines of its log."""
        text = self.err.read_text()
        whole = text[: text.rfind("\n") + 1]  # the last line may still be being written
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    @property
    def said(self) -> str:
        return self.out.read_text()


@contextmanager
def bridge(folder: Path, *arguments: str, name: str = "bridge") -> Iterator[Process]:
    """Run a command until the block ends; it never outlives the test."""
    process = Process(folder, *arguments, name=name)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()


async def ask(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, while this process goes on serving what it may ask for.

    It has a session of its own, of which Linux gives each its share of the processors.
    """
    values = {**os.environ, "NO_COLOR": "1", **environ}
    if not any(name.startswith("PYTHON") for name in environ):
        return await asyncio.to_thread(fork_server().run, folder, *arguments, environ=values, timeout=180, session=True)
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "bridge", *arguments],
        cwd=folder,
        env=values,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        start_new_session=True,
    )


async def until(condition: Callable[[], Any], what: str, within: float = 120.0) -> None:
    """Return as soon as `condition` holds; it may be asynchronous.

    A condition that is costly is looked at less often: the simulator is served by the same loop.
    """
    deadline = time.monotonic() + within
    while True:
        began = time.monotonic()
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        await asyncio.sleep(max(0.05, 4 * (time.monotonic() - began)))


class Consumer:
    """What a downstream service got, each event checked by the CloudEvents project's own reader."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.topics: list[str] = []
        self.properties: list[Any] = []
        self.bodies: list[bytes] = []

    def take(self, body: bytes, topic: str, properties: Any = None) -> None:
        read = from_http_event(HTTPMessage({"content-type": "application/cloudevents+json"}, body), JSONFormat())
        assert read.get_specversion() == "1.0"
        self.events.append(json.loads(body))
        self.topics.append(topic)
        self.properties.append(properties)
        self.bodies.append(body)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]

    @property
    def histories(self) -> dict[str, list[tuple[str, str | None, str | None]]]:
        """For each resource what was said of it, in order: status, previous status, detail."""
        histories: dict[str, list[tuple[str, str | None, str | None]]] = defaultdict(list)
        seen = set()
        for event in self.events:
            data = event["data"]
            if data["channel"] != "bridge" and event["id"] not in seen:
                seen.add(event["id"])
                histories[event["subject"]].append((data["status"], data["previous"], data["detail"]))
        return dict(histories)


@asynccontextmanager
async def consuming_rabbitmq(url: str, exchange: str = EXCHANGE) -> AsyncIterator[Consumer]:
    """Subscribe to everything by aio-pika."""
    consumer = Consumer()
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=500)
        topics = await channel.declare_exchange(exchange, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topics, "#")

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            async with message.process():
                consumer.take(message.body, message.routing_key or "", message)

        await queue.consume(take)
        yield consumer


@asynccontextmanager
async def consuming_kombu(url: str, exchange: str = EXCHANGE) -> AsyncIterator[Consumer]:
    """Subscribe to everything by kombu, as a service on Redis would."""
    consumer, stop, ready = Consumer(), threading.Event(), threading.Event()

    def work() -> None:
        with kombu.Connection(url) as connection:
            queue = kombu.Queue("audit", kombu.Exchange(exchange, "topic", durable=True), "#")

            def take(body: Any, message: kombu.Message) -> None:
                consumer.take(
                    message.body if isinstance(message.body, bytes) else message.body.encode(),
                    message.delivery_info["routing_key"],
                    message,
                )
                message.ack()

            with connection.Consumer([queue], callbacks=[take], accept=None, auto_declare=True, prefetch_count=500):
                ready.set()
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        await asyncio.to_thread(ready.wait, 20)
        yield consumer
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 20)


@asynccontextmanager
async def consuming_tail(folder: Path, config: Path) -> AsyncIterator[Consumer]:
    """Subscribe to everything by `bridgectl tail` in a second process."""
    consumer = Consumer()
    with bridge(folder, "tail", "--json", "-c", str(config), name="tail") as tail:

        async def follow() -> None:
            read = 0
            while True:
                text = tail.out.read_bytes()[read:]
                whole = text[: text.rfind(b"\n") + 1]
                read += len(whole)
                for line in whole.splitlines():
                    kind = json.loads(line)
                    detail = kind["data"]["detail"]
                    consumer.take(line, kind["type"].removeprefix("bridge.") + (f".{detail}" if detail else ""))
                await asyncio.sleep(0.05)

        # What is printed proves that the subscription stands; until then nothing may be published.
        await until((folder / "state" / "broker.db").exists, "tail opens the broker")
        await until(lambda: taps(folder) > 0, "tail subscribes")
        following = asyncio.ensure_future(follow())
        try:
            yield consumer
        finally:
            following.cancel()


def taps(folder: Path) -> int:
    """Count the queues of an embedded broker."""
    import sqlite3

    with sqlite3.connect(f"file:{folder / 'state' / 'broker.db'}?mode=ro", uri=True) as db:
        try:
            return int(db.execute("SELECT count(*) FROM queues").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
        finally:
            db.rollback()


def expected(simulator: Simulator) -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Return what the providers have shown, for each resource in order. Lists of messages are not read for statuses."""
    histories: dict[str, list[tuple[str, str | None, str | None]]] = defaultdict(list)
    for shown in simulator.ground_truth(without=["messages"]):
        histories[shown.subject].append((shown.status, shown.previous, shown.detail))
    return dict(histories)


def differences(simulator: Simulator, consumer: Consumer) -> dict[str, Any]:
    """Return the resources of which the consumer heard something else than the providers have shown."""
    shown, received = expected(simulator), consumer.histories
    return {
        subject: {"shown": shown.get(subject), "received": received.get(subject)}
        for subject in sorted({*shown, *received})
        if shown.get(subject) != received.get(subject)
    }


def missing(simulator: Simulator, consumer: Consumer) -> dict[str, Any]:
    """Return the resources of which the consumer missed what no crash explains.

    A process that dies between an answer and its commit has seen what nobody will see again, should the status have
    moved on by the next poll. So what was heard are the shown statuses in order, some perhaps passed over, and the last.
    """
    shown, received = expected(simulator), consumer.histories
    differing = {}
    for subject in sorted({*shown, *received}):
        seen = [(status, detail) for status, _, detail in shown.get(subject, [])]
        published = [(status, detail) for status, _, detail in received.get(subject, [])]
        rest = iter(seen)
        if not published or published[-1:] != seen[-1:] or not all(pair in rest for pair in published):
            differing[subject] = {"shown": shown.get(subject), "received": received.get(subject)}
    return differing


async def agreed(
    simulator: Simulator, consumer: Callable[[], Consumer], compare: Callable[..., dict[str, Any]] = differences
) -> None:
    """Stop the world's time, and wait until all of it was seen, and heard of."""
    simulator.time.freeze()
    await until(lambda: not simulator.unseen(), "the bridge has looked at every resource")
    await until(lambda: not compare(simulator, consumer()), "what was shown is heard")


def write_config(
    folder: Path, simulator: Simulator, *, name: str = "bridge.yaml", interval: str = "250ms", **values: Any
) -> Path:
    """Write a configuration with one source of each provider."""
    config = {
        "state": str(folder / "state"),
        "http": {"listen": None},
        "sources": sources(simulator.urls, simulator.settings, interval=interval),
        **values,
    }
    for source in config["sources"].values():
        source["rate"] = "200/s"
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path
