"""What a service is made of, built from a checked configuration and not yet opened."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from bridge.config.difference import ConfigDifference
from bridge.config.model import Config
from bridge.delivery import masking
from bridge.delivery.answers import kept_answer, secrets_of
from bridge.delivery.sending import KeepAnswer
from bridge.domain.errors import EndpointAnswer, OtherInstallation, Unavailable
from bridge.domain.event import Event, WireEvent
from bridge.protocols.broker import Broker
from bridge.protocols.deliveries import KeptAnswer
from bridge.protocols.sink import Sink, SinkSettings
from bridge.protocols.source import Source, SourceSettings
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly
from bridge.runtime.installation import claim_broker, claim_store

log = structlog.get_logger()

GAUGES_EVERY_SECONDS = 5.0
TRIM_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConfiguredSource:
    """A source as it was built from the configuration."""

    kind: str
    settings: SourceSettings
    source: Source


@dataclass(frozen=True, slots=True)
class ConfiguredSink:
    """A sink as it was built from the configuration."""

    settings: SinkSettings
    sink: Sink
    mask: Callable[[WireEvent], WireEvent]
    """Masks the personal data that this sink may not see."""
    keep_answer: KeepAnswer | None = None
    """Redacts the endpoint's answer for a dead letter; None keeps none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the process may keep, and how long it may take; all times are in seconds."""

    lease: float
    claim: float
    drain: float
    """How long the process may take to end after a stop signal."""
    journal_keep: float
    journal_bytes: int
    audit_every: float
    """Between two looks for events that the broker lost; more than a message needs from the broker to the store."""
    reconcile_every: float | None
    """Between two comparisons of a source's books with its provider; None is never."""
    gauges_every: float = GAUGES_EVERY_SECONDS
    trim_every: float = TRIM_EVERY_SECONDS


class PrivacyKey:
    """The key of masked phones and keys; empty until it is fetched, which needs the store."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes]] | None = None) -> None:
        self.value = b""
        self._fetch = fetch

    async def fetch_for(self, sinks: Iterable[SinkSettings]) -> None:
        """Have the key if any of the sinks needs it; raises `Unavailable`."""
        if self._fetch is not None and not self.value and any(settings.privacy != "full" for settings in sinks):
            self.value = await self._fetch()


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """Everything that a service is made of; nothing of it is open yet."""

    store: Store
    broker: Broker
    sources: Mapping[str, ConfiguredSource]
    sinks: Mapping[str, ConfiguredSink]
    read: Callable[[bytes], Event]
    """Reads an event's bytes into its class."""
    open: Callable[[], Awaitable[None]]
    """Opens the store and tries the broker; may be called again after `Unavailable`."""
    limits: Limits
    generation: str = ""
    """Tells this configuration from another; the same in every process that has the same settings."""
    privacy: PrivacyKey = field(default_factory=PrivacyKey)

    @property
    def names(self) -> Sequence[str]:
        """The sources and sinks as parts: `source/city`, `sink/crm`."""
        return [*(f"source/{name}" for name in self.sources), *(f"sink/{name}" for name in self.sinks)]

    def closers_without(self, others: ServiceParts) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what closes the sources and sinks that others do not have as well, by what they are called in logs."""
        closers: dict[str, Callable[[], Awaitable[None]]] = {
            f"source {name}": part.source.close
            for name, part in self.sources.items()
            if others.sources.get(name) is not part
        }
        closers |= {
            f"sink {name}": part.sink.close for name, part in self.sinks.items() if others.sinks.get(name) is not part
        }
        return closers


def generation_of(config: Config) -> str:
    """Return eight digits for the settings of a configuration; secrets, and the machine's own state, are left out."""
    own = ("state", "http", "log", "reload")
    shown = {key: value for key, value in config.show().items() if key not in own}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:8]


def build(assembly: Assembly) -> ServiceParts:
    """Return the parts that a configuration names; raises `ConfigError`, and has no side effects."""
    config = assembly.config
    store, broker = assembly.store(), assembly.broker()
    privacy = PrivacyKey(partial(assembly.privacy_key, store))

    async def open_both() -> None:
        try:
            await open_own()
        except OtherInstallation as error:
            raise assembly.foreign(error) from error

    async def open_own() -> None:
        assembly.make_state()
        await store.open()
        mark = await claim_store(store, config.names)
        await privacy.fetch_for(config.sinks.values())
        try:
            await broker.open()
            await claim_broker(store, broker, mark)
        except OtherInstallation:
            raise
        except Unavailable as error:
            log.warning(
                "bridge.starts_without_broker", reason=str(error),
                consequence="events wait in the journal until the broker answers",
            )  # fmt: skip

    return ServiceParts(
        store=store,
        broker=broker,
        sources={name: _source(assembly, name) for name in config.sources},
        sinks={name: _sink(assembly, name, privacy) for name in config.sinks},
        read=assembly.catalogue().read,
        open=open_both,
        limits=_limits(config),
        generation=generation_of(config),
        privacy=privacy,
    )


async def rebuild(assembly: Assembly, former: ServiceParts, difference: ConfigDifference) -> ServiceParts:
    """Return the parts of another configuration: of `former`, all that does not differ, the very same objects.

    Raises `ConfigError`, and has no side effects. However many parts are new, other work waits for one of them at most.
    """
    sources: dict[str, ConfiguredSource] = {}
    for name in assembly.config.sources:
        is_same = name in difference.sources.unchanged
        sources[name] = former.sources[name] if is_same else _source(assembly, name)
        await asyncio.sleep(0)
    sinks: dict[str, ConfiguredSink] = {}
    for name in assembly.config.sinks:
        is_same = name in difference.sinks.unchanged
        sinks[name] = former.sinks[name] if is_same else _sink(assembly, name, former.privacy)
        await asyncio.sleep(0)
    return replace(
        former,
        sources=sources,
        sinks=sinks,
        read=assembly.catalogue().read,
        limits=_limits(assembly.config),
        generation=generation_of(assembly.config),
    )


def _source(assembly: Assembly, name: str) -> ConfiguredSource:
    settings = assembly.config.sources[name]
    return ConfiguredSource(settings.type, settings, assembly.source(name))


def _sink(assembly: Assembly, name: str, privacy: PrivacyKey) -> ConfiguredSink:
    settings = assembly.config.sinks[name]

    def mask(wire: WireEvent) -> WireEvent:
        return masking.apply(settings.privacy, wire, privacy.value)

    def keep(wire: WireEvent, answer: EndpointAnswer) -> KeptAnswer:
        secrets = secrets_of(settings)  # as they are now
        return kept_answer(answer, wire, level=settings.privacy, key=privacy.value, secrets=secrets)

    return ConfiguredSink(settings, assembly.sink(name), mask, keep)


def _limits(config: Config) -> Limits:
    return Limits(
        lease=config.lease,
        claim=config.claim,
        drain=config.drain_timeout,
        journal_keep=config.journal.keep,
        journal_bytes=config.journal.max_bytes,
        audit_every=config.audit,
        reconcile_every=config.reconcile.every,
    )
