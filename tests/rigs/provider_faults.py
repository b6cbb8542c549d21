"""Bad answers of providers, and a bridge that meets them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import expected
from inprocess import Polled, polling
from structlog.testing import capture_logs

from bridge.domain.errors import BridgeError
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fakes import Jumping

SOURCES = ("city", "drops", "journeys")
SILENCE = 0.5
SETTINGS: dict[str, dict[str, Any]] = {
    "city": {"timeout": "500ms", "interval": "30s", "page_size": 20},
    "drops": {"interval": "60s", "lookback": "48h"},
    "journeys": {"page_size": 3},
}


@dataclass
class Stage:
    """A source that has seen a small world, and what is going to move in it."""

    polled: Polled
    simulator: Simulator
    time: Jumping
    move: Callable[[], object]
    logs: list[Any]
    names: dict[str, str] = field(default_factory=dict)

    async def poll(self) -> float:
        """Poll, and let as much time pass as the service would wait."""
        wait = await self.polled.poll()
        error = self.polled.error
        assert error is None or isinstance(error, BridgeError), repr(error)
        if not isinstance(error, BridgeError):
            assert self.polled.states[-1] == ("ok", None)
        else:
            assert self.polled.states[-1][0] in {"failing", "stalled"}
            assert self.polled.states[-1][1] == str(error)
        self.time.ahead += wait
        return wait

    async def differences(self) -> dict[str, Any]:
        """Return what was committed otherwise than the provider has shown it."""
        shown, committed = expected(self.simulator), await self.polled.histories()
        return {
            subject: (shown.get(subject), committed.get(subject))
            for subject in sorted({*shown, *committed})
            if shown.get(subject) != committed.get(subject)
        }

    async def complete(self, *, all_shown: bool = True) -> None:
        """Poll on until everything was shown and committed."""
        deadline = time.monotonic() + 10
        while True:
            await self.poll()
            left = self.simulator.unseen() if all_shown else []
            if not left and not await self.differences() and self.polled.error is None:
                return
            assert time.monotonic() < deadline, (left, await self.differences(), self.polled.error)
            if self.polled.error is not None:
                await asyncio.sleep(0.02)  # a door that is shut for a while opens by the real clock
            self.time.ahead += 700

    def check_log(self) -> None:
        """Nothing was ever logged that nobody had expected."""
        for line in self.logs:
            assert line["event"] != "intake.cannot_describe_resource", line
            assert "the source failed with" not in str(line.get("reason")), line


def city(simulator: Simulator) -> tuple[Callable[[], object], dict[str, str]]:
    """Place messages of many and of few recipients, a call, and older ones that fill several pages of the list."""
    world, now = simulator.world, simulator.time.now()
    big = world.add_message("sms", 120, status="sending", recipient_status="sent", at=now - 100)
    for index in range(5):
        world.move(big.recipient(index), "failed", error="no such number")
    small = world.add_message("sms", 2, status="sending", recipient_status="sending", at=now - 50)
    call = world.add_message("voice", 3, status="sending", recipient_status="sending", at=now - 40)
    for number in range(25):
        world.add_message("sms", 1, status="completed", recipient_status="sent", at=now - 200 - number)

    def move() -> None:
        world.move(big.recipient(7), "failed", error="out of credit")
        world.move(big.recipient(110), "failed")
        world.move(small.recipient(0), "sent")
        world.move(call.recipient(0), "sent", detail="human")
        world.move(call.recipient(1), "failed", detail="busy")

    return move, {"big": big.path, "small": small.path, "call": call.path}


def drops(simulator: Simulator) -> tuple[Callable[[], object], dict[str, str]]:
    """Place voicemail drops of two days."""
    world, now = simulator.world, simulator.time.now()
    records = [world.add_drop(state=0, at=now - 10 - number * 7 * 3600) for number in range(5)]

    def move() -> None:
        world.move_drop(records[0], 1)
        world.move_drop(records[1], 2)
        world.move_drop(records[4], 3)
        world.add_drop(state=0)

    return move, {"newest": records[0].path, "oldest": records[4].path}


def journeys(simulator: Simulator) -> tuple[Callable[[], object], dict[str, str]]:
    """Place more events than a page has."""
    world = simulator.world
    first, *_ = [world.add_send_event(code=24) for _ in range(7)]

    def move() -> None:
        for code in (45, 25, 139, 1, 24):
            world.add_send_event(code=code)

    return move, {"first": first.path}


STAGES = {"city": city, "drops": drops, "journeys": journeys}


@asynccontextmanager
async def stage(source: str, folder: Path, *, unpolled: bool = False, **settings: Any) -> AsyncIterator[Stage]:
    """Give a source that has seen all there is; a `unpolled` one was never polled."""
    clock = Jumping()
    with capture_logs() as logs:
        async with (
            Simulator(SimulatorSettings.still(), clock.world) as simulator,
            polling(source, simulator, folder, clock.clock, **(SETTINGS[source] | settings)) as polled,
        ):
            move, names = STAGES[source](simulator)
            staged = Stage(polled, simulator, clock, move, logs, names)
            if not unpolled:
                await staged.complete()
            yield staged
            staged.check_log()
