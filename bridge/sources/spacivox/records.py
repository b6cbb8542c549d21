"""Spacivox's sorts of records, a row each, and how one record is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from bridge.domain.event import Event
from bridge.domain.events.spacivox import (
    DropData,
    EmailRecordDelivered,
    EmailRecordFailed,
    EmailRecordRejected,
    EmailRecordSent,
    TextRecordDelivered,
    TextRecordFailed,
    TextRecordRejected,
    TextRecordSent,
    VoicemailDelivered,
    VoicemailFailed,
    VoicemailRejected,
    VoicemailSent,
)
from bridge.domain.lifecycle import Lifecycle
from bridge.http import parsing
from bridge.protocols.source import Facts, Observation, ResourceType

LIFECYCLE = Lifecycle(
    status_by_value={"0": "sent", "1": "delivered", "2": "failed", "3": "rejected"},
    follows={"sent": ("delivered", "failed", "rejected")},
    finals=frozenset({"delivered", "failed", "rejected"}),
)
"""The states of all sorts of records. We guess that a record starts at 0: the vendor says only what 0 means."""


@dataclass(frozen=True, slots=True)
class RecordType:
    """One sort of record: its path, and the events that it makes."""

    path: str
    events: tuple[type[Event], ...]
    """One for each status of the lifecycle."""
    addresses: tuple[str, ...] = ("number",)
    """The fields that may hold the recipient's address."""
    state: str = "state"
    """The field that holds the provider's value of the status."""
    lifecycle: Lifecycle = LIFECYCLE

    @property
    def channel(self) -> str:
        """Return the first word of its topics."""
        return self.events[0].channels[0]


RECORDS: Mapping[str, RecordType] = {
    "voicemail_drop": RecordType(
        "/j/voicemail_drop_records", (VoicemailSent, VoicemailDelivered, VoicemailFailed, VoicemailRejected)
    ),
    "text": RecordType("/j/text_records", (TextRecordSent, TextRecordDelivered, TextRecordFailed, TextRecordRejected)),
    "email": RecordType(
        "/j/email_records",
        (EmailRecordSent, EmailRecordDelivered, EmailRecordFailed, EmailRecordRejected),
        addresses=("number", "email"),
    ),
}
"""A further sort is another row. Calls (`/j/call_records`) would name their field `error`, 0 to 10, and a lifecycle."""

_SCOPE_RECORDS = 1000
_MAX_STATE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a record cannot be observed, in words that follow "records"."""

    reason: str


def kind_of(record: RecordType, statuses: Mapping[str, str], dated: Literal["created", "updated"]) -> ResourceType:
    """Return what all observations of one sort share, with the operator's own `statuses`."""

    def describe_record(observation: Observation) -> Facts:
        return describe(record, dated, observation)

    return ResourceType(
        channel=record.channel,
        entity=record.events[0].entity,
        lifecycle=record.lifecycle.with_names(statuses),
        events={event.status: event for event in record.events},
        describe=describe_record,
    )


def scope_of(sort: str, key: str, timestamp: Any) -> str:
    """Return the ledger's scope of a record.

    The vendor gives ids in order, so the records of a block of a thousand ids have about one age. A record stays in
    its scope even if its timestamp changes. Ids that are not numbers are kept by the day of their timestamp.
    """
    if len(key) <= parsing.MAX_NUMBER_DIGITS and key.isascii() and key.isdecimal():
        return f"{sort}/{int(key) // _SCOPE_RECORDS}"
    day = parsing.time(timestamp)
    return f"{sort}/{day:%Y-%m-%d}" if day is not None else f"{sort}/undated"


def observe(sort: str, record: RecordType, kind: ResourceType, item: Any) -> Observation | Unreadable:
    """Return what a record shows; a state that no table knows is shown too, of any JSON type."""
    fields = parsing.mapping(item)
    key = parsing.text(fields.get("id"))
    if key is None:
        return Unreadable("without an id")
    value = fields.get(record.state)
    state = parsing.text(value) if value is None or isinstance(value, str) else parsing.text(value) or json.dumps(value)
    if state is None:
        return Unreadable(f"without a {record.state} that can be read")
    return Observation(kind, scope_of(sort, key, fields.get("timestamp")), key, state[:_MAX_STATE_CHARS], fields)


def describe(record: RecordType, dated: Literal["created", "updated"], observation: Observation) -> Facts:
    """Read the facts of a record; a value that fits no field goes to `provider` as it is."""
    item: Mapping[str, Any] = observation.item
    address = parsing.phone(*(item.get(name) for name in record.addresses))
    known = {
        **{name: ("phone", address if parsing.text(item.get(name)) == address else None) for name in record.addresses},
        "campaign": ("campaign", _plain(item.get("campaign"))),
        "job": ("job", _plain(item.get("job"))),
        "team": ("team", _plain(item.get("team"))),
        "reference": ("reference", parsing.text(item.get("reference"))),
        record.state: ("state", _plain(item.get(record.state))),
        "timestamp": ("timestamp", parsing.time(item.get("timestamp"))),
    }
    fields: dict[str, Any] = {**dict(known.values()), "phone": address}
    fields["provider"] = {
        name: value
        for name, value in item.items()
        if name != "id" and (name not in known or (value is not None and known[name][1] is None))
    }
    when: datetime | None = fields["timestamp"]
    return Facts(
        subject=f"{record.path}/{quote(observation.key, safe='')}",
        time=when if dated == "updated" else None,
        first_time=when,
        fields=fields,
        model=DropData,
        raw_status=fields["state"],
    )


def _plain(value: Any) -> int | str | None:
    """Return a number as a number and a text as text; None for anything else."""
    text = parsing.text(value)
    number = None if text is None or isinstance(value, str) else parsing.integer(value)
    return text if number is None else number
