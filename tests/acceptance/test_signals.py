"""Signals at every moment of a process's life, also as process 1 of a container, and users without a home."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import ask, bridge, taps, until, write_config
from rigs.hangups import default_hangups

from bridge.simulator import Simulator, SimulatorSettings

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
FIRST_MOMENTS_SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)


@pytest.fixture
def hangup_ends() -> Iterator[None]:
    with default_hangups():
        yield


def logged(events: list[dict[str, object]], name: str) -> bool:
    return any(entry["event"] == name for entry in events)


async def test_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, http={"listen": "127.0.0.1:0"})
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
                ["nohup", sys.executable, "-m", "bridge", "run", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=tmp_path,
            )  # fmt: skip
        try:
            await until(lambda: "http.listens" in (tmp_path / "log").read_text(), "it runs")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
            assert '"signal": "SIGTERM"' in (tmp_path / "log").read_text()
        finally:
            process.kill()


@pytest.mark.usefixtures("hangup_ends")
async def test_hangup_is_how_a_tail_ends_well(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        with bridge(tmp_path, "tail", "-c", str(config)) as process:
            await until((tmp_path / "state" / "broker.db").exists, "it opens the broker")
            await until(lambda: taps(tmp_path) > 0, "it subscribes")
            process.process.send_signal(signal.SIGHUP)
            assert await asyncio.to_thread(process.wait, 30) == 0


def process_1(folder: Path, config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*AS_PROCESS_1, sys.executable, "-m", "bridge", "run", "-c", str(config)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip


def child_of(parent: int) -> int | None:
    """Return the process that `unshare` forked: process 1 of its own namespace."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0]) if children else None


def _catches(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)


@pytest.mark.parametrize("after", FIRST_MOMENTS_SECONDS)
async def test_process_1_obeys_sigterm_while_it_starts(after: float, tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        process = process_1(tmp_path, config)
        try:
            await until(lambda: child_of(process.pid), "it is forked")
            child = child_of(process.pid)
            assert child is not None
            await until(lambda: _catches(child, signal.SIGTERM), "its first module is imported")
            started = time.monotonic()
            await until(lambda: time.monotonic() - started >= after, "some of its start is over")
            os.kill(child, signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) in (0, 128 + signal.SIGTERM)
        finally:
            process.kill()


async def test_process_1_ends_at_once_at_the_second_signal(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, store="redis://127.0.0.1:1/0", http={"listen": None})
        command = [*AS_PROCESS_1, sys.executable, "-c", SLOW_END, "run", "-c", str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path) as process:  # noqa: ASYNC220 - it only forks
            assert process.stderr is not None
            try:
                await asyncio.to_thread(process.stderr.readline)
                child = child_of(process.pid)
                assert child is not None
                os.kill(child, signal.SIGTERM)
                await asyncio.to_thread(process.stderr.readline)
                os.kill(child, signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 30) == 128 + signal.SIGTERM
            finally:
                process.kill()


SLOW_END = """
import asyncio, sys
sys.argv[0] = "bridge"
from bridge.cli.support.running import run
from bridge.cli.support.signals import on_first_signal
async def work():
    on_first_signal(lambda _: print("asked", file=sys.stderr, flush=True))
    print("ready", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)
run(work())
"""


NAMELESS = """
import os, pwd
os.environ.pop("HOME", None)
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
from bridge.cli import main
main()
"""


def test_compose_file_gives_each_container_an_init() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name: service.get("init") for name, service in services.items()} == dict.fromkeys(services, True)


async def test_user_without_name_and_home_gets_one_line(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        settings = yaml.safe_load(config.read_text())
        del settings["state"]
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-c", NAMELESS, "run", "-c", str(config)]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
        )
        assert (ended.returncode, ended.stdout) == (3, "")
        assert len(ended.stderr.splitlines()) == 1
        assert "the home directory is not known" in ended.stderr
        settings |= {"store": "redis://127.0.0.1:1/0", "broker": "redis://127.0.0.1:1/1"}
        config.write_text(yaml.safe_dump(settings))
        shown = await ask(tmp_path, "config", "show", "-c", str(config), HOME="")
        assert shown.returncode == 0
