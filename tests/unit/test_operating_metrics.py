"""The figures that the alerts stand on: states, ages, answers by class, leases, problems."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from rigs.embedded_service import LIMITS, EmbeddedService
from rigs.reconcile import Books

from bridge.domain.answers import PROVIDER_ANSWERS, SINK_ANSWERS, answer_class, failure_class
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointAnswer, EndpointGone, Permanent, Transient, Unauthorized
from bridge.domain.event import WireEvent
from bridge.http.client import HttpClient
from bridge.http.errors import Throttled
from bridge.http.limiter import Limiter
from bridge.ingest.account import OtherAccount
from bridge.protocols.deliveries import DeliveryCounts, NewDelivery
from bridge.protocols.request_context import bound
from bridge.protocols.roster import OpenCircuit, Pause
from bridge.protocols.sink import SinkSettings
from bridge.reconciliation.monitor import ReconciliationMonitor
from bridge.runtime import oldest_waiting as oldest
from bridge.runtime.source_runner import _failure_reason
from bridge.testing.fake_endpoint import FakeEndpoint, reply, reset


class World(EmbeddedService):
    """A service whose gauges are set all the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.limits = replace(LIMITS, gauges_every=0.01)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Figures:
    """The samples of one service's metrics."""

    def __init__(self, service) -> None:
        self._registry = service.process.metrics.registry

    def value(self, metric: str, /, **labels: str) -> float | None:
        sample: float | None = self._registry.get_sample_value(f"bridge_{metric}", labels)
        return sample

    async def becomes(self, value: float, metric: str, /, **labels: str) -> None:
        async with asyncio.timeout(120):
            while self.value(metric, **labels) != value:
                await asyncio.sleep(0.005)

    async def grows(self, metric: str, /, **labels: str) -> float:
        async with asyncio.timeout(120):
            while not (value := self.value(metric, **labels)):
                await asyncio.sleep(0.005)
        return value


async def test_last_good_poll_is_known_to_all_processes(world: World) -> None:
    world.says("new")
    async with world.running(roles=("poll",)) as polling, world.running(roles=("relay",)) as relaying:
        processes = (polling, relaying)
        shown = [
            await Figures(process).grows("source_last_ok_timestamp_seconds", source="city") for process in processes
        ]
        assert all(abs(at - datetime.now(UTC).timestamp()) < 120 for at in shown)
        assert Figures(polling).value("source_interval_seconds", source="city") == pytest.approx(0.02)
        assert Figures(polling).value("source_rate", source="city") == 4.0
        assert [Figures(relaying).value("role", role=role) for role in ("poll", "relay", "sink")] == [0.0, 1.0, 0.0]


async def test_one_process_shows_that_it_holds_the_lease(world: World) -> None:
    async with world.running() as first:
        await Figures(first).becomes(1.0, "lease_held", kind="source", name="city")
        async with world.running() as second:
            await Figures(second).becomes(0.0, "lease_held", kind="source", name="city")
            await Figures(first).becomes(1.0, "lease_held", kind="relay", name="city")
    assert Figures(first).value("lease_held", kind="source", name="city") == 0.0


async def test_unpublished_event_grows_older_until_a_process_relays(world: World) -> None:
    world.says("new")
    async with world.running(roles=("poll",)) as polling:
        await Figures(polling).grows("journal_oldest_unconfirmed_seconds", source="city")
        async with world.running(roles=("relay",)):
            await Figures(polling).becomes(0.0, "journal_oldest_unconfirmed_seconds", source="city")
    assert Figures(polling).value("journal_max_bytes") == LIMITS.journal_bytes


async def test_state_of_a_sink_follows_pause_and_disabling(world: World) -> None:
    world.says("new")
    async with world.running() as service:
        figures = Figures(service)
        await figures.becomes(1.0, "sink_answers_total", sink="crm", answer="accepted")
        await figures.becomes(1.0, "sink_state", sink="crm", state="ok")
        await world.store.open()
        await world.store.pause("sink/crm", Pause(0.0, "ann@desk"))
        await figures.becomes(1.0, "sink_state", sink="crm", state="paused")
        assert figures.value("sink_state", sink="crm", state="ok") == 0.0
        await world.store.resume("sink/crm")
        gone = EndpointGone("it is gone")
        gone.answer = EndpointAnswer(410, b"")
        world.sink.answer = lambda _: (_ for _ in ()).throw(gone)
        world.says("sending")
        await figures.becomes(1.0, "sink_state", sink="crm", state="disabled")
        await figures.becomes(1.0, "sink_answers_total", sink="crm", answer="4xx")
        await world.store.close()


async def test_waiting_delivery_grows_older_until_it_is_delivered(world: World) -> None:
    world.says("new")
    world.sink_settings = SinkSettings(type="keeping", topics=["#"], retry=["500ms"] * 50)
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    async with world.running() as service:
        figures = Figures(service)
        assert await figures.grows("sink_oldest_waiting_seconds", sink="crm") < 120
        assert await figures.grows("sink_answers_total", sink="crm", answer="no_answer")
        world.sink.answer = lambda _: None
        await figures.becomes(0.0, "sink_oldest_waiting_seconds", sink="crm")


async def test_circuit_that_opens_is_a_state_of_the_sink(world: World) -> None:
    async with world.running() as service:
        await Figures(service).becomes(1.0, "sink_state", sink="crm", state="ok")
        service.sinks.workers["crm"]._endpoint.open_circuit = OpenCircuit(0.0, "down")
        await Figures(service).becomes(1.0, "sink_state", sink="crm", state="circuit open")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthorized("no"), "credentials"),
        (Throttled("slower"), "throttled"),
        (OtherAccount("another one"), "account"),
        (Transient("HTTP 500"), "provider"),
        (ZeroDivisionError(), "defect"),
    ],
)
async def test_poll_failures_are_counted_by_reason(world: World, error: Exception, reason: str) -> None:
    assert _failure_reason(error) == reason
    service = world.service()
    service.sources.failed("city", error)
    assert Figures(service).value("poll_failures_total", source="city", reason=reason) == 1.0
    assert Figures(service).value("polls_total", source="city", result="failed") == 1.0


@pytest.mark.parametrize(
    ("status", "answer"),
    [(101, "2xx"), (204, "2xx"), (304, "3xx"), (404, "4xx"), (401, "credentials"), (407, "credentials"),
     (429, "throttled"), (503, "5xx"), (999, "5xx")],
)  # fmt: skip
def test_status_has_one_class(status: int, answer: str) -> None:
    assert answer_class(status) == answer
    assert answer in PROVIDER_ANSWERS


def test_class_of_failure_is_that_of_its_answer() -> None:
    answered = Permanent("no")
    answered.answer = EndpointAnswer(422, b"")
    errors = [answered, Unauthorized("no"), Transient("down"), Transient("later", counts_as_attempt=False), OSError()]
    classes = [failure_class(error) for error in errors]
    assert classes == ["4xx", "credentials", "no_answer", "", "no_answer"]
    assert {*filter(None, classes)} <= {*SINK_ANSWERS}


async def test_each_request_to_a_provider_counts_its_answer() -> None:
    answers: list[str] = []
    async with FakeEndpoint() as provider:
        provider.answer(reply(200, b"[]"), reset(), reply(401), reply(429), reply(500))
        client = HttpClient(provider.url, limiter=Limiter(1000.0, Clock()), clock=Clock())
        with bound(on_answer=answers.append):
            for _ in range(4):
                try:
                    await client.get("/")
                except BridgeError:
                    continue
        await client.get("/")  # outside: nobody counts
        await client.close()
    assert answers == ["2xx", "no_answer", "credentials", "throttled", "5xx"]


async def test_metrics_show_what_is_not_ready(world: World) -> None:
    world.store_fails = True
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as http:
        async with asyncio.timeout(120):
            while not service.health.server.port or "start" not in service.process.health.problems:
                await asyncio.sleep(0.005)
        figures = Figures(service)
        for failing, value in ((True, 1.0), (False, 0.0)):
            world.store_fails = failing
            async with asyncio.timeout(120):
                while figures.value("problem", part="start") != value:
                    async with http.get(f"http://127.0.0.1:{service.health.server.port}/metrics") as answer:
                        assert answer.status == 200
        assert figures.value("problem", part="broker") == 0.0


async def test_differences_of_books_are_shown_until_they_heal(store) -> None:
    shown: list[int] = []
    books = Books(store)
    await books.saw(r1="sent")

    async def check(monitor: ReconciliationMonitor, *, after: float) -> None:
        books.time.seconds += after
        await monitor.check(await store.acquire("source/city", "service", 1e6))

    def monitor() -> ReconciliationMonitor:
        return ReconciliationMonitor(
            "city", "/govdelivery/city", books.reconciler(), store, books.time.clock,
            every=3600.0, on_differences=shown.append,
        )  # fmt: skip

    first = monitor()
    books.source.has = {"1": "failed"}
    for _ in range(3):
        await check(first, after=3600)
    assert shown == [0, 0, 1]
    successor = monitor()
    await check(successor, after=0)
    assert shown[-1] == 1
    books.source.has = {"1": "sent"}
    await check(successor, after=3600)
    assert shown[-1] == 0


async def test_standby_process_shows_no_differences(world: World) -> None:
    service = world.service()
    service.process.metrics.show_source("city", 4.0, 30.0)
    assert Figures(service).value("books_differences", source="city") == 0.0
    for _ in range(2):
        service.sources.state("city", "standby", None)
    assert Figures(service).value("books_differences", source="city") is None


class SearchedStore:
    """A store of which every search for the oldest delivery is counted."""

    def __init__(self, store) -> None:
        self._store = store
        self.searches = 0

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def oldest(self, sink: str, source: str) -> int | None:
        self.searches += 1
        return await self._store.oldest(sink, source)


async def test_long_queue_is_searched_seldom_and_by_due_time(store, monkeypatch) -> None:
    body = b'{"id":"1","recordedtime":"2026-03-01T00:00:00Z"}'
    position = await store.accept_foreign("crm", WireEvent("1", "a.b.c", 0, body))
    zoneless = await store.accept_foreign("crm", WireEvent("2", "a.b.c", 0, b'{"recordedtime":"2026-03-01T00:00:00"}'))
    await store.enqueue("crm", [NewDelivery(position), NewDelivery(zoneless)], 0.0)
    searched, now = SearchedStore(store), [0.0]
    clock = Clock(now=lambda: datetime(2026, 3, 1, 1, tzinfo=UTC), monotonic=lambda: now[0])
    ages = oldest.OldestWaiting(searched, clock)
    books = {position.source: DeliveryCounts(waiting=20_000)}
    for seconds in (0.0, 9.0, 11.0):
        now[0] = seconds
        assert await ages.age("crm", books) == 3600.0
    assert searched.searches == 2
    monkeypatch.setattr(oldest, "_MAX_SEARCHED", 1)
    assert await oldest.oldest_waiting(searched, "crm", books) == datetime(2026, 3, 1, tzinfo=UTC)
    assert searched.searches == 2
    assert await ages.age("crm", {}) == 0.0
