"""The archive sink: exactly what was published, once, in files that survive a kill at any step."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import signal
import stat
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.domain.event import Event, WireEvent
from bridge.protocols.sink import Outgoing
from bridge.testing.sink_suite import outgoing, sample
from bridge_archive import Archive, ArchiveSettings, plugin
from bridge_archive.compression import compress_finished
from bridge_archive.files import FileName, names
from bridge_archive.recent_events import RecentEvents, identity
from bridge_archive.writer import ArchiveWriter, as_line

DAY = date(2026, 11, 29)


def event(number: int) -> Event:
    """Return an event; the first ninety are equally long."""
    return sample(number + 9)


BODIES = [event(number).to_wire().body for number in range(1, 13)]
LINE_BYTES = len(BODIES[0]) + 1


def sink_of(path: Path, clock: Clock | None = None, **values) -> Archive:
    settings = ArchiveSettings.model_validate({"type": "archive", "topics": ["#"], "path": str(path), **values})
    return plugin.build("archive", settings, clock or Clock())


def writer_of(path: Path, day: date = DAY, *, max_bytes: int = 10**9, recent: RecentEvents | None = None):
    return ArchiveWriter(path, max_bytes=max_bytes, today=lambda: day, recent=recent)


def content(path: Path, name: FileName) -> bytes:
    plain = path / str(name)
    return plain.read_bytes() if plain.exists() else gzip.decompress((path / name.compressed).read_bytes())


def lines(path: Path) -> list[bytes]:
    """Return all lines of an archive in their order; each file ends with the end of a line."""
    whole = b"".join(content(path, name) for name in names(path))
    assert not whole or whole.endswith(b"\n")
    return whole.splitlines()


def listing(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


async def test_file_has_the_very_bytes_that_were_published(tmp_path):
    sink = sink_of(tmp_path / "archive", Clock(now=lambda: datetime(2026, 11, 29, 23, 59, tzinfo=UTC)))
    await sink.open()
    foreign = WireEvent("x", "a.b.c", 0, b'{ "id" : "x",\r\n  "source": "/\xc3\xa9" }')
    for leaving in (outgoing(event(1)), Outgoing(foreign, 1, Outgoing), outgoing(event(2))):
        await sink.send(leaving)
    await sink.close()
    assert listing(tmp_path / "archive") == ["2026-11-29.0001.jsonl"]
    assert lines(tmp_path / "archive") == [BODIES[0], b'{ "id" : "x",    "source": "/\xc3\xa9" }', BODIES[1]]


def test_only_its_owner_can_read_an_archive(tmp_path):
    path = tmp_path / "archive"
    before = os.umask(0)
    try:
        writer = writer_of(path, max_bytes=LINE_BYTES)
        writer.append(BODIES[:2])
        compress_finished(path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert listing(path) == ["2026-11-29.0001.jsonl.gz", "2026-11-29.0002.jsonl"]


def test_files_begin_by_day_and_by_size(tmp_path):
    writer_of(tmp_path, DAY, max_bytes=3 * LINE_BYTES).append(BODIES[:7])
    later = writer_of(tmp_path, date(2026, 12, 1), max_bytes=3 * LINE_BYTES)
    assert later.append(BODIES[7:8])
    assert not later.append(BODIES[8:9])
    writer_of(tmp_path, DAY, max_bytes=3 * LINE_BYTES).append(BODIES[9:10])  # a clock that lags behind
    assert [(str(name), content(tmp_path, name).count(b"\n")) for name in names(tmp_path)] == [
        ("2026-11-29.0001.jsonl", 3),
        ("2026-11-29.0002.jsonl", 3),
        ("2026-11-29.0003.jsonl", 1),
        ("2026-12-01.0001.jsonl", 3),
    ]
    assert lines(tmp_path) == BODIES[:10]


def test_event_larger_than_a_file_gets_a_file(tmp_path):
    writer_of(tmp_path, max_bytes=10).append(BODIES[:2])
    assert lines(tmp_path) == BODIES[:2]
    assert len(names(tmp_path)) == 2


def test_what_is_no_archive_file_stays_untouched(tmp_path):
    for name in ("notes.txt", "2026-02-31.0001.jsonl", "2026-11-30.1.jsonl", "x2026-11-30.0001.jsonl"):
        (tmp_path / name).write_text("mine")
    writer_of(tmp_path).append(BODIES[:1])
    compress_finished(tmp_path)
    assert lines(tmp_path) == BODIES[:1]
    assert (tmp_path / "2026-02-31.0001.jsonl").read_text() == "mine"


# --- repetitions ------------------------------------------------------------------------------------------------------


def test_event_that_comes_again_is_written_once(tmp_path):
    first, second = writer_of(tmp_path), writer_of(tmp_path)  # two replicas
    first.append([*BODIES[:2], BODIES[0]])
    second.append(BODIES[1:4])
    first.append(BODIES[:5])
    first.close()
    writer_of(tmp_path, date(2026, 11, 30)).append(BODIES[3:6])  # restarted on the next day
    assert lines(tmp_path) == BODIES[:6]


def test_replicas_learn_what_others_wrote_across_files(tmp_path):
    small = 2 * LINE_BYTES
    first, second = writer_of(tmp_path, max_bytes=small), writer_of(tmp_path, max_bytes=small)
    first.append(BODIES[:1])
    second.append(BODIES[:4])
    compress_finished(tmp_path)
    first.append(BODIES[:4])
    second.append(BODIES[2:5])
    compress_finished(tmp_path)
    writer_of(tmp_path, max_bytes=small).append(BODIES[2:6])
    assert lines(tmp_path) == BODIES[:6]


def test_file_that_was_removed_or_compressed_is_followed(tmp_path):
    writer = writer_of(tmp_path)
    writer.append(BODIES[:1])
    newest = tmp_path / "2026-11-29.0001.jsonl"
    (tmp_path / f"{newest.name}.gz").write_bytes(gzip.compress(newest.read_bytes()))
    newest.unlink()
    writer.append(BODIES[:2])
    assert listing(tmp_path) == ["2026-11-29.0001.jsonl.gz", "2026-11-29.0002.jsonl"]
    for entry in tmp_path.glob("*.jsonl*"):
        entry.unlink()
    writer.append(BODIES[2:3])
    assert lines(tmp_path) == BODIES[2:3]


def test_only_the_end_of_a_large_archive_is_read(tmp_path, monkeypatch):
    writer_of(tmp_path, max_bytes=LINE_BYTES).append(BODIES[:4])
    compress_finished(tmp_path)
    monkeypatch.setattr("bridge_archive.writer._READ_BACK_BYTES", LINE_BYTES + 1)
    writer_of(tmp_path, max_bytes=LINE_BYTES).append(BODIES[:4])
    assert lines(tmp_path) == [*BODIES[:4], *BODIES[:2]]


def test_only_the_latest_events_are_remembered():
    recent = RecentEvents(limit=2)
    recent.add(map(identity, BODIES[:3]))
    assert [identity(body) in recent for body in BODIES[:3]] == [False, True, True]
    assert len(recent) == 2


def test_events_are_told_apart_by_source_and_id():
    bodies = [b'{"id":"1","source":"/a"}', b'{"id":"1","source":"/b"}', b"[]", b"no JSON", b"[" * 100_000]
    assert len(set(map(identity, bodies))) == len(bodies)
    assert identity(b'{"source":"/a","id":"1","x":2}') == identity(bodies[0])


def test_damaged_file_of_former_times_stops_nothing(tmp_path):
    (tmp_path / "2026-11-28.0001.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "2026-11-28.0002.jsonl.gz").write_bytes(gzip.compress(BODIES[0] * 9)[:-20])
    writer_of(tmp_path).append(BODIES[:1])
    assert content(tmp_path, FileName(DAY, 1)).splitlines() == BODIES[:1]


# --- a kill at every step ---------------------------------------------------------------------------------------------

CALLS = ("open", "write", "fsync", "ftruncate", "rename", "unlink")


def killed_at(monkeypatch, step: int) -> None:
    """Have this process killed at a step: before a system call; a write is cut in half."""
    left = [step]

    def dying(name: str):
        call = getattr(os, name)

        def run(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return run

    for name in CALLS:
        monkeypatch.setattr(os, name, dying(name))


def died(path: Path, day: date, monkeypatch, step: int) -> tuple[bool, int]:
    """Do the work in a process that is killed at a step; return whether it was, and how many events counted."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            real = os.write
            killed_at(monkeypatch, step)
            report = os.dup(writing)
            writer = writer_of(path, day, max_bytes=4 * LINE_BYTES)
            for upto in range(3, 13, 3):
                writer.append(BODIES[upto - 3 : upto])
                real(report, bytes([upto]))
                compress_finished(path)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    counted = os.read(reading, 100)
    os.close(reading)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status), max(counted, default=0)


def test_kill_at_any_step_loses_and_doubles_nothing(tmp_path, monkeypatch):
    killed, step = True, 0
    while killed:
        step += 1
        path = tmp_path / str(step)
        killed, counted = died(path, DAY, monkeypatch, step)
        before = lines_so_far(path)
        assert before[:counted] == BODIES[:counted]
        after = writer_of(path, max_bytes=4 * LINE_BYTES)
        after.append(BODIES)  # everything that the store does not know as delivered comes again
        compress_finished(path)
        assert lines(path) == BODIES, f"killed at step {step}"
        assert [name.endswith(".gz") for name in listing(path)] == [True, True, False]
    assert step > 30


def lines_so_far(path: Path) -> list[bytes]:
    """Return the whole lines that are there after a kill."""
    if not path.exists():
        return []
    return [line for name in names(path) for line in content(path, name).split(b"\n")[:-1]]


def test_kill_during_the_repair_is_repaired_as_well(tmp_path, monkeypatch):
    for step in range(1, 12):
        path = tmp_path / str(step)
        writer_of(path).append(BODIES[:2])
        with (path / "2026-11-29.0001.jsonl").open("ab") as file:
            file.write(BODIES[2][:100])
        died(path, DAY, monkeypatch, step)
        writer_of(path).append(BODIES)
        assert lines(path) == BODIES


def test_line_that_broke_off_is_removed_and_reported(tmp_path):
    writer_of(tmp_path).append(BODIES[:1])
    with (tmp_path / "2026-11-29.0001.jsonl").open("ab") as file:
        file.write(BODIES[1][:-1])
    with structlog.testing.capture_logs() as logs:
        writer_of(tmp_path).append(BODIES[1:2])
    assert lines(tmp_path) == BODIES[:2]
    assert [(line["event"], line["bytes"]) for line in logs] == [("archive.broken_line_removed", len(BODIES[1]) - 1)]


def test_file_that_is_nothing_but_a_broken_line_is_emptied(tmp_path):
    (tmp_path / "2026-11-29.0001.jsonl").write_bytes(b"x" * (3 << 20))
    writer_of(tmp_path).append(BODIES[:1])
    assert lines(tmp_path) == BODIES[:1]


def test_both_forms_of_a_file_become_the_whole_one(tmp_path):
    writer_of(tmp_path, max_bytes=LINE_BYTES).append(BODIES[:3])
    plain = tmp_path / "2026-11-29.0001.jsonl"
    for stale in (gzip.compress(b"other\n"), gzip.compress(BODIES[0] + b"\nmore"), b"broken", gzip.compress(b"x")[:-3]):
        body = plain.read_bytes() if plain.exists() else content(tmp_path, FileName(DAY, 1))
        plain.write_bytes(body)
        (tmp_path / f"{plain.name}.gz").write_bytes(stale)
        compress_finished(tmp_path)
        assert not plain.exists()
        assert lines(tmp_path) == BODIES[:3]


# --- disks that fail --------------------------------------------------------------------------------------------------


def failing(monkeypatch, name: str, number: int, *, short: bool = False) -> None:
    """Have a system call fail; a short write takes a part first, as on a full disk."""
    call, calls = getattr(os, name), []

    def run(*arguments, **named):
        calls.append(name)
        if short and len(calls) == 1:
            return call(arguments[0], bytes(arguments[1])[:50])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, run)


@pytest.mark.parametrize(
    ("call", "number", "short"),
    [("write", errno.ENOSPC, True), ("fsync", errno.EIO, False), ("open", errno.EACCES, False)],
)
async def test_disk_that_fails_is_asked_again(tmp_path, monkeypatch, call, number, short):
    sink = sink_of(tmp_path / "archive", gzip=False)
    await sink.open()
    await sink.send(outgoing(event(1)))
    with monkeypatch.context() as patch:
        failing(patch, call, number, short=short)
        with pytest.raises(Transient, match=os.strerror(number)):
            await sink.send(outgoing(event(2)))
    assert lines(tmp_path / "archive") == BODIES[:1]
    await sink.send(outgoing(event(2)))
    await sink.close()
    assert lines(tmp_path / "archive") == BODIES[:2]


def test_line_that_cannot_be_cut_away_never_counts(tmp_path, monkeypatch):
    writer = writer_of(tmp_path)
    writer.append(BODIES[:1])
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.EIO)
        failing(patch, "ftruncate", errno.EROFS)
        with pytest.raises(OSError, match="Read-only"):
            writer.append(BODIES[1:2])
    writer.append(BODIES[1:2])
    assert content(tmp_path, FileName(DAY, 2)).splitlines() == BODIES[1:2]


def test_new_file_whose_name_is_not_safe_is_not_used(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            writer_of(tmp_path).append(BODIES[:1])
    writer_of(tmp_path).append(BODIES[:1])
    assert lines(tmp_path) == BODIES[:1]


async def test_full_disk_leaves_a_file_uncompressed(tmp_path, monkeypatch):
    writer_of(tmp_path, max_bytes=LINE_BYTES).append(BODIES[:2])
    sink = sink_of(tmp_path, Clock(now=lambda: datetime(2026, 11, 29, tzinfo=UTC)))
    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patch:
        failing(patch, "rename", errno.ENOSPC)
        sink._compress()
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("archive.cannot_compress", os.strerror(errno.ENOSPC))
    ]
    assert listing(tmp_path) == ["2026-11-29.0001.jsonl", "2026-11-29.0002.jsonl"]
    assert not list(tmp_path.glob(".*.part"))
    sink._compress()
    assert listing(tmp_path) == ["2026-11-29.0001.jsonl.gz", "2026-11-29.0002.jsonl"]


async def test_events_that_wait_share_one_wait_for_the_disk(tmp_path, monkeypatch):
    sink = sink_of(tmp_path, gzip=False)
    await sink.open()
    await sink.send(outgoing(event(1)))
    syncs, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: syncs.append(sync(descriptor)))
    await asyncio.gather(*(sink.send(outgoing(event(number))) for number in range(2, 13)))
    await sink.close()
    assert len(syncs) <= 2
    assert lines(tmp_path) == BODIES


async def test_finished_file_is_compressed_by_the_sink(tmp_path):
    sink = sink_of(tmp_path, max_size="1kB")
    await sink.open()
    for number in range(1, 6):
        await sink.send(outgoing(event(number)))
    async with asyncio.timeout(120):
        while len(list(tmp_path.glob("*.gz"))) < 4:
            await asyncio.sleep(0.01)
    await sink.close()
    assert lines(tmp_path) == BODIES[:5]


async def test_sink_that_closes_fails_what_waits(tmp_path):
    sink = sink_of(tmp_path)
    await sink.open()
    sending = asyncio.ensure_future(sink.send(outgoing(event(1))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the write is under way
    await sink.close()
    with pytest.raises(Transient, match="closing"):
        await sending


async def test_probe_names_a_path_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Permanent, match="name a folder"):
        await sink_of(tmp_path / "file").probe()
    assert str(tmp_path) in await sink_of(tmp_path / "not there").probe()
    assert not (tmp_path / "not there").exists()
    with pytest.raises(Transient, match="permissions"):
        await sink_of(tmp_path / "not" / "there").probe()


def test_line_end_inside_an_event_becomes_a_blank():
    assert as_line(b'{"a":\n1}') == b'{"a": 1}\n'
    assert as_line(BODIES[0]) == BODIES[0] + b"\n"
