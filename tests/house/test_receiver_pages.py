"""The event on the page for receivers is a real one, and the programs on the pages run as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from harness import until
from house.pages import ROOT, blocks

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.client import RecipientFailed, receive
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position

PAGE = (ROOT / "docs" / "how-to" / "receive-events.md").read_text()


def shown() -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of the webhook on the page."""
    (block,) = (block for block in blocks("http") if block.page.name == "receive-events.md")
    head, _, body = block.text.partition("\n\n")
    return dict(line.split(": ", 1) for line in head.splitlines()[1:]), body.strip().encode()


def event() -> RecipientFailed:
    headers, body = shown()
    secret = re.search(r"whsec_[\w+/=]+", PAGE)
    assert secret
    read = receive(headers, body, secret[0], now=int(headers["webhook-timestamp"]) + 1)
    assert isinstance(read, RecipientFailed)
    return read


def test_the_webhook_on_the_page_is_signed_and_whole():
    headers, body = shown()
    assert event().to_wire().body == body
    assert headers["webhook-id"] == event().id


def test_the_properties_on_the_page_are_those_of_the_event():
    wire = event().to_wire()
    for value in (wire.id, wire.topic, wire.type, str(wire.time)):
        assert f"| `{value}`" in PAGE


async def test_the_tutorials_receiver_prints_events(tmp_path):
    (program,) = (block.text for block in blocks("python") if block.page.name == "first-receiver.md")
    (tmp_path / "receiver.py").write_text(program)
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    await broker.open()
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "receiver.py", str(tmp_path), cwd=tmp_path, stdout=file, env=os.environ
        )
    try:
        async with asyncio.timeout(60):
            while await broker.publish([JournalEntry(Position("city", 1), event().to_wire())]):
                await asyncio.sleep(0.05)  # its queue is not there yet
        await until(out.read_text, "the receiver prints", within=60)
    finally:
        process.terminate()
        await process.wait()
        await broker.close()
    assert out.read_text() == f"failed: {event().subject} busy\n"
