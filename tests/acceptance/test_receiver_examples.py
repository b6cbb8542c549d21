"""Every receiver that the docs show runs as it stands, and gets every event once: all of them on one bridge."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from harness import Consumer, agreed, bridge, consuming_rabbitmq, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.free_port import free_port
from bridge_webhook.signing import keys_of, signatures

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "receivers"
WEBHOOKS = ("webhook_aiohttp.py", "webhook_fastapi.py", "webhook_express.js")
QUEUES = {
    "subscribe_client.py": "example.client",
    "subscribe_pika.py": "example.pika",
    "subscribe_aio_pika.py": "example.aio-pika",
    "subscribe_kombu.py": "example.kombu",
    "subscribe_celery.py": "example.celery",
    "subscribe_faststream.py": "example.faststream",
    "subscribe_amqplib.js": "example.amqplib",
}
LOOP = "follow.sh"
SECRET = "whsec_" + base64.b64encode(b"a secret of 32 bytes for a test!").decode()
ENOUGH_EVENTS = 60
LIVELY = SimulatorSettings(
    seed=5, speed=60.0, messages_per_minute=6.0, recipients_per_message=5.0, drops_per_minute=20.0,
    texts_per_minute=0.0, emails_per_minute=0.0, sends_per_minute=10.0, email_sends_per_minute=0.0,
)  # fmt: skip


class Receiver:
    """One program of the docs in a process of its own."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self.out = folder / f"{name}.out"
        program = {".py": sys.executable, ".js": "node", ".sh": "sh"}[Path(name).suffix]
        with self.out.open("wb") as out, (folder / f"{name}.err").open("wb") as err:
            self.process = subprocess.Popen(
                [program, str(EXAMPLES / name)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
                env={**os.environ, **environ, "PORT": str(self.port), "SEEN": f"sqlite:///{folder / 'seen.db'}"},
            )  # fmt: skip

    @property
    def ids(self) -> list[str]:
        text = self.out.read_text()
        whole = text[: text.rfind("\n") + 1].splitlines()
        if self.name == LOOP:
            return [json.loads(line)["id"] for line in whole]
        return [line.partition(" ")[0] for line in whole if not line.startswith("#")]

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait(30)


@contextmanager
def running(names: tuple[str, ...], folder: Path, environ: dict[str, str]) -> Iterator[dict[str, Receiver]]:
    receivers: dict[str, Receiver] = {}
    try:
        for name in names:
            receivers[name] = Receiver(name, folder, environ)
        yield receivers
    finally:
        for receiver in receivers.values():
            receiver.end()


def environment(folder: Path, rabbitmq_url: str, node_modules: Path) -> dict[str, str]:
    """Return what the programs are told; a `bridgectl` is on the PATH of those that call it."""
    programs = folder / "programs"
    programs.mkdir()
    call = programs / "bridgectl"
    call.write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge "$@"\n')
    call.chmod(0o755)
    return {
        "BROKER_URL": rabbitmq_url,
        "WEBHOOK_SECRET": SECRET,
        "NODE_PATH": str(node_modules),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def answer_to(port: int, body: bytes, secret: str) -> int:
    """Post a body as the webhook sink does; return the status of the answer."""
    now = str(int(time.time()))
    headers = {
        "content-type": "application/cloudevents+json", "webhook-id": "x", "webhook-timestamp": now,
        "webhook-signature": signatures(keys_of([secret]), "x", now, body),
    }  # fmt: skip
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/hook", data=body, headers=headers) as answer,
    ):
        return answer.status


def sinks(receivers: dict[str, Receiver]) -> dict[str, object]:
    return {
        name.partition(".")[0].replace("_", "-"): {
            "type": "webhook", "topics": ["#"], "url": f"http://127.0.0.1:{receivers[name].port}/hook",
            "secret": SECRET, "allow_private": True,
        }
        for name in WEBHOOKS
    }  # fmt: skip


async def test_every_documented_receiver_gets_every_event_once(tmp_path, rabbitmq_url, rabbitmq_server, node_modules):
    environ = environment(tmp_path, rabbitmq_url, node_modules)
    async with Simulator(LIVELY) as simulator, consuming_rabbitmq(rabbitmq_url) as consumer:
        with running((*WEBHOOKS, *QUEUES), tmp_path, environ) as receivers:
            for name in WEBHOOKS:
                await until(lambda name=name: answers(receivers[name].port), f"{name} listens")
            await until(lambda: bound(rabbitmq_server, receivers), "every subscriber has its queue")
            config = write_config(tmp_path, simulator, broker=rabbitmq_url, sinks=sinks(receivers))
            loop_environ = {**environ, "BRIDGE_CONFIG": str(config)}
            with bridge(tmp_path, "run", "-c", str(config)), running((LOOP,), tmp_path, loop_environ) as loop:
                await until(lambda: len(consumer.ids) >= ENOUGH_EVENTS, "events are published")
                await agreed(simulator, lambda: consumer)
                await complete(consumer, receivers | loop)


def bound(server, receivers: dict[str, Receiver]) -> bool:
    ended = [name for name, receiver in receivers.items() if receiver.process.poll() is not None]
    assert ended == []
    bindings = server.ctl("list_bindings", "source_name", "destination_name").splitlines()
    return {f"bridge.events\t{queue}" for queue in QUEUES.values()} <= set(bindings)


async def complete(consumer: Consumer, receivers: dict[str, Receiver]) -> None:
    """Wait until all have what the consumer has; then each has it once."""

    def lacking() -> dict[str, int]:
        expected = set(consumer.ids)
        counts = {name: len(expected - set(receiver.ids)) for name, receiver in receivers.items()}
        return {name: count for name, count in counts.items() if count}

    with suppress(TimeoutError):
        await until(lambda: not lacking(), "every receiver has every event", within=60)
    assert lacking() == {}
    for name, receiver in receivers.items():
        assert sorted(receiver.ids) == sorted(set(consumer.ids)), name


async def test_documented_webhook_receivers_refuse_what_is_not_signed(tmp_path, node_modules):
    environ = environment(tmp_path, "", node_modules)
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    event = b'{"id":"x","type":"bridge.x.y.z","subject":"/x"}'
    with running(WEBHOOKS, tmp_path, environ) as receivers:
        for name, receiver in receivers.items():
            await until(lambda receiver=receiver: answers(receiver.port), f"{name} listens")
            assert await answer_to(receiver.port, event, other) == 401
            assert receiver.ids == []
            assert [await answer_to(receiver.port, event, SECRET) for _ in range(2)] == [204, 204]
            await until(lambda receiver=receiver: receiver.ids == ["x"], f"{name} has handled it once")


def test_every_example_is_run_by_a_test() -> None:
    shown = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert shown == {*WEBHOOKS, *QUEUES, LOOP}
    assert shutil.which("node"), "install Node: Debian package nodejs"
