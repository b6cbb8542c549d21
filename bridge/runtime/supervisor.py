"""Keeps the parts of a process at work: a part that ends without being told to is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.domain.retry import Backoff
from bridge.ingest.poller import describe_unexpected
from bridge.observability.metrics import Metrics
from bridge.web.health_server import Health

log = structlog.get_logger()

Work = Callable[[], Awaitable[None]]

_STABLE_SECONDS = 60.0
"""Seconds after which a part that works starts its backoff anew if it fails."""
_RECOVERED_SECONDS = 5.0
"""Seconds after which a part that was started again counts as well."""
_RESTART_CAP_SECONDS = 60.0
_CANCELLED = "its task was cancelled"


class Supervisor:
    """Runs parts until `stop` is set or `close` is called. No part suffers from another one.

    A part may end in four ways without being told to: it raises, it returns, what it waits for is cancelled, or its own
    task is. Each time the log, a metric and `/readyz` say so, and the part is started again after a backoff.
    """

    def __init__(self, clock: Clock, metrics: Metrics, health: Health, stop: asyncio.Event) -> None:
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def names(self) -> frozenset[str]:
        """The parts that have not ended."""
        return frozenset(self._tasks)

    def start(self, name: str, work: Work, stop: asyncio.Event | None = None) -> None:
        """Run a part in a task of its own; it may have a `stop` of its own, which is set with that of all."""
        self._idle.clear()
        self._metrics.restarts.labels(name)  # from the beginning: the first restart is an increase, too
        self._stops[name] = stop or self._stop
        task = self._tasks[name] = asyncio.ensure_future(self._run(name, work))
        task.add_done_callback(partial(self._on_end, name, work))

    async def end(self, name: str, seconds: float) -> None:
        """Wait until a part has ended whose own `stop` is set; cancel it if it works for `seconds` more."""
        if task := self._tasks.get(name):
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._backoffs.pop(name, None)

    async def join(self, seconds: float | None = None) -> None:
        """Wait until all parts have ended, `seconds` at most."""
        waiting = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()

    async def close(self) -> None:
        """Cancel the parts that have not ended, and wait for them."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_end(self, name: str, work: Work, task: asyncio.Task[None]) -> None:
        if self._closing or self._stops[name].is_set() or not task.cancelled():
            del self._tasks[name], self._stops[name]
            self._health.set(_part(name), None)
            if not self._tasks:
                self._idle.set()
            return
        self._report(name, _CANCELLED, 0.0)
        self.start(name, work, self._stops[name])

    async def _run(self, name: str, work: Work) -> None:
        stop = self._stops[name]
        backoff = self._backoffs.setdefault(name, Backoff(self._clock.random, cap=_RESTART_CAP_SECONDS))
        while True:
            started = self._clock.monotonic()
            recovered = asyncio.get_running_loop().call_later(_RECOVERED_SECONDS, self._health.set, _part(name), None)
            try:
                reason = await self._reason_of_end(work)
            finally:
                recovered.cancel()
            if stop.is_set():
                return
            if self._clock.monotonic() - started > _STABLE_SECONDS:
                backoff.on_success()
            wait = backoff.on_failure()
            self._report(name, reason, wait)
            if await wait_for_stop(stop, self._clock, wait):
                return

    async def _reason_of_end(self, work: Work) -> str:
        """Do the work; return why it ended."""
        task = asyncio.current_task()
        try:
            await work()
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise  # not what the work waited for: this task
            return "a task of it was cancelled"
        except Exception as error:  # noqa: BLE001 - one part's defect must not take the others down
            return str(error) if isinstance(error, BridgeError) else describe_unexpected(error)
        return "it ended by itself"

    def _report(self, name: str, reason: str, wait: float) -> None:
        self._metrics.restarts.labels(name).inc()
        self._health.set(_part(name), f"started again: {reason}")
        log.error(
            "part.restarted", part=name, reason=reason, again_in=round(wait, 1),
            consequence="the other parts go on; what this one had begun is done again",
        )  # fmt: skip


def _part(name: str) -> str:
    return f"part/{name}"
