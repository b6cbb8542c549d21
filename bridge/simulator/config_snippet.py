"""The bridge's configuration for a simulator: sources that poll it, and a sink that prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.providers.models import Definition
from bridge.simulator.defined_vendor import simulated_values
from bridge.simulator.settings import SimulatorSettings

_YEARLY_CALLS = 200_000_000
"""Calls that a simulated account may make in a year: it is asked every few seconds, which no real one allows."""


def sources(urls: Mapping[str, str], settings: SimulatorSettings, *, interval: str = "2s") -> dict[str, Any]:
    """Return the `sources` of a configuration that polls all three providers at `urls`, each by its provider's name."""
    shared = {"interval": interval, "rate": "50/s"}
    return {
        "city": {
            "type": "govdelivery",
            "url": urls["govdelivery"],
            "token": settings.govdelivery_token,
            "channels": ["sms", "voice"],
            **shared,
        },
        "drops": {
            "type": "spacivox",
            "url": urls["spacivox"],
            "token": settings.spacivox_token,
            **shared,
        },
        "journeys": {
            "type": "marketingcloud",
            "auth_url": urls["marketingcloud"],
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
            "account_id": settings.account_id,
            "yearly_calls": _YEARLY_CALLS,
            **shared,
        },
    }


def defined_source(provider: str, definition: Definition, url: str, *, interval: str = "2s") -> dict[str, Any]:
    """Return the `sources` of a configuration that polls the one provider which a definition describes, at `url`.

    `provider` is the definition's name or path.
    """
    source = {"type": "rest", "provider": provider, "url": url, "interval": interval, "rate": "50/s"}
    if definition.auth.oauth2 is not None:
        source["token_url"] = f"{url}/_token"
    return {definition.events.provider: {**source, **simulated_values(definition)}}


def configuration(
    urls: Mapping[str, str], settings: SimulatorSettings, *, state: Path, interval: str = "2s"
) -> dict[str, Any]:
    """Return a complete configuration that polls all three providers at `urls`; see `complete`."""
    return complete(sources(urls, settings, interval=interval), state=state)


def complete(sources: Mapping[str, Any], *, state: Path) -> dict[str, Any]:
    """Return a complete configuration: embedded store and broker under the directory `state`, events on stdout."""
    return {
        "state": str(state),
        "sources": dict(sources),
        "sinks": {"screen": {"type": "stdout", "topics": ["#"]}},
    }
