"""The events of the bridge's own sources, by provider: models alone, which any program may import."""

from __future__ import annotations

from bridge.domain.event import Event
from bridge.domain.events import govdelivery, marketingcloud, spacivox

PROVIDER_EVENTS: tuple[type[Event], ...] = (*govdelivery.EVENTS, *marketingcloud.EVENTS, *spacivox.EVENTS)
"""Every event of our own sources."""
