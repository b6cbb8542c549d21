"""What a process asks of the store while nothing happens, by Redis' own count."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import ask, bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.servers import RedisServer

pytestmark = pytest.mark.acceptance

WINDOW_SECONDS = 10.0
MAX_SENT_A_SECOND = 8.0
"""Commands that the process sends; those that a script calls are counted apart."""
MAX_PROCESSED_A_SECOND = 15.0
MAX_BYTES_A_SECOND = 3072


def transferred(client: redis.Redis) -> int:
    """Return how many bytes Redis has read and written so far, without the answer to this."""
    stats: Any = client.info("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


def usage(client: redis.Redis) -> dict[str, float]:
    """Return how many commands Redis has counted so far; those that scripts call are known by their names."""
    commands: Any = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): float(values["calls"]) for name, values in commands.items()}
    inner = sum(calls.get(name, 0.0) for name in ("time", "hdel", "pexpire", "get", "hset", "hget", "exists", "info"))
    return {
        "processed": sum(calls.values()),
        "sent": sum(calls.values()) - inner,
        "at": time.monotonic(),
    }


async def test_idle_process_asks_the_store_little(tmp_path: Path, record_property: Any) -> None:
    sink = {"type": "webhook", "topics": ["#"], "url": "https://crm.example/hook"}
    with RedisServer() as server:
        async with Simulator(SimulatorSettings.still()) as simulator:
            config = write_config(tmp_path, simulator, store=server.url, interval="60s", sinks={"a": sink, "b": sink})
            with bridge(tmp_path, "run", "-c", str(config)):

                async def is_idle() -> bool:
                    done = await ask(tmp_path, "sources", "--json", "-c", str(config))
                    return all(source["state"] == "ok" for source in json.loads(done.stdout))

                await until(is_idle, "all sources were polled")
                client = redis.Redis.from_url(server.url)
                before, question = usage(client), -transferred(client) + transferred(client)
                read_before = transferred(client) + question
                await asyncio.sleep(WINDOW_SECONDS)
                read = transferred(client) - read_before
                after = usage(client)
                client.close()
    seconds = after["at"] - before["at"]
    rates = {name: (after[name] - before[name]) / seconds for name in ("sent", "processed")} | {"bytes": read / seconds}
    record_property("a second", {name: round(rate, 1) for name, rate in rates.items()})
    assert rates["sent"] <= MAX_SENT_A_SECOND, rates
    assert rates["processed"] <= MAX_PROCESSED_A_SECOND, rates
    assert rates["bytes"] <= MAX_BYTES_A_SECOND, rates
