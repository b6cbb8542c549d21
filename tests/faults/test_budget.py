"""The budget of requests: never more than it says in any second, whatever strikes, by the provider's own record."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Process, ask, bridge, until, write_config
from inprocess import Polled, polling

from bridge.coordination.leases import run_until_deadline
from bridge.domain.clock import Clock
from bridge.domain.errors import LeaseLost
from bridge.http.limiter import Limiter, RequestSlot
from bridge.protocols.request_context import LeaseDeadline, QuotaShare
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fakes import Jumping

pytestmark = pytest.mark.faults

RATE = 5
PROVIDERS = {"city": "govdelivery", "drops": "spacivox", "journeys": "marketingcloud"}
PRESSED_FOR = 2.5


def world() -> Simulator:
    """Return a provider with more to ask for than any budget allows."""
    simulator = Simulator(SimulatorSettings.still(page_size=5))
    now = simulator.time.now()
    for number in range(40):
        simulator.world.add_message("sms", 3, status="sending", recipient_status="sending", at=now - number)
        simulator.world.add_drop(at=now - number * 3600)
        simulator.world.add_send_event()
    return simulator


def batched(names: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Cut names into groups."""
    rest = iter(names)
    while group := tuple(islice(rest, size)):
        yield group


async def press(polled: Polled, seconds: float = PRESSED_FOR) -> None:
    """Poll again and again without waiting between: only the budget is in the way."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await polled.poll()
                await asyncio.sleep(0.005)


def settings(source: str, **more: Any) -> dict[str, Any]:
    common = {"interval": "1ms", "rate": f"{RATE}/s"}
    return common | ({"page_size": 3} if source == "journeys" else {}) | more


FAULTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "too_many": {"value": 0.1},
    "too_many_bare": {"share": 0.5},
    "http_503": {},
    "reset": {},
    "closed_unanswered": {"share": 0.5},
    "reset_midway": {"share": 0.7},
    "idle_close": {"value": 0.01},
    "refused": {"value": 0.3, "share": 0.3},
    "token_expires_early": {},
    "html_page": {"share": 0.5},
}


@pytest.mark.parametrize("source", PROVIDERS)
async def test_no_second_exceeds_the_budget_under_any_fault(source, tmp_path):
    async def scene(fault: str) -> tuple[str, int, float]:
        async with world() as simulator, AsyncExitStack() as stack:
            folder = tmp_path / fault
            polled = await stack.enter_async_context(
                polling(source, simulator, folder, Clock(), **settings(source))
            )  # fmt: skip
            if fault != "nothing":
                simulator.switch_on(fault, **FAULTS[fault])
            applies = fault == "nothing" or source == "journeys" or fault != "token_expires_early"
            traffic, pressed = simulator.traffic[PROVIDERS[source]], 0.0
            while not pressed or (
                fault != "nothing" and applies and not simulator.board.applied[fault] and pressed < 15
            ):
                await press(polled)
                pressed += PRESSED_FOR
            assert simulator.board.applied[fault] > 0 or fault == "nothing" or not applies
            return fault, traffic.most_in(1.0), len(traffic.times) / pressed

    # A few at a time: what one event loop has to do for all of them would blur the record.
    measured = []
    for group in batched(FAULTS, 4):
        measured += await asyncio.gather(*map(scene, group))
    print("most in a second, and how many a second on average:", *measured, sep="\n  ")
    assert {fault: most for fault, most, _ in measured if most > RATE} == {}
    # The budget is really what paces: where nothing else keeps us quiet, it is used.
    rates = {fault: rate for fault, _, rate in measured}
    assert rates["nothing"] > 0.8 * RATE


@pytest.mark.parametrize("fault", ["reset", "closed_unanswered", "idle_close", "torn_body"])
async def test_every_request_that_arrives_was_counted_before_it_began(fault, tmp_path, monkeypatch):
    # aiohttp repeats a request by itself when a kept-alive connection has died; that one would be nobody's.
    counted = 0
    turn = Limiter.acquire

    async def count(self: Limiter, share: QuotaShare | None = None) -> RequestSlot:
        nonlocal counted
        slot = await turn(self, share)
        counted += 1
        return slot

    monkeypatch.setattr(Limiter, "acquire", count)
    clock = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), clock.world) as simulator,
        polling("city", simulator, tmp_path, clock.clock, interval="30s") as polled,
    ):
        for number in range(10):
            simulator.world.add_message("sms", 2, status="sending", at=simulator.time.now() - number)
        await polled.poll()
        simulator.switch_on(fault, value=0.01 if fault == "idle_close" else None, share=0.5)
        for _ in range(5):
            clock.ahead += await polled.poll()
            await asyncio.sleep(0.02)
        assert simulator.board.applied[fault] > 0
        # One that is written onto a dead connection was counted and does not arrive.
        assert 30 < len(simulator.traffic["govdelivery"].times) <= counted


@pytest.mark.parametrize("source", PROVIDERS)
async def test_sources_of_one_account_share_the_most_careful_budget(source, tmp_path):
    clock = Clock()
    async with world() as simulator, AsyncExitStack() as stack:
        polled = [
            await stack.enter_async_context(
                polling(source, simulator, tmp_path / rate, clock, **settings(source, rate=f"{rate}/s"))
            )
            for rate in (str(RATE), "50", "200")
        ]
        # The most careful one comes last: it is heeded before it has asked for anything.
        swift = [asyncio.ensure_future(press(source)) for source in polled[1:]]
        await until(lambda: len(simulator.traffic[PROVIDERS[source]].times) > RATE, "the others have asked")
        await asyncio.gather(press(polled[0]), *swift)
        traffic = simulator.traffic[PROVIDERS[source]]
        assert traffic.most_in(1.0) <= RATE
        assert len(traffic.times) > 0.8 * RATE * PRESSED_FOR


async def test_accounts_that_differ_have_budgets_of_their_own(tmp_path):
    clock = Clock()
    async with world() as first, world() as second, AsyncExitStack() as stack:
        polled = [
            await stack.enter_async_context(
                polling("city", simulator, tmp_path / name, clock, **settings("city"))
            )
            for name, simulator in (("one", first), ("two", second))
        ]  # fmt: skip
        await asyncio.gather(*(press(source) for source in polled))
        for simulator in (first, second):
            traffic = simulator.traffic["govdelivery"]
            assert traffic.most_in(1.0) <= RATE
            assert len(traffic.times) > 0.8 * RATE * PRESSED_FOR


# --- two processes ----------------------------------------------------------------------------------------------------


def shared_config(folder: Path, simulator: Simulator, redis_url: str) -> Path:
    """Write a configuration of two replicas that always have more to ask than they may."""
    path = write_config(folder, simulator, interval="20ms", store=redis_url, lease="2s")
    config = yaml.safe_load(path.read_text())
    for source in config["sources"].values():
        source |= {"rate": f"{RATE}/s", "idle_slowdown": 1}
    path.write_text(yaml.safe_dump(config))
    return path


class Crowd:
    """What the providers have been asked, by whomever."""

    def __init__(self, simulator: Simulator, *sources: str) -> None:
        self.simulator = simulator
        self.providers = [PROVIDERS[source] for source in sources or PROVIDERS]

    def counts(self) -> list[int]:
        return [len(self.simulator.traffic[provider].times) for provider in self.providers]

    async def asked(self, more: int, what: str) -> None:
        """Wait until each provider was asked so many times more."""
        before = self.counts()
        await until(lambda: all(now >= was + more for now, was in zip(self.counts(), before, strict=True)), what)

    def check(self) -> None:
        for provider in self.providers:
            times = self.simulator.traffic[provider].times
            spans = [after - before for before, after in zip(times, times[RATE:], strict=False)]
            assert min(spans) > 1.0, f"{provider}: {RATE + 1} requests within {min(spans):.3f} s"
            assert len(times) > 20, "there was no pressure"


Ends = Callable[[Process], Coroutine[Any, Any, None]]


async def is_killed(process: Process) -> None:
    process.kill()


async def ends_in_good_order(process: Process) -> None:
    assert await asyncio.to_thread(process.stop) == 0


@pytest.mark.acceptance
@pytest.mark.parametrize("ends", [is_killed, ends_in_good_order])
async def test_new_lease_holder_keeps_to_the_remaining_budget(ends: Ends, tmp_path, redis_url):
    async with world() as simulator:
        crowd = Crowd(simulator)
        config = shared_config(tmp_path, simulator, redis_url)
        with (
            bridge(tmp_path, "run", "-c", str(config), name="first") as first,
            bridge(tmp_path, "run", "-c", str(config), name="second") as second,
            bridge(tmp_path, "run", "-c", str(config), name="third"),
        ):
            await crowd.asked(12, "somebody polls")
            # Each may hold a part: whoever ends, the others take it over.
            await ends(first)
            await crowd.asked(12, "another one has taken over")
            await ends(second)
            await crowd.asked(12, "the third has taken over")
        crowd.check()


@pytest.mark.acceptance
async def test_paused_process_asks_nothing_after_takeover(tmp_path, redis_url):
    async with world() as simulator:
        crowd = Crowd(simulator)
        config = shared_config(tmp_path, simulator, redis_url)
        with bridge(tmp_path, "run", "-c", str(config), name="first") as first:
            await crowd.asked(12, "the first polls")
            with bridge(tmp_path, "run", "-c", str(config), name="second") as second:
                sleeper, waker = first, second
                for _ in range(3):
                    sleeper.process.send_signal(signal.SIGSTOP)
                    try:
                        await crowd.asked(8, "the other one has taken over")
                    finally:
                        sleeper.process.send_signal(signal.SIGCONT)
                    await crowd.asked(8, "both are awake")
                    sleeper, waker = waker, sleeper
        crowd.check()


@pytest.mark.acceptance
async def test_processes_share_one_account_within_its_budget(tmp_path, redis_url):
    async with world() as simulator:
        crowd = Crowd(simulator, "drops", "journeys")
        config = shared_config(tmp_path, simulator, redis_url)
        written = yaml.safe_load(config.read_text())
        del written["sources"]["city"]
        written["sources"] |= {f"{name}-too": dict(source) for name, source in written["sources"].items()}
        config.write_text(yaml.safe_dump(written))
        with (
            bridge(tmp_path, "run", "-c", str(config), name="first") as first,
            bridge(tmp_path, "run", "-c", str(config), name="second") as second,
        ):
            await crowd.asked(12, "somebody polls")

            async def all_are_held() -> bool:
                states = await ask(tmp_path, "sources", "-c", str(config), "--json")
                assert states.returncode == 0, states.stderr
                return all(source["holder"] for source in json.loads(states.stdout))

            await until(all_are_held, "somebody has each source")
            await is_killed(first)
            await crowd.asked(12, "the second polls all")
            await is_killed(second)
        crowd.check()


@pytest.mark.acceptance
async def test_commands_keep_within_the_services_remaining_budget(tmp_path, redis_url):
    async with world() as simulator:
        crowd = Crowd(simulator)
        config = shared_config(tmp_path, simulator, redis_url)
        with bridge(tmp_path, "run", "-c", str(config), name="service"):
            await crowd.asked(8, "the service polls")
            filled, compared, other = await asyncio.gather(
                ask(tmp_path, "backfill", "drops", "--start", "12h", "-c", str(config)),
                ask(tmp_path, "reconcile", "drops", "--patience", "0s", "-c", str(config)),
                ask(tmp_path, "reconcile", "journeys", "--patience", "0s", "-c", str(config)),
            )
            assert filled.returncode == 0, filled.stderr
            assert compared.returncode in {0, 1}, compared.stderr
            assert other.returncode in {0, 1}, other.stderr
            assert "waits for another command" in filled.stderr + compared.stderr
            await crowd.asked(20, "the service polls alone again")
        crowd.check()


async def test_work_without_renewed_lease_asks_nothing_more(tmp_path):
    clock = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), clock.world) as simulator,
        polling("city", simulator, tmp_path, clock.clock, interval="30s") as polled,
    ):
        await polled.poll()
        asked = len(simulator.traffic["govdelivery"].times)
        lease_deadline = LeaseDeadline("source/city", clock.monotonic() + 15)

        async def work() -> None:
            clock.ahead += 16  # the process was stopped for as long
            async for _ in polled.source.pages({}, ()):
                pytest.fail("nothing may be asked")

        with pytest.raises(LeaseLost, match=r"source/city was not renewed in time"):
            await run_until_deadline(lease_deadline, work())
        assert len(simulator.traffic["govdelivery"].times) == asked
        await polled.poll()
        assert len(simulator.traffic["govdelivery"].times) > asked
