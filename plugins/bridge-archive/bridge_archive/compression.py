"""Compresses files that are no longer written to; a process that dies at any step leaves a whole file behind."""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

from bridge_archive.files import FILE_MODE, FileName, locked, names, sync_folder

_LOCK = ".compression.lock"
_BLOCK_BYTES = 1 << 20


def compress_finished(folder: Path) -> None:
    """Compress every file but the newest, unless another process is doing that now; raises `OSError`.

    The compressed file gets its name when the disk has all of it, and only then does the other one go.
    """
    with locked(folder / _LOCK, wait=False) as free:
        if free:
            for name in names(folder)[:-1]:
                if (folder / str(name)).exists():
                    _compress(folder, name)


def _compress(folder: Path, name: FileName) -> None:
    plain, compressed = folder / str(name), folder / name.compressed
    if not _is_copy(plain, compressed):
        part = folder / f".{name.compressed}.part"
        try:
            _write_compressed(plain, part)
            os.rename(part, compressed)  # noqa: PTH104 - one system call, which tests interrupt
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        sync_folder(folder)
    # A crash before this line: both are there, which the next call sees.
    os.unlink(plain)  # noqa: PTH108 - as above
    sync_folder(folder)


def _is_copy(plain: Path, compressed: Path) -> bool:
    """Return whether a compressed file holds what the other one holds."""
    try:
        with plain.open("rb") as ours, gzip.open(compressed, "rb") as theirs:
            while block := ours.read(_BLOCK_BYTES):
                if theirs.read(len(block)) != block:
                    return False
            return not theirs.read(1)
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
        return False


def _write_compressed(plain: Path, part: Path) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    with plain.open("rb") as source, os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile(
            filename=str(plain.name), mode="wb", fileobj=raw, mtime=int(plain.stat().st_mtime)
        ) as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
        raw.flush()
        os.fsync(raw.fileno())
