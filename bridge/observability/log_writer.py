"""Writes log lines from a thread of its own: who logs never waits for a pipe or a disk, and never fails for one."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""Bytes of lines that may wait for the thread; what comes beyond that is lost."""
_REPORT_EVERY_SECONDS = 60.0
"""Seconds between two reports of lost lines."""


class LogWriter:
    """A stream for log lines, which never blocks and never raises.

    A line that cannot be written is lost and counted: the reader of a pipe has gone, or does not read; the disk is
    full; the terminal has hung up. The next line is tried anew. A stream that is no file of the operating system, as
    tests use them, is written to at once.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        report: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Prepare; `report` is called from the thread with the number of lost lines, once lines are written again."""
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._max_queued_bytes = max_queued_bytes
        self._report = report
        self._changed = threading.Condition()  # reentrant: a finalizer may log while this thread logs
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._thread: threading.Thread | None = None
        self._writing = False
        self._torn = False
        self._reported = 0
        self._report_at = 0.0
        self.lost = 0
        """Lines that could not be written, since the start."""

    def write(self, text: str) -> int:
        """Have the thread write a whole line, with its line break."""
        if self._descriptor is None:
            self._write_at_once(text)
            return len(text)
        line = text.encode(errors="backslashreplace")
        with self._changed:
            if self._queued_bytes + len(line) > self._max_queued_bytes:
                self.lost += 1
                return len(text)
            self._lines.append(line)
            self._queued_bytes += len(line)
            if self._thread is None:
                self._start()
            self._changed.notify()
        return len(text)

    def flush(self) -> None:
        """Do nothing: `drain` waits for the lines."""

    def drain(self, within: float) -> bool:
        """Wait until all lines are written or lost, `within` so many seconds at most; say whether that was in time."""
        deadline = time.monotonic() + within
        with self._changed:
            while self._lines or self._writing:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    return False
        return True

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be had now, or the interpreter ends: the next line tries again
            self._thread = None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._lines:
                    self._changed.wait()
                line = self._lines.popleft()
                self._writing = True
            written = self._write_line(line)
            with self._changed:
                self._queued_bytes -= len(line)
                if not written:
                    self.lost += 1
            if written:
                self._report_losses()

    def _write_line(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)  # a line that broke off ends before the next begins
        begun = False
        while rest:
            try:
                count = os.write(self._descriptor or 0, rest)
            except BlockingIOError:  # another process that shares the pipe made it so; wait as if it were not
                self._wait_writable()
            except OSError:
                self._torn = self._torn or begun
                return False
            else:
                begun = begun or count > 0
                rest = rest[count:]
        self._torn = False
        return True

    def _wait_writable(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor or 0, select.POLLOUT)
        poller.poll()

    def _report_losses(self) -> None:
        now = time.monotonic()
        lost = self.lost - self._reported
        if lost and now >= self._report_at:
            self._reported, self._report_at = self.lost, now + _REPORT_EVERY_SECONDS
            self._report(lost)

    def _write_at_once(self, text: str) -> None:
        if self._stream is None:
            self.lost += 1
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it has been closed
            self.lost += 1


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the file descriptor of a stream. None is a stream without one."""
    with suppress(OSError, ValueError, AttributeError):
        if stream is not None:
            return stream.fileno()
    return None


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a stream is a terminal; one that is closed is none."""
    with suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


def has_colours(stream: TextIO | None) -> bool:
    """Say whether colours may be written to a stream: a terminal, unless NO_COLOR or TERM=dumb says otherwise."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
