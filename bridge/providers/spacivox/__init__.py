"""Spacivox: the records of a trailing window, read in slices again and again, and compared by their ids."""

from __future__ import annotations

from bridge.providers.spacivox.records import (
    RECORDS,
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
from bridge.providers.spacivox.source import Spacivox, SpacivoxSettings
from bridge.source import SourcePlugin

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
    events=tuple(event for name in ("text", "email") for event in RECORDS[name].events),
    summary="voicemail drops (and texts and e-mails) of a Spacivox account",
)
