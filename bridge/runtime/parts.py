"""What a service is made of, built from a checked configuration and not yet opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from bridge.config.model import Config, HooksSettings
from bridge.delivery import masking
from bridge.delivery.answers import kept_answer, secrets_of
from bridge.delivery.sending import KeepAnswer
from bridge.domain.errors import OtherInstallation, Unavailable
from bridge.domain.event import Event, WireEvent
from bridge.protocols.broker import Broker
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
    hooks: HooksSettings | None = None
    """Where providers push; None is nowhere."""
    generation: str = ""
    """Tells this configuration from another; the same in every process that has the same settings."""


def generation_of(config: Config) -> str:
    """Return eight digits for the settings of a configuration; secrets, and the machine's own state, are left out."""
    own = ("state", "http", "hooks", "log")
    shown = {key: value for key, value in config.show().items() if key not in own}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:8]


def build(assembly: Assembly) -> ServiceParts:
    """Return the parts that a configuration names; raises `ConfigError`, and has no side effects."""
    config = assembly.config
    store, broker = assembly.store(), assembly.broker()
    keys: list[bytes] = []

    async def open_both() -> None:
        try:
            await open_own()
        except OtherInstallation as error:
            raise assembly.foreign(error) from error

    async def open_own() -> None:
        assembly.make_state()
        await store.open()
        mark = await claim_store(store, config.names)
        if not keys and any(settings.privacy != "full" for settings in config.sinks.values()):
            keys.append(await assembly.privacy_key(store))
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

    def mask(settings: SinkSettings) -> Callable[[WireEvent], WireEvent]:
        return lambda wire: masking.apply(settings.privacy, wire, keys[0] if keys else b"")

    def keep(settings: SinkSettings) -> KeepAnswer:
        return lambda wire, answer: kept_answer(
            answer, wire, level=settings.privacy, key=keys[0] if keys else b"", secrets=secrets_of(settings)
        )

    sources = assembly.sources()
    assembly.check_pushes(sources)
    assembly.check_expectations(sources)
    return ServiceParts(
        store=store,
        broker=broker,
        sources={
            name: ConfiguredSource(config.sources[name].type, config.sources[name], source)
            for name, source in sources.items()
        },
        sinks={
            name: ConfiguredSink(config.sinks[name], sink, mask(config.sinks[name]), keep(config.sinks[name]))
            for name, sink in assembly.sinks().items()
        },
        read=assembly.catalogue().read,
        open=open_both,
        limits=Limits(
            lease=config.lease,
            claim=config.claim,
            drain=config.drain_timeout,
            journal_keep=config.journal.keep,
            journal_bytes=config.journal.max_bytes,
            audit_every=config.audit,
            reconcile_every=config.reconcile.every,
        ),
        hooks=config.hooks,
        generation=generation_of(config),
    )
