"""Where the log goes may fail in many ways: the work goes on, and the process ends when it is told to."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import until, write_config
from prometheus_client.parser import text_string_to_metric_families

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port

pytestmark = pytest.mark.acceptance

BUSY = replace(SimulatorSettings.still(), speed=60.0, drops_per_minute=30.0)
DRAIN_SECONDS = 8
EVENTS_AFTER = 30


class Output:
    """A standard error that fails in one way, from the start or once `fail` is called."""

    loses_lines = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor = self.open()

    def open(self) -> int:
        raise NotImplementedError

    def fail(self, process: subprocess.Popen[bytes]) -> None:
        del process

    def close(self) -> None:
        os.close(self.descriptor)


class Pipe(Output):
    """A pipe of one page; what it holds is read by nobody unless a subclass does."""

    def open(self) -> int:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        return writer


class FullPipe(Pipe):
    """A pipe that nobody reads: lines wait for a reader, as many as there is memory for them."""

    loses_lines = False

    def close(self) -> None:
        super().close()
        os.close(self.reader)


class ReaderGone(Pipe):
    """A pipe whose reader goes away."""

    def fail(self, process: subprocess.Popen[bytes]) -> None:
        os.close(self.reader)


class NonBlockingPipe(FullPipe):
    """A pipe that somebody else has set to non-blocking, and that nobody reads."""

    def open(self) -> int:
        writer = super().open()
        os.set_blocking(writer, False)
        return writer


class FullDevice(Output):
    """A disk that is full from the start."""

    def open(self) -> int:
        return os.open("/dev/full", os.O_WRONLY)


class FileAtItsLimit(Output):
    """A file that may grow no further."""

    def open(self) -> int:
        return os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fail(self, process: subprocess.Popen[bytes]) -> None:
        size = os.fstat(self.descriptor).st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class TerminalHungUp(Output):
    """A terminal whose other end is closed."""

    def open(self) -> int:
        self.other_end, terminal = pty.openpty()
        return terminal

    def fail(self, process: subprocess.Popen[bytes]) -> None:
        os.close(self.other_end)


class Closed(Output):
    """No standard error at all."""

    loses_lines = False

    def open(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


OUTPUTS = [FullPipe, ReaderGone, NonBlockingPipe, FullDevice, FileAtItsLimit, TerminalHungUp, Closed]


@contextmanager
def running(output: Output, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service with that standard error; it never outlives the test."""
    command = [sys.executable, "-m", "bridge", "run", "-c", str(config)]
    if isinstance(output, Closed):
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output.descriptor, cwd=output.folder
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(60)
        output.close()


async def page(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/{path}") as answer:
        return answer.status, await answer.text()


async def lost_lines(port: int) -> float:
    families = {family.name: family for family in text_string_to_metric_families((await page(port, "metrics"))[1])}
    return families["bridge_log_lines_lost"].samples[0].value


async def loses_lines(port: int) -> None:
    await until(lambda: lost_lines(port), "lines are lost, and counted")


def config_for(folder: Path, simulator: Simulator, receiver: FakeEndpoint, redis_url: str, port: int) -> Path:
    webhook: dict[str, Any] = {"type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True}
    # No file but the log is written: a limit of file sizes concerns the log alone.
    return write_config(
        folder, simulator, store=redis_url, broker=redis_url, sinks={"crm": webhook},
        http={"listen": f"127.0.0.1:{port}"}, log={"level": "debug"}, drain_timeout=f"{DRAIN_SECONDS}s",
    )  # fmt: skip


@pytest.mark.parametrize("kind", OUTPUTS, ids=lambda kind: kind.__name__)
async def test_log_that_cannot_be_written_stops_no_work(kind: type[Output], tmp_path: Path, redis_url: str) -> None:
    port, output = free_port(), kind(tmp_path)
    async with Simulator(BUSY) as simulator, FakeEndpoint() as receiver:
        config = config_for(tmp_path, simulator, receiver, redis_url, port)
        with running(output, config) as process:
            await receiver.arrived(3, within=120)
            output.fail(process)
            await receiver.arrived(len(receiver.requests) + EVENTS_AFTER, within=120)
            assert (await page(port, "livez"))[0] == (await page(port, "readyz"))[0] == 200
            if output.loses_lines:
                await loses_lines(port)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, DRAIN_SECONDS + 1) == 0


async def test_log_goes_on_once_its_disk_is_free(tmp_path: Path, redis_url: str) -> None:
    port, output = free_port(), FileAtItsLimit(tmp_path)
    log = tmp_path / "log"
    async with Simulator(BUSY) as simulator, FakeEndpoint() as receiver:
        config = config_for(tmp_path, simulator, receiver, redis_url, port)
        with running(output, config) as process:
            await receiver.arrived(3, within=120)
            output.fail(process)
            await loses_lines(port)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await until(lambda: '"log.lines_lost"' in log.read_text(), "the log says what it lost", within=120)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, DRAIN_SECONDS + 1) == 0
    assert '"bridge.ended"' in log.read_text().splitlines()[-1]
