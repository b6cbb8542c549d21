"""Every event of the bridge and of its own providers, for tests that hold for all of them."""

from __future__ import annotations

from bridge.config import registry
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import Event

PROVIDERS = ("govdelivery", "spacivox", "marketingcloud")
PROVIDER_EVENTS: tuple[type[Event], ...] = tuple(
    event for provider in PROVIDERS for event in registry.load_source(provider).events
)
CATALOGUE: tuple[type[Event], ...] = (*PROVIDER_EVENTS, *INTERNAL_EVENTS)
