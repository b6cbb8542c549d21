"""What an operator orders of single parts: to rest until they are resumed, and to poll now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bridge.coordination.mutes import Mutes
from bridge.protocols.roster import Orders, Pause, StartedPoll

T = TypeVar("T")


class Gate:
    """The orders for one part. The part asks before it works, and is woken when they change."""

    def __init__(self, begun: Callable[[str], None] = lambda _: None) -> None:
        """Prepare; `begun` is called with the id of a requested poll when the part begins to poll."""
        self.pause: Pause | None = None
        self.mutes = Mutes()
        """Which events of a sink an operator has muted."""
        self.changed = asyncio.Event()
        """Set when the part has a reason to end its wait early."""
        self._begun = begun
        self._paused = asyncio.Event()
        self._request: str | None = None

    def set_pause(self, pause: Pause | None) -> bool:
        """Take the order to rest, or to work; say whether that is new."""
        is_new = (pause is None) != (self.pause is None)
        self.pause = pause
        if is_new:
            (self._paused.clear if pause is None else self._paused.set)()
            self.changed.set()
        return is_new

    def request_poll(self, request: str) -> None:
        """Have the part poll as soon as it may."""
        if request != self._request:
            self._request = request
            self.changed.set()

    def withdraw_poll(self) -> None:
        """Forget a request that nobody waits for any more."""
        self._request = None

    def begin_poll(self) -> None:
        """Note that the part polls now: that is what was requested."""
        if self._request is not None:
            request, self._request = self._request, None
            self.changed.clear()
            self._begun(request)

    async def run_until_paused(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` returns, or raise what it raises; cancel it and return None when the part is paused."""
        working = asyncio.ensure_future(work)
        tasks: list[asyncio.Future[Any]] = [working]
        try:
            while not working.done() and self.pause is None:
                paused = asyncio.ensure_future(self._paused.wait())
                tasks.append(paused)
                await asyncio.wait([working, paused], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Gates:
    """The gates of one process by part, `source/NAME` or `sink/NAME`, and the polls that it has begun on request."""

    def __init__(self, owner: str, epoch: Callable[[], float], report: Callable[[str, Pause | None], None]) -> None:
        """Prepare; `report` is called with a part and its pause, or None, when an operator paused or resumed it."""
        self.started: list[StartedPoll] = []
        """Requested polls that this process has begun, and has not yet said so in the store."""
        self.has_started = asyncio.Event()
        self._owner = owner
        self._epoch = epoch
        self._report = report
        self._gates: dict[str, Gate] = {}

    def of(self, part: str) -> Gate:
        """Return the gate of a part."""
        if part not in self._gates:
            source = part.removeprefix("source/")
            self._gates[part] = Gate(lambda request: self._on_begun(source, request))
        return self._gates[part]

    @property
    def pauses(self) -> dict[str, Pause]:
        """The pauses of the parts of this process."""
        return {part: gate.pause for part, gate in sorted(self._gates.items()) if gate.pause is not None}

    def apply(self, orders: Orders) -> None:
        """Have the parts of this process follow the orders."""
        for part, gate in self._gates.items():
            if gate.set_pause(orders.pauses.get(part)):
                self._report(part, gate.pause)
            gate.mutes.apply((mute for mute in orders.mutes.values() if f"sink/{mute.sink}" == part), self._epoch())
            source = part.removeprefix("source/")
            if part.startswith("source/") and source in orders.polls:
                gate.request_poll(orders.polls[source])
            else:
                gate.withdraw_poll()

    def _on_begun(self, source: str, request: str) -> None:
        self.started.append(StartedPoll(source, request, self._owner, self._epoch()))
        self.has_started.set()
