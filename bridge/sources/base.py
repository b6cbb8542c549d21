"""The base class of sources that ask one HTTP API with one token: a client within its budget, and defaults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from bridge.domain.clock import Clock
from bridge.domain.settings import Secret
from bridge.http.client import HttpClient, HttpLimits, Origin
from bridge.http.limiter import account_key, shared_limiter
from bridge.http.tls import NO_TLS, Tls
from bridge.protocols.source import Observation, Page, Probe, ResourceType, SourceSettings

_DAY_SECONDS = 86400.0
_DEFAULT_LIMITS = HttpLimits()


class HttpSourceSettings(SourceSettings):
    """Settings of a source that asks one API with one token; a plugin's own settings extend this."""

    url: Origin
    """Where the API is."""
    token: Secret
    """The account's token, sent as `Authorization: Bearer`."""


SettingsT = TypeVar("SettingsT", bound=HttpSourceSettings)


class BaseSource(ABC, Generic[SettingsT]):
    """A `bridge.protocols.source.Source` that lacks only `pages` and `backfill`; override what does not fit.

    `client` asks the API at `settings.url`, within `settings.rate`, which all sources of the account share. Its errors
    are those that a source may raise, so `pages` need not catch them. Construction has no side effects.
    """

    retention: float = 30 * _DAY_SECONDS
    kind: ResourceType
    """What the source lists, if that is of one type; the instance's own also knows the operator's `statuses`."""

    def __init__(
        self, name: str, settings: SettingsT, clock: Clock, *, limits: HttpLimits = _DEFAULT_LIMITS, tls: Tls = NO_TLS
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.problems: list[str] = []
        self.behind = False
        if hasattr(self, "kind"):
            self.kind = self.kind.with_statuses(settings.statuses)
        self.account = account_key(settings.url, settings.token.reveal())
        """See `bridge.protocols.source.HasAccount`."""
        self.client = HttpClient(
            settings.url,
            limiter=shared_limiter(self.account, settings.rate, clock),
            clock=clock,
            headers=self.headers,
            limits=limits,
            tls=tls,
        )

    @property
    def resource_types(self) -> Sequence[ResourceType]:
        """Return the type of what is listed; see `bridge.protocols.source.HasResourceTypes`."""
        return [self.kind] if hasattr(self, "kind") else []

    async def headers(self) -> Mapping[str, str]:
        """Return the headers that carry the credentials; read for each try, so that the token can rotate."""
        return {"Authorization": f"Bearer {self.settings.token.reveal()}"}

    @abstractmethod
    def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Poll once: yield what is due now; see `bridge.protocols.source.Source.pages`."""

    @abstractmethod
    def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Yield what happened between two times; see `bridge.protocols.source.Source.backfill`."""

    async def probe(self) -> Probe:
        """Read the first page of a first poll; the summary assumes that a poll is one request."""
        pages: Any = self.pages({}, ())
        await anext(pages, None)
        await pages.aclose()
        return Probe(f"{self.client.origin.host} answers", _DAY_SECONDS / self.settings.interval)

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations as they are: each is complete as the provider lists it."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the source follows all resources of the account by itself."""
        raise ValueError(f"{text}: nothing to name, a {self.settings.type} source follows everything by itself")

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()
