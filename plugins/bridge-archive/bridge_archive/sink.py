"""One archive: its settings, and the sink, which writes what came together with one wait for the disk."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import structlog
from pydantic import Field

from bridge.plugin import Clock, DaemonThreadExecutor, Outgoing, Permanent, SinkSettings, Size, Transient
from bridge_archive.compression import compress_finished
from bridge_archive.writer import ArchiveWriter

log = structlog.get_logger()


class ArchiveSettings(SinkSettings):
    """What an archive can be told."""

    path: Path
    """The folder of the files; it is made if it is not there, in one that is. Replicas and sinks may share it."""
    max_size: Size = Field(default=100 * 10**6, gt=0, le=10**12)
    """How large a file grows before the next one of the same day is begun."""
    gzip: bool = True
    """Whether a file is compressed once the next one has been begun."""
    concurrency: int = Field(default=256, ge=1, le=10000)
    """How many events may wait for the disk at once; they are written together."""


class Archive:
    """Appends events to files; an event counts once the disk has it, and its file's name.

    What fails is `Transient`: a full disk gets space, a folder its permissions. What came together is written together.
    If that fails half-way, all of it comes again, and what is there already is not written a second time.
    """

    def __init__(self, name: str, settings: ArchiveSettings, clock: Clock) -> None:
        self._name = name
        self._path = settings.path
        self._gzip = settings.gzip
        self._new_writer = partial(
            ArchiveWriter, settings.path, max_bytes=settings.max_size, today=lambda: clock.now().date()
        )
        self._writer: ArchiveWriter | None = None
        self._waiting: dict[asyncio.Future[None], bytes] = {}
        self._writing: asyncio.Task[None] | None = None
        self._thread: DaemonThreadExecutor | None = None
        self._compressing: DaemonThreadExecutor | None = None

    async def open(self) -> None:
        """Start threads: a disk that does not answer blocks them, and nothing else. Files are opened when needed."""
        self._writer = self._new_writer()
        self._thread, self._compressing = DaemonThreadExecutor(1), DaemonThreadExecutor(1)
        self._compress_later()  # what a process that died has left

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the event is on the disk."""
        written = asyncio.get_running_loop().create_future()
        self._waiting[written] = outgoing.wire.body
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_waiting())
        try:
            await written
        finally:
            self._waiting.pop(written, None)

    async def probe(self) -> str:
        """Say where events go; write nothing."""
        if self._path.exists() and not self._path.is_dir():
            raise Permanent(f"{self._path} is a file; name a folder")
        folder = self._path if self._path.exists() else self._path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Transient(f"{folder} cannot be written to; check the path and its permissions")
        return f"keeps a CloudEvent a line in files by day in {self._path}"

    async def close(self) -> None:
        """Close the file, after a write that is under way; a write that is stuck is left behind."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._thread is not None and self._compressing is not None and self._writer is not None:
            self._thread.submit(self._writer.close)
            self._thread.shutdown()
            self._compressing.shutdown()
        self._writer = self._thread = self._compressing = None

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            bodies = list(batch.values())
            error: Exception | None = Transient("the sink is closing")
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, self._writer, bodies)
                error = None
            except Exception as failure:  # noqa: BLE001 - the senders that wait must get any error
                error = failure
            finally:
                _end(batch, error)

    def _write(self, writer: ArchiveWriter | None, bodies: Sequence[bytes]) -> None:
        if writer is None:
            raise Transient("the sink is closed")
        try:
            begun = writer.append(bodies)
        except OSError as error:
            raise Transient(f"{self._path} cannot be written to: {error.strerror}") from None
        if begun:
            self._compress_later()

    def _compress_later(self) -> None:
        if self._gzip and self._compressing is not None:
            self._compressing.submit(self._compress)

    def _compress(self) -> None:
        try:
            if self._path.is_dir():
                compress_finished(self._path)
        except OSError as error:
            log.warning(
                "archive.cannot_compress", sink=self._name, reason=error.strerror,
                consequence="the file stays as it is; tried again when the next one is begun",
            )  # fmt: skip


def _end(sends: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for written in sends:
        if written.done():  # it was cancelled
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(copy.copy(error))  # a copy for each: a raised error collects its tracebacks
