"""Appends events to the newest file of an archive; what `append` returned for is on the disk, each event once."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

import structlog

from bridge_archive.files import FileName, create, locked, make_folder, names, open_to_append, open_to_read, plain_size
from bridge_archive.recent_events import RecentEvents, identity

log = structlog.get_logger()

_LOCK = ".lock"
_READ_BACK_BYTES = 64 << 20
"""How much of an archive is read for the events in it, from its end, when a file is opened."""
_BLOCK_BYTES = 1 << 20
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def as_line(body: bytes) -> bytes:
    """Return an event as a line: exactly its bytes, and blanks for line ends between its tokens, where it has some."""
    return (body.translate(_LINE_ENDS) if b"\n" in body or b"\r" in body else body) + b"\n"


class ArchiveWriter:
    """Writes for one sink of one process. Any number of them share a folder, in any number of processes.

    All of them append to the newest file, one at a time: a lock on the folder, which ends with its process, says whose
    turn it is. Whose turn it is first reads what the others have written. So an event is written once, even if it comes
    again to another process because the first one died before it could say that it had written it. A line that broke
    off because its process died is removed: it never counted.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, today: Callable[[], date], recent: RecentEvents | None = None
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._today = today
        self._recent = RecentEvents() if recent is None else recent
        self._name: FileName | None = None
        self._descriptor = -1
        self._end = 0
        """Bytes of the open file that are known here, and are on the disk."""
        self._distrusted: FileName | None = None

    def append(self, bodies: Iterable[bytes]) -> bool:
        """Write those events that are not there yet; return whether a file was begun. Raises `OSError`."""
        make_folder(self._folder)
        with locked(self._folder / _LOCK):
            try:
                begun = self._catch_up()
            except OSError:
                self.close()  # it is opened anew
                raise
            return self._append(bodies) or begun

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor, self._name, self._end = self._descriptor, -1, None, 0
        if descriptor >= 0:
            os.close(descriptor)

    def _append(self, bodies: Iterable[bytes]) -> bool:
        begun = False
        lines: dict[bytes, bytes] = {}
        size = self._end
        for body in bodies:
            key, line = identity(body), as_line(body)
            if key in self._recent or key in lines:
                continue
            if size and size + len(line) > self._max_bytes:
                self._write(lines)
                self._begin_file(self._today())
                lines, size, begun = {}, 0, True
            lines[key] = line
            size += len(line)
        self._write(lines)
        return begun

    def _write(self, lines: dict[bytes, bytes]) -> None:
        """Append the lines and wait for the disk; on failure, nothing of them stays."""
        if not lines:
            return
        rest = memoryview(b"".join(lines.values()))
        size = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            self._distrusted = self._name  # until what was written is cut away: the disk may not have it
            os.ftruncate(self._descriptor, self._end)
            self._distrusted = None
            raise
        self._end += size
        self._recent.add(lines)

    # files

    def _begin_file(self, day: date) -> None:
        last = self._name or next(reversed(names(self._folder)), None)
        name = FileName(day, 1) if last is None else last.next(day)
        descriptor = create(self._folder / str(name))
        self.close()
        self._descriptor, self._name = descriptor, name

    def _catch_up(self) -> bool:
        """Be at the end of the newest file, or of a new one if that is of an earlier day; return whether it is new."""
        existing = names(self._folder)
        if existing and existing[-1] == self._distrusted:
            self._begin_file(self._today())
            return True
        if self._name is not None and (not existing or existing[-1] != self._name or not self._is_in_place()):
            self._read_on()  # what others wrote before they began the next file
            self.close()
        if self._name is None and existing:
            # A file that is compressed while its folder is listed may be missing from the list.
            self._open(sorted({*existing, *names(self._folder)}))
        elif self._name is not None:
            self._read_on()
        if self._name is None or self._name.day < self._today():
            self._begin_file(self._today())
            return True
        return False

    def _is_in_place(self) -> bool:
        try:
            named = os.stat(self._folder / str(self._name))  # noqa: PTH116 - next to `fstat`
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._descriptor))

    def _open(self, existing: Sequence[FileName]) -> None:
        """Open the newest file, unless it is compressed; learn which events are in it, and in the files before."""
        try:
            descriptor = open_to_append(self._folder / str(existing[-1]))
        except FileNotFoundError:
            self._learn(existing)
            return
        self._learn(existing[:-1])
        self._descriptor, self._name = descriptor, existing[-1]
        self._end = max(0, os.fstat(descriptor).st_size - _READ_BACK_BYTES)
        self._read_on()

    def _learn(self, finished: Sequence[FileName]) -> None:
        for name in self._latest(finished):
            # A damaged file of former times keeps nothing from being written.
            with suppress(OSError, EOFError, zlib.error), open_to_read(self._folder, name) as file:
                self._recent.add(map(identity, (line.rstrip(b"\n") for line in file)))

    def _latest(self, finished: Sequence[FileName]) -> Sequence[FileName]:
        """Return as many of the newest files as have together what is read back, and one at least."""
        size = 0
        for index in range(len(finished) - 1, -1, -1):
            size += plain_size(self._folder, finished[index])
            if size >= _READ_BACK_BYTES:
                return finished[index:]
        return finished

    def _read_on(self) -> None:
        """Learn which events others have written; remove a line that broke off."""
        size = os.fstat(self._descriptor).st_size
        if size == self._end:
            return
        whole = _end_of_last_line(self._descriptor, size)
        if whole < size:
            os.ftruncate(self._descriptor, whole)
            log.warning(
                "archive.broken_line_removed", file=str(self._folder / str(self._name)), bytes=size - whole,
                consequence="its process died while it wrote; the event was not delivered, and comes again",
            )  # fmt: skip
        os.fsync(self._descriptor)  # a process that died may have written without waiting for the disk
        self._recent.add(map(identity, _lines(self._descriptor, min(self._end, whole), whole)))
        self._end = whole


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Return where the last whole line of a file ends."""
    end = size
    while end:
        start = max(0, end - _BLOCK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _lines(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the lines between two places; of a line that begins before the first place, its end."""
    rest = b""
    while start < end:
        block = os.pread(descriptor, min(_BLOCK_BYTES, end - start), start)
        if not block:
            return
        start += len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
