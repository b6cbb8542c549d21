"""What the broker never accepts becomes a dead letter of the relay; everything behind it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.delivery.audit import Audit
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.domain.namespace import DEFAULT
from bridge.protocols.broker import Unpublishable
from bridge.protocols.deliveries import RELAY_SINK, Delivery, DeliveryCounts, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.sink import SinkSettings
from bridge.protocols.store import Store
from bridge.relay.dead_letters import RelayDeadLetters
from bridge.relay.relay import Relay, RelayResult

LIMIT = 100
EVENTS = 52
LARGE = 2


class KilledError(BaseException):
    """Ends the process where it is raised."""


@dataclass
class SmallBroker:
    """Accepts events up to a size; may be unavailable."""

    limit: int = LIMIT
    held: list[Position] = field(default_factory=list)
    available: bool = True

    async def publish(self, entries: Sequence[JournalEntry]) -> int:
        if not self.available:
            raise Unavailable("the broker is down")
        over = {entry.position: "too large" for entry in entries if len(entry.event.body) > self.limit}
        self.held += [entry.position for entry in entries if entry.position not in over]
        if over:
            raise Unpublishable(over)
        return 0

    def sink_queue(self, sink: str) -> str:
        return DEFAULT.sink_queue(sink)

    async def depth(self, _queue: str) -> int:
        return 0


@dataclass
class Time:
    seconds: float = 1e9

    def clock(self) -> Clock:
        return Clock(now=lambda: datetime.fromtimestamp(self.seconds, UTC))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, time: Time) -> AsyncIterator[Store]:
    store: Store = (
        SqliteStore(tmp_path / "bridge.db", clock=time.clock())
        if request.param == "sqlite"
        else RedisStore(request.getfixturevalue("redis_url"), clock=time.clock())
    )
    await store.open()
    yield store
    await store.close()


async def commit(store: Store, count: int = EVENTS, large: Sequence[int] = (LARGE,)) -> list[Position]:
    """Commit events of which some are large; return their positions."""
    events = [
        WireEvent(f"id-{number}", "sms.recipient.sent", 0, b'"' + b"x" * (500 if number in large else 10) + b'"')
        for number in range(count)
    ]
    last = await store.commit(None, Commit("city", events=events))
    return [Position("city", last - count + 1 + number) for number in range(count)]


async def drain(store: Store, broker: Any, time: Time, batch: int = 1000) -> RelayResult:
    lease = await store.acquire("relay/city", "me", 30)
    assert lease is not None
    return await Relay(store, broker, time.clock(), batch=batch).drain(lease, "city")


async def dead(store: Store) -> dict[Position, Delivery]:
    return {delivery.position: delivery for delivery in await store.deliveries(RELAY_SINK, states=("dead",))}


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_one_large_event_does_not_stop_those_behind(store: Store, time: Time, batch: int) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    result = await drain(store, broker, time, batch)
    assert (result.published, result.set_aside) == (EVENTS - 1, 1)
    assert broker.held == [position for position in positions if position != positions[LARGE]]
    assert (await store.journal("city")).backlog == 0
    (letter,) = (await dead(store)).values()
    assert (letter.position, letter.reason, letter.attempts[-1].error) == (positions[LARGE], "refused", "too large")
    assert (await store.counts(RELAY_SINK)) == {"city": DeliveryCounts(dead=1)}


async def test_redriven_dead_letters_are_published_once_the_limit_is_raised(store: Store, time: Time) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    await drain(store, broker, time)
    letters = RelayDeadLetters(store, broker, time.clock())
    assert await letters.publish_due() == 0
    await store.redrive(RELAY_SINK, [positions[LARGE]], time.seconds)
    assert await letters.publish_due() == 0, "refused again"
    assert len((await dead(store))[positions[LARGE]].attempts) == 1
    broker.limit = 1000
    await store.redrive(RELAY_SINK, [positions[LARGE]], time.seconds)
    assert await letters.publish_due() == 1
    assert await letters.publish_due() == 0
    assert Counter(broker.held) == Counter(positions)
    assert await store.deliveries(RELAY_SINK) == []


async def test_a_redrive_outlasts_an_outage_of_the_broker(store: Store, time: Time) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    await drain(store, broker, time)
    await store.redrive(RELAY_SINK, [positions[LARGE]], time.seconds)
    letters = RelayDeadLetters(store, broker, time.clock())
    broker.limit, broker.available = 1000, False
    with pytest.raises(Unavailable):
        await letters.publish_due()
    broker.available = True
    assert await letters.publish_due() == 1


WRITES = ("enqueue", "dead_letter", "confirm")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", WRITES)
async def test_kills_around_each_write_lose_nothing(
    store: Store, time: Time, monkeypatch: pytest.MonkeyPatch, write: str, *, after: bool
) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    real = getattr(store, write)

    async def killed(*arguments: Any) -> Any:
        if after:
            await real(*arguments)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(store, write, killed)
        with pytest.raises(KilledError):
            await drain(store, broker, time)
    await drain(store, broker, time)
    time.seconds += 61
    assert await RelayDeadLetters(store, broker, time.clock()).publish_due() == 0
    assert set(broker.held) == set(positions) - {positions[LARGE]}
    letters = await dead(store)
    assert list(letters) == [positions[LARGE]]
    assert (await store.counts(RELAY_SINK)) == {"city": DeliveryCounts(dead=1)}
    assert (await store.journal("city")).backlog == 0


async def test_set_aside_events_are_not_published_twice_after_a_kill(store: Store, time: Time) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    letters = RelayDeadLetters(store, broker, time.clock())
    await letters.set_aside(await store.entries([positions[LARGE]]), {positions[LARGE]: "too large"})
    broker.limit = 1000  # raised before the restart
    await store.redrive(RELAY_SINK, [positions[LARGE]], time.seconds)
    assert await letters.publish_due() == 1
    await drain(store, broker, time)
    assert Counter(broker.held) == Counter(positions)


async def test_an_audit_does_not_offer_what_the_relay_set_aside(store: Store, time: Time) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    await drain(store, broker, time)
    settings = SinkSettings(type="x", topics=["#"])
    audit = Audit(store, store, broker, time.clock())
    kept = [position for position in positions if position not in await dead(store)]
    await store.accept("crm", [NewDelivery(position) for position in kept], time.seconds + 60)
    await store.settle("crm", kept)
    for _ in range(3):
        result = await audit.run("crm", settings)
        assert (result.missing, result.offered) == (0, 0)
    assert await store.low_watermark("crm", "city") == positions[-1].seq


async def test_discarded_dead_letters_of_the_relay_are_never_offered(store: Store, time: Time) -> None:
    broker = SmallBroker()
    positions = await commit(store)
    await drain(store, broker, time)
    assert await store.discard(RELAY_SINK, [positions[LARGE]]) == 1
    audit = Audit(store, store, broker, time.clock())
    for _ in range(3):
        result = await audit.run("crm", SinkSettings(type="x", topics=["#"]))
    assert await store.delivery("crm", positions[LARGE]) is None
    assert result.offered == 0 or positions[LARGE] not in [
        delivery.position for delivery in await store.deliveries("crm")
    ]


async def test_a_batch_of_nothing_but_large_events_moves_the_mark(store: Store, time: Time) -> None:
    broker = SmallBroker()
    await commit(store, 5, large=range(5))
    result = await drain(store, broker, time)
    assert (result.published, result.set_aside, broker.held) == (0, 5, [])
    assert (await store.journal("city")).backlog == 0
