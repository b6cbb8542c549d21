"""From a checked configuration to the parts it names: built, not yet opened, and without side effects."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from bridge.config import registry
from bridge.config.model import Config
from bridge.config.types import EMBEDDED, sqlite_path
from bridge.domain.catalogue import INTERNAL_EVENTS, Catalogue
from bridge.domain.clock import Clock
from bridge.domain.errors import ConfigError, OtherInstallation, Permanent, Unavailable
from bridge.domain.event import Event
from bridge.domain.settings import format_duration
from bridge.protocols.broker import OpenBroker
from bridge.protocols.hints import TakesPushes
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import Sink
from bridge.protocols.source import HasResourceTypes, Source
from bridge.protocols.store import Store
from bridge.runtime.installation import KeptInstallation

_KEY_NOTE = "secret/privacy"
_KEY_LEASE = "secret/privacy"
_KEY_LEASE_SECONDS = 10.0


class Assembly:
    """Builds the parts of a configuration. Only the adapters and plugins that it names are imported."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock()

    def store(self, *, read_only: bool = False) -> Store:
        """Return the store, not yet opened; raises `ConfigError` where its adapter cannot read the URL after all.

        With `read_only` it makes nothing: a file that is not there yet is read as an empty store.
        """
        url = self.config.store_url
        if url.startswith("sqlite:"):
            from bridge.adapters.sqlite.store import SqliteStore

            return SqliteStore(Path(sqlite_path(url)), clock=self.clock, read_only=read_only)
        from bridge.adapters.redis.store import RedisStore

        try:
            return RedisStore(url, clock=self.clock, namespace=self.config.names, read_only=read_only)
        except ValueError as error:
            raise self.config.problem(("store",), str(error)) from None

    def broker(self) -> OpenBroker:
        """Return the broker, not yet opened; raises `ConfigError` where its adapter cannot read the URL after all."""
        names = self.config.names
        if self.config.broker_url == EMBEDDED:
            from bridge.adapters.sqlite.broker import SqliteBroker

            return SqliteBroker(self.config.broker_file, clock=self.clock, namespace=names)
        from bridge.adapters.kombu.broker import KombuBroker

        try:
            return KombuBroker(self.config.broker_url, exchange=self.config.exchange, clock=self.clock, namespace=names)
        except ValueError as error:
            raise self.config.problem(("broker",), str(error)) from None

    def check_addresses(self) -> None:
        """Have the adapters read both URLs; raises `ConfigError` with a problem for each that cannot be read."""
        problems = []
        for build in (self.store, self.broker):
            try:
                build()
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)

    def source(self, name: str) -> Source:
        """Return one source; raises `ConfigError` where its plugin refuses the settings after all."""
        settings = self.config.sources[name]
        plugin = registry.load_source(settings.type)
        if not isinstance(settings, plugin.settings):
            raise self.config.problem(("sources", name), "names a variable that is not set and is needed here; set it")
        try:
            return plugin.build(name, settings, self.clock)
        except (ValueError, Permanent) as error:
            raise self.config.problem(("sources", name), _refusal(error)) from error

    def sink(self, name: str) -> Sink:
        """Return one sink; raises `ConfigError` where its plugin refuses the settings after all."""
        settings = self.config.sinks[name]
        try:
            return registry.load_sink(settings.type).build(name, settings, self.clock)
        except (ValueError, Permanent) as error:
            raise self.config.problem(("sinks", name), _refusal(error)) from error

    def sources(self) -> dict[str, Source]:
        """Return all sources by name."""
        return {name: self.source(name) for name in self.config.sources}

    def check_pushes(self, sources: Mapping[str, Source]) -> None:
        """Raise `ConfigError` if a source is to be pushed to, and there is no server for it."""
        for name, source in sources.items():
            if self.config.hooks is None and isinstance(source, TakesPushes) and source.pushes is not None:
                raise self.config.problem(
                    ("sources", name, "push"), "needs the server that providers push to; add `hooks:` with its `url:`"
                )

    def check_expectations(self, sources: Mapping[str, Source]) -> None:
        """Raise `ConfigError` if a final status is expected where that cannot be told, or after it is forgotten."""
        for name, source in sources.items():
            expect, keep = self.config.sources[name].expect, self.config.journal.keep
            if expect is None or expect.final_within is None:
                continue
            kinds = source.resource_types if isinstance(source, HasResourceTypes) else ()
            wrong = None
            if all(kind.overdue is None for kind in kinds):
                wrong = "cannot be told of this source: none of its statuses is final, or it has no overdue event"
            elif expect.final_within > source.retention:
                wrong = f"is longer than the source remembers a resource, which is {format_duration(source.retention)}"
            elif expect.final_within > keep:
                wrong = f"is longer than journal.keep, {format_duration(keep)}; make that longer, or this shorter"
            if wrong is not None:
                raise self.config.problem(("sources", name, "expect", "final_within"), wrong)

    def complete_sources(self) -> dict[str, Source]:
        """Return the sources by name that can be made; without secrets, these need not be all."""
        plugins = {name: registry.load_source(settings.type) for name, settings in self.config.sources.items()}
        complete = [name for name, plugin in plugins.items() if isinstance(self.config.sources[name], plugin.settings)]
        return {name: self.source(name) for name in complete}

    def sinks(self) -> dict[str, Sink]:
        """Return all sinks by name."""
        return {name: self.sink(name) for name in self.config.sinks}

    def catalogue(self) -> Catalogue:
        """Return the events that may occur: the bridge's own, and those of the configured sources."""
        sources = self.config.sources.values()
        own = [event for name in dict.fromkeys(source.type for source in sources) for event in _events(name)]
        own += [event for source in sources for event in type(source).own_events]
        return Catalogue(dict.fromkeys((*own, *INTERNAL_EVENTS)))

    def make_state(self) -> None:
        """Make the state directory, for its owner alone, if the embedded store or broker needs it."""
        if self.config.store is not None and self.config.broker_url != EMBEDDED:
            return
        state = self.config.state
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unavailable(
                f"the state directory {state} cannot be made: {os.strerror(error.errno or 0)}; set `state:` or "
                "BRIDGE_STATE_DIR to a directory that can be written to"
            ) from None

    @asynccontextmanager
    async def opened_store(self, *, read_only: bool = False, check: bool = True) -> AsyncIterator[Store]:
        """Give the store, open, and close it afterwards; raises `ConfigError` for the store of another namespace.

        With `read_only` nothing is made or written.
        """
        if not read_only:
            self.make_state()
        store = self.store(read_only=read_only)
        try:
            await store.open()
            if check:
                await self._check_store(store)
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def opened_broker(self) -> AsyncIterator[OpenBroker]:
        """Give the broker, open, and close it afterwards."""
        self.make_state()
        broker = self.broker()
        try:
            await broker.open()
            yield broker
        finally:
            await broker.close()

    async def _check_store(self, store: Store) -> None:
        try:
            KeptInstallation(await store.mark()).check_store(store.place, self.config.names)
        except OtherInstallation as error:
            raise self.foreign(error) from error

    def foreign(self, error: OtherInstallation) -> ConfigError:
        """Return the error that this configuration names what belongs to another installation."""
        return self.config.problem(("namespace",), str(error))

    async def privacy_key(self, store: Ledger) -> bytes:
        """Return the key of the tokens: the configured one, or the store's own, made at the first call.

        It lies where the events lie, so that all processes on one store make the same tokens and no second place has to
        be kept safe.
        """
        if self.config.privacy_key is not None:
            return self.config.privacy_key.reveal().encode()
        owner = secrets.token_hex(8)
        while True:
            if key := (await store.statuses(_KEY_NOTE)).get(_KEY_NOTE, {}).get("key"):
                return bytes.fromhex(key)
            lease = await store.acquire(_KEY_LEASE, owner, _KEY_LEASE_SECONDS)
            if lease is None:
                # Another process is about to write it.
                await self.clock.sleep(0.1)
                continue
            try:
                # It may have been written between our look and our lease.
                if not (await store.statuses(_KEY_NOTE)).get(_KEY_NOTE):
                    await store.set_status(_KEY_NOTE, {"key": secrets.token_hex(32)})
            finally:
                await store.release(lease)


def _refusal(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"the plugin's own settings do not fit: {error.errors(include_input=False)[0]['msg']}"
    return " ".join(str(error).split())


def _events(name: str) -> tuple[type[Event], ...]:
    return registry.load_source(name).events
