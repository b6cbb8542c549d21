"""`replay --queue`: one queue of a subscriber is filled again from the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rigs.cli import EVENTS

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.cli.support.options import Exit
from bridge.config.loading import load
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry
from bridge.domain.installation import Mark
from bridge.domain.namespace import DEFAULT
from bridge.protocols.broker import Unpublishable
from bridge.runtime.assembly import Assembly

QUEUES = ("billing", "other")


def declare(file: Path) -> None:
    async def work() -> None:
        async with Assembly(load(file)).opened_broker() as broker:
            for queue in QUEUES:
                await broker.declare(queue, ["#"])

    asyncio.run(work())


def received(file: Path, queue: str) -> list[str]:
    """Take what a queue has; return the ids."""

    async def work() -> list[str]:
        async with Assembly(load(file)).opened_broker() as broker, broker.inbox(queue) as inbox:
            batch = await inbox.get(100, 0.2)
            await inbox.ack(batch)
            return [received.event.id for received in batch]

    return asyncio.run(work())


def test_queue_is_filled_with_what_was_published(bridge: Any, seeded: Path) -> None:
    declare(seeded)
    done = bridge("replay", "--queue", "billing", "--since", "24h", "-c", seeded)
    assert (done.code, done.out) == (Exit.DONE, "billing: 5 of 5 events were put into the queue\n")
    assert received(seeded, "billing") == [event.id for event in EVENTS[:5]], "the relay publishes the last one itself"
    assert received(seeded, "other") == []


@pytest.mark.parametrize(("topic", "count"), [("voice.recipient.failed.#", 2), ("#", 5), ("sms.nothing", 0)])
def test_only_selected_topics_go_into_the_queue(bridge: Any, seeded: Path, topic: str, count: int) -> None:
    declare(seeded)
    arguments = ("--queue", "billing", "--since", "24h", "--topic", topic, "--json", "-c", seeded)
    assert bridge("replay", *arguments).json == {"queue": "billing", "selected": count, "replayed": count}
    assert len(received(seeded, "billing")) == count


def test_missing_queue_is_an_error_and_is_not_made(bridge: Any, seeded: Path) -> None:
    declare(seeded)
    for _ in range(2):
        done = bridge("replay", "--queue", "biling", "--since", "24h", "-c", seeded)
        assert done.code == Exit.FAILED
        assert done.err.startswith("error: there is no queue 'biling' on ")
        assert "declare it" in done.err


def test_queue_of_a_sink_is_refused(bridge: Any, seeded: Path) -> None:
    done = bridge("replay", "--queue", "bridge.sink.crm", "--since", "24h", "-c", seeded)
    assert done.code == Exit.USAGE
    assert "use `bridgectl replay crm`" in done.err


@pytest.mark.parametrize("given", [(), ("crm", "--queue", "billing")])
def test_either_a_sink_or_a_queue_is_replayed(bridge: Any, seeded: Path, given: Sequence[str]) -> None:
    done = bridge("replay", *given, "--since", "24h", "-c", seeded)
    assert done.code == Exit.USAGE
    assert "give either a sink or --queue NAME" in done.err


def test_broker_of_another_installation_is_refused(bridge: Any, seeded: Path) -> None:
    async def mark() -> None:
        parts = Assembly(load(seeded))
        async with parts.opened_store() as store, parts.opened_broker() as broker:
            await store.take_over(Mark.new(DEFAULT))
            await broker.take_over(Mark.new(DEFAULT))

    asyncio.run(mark())
    declare(seeded)
    assert bridge("replay", "--queue", "billing", "--since", "24h", "-c", seeded).code == Exit.CONFIG


def test_refused_and_undeliverable_events_are_reported(
    bridge: Any, seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(seeded)
    answers: list[Exception | int] = []

    async def publish(self: SqliteBroker, entries: Sequence[JournalEntry], *, queue: str | None = None) -> int:
        answer = answers.pop()
        if isinstance(answer, Unpublishable):
            answer = Unpublishable({entries[0].position: "it is too large"})
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(SqliteBroker, "publish", publish)
    arguments = ("replay", "--queue", "billing", "--since", "24h", "-c", seeded)
    answers.append(Unpublishable({}))
    done = bridge(*arguments)
    assert (done.code, done.out) == (
        Exit.FAILED, "billing: 4 of 5 events were put into the queue; 1 are not accepted by the broker\n",
    )  # fmt: skip
    answers.append(2)
    assert "there is no queue 'billing'" in bridge(*arguments).err
    answers.append(Unavailable("the broker is away"))
    assert bridge(*arguments).code == Exit.UNREACHABLE
