"""What becomes of the output when its reader has gone: the command ends, and nothing complains."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TextIO


def has_reader(stream: TextIO | None) -> bool:
    """Say whether what is written to a stream may still be read: False for a pipe whose other end was closed."""
    with suppress(OSError, ValueError, AttributeError):
        poller = select.poll()
        poller.register(stream.fileno() if stream is not None else -1, select.POLLOUT)
        return not any(events & (select.POLLERR | select.POLLHUP) for _, events in poller.poll(0))
    return True


def end_output() -> None:
    """Write what is buffered for standard output; what nobody reads goes to the null device without a word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def _discard(stream: TextIO) -> None:
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
