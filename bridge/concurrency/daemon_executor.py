"""Threads for calls that may block for ever, and that nobody has to wait for at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreadExecutor(ThreadPoolExecutor):
    """An executor of up to `most` daemon threads, which take calls in the order of `submit`.

    The pool of the standard library is joined by `asyncio.run`, and again by the interpreter: a name server that is
    silent, or a pipe that nobody reads, would keep the process from ending. This one is left behind instead. A call
    that is cancelled before it begins is never made.
    """

    def __init__(self, most: int = 32) -> None:
        super().__init__(most)  # for its type alone: asyncio takes no other for a default executor
        self._most = most
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._counting = threading.Lock()
        self._unfinished = 0
        self._begun = 0
        self._ending = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread make the call; raises `RuntimeError` after `shutdown`."""
        future: Future[T] = Future()
        with self._counting:
            if self._ending:
                raise RuntimeError("the threads have been told to end")
            self._unfinished += 1
            self._calls.put(partial(self._make, future, partial(fn, *args, **kwargs)))
            if self._begun < min(self._unfinished, self._most):
                self._begun += 1
                threading.Thread(target=self._work, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        """Have the threads end after what was submitted, and wait for none of them."""
        del wait, cancel_futures
        with self._counting:
            self._ending = True
            for _ in range(self._begun):
                self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            call()
            del call  # an idle thread keeps nothing alive

    def _make(self, future: Future[T], call: Callable[[], T]) -> None:
        result: T
        failure: BaseException | None = None
        if wanted := future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the call came from
                failure = error
        with self._counting:
            self._unfinished -= 1  # before the result is told: who has it finds this thread free for the next call
        if not wanted:
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)
            del future, failure  # with the traceback, which holds this frame, they would keep each other alive
