"""`bridgectl status` answers whether all is well, and tells what is wrong apart, within 15 s: through the real command."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from harness import Process, ask, bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.servers import RedisServer
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = pytest.mark.acceptance

WITHIN_SECONDS = 15.0


@dataclass
class Site:
    """Two replicas on two Redis servers, sinks that can be spoiled, and a provider that can be cut off."""

    folder: Path
    config: Path
    simulator: Simulator
    provider: TcpProxy
    store: RedisServer
    broker: RedisServer
    endpoints: dict[str, FakeEndpoint]
    replicas: list[Process]
    seconds: dict[str, float] = field(default_factory=dict)
    """After how many seconds each thing was told."""

    async def status(self) -> dict[str, Any]:
        done = await ask(self.folder, "status", "--json", "-c", str(self.config))
        assert done.stderr == ""
        overview = json.loads(done.stdout)
        assert done.returncode == (0 if overview["well"] else 1)
        assert overview["well"] == (not overview["problems"])
        return overview

    def has_logged(self, event: str) -> bool:
        return any(line["event"] == event for replica in self.replicas for line in replica.log)

    async def text(self) -> str:
        return (await ask(self.folder, "status", "-c", str(self.config))).stdout

    async def becomes(self, **codes: str) -> dict[str, Any]:
        """Wait until all these problems are told of these parts; note after how long each was."""
        began = time.monotonic()
        overview: dict[str, Any] = {}

        async def is_shown() -> bool:
            nonlocal overview
            overview = await self.status()
            problems = {(problem["code"], problem["part"]) for problem in overview["problems"]}
            for code, part in codes.items():
                if (code.replace("_", "-"), part) in problems:
                    self.seconds.setdefault(code, time.monotonic() - began)
            return codes.keys() <= self.seconds.keys()

        await until(is_shown, f"status tells {codes}", within=60)
        return overview

    async def order(self, *arguments: str) -> None:
        done = await ask(self.folder, *arguments, "-c", str(self.config))
        assert (done.returncode, done.stderr) == (0, "")


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    names = ("crm", "broken", "gone", "held")
    endpoints = {name: FakeEndpoint() for name in names}
    settings = SimulatorSettings.still()
    with RedisServer(appendonly=True) as store, RedisServer(appendonly=True) as broker:
        async with Simulator(settings) as simulator, TcpProxy(_port(simulator)) as provider:
            for endpoint in endpoints.values():
                await endpoint.start()
            sinks = {name: hook(endpoint) for name, endpoint in endpoints.items()}
            config = write_config(folder, simulator, store=store.url, broker=broker.url, lease="3s", sinks=sinks)
            values = yaml.safe_load(config.read_text())
            values["sources"]["city"] |= {"url": f"http://127.0.0.1:{provider.port}", "stall_after": "1s"}
            config.write_text(yaml.safe_dump(values))
            run = ("run", "-c", str(config))
            with bridge(folder, *run, name="one") as first, bridge(folder, *run, name="two") as second:
                try:
                    yield Site(folder, config, simulator, provider, store, broker, endpoints, [first, second])
                finally:
                    for endpoint in endpoints.values():
                        await endpoint.stop()


def _port(simulator: Simulator) -> int:
    port = urlsplit(simulator.urls["govdelivery"]).port
    assert port is not None
    return port


def hook(endpoint: FakeEndpoint) -> dict[str, Any]:
    again = ["500ms"] * 40
    return {
        "type": "webhook", "topics": ["voicemail.#"], "url": f"{endpoint.url}/hook", "allow_private": True,
        "retry": again,
    }  # fmt: skip


async def test_status_tells_apart_what_is_wrong(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await until(lambda: _is_well(here), "all is well")
        overview = await here.status()
        assert [process["state"] for process in overview["processes"]] == ["ok", "ok"]
        assert len({process["generation"] for process in overview["processes"]}) == 1
        assert (await here.text()).startswith("all is well\n")

        here.endpoints["broken"].default = reply(503)
        here.endpoints["gone"].default = reply(410)
        here.provider.refuse()
        here.provider.cut()
        await asyncio.gather(
            here.order("pause", "journeys", "--reason", "a quiet day"), here.order("pause", "sink/held", "--json")
        )
        for _ in range(15):
            here.simulator.world.add_drop()
        await here.becomes(
            source_stalled="source city", source_paused="source journeys", sink_paused="sink held",
            sink_disabled="sink gone",
        )  # fmt: skip
        await until(lambda: here.has_logged("sink.circuit_opened"), "a circuit opens", within=60)
        overview = await here.becomes(sink_circuit_open="sink broken")
        assert {sink["name"]: sink["state"] for sink in overview["sinks"]} == {
            "crm": "ok", "broken": "circuit open", "gone": "disabled", "held": "paused",
        }  # fmt: skip
        states = {source["name"]: source["state"] for source in overview["sources"]}
        assert states == {"city": "stalled", "drops": "ok", "journeys": "paused"}
        held = next(sink for sink in overview["sinks"] if sink["name"] == "held")
        assert (held["waiting"], held["delivered"], here.endpoints["held"].requests) == (15, 0, [])
        text = await here.text()
        assert "sink broken: paused by its circuit" in text
        assert "a quiet day" in text

        here.replicas[0].kill()
        overview = await here.becomes(process_gone=_name_of(here.replicas[0]))
        assert "gone" in [process["state"] for process in overview["processes"]]
        assert await asyncio.to_thread(here.replicas[1].stop) == 0
        overview = await here.becomes(no_process="service")

        async def source_states() -> set[str]:
            return {source["state"] for source in (await here.status())["sources"]}

        # The lease of the killed process may last a little longer.
        nobody_polls = {"not polled", "paused"}
        await until(
            lambda: _holds(source_states, nobody_polls), "status shows that nobody polls", within=WITHIN_SECONDS
        )
        assert {problem["code"] for problem in overview["problems"]}.isdisjoint({"source-not-polled", "broker"})

        here.broker.kill()
        overview = await here.becomes(broker_unreachable="broker")
        assert overview["store"]["reachable"]
        here.store.kill()
        overview = await here.becomes(store_unreachable="store")
        assert overview["processes"] is None
        assert {source["state"] for source in overview["sources"]} == {"unknown"}
        assert "what the processes do is not known" in await here.text()
        assert {code: round(seconds, 1) for code, seconds in here.seconds.items() if seconds > WITHIN_SECONDS} == {}


async def _is_well(here: Site) -> bool:
    overview = await here.status()
    return overview["well"] and len(overview["processes"]) == 2


def _name_of(replica: Process) -> str:
    return f"process {socket.gethostname()}:{replica.process.pid}"


async def test_status_tells_of_events_that_nobody_receives(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, sinks={})
        with bridge(tmp_path, "run", "-c", str(config)):

            async def codes() -> list[str]:
                done = await ask(tmp_path, "status", "--json", "-c", str(config))
                return [problem["code"] for problem in json.loads(done.stdout)["problems"]]

            await until(lambda: _holds(codes, []), "all is well")
            simulator.world.add_drop()
            began = time.monotonic()
            await until(lambda: _holds(codes, ["unroutable"]), "status tells of it")
            assert time.monotonic() - began < WITHIN_SECONDS
            text = (await ask(tmp_path, "status", "-c", str(config))).stdout
            assert "1 event found no queue" in text
            assert "nobody receives what it publishes" in text


async def _holds(read: Callable[[], Awaitable[Any]], expected: Any) -> bool:
    return await read() == expected


def _read_until(terminal: int, count: int, mark: bytes) -> bytes:
    """Read what a program writes on its terminal until a mark has come so often."""
    seen = b""
    deadline = time.monotonic() + 60
    while seen.count(mark) < count:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 65536)
    return seen


@pytest.mark.parametrize("columns", [80, 120])
def test_watch_refreshes_the_screen_in_place(tmp_path: Path, columns: int) -> None:
    config = tmp_path / "bridge.yaml"
    source = {"type": "govdelivery", "url": "https://tms.example", "token": "x", "channels": ["sms"]}
    sinks = {"a-sink-with-a-long-name": {"type": "stdout", "topics": ["#"]}}
    config.write_text(
        yaml.safe_dump({"state": str(tmp_path / "state"), "sources": {"city": source}, "sinks": sinks})
    )  # fmt: skip
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "bridge", "status", "--watch", "--every", "0.2", "-c", str(config)]
    watching = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env={**environ, "TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    try:
        seen = _read_until(ours, 3, b"\x1b[H")
        watching.send_signal(signal.SIGINT)
        seen += _read_until(ours, 1, b"\x1b[?25h")
        assert watching.wait(30) == 0
    finally:
        if watching.poll() is None:
            watching.kill()
            watching.wait(30)
        os.close(ours)
        os.close(theirs)
    assert (seen.count(b"\x1b[2J"), seen.count(b"\x1b[?25l")) == (1, 1)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "no process runs" in text
    assert (
        max(len(line) for line in text.splitlines() if line.startswith(("SOURCE", "city", "SINK", "a-sink"))) <= columns
    )
    assert not (tmp_path / "state").exists()
