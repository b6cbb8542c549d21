"""The stdout sink."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.sinks.stdout import Stdout, StdoutSettings, plugin
from bridge.testing.sink_suite import outgoing, sample


def sink_of(**values) -> Stdout:
    settings = StdoutSettings.model_validate({"type": "stdout", "topics": ["#"], **values})
    return plugin.build("out", settings, Clock())


async def test_each_event_is_a_cloudevent_on_its_own_line(capfdbinary):
    sink = sink_of()
    await sink.open()
    events = [sample(number) for number in range(1, 4)]
    for event in events:
        await sink.send(outgoing(event))
    await sink.close()
    lines = capfdbinary.readouterr().out.splitlines()
    assert lines == [event.to_wire().body for event in events]
    assert JSONFormat().read(CloudEvent, lines[0]).get_id() == events[0].id


async def test_event_is_readable_as_soon_as_it_is_delivered(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = sink_of(path=str(path))
    await sink.send(outgoing(sample(1)))
    assert json.loads(path.read_text())["id"] == sample(1).id
    await sink.close()


async def test_many_events_at_once_never_mix_their_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = sink_of(path=str(path))
    await asyncio.gather(*(sink.send(outgoing(sample(number))) for number in range(1, 51)))
    await sink.close()
    assert {json.loads(line)["id"] for line in path.read_text().splitlines()} == {sample(n).id for n in range(1, 51)}


async def test_text_line_shows_main_fields_with_control_characters_escaped(tmp_path):
    path = tmp_path / "events.txt"
    event = sample(1)
    event = event.model_copy(update={"data": event.data.model_copy(update={"error": "\x1b[2Jgone\nsecond"})})
    sink = sink_of(path=str(path), format="text")
    await sink.send(outgoing(event))
    await sink.close()
    assert path.read_text() == (
        "2013-03-15T21:11:02Z  voice.recipient.failed.busy  /messages/voice/10001/recipients/1  "
        "+16515551000  \\x1b[2Jgone\\nsecond\n"
    )


async def test_missing_reader_is_waited_for_and_may_return(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = sink_of(path=str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.send(outgoing(sample(1)))
    os.close(reader)
    with pytest.raises(Transient, match="Broken pipe"):
        await sink.send(outgoing(sample(2)))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.send(outgoing(sample(2)))
    assert json.loads(os.read(reader, 65536))["id"] == sample(2).id
    os.close(reader)
    await sink.close()


async def sent_until_full(sink):
    for number in range(2, 10_000):
        try:
            await sink.send(outgoing(sample(number)))
        except Transient as error:
            return number - 2, str(error)
    raise AssertionError("the pipe never filled")


async def test_line_timed_out_before_its_start_is_never_written(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = sink_of(path=str(path))
    for number in (1, 2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await sink.send(outgoing(sample(number)))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.send(outgoing(sample(3)))
    assert [json.loads(line)["id"] for line in os.read(reader, 65536).splitlines()] == [sample(1).id, sample(3).id]
    os.close(reader)
    await sink.close()


async def test_absent_reader_costs_one_thread_for_all_attempts(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = sink_of(path=str(path))
    before = set(threading.enumerate())  # of other tests: they may end meanwhile
    for number in range(1, 11):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await sink.send(outgoing(sample(number)))
    assert len(set(threading.enumerate()) - before) == 1
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    await sink.close()


STUCK = """
import asyncio, sys
from bridge.domain.clock import Clock
from bridge.sinks.stdout import plugin
from bridge.testing.sink_suite import outgoing, sample

async def main():
    sink = plugin.build("out", plugin.settings(type="stdout", topics=["#"], path=sys.argv[1]), Clock())
    try:
        async with asyncio.timeout(0.2):
            await sink.send(outgoing(sample(1)))
    except TimeoutError:
        print("nobody reads")
    await sink.close()

asyncio.run(main())
"""


def test_absent_reader_does_not_keep_the_process_running(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("nobody reads\n", "")


async def test_full_pipe_is_transient_and_half_line_ends_first(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = sink_of(path=str(path))
    await sink.send(outgoing(sample(1)))
    os.set_blocking(sink._file._file.fileno(), False)
    more, error = await sent_until_full(sink)
    written = 1 + more
    assert error.endswith(("it is full", "Resource temporarily unavailable"))
    seen = b""
    while len(chunk := os.read(reader, 1 << 20)) == 1 << 20:
        seen += chunk
    seen += chunk
    await sink.send(outgoing(sample(written + 1)))
    lines = (seen + os.read(reader, 1 << 20)).decode().splitlines()
    whole = [json.loads(line)["id"] for line in lines if line.endswith("}")]
    assert whole == [sample(number).id for number in range(1, written + 2)]
    os.close(reader)
    await sink.close()


async def test_a_path_that_cannot_be_opened_is_transient(tmp_path):
    with pytest.raises(Transient, match="No such file"):
        await sink_of(path=str(tmp_path / "none" / "events")).send(outgoing(sample(1)))


async def test_a_closed_standard_output_is_transient(monkeypatch):
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(Transient, match="standard output cannot be written to"):
        await sink_of().send(outgoing(sample(1)))


async def test_stdout_that_is_no_file_is_written_and_left_open(monkeypatch):
    class Window:
        buffer = io.BytesIO()

    monkeypatch.setattr(sys, "stdout", Window())
    sink = sink_of()
    await sink.send(outgoing(sample(1)))
    await sink.close()
    await sink.close()
    assert Window.buffer.getvalue() == sample(1).to_wire().body + b"\n"


async def test_a_probe_says_where_lines_go_and_writes_nothing(tmp_path):
    path = tmp_path / "events"
    assert await sink_of().probe() == "writes a CloudEvent a line to standard output"
    assert await sink_of(path=str(path), format="text").probe() == f"writes lines of text to {path}"
    assert not path.exists()
    with pytest.raises(Transient, match="cannot be written to"):
        await sink_of(path=str(tmp_path / "none" / "events")).probe()
