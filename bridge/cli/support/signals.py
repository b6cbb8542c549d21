"""What signals do: the first one asks the process to end well, the second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def on_first_signal(act: Callable[[int], object], numbers: tuple[signal.Signals, ...] = ENDING) -> None:
    """Call `act` in the event loop for the first of these signals; after that, each one ends the process at once.

    A SIGHUP that was set to be ignored before the start, as `nohup` does, stays ignored.
    """
    loop = asyncio.get_running_loop()
    watched = [number for number in numbers if number != signal.SIGHUP or not _is_ignored(number)]

    def on_signal(number: signal.Signals) -> None:
        for other in watched:
            loop.remove_signal_handler(other)
            end_at_once_on(other)
        act(number)

    for number in watched:
        loop.add_signal_handler(number, on_signal, number)


def end_at_once_on(number: signal.Signals) -> None:
    """Have a signal end the process without a word. For process 1 the kernel does so only if there is a handler."""
    signal.signal(number, _end_process if os.getpid() == 1 else signal.SIG_DFL)


def _end_process(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


class Hangups:
    """Hears SIGHUP from its construction on, so that none ends a process that has not yet begun to work.

    A SIGHUP that was set to be ignored before the start, as `nohup` does, stays ignored. One that comes because the
    terminal of the process has gone asks it to end.
    """

    def __init__(self) -> None:
        self._has_terminal = _has_terminal()
        self._came = False
        if not _is_ignored(signal.SIGHUP):
            signal.signal(signal.SIGHUP, self._note)

    def listen(self, act: Callable[[], object], end: Callable[[], object]) -> None:
        """Call `act` in the event loop for each SIGHUP, also for an earlier one; `end` if the terminal has gone."""

        def on_hangup() -> None:
            (end if self._has_terminal and not _has_terminal() else act)()

        if not _is_ignored(signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
        if self._came:
            on_hangup()

    def _note(self, *_: object) -> None:
        self._came = True


def _has_terminal() -> bool:
    """Return whether the process has a terminal that controls it; one that was closed controls nothing any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
