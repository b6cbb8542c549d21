"""Sends claimed deliveries to the sink, some at once, and writes to the store how each attempt ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from bridge.concurrency.shared_timeout import SharedTimeout
from bridge.delivery.claims import ClaimedDelivery, Claims, write_with_retry
from bridge.delivery.endpoint import EndpointState
from bridge.delivery.send_times import SendTimes
from bridge.domain.answers import ACCEPTED, failure_class
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointAnswer, EndpointGone, Permanent, Transient
from bridge.domain.event import Position, WireEvent
from bridge.domain.reporting import Report, unreported
from bridge.domain.retry import RETRY_AFTER_CAP, RetryAfter, decide
from bridge.protocols.deliveries import Attempt, KeptAnswer
from bridge.protocols.sink import SinkSettings

log = structlog.get_logger()

_SETTLE_BATCH = 500
"""Deliveries that are settled with one write."""
_MIN_WAIT_SECONDS = 1.0
"""Seconds that an event waits at least if the sink did not try to send it."""

_MAX_TURN_SECONDS = 0.5
"""Seconds after which a task that waits for its turn looks whether the worker stops."""

KeepAnswer = Callable[[WireEvent, EndpointAnswer], KeptAnswer]
"""Redacts an endpoint's answer to an event for the dead letter."""
RESULTS = ("taken", "waits", "dead", "disabled")


@dataclass(slots=True)  # not frozen: there is one for each event, see `WireEvent`
class Outcome:
    """How one attempt ended."""

    result: str
    """One of `RESULTS`."""
    seconds: float
    """How long the endpoint needed to answer."""
    event: WireEvent
    error: str = ""
    """Why it was not delivered; fit for a log."""
    answer: str = ACCEPTED
    """One of `bridge.domain.answers.SINK_ANSWERS`; empty if the endpoint was not asked."""


class Sender:
    """Has at most `concurrency` tasks that send, started when there is work and ended when there is none.

    A success is settled in the store soon after it, many at once. Any other result ends the claim before the next
    attempt begins.
    """

    def __init__(
        self,
        sink: str,
        settings: SinkSettings,
        claims: Claims,
        endpoint: EndpointState,
        clock: Clock,
        *,
        send: Callable[[ClaimedDelivery], Awaitable[None]],
        outcome: Callable[[Outcome], None],
        report: Report = unreported,
        keep_answer: KeepAnswer | None = None,
        times: SendTimes,
    ) -> None:
        self.unsettled: list[Position] = []
        """What the endpoint accepted and the store does not know as settled."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._sink = sink
        self._settings = settings
        self._claims = claims
        self._endpoint = endpoint
        self._clock = clock
        self._send = send
        self._outcome = outcome
        self._report = report
        self._keep_answer = keep_answer
        self._times = times
        self._timeout = SharedTimeout(settings.send_timeout)
        self._ready: deque[ClaimedDelivery] = deque()
        self._active = 0
        self._turn = asyncio.Lock()
        self._has_unsettled = asyncio.Event()
        self._defect: asyncio.Future[None] | None = None

    def watch(self) -> asyncio.Future[None]:
        """Return a future that gets the exception of a task that fails: only a defect makes one fail."""
        self._defect = asyncio.get_running_loop().create_future()
        return self._defect

    def accept(self, claimed: ClaimedDelivery, claim_deadline: float) -> None:
        """Send a delivery as soon as a task is free, unless it is in flight already."""
        if not self._claims.add(claimed.position, claim_deadline):
            return
        self._ready.append(claimed)
        if self._active < self._settings.concurrency:
            self._active += 1
            task = asyncio.ensure_future(self._run_task())
            self.tasks.add(task)
            task.add_done_callback(self._on_task_end)

    def drop_expired(self, now: float) -> None:
        """Release what is ready and whose claim has expired.

        Claims on what is being sent, or was sent and is not settled, are renewed even after they have expired.
        """
        expired = [claimed for claimed in self._ready if not self._claims.holds(claimed.position, now)]
        self._ready = deque(claimed for claimed in self._ready if self._claims.holds(claimed.position, now))
        for claimed in expired:
            self._claims.release(claimed.position)

    async def settle(self) -> None:
        """Settle for ever what the endpoint accepted."""
        while True:
            await self._has_unsettled.wait()
            self._has_unsettled.clear()
            while self.unsettled:
                batch = self.unsettled[:_SETTLE_BATCH]
                await self._write(self._claims.settle, batch)
                del self.unsettled[: len(batch)]

    async def drain(self, grace: float) -> None:
        """Begin nothing new; return when all tasks have ended, or after `grace` seconds."""
        self._ready.clear()
        self._claims.wake_waiting()  # a task that waits for a settlement now finds nothing to send
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=grace)

    async def settle_once(self) -> None:
        """Settle what the endpoint accepted; raises `Unavailable`."""
        if self.unsettled:
            await self._claims.settle(list(self.unsettled))
            self.unsettled.clear()

    def clear(self) -> None:
        """Forget what was not sent, and the tasks, which have ended."""
        self._ready.clear()
        self.tasks.clear()

    # tasks

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self._defect is None or self._defect.done():
            return
        if task.cancelled():
            self._defect.cancel()  # nobody told it to end: its delivery would stay claimed, and never be sent
        elif error := task.exception():
            self._defect.set_exception(error)

    async def _run_task(self) -> None:
        try:
            await self._send_ready()
        finally:
            self._active -= 1  # here and not in a callback: a delivery that becomes ready right now needs a new task

    async def _send_ready(self) -> None:
        while self._ready:
            if len(self.unsettled) >= self._settings.concurrency:
                # A crash repeats what is sent and not settled: no more than twice `concurrency` in all.
                await self._claims.wait_for_release()
                continue
            if not self._endpoint.rate.is_free and not await self._wait_for_turn():
                return
            claimed = self._ready.popleft()
            now = self._clock.monotonic()
            if not self._claims.holds(claimed.position, now):
                self._claims.release(claimed.position)
            elif not self._times.lets(claimed.event):
                await self._set_aside(claimed)
            elif not self._endpoint.capacity(now, 1):
                await self._requeue(claimed)
            else:
                await self._attempt(claimed, now)

    async def _wait_for_turn(self) -> bool:
        """Wait until the endpoint's rate allows one more; return whether there is still something to send."""
        async with self._turn:  # the others wait behind the first
            rate = self._endpoint.rate
            while self._ready and (wait := rate.delay(self._clock.monotonic())) > 0:
                await self._clock.sleep(min(wait, _MAX_TURN_SECONDS))
            if self._ready:
                rate.take(self._clock.monotonic())
            return bool(self._ready)

    async def _requeue(self, claimed: ClaimedDelivery) -> None:
        """Let this delivery, and all that are ready, wait in the store; no attempt is counted."""
        self.drop_expired(self._clock.monotonic())
        unsent = [claimed.position, *(ready.position for ready in self._ready)]
        self._ready.clear()
        await self._write(self._claims.requeue, unsent)

    async def _set_aside(self, claimed: ClaimedDelivery) -> None:
        """Write down that this delivery is not sent now, with all that are ready and are not either."""
        self.drop_expired(self._clock.monotonic())
        ready, hindered = self._times.divide([claimed, *self._ready])
        self._ready = deque(ready)
        for write in self._times.writes(hindered):
            await self._write(write)

    async def _attempt(self, claimed: ClaimedDelivery, started: float) -> None:
        probe = self._endpoint.on_attempt()
        try:
            await self._timeout.wait_for(self._send(claimed))
        except TimeoutError:
            error: Exception = Transient(f"no answer within {self._settings.send_timeout:g} s")
        except Exception as raised:  # noqa: BLE001 - for any error of a plugin, the event is kept and tried again
            error = raised
        else:
            self.unsettled.append(claimed.position)
            self._has_unsettled.set()
            self._endpoint.rate.on_accepted(self._clock.monotonic())
            await self._endpoint.on_success()
            self._outcome(Outcome("taken", self._clock.monotonic() - started, claimed.event))
            return
        # Only our own errors promise a text that is fit for a log.
        text = str(error) if isinstance(error, BridgeError) else f"the sink failed with {type(error).__name__}"
        result = await self._on_error(claimed, error, text, probe=probe)
        self._outcome(Outcome(result, self._clock.monotonic() - started, claimed.event, text, failure_class(error)))

    # results

    async def _on_error(self, claimed: ClaimedDelivery, error: Exception, text: str, *, probe: bool) -> str:
        if isinstance(error, EndpointGone):
            self._endpoint.on_cancelled()
            await self._endpoint.on_gone(text)
            await self._write(self._claims.postpone, claimed.position, 0.0, None)
            return "disabled"
        if isinstance(error, Transient) and not error.counts_as_attempt:
            self._endpoint.on_cancelled()  # the sink did not ask the endpoint
            wait = min(max(error.retry_after or 0.0, _MIN_WAIT_SECONDS), RETRY_AFTER_CAP)
            log.debug(
                "delivery.waits_its_turn", sink=self._sink, id=claimed.event.id, after=round(wait, 1), reason=text
            )
            await self._write(self._claims.postpone, claimed.position, wait, None)
            return "waits"
        is_down = await self._endpoint.on_failure(error, text)
        if probe and is_down:
            # The endpoint failed and not this event: no attempt is counted, and the next probe is another event.
            wait = self._endpoint.seconds_to_probe()
            log.info("sink.probe_failed", sink=self._sink, reason=text, again_in=round(wait, 1))
            await self._write(self._claims.postpone, claimed.position, wait, None)
            return "waits"
        return await self._on_failed_attempt(claimed, error, text)

    async def _on_failed_attempt(self, claimed: ClaimedDelivery, error: Exception, text: str) -> str:
        attempts = claimed.attempts + 1
        attempt = Attempt(self._clock.epoch(), text, "permanent" if isinstance(error, Permanent) else "transient")
        decision = decide(error, attempts, self._settings.retry, self._clock.random)
        if isinstance(decision, RetryAfter):
            log.info(
                "delivery.waits", sink=self._sink, id=claimed.event.id, attempt=attempts,
                after=round(decision.after, 1), reason=text,
            )  # fmt: skip
            await self._write(self._claims.postpone, claimed.position, decision.after, attempt)
            return "waits"
        log.error(
            "delivery.dead_letter", sink=self._sink, id=claimed.event.id, attempt=attempts, why=decision.reason,
            reason=text, consequence=f"kept; see `bridgectl deliveries show {self._sink} {claimed.position}`",
        )  # fmt: skip
        await self._write(
            self._claims.dead_letter, claimed.position, decision.reason, attempt, self._kept(claimed, error)
        )
        return "dead"

    def _kept(self, claimed: ClaimedDelivery, error: Exception) -> KeptAnswer | None:
        answer = error.answer if isinstance(error, BridgeError) else None
        return None if answer is None or self._keep_answer is None else self._keep_answer(claimed.event, answer)

    async def _write(self, write: Callable[..., Awaitable[None]], *values: object) -> None:
        await write_with_retry(self._sink, self._clock, partial(write, *values), report=self._report)
