"""A sink that writes each event on a line of its own: to standard output, or to a file or pipe."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

from bridge.concurrency.daemon_executor import DaemonThreadExecutor
from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.domain.event import Event
from bridge.domain.times import rfc3339
from bridge.domain.visible_text import visible
from bridge.protocols.sink import Outgoing, SinkPlugin, SinkSettings
from bridge.sinks.line_file import LineFile


class StdoutSettings(SinkSettings):
    """What the stdout sink can be told."""

    format: Literal["json", "text"] = "json"
    """One CloudEvent a line, or one line for a reader."""
    path: Path | None = None
    """A file to append to, or a named pipe, instead of standard output. A file that was renamed or deleted is opened
    anew by its name, and a line counts once the disk has it. Rotate with `create`: `copytruncate` loses what comes
    between its copy and its cut."""


class Stdout:
    """Writes a line for each event and hands it to the system at once; whole lines, in the order of `send`.

    A reader that has gone, a full disk, a path that cannot be opened: all are `Transient`, for each can come back. A
    line in a file counts once it is on the disk and the file has its name; see `LineFile`.
    """

    def __init__(self, name: str, settings: StdoutSettings, clock: Clock) -> None:
        del name, clock
        self._path = None if _is_standard_output(settings) else settings.path
        self._text = settings.format == "text"
        self._file = LineFile(self._path)
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
        if self._path is not None and self._path.is_dir():
            raise Permanent(f"{self._where} is a directory; name a file in it")
        if self._path is not None and not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise Transient(f"{self._where} cannot be written to; check the path and its permissions")
        return f"writes {'lines of text' if self._text else 'a CloudEvent a line'} to {self._where}"

    async def close(self) -> None:
        """Close the file; standard output itself stays open. A write that is stuck is left behind."""
        self._thread.shutdown()
        self._thread = DaemonThreadExecutor(1)  # which has no thread before it is opened and used again
        self._file.close()

    def _write(self, line: bytes) -> None:
        try:
            self._file.append(line)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is closed"
            raise Transient(f"{self._where} cannot be written to: {reason}") from None


_STANDARD_OUTPUT = frozenset(map(Path, ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")))
"""Paths of standard output. It is written to as it is: a service manager's socket cannot be opened by its path."""


def _is_standard_output(settings: StdoutSettings) -> bool:
    return settings.path is None or settings.path in _STANDARD_OUTPUT


def _line(event: Event) -> str:
    words = [rfc3339(event.time), event.topic, event.subject]
    words += [str(value) for name in ("phone", "error", "reason") if (value := getattr(event.data, name, None))]
    return visible("  ".join(words))


plugin = SinkPlugin(
    settings=StdoutSettings,
    build=Stdout,
    summary="writes one event a line to standard output",
    prints=_is_standard_output,
)
