"""A thread that does blocking work for an event loop, one job after the other, and always ends."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from bridge.domain.errors import Unavailable

T = TypeVar("T")
log = structlog.get_logger()

Job = Callable[[], Any]


def noop() -> None:
    """Do nothing: for a worker that has nothing to interrupt, or nothing to put away."""


class ThreadWorker:
    """A thread with a queue of jobs.

    Between jobs it calls `rest` with a file descriptor that becomes readable as soon as there is something to do, and
    `rest` returns then. `interrupt` is called from the event loop and makes blocking calls of the running job fail at
    once. `end` is the thread's last act. Neither `rest` nor `end` may raise.
    """

    def __init__(
        self,
        name: str,
        *,
        rest: Callable[[int], None],
        end: Callable[[], None] = noop,
        interrupt: Callable[[], None] = noop,
    ) -> None:
        self._name = name
        self._rest = rest
        self._end = end
        self._interrupt = interrupt
        self._jobs: deque[tuple[Job, asyncio.Future[Any]]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._wakeup_send: socket.socket | None = None

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        wakeup_recv, self._wakeup_send = socket.socketpair()
        wakeup_recv.setblocking(False)
        self._wakeup_send.setblocking(False)
        self._thread = threading.Thread(target=self._run, args=(wakeup_recv,), name=self._name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a job and return the future of its result; a job whose future is cancelled in time is left out."""
        if self._stopping:
            raise Unavailable(f"{self._name} is closed")
        if self._thread is None:
            self._start()
        assert self._loop is not None  # noqa: S101 - _start has just set it
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append((job, future))
        self._wake()
        return future

    async def call(self, job: Callable[[], T], *, within: float, what: str) -> T:
        """Do `job` in the thread and return its result.

        Raises `Unavailable` naming `what` when it takes longer than `within` seconds; the job is interrupted then. A
        caller who is cancelled leaves a running job to finish by itself.
        """
        future = self.submit(job)
        try:
            async with asyncio.timeout(within):
                return await future
        except TimeoutError:
            if not future.cancelled():
                raise
            self._interrupt()
            raise Unavailable(f"{what}: no answer within {within:.0f} s") from None

    def post(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call `callback` in the event loop; for the thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody is left to be told
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *arguments)

    async def close(self, *, grace: float = 5.0) -> None:
        """End the thread: after what is queued, or by interruption when that takes longer than `grace` seconds."""
        self._stopping = True
        if self._thread is None or self._ended is None:
            return
        self._wake()
        for _ in range(2):
            try:
                async with asyncio.timeout(grace):
                    await self._ended.wait()
            except TimeoutError:
                self._interrupt()
            except asyncio.CancelledError:
                self._interrupt()
                raise
            else:
                self._thread.join(grace)
                return
        log.warning("worker.abandoned", name=self._name, consequence="its thread ends with the process")

    def _wake(self) -> None:
        if self._wakeup_send is not None:
            with contextlib.suppress(OSError):  # full: it is ringing already; closed: nobody listens any more
                self._wakeup_send.send(b"!")

    def _run(self, wakeup_recv: socket.socket) -> None:
        try:
            while self._jobs or not self._stopping:
                if self._jobs:
                    self._do(*self._jobs.popleft())
                else:
                    self._rest(wakeup_recv.fileno())
                    with contextlib.suppress(BlockingIOError):
                        wakeup_recv.recv(4096)
        finally:
            try:
                self._end()
            finally:
                wakeup_recv.close()
                if self._wakeup_send is not None:
                    self._wakeup_send.close()
                if self._ended is not None:
                    self.post(self._ended.set)

    def _do(self, job: Job, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            self.post(_fail, future, error)
        else:
            self.post(_settle, future, result)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # the caller may be gone by now; that is no news for the log


def wait_readable(*descriptors: int, seconds: float) -> bool:
    """Wait until one of the descriptors can be read; say whether one can."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
