"""Salesforce Marketing Cloud: the feed of messages that were not sent, followed by its watermark."""

from __future__ import annotations

from bridge.domain.events.marketingcloud import EmailNotSent, EmailQueued, EmailSendEvent, EmailSent
from bridge.protocols.source import SourcePlugin
from bridge.sources.marketingcloud.events import FEEDS, REASONS
from bridge.sources.marketingcloud.settings import MarketingCloudSettings
from bridge.sources.marketingcloud.source import MarketingCloud

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
    events=tuple(event for feed in FEEDS.values() for event in (*feed.events, feed.overdue)),
    channels=lambda settings: settings.kinds,
    summary="transactional messages of a Salesforce Marketing Cloud account that were not sent",
)
