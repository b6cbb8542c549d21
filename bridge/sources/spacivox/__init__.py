"""Spacivox: the records of a trailing window, read repeatedly in slices, and compared by their ids."""

from __future__ import annotations

from bridge.domain.events.spacivox import (
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
from bridge.sources.spacivox.records import RECORDS
from bridge.sources.spacivox.settings import SpacivoxSettings
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
    events=tuple(event for record in RECORDS.values() for event in record.events),
    channels=lambda settings: [RECORDS[record].channel for record in settings.records],
    summary="voicemail drops (and texts and e-mails) of a Spacivox account",
)
