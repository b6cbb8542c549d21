"""The health pages of a process whose file descriptors are used up, or whose port is crowded."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from harness import bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.free_port import free_port

pytestmark = pytest.mark.acceptance

IDLE_CONNECTIONS = 363
MAX_LINES_OF_A_KIND = 3


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def page(port: int, name: str, seconds: float = 20.0) -> tuple[int, str]:
    timeout, url = aiohttp.ClientTimeout(total=seconds), f"http://127.0.0.1:{port}/{name}"
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def listens(port: int) -> bool:
    try:
        return (await page(port, "readyz"))[0] == 200
    except aiohttp.ClientError:
        return False


async def test_health_pages_answer_without_a_free_descriptor(tmp_path: Path) -> None:
    port = free_port()
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, http={"listen": f"127.0.0.1:{port}"})
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            await until(lambda: listens(port), "it is ready")
            pid = process.process.pid
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)

            async def not_ready() -> bool:
                """Take what is free, also a descriptor that was given back since the last time.

                The limit is one of numbers: if the process has a free one below, what it keeps in reserve may stand
                above, and is of no use then. That is so here alone, where the limit falls below what is open.
                """
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_descriptors(pid), hard))
                try:
                    status, text = await page(port, "readyz", seconds=3)
                except TimeoutError:
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
                    return False
                return status == 503 and "file descriptors" in text

            await until(not_ready, "it is not ready")
            assert (await page(port, "livez"))[0] == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: listens(port), "it is ready again")
            assert process.stop() == 0


async def test_idle_connections_take_neither_descriptors_nor_the_log(tmp_path: Path) -> None:
    port = free_port()
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, http={"listen": f"127.0.0.1:{port}"})
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            await until(lambda: listens(port), "it is ready")
            pid = process.process.pid
            before = open_descriptors(pid)
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE_CONNECTIONS)]
            assert (await page(port, "readyz"))[0] == 200
            assert open_descriptors(pid) < before + 200
            for _, writer in streams:
                writer.close()
            assert process.stop() == 0
        assert max(Counter(entry["event"] for entry in process.log).values()) <= MAX_LINES_OF_A_KIND
