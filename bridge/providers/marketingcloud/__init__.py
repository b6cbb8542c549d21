"""Salesforce Marketing Cloud: the feed of messages that were not sent, followed by its watermark."""

from __future__ import annotations

from bridge.providers.marketingcloud.events import FEEDS, REASONS, EmailNotSent, EmailQueued, EmailSendEvent, EmailSent
from bridge.providers.marketingcloud.source import MarketingCloud, MarketingCloudSettings
from bridge.source import SourcePlugin

__all__ = [
    "REASONS",
    "EmailNotSent",
    "EmailQueued",
    "EmailSendEvent",
    "EmailSent",
    "MarketingCloud",
    "MarketingCloudSettings",
    "plugin",
]

plugin = SourcePlugin(
    settings=MarketingCloudSettings,
    build=MarketingCloud,
    events=FEEDS["email"].events,
    summary="transactional messages of a Salesforce Marketing Cloud account that were not sent",
)
