"""A new process does not inherit the back-off of the one before it: the token may have been repaired."""

from __future__ import annotations

from inprocess import polling

from bridge.domain.clock import Clock
from bridge.simulator import Simulator, SimulatorSettings

FAILURES = 8


async def test_new_process_tries_soon_what_failed_before_its_start(tmp_path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        async with polling("drops", simulator, tmp_path, Clock(), token="wrong") as former:
            waits = [await former.poll() for _ in range(FAILURES)]
        assert waits[-1] > 30
        async with polling("drops", simulator, tmp_path, Clock(), token="wrong") as still_wrong:
            assert await still_wrong.poll() < 5
        async with polling("drops", simulator, tmp_path, Clock()) as repaired:
            await repaired.poll()
            assert repaired.error is None
            assert repaired.states[-1][0] == "ok"
