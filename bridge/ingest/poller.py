"""One source, polled for as long as we hold its lease: intervals, back-off, stalls and what is told about them."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog

from bridge.coordination.gates import Gate
from bridge.coordination.leases import LeaseRunner, wait_for_stop
from bridge.coordination.quota import SharedQuota, cooldown, note_quiet, takeover_cooldown
from bridge.coordination.turns import Turn
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Transient, Unavailable
from bridge.domain.retry import RECONNECT, backoff, idle_interval
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.account import OtherAccount
from bridge.ingest.hints import HintQueue, PollHints
from bridge.ingest.intake import Intake, PollResult
from bridge.ingest.silence import SilenceWatch
from bridge.protocols.ledger import Lease, Ledger
from bridge.protocols.request_context import RequestCounter, bind
from bridge.protocols.source import SourceSettings

log = structlog.get_logger()

_JITTER_SHARE = 0.05
_REST_SECONDS = 0.1
_MAX_PROBLEMS_LOGGED = 5
_RETRY_AFTER_CAP_SECONDS = 3600.0
_PAUSED_SECONDS = 60.0
"""Seconds between two looks at a pause; its end is heard at once."""


def error_location(error: BaseException) -> str:
    """Return the place an error came from, without any value that it may quote."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "unknown"


def describe_unexpected(error: BaseException) -> str:
    """Return a line about an error that nobody expected; its own text may quote data and is left out."""
    return f"{type(error).__name__} at {error_location(error)}"


class PollListener:
    """What a source's runner tells the rest of the process; every method is cheap and does not wait."""

    def polled(self, source: str, seconds: float, outcome: PollResult) -> None:
        """Note that a poll ended well."""

    def failed(self, source: str, error: Exception) -> None:
        """Note that a poll failed."""

    def answered(self, source: str, answer: str) -> None:
        """Note the class of the provider's answer to one request."""

    def state(self, source: str, state: str, reason: str | None) -> None:
        """Note the source's state: ok, failing, stalled, held, paused or standby."""

    def hints_done(self, source: str, seconds: Sequence[float]) -> None:
        """Note for how long pushes had waited, each in seconds, when their things had been looked at."""

    def waits_for_store(self, source: str, reason: str | None) -> None:
        """Note why the store does not let the source go on; None says that it does."""


class Poller:
    """Polls one source at its interval while the lease is ours; failures back off and never leave this class."""

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        intake: Intake,
        ledger: Ledger,
        clock: Clock,
        *,
        watcher: PollListener,
        backpressure: Callable[[str], Awaitable[str | None]],
        check: Callable[[Lease], Awaitable[None]] | None = None,
        share: SharedQuota | None = None,
        gate: Gate | None = None,
        hints: HintQueue | None = None,
        silence: SilenceWatch | None = None,
        first_request_at: float = -math.inf,
    ) -> None:
        """Prepare; nothing is asked before `first_request_at`, in monotonic seconds."""
        self.name = name
        self._settings = settings
        self._intake = intake
        self._ledger = ledger
        self._clock = clock
        self._watcher = watcher
        self._backpressure = backpressure
        self._check = check
        self._share = share
        self._gate = gate or Gate()
        self._first_request_at = first_request_at
        self._quiet_at = -math.inf
        """From when on no request of this process counts any more, in monotonic seconds."""
        self._hints = hints
        self._silence = silence or SilenceWatch()
        self._regular_at = 0.0
        """When the next regular poll is due, by the monotonic clock; pushes do not put it off."""
        self._failures = 0
        self._quiet = 0
        self._failing_since: datetime | None = None
        self._state = ""
        self._state_since = ""
        self._noted_state = ""
        self._before: tuple[str, str] | None = None
        """The state that the process before us noted, and since when it was in it."""

    @property
    def is_quiet(self) -> bool:
        """Whether no request of this process counts any more in the account's budget."""
        return self._clock.monotonic() >= self._quiet_at

    async def run(self, holder: LeaseRunner, stop: asyncio.Event, turn: Turn | None = None) -> None:
        """Poll until `stop` is set; without a `turn` the source is always ours to poll."""

        async def work(lease: Lease, leave: asyncio.Event) -> None:
            await self._remember()
            entry_seconds = await self._enter(lease)
            self._quiet_at = self._clock.monotonic() + entry_seconds
            await wait_for_stop(leave, self._clock, entry_seconds)
            async with self._silence.watching(lease, leave):
                while not leave.is_set():
                    wait = await self.step(lease)
                    await self._check_books(lease)
                    self._quiet_at = self._clock.monotonic() + cooldown(self._settings.rate)
                    await self._wait(leave, wait)
            if self.is_quiet:
                await note_quiet(self._ledger, lease)

        standby = partial(self._move, "standby")
        await holder.run(f"source/{self.name}", work, stop, standby=standby, turn=turn)

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        """Wait for the next poll; a push ends the wait of a source that is well."""
        if self._hints is None or self._state != "ok":
            await wait_for_stop(stop, self._clock, seconds, self._gate.changed)
        else:
            await self._hints.wait(stop, seconds, self._gate.changed)

    async def _enter(self, lease: Lease) -> float:
        """Ask by the share from now on; return for how many seconds a new lease holder sends no request.

        The first holder of all need not wait, unless a command sends requests at the same time.
        """
        bind(share=self._share, on_answer=partial(self._watcher.answered, self.name))
        other_command = await self._share.entry_delay() if self._share is not None else 0.0
        own_seconds = await takeover_cooldown(self._ledger, lease, self._settings.rate)
        return max(other_command, own_seconds, self._first_request_at - self._clock.monotonic())

    async def step(self, lease: Lease) -> float:
        """Poll once, or hold back; return how many seconds to wait. Raises `LeaseLost` only."""
        try:
            wait = await self._step(lease)
        except Unavailable as error:
            self._failures += 1
            wait = backoff(self._failures, self._clock.random, cap=RECONNECT)
            self._watcher.waits_for_store(self.name, str(error))
            log.warning(
                "source.waits_for_store", source=self.name, reason=str(error), again_in=round(wait, 1),
                consequence="the next poll sees what this one could not write",
            )  # fmt: skip
            return wait
        self._watcher.waits_for_store(self.name, None)
        return wait

    async def _step(self, lease: Lease) -> float:
        if self._gate.pause is not None:
            return await self._rest(str(self._gate.pause))
        if reason := await self._backpressure(self.name):
            if self._move("held", reason):
                log.warning(
                    "source.backpressure", source=self.name, reason=reason,
                    consequence="the provider is not asked until there is room; nothing is lost by it",
                )  # fmt: skip
                await self._note(error=reason)
            return 1.0
        started = self._clock.monotonic()
        chosen = await self._take_hints()
        if not chosen.early:
            self._gate.begin_poll()
        try:
            outcome = await self._gate.run_until_paused(self._poll(lease, chosen))
        except (LeaseLost, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - a source's defect is its own: the others go on
            return await self._failed(lease, error)
        if outcome is None:
            return 0.0  # paused in the middle: what was not committed comes again
        wait = await self._well(lease, outcome, self._clock.monotonic() - started, early=chosen.early)
        await self._drop_hints(chosen)
        await self._after_poll(lease, outcome, early=chosen.early)
        return wait

    async def _after_poll(self, lease: Lease, outcome: PollResult, *, early: bool = False) -> None:
        is_complete = not (early or outcome.problems or self._intake.behind)
        await self._silence.after_poll(lease, has_news=outcome.events > 0, is_complete=is_complete)

    async def _take_hints(self) -> PollHints:
        if self._hints is None:
            return PollHints()
        chosen = await self._hints.take()
        if chosen.hints:
            self._intake.expect_news(chosen.things, early=chosen.early)
        return chosen

    async def _poll(self, lease: Lease, chosen: PollHints) -> PollResult:
        if self._hints is None:
            return await self._intake.poll(lease)
        counter = RequestCounter()
        bind(counter=counter)
        try:
            return await self._intake.poll(lease)
        finally:
            self._hints.spend(chosen, counter.requests)

    async def _drop_hints(self, chosen: PollHints) -> None:
        if self._hints is None or not chosen.hints:
            return
        left = self._intake.postponed
        await self._hints.settle(chosen, left)
        now = self._clock.epoch()
        self._watcher.hints_done(self.name, [now - hint.since for hint in chosen.hints if hint.thing not in left])

    async def _rest(self, reason: str) -> float:
        self._failures, self._failing_since = 0, None
        self._move("paused", reason)
        if self._noted_state != "paused":
            await self._note(next_poll="", failures="0", failing_since="")
        return _PAUSED_SECONDS

    async def _check_books(self, lease: Lease) -> None:
        if self._check is None or self._failures or self._gate.pause is not None:
            return
        try:
            await self._gate.run_until_paused(self._check_now(lease))
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - a comparison that fails is no reason not to poll
            reason = str(error) if isinstance(error, BridgeError) else describe_unexpected(error)
            log.warning(
                "books.check_fails", source=self.name, reason=reason,
                consequence="polling goes on; the books are looked at next time",
            )  # fmt: skip

    async def _check_now(self, lease: Lease) -> None:
        if self._check is not None:
            await self._check(lease)

    async def once(self, lease: Lease) -> PollResult:
        """Poll once and raise whatever goes wrong."""
        await self._clock.sleep(await self._enter(lease))
        outcome = await self._intake.poll(lease)
        await self._well(lease, outcome, 0.0)
        await self._after_poll(lease, outcome)
        await self._silence.check(lease)
        return outcome

    async def _well(self, lease: Lease, outcome: PollResult, seconds: float, *, early: bool = False) -> float:
        self._quiet = 0 if outcome.events else self._quiet + (not early)
        wait = idle_interval(self._settings.interval, self._quiet, self._settings.idle_slowdown)
        wait *= 1 + _JITTER_SHARE * (2 * self._clock.random.random() - 1)
        # An interval runs from the beginning of a poll to that of the next; a long one still leaves a little rest.
        wait = max(wait - seconds, _REST_SECONDS * wait)
        wait = self._until_regular(wait, early=early)
        if self._intake.behind:
            wait = 0.0  # the provider's budget of requests is what paces a sweep over much
        if self._failures:
            log.info("source.recovers", source=self.name, failures=self._failures)
        if await self._intake.recovered(lease):
            log.info("source.recovered", source=self.name, consequence="SourceRecovered is published")
        self._failures, self._failing_since = 0, None
        self._move("ok")
        self._watcher.polled(self.name, seconds, outcome)
        for problem in outcome.problems[:_MAX_PROBLEMS_LOGGED]:
            log.warning("source.resource_fails", source=self.name, reason=problem)
        if len(outcome.problems) > _MAX_PROBLEMS_LOGGED:
            log.warning(
                "source.more_resources_fail", source=self.name, more=len(outcome.problems) - _MAX_PROBLEMS_LOGGED
            )
        if outcome.events:
            log.info("source.polled", source=self.name, observed=outcome.observed, events=outcome.events)
        now = truncate_to_millis(self._clock.now())
        await self._note(
            last_poll=rfc3339(now), last_ok=rfc3339(now),
            next_poll=rfc3339(truncate_to_millis(now + timedelta(seconds=wait))),
            failures="0", error="; ".join(outcome.problems[:1]), failing_since="", observed=str(outcome.observed),
            events=str(outcome.events), seconds=f"{seconds:.3f}",
        )  # fmt: skip
        return wait

    def _until_regular(self, wait: float, *, early: bool) -> float:
        """Return the seconds until the next regular poll: `wait`, or after an early poll as long as it was put off."""
        now = self._clock.monotonic()
        if not early:
            self._regular_at = now + wait
        return max(0.0, self._regular_at - now)

    async def _failed(self, lease: Lease, error: Exception) -> float:
        self._failures += 1
        now = self._clock.now()
        since = self._failing_since = self._failing_since or now
        reason = (
            str(error) if isinstance(error, BridgeError) else f"the source failed with {describe_unexpected(error)}"
        )
        asked = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
        wait = max(backoff(self._failures, self._clock.random), min(asked, _RETRY_AFTER_CAP_SECONDS))
        failing_for = (now - since).total_seconds()
        # Another account is no passing trouble: the process is not ready until somebody says what is meant.
        stalled = failing_for >= self._settings.stall_after or isinstance(error, OtherAccount)
        log.warning(
            "source.backs_off", source=self.name, reason=reason, failures=self._failures, again_in=round(wait, 1),
            consequence="nothing is lost: the next good poll goes on where this one stood",
        )  # fmt: skip
        self._watcher.failed(self.name, error)
        if stalled:
            # The ledger remembers that it was said: once for each time of trouble, also across restarts.
            await self._intake.stalled(lease, truncate_to_millis(since), self._failures, reason)
            if self._move("stalled", reason):
                log.error("source.stalled", source=self.name, since=rfc3339(truncate_to_millis(since)), reason=reason)
        else:
            self._move("failing", reason)
            # Not later than the moment at which it counts as stalled.
            wait = min(wait, max(self._settings.stall_after - failing_for, 0.5)) if not asked else wait
        stamp = truncate_to_millis(now)
        await self._note(
            last_poll=rfc3339(stamp), next_poll=rfc3339(truncate_to_millis(stamp + timedelta(seconds=wait))),
            failures=str(self._failures), error=reason, failing_since=rfc3339(truncate_to_millis(since)),
        )  # fmt: skip
        return wait

    def _move(self, state: str, reason: str | None = None) -> bool:
        changed = state != self._state
        if changed:
            self._state_since = rfc3339(truncate_to_millis(self._clock.now()))
            if self._before is not None and state != "standby":
                before, since = self._before
                self._state_since = since if before == state and since else self._state_since
                self._before = None
        self._state = state
        self._watcher.state(self.name, state, reason)
        return changed

    async def _note(self, **values: str) -> None:
        report = {**values, "state": self._state, "state_since": self._state_since}
        await self._ledger.set_status(f"source/{self.name}", report)
        self._noted_state = self._state

    async def _remember(self) -> None:
        """Take over since when the source has been in its state, and failing, from the process before us."""
        try:
            notes = (await self._ledger.statuses(f"source/{self.name}")).get(f"source/{self.name}", {})
        except Unavailable:
            return
        self._before = (notes.get("state", ""), notes.get("state_since", ""))
        if notes.get("failing_since"):
            self._failing_since = datetime.fromisoformat(notes["failing_since"])
