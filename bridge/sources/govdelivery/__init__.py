"""GovDelivery TMS: messages and their recipients, followed from creation until they stop changing."""

from __future__ import annotations

from bridge.domain.events.govdelivery import EVENTS
from bridge.protocols.source import SourcePlugin
from bridge.sources.govdelivery.settings import GovDeliverySettings
from bridge.sources.govdelivery.source import GovDelivery

__all__ = ["GovDelivery", "GovDeliverySettings", "plugin"]

plugin = SourcePlugin(
    settings=GovDeliverySettings,
    build=GovDelivery,
    events=EVENTS,
    channels=lambda settings: settings.channels,
    summary="GovDelivery TMS: the status of SMS and voice messages and of each of their recipients",
)
