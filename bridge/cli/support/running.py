"""How commands run: the event loop, signals, logs on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from bridge.cli.support.notes import print_note

if TYPE_CHECKING:
    from bridge.runtime.assembly import Assembly

T = TypeVar("T")


# --- running ------------------------------------------------------------------------------------------------------


def load_assembly(config_file: Path, *, with_secrets: bool = True) -> Assembly:
    """Read the configuration; raises `ConfigError`. Log lines go to stderr from here on.

    Commands that neither ask a provider nor send anything read it without secrets: see `bridge.config.loading.load`.
    """
    from bridge.config.loading import load
    from bridge.runtime.assembly import Assembly

    logs_to_stderr()
    return Assembly(load(config_file, with_secrets=with_secrets))


def run(work: Coroutine[Any, Any, T], *, hangup_ends: bool = True) -> T:
    """Run an asynchronous command to its end; SIGTERM and SIGHUP interrupt it as Ctrl-C does: it releases its leases.

    What the command itself does about signals goes before; with `hangup_ends=False` all that SIGHUP does is its own. A
    thread that is stuck in a call does not hold the end up.
    """
    import asyncio

    from bridge.concurrency.daemon_executor import DaemonThreadExecutor

    async def main() -> T:
        asyncio.get_running_loop().set_default_executor(DaemonThreadExecutor())
        return await _interrupted_by_signals(work, hangup_ends=hangup_ends)

    return asyncio.run(main())


async def _interrupted_by_signals(work: Coroutine[Any, Any, T], *, hangup_ends: bool) -> T:
    import asyncio
    import signal

    from bridge.cli.support.signals import on_first_signal

    working = asyncio.current_task()
    interrupted = False

    def on_signal(_: int) -> None:
        nonlocal interrupted
        interrupted = True
        if working is not None:
            working.cancel()

    with suppress(ValueError, RuntimeError):  # on another thread than the first there are no signals
        on_first_signal(on_signal, (signal.SIGTERM, *([signal.SIGHUP] if hangup_ends else ())))
    try:
        return await work
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def logs_to_stderr() -> None:
    """Send warnings to stderr, for a person; stdout is for answers."""
    import logging

    import structlog

    from bridge.observability.logging import console_renderers, logger_factory

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            *console_renderers(sys.stderr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=logger_factory(sys.stderr),
    )
    # What libraries log could quote an address with its password; what matters of it reaches us as an error.
    logging.getLogger().addHandler(logging.NullHandler())


def guard_descriptors() -> None:
    """Put the null device where standard input, output or error is closed.

    Otherwise the next file or socket that is opened gets that number, and what a library prints goes into it. Standard
    output cannot be written to even then: what is sent there must not count as delivered.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the process


def guard_interpreter() -> None:
    """Have what the interpreter would print by itself told in one line, without the values that a traceback quotes.

    It is about threads that fail, finalizers that fail, and warnings. BRIDGE_DEBUG leaves all that as it is.
    """
    if os.environ.get("BRIDGE_DEBUG"):
        return
    import threading
    import warnings

    def thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            _report_warning("a thread failed", args.exc_type, args.exc_traceback)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        _report_warning("a finalizer failed", args.exc_type, args.exc_traceback)

    def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        del message
        _report_warning("a warning", category, None)

    threading.excepthook, sys.unraisablehook, warnings.showwarning = thread, unraisable, warn


def _report_warning(said: str, kind: type[BaseException], trace: TracebackType | None) -> None:
    import traceback

    import structlog

    frames = traceback.extract_tb(trace)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    if structlog.is_configured():
        structlog.get_logger().warning("library.warns", library="python", said=f"{said}{place}", error=kind.__name__)
    else:
        print_note(f"{said}: {kind.__name__}{place}")
