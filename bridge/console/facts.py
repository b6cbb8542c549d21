"""What the pages and the read API show: read from the store, masked, and kept for a moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from bridge.config.model import HttpSettings
from bridge.console.masks import Masks
from bridge.console.rates import SAMPLE_SECONDS, Rates
from bridge.coordination.leases import wait_for_stop
from bridge.domain.errors import BridgeError, Unavailable
from bridge.http.limiter import known_limiter
from bridge.operations.delivery_filter import code_of
from bridge.operations.overview import plain_overview
from bridge.protocols.deliveries import RELAY_SINK
from bridge.protocols.source import HasAccount
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview_reader import read_open_overview
from bridge.runtime.parts import ServiceParts

log = structlog.get_logger()

T = TypeVar("T")
_KEPT_SECONDS = 1.0
"""Seconds for which an answer serves everybody who asks."""
_ANSWERS_KEPT_SECONDS = 10.0
_ANSWERS_READ_DELIVERIES = 1000
_DAY_SECONDS = 86400.0
_INTERNAL_JOURNAL = "_bridge"


class ConsoleFacts:
    """Reads for the console, by a connection of its own that writes nothing: nothing else waits for it."""

    def __init__(self, assembly: Assembly, parts: ServiceParts, settings: HttpSettings) -> None:
        self.assembly = assembly
        self.parts = parts
        self.clock = assembly.clock
        self.rates = Rates()
        self._settings = settings
        self._store: Store | None = None
        self._masks: Masks | None = None
        self._opening = asyncio.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}
        self._reading: dict[str, asyncio.Lock] = {}

    # the store

    async def store(self) -> Store:
        """Return the console's own view of the store; raises `Unavailable`."""
        async with self._opening:
            if self._store is None:
                store = self.assembly.store(read_only=True)
                try:
                    await store.open()
                    # A file that the process has not made yet is read as an empty one.
                    is_ready = await store.mark() is not None
                except BaseException:
                    await store.close()
                    raise
                if not is_ready:
                    await store.close()
                    raise Unavailable("the store is not ready yet")
                self._store = store
            return self._store

    async def close(self) -> None:
        """Give the connection back."""
        if self._store is not None:
            store, self._store = self._store, None
            await store.close()

    async def masks(self) -> Masks:
        """Return what may be shown of personal data."""
        if self._masks is None:
            level = self._settings.privacy
            key = await self.assembly.privacy_key(self.parts.store) if level == "token" else b""
            self._masks = Masks(level, key)
        return self._masks

    async def shared(self, name: str, read: Callable[[], Awaitable[T]], seconds: float = _KEPT_SECONDS) -> T:
        """Return what `read` returned within the last seconds; many who ask at once make it read once."""
        async with self._reading.setdefault(name, asyncio.Lock()):
            at, value = self._kept.get(name, (float("-inf"), None))
            if self.clock.monotonic() - at >= seconds:
                kept = self._kept
                value = await read()
                kept[name] = (self.clock.monotonic(), value)
            return value  # type: ignore[no-any-return]  # what `read` returned

    def forget(self) -> None:
        """Have the next page read anew: something was changed. What is being read now is not kept either."""
        self._kept = {}

    # counters

    async def run(self, ended: asyncio.Event) -> None:
        """Take samples of the counters until the process ends."""
        try:
            while True:
                with suppress(BridgeError):
                    await self.sample()
                if await wait_for_stop(ended, self.clock, SAMPLE_SECONDS):
                    return
        finally:
            await self.close()

    async def sample(self) -> None:
        """Take a sample; raises `Unavailable`."""
        store, counters = await self.store(), dict[str, int]()
        for name in self.assembly.config.sources:
            journal = await store.journal(name)
            counters[f"committed/{name}"] = journal.events
            counters[f"confirmed/{name}"] = journal.events - journal.backlog
            if (requests := self._requests(name)) is not None:
                counters[f"requests/{name}"] = requests
        for name in self.assembly.config.sinks:
            counts = (await store.counts(name)).values()
            counters[f"delivered/{name}"] = sum(count.delivered for count in counts)
        self.rates.add(self.clock.monotonic(), counters)

    def _requests(self, name: str) -> int | None:
        """Return how many requests this process has made for the account of a source; None if it made none."""
        part = self.parts.sources.get(name)
        if part is None or not isinstance(part.source, HasAccount):
            return None
        limiter = known_limiter(part.source.account, self.clock)
        return None if limiter is None else limiter.granted

    # the overview

    async def overview(self) -> dict[str, Any]:
        """Return whether all is well, as `bridgectl status --json` does, with rates."""
        return await self.shared("overview", self._overview)

    async def _overview(self) -> dict[str, Any]:
        overview = await read_open_overview(self.assembly, self.store, self.parts.broker.ping)
        if overview.store_problem is not None:
            await self.close()  # the next one connects anew
        masks = await self.masks()
        plain = plain_overview(overview)
        for finding in (*plain["problems"], *plain["remarks"]):
            finding["text"] = masks.text(finding["text"])
        for source in plain["sources"]:
            source["error"] = masks.text(source["error"])
            source.update(self._source_figures(source["name"]))
        for sink in plain["sinks"]:
            sink["reason"], sink["last_error"] = masks.text(sink["reason"]), masks.text(sink["last_error"])
            sink["mutes"] = [
                mute | {"reason": masks.text(mute["reason"]), "where": masks.values(mute["where"])}
                for mute in sink["mutes"]
            ]
            sink["per_second"] = self.rates.per_second(f"delivered/{sink['name']}")
        return plain | {"rates": self._rates()}

    def _source_figures(self, name: str) -> dict[str, Any]:
        settings = self.assembly.config.sources[name]
        requests, seconds = self.rates.counted(f"requests/{name}")
        used = self.rates.per_second(f"requests/{name}")
        return {
            "per_second": self.rates.per_second(f"committed/{name}"),
            "confirmed_per_second": self.rates.per_second(f"confirmed/{name}"),
            "interval_seconds": settings.interval,
            "budget": {
                "per_second": settings.rate,
                "used_per_second": used,
                "share": None if used is None else min(1.0, used / settings.rate),
                "requests_per_day": round(requests / seconds * _DAY_SECONDS) if seconds else None,
                "measured_seconds": round(seconds),
            },
        }

    def _rates(self) -> dict[str, Any]:
        config = self.assembly.config
        committed = [f"committed/{name}" for name in config.sources]
        confirmed = [f"confirmed/{name}" for name in config.sources]
        delivered = [f"delivered/{name}" for name in config.sinks]
        return {
            "committed": self._sum(committed),
            "confirmed": self._sum(confirmed),
            "delivered": self._sum(delivered),
            "sample_seconds": SAMPLE_SECONDS,
            "committed_series": [round(value, 2) for value in self.rates.series(*committed)],
            "delivered_series": [round(value, 2) for value in self.rates.series(*delivered)],
        }

    def _sum(self, names: list[str]) -> float | None:
        values = [value for name in names if (value := self.rates.per_second(name)) is not None]
        return sum(values) if values else None

    # sinks

    async def answers(self, sink: str) -> dict[str, int]:
        """Return how often each status was the last answer to what waits for a sink or is dead, of the first thousand.

        The name of a try without an answer is `none`.
        """

        async def read() -> dict[str, int]:
            deliveries = await (await self.store()).deliveries(sink, limit=_ANSWERS_READ_DELIVERIES)
            codes = Counter(str(code_of(delivery) or "none") for delivery in deliveries if delivery.attempts)
            return dict(codes.most_common())

        return await self.shared(f"answers/{sink}", read, _ANSWERS_KEPT_SECONDS)

    async def sinks(self) -> list[dict[str, Any]]:
        """Return the sinks of the overview, each with the answers to what waits and is dead."""
        overview = await self.overview()
        return [sink | {"answers": await self.answers(sink["name"])} for sink in overview["sinks"]]

    async def sink_topics(self, name: str) -> Mapping[str, Any]:
        """Return what a sink of the configuration is told to get; empty for another one."""
        settings = self.assembly.config.sinks.get(name)
        if settings is None:
            kind = "what the broker did not accept" if name == RELAY_SINK else "no longer configured"
            return {"topics": [], "filter": None, "ordered": False, "note": kind}
        where = None if settings.where is None else (await self.masks()).text(str(settings.where))
        return {"topics": list(settings.topics), "filter": where, "ordered": settings.ordered, "note": ""}

    # journals

    async def journals(self) -> list[str]:
        """Return the names of all journals: of the sources, and the bridge's own."""
        return list(await (await self.store()).sources())
