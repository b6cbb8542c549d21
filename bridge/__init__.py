"""Messaging providers' delivery statuses, pushed: polled once, published as typed events, delivered until accepted."""

__version__ = "0.1.0"


def _end_early() -> None:
    """Let SIGTERM end a process 1 that is still importing: without a handler, the kernel drops what it is sent.

    `bridgectl run` sets its own handlers later. A program that only imports this package keeps its own.
    """
    import os
    import sys

    if os.getpid() != 1 or os.path.basename(sys.argv[0]) not in ("bridge", "-m"):  # noqa: PTH119 - importing takes time
        return
    import signal

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


_end_early()
