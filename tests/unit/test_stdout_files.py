"""The stdout sink's file: rotated, deleted, cut, on a full disk, ended inside a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.sinks.stdout import Stdout, StdoutSettings, plugin
from bridge.testing.sink_suite import outgoing, sample


def sink_of(path: Path, **values) -> Stdout:
    settings = StdoutSettings.model_validate({"type": "stdout", "topics": ["#"], "path": str(path), **values})
    return plugin.build("out", settings, Clock())


def ids(*paths: Path) -> list[str]:
    """Return the ids of all lines; a line that is no whole event raises."""
    return [json.loads(line)["id"] for path in paths for line in path.read_bytes().splitlines()]


def renamed(path: Path) -> None:
    path.rename(path.with_name("events.1"))


def renamed_and_made(path: Path) -> None:
    path.rename(path.with_name("events.1"))
    path.touch()


def deleted(path: Path) -> None:
    shutil.copy(path, path.with_name("events.1"))
    path.unlink()


def copied_and_cut(path: Path) -> None:
    shutil.copy(path, path.with_name("events.1"))
    os.truncate(path, 0)


def folder_replaced(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()
    (path.parent / "events.1").write_bytes((path.parent.with_name("old") / path.name).read_bytes())


@pytest.mark.parametrize("rotate", [renamed, renamed_and_made, deleted, copied_and_cut, folder_replaced])
async def test_rotated_file_is_followed_by_its_name(tmp_path, rotate):
    path = tmp_path / "logs" / "events"
    path.parent.mkdir()
    sink = sink_of(path)
    await sink.send(outgoing(sample(1)))
    rotate(path)
    await sink.send(outgoing(sample(2)))
    await sink.close()
    assert (ids(path.with_name("events.1")), ids(path)) == ([sample(1).id], [sample(2).id])


@pytest.mark.parametrize("rotate", [renamed_and_made, deleted, copied_and_cut])
async def test_line_never_counts_in_a_nameless_file(tmp_path, monkeypatch, rotate):
    path = tmp_path / "events"
    sink = sink_of(path)
    await sink.send(outgoing(sample(1)))
    sync, rotations = os.fsync, [rotate]

    def rotate_and_sync(descriptor: int) -> None:  # a rotation between the write and its end
        if rotations:
            rotations.pop()(path)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", rotate_and_sync)
    await sink.send(outgoing(sample(2)))
    await sink.close()
    named = ids(path) + (ids(path.with_name("events.1")) if rotate is renamed_and_made else [])
    assert sample(2).id in named
    assert named.count(sample(2).id) == 1


async def test_no_event_is_lost_while_files_rotate_and_events_come(tmp_path):
    path, over = tmp_path / "events", threading.Event()

    def rotate() -> None:
        number = 0
        while not over.wait(0.003):
            if path.exists():
                number += 1
                path.rename(tmp_path / f"events.{number}")

    rotating = threading.Thread(target=rotate)
    rotating.start()
    sink = sink_of(path)
    for number in range(1, 101):
        await sink.send(outgoing(sample(number)))
    over.set()
    rotating.join()
    await sink.close()
    files = list(tmp_path.iterdir())
    assert len(files) > 2
    assert sorted(ids(*files)) == sorted(sample(number).id for number in range(1, 101))


async def test_line_counts_only_once_the_disk_has_it(tmp_path, monkeypatch):
    path = tmp_path / "events"
    sink = sink_of(path)
    await sink.send(outgoing(sample(1)))

    def broken(_: int) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(Transient, match="Input/output error"):
            await sink.send(outgoing(sample(2)))
    assert ids(path) == [sample(1).id]
    await sink.send(outgoing(sample(2)))
    await sink.close()
    assert ids(path) == [sample(1).id, sample(2).id]


FULL = """
import asyncio, resource, sys
from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.sinks.stdout import plugin
from bridge.testing.sink_suite import outgoing, sample

async def main():
    path = {"path": sys.argv[1]} if len(sys.argv) > 1 else {}
    sink = plugin.build("out", plugin.settings(type="stdout", topics=["#"], **path), Clock())
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, unlimited[1]))
    refused = 0
    for number in range(1, 11):
        try:
            await sink.send(outgoing(sample(number)))
        except Transient:
            refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            await sink.send(outgoing(sample(number)))
    await sink.close()
    print(refused, file=sys.stderr)

asyncio.run(main())
"""


@pytest.mark.parametrize("given", ["path", "standard output"])
def test_full_disk_leaves_no_half_line_and_loses_nothing(tmp_path, given):
    path = tmp_path / "events"
    command = [sys.executable, "-c", FULL, *([str(path)] if given == "path" else [])]
    with path.open("ab") as out:
        stdout = subprocess.PIPE if given == "path" else out
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "1"
    assert ids(path) == [sample(number).id for number in range(1, 11)]


@pytest.mark.parametrize("left", [b'{"spec', b'{"specversion":"1.0","id":"f0'])
async def test_event_that_a_kill_broke_off_is_cut(tmp_path, left):
    path = tmp_path / "events"
    path.write_bytes(sample(1).to_wire().body + b"\n" + left)
    sink = sink_of(path)
    await sink.send(outgoing(sample(2)))
    await sink.close()
    assert ids(path) == [sample(1).id, sample(2).id]


async def test_last_line_of_another_program_is_kept(tmp_path):
    path = tmp_path / "events"
    path.write_bytes(b"begun by hand")
    sink = sink_of(path)
    await sink.send(outgoing(sample(1)))
    await sink.close()
    assert path.read_bytes() == b"begun by hand\n" + sample(1).to_wire().body + b"\n"


async def test_missing_folder_is_transient_and_may_return(tmp_path):
    path = tmp_path / "mount" / "events"
    path.parent.mkdir()
    sink = sink_of(path)
    await sink.send(outgoing(sample(1)))
    shutil.rmtree(path.parent)
    with pytest.raises(Transient, match="No such file"):
        await sink.send(outgoing(sample(2)))
    path.parent.mkdir()
    await sink.send(outgoing(sample(2)))
    await sink.close()
    assert ids(path) == [sample(2).id]


async def test_pipe_that_is_made_anew_is_followed(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = sink_of(path)
    former = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.send(outgoing(sample(1)))
    path.unlink()
    with pytest.raises(Transient, match="No such file"):  # and no file takes its place
        await sink.send(outgoing(sample(2)))
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.send(outgoing(sample(2)))
    assert json.loads(os.read(reader, 65536))["id"] == sample(2).id
    await sink.close()
    for descriptor in (former, reader):
        os.close(descriptor)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
async def test_paths_of_standard_output_are_standard_output(capfdbinary, path):
    sink = sink_of(Path(path))
    assert plugin.is_printing(StdoutSettings(type="stdout", topics=["#"], path=Path(path)))
    await sink.send(outgoing(sample(1)))
    await sink.close()
    assert capfdbinary.readouterr().out == sample(1).to_wire().body + b"\n"


async def test_folder_as_path_is_named_by_the_probe(tmp_path):
    with pytest.raises(Permanent, match="is a directory"):
        await sink_of(tmp_path).probe()
