"""One look at one message: its status, and the pages of its recipients where something may have moved."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge.domain import retry
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Permanent
from bridge.http import parsing
from bridge.http.errors import NotFound, ProviderError, RequestRejected
from bridge.protocols.source import Observation, Page, ResourceType
from bridge.sources.govdelivery.api import ENDS_SWEEP, Api, MessageListing, channel_of, provider_clock
from bridge.sources.govdelivery.change_rate import changes
from bridge.sources.govdelivery.lifecycles import MESSAGE_KEY, STATUS_OF_DETAIL, counts
from bridge.sources.govdelivery.page_cache import PageScan
from bridge.sources.govdelivery.plan import PollPlan
from bridge.sources.govdelivery.recipients import LoopGuard, RecipientReader, why_not_followed
from bridge.sources.govdelivery.scheduling import MAX_WAIT_RUNNING_SECONDS, must_reread, price, worth_reading
from bridge.sources.govdelivery.state import MessageState, SweepTimes, is_in_future, past, to_datetime, to_millis

_MESSAGE_FIELDS = frozenset({"_links", "id", "status", "created_at", "completed_at", "recipient_counts"})
_MAX_MISSING_SWEEPS = 6
_MAX_BACKOFF_SECONDS = 900.0
_GRACE = 6 * _MAX_BACKOFF_SECONDS
_RESTART_EVERY_SWEEPS = 3
_DETAIL_TRIES = 3
_DETAIL_MAX_WAIT_SECONDS = 600.0


class MessageSweep:
    """One look at one message; `pages` yields what came of it, and the cursor's entry at its end."""

    def __init__(
        self,
        api: Api,
        kinds: Mapping[str, tuple[ResourceType, ResourceType]],
        clock: Clock,
        plan: PollPlan,
        path: str,
        entry: MessageState,
    ) -> None:
        self._api = api
        self._message, self._recipient = kinds[channel_of(path)]
        self._reader = RecipientReader(self._recipient, path, plan.report)
        self._voice = channel_of(path) == "voice"
        self._change_rate = plan.change_rates[channel_of(path)]
        self._clock = clock
        self._plan = plan
        self._path = path
        self._entry = entry
        self._now = plan.now
        """From when on the next look is reckoned: not later than this one, whenever the clock was set back."""
        self._put_off = entry.put_off
        self._handed_over = False
        self._pushed = plan.pushed.get(path)

    @property
    def handed_over(self) -> bool:
        """Whether the look ended in the middle, to be gone on with by the next poll."""
        return self._handed_over

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the message, then its recipients; raises only what is no matter of this message.

        Until the last page of recipients was read, the cursor's entry does not say that they were: a crash or a failure
        in the middle repeats pages and never skips any.
        """
        try:
            async for page in self._sweep():
                yield page if self._pushed is None else replace(page, pushed=self._pushed)
        except ENDS_SWEEP:
            raise
        except NotReady as error:
            if self._plan.once:
                self._plan.report(f"{error}; run the backfill again for it")
            wait = max(self._plan.interval, error.retry_after or 0.0)
            yield self._note(self._expire(self._entry.later(self._clock.epoch() + wait)))
        except BridgeError as error:
            yield self._note(self._failed(error))
        except Exception as error:  # noqa: BLE001 - one odd answer must not keep the others from being looked at
            # Its own text may quote the answer.
            problem = f"{self._path}: its answer cannot be read ({type(error).__name__})"
            yield self._note(self._failed(Permanent(problem)))

    def _note(self, entry: MessageState) -> Page:
        return Page((), by=self._clock.now(), cursor={self._path: entry.dump()})

    def _failed(self, error: BridgeError) -> MessageState:
        """Decide when a message that could not be read is tried again; what was read of it stays read."""
        entry = self._entry
        failures = entry.failures + 1
        wait = retry.backoff(failures, self._clock.random, base=self._plan.interval, cap=_MAX_BACKOFF_SECONDS)
        due = self._clock.epoch() + max(wait, getattr(error, "retry_after", None) or 0.0)
        then = (
            "run the backfill again for it" if self._plan.once else f"failure {failures}, tried again in {wait:.0f} s"
        )
        what = str(error) if self._path in str(error) else f"{self._path}: {error}"
        self._plan.report(f"{what}; {then}")
        # A page that is refused may be one that is no more: the next try starts at the first. So does now and then one
        # after a page that fails: it must not keep those before it from being read again.
        sweep = entry.sweep if isinstance(error, ProviderError) and failures % _RESTART_EVERY_SWEEPS else None
        entry = entry.later(due, failures=failures, sweep=sweep)
        # A provider that knows nothing at all says nothing of this message.
        if isinstance(error, NotFound) and self._api.health.alive:
            entry = self._missed(entry)
        return self._expire(entry)

    def _missed(self, entry: MessageState) -> MessageState:
        """Return the entry of a message that was not there, which is over if that was so at too many looks."""
        entry = replace(entry, missing=entry.missing + 1)
        if entry.missing < _MAX_MISSING_SWEEPS or self._path in self._plan.named:
            return entry
        self._plan.report(f"{self._path}: not there for {entry.missing} looks, no longer followed")
        return replace(entry, over=to_millis(self._clock.epoch()), sweep=None)

    def _expire(self, entry: MessageState) -> MessageState:
        """Return the entry, which is over if its time was over a while ago: its last look was tried often enough."""
        late = entry.ended(self._clock.epoch() - _GRACE, self._plan.follow_for)
        if not late or entry.over is not None or self._plan.once or self._path in self._plan.named:
            return entry
        self._plan.report(f"{self._path}: it cannot be read, and its time is over: no longer followed")
        return replace(entry, over=to_millis(self._clock.epoch()), sweep=None)

    async def _sweep(self) -> AsyncGenerator[Page, None]:
        began = to_millis(self._clock.epoch())
        self._now = min(self._plan.now, began)
        answer, item = await self._api.object(self._path, having=_MESSAGE_FIELDS)
        before = self._entry
        status = parsing.text(item.get("status"))
        now_counts = counts(item.get("recipient_counts"))
        now_details = counts(item.get("recipient_detail_counts"))
        moved = status != before.status or now_counts != before.counts or now_details != before.details
        self._entry = entry = self._seen(item, status, began, moved=moved, seen=now_counts)
        if before.last_read is not None and before.latest is not None and now_counts is not None:
            self._change_rate.learn(before.latest, now_counts, (entry.age(before.last_read), entry.age(began)))
        after = to_datetime(before.last_read)
        page = Page(self._observed(item, status), by=answer.at, after=after, backlog=entry.backlog)
        if entry.sweep is None:
            if not self._reads(before, now_counts, moved=moved):
                yield replace(page, cursor={self._path: self._end(entry).dump()})
                return
            sweep = self._begin(item, began, provider_clock(answer))
            self._entry = entry = replace(entry, sweep=sweep)
        yield page
        async for page in self._recipients():
            yield page

    def _observed(self, item: Mapping[str, Any], status: str | None) -> Sequence[Observation]:
        if status is None:
            self._plan.report(f"{self._path}: the message has no status, so nothing is said of it")
            return ()
        return (Observation(self._message, self._path, MESSAGE_KEY, status, item),)

    def _seen(
        self,
        item: Mapping[str, Any],
        status: str | None,
        began: float,
        *,
        moved: bool,
        seen: Mapping[str, int] | None,
    ) -> MessageState:
        entry = self._entry
        lifecycle = self._message.lifecycle
        completed = None
        if lifecycle.status_by_value.get(status or "") in lifecycle.finals:
            # Without a time of its own, it was completed when that was first seen.
            completed = past(item.get("completed_at"), began) or entry.completed or began
        return replace(
            entry,
            status=status,
            created=past(item.get("created_at"), began) or entry.created or entry.discovered,
            completed=completed,
            changed=began if moved and entry.last_read is not None else entry.changed,
            last_read=began,
            seen=None if seen == entry.counts else seen,
            hinted=False,
            missing=0,
        )

    def _reads(self, before: MessageState, now_counts: Mapping[str, int] | None, *, moved: bool) -> bool:
        """Decide whether the recipients are read now."""
        if before.counts is None or now_counts is None or before.swept is None:
            return True
        if is_in_future(before.swept, self._plan.now):
            return True
        if moved and self._pushed is not None:
            return True
        pending = max(1, changes(before.counts, now_counts)) if moved else 0
        waited = self._plan.now - before.swept
        return worth_reading(pending, waited, before.length(), price(self._plan.interval)) or self._rereads(self._entry)

    def _rereads(self, entry: MessageState) -> bool:
        last = self._next(entry) is None
        if entry.swept is None or (last and self._path not in self._plan.named):
            return True
        return must_reread(self._plan.now, entry.swept, entry.took, entry.completed, self._plan.reread_every)

    def _begin(self, item: Mapping[str, Any], began: float, since: float | None) -> SweepTimes:
        now_counts, now_details = counts(item.get("recipient_counts")), counts(item.get("recipient_detail_counts"))
        todo: list[tuple[str, str]] = []
        settled: list[str] = []
        if self._voice:
            for detail in STATUS_OF_DETAIL:
                if self._detail_moved(detail, now_counts or {}, now_details or {}):
                    todo.append((detail, f"{self._path}/recipients/{detail}"))
                else:
                    settled.append(detail)
        # The links of a documented answer lead to the collections of another message (153's to 15282's), so the
        # documented paths below this message are asked and `_links` are not.
        todo.append(("", f"{self._path}/recipients"))
        return SweepTimes(tuple(todo), began, since, now_counts, now_details, tuple(settled))

    def _detail_moved(self, detail: str, now_counts: Mapping[str, int], now_details: Mapping[str, int]) -> bool:
        """Whether a detail's collection has to be read; one without a count moves with the count of its status."""
        entry = self._entry
        if detail in now_details:
            return now_details[detail] != (entry.details or {}).get(detail, 0)
        status = STATUS_OF_DETAIL[detail]
        if status in now_counts:
            return now_counts[status] != (entry.counts or {}).get(status, 0)
        return True

    async def _recipients(self) -> AsyncGenerator[Page, None]:
        visited: set[str] = set()
        met = LoopGuard()
        after = to_datetime(self._entry.swept)
        notes = self._notes()
        while (sweep := self._entry.sweep) is not None and sweep.todo:
            if visited and self._plan.out_of_time():
                self._handed_over = True
                yield self._note(self._entry.later(self._clock.epoch()))
                return
            detail, target = sweep.todo[0]
            visited.add(target)
            listing = await self._collection(detail, target, notes.digest(target))
            if listing is None:
                continue
            observations, held = self._reader.read(listing, detail, sweep)
            page_cache = notes.recipients(target) if listing.page_cache else 0
            shown = len(listing.items) + page_cache
            if len(observations) + page_cache == shown:
                notes.note(target, listing.digest, shown)
            yield Page(observations, by=listing.at, after=after, unchanged=page_cache, backlog=self._entry.backlog)
            link = self._next_page(listing.next, visited, sweep, nothing_new=met.nothing_new(listing.digest))
            listed = sweep.listed + (0 if detail else shown)
            self._entry = replace(self._entry, sweep=_advanced(sweep, link, held=sweep.held + held, listed=listed))
        if sweep is not None:
            self._plan.page_cache.end(self._path, notes)
            yield self._note(self._complete(sweep))

    def _notes(self) -> PageScan:
        plan, entry = self._plan, self._entry
        started = entry.sweep.started if entry.sweep is not None else plan.now
        return plan.page_cache.begin(self._path, started, entry.swept, plan.now, plan.reread_every)

    async def _collection(self, detail: str, target: str, known: int | None) -> MessageListing | None:
        try:
            return await self._api.listing(target, known=known)
        except ENDS_SWEEP:
            raise
        except BridgeError as error:
            if not detail or self._should_retry(error):
                raise
            self._plan.report(f"{error}; calls stay without this detail")
            self._pass_over(detail, refused=isinstance(error, RequestRejected))
            return None

    def _pass_over(self, detail: str, *, refused: bool) -> None:
        """Go on behind a collection that cannot be had; what was refused is asked for once more where it is news."""
        if (sweep := self._entry.sweep) is not None:
            settled = sweep.settled if refused else (*sweep.settled, detail)
            self._entry = replace(self._entry, sweep=replace(sweep, todo=sweep.todo[1:], settled=settled))

    def _should_retry(self, error: BridgeError) -> bool:
        """Whether recipients wait for another try at the collection of a detail."""
        sweep = self._entry.sweep
        if sweep is None or isinstance(error, RequestRejected):
            return False
        tired = self._clock.epoch() - sweep.started >= _DETAIL_MAX_WAIT_SECONDS
        return self._plan.once or not (self._entry.failures >= _DETAIL_TRIES or tired)

    def _next_page(self, link: str | None, visited: set[str], sweep: SweepTimes, *, nothing_new: bool) -> str | None:
        """Return the link to the next page of the collection; None at its end."""
        pages = sweep.pages + 1
        if link is not None and (what := why_not_followed(again=link in visited, nothing_new=nothing_new, pages=pages)):
            self._plan.report(f"{self._path}: the list's next link {what}; treated as its end")
            return None
        return link

    def _complete(self, sweep: SweepTimes) -> MessageState:
        total = (sweep.counts or {}).get("total", 0)
        if sweep.listed < total:
            self._plan.report(f"{self._path}: {sweep.listed} recipients are listed, {total} are counted")
        took = to_millis(max(0.0, self._clock.epoch() - sweep.started))
        entry = replace(
            self._entry, sweep=None, swept=sweep.started, took=took, pages=sweep.pages, failures=0, backlog=False
        )
        if sweep.held:
            # Counts that are unknown differ from whatever the next look finds.
            return entry.later(self._now + self._plan.interval, counts=None, seen=entry.latest)
        seen = None if entry.latest == sweep.counts else entry.latest
        return self._end(replace(entry, counts=sweep.counts, details=sweep.details, seen=seen))

    def _next(self, entry: MessageState) -> float | None:
        return entry.next(self._now, self._plan.interval, self._plan.follow_for, self._change_rate, self._put_off)

    def _end(self, entry: MessageState) -> MessageState:
        """Return the entry after a complete look: due later, or over."""
        due = self._next(entry)
        entry = replace(entry, failures=0)
        if due is not None:
            return entry.later(due)
        if self._path in self._plan.named:
            return entry.later(self._now + max(self._plan.interval, MAX_WAIT_RUNNING_SECONDS))
        return replace(entry, over=to_millis(self._clock.epoch()))


def _advanced(sweep: SweepTimes, link: str | None, *, held: int, listed: int) -> SweepTimes:
    """Return the sweep after one page: at the next page, or without a link at the next collection."""
    (detail, _), *others = sweep.todo
    todo = ((detail, link), *others) if link is not None else tuple(others)
    settled = (*sweep.settled, detail) if detail and link is None else sweep.settled
    return replace(sweep, todo=todo, pages=sweep.pages + 1, settled=settled, held=held, listed=listed)
