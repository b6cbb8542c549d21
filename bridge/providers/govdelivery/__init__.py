"""GovDelivery TMS: messages and their recipients, followed from creation until they stop changing."""

from __future__ import annotations

from bridge.providers.govdelivery.source import GovDelivery, GovDeliverySettings
from bridge.source import SourcePlugin

__all__ = ["GovDelivery", "GovDeliverySettings", "plugin"]

plugin = SourcePlugin(
    settings=GovDeliverySettings,
    build=GovDelivery,
    summary="GovDelivery TMS: the fate of SMS and voice messages and of each of their recipients",
)
