"""Starts the polling of all accounts, and of another configuration starts and ends only what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from bridge.coordination.quota import polling_lease
from bridge.http.limiter import change_rate
from bridge.protocols.source import HasAccount
from bridge.runtime.parts import ConfiguredSource
from bridge.runtime.polled_accounts import PolledAccount
from bridge.runtime.process import Process
from bridge.runtime.source_runner import SourceRunner
from bridge.runtime.supervisor import Supervisor


class SourceChanges:
    """The accounts that a process polls, by their leases.

    A source that did not change is polled on by the same poller. A new lease for it, because its account has more or
    fewer sources, is acquired between two polls. No source is started before its former self has ended.
    """

    def __init__(self, process: Process, sources: SourceRunner) -> None:
        self._process = process
        self._sources = sources
        self._supervisor: Supervisor | None = None
        self._polled: dict[str, PolledAccount] = {}

    def start(self, supervisor: Supervisor) -> None:
        """Start polling, one part for each account."""
        self._supervisor = supervisor
        for names in self._sources.accounts():
            self._show(names)
            self._begin(names, set())

    async def follow(self, former: Mapping[str, ConfiguredSource]) -> None:
        """Poll the sources of the process, which have replaced `former`; return when all of these have ended."""
        self.apply_rates()
        ends: dict[str, asyncio.Future[None]] = {}
        starts: list[tuple[Sequence[str], Callable[[Sequence[str]], None]]] = []
        wanted = {polling_lease(names): names for names in self._sources.accounts()} if self._supervisor else {}
        before = dict(self._polled)
        for polled in before.values():
            names = wanted.get(polled.lease, ())
            if len(polled.sources) > 1 and len(names) > 1:
                starts.append(self._change_members(polled, names, ends))
            elif _differ(polled.sources, self._chosen(names)):
                del self._polled[polled.lease]
                ends |= dict.fromkeys(polled.sources, asyncio.ensure_future(self._end(polled)))
        for name in former.keys() - {name for polled in before.values() for name in polled.sources}:
            ends[name] = asyncio.ensure_future(self._leave(name, former[name]))
        if self._supervisor is not None:
            self._show(name for name, part in self._process.parts.sources.items() if former.get(name) is not part)
        unchanged = {name for name, part in former.items() if self._process.parts.sources.get(name) is part}
        begin = partial(self._begin, going_on=unchanged & self._sources.pollers.keys())
        starts += [(names, begin) for lease, names in wanted.items() if lease not in self._polled]
        await asyncio.gather(*ends.values(), *(_start_after(ends, names, start) for names, start in starts))

    def apply_rates(self) -> None:
        """Give each account the lowest rate of its present sources: also a higher one than before."""
        parts = self._process.parts.sources
        for names in self._sources.accounts():
            source = parts[names[0]].source
            if isinstance(source, HasAccount):
                change_rate(source.account, self._sources.rate(names), self._process.clock)

    def _chosen(self, names: Sequence[str]) -> dict[str, ConfiguredSource]:
        return {name: self._process.parts.sources[name] for name in names}

    # starting

    def _show(self, names: Iterable[str]) -> None:
        for name in names:
            self._sources.show_bounds(name)

    def _begin(self, names: Sequence[str], going_on: set[str]) -> None:
        if self._supervisor is None or self._process.stop_polling.is_set():
            return
        lease, stop = polling_lease(names), self._process.stop_polling.below()
        quota, turn = self._sources.quota(names), self._process.shares.account(lease)
        polled = PolledAccount(lease, self._chosen(names), quota, stop, turn, going_on & set(names))
        self._polled[lease] = polled
        self._supervisor.start(lease, self._sources.account(polled), stop)

    def _change_members(
        self, polled: PolledAccount, names: Sequence[str], ends: dict[str, asyncio.Future[None]]
    ) -> tuple[Sequence[str], Callable[[Sequence[str]], None]]:
        """Have an account poll other sources, under the lease that it has; return which are to start, and how."""
        before, polled.sources = polled.sources, self._chosen(names)
        polled.quota.change_rate(self._sources.rate(names))
        for name, part in before.items():
            if polled.sources.get(name) is not part:
                ends[name] = asyncio.ensure_future(self._end_member(polled, name, part))
        joining = [name for name in names if before.get(name) is not polled.sources[name]]

        def begin(joined: Sequence[str]) -> None:
            for name in joined:
                polled.begin(name, self._sources.poll)

        return joining, begin

    # ending

    async def _end(self, polled: PolledAccount) -> None:
        polled.stop.set()
        if self._supervisor is not None:
            await self._supervisor.end(polled.lease, self._process.parts.limits.drain)
            self._process.health.set(f"lease/{polled.lease}", None)
        present = self._process.parts.sources
        if polled.lease not in {*map(polling_lease, self._sources.accounts()), *(f"source/{name}" for name in present)}:
            self._process.metrics.forget_lease(polled.lease)
        for name, part in polled.sources.items():
            await self._leave(name, part)

    async def _end_member(self, polled: PolledAccount, name: str, part: ConfiguredSource) -> None:
        await polled.end(name, self._process.parts.limits.drain)
        await self._leave(name, part)

    async def _leave(self, name: str, part: ConfiguredSource) -> None:
        """Close a source that is not polled any more, unless it goes on with other sources of its account."""
        now = self._process.parts.sources.get(name)
        if now is part:
            return
        self._sources.pollers.pop(name, None)
        await self._process.close(f"source {name}", part.source.close)
        if now is None:
            self._sources.states.pop(name, None)
            self._process.metrics.forget_lease(f"source/{name}")
            self._process.forget(f"source/{name}")


def _differ(sources: Mapping[str, ConfiguredSource], others: Mapping[str, ConfiguredSource]) -> bool:
    return sources.keys() != others.keys() or any(others[name] is not part for name, part in sources.items())


async def _start_after(
    ends: Mapping[str, asyncio.Future[None]], names: Sequence[str], start: Callable[[Sequence[str]], None]
) -> None:
    await asyncio.gather(*(ends[name] for name in names if name in ends))
    start(names)
