"""The peers on the same work: Redpanda Connect, and the script that teams write today.

Each is built or installed by its own client into a cache directory, never into this project, and runs with its best
configuration for the same guarantees as far as it can give them. What a peer cannot do stands in `CANNOT`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import kombu
import redis
import yaml

from benchmarks.remote_server import PAGE
from benchmarks.rig import EXCHANGE, Rig, Sides

CANNOT = {
    "Redpanda Connect": (
        "it is given the list of all pages, for it cannot follow a `next` link from poll to poll",
        "`dedupe` marks an event as seen before RabbitMQ has confirmed it: a crash in between loses the event for good",
        "no transition, previous status or occurrence: an event is 'this status was not seen before'",
        "no journal, so nothing to replay, to trace or to hold the books against",
        "built from its last release under its former name (Benthos 4.27), which has the same components",
    ),
    "the Celery script": (
        "`SET NX` marks an event as seen before it is confirmed and posted: a crash in between loses it for good",
        "a webhook that fails fails the task; what it had read is marked as seen and is not sent again",
        "no order, no transition, no journal, and two polls at once where one takes longer than the interval",
    ),
}
_BUILD_WITHIN = 420.0
_HERE = Path(__file__).parent / "peer"


class PeerMissingError(RuntimeError):
    """A peer could not be built or installed; the text says why."""


def cache() -> Path:
    """Return the directory of what was built for comparison, outside of any project."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bridge-benchmarks"
    root.mkdir(parents=True, exist_ok=True)
    return root


def connect_program() -> Path:
    """Return Redpanda Connect's program, built by the Go client where it is not there yet."""
    program = cache() / "connect" / "connect"
    go = shutil.which("go")
    if program.exists():
        return program
    if go is None:
        raise PeerMissingError("Go is not installed")
    program.parent.mkdir(parents=True, exist_ok=True)
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(_HERE / name, program.parent / name)
    _run([go, "build", "-o", program.name, "."], program.parent, {"GOFLAGS": "-mod=mod -buildvcs=false"})
    return program


def celery_python() -> Path:
    """Return the interpreter of an environment with Celery and requests, made where it is not there yet."""
    folder = cache() / "celery"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run([sys.executable, "-m", "venv", str(folder)], cache())
        wanted = ["celery[redis]==5.5.3", "requests==2.32.5", "kombu[redis]"]
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], cache())
        (folder / "complete").touch()
    return python


def _run(words: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True,
            timeout=_BUILD_WITHIN, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PeerMissingError(f"`{words[0]}` did not end within {_BUILD_WITHIN:.0f} s") from None
    if done.returncode:
        raise PeerMissingError((done.stderr or done.stdout).strip().splitlines()[-1][:200])


@contextmanager
def running(words: Sequence[str], folder: Path, log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a program for as long as the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(20)


def rate_of(count: Callable[[], int], expected: int, *, within: float, what: str) -> float:
    """Return how many a second arrived from the tenth of `expected` on; raises `TimeoutError` when they do not."""
    deadline = time.perf_counter() + within
    began: tuple[int, float] | None = None
    while True:
        now, count_now = time.perf_counter(), count()
        if began is None and count_now >= expected // 10:
            began = count_now, now
        if count_now >= expected and began is not None:
            return (expected - began[0]) / (now - began[1])
        if now > deadline:
            raise TimeoutError(f"{what}: {count_now} of {expected} within {within:.0f} s")
        time.sleep(0.01)


@contextmanager
def depth_of(rig: Rig, queue: str) -> Iterator[Callable[[], int]]:
    """Give a function that says how many messages wait in a queue."""
    rig.queue(queue)
    try:
        with kombu.Connection(rig.rabbitmq.url) as connection:
            channel = connection.default_channel
            yield lambda: int(channel.queue_declare(queue=queue, passive=True).message_count)
    finally:
        rig.drop(queue)


def connect_config(rig: Rig, messages: Sequence[str], pages: int) -> dict[str, object]:
    """Return Connect's pipeline: fetch, split, dedupe, shape, publish with confirms, as much at once as helps."""
    return {
        "http": {"enabled": False},
        "logger": {"level": "ERROR"},
        "input": {
            "generate": {
                "count": len(messages) * pages, "interval": "", "batch_size": 1,
                "mapping": (
                    f"let n = counter() - 1\nlet page = $n / {len(messages)}\n"
                    f"let names = {messages!r}\n".replace("'", '"')
                    + f"let path = $names.index(($n % {len(messages)}).int64())\n"
                    'root.path = $path + "/recipients"\n'
                    'root.url = $path + "/recipients" + '
                    'if $page.floor() == 0 { "" } else { "/page/" + ($page.floor().int64() + 1).string() }'
                ),
            }
        },
        "pipeline": {
            "threads": 8,
            "processors": [
                {"http": {
                    "url": rig.far.url + '${! json("url") }', "verb": "GET", "headers": {"X-AUTH-TOKEN": "t"},
                }},
                {"unarchive": {"format": "json_array"}},
                {"dedupe": {
                    "cache": "ledger", "key": '${! json("_links.self") }:${! json("status") }', "drop_on_err": False,
                }},
                {"mapping": (
                    'root.specversion = "1.0"\n'
                    'root.id = this._links.self + ":" + this.status\n'
                    'root.source = "/govdelivery/connect"\n'
                    'root.type = "bridge.sms.recipient." + this.status\n'
                    "root.subject = this._links.self\n"
                    "root.time = this.completed_at | now()\n"
                    'root.datacontenttype = "application/json"\n'
                    'root.data = {"channel": "sms", "status": this.status, "message": this._links.sms_message, '
                    '"phone": this.formatted_phone, "error": this.error_message, "created_at": this.created_at, '
                    '"completed_at": this.completed_at | null}'
                )},
            ],
        },
        "output": {
            "amqp_0_9": {
                "urls": [rig.rabbitmq.url], "exchange": EXCHANGE, "key": 'sms.recipient.${! json("data.status") }',
                "content_type": "application/cloudevents+json", "message_id": '${! json("id") }', "persistent": True,
                "mandatory": True, "max_in_flight": 1024,
            }
        },
        "cache_resources": [{"label": "ledger", "redis": {"url": rig.redis.url, "default_ttl": "720h"}}],
    }  # fmt: skip


def connect(rig: Rig, recipients: int) -> float:
    """Return how many events a second Redpanda Connect takes from the provider to RabbitMQ's confirmation."""
    program = connect_program()
    per_message = recipients // 8 // PAGE * PAGE
    messages = rig.far.make(messages=8, recipients=per_message, phase="sending")
    file = rig.folder / "connect.yaml"
    file.write_text(yaml.safe_dump(connect_config(rig, messages, per_message // PAGE)))
    with redis.Redis(port=rig.redis.port) as client:
        client.flushall()
    with (
        depth_of(rig, "peer.connect") as depth,
        running([str(program), "-c", str(file)], rig.folder, rig.folder / "connect.log"),
    ):
        return rate_of(depth, per_message * 8, within=60, what="Redpanda Connect")


def script(rig: Rig, recipients: int, *, webhook: bool = False) -> float:
    """Return how many events a second the script takes to RabbitMQ's confirmation, and with `webhook` posts too."""
    python = celery_python()
    per_message = recipients // 8 // PAGE * PAGE
    messages = rig.far.make(messages=8, recipients=per_message, phase="sending")
    with redis.Redis(port=rig.redis.port) as client:
        client.flushall()
    environment = {
        "PEER_PROVIDER": rig.far.url, "PEER_REDIS": rig.redis.url, "PEER_RABBITMQ": rig.rabbitmq.url,
        "PEER_EXCHANGE": EXCHANGE, "PEER_MESSAGES": ",".join(messages), "PEER_INTERVAL": "1",
        "PEER_SCHEDULE": str(rig.folder / "beat"), "PYTHONPATH": str(_HERE),
        **({"PEER_WEBHOOK": f"{rig.far.url}/hook"} if webhook else {}),
    }  # fmt: skip
    words = [
        str(python),
        "-m",
        "celery",
        "-A",
        "script",
        "worker",
        "--beat",
        "--concurrency",
        "4",
        "--loglevel",
        "ERROR",
    ]
    with (
        depth_of(rig, "peer.script") as depth,
        running(words, rig.folder, rig.folder / "script.log", environment),
    ):
        return rate_of(depth, per_message * 8, within=90, what="the Celery script")


def measure(rig: Rig) -> Sides:
    """Let the peers do the ingest."""
    sides = Sides()
    for _ in range(rig.scale.of(2, 1)):
        sides.add("Redpanda Connect", connect(rig, rig.scale.of(20_000, 4_000)))
        sides.add("the Celery script", script(rig, rig.scale.of(4_000, 800)))
    return sides
