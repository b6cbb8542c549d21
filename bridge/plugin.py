"""The public interface for sources and sinks of other distributions: a plugin imports this module and nothing else.

Everything in `__all__` keeps its meaning within a major version. `bridge.testing` has the contract suites and the fakes
for the tests of a plugin.
"""

from __future__ import annotations

from bridge.concurrency.daemon_executor import DaemonThreadExecutor
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
from bridge.domain.retry import RETRY_AFTER_CAP, backoff
from bridge.domain.settings import Duration, Rate, Secret, Settings
from bridge.domain.times import Time, rfc3339
from bridge.http import parsing
from bridge.http.client import HttpClient
from bridge.http.guarded import Endpoint, EndpointResponse, GuardedClient, SecretUrl
from bridge.http.headers import parse_retry_after
from bridge.http.limiter import shared_limiter
from bridge.http.tls import Tls
from bridge.protocols.sink import Outgoing, Privacy, Sink, SinkPlugin, SinkSettings
from bridge.protocols.source import Facts, Observation, Page, Probe, ResourceType, Source, SourcePlugin, SourceSettings

__all__ = [
    "CONTENT_TYPE",
    "RETRY_AFTER_CAP",
    "BridgeError",
    "Catalogue",
    "Clock",
    "ConfigError",
    "DaemonThreadExecutor",
    "Data",
    "Duration",
    "Endpoint",
    "EndpointGone",
    "EndpointResponse",
    "Event",
    "Facts",
    "GuardedClient",
    "HttpClient",
    "LeaseLost",
    "Lifecycle",
    "NotReady",
    "Observation",
    "Outgoing",
    "Page",
    "Permanent",
    "Privacy",
    "Probe",
    "Rate",
    "ResourceType",
    "Secret",
    "SecretUrl",
    "Settings",
    "Sink",
    "SinkPlugin",
    "SinkSettings",
    "Source",
    "SourcePlugin",
    "SourceSettings",
    "Time",
    "Tls",
    "Transient",
    "Transition",
    "Unauthorized",
    "UnknownStatus",
    "UnmappedFields",
    "WireEvent",
    "backoff",
    "parse_retry_after",
    "parsing",
    "rfc3339",
    "shared_limiter",
    "topics",
]
