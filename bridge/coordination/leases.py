"""Works only while a lease is held: take it, renew it, stop when it is lost, and give it back."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from bridge.coordination.turns import Turn, wait_for_any
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unavailable
from bridge.domain.reporting import Report, unreported
from bridge.domain.retry import RECONNECT, backoff
from bridge.protocols.ledger import Lease, Ledger
from bridge.protocols.request_context import LeaseDeadline, bind, current, reset

log = structlog.get_logger()
_MIN_COOLDOWN_SECONDS = 0.1
_MAX_RETRY_SECONDS = 0.5
_CHECK_EVERY_LEASES = 2
"""Times a lease's length between two checks of the lease of another process's share."""
_STAND_IN_LEASES = 20
"""Times a lease's length for which an abandoned lease is held."""

Work = Callable[[Lease, asyncio.Event], Coroutine[Any, Any, None]]
"""What is done under a lease, until the event says that the lease shall be given back."""


def new_owner() -> str:
    """Return a name for this process, or a part of it, that nobody else has, and that tells an operator where it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


async def wait_for_stop(stop: asyncio.Event, clock: Clock, seconds: float, wake: asyncio.Event | None = None) -> bool:
    """Wait for `seconds`, or until `stop` or `wake` is set; say whether it is time to stop. Clears `wake`."""
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(clock.sleep(seconds))]
    if wake is not None:
        waits.append(asyncio.ensure_future(wake.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if wake is not None:
        wake.clear()
    return stop.is_set()


def run_until_deadline(lease_deadline: LeaseDeadline, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin a piece of work that, with all tasks of its own, knows until when its lease is held."""
    context = contextvars.copy_context()
    context.run(bind, lease=lease_deadline)
    return asyncio.get_running_loop().create_task(work, context=context)


def is_ended(owner: str) -> bool:
    """Return whether an owner, named as by `new_owner`, is a process of this machine that runs no more."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # it runs, for another user
        pass
    return False


@asynccontextmanager
async def hold_lease(
    ledger: Ledger,
    clock: Clock,
    name: str,
    owner: str,
    ttl: float,
    *,
    max_wait: float,
    cooldown_seconds: float = 0.0,
    waiting: Callable[[], object] = lambda: None,
) -> AsyncIterator[Lease]:
    """Hold a lease for one piece of work; all its tasks know until when. Raises `BridgeError` if it stays held.

    Waits for it for `max_wait` seconds, and calls `waiting` once before. Afterwards nobody has it for
    `cooldown_seconds`. The lease of a process of this machine that has ended, however it ended, is over after
    `cooldown_seconds`, too; `waiting` is not called for it.
    """
    take = _Waiting(ledger, clock, name, cooldown_seconds)
    lease, until = await take.acquire(owner, ttl, max_wait, waiting)
    lease_deadline = LeaseDeadline(name, until, current().lease)
    before = bind(lease=lease_deadline)
    renewing = asyncio.ensure_future(_renew(ledger, clock, lease, lease_deadline))
    try:
        yield lease
    finally:
        reset(before)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        with suppress(Unavailable, LeaseLost):  # it ends by itself
            await (ledger.renew(replace(lease, ttl=cooldown_seconds)) if cooldown_seconds else ledger.release(lease))


@dataclass(slots=True)
class _Waiting:
    """Waits for a lease, and ends that of a process that has ended."""

    ledger: Ledger
    clock: Clock
    name: str
    cooldown_seconds: float
    ended: str = ""
    """The owner whose lease was ended."""

    async def acquire(
        self, owner: str, ttl: float, max_wait: float, waiting: Callable[[], object]
    ) -> tuple[Lease, float]:
        """Return the lease, and until when it is held; raises `BridgeError` if another process keeps it."""
        deadline = self.clock.monotonic() + max_wait
        reported = False
        while True:
            asked = self.clock.monotonic()
            lease = await self.ledger.acquire(self.name, owner, ttl)
            if lease is not None:
                return lease, asked + ttl
            is_over = await self._end_lease()
            if asked > deadline and not is_over:
                raise BridgeError(f"{self.name}: another process holds the lease; it does this work")
            if not reported and not is_over:
                waiting()
                reported = True
            await self.clock.sleep(min(0.5, self.cooldown_seconds) if is_over else 0.5)

    async def _end_lease(self) -> bool:
        """Return whether the process that has the lease has ended; then the lease is over after the cooldown."""
        holder = await self.ledger.holder(self.name)
        if holder is None or not is_ended(holder):
            return False
        if holder != self.ended:
            self.ended = holder
            # In its name, and so only if the lease is still its own.
            await self.ledger.acquire(self.name, holder, max(self.cooldown_seconds, _MIN_COOLDOWN_SECONDS))
        return True


async def _renew(ledger: Ledger, clock: Clock, lease: Lease, lease_deadline: LeaseDeadline) -> None:
    """Renew until it fails for good; returning means that the lease is lost."""
    while True:
        await clock.sleep(lease.ttl / 3)
        asked = clock.monotonic()
        try:
            await ledger.renew(lease)
            lease_deadline.until = asked + lease.ttl
        except LeaseLost:
            log.warning("lease.lost", lease=lease.name, consequence="nothing more is written under it")
            return
        except Unavailable as error:
            if clock.monotonic() >= lease_deadline.until:
                log.warning("lease.lost", lease=lease.name, reason=str(error), consequence="work stops")
                return


class LeaseRunner:
    """Runs a piece of work under a lease, again and again, until told to stop.

    A lease that is not our turn is left to others. If nobody takes it all the same, because the process whose turn it
    is cannot work or sees other processes than we do, this one stands in for a while.

    The work is cancelled as soon as the lease is known to be lost. What it might still write is refused by the lease's
    fencing token in any case, and what it might still ask a provider by its deadline.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        owner: str,
        ttl: float,
        *,
        report: Report = unreported,
        on_change: Callable[[str, bool], None] = lambda _, __: None,
    ) -> None:
        """Prepare; `on_change` hears the name of a lease, and whether this process holds it now."""
        self._ledger = ledger
        self._clock = clock
        self._owner = owner
        self._ttl = ttl
        self._report = report
        self._on_change = on_change

    async def run(
        self,
        name: str,
        work: Work,
        stop: asyncio.Event,
        *,
        standby: Callable[[], object] = lambda: None,
        turn: Turn | None = None,
    ) -> None:
        """Do `work` while the lease `name` is ours; `standby` is called whenever it is found not to be.

        Somebody else has it then, or the store cannot be asked who has. Without a `turn` it is always ours to take.
        """
        self._on_change(name, False)
        turn = turn or Turn()
        failures = refusals = 0
        while not stop.is_set():
            if not turn.is_ours:
                refusals = 0
                standby()
                if not await self._is_abandoned(name, turn, stop):
                    continue
            asked = self._clock.monotonic()
            try:
                lease = await self._ledger.acquire(name, self._owner, self._ttl)
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, cap=RECONNECT)
                self._report(f"lease/{name}", str(error))
                log.warning("lease.cannot_be_taken", lease=name, reason=str(error), again_in=round(wait, 1))
                standby()
                await wait_for_stop(stop, self._clock, wait)
                continue
            failures = 0
            self._report(f"lease/{name}", None)
            if lease is None:
                standby()
                refusals += 1
                await wait_for_stop(stop, self._clock, self._retry_seconds(refusals))
                continue
            refusals = 0
            lease_deadline = LeaseDeadline(name, asked + self._ttl, current().lease)
            await self._hold(lease, work, lease_deadline, self._until_over(turn, stop))

    def _retry_seconds(self, refusals: int) -> float:
        """Return the wait for a lease that another process has: short, unless that one keeps it for many leases."""
        is_soon = refusals * _MAX_RETRY_SECONDS < self._ttl * _CHECK_EVERY_LEASES
        return min(_MAX_RETRY_SECONDS, self._ttl / 5) if is_soon else self._ttl / 5

    async def _is_abandoned(self, name: str, turn: Turn, stop: asyncio.Event) -> bool:
        """Wait until it is our turn; True if before that nobody holds the lease for longer than one lease."""
        was_free = False
        while not stop.is_set() and not turn.is_ours:
            seconds = self._ttl if was_free else self._ttl * _CHECK_EVERY_LEASES
            await wait_for_any([stop, turn.gained], self._clock, seconds)
            if stop.is_set() or turn.is_ours:
                return False
            try:
                is_free = await self._ledger.holder(name) is None
            except Unavailable:
                is_free = False
            if is_free and was_free:
                log.warning("lease.abandoned", lease=name, consequence="this process stands in for the one that should")
                return True
            was_free = is_free
        return False

    async def _until_over(self, turn: Turn, stop: asyncio.Event) -> None:
        """Wait until the lease shall be given back."""
        if turn.is_ours:
            await wait_for_any([stop, turn.lost], self._clock)
        else:
            await wait_for_any([stop], self._clock, self._ttl * _STAND_IN_LEASES)

    async def _hold(
        self, lease: Lease, work: Work, lease_deadline: LeaseDeadline, until_over: Coroutine[Any, Any, None]
    ) -> None:
        self._on_change(lease.name, True)
        leave = asyncio.Event()
        leaving = asyncio.ensure_future(until_over)
        leaving.add_done_callback(lambda _: leave.set())
        working = run_until_deadline(lease_deadline, work(lease, leave))
        renewing = asyncio.ensure_future(_renew(self._ledger, self._clock, lease, lease_deadline))
        try:
            await asyncio.wait([working, renewing], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        except LeaseLost:
            log.warning("lease.lost", lease=lease.name, consequence="nothing more is written under it")
        finally:
            tasks = (working, renewing, leaving)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._on_change(lease.name, False)
            try:
                await self._ledger.release(lease)
            except Unavailable as error:
                log.warning(
                    "lease.cannot_be_given_back", lease=lease.name, reason=str(error),
                    consequence=f"it ends by itself within {self._ttl:g} s",
                )  # fmt: skip
