"""The long-lived process: polls, relays, delivers, keeps the books, and ends in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

import structlog

from bridge import __version__
from bridge.config.difference import ConfigDifference
from bridge.coordination.leases import wait_for_stop
from bridge.coordination.quota import accounts
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.retry import RECONNECT, Backoff
from bridge.runtime.assembly import Assembly
from bridge.runtime.attendance import Attendance
from bridge.runtime.config_file import ConfigFile
from bridge.runtime.health import HealthMonitor
from bridge.runtime.once import OnceReport, OnceRunner
from bridge.runtime.parts import ServiceParts, rebuild
from bridge.runtime.process import Process
from bridge.runtime.relay_runner import RelayRunner
from bridge.runtime.reload import Reloader, Settle
from bridge.runtime.retention import Retention
from bridge.runtime.sink_changes import SinkChanges
from bridge.runtime.sink_runner import SinkRunner
from bridge.runtime.source_changes import SourceChanges
from bridge.runtime.source_runner import SourceRunner
from bridge.runtime.supervisor import Supervisor

log = structlog.get_logger()

ROLES = ("poll", "relay", "sink")
_POLLS_END_SHARE = 0.4
"""The part of the drain time in which polls should end; then relaying stops, too."""
_RELAYS_END_SHARE = 0.7


class Service:
    """Runs the roles of one process.

    Each source, each sink and each relay is a part of its own: a part that fails backs off and is started again, and
    the others go on.
    """

    def __init__(
        self, parts: ServiceParts, clock: Clock, *, roles: Collection[str] = ROLES, file: ConfigFile | None = None
    ) -> None:
        """Prepare; with the `file` of its configuration the service can follow another one while it works."""
        self.process = Process(parts, clock, frozenset(roles))
        self.sources = SourceRunner(self.process)
        self.sinks = SinkRunner(self.process)
        self.reloader = None if file is None else Reloader(self.process, file, self._follow)
        self.health = HealthMonitor(self.process, () if self.reloader is None else [self.reloader.route])
        self.attendance = Attendance(self.process, self.sinks.open_circuits)
        self._relays = RelayRunner(self.process)
        self._retention = Retention(self.process, self.sinks)
        self._polling = SourceChanges(self.process, self.sources)
        self._delivering = SinkChanges(self.process, self.sinks)
        self._clock = clock

    @property
    def _parts(self) -> ServiceParts:
        return self.process.parts

    async def run(self, stop: asyncio.Event, *, listen: tuple[str, int] | None = None) -> None:
        """Work until `stop` is set, then drain: stop polling, relay, finish or release deliveries, and return."""
        process = self.process
        log.info("bridge.starts", version=__version__, roles=sorted(process.roles), owner=process.owner)
        background = process.supervisor(process.ended)
        background.start("heartbeat", self.health.heartbeat)
        if listen is not None:
            background.start("health pages", partial(self.health.serve, *listen))
        try:
            if await self._open(stop):
                background.start("roster", self.attendance.run)
                await self._work(stop)
        finally:
            process.ended.set()
            await background.close()
            await self._close()
            log.info("bridge.ended", consequence="what was not finished goes on at the next start")

    async def once(self) -> OnceReport:
        """Poll every source once, relay and deliver what came of it, and return.

        A source that fails is in the report, and the others go on. What a sink could not accept waits in the store for
        the next run. Raises `Unavailable` if the store or the broker cannot be reached.
        """
        try:
            await self._parts.open()
            await self.sinks.register()
            await self.attendance.follow_orders()
            return await OnceRunner(self.process, self.sources, self.sinks).run()
        finally:
            await self._close()

    async def _work(self, stop: asyncio.Event) -> None:
        process = self.process
        polling = process.supervisor(process.stop_polling)
        relaying = process.supervisor(process.stop_relaying)
        others = process.supervisor(process.stop)
        reloading = process.supervisor(asyncio.Event())
        if "poll" in process.roles:
            self._polling.start(polling)
        if "relay" in process.roles:
            relaying.start("relays", self._relays.run)
        if "sink" in process.roles:
            self._delivering.start(others)
        others.start("books", self._retention.run)
        if self.reloader is not None:
            reloading.start("reload", self.reloader.run)
        try:
            await stop.wait()
            await reloading.close()
            await self._drain(polling, relaying, others)
        finally:
            await asyncio.gather(reloading.close(), polling.close(), relaying.close(), others.close())

    async def _follow(self, assembly: Assembly, difference: ConfigDifference) -> Settle:
        """Have another configuration in effect; raises `ConfigError` and `Unavailable`, and then nothing has changed.

        Return what waits until all parts that differ have ended and started.
        """
        former = self._parts
        try:
            parts = await rebuild(assembly, former, difference)
            accounts({name: part.source for name, part in parts.sources.items()})  # a plugin's defect shows here
            await parts.privacy.fetch_for(part.settings for part in parts.sinks.values())
            # Before anything else is polled, as at a start: what is published from now on is expected at each sink.
            await self.sinks.register(parts.sinks)
            orders = await parts.store.orders()
        except BaseException:
            self._polling.apply_rates()  # what was built may have lowered them
            raise
        self.process.exchange_parts(parts, orders)
        self.sources.register()

        async def settle() -> None:
            with suppress(Unavailable):  # the next announcement brings the turns of accounts that are new
                await self.attendance.begin()
            follows = (self._polling.follow(former.sources), self._delivering.follow(former.sinks))
            for outcome in await asyncio.gather(*follows, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

        return settle

    async def _drain(self, polling: Supervisor, relaying: Supervisor, others: Supervisor) -> None:
        process, seconds = self.process, self._parts.limits.drain
        log.info("bridge.drains", consequence=f"polling stops; everything else ends within {seconds:g} s")
        started = self._clock.monotonic()
        process.stop_polling.set()
        self.attendance.wake()
        await self._join(polling, started + seconds * _POLLS_END_SHARE)
        # What was committed last still goes to the broker.
        process.stop_relaying.set()
        await self._join(relaying, started + seconds * _RELAYS_END_SHARE)
        process.stop.set()
        await self._join(others, started + seconds)

    async def _join(self, supervisor: Supervisor, deadline: float) -> None:
        """Wait until the parts have ended, or until `deadline` on the monotonic clock, half a second at least."""
        await supervisor.join(max(0.5, deadline - self._clock.monotonic()))

    async def _open(self, stop: asyncio.Event) -> bool:
        """Open the store and register the sinks, however long it takes; say whether to go on."""
        backoff = Backoff(self._clock.random, cap=RECONNECT)
        while not stop.is_set():
            try:
                await self._parts.open()
                await self.sinks.register()
                self.sources.register()
                await self.attendance.begin()
            except Unavailable as error:
                wait = backoff.on_failure()
                self._report_start(str(error))
                log.warning("bridge.waits_for_store", reason=str(error), again_in=round(wait, 1))
                await wait_for_stop(stop, self._clock, wait)
            else:
                self._report_start(None)
                return True
        return False

    def _report_start(self, reason: str | None) -> None:
        self.process.health.set("store", reason)
        self.process.health.set("start", reason)  # stays when the store answers and only lacks a right

    async def _close(self) -> None:
        closers: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *self.process.leaving.items(),
            *((f"source {name}", part.source.close) for name, part in self._parts.sources.items()),
            *((f"sink {name}", part.sink.close) for name, part in self._parts.sinks.items()),
            ("broker", self._parts.broker.close),
            ("roster", self.attendance.end),
            ("store", self._parts.store.close),
        ]
        for name, close in closers:
            await self.process.close(name, close)
