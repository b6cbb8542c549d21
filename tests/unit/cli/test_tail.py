"""`bridgectl tail`: what is published, as it happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rigs.cli import EVENTS, NOW, ONE, TWO, at, event, minutes_ago

from bridge.cli.commands.tail import readable
from bridge.cli.support.options import Exit
from bridge.config.loading import load
from bridge.domain.event import JournalEntry, Transition, WireEvent
from bridge.domain.event_view import EventView
from bridge.domain.events.govdelivery import RecipientSending
from bridge.runtime.assembly import Assembly
from bridge.testing.servers import RedisServer, wait_for


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"data": 5, "recordedtime": "noon"}'])
def test_body_that_is_no_event_prints_without_content(body) -> None:
    line = EventView(at(1), WireEvent("id-1", "a.b.c", 0, body))
    assert (line.data, line.subject, line.recorded, line.partition) == ({}, "", None, "id-1")
    assert line.within(None, None)
    assert not line.within(NOW, None)


def test_tail_starts_with_the_journal_on_request(bridge, seeded) -> None:
    done = bridge("tail", "*.recipient.failed.#", "--since", minutes_ago(70), "--count", 2, "-c", seeded)
    assert done.code == Exit.DONE
    first, second = done.out.splitlines()
    assert first.endswith(f"  voice.recipient.failed.busy  {ONE}  …1000  line …1000 busy")
    assert "no_answer" in second
    whole = bridge("tail", "--json", "--since", "24h", "-n", 6, "-c", seeded).out.splitlines()
    assert [json.loads(line)["id"] for line in whole] == [event.id for event in EVENTS]


def test_a_tail_prints_what_is_published(bridge, file) -> None:
    printed = threading.Event()

    async def publish() -> None:
        async with Assembly(load(file)).opened_broker() as broker:
            while not printed.is_set():
                await broker.publish(
                    [JournalEntry(at(number), event.to_wire()) for number, event in enumerate(EVENTS, 1)]
                )
                await asyncio.sleep(0.05)

    publisher = threading.Thread(target=lambda: asyncio.run(publish()))
    publisher.start()
    try:
        done = bridge("tail", "voice.recipient.sent.*", "-n", 1, "-c", file)
    finally:
        printed.set()
        publisher.join()
    assert done.code == Exit.DONE
    assert done.out.endswith(f"  voice.recipient.sent.human  {TWO}  …1000\n")


def test_out_of_order_change_shows_its_origin() -> None:
    moved = event(RecipientSending, ONE, 1, previous="failed")
    data = moved.data.model_copy(update={"transition": Transition.REOPEN})
    line = EventView(at(1), moved.model_copy(update={"data": data}).to_wire())
    assert "  reopen from failed  …1000" in readable(line)


def test_a_tail_without_a_broker_ends_with_4(bridge, file) -> None:
    file.write_text(f"{file.read_text()}broker: redis://127.0.0.1:1/0\n")
    assert bridge("tail", "-c", file).code == Exit.UNREACHABLE


@pytest.mark.faults
def test_tail_survives_a_broker_outage_and_an_interrupt(file, site, tmp_path) -> None:
    with RedisServer() as server:
        file.write_text(f"{file.read_text()}broker: {server.url}\n")
        out, err = tmp_path / "out", tmp_path / "err"
        with out.open("w") as stdout, err.open("w") as stderr:
            tail = subprocess.Popen(
                [sys.executable, "-m", "bridge", "tail", "--json", "-c", str(file)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "PYTHONUNBUFFERED": "1"},
                stdout=stdout, stderr=stderr,
            )  # fmt: skip
        try:
            published(file, out, 0)
            server.kill()
            wait_for(lambda: "trying again" in err.read_text(), "the note that the broker is gone", within=60)
            server.start()
            published(file, out, 1)
            assert "the broker is back" in err.read_text()
            tail.send_signal(signal.SIGINT)
            assert tail.wait(timeout=60) == 0
            assert "Traceback" not in err.read_text()
        finally:
            tail.kill()
            tail.wait()


def published(file: Path, out: Path, number: int) -> None:
    """Publish one event until it is seen: a subscription begins when it begins."""

    def seen() -> bool:
        return EVENTS[number].id in out.read_text()

    async def publish() -> None:
        async with asyncio.timeout(60), Assembly(load(file)).opened_broker() as broker:
            while not seen():
                await broker.publish([JournalEntry(at(number + 1), EVENTS[number].to_wire())])
                await asyncio.sleep(0.05)

    asyncio.run(publish())
