"""The public interface for sources and sinks of other distributions: a plugin imports this module and nothing else.

Everything in `__all__` keeps its meaning within a major version. In its tests, a plugin also imports `bridge.testing`,
which has the contract suites and the fakes.
"""

from __future__ import annotations

from bridge.concurrency.daemon_executor import DaemonThreadExecutor
from bridge.config.types import Size
from bridge.domain import topics
from bridge.domain.catalogue import Catalogue, UnknownStatus
from bridge.domain.clock import Clock
from bridge.domain.errors import (
    BridgeError,
    ConfigError,
    EndpointGone,
    LeaseLost,
    NotReady,
    Permanent,
    Transient,
    Unauthorized,
)
from bridge.domain.event import CONTENT_TYPE, Data, Event, Transition, UnmappedFields, WireEvent
from bridge.domain.lifecycle import Lifecycle
from bridge.domain.overdue import OVERDUE, OverdueFields
from bridge.domain.retry import RETRY_AFTER_CAP, backoff
from bridge.domain.settings import Duration, Rate, Secret, Settings
from bridge.domain.times import Time, rfc3339
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits, Origin
from bridge.http.errors import CrossOriginLink, NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.http.guarded import Endpoint, EndpointResponse, GuardedClient, SecretUrl
from bridge.http.headers import parse_retry_after
from bridge.http.limiter import Limiter, account_key, shared_limiter
from bridge.http.networks import Network
from bridge.http.oauth2 import AccessToken, AccessTokens, TokenRequest
from bridge.http.response import Response
from bridge.http.status import EVENT_IS_WRONG_STATUSES
from bridge.http.tls import Tls
from bridge.protocols.sink import Outgoing, Privacy, Sink, SinkPlugin, SinkSettings
from bridge.protocols.source import (
    Facts,
    GroupCounts,
    HasAccount,
    HasResourceTypes,
    HasStatistics,
    Observation,
    Page,
    Probe,
    Reconcilable,
    ResourceType,
    ResumableBackfill,
    Source,
    SourcePlugin,
    SourceSettings,
    Statistics,
)
from bridge.sinks.digests import Digests
from bridge.sources.base import BaseSource, HttpSourceSettings

__all__ = [  # noqa: RUF022 - grouped by purpose
    # a source
    "BaseSource",
    "Facts",
    "GroupCounts",
    "HasAccount",
    "HasResourceTypes",
    "HasStatistics",
    "HttpSourceSettings",
    "Observation",
    "Page",
    "Probe",
    "Reconcilable",
    "ResourceType",
    "ResumableBackfill",
    "Source",
    "SourcePlugin",
    "SourceSettings",
    "Statistics",
    # the client of a provider, which keeps to a budget of requests
    "CrossOriginLink",
    "HttpClient",
    "HttpLimits",
    "Limiter",
    "NotFound",
    "Origin",
    "ProviderError",
    "RequestRejected",
    "Response",
    "Throttled",
    "Tls",
    "TooLarge",
    "account_key",
    "parse_retry_after",
    "parsing",
    "shared_limiter",
    # a sink
    "Digests",
    "Outgoing",
    "Privacy",
    "Sink",
    "SinkPlugin",
    "SinkSettings",
    # the client of an endpoint, which keeps away from private addresses
    "AccessToken",
    "AccessTokens",
    "EVENT_IS_WRONG_STATUSES",
    "Endpoint",
    "EndpointResponse",
    "GuardedClient",
    "Network",
    "SecretUrl",
    "TokenRequest",
    # events
    "CONTENT_TYPE",
    "Catalogue",
    "Data",
    "Event",
    "Lifecycle",
    "OVERDUE",
    "OverdueFields",
    "Time",
    "Transition",
    "UnknownStatus",
    "UnmappedFields",
    "WireEvent",
    "rfc3339",
    "topics",
    # settings
    "Duration",
    "Rate",
    "Secret",
    "Settings",
    "Size",
    # errors, named by what the caller does next
    "BridgeError",
    "ConfigError",
    "EndpointGone",
    "LeaseLost",
    "NotReady",
    "Permanent",
    "Transient",
    "Unauthorized",
    # time
    "RETRY_AFTER_CAP",
    "Clock",
    "DaemonThreadExecutor",
    "backoff",
]
