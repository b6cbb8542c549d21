"""The files of an archive: their names and order, how they are opened, and how their names become safe."""

from __future__ import annotations

import fcntl
import gzip
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import IO, NamedTuple

FILE_MODE = 0o600
"""Permissions of files: their owner's alone."""
FOLDER_MODE = 0o700
"""Permissions of a folder that is made here."""
_COMPRESSION_FACTOR = 12
"""About how much smaller events get."""
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{4,9})\.jsonl(?:\.gz)?", re.ASCII)
_PRIVATE = os.O_CLOEXEC | os.O_NOFOLLOW


class FileName(NamedTuple):
    """The name of a file without its ending: the day on which it was begun, and its number on that day."""

    day: date
    number: int

    def __str__(self) -> str:
        return f"{self.day.isoformat()}.{self.number:04d}.jsonl"

    @property
    def compressed(self) -> str:
        """The name after compression."""
        return f"{self}.gz"

    @classmethod
    def parse(cls, text: str) -> FileName | None:
        """Read a name, with either ending; None for any other file."""
        match = _NAME.fullmatch(text)
        try:
            return cls(date.fromisoformat(match[1]), int(match[2])) if match else None
        except ValueError:  # the 31st of February
            return None

    def next(self, day: date) -> FileName:
        """Return the name of the file after this one; a clock that lags behind never leads back to an earlier day."""
        return FileName(self.day, self.number + 1) if day <= self.day else FileName(day, 1)


def names(folder: Path) -> list[FileName]:
    """Return the names of all files, oldest first, compressed or not."""
    return sorted({name for entry in os.listdir(folder) if (name := FileName.parse(entry)) is not None})  # noqa: PTH208 - names are all that is read


def make_folder(folder: Path) -> None:
    """Make the folder if it is not there, in one that is; nobody else may read it."""
    if not folder.is_dir():
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)


def create(path: Path) -> int:
    """Open a file to append to, and make it if it is not there; its name is on the disk then."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _PRIVATE, FILE_MODE)
    try:
        sync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_to_append(path: Path) -> int:
    """Open a file that is there; raises `FileNotFoundError` if it has been compressed."""
    return os.open(path, os.O_RDWR | os.O_APPEND | _PRIVATE)


def open_to_read(folder: Path, name: FileName) -> IO[bytes]:
    """Open a file that is no longer written to, compressed or not."""
    try:
        return (folder / str(name)).open("rb")
    except FileNotFoundError:
        return gzip.open(folder / name.compressed, "rb")  # type: ignore[return-value]  # it reads as any file does


def plain_size(folder: Path, name: FileName) -> int:
    """Return about how many bytes a file has uncompressed; 0 if it has gone."""
    for file_name, factor in ((str(name), 1), (name.compressed, _COMPRESSION_FACTOR)):
        with suppress(FileNotFoundError):
            return (folder / file_name).stat().st_size * factor
    return 0


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that ends with the process; without `wait`, yield whether it was free."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _PRIVATE, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)  # which ends the lock
