"""A recording's files: written, torn, full, and read again."""

from __future__ import annotations

import gzip
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from rigs.recording import (
    GIB,
    NOW,
    living,
    play,
    read,
)

from bridge.domain.errors import Unavailable
from bridge.recording import TapeError
from bridge.recording.files import Budget, Full, Writer, prepare
from bridge.recording.files import sources as tapes


def writer(folder: Path, *, limit: int = GIB, compress: bool = False, run: str = "r1") -> Writer:
    return Writer(folder, "city", "govdelivery", run, prepare(folder, limit), compress=compress)


def lines_of_poll(number: int = 0) -> list[dict[str, Any]]:
    at = (NOW + timedelta(seconds=number)).isoformat()
    return [
        {"line": "poll", "at": at, "monotonic": float(number), "seed": number, "cursor": {"list:sms": "7"}},
        {"line": "step"},
        {
            "line": "answer",
            "asked": at,
            "at": at,
            "monotonic": 1.0,
            "method": "GET",
            "path": "/x",
            "status": 200,
            "json": 1,
        },
        {"line": "ended", "at": at, "error": None},
    ]


def write(folder: Path, *numbers: int, **options: Any) -> Path:
    tape_writer = writer(folder, **options)
    for number in numbers:
        for line in lines_of_poll(number):
            tape_writer.write(line, NOW)
    tape_writer.close()
    (path,) = folder.glob("*.jsonl*")
    return path


def write_on(writer: Writer) -> None:
    while True:
        for line in lines_of_poll():
            writer.write(line, NOW)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_what_was_written_is_read_again(tmp_path, compress):
    path = write(tmp_path, 1, 2, compress=compress)
    assert path.name == ("city.r1.0001.jsonl.gz" if compress else "city.r1.0001.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = read(tmp_path)
    assert (first.source, first.kind, first.run, first.cursor) == ("city", "govdelivery", "r1", {"list:sms": "7"})
    assert (first.begun.at, first.begun.seed, second.begun.seed) == (NOW + timedelta(seconds=1), 1, 2)
    assert [line["line"] for line in second.course] == ["step", "answer"]
    assert first.whole
    assert second.whole


def test_a_compressed_tape_is_one_that_any_tool_unpacks(tmp_path):
    lines = gzip.decompress(write(tmp_path, 1, compress=True).read_bytes()).splitlines()
    assert json.loads(lines[0])["tape"] == 1
    assert len(lines) == 5


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("cut", [1, 5, 40, 150])
def test_a_torn_last_line_counts_as_not_written(tmp_path, compress, cut):
    path = write(tmp_path, 1, 2, 3, compress=compress)
    path.write_bytes(path.read_bytes()[:-cut])
    recorded_polls = read(tmp_path)
    assert [poll.begun.seed for poll in recorded_polls] == [1, 2, 3][: len(recorded_polls)]
    assert recorded_polls
    assert all(poll.whole for poll in recorded_polls[:-1])


def test_a_tape_torn_before_its_first_line_is_empty(tmp_path):
    write(tmp_path, 1).write_bytes(b'{"tape":1')
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "7",
        '{"line":"poll"}',
        '{"line":"poll","at":"soon","monotonic":1,"seed":1}',
        '{"line":"answer","at":"2026-03-15T21:11:02Z","status":200}',
        '{"line":"seen","scope":"x","trails":7}',
    ],
    ids=range(6),
)
def test_invalid_line_is_named_with_file_and_number(tmp_path, line):
    path = write(tmp_path, 1)
    path.write_text(path.read_text() + line + "\n" + json.dumps(lines_of_poll()[0]) + "\n")
    with pytest.raises(TapeError, match=rf"{re.escape(str(path))}:6: not a line of a tape"):
        read(tmp_path)


def test_recording_of_another_format_names_the_version_for_it(tmp_path):
    path = write(tmp_path, 1)
    path.write_text(path.read_text().replace('"tape":1', '"tape":2').replace('"bridge":"', '"bridge":"9.'))
    with pytest.raises(TapeError, match=r"of format 2, and this version reads 1: play it with bridge 9\."):
        read(tmp_path)


def test_a_directory_without_a_tape_says_how_one_is_made(tmp_path):
    with pytest.raises(TapeError, match="there is no tape; `bridgectl run --record"):
        tapes(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "city.r1.0001.jsonl").mkdir()
    with pytest.raises(TapeError, match=r"city\.r1\.0001\.jsonl: cannot be read"):
        read(tmp_path)


def test_each_hour_has_a_file_and_polls_may_span_two(tmp_path, monkeypatch):
    tape_writer = writer(tmp_path)
    poll, step, got, ended = lines_of_poll(1)
    tape_writer.write(poll, NOW)
    tape_writer.write(step, NOW)
    tape_writer.write(got, NOW + timedelta(hours=1))
    tape_writer.write(ended, NOW + timedelta(hours=1))
    tape_writer.close()
    tape_writer.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["city.r1.0001.jsonl", "city.r1.0002.jsonl"]
    (recorded_polls,) = read(tmp_path)
    assert len(recorded_polls.course) == 2
    assert recorded_polls.whole
    monkeypatch.setattr("bridge.recording.files._ROLL_BYTES", 100)
    tape_writer.write(poll, NOW)
    tape_writer.write(ended, NOW)
    tape_writer.close()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_size_limit_counts_existing_files_and_is_never_passed(tmp_path, compress):
    write(tmp_path / "a", 1, 2, 3, compress=compress)
    there = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    tape_writer = writer(tmp_path / "a", limit=there + 500, compress=compress, run="r2")
    with pytest.raises(Full):
        write_on(tape_writer)
    tape_writer.close()
    assert there < sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) <= there + 500
    assert [poll.run for poll in read(tmp_path / "a")][:3] == ["r1", "r1", "r1"]


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"the tape's directory .*file/tape cannot be written to \(Not a directory\)"):
        prepare(tmp_path / "file" / "tape", GIB)


def test_a_budget_that_is_used_up_takes_nothing_more():
    budget = Budget(10)
    budget.take(10)
    with pytest.raises(Full):
        budget.take(1)
    assert budget.used == 10


async def test_full_recording_stops_with_one_line_and_polls_continue(tmp_path, time):
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time, limit=20_000) as (_, life):
            for _ in range(3):
                await life.poll()
                time.ahead += 15
    assert [line["event"] for line in logs if line["event"].startswith("tape.")] == ["tape.records", "tape.full"]
    assert sum(path.stat().st_size for path in (tmp_path / "tape").iterdir()) <= 20_000
    assert life.failures == []
    assert len(life.events) > 30
    assert life.recorder._over
    events, replay = await play(tmp_path, life.config)
    assert 0 < len(events) < len(life.events)
    assert replay.summary.missing == {}


async def test_recording_without_its_directory_stops_and_polls_continue(tmp_path, time):
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time) as (_, life):
            (tmp_path / "tape").rmdir()
            for _ in range(2):
                await life.poll()
    (_, over) = [line for line in logs if line["event"].startswith("tape.")]
    assert (over["event"], over["reason"]) == ("tape.cannot_be_written", "No such file or directory")
    assert life.failures == []
    assert len(life.events) > 30


async def test_recorder_defect_does_not_fail_the_poll(tmp_path, time, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyError("+16515551000")

    monkeypatch.setattr("bridge.recording.redaction.Redactor.body", broken)
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time) as (_, life):
            await life.poll()
    (over,) = [line for line in logs if line["event"] == "tape.cannot_be_written"]
    assert "KeyError at test_tape_files.py" in over["reason"]
    assert "6515551000" not in str(logs)
    assert life.failures == []
    assert len(life.events) > 30
