"""An example of each event, made by the event's own class: it cannot differ from what its schema allows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from bridge.domain.event import Data, Event, Observed, Transition, event_id

_HAPPENED = datetime(2026, 11, 28, 20, 24, 27, tzinfo=UTC)
_RECORDED = datetime(2026, 11, 28, 20, 24, 27, 958_000, tzinfo=UTC)
_SEEN_BEFORE = datetime(2026, 11, 28, 20, 24, 26, 789_000, tzinfo=UTC)
_ANSWERED = datetime(2026, 11, 28, 20, 24, 27, 957_000, tzinfo=UTC)
_FIELDS: dict[str, Any] = {
    "message": "/messages/voice/11038002",
    "phone": "+17165550143",
    "created_at": _HAPPENED,
    "completed_at": _HAPPENED,
    "recipient_counts": {"new": 0, "sending": 2, "sent": 7, "failed": 1},
    "event_id": 5321,
    "code": 45,
    "reason": "InvalidMobileNumber",
    "definition": "appointment-reminder",
    "message_key": "6d8026c9-51a3-4254-ae0e-c7f4ef7c2318",
    "contact_key": "c-1021",
    "provider_time": "2026-11-28 14:24:27.000",
    "campaign": 12,
    "job": 7,
    "team": 1,
    "reference": "invoice-2204",
    "state": 1,
    "timestamp": _HAPPENED,
    "provider_status": "paused",
    "failures": 4,
    "since": _HAPPENED,
    "stands_in": "sending",
    "due": _HAPPENED,
    "sink": "crm",
    "dead": [
        {
            "position": "city:1042",
            "id": "7c6baa6ad0825be9949a0eb17b900e84",
            "topic": "voice.recipient.failed.busy",
            "reason": "exhausted",
        }
    ],
    "what": "status",
    "provider_says": "sent",
    "ledger_says": "sending",
    "count": 37,
    "oldest": _HAPPENED,
    "newest": _HAPPENED,
    "topics": {"voice.recipient.failed.busy": 37},
}
"""A value for each field of our own events' data; other fields are left out."""

_SUBJECTS = {
    "message": "/messages/voice/11038002",
    "recipient": "/messages/voice/11038002/recipients/220760008",
    "drop": "/j/voicemail_drop_records/11038004",
    "source": "/sources/city",
    "sink": "/sinks/crm",
    "delivery": "/sinks/crm",
}


def event_example(cls: type[Event], channel: str) -> dict[str, Any] | None:
    """Return an event of a class as plain values; None if its class wants a value that we cannot know."""
    model = cls.model_fields["data"].annotation
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return None
    details = cls.details.get(channel, ())
    fields = {name: value for name, value in _FIELDS.items() if name in model.model_fields}
    source = f"/{cls.provider or 'govdelivery'}/city"
    subject = _SUBJECTS.get(cls.entity, "/messages/voice/11038002")
    try:
        data = model(
            channel=channel, status=cls.status, detail=details[0] if details else None, transition=Transition.FIRST,
            observed=Observed(after=_SEEN_BEFORE, by=_ANSWERED), **fields,
        )  # fmt: skip
        assert isinstance(data, Data)  # noqa: S101 - what a class of events has as its data
        event = cls.of(
            id=event_id(source, subject, cls.status, 0), source=source, subject=subject, time=_HAPPENED,
            recordedtime=_RECORDED, data=data,
        )  # fmt: skip
    except ValidationError:
        return None
    plain: dict[str, Any] = json.loads(event.to_wire().body)
    return plain
