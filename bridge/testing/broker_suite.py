"""What every broker promises, a test for each sentence; subclass it for an adapter of your own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.protocols.broker import Broker, Inbox, Received

WITHIN = 60.0
"""Seconds that a message may take; most take milliseconds."""
QUEUE = "bridge.sink.suite"
OTHER_QUEUE = "bridge.sink.suite-other"


def entry(seq: int, topic: str = "voice.recipient.failed.busy", *, body: bytes | None = None) -> JournalEntry:
    """Return one line of a journal named `city`; its event's id is `event-SEQ`."""
    content = {"specversion": "1.0", "id": f"event-{seq}", "text": "Grüße ☎ \u0000", "data": {"n": seq}}
    data = body if body is not None else json.dumps(content, ensure_ascii=False).encode()
    return JournalEntry(
        Position("city", seq), WireEvent(id=f"event-{seq}", topic=topic, time=1_363_381_862 + seq, body=data)
    )


def ids(received: Sequence[Received]) -> list[str]:
    """Return the events' ids in order."""
    return [message.event.id for message in received]


async def collect(inbox: Inbox, count: int, *, within: float = WITHIN) -> list[Received]:
    """Return `count` messages, and fail if they do not come in time; more than `count` fail as well."""
    got: list[Received] = []
    async with asyncio.timeout(within):
        while len(got) < count:
            got += await inbox.get(count - len(got), 1.0)
    return got


async def nothing_more(inbox: Inbox) -> bool:
    """Say whether the inbox stays empty for a moment."""
    return not await inbox.get(1, 0.3)


class _BrokerFixtures:
    """The two brokers of every promise."""

    @pytest.fixture
    def broker(self) -> Broker:
        """Give the broker under test."""
        raise NotImplementedError

    @pytest.fixture
    def second(self) -> Broker:
        """Give another instance on the same broker."""
        raise NotImplementedError


class _RoutingPromises(_BrokerFixtures):
    """What a topic's pattern selects."""

    @pytest.mark.parametrize(
        ("pattern", "wanted", "unwanted"),
        [
            (
                "voice.recipient.failed",
                ["voice.recipient.failed"],
                ["voice.recipient.failed.busy", "voice.recipient", "sms.recipient.failed"],
            ),
            (
                "*.recipient.failed",
                ["voice.recipient.failed", "sms.recipient.failed"],
                ["voice.recipient.failed.busy", "recipient.failed", "a.b.recipient.failed", "voice.recipient.sent"],
            ),
            (
                "*.recipient.failed.#",
                ["voice.recipient.failed", "voice.recipient.failed.busy", "sms.recipient.failed.a.b"],
                ["voice.recipient.failedx", "voice.message.failed", "recipient.failed"],
            ),
            ("voice.#", ["voice", "voice.recipient", "voice.recipient.failed.busy"], ["voices.recipient", "sms.voice"]),
            ("#", ["voice", "voice.recipient.failed.busy", "bridge.source.stalled"], []),
        ],
    )
    async def test_a_pattern_means_the_same_on_every_broker(
        self, broker: Broker, pattern: str, wanted: list[str], unwanted: list[str]
    ) -> None:
        """Exact words, `*` for one word, a final `#` for none or more, the stem itself included."""
        await broker.declare(QUEUE, [pattern])
        topics = wanted + unwanted
        unroutable = await broker.publish([entry(seq, topic) for seq, topic in enumerate(topics, 1)])
        async with broker.inbox(QUEUE) as inbox:
            got = await collect(inbox, len(wanted))
            assert sorted(message.event.topic for message in got) == sorted(wanted)
            assert await nothing_more(inbox)
        assert unroutable == len(unwanted)

    async def test_event_matching_two_patterns_arrives_once(self, broker: Broker) -> None:
        """Patterns of one queue may overlap."""
        await broker.declare(QUEUE, ["#", "voice.#", "*.recipient.*"])
        assert await broker.publish([entry(1, "voice.recipient.sent")]) == 0
        async with broker.inbox(QUEUE) as inbox:
            await inbox.ack(await collect(inbox, 1))
            assert await nothing_more(inbox)

    async def test_each_queue_that_wants_an_event_gets_it(self, broker: Broker) -> None:
        """Queues do not share with each other."""
        await broker.declare(QUEUE, ["#"])
        await broker.declare(OTHER_QUEUE, ["voice.#"])
        await broker.publish([entry(1, "voice.recipient.sent"), entry(2, "sms.recipient.sent")])
        async with broker.inbox(QUEUE) as inbox, broker.inbox(OTHER_QUEUE) as other:
            assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]
            assert ids(await collect(other, 1)) == ["event-1"]
            assert await nothing_more(other)


class _MessagePromises(_BrokerFixtures):
    """What a message keeps on its way."""

    async def test_bytes_and_properties_arrive_as_they_were_sent(self, broker: Broker, second: Broker) -> None:
        """Body, id, topic, time and position are the event's own."""
        await broker.declare(QUEUE, ["#"])
        sent = entry(7)
        await broker.publish([sent])
        async with second.inbox(QUEUE) as inbox:
            (got,) = await collect(inbox, 1)
        assert got.event == sent.event
        assert got.position == Position("city", 7)
        assert got.problem is None

    async def test_message_without_json_object_keeps_its_bytes(self, broker: Broker) -> None:
        """A malformed message is handed on for somebody to look at, and never raises."""
        await broker.declare(QUEUE, ["#"])
        bodies = [b"\xff\xfe\x00 not text", b"[1, 2]", b"{", b"NaN"]
        await broker.publish([entry(seq, body=body) for seq, body in enumerate(bodies, 1)])
        async with broker.inbox(QUEUE) as inbox:
            got = await collect(inbox, len(bodies))
            assert [message.event.body for message in got] == bodies
            assert all(message.problem for message in got)
            await inbox.ack(got)

    async def test_a_large_body_arrives_whole(self, broker: Broker) -> None:
        """A body may be larger than one frame of the wire."""
        await broker.declare(QUEUE, ["#"])
        body = json.dumps({"id": "event-1", "text": "x" * 500_000}).encode()
        await broker.publish([entry(1, body=body), entry(2)])
        async with broker.inbox(QUEUE) as inbox:
            first, _ = await collect(inbox, 2)
        assert first.event.body == body

    async def test_a_batch_of_a_thousand_arrives_in_order(self, broker: Broker, second: Broker) -> None:
        """`publish` returned, so all of it is there."""
        await broker.declare(QUEUE, ["#"])
        assert await broker.publish([entry(seq) for seq in range(1, 1001)]) == 0
        async with second.inbox(QUEUE, prefetch=100) as inbox:
            seen: list[str] = []
            async with asyncio.timeout(WITHIN):
                while len(seen) < 1000:
                    got = await inbox.get(300, 1.0)
                    seen += ids(got)
                    await inbox.ack(got)
            assert await nothing_more(inbox)
        assert seen == [f"event-{seq}" for seq in range(1, 1001)]

    async def test_no_batch_is_a_batch(self, broker: Broker) -> None:
        """Publishing nothing does nothing."""
        assert await broker.publish([]) == 0

    async def test_an_event_published_twice_is_there_twice(self, broker: Broker) -> None:
        """The broker hides nothing: who consumes may count on seeing what was published."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(1)])
        await broker.publish([entry(1)])
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 2)) == ["event-1", "event-1"]

    async def test_an_event_can_be_sent_to_one_queue(self, broker: Broker, second: Broker) -> None:
        """The queue gets it whatever its topics are, and no other queue does."""
        await broker.declare(QUEUE, ["voice.#"])
        await broker.declare(OTHER_QUEUE, ["sms.#"])
        assert await broker.publish([entry(1, "sms.recipient.sent"), entry(2)], queue=QUEUE) == 0
        async with second.inbox(QUEUE) as inbox:
            messages = await collect(inbox, 2)
            assert [message.event.body for message in messages] == [entry(1).event.body, entry(2).event.body]
            await inbox.ack(messages)
        assert await broker.depth(OTHER_QUEUE) == 0

    async def test_events_that_no_queue_wants_are_counted(self, broker: Broker) -> None:
        """They are gone, and the caller knows how many."""
        assert await broker.publish([entry(1), entry(2)]) == 2
        await broker.declare(QUEUE, ["sms.#"])
        assert await broker.publish([entry(3), entry(4, "sms.message.sending"), entry(5)]) == 2
        assert await broker.depth(QUEUE) == 1


class _QueuePromises(_BrokerFixtures):
    """What a queue keeps."""

    async def test_declaring_again_changes_nothing(self, broker: Broker, second: Broker) -> None:
        """Neither messages nor bindings are lost or doubled."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(1)])
        await broker.declare(QUEUE, ["#"])
        await second.declare(QUEUE, ["#"])
        await broker.publish([entry(2)])
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]
            assert await nothing_more(inbox)

    async def test_a_queue_keeps_its_messages_while_nobody_consumes(self, broker: Broker, second: Broker) -> None:
        """A sink that is down misses nothing."""
        await broker.declare(QUEUE, ["#"])
        async with broker.inbox(QUEUE) as inbox:
            assert await nothing_more(inbox)
        await second.publish([entry(1), entry(2)])
        await broker.publish([entry(3)])
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 3)) == ["event-1", "event-2", "event-3"]

    async def test_depth_is_what_waits(self, broker: Broker, second: Broker) -> None:
        """A queue that does not exist has nothing that waits."""
        assert await broker.depth(QUEUE) == 0
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(seq) for seq in range(1, 6)])
        assert await second.depth(QUEUE) == 5

    async def test_only_a_declared_queue_exists(self, broker: Broker, second: Broker) -> None:
        """Looking for a queue does not make it."""
        await broker.declare(QUEUE, ["#"])
        assert await second.has_queue(QUEUE)
        assert not await second.has_queue(OTHER_QUEUE)
        assert not await broker.has_queue(OTHER_QUEUE)


class _AcknowledgementPromises(_BrokerFixtures):
    """What an acknowledgement ends."""

    async def test_what_was_acknowledged_does_not_come_back(self, broker: Broker, second: Broker) -> None:
        """Neither to this consumer nor to another one."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(seq) for seq in range(1, 4)])
        async with broker.inbox(QUEUE) as inbox:
            await inbox.ack(await collect(inbox, 3))
            assert await nothing_more(inbox)
        async with second.inbox(QUEUE) as inbox:
            assert await nothing_more(inbox)
        assert await broker.depth(QUEUE) == 0

    async def test_what_was_not_acknowledged_comes_back_in_order(self, broker: Broker, second: Broker) -> None:
        """Once the inbox that had it is gone, acknowledged out of order or not; other queues do not see it again."""
        await broker.declare(QUEUE, ["#"])
        await broker.declare(OTHER_QUEUE, ["#"])
        await broker.publish([entry(seq) for seq in range(1, 7)])
        async with broker.inbox(QUEUE) as inbox:
            got = await collect(inbox, 6)
            await inbox.ack([got[4], got[1]])
            await inbox.ack([got[0]])
        async with second.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 3)) == ["event-3", "event-4", "event-6"]
            assert await nothing_more(inbox)
        assert await broker.depth(OTHER_QUEUE) == 6

    async def test_acknowledging_twice_harms_nothing(self, broker: Broker) -> None:
        """A caller that is not sure may say it again."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(1), entry(2)])
        async with broker.inbox(QUEUE) as inbox:
            got = await collect(inbox, 2)
            await inbox.ack(got[:1])
            await inbox.ack(got)
            await inbox.ack([])
            await broker.publish([entry(3)])
            assert ids(await collect(inbox, 1)) == ["event-3"]

    async def test_no_more_than_the_prefetch_is_unacknowledged(self, broker: Broker, second: Broker) -> None:
        """What a slow consumer has not asked for stays with the queue, for others."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(seq) for seq in range(1, 6)])
        async with broker.inbox(QUEUE, prefetch=2) as slow:
            first = await collect(slow, 2)
            assert await nothing_more(slow)
            async with second.inbox(QUEUE) as fast:
                assert ids(await collect(fast, 3)) == ["event-3", "event-4", "event-5"]
            await slow.ack(first)
            assert ids(await collect(slow, 2)) == ["event-3", "event-4"]

    async def test_two_consumers_share_a_queue(self, broker: Broker, second: Broker) -> None:
        """Each message goes to one of them."""
        await broker.declare(QUEUE, ["#"])
        async with broker.inbox(QUEUE, prefetch=5) as first, second.inbox(QUEUE, prefetch=5) as other:
            await broker.publish([entry(seq) for seq in range(1, 41)])
            seen: list[str] = []
            per_inbox = [0, 0]
            async with asyncio.timeout(WITHIN):
                while len(seen) < 40:
                    for index, inbox in enumerate((first, other)):
                        got = await inbox.get(5, 0.2)
                        per_inbox[index] += len(got)
                        seen += ids(got)
                        await inbox.ack(got)
        assert sorted(seen) == sorted(f"event-{seq}" for seq in range(1, 41))
        assert all(per_inbox)


class _WaitingPromises(_BrokerFixtures):
    """What a waiting consumer may rely on."""

    async def test_a_waiting_consumer_hears_of_a_message_at_once(self, broker: Broker, second: Broker) -> None:
        """Milliseconds, not seconds; the later ones as well as the first. A busy machine may be late now and then."""
        await broker.declare(QUEUE, ["#"])
        took = []
        async with broker.inbox(QUEUE) as inbox:
            for seq in range(1, 6):
                waiting = asyncio.create_task(inbox.get(10, WITHIN))
                await asyncio.sleep(0.1)  # it has begun to wait, with nothing there
                started = asyncio.get_running_loop().time()
                await second.publish([entry(seq)])
                assert ids(await waiting) == [f"event-{seq}"]
                took.append(asyncio.get_running_loop().time() - started)
        assert sum(seconds < 0.5 for seconds in took) >= 3, took

    async def test_a_get_that_was_cancelled_takes_nothing_with_it(self, broker: Broker) -> None:
        """Whatever was on its way to the cancelled call comes to the next one."""
        await broker.declare(QUEUE, ["#"])
        async with broker.inbox(QUEUE) as inbox:
            for _ in range(5):
                waiting = asyncio.create_task(inbox.get(10, WITHIN))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            publishing = asyncio.create_task(broker.publish([entry(seq) for seq in range(1, 51)]))
            while not publishing.done():
                waiting = asyncio.create_task(inbox.get(10, WITHIN))
                await asyncio.wait([waiting, publishing], return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():  # its messages are handed out, and not acknowledged yet
                    break
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            returned = list(waiting.result()) if waiting.done() and not waiting.cancelled() else []
            await publishing
            rest = await collect(inbox, 50 - len(returned))
            assert ids([*returned, *rest]) == [f"event-{seq}" for seq in range(1, 51)]


class _TapPromises(_BrokerFixtures):
    """What a tap shows."""

    async def test_a_tap_sees_what_is_published_from_now_on(self, broker: Broker, second: Broker) -> None:
        """Not what was before, not what it did not ask for; from another process as from this one."""
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(1)])
        async with second.tap(["voice.#"]) as tap:
            await broker.publish([entry(2), entry(3, "sms.recipient.sent")])
            await second.publish([entry(4, "voice.recipient.sent")])
            assert ids(await collect(tap, 2)) == ["event-2", "event-4"]
            assert await nothing_more(tap)
        assert await broker.depth(QUEUE) == 4

    async def test_a_tap_needs_no_acknowledgement(self, broker: Broker) -> None:
        """It goes on past any number of messages that nobody acknowledged."""
        async with broker.tap(["#"]) as tap:
            for start in range(1, 2501, 500):
                await broker.publish([entry(seq) for seq in range(start, start + 500)])
                got = await collect(tap, 500)
                await tap.ack(got)
            assert await nothing_more(tap)

    async def test_a_tap_leaves_nothing_behind(self, broker: Broker) -> None:
        """When it ends, nobody wants its topics any more."""
        async with broker.tap(["#"]):
            assert await broker.publish([entry(1)]) == 0
        assert await broker.publish([entry(2)]) == 1


class _ServerPromises(_BrokerFixtures):
    """What the server says of itself."""

    async def test_a_broker_that_is_there_answers(self, broker: Broker) -> None:
        """`ping` returns, again and again."""
        await broker.ping()
        await broker.ping()


class BrokerSuite(
    _RoutingPromises,
    _MessagePromises,
    _QueuePromises,
    _AcknowledgementPromises,
    _WaitingPromises,
    _TapPromises,
    _ServerPromises,
):
    """Subclass it, and give a `broker` fixture: an opened broker with nothing on it.

    `second` is another instance on the same broker, as another process would have it. Queues and their messages have to
    be gone for the next test.
    """
