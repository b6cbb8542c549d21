"""Spacivox: the records of a trailing window, read repeatedly in slices, and compared by their ids."""

from __future__ import annotations

from bridge.domain.events.spacivox import (
    EVENTS,
    EmailRecordDelivered,
    EmailRecordEvent,
    EmailRecordFailed,
    EmailRecordRejected,
    EmailRecordSent,
    TextRecordDelivered,
    TextRecordEvent,
    TextRecordFailed,
    TextRecordRejected,
    TextRecordSent,
)
from bridge.protocols.source import SourcePlugin
from bridge.sources.spacivox.settings import SpacivoxSettings, definition_of
from bridge.sources.spacivox.source import Spacivox

__all__ = [
    "EmailRecordDelivered",
    "EmailRecordEvent",
    "EmailRecordFailed",
    "EmailRecordRejected",
    "EmailRecordSent",
    "Spacivox",
    "SpacivoxSettings",
    "TextRecordDelivered",
    "TextRecordEvent",
    "TextRecordFailed",
    "TextRecordRejected",
    "TextRecordSent",
    "plugin",
]

plugin = SourcePlugin(
    settings=SpacivoxSettings,
    build=Spacivox,
    events=EVENTS,
    channels=lambda settings: [definition_of(sort).events.channel for sort in settings.records],
    summary="voicemail drops (and texts and e-mails) of a Spacivox account",
)
