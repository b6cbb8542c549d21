"""Lines of the log on their way out: never waited for, counted if lost, and said once a minute if they repeat."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.observability.log_writer import LogWriter
from bridge.observability.logging import change_level, configure_logging, drain_logs, write_repeats
from bridge.observability.repeats import RepeatLimiter

WAIT_SECONDS = 20.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writer, "w") as stream:
        yield reader, stream


def test_line_to_a_full_pipe_is_not_waited_for(pipe: tuple[int, io.TextIOWrapper]) -> None:
    reader, stream = pipe
    writer = LogWriter(stream, max_queued_bytes=10_000)
    for _ in range(1000):
        writer.write("x" * 99 + "\n")
    assert not writer.drain(0.01)
    assert 700 < writer.lost < 960  # a page is in the pipe, 10,000 bytes wait
    with os.fdopen(reader, "rb", buffering=0) as lines:
        kept = 1000 - writer.lost
        received = b""
        while len(received) < kept * 100:
            received += lines.read(65536)
        assert received == (b"x" * 99 + b"\n") * kept
        assert writer.drain(WAIT_SECONDS)


def test_losses_are_reported_once_lines_are_written_again(tmp_path: Path) -> None:
    reported: list[int] = []
    done = threading.Event()

    def report(lines: int) -> None:
        reported.append(lines)
        done.set()

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream, report=report)
        writer.write("whole\n")
        assert writer.drain(WAIT_SECONDS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9, hard))
        try:
            writer.write("torn after three\n")
            writer.write("lost\n")
            assert writer.drain(WAIT_SECONDS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.write("whole again\n")
        assert done.wait(WAIT_SECONDS)
    assert reported == [2] == [writer.lost]
    assert (tmp_path / "log").read_text().splitlines() == ["whole", "tor", "whole again"]


def test_line_with_half_a_character_is_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        writer = LogWriter(stream)
        writer.write("half \ud83d\n")
        assert writer.drain(WAIT_SECONDS)
    assert (tmp_path / "log").read_text() == "half \\ud83d\n"


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "closed"])
def test_line_without_a_stream_is_lost_and_counted(stream: io.StringIO | None) -> None:
    if stream is not None:
        stream.close()
    writer = LogWriter(stream)
    writer.write("a line\n")
    assert writer.lost == 1


def limited(limiter: RepeatLimiter, **line: Any) -> dict[str, Any] | None:
    try:
        return dict(limiter(None, "", {"level": "warning", "event": "library.warns", **line}))
    except structlog.DropEvent:
        return None


class ManualTime:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_repeated_warning_comes_once_a_minute_with_its_count() -> None:
    time = ManualTime()
    limiter = RepeatLimiter(time)
    lines = []
    for second in range(121):
        time.seconds = second
        lines += [limited(limiter, reason=f"port {second} refused", again_in=second) for _ in range(10)]
    written = [line for line in lines if line is not None]
    assert [line.get("repeated") for line in written] == [None, 600, 600]


@pytest.mark.parametrize(
    "other", [{"sink": "b"}, {"event": "another"}, {"level": "error"}, {"reason": "gone"}], ids=str
)
def test_warnings_that_say_something_else_all_come(other: dict[str, str]) -> None:
    limiter = RepeatLimiter(ManualTime())
    assert limited(limiter, sink="a", reason="away")
    assert limited(limiter, **{"sink": "a", "reason": "away", **other})


@pytest.mark.parametrize("text", ["GET /j/records: {}, the provider", "https://example.net answered {}"])
def test_another_status_is_news(text: str) -> None:
    limiter = RepeatLimiter(ManualTime())
    for status in (401, 403, 503):
        assert limited(limiter, source="drops", reason=text.format(status))
        assert not limited(limiter, source="drops", reason=text.format(status))


def test_failure_after_a_recovery_is_written_with_what_was_counted() -> None:
    limiter = RepeatLimiter(ManualTime())
    for _ in range(4):
        limited(limiter, event="source.backs_off", source="drops")
        limited(limiter, event="source.backs_off", source="city")
    limited(limiter, level="info", event="source.recovers", source="drops")
    written = limited(limiter, event="source.backs_off", source="drops")
    assert written is not None
    assert written["repeated"] == 4
    assert not limited(limiter, event="source.backs_off", source="city")


def test_lines_below_a_warning_are_always_written() -> None:
    limiter = RepeatLimiter(ManualTime())
    assert all(limited(limiter, level="info") for _ in range(5))


def test_repeats_are_written_without_another_line() -> None:
    time = ManualTime()
    limiter = RepeatLimiter(time)
    for _ in range(4):
        limited(limiter)
    assert limiter.due() == []
    time.seconds = 61
    assert [line["repeated"] for line in limiter.due()] == [3]
    time.seconds = 200
    assert limiter.due() == []
    assert limited(limiter) == {"level": "warning", "event": "library.warns"}


def test_different_lines_take_bounded_memory() -> None:
    limiter = RepeatLimiter(ManualTime())
    for index in range(5000):
        limited(limiter, sink=f"sink{chr(97 + index % 26)}{index}")
    assert len(limiter._lines) == 1000


def test_storm_of_a_library_is_one_line_and_its_count() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    for port in range(5000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %s", port)
    write_repeats()
    drain_logs()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("repeated") for line in lines] == [None, 4999]
    assert {line["event"] for line in lines} == {"library.warns"}


def test_level_changes_while_the_process_runs() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log = structlog.get_logger()
    log.debug("journal.trimmed")
    change_level("debug")
    log.debug("audit.waits")
    change_level("error")
    log.warning("relay.waits")
    drain_logs()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["audit.waits"]
