"""A sink that writes each event on a line of its own: to standard output, or to a file or pipe."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

from bridge.concurrency.daemon_executor import DaemonThreadExecutor
from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.event import Event
from bridge.domain.times import rfc3339
from bridge.protocols.sink import Outgoing, SinkPlugin, SinkSettings


class StdoutSettings(SinkSettings):
    """What the stdout sink can be told."""

    format: Literal["json", "text"] = "json"
    """One CloudEvent a line, or one line for a reader."""
    path: Path | None = None
    """A file to append to, or a named pipe, instead of standard output."""


class Stdout:
    """Writes a line for each event and hands it to the system at once; whole lines, in the order of `send`.

    A reader that has gone, a full disk, a path that cannot be opened: all are `Transient`, for each can come back. The
    file is opened when there is something to write, so that a log rotated away is found again after a failure.
    """

    def __init__(self, name: str, settings: StdoutSettings, clock: Clock) -> None:
        del name, clock
        self._path = settings.path
        self._text = settings.format == "text"
        self._file: BinaryIO | None = None
        self._half = False
        """Whether the last write ended inside a line."""
        self._thread = DaemonThreadExecutor(1)

    @property
    def _where(self) -> str:
        return "standard output" if self._path is None else str(self._path)

    async def open(self) -> None:
        """Do nothing: the file is opened with the first event."""

    async def send(self, outgoing: Outgoing) -> None:
        """Write one event."""
        line = (_line(outgoing.event).encode() if self._text else outgoing.wire.body) + b"\n"
        # A thread of its own: a reader that does not read blocks it, and neither the process nor anybody else's thread.
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, line)

    async def probe(self) -> str:
        """Say where lines go."""
        if self._path is not None and not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise Transient(f"{self._where} cannot be written to; check the path and its permissions")
        return f"writes {'lines of text' if self._text else 'a CloudEvent a line'} to {self._where}"

    async def close(self) -> None:
        """Close the file; standard output itself stays open. A write that is stuck is left behind."""
        self._thread.shutdown()
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None and file is not getattr(sys.stdout, "buffer", None):
            with suppress(OSError):
                file.close()

    def _write(self, line: bytes) -> None:
        rest = memoryview(b"\n" + line if self._half else line)
        try:
            file = self._file = self._file or _opened(self._path)
            while rest:
                written = file.write(rest) or 0
                if not written:
                    raise BlockingIOError(errno.EAGAIN, "it is full")
                self._half = written < len(rest)
                rest = rest[written:]
            file.flush()
        except (OSError, ValueError) as error:
            self._let_go()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is closed"
            raise Transient(f"{self._where} cannot be written to: {reason}") from None


def _opened(path: Path | None) -> BinaryIO:
    """Open without a buffer: what was written is with the system, and nothing is left over after a failure."""
    if path is not None:
        return path.open("ab", buffering=0)
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    except (OSError, AttributeError):  # redirected inside the process, as test runners do: io says "unsupported"
        return sys.stdout.buffer


def _line(event: Event) -> str:
    words = [rfc3339(event.time), event.topic, event.subject]
    words += [str(value) for name in ("phone", "error", "reason") if (value := getattr(event.data, name, None))]
    return "".join(char if char.isprintable() else " " for char in "  ".join(words))


plugin = SinkPlugin(
    settings=StdoutSettings,
    build=Stdout,
    summary="writes one event a line to standard output",
    prints=lambda settings: settings.path is None or settings.path == Path("/dev/stdout"),
)
