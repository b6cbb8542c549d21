"""A file, a pipe or standard output that takes whole lines; a line counts once it is safe under its name."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 1 << 20
"""Bytes at the end of a file in which the beginning of a line that broke off is looked for."""
_EVENT_START = b'{"specversion"'


class LineFile:
    """Appends lines; what fails raises `OSError` or `ValueError`, and leaves no part of the line in a regular file.

    A file that was renamed, deleted or replaced is opened anew under its name before the next line. A line is forced to
    the disk; if its file was deleted or cut at the same time, it is written again. A file may end inside a line because
    a process was killed: an event that broke off is cut away, for it never counted; other text gets its end of line.
    """

    def __init__(self, path: Path | None) -> None:
        """Prepare; without a path, it is standard output."""
        self._path = path
        self._file: BinaryIO | None = None
        self._half = False
        """Whether what was written last ended inside a line."""
        self._may_create = True

    def append(self, line: bytes) -> None:
        """Write a line, with its end of line; blocks for as long as the reader of a pipe does not read."""
        try:
            while not self._append(line):
                self.close()
        except (OSError, ValueError):
            self.close()
            raise

    def close(self) -> None:
        """Close the file; standard output itself stays open."""
        file, self._file = self._file, None
        if file is not None and file is not getattr(sys.stdout, "buffer", None):
            with suppress(OSError):
                file.close()

    def _append(self, line: bytes) -> bool:
        """Return whether the line is where it belongs."""
        file = self._current()
        if not _is_regular(file):
            self._write(file, line)
            return True
        with suppress(OSError):  # not every file system has locks; another process of ours appends here as well
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            return self._append_safely(file, line)
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)

    def _append_safely(self, file: BinaryIO, line: bytes) -> bool:
        end = file.seek(0, os.SEEK_END)  # a shell's `>` does not append: after a cut it would leave a hole
        try:
            self._write(file, line)
            os.fsync(file.fileno())
        except OSError:
            self._half = not _cut(file, end)
            raise
        status = os.fstat(file.fileno())
        return self._path is None or (status.st_nlink > 0 and status.st_size > end)

    def _write(self, file: BinaryIO, line: bytes) -> None:
        rest = memoryview(b"\n" + line if self._half else line)
        while rest:
            written = file.write(rest) or 0
            if not written:
                raise BlockingIOError(errno.EAGAIN, "it is full")
            self._half = written < len(rest)
            rest = rest[written:]
        file.flush()

    def _current(self) -> BinaryIO:
        if self._file is not None and self._path is not None and not _is_named(self._file, self._path):
            self.close()
        if self._file is None:
            self._file = _standard_output() if self._path is None else self._opened(self._path)
            self._end_last_line(self._file)
        return self._file

    def _opened(self, path: Path) -> BinaryIO:
        """Open without a buffer: what was written is with the system, and nothing is left over after a failure."""
        # Where a pipe was, its owner makes the next one: a file in its place would swallow what the reader waits for.
        create = os.O_CREAT if self._may_create else 0
        is_new = create and not path.exists()
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | create, 0o666), "wb", buffering=0)
        self._may_create = _is_regular(file)
        if is_new:
            _sync_folder(path.parent)
        return file

    def _end_last_line(self, file: BinaryIO) -> None:
        if not _is_regular(file):
            return
        size, tail = os.fstat(file.fileno()).st_size, _last_line(self._path or Path("/dev/stdout"))
        is_event = tail.startswith(_EVENT_START) or _EVENT_START.startswith(tail)
        self._half = bool(tail) and not (is_event and _cut(file, size - len(tail)))


def _standard_output() -> BinaryIO:
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    except (OSError, AttributeError):  # redirected inside the process, as test runners do: io says "unsupported"
        return sys.stdout.buffer


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # no file of the system at all
        return False


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Return whether the path still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _cut(file: BinaryIO, size: int) -> bool:
    """Cut a file to what it was; return whether that was possible."""
    try:
        file.truncate(size)
    except OSError:
        return False
    return True


def _last_line(path: Path) -> bytes:
    """Return what follows the last end of line; nothing where the file cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).rpartition(b"\n")[2]
    return b""


def _sync_folder(folder: Path) -> None:
    """Make a new file's name safe as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
