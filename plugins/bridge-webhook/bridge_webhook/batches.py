"""Gathers events into batches: a batch goes when it is full, or when its first event has waited long enough."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence

from bridge.plugin import Clock, EndpointGone, Permanent, Transient, WireEvent

PostBatch = Callable[[Sequence[WireEvent]], Awaitable[None]]
"""Posts events in one request; raises `Transient` or `Permanent`."""

_Batch = dict[asyncio.Future[None], WireEvent]


class Batches:
    """Posts events together. What the endpoint accepts or refuses for now goes for all events of a batch.

    A batch that is refused for good is posted once more, event by event: so only those events are dead letters that the
    endpoint does not want.
    """

    def __init__(self, clock: Clock, size: int, wait: float, *, post: PostBatch) -> None:
        self._clock = clock
        self._size = size
        self._wait = wait
        self._post = post
        self._open: _Batch = {}
        self._timer: asyncio.Task[None] | None = None
        self._posting: set[asyncio.Task[None]] = set()

    async def send(self, event: WireEvent) -> None:
        """Return when a request with the event was accepted."""
        sent = asyncio.get_running_loop().create_future()
        self._open[sent] = event
        if len(self._open) >= self._size:
            self._begin_post()
        elif self._timer is None:
            self._timer = asyncio.ensure_future(self._post_later())
        try:
            await sent
        finally:
            self._open.pop(sent, None)  # a cancelled event is not in its batch

    async def close(self) -> None:
        """End what is gathered and posted; an event that still waits fails as transient, so that it stays due."""
        tasks = [task for task in (self._timer, *self._posting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._timer = None
        batch, self._open = self._open, {}
        _end(batch, Transient("the sink is closing"))

    async def _post_later(self) -> None:
        await self._clock.sleep(self._wait)
        self._timer = None
        self._begin_post()

    def _begin_post(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        batch, self._open = self._open, {}
        if batch:
            task = asyncio.ensure_future(self._post_together(batch))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def _post_together(self, batch: _Batch) -> None:
        try:
            await self._post(list(batch.values()))
        except asyncio.CancelledError:
            _end(batch, Transient("the sink is closing"))
            raise
        except Exception as error:  # noqa: BLE001 - the senders that wait must get any error
            if isinstance(error, Permanent) and not isinstance(error, EndpointGone) and len(batch) > 1:
                await asyncio.gather(*(self._post_together({sent: event}) for sent, event in batch.items()))
            else:
                _end(batch, error)
        else:
            _end(batch, None)


def _end(batch: _Batch, error: Exception | None) -> None:
    for sent in batch:
        if sent.done():
            continue
        if error is None:
            sent.set_result(None)
        else:
            sent.set_exception(copy.copy(error))  # a copy for each: a raised error collects its tracebacks
