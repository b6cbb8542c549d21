"""Marketing Cloud's feeds, a row each, and how one TransactionalSendEvent is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeGuard
from urllib.parse import quote

from bridge.domain.event import Event
from bridge.domain.events.marketingcloud import (
    EmailNotSent,
    EmailOverdue,
    EmailQueued,
    EmailSent,
    SendData,
    SMSNotSent,
    SMSOverdue,
    SMSQueued,
    SMSSent,
)
from bridge.domain.lifecycle import Lifecycle
from bridge.http import parsing
from bridge.protocols.source import Facts, Observation, ResourceType

CENTRAL_STANDARD_TIME = timezone(timedelta(hours=-6))
"""The zone of every `timestamp`, also in summer: named zones have daylight saving time, this feed does not."""

REASONS: Mapping[int, str] = {
    1: "Unsubscribed",
    2: "Held",
    5: "InvalidEmailAddress",
    15: "UnspecifiedError",
    16: "InvalidAttributeValue",
    24: "ListDetectiveExclusion",
    25: "SubscriberBlackedOut",
    33: "AccountLevelOptOut",
    37: "QueuedTransactionDeleted",
    42: "RestrictedForProcessing",
    43: "SubscriberRequestExpired",
    44: "UnprovisionedCountry",
    45: "InvalidMobileNumber",
    46: "MessageRenderFailure",
    47: "AddressNotFound",
    48: "SendFailure",
    49: "MessageExpired",
    51: "MessageTooLong",
    54: "ValidationError",
    118: "GlobalUnsub",
    139: "TimedoutInQueue",
}
"""The vendor's names of `statusCode`; there are more. The vendor sends 25 again later, so `not_sent` is not final."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One feed: where it is, what its categories begin with, and which events it makes."""

    path: str
    word: str
    """`sms` of the category `TransactionalSendEvents.SMSNotSent`, in lower case."""
    events: tuple[type[Event], ...]
    overdue: type[Event]

    @property
    def lifecycle(self) -> Lifecycle:
        """Return the statuses of the feed by category.

        Only `sent` is final: a message that was not sent may be queued, sent or not sent once more.
        """
        return Lifecycle(
            status_by_value={
                f"{self.word}{status.replace('_', '')}": status for status in ("queued", "sent", "not_sent")
            },
            follows={"queued": ("sent", "not_sent"), "not_sent": ("queued", "sent", "not_sent")},
            finals=frozenset({"sent"}),
        )

    def kind(self, statuses: Mapping[str, str]) -> ResourceType:
        """Return what all observations of the feed share, with the operator's own `statuses`."""

        def describe_event(observation: Observation) -> Facts:
            return describe(self, observation)

        return ResourceType(
            channel=self.events[0].channels[0],
            entity=self.events[0].entity,
            lifecycle=self.lifecycle.with_names({category(name) or name: status for name, status in statuses.items()}),
            events={event.status: event for event in self.events},
            describe=describe_event,
            overdue=self.overdue,
        )


FEEDS: Mapping[str, Feed] = {
    "sms": Feed("/messaging/v1/sms/messages/", "sms", (SMSNotSent, SMSSent, SMSQueued), SMSOverdue),
    "email": Feed("/messaging/v1/email/messages/", "email", (EmailNotSent, EmailSent, EmailQueued), EmailOverdue),
}

_SCOPE_EVENTS = 1_000_000
_MAX_POSITION = 2**63 - 1
"""The highest id: the vendor's ids are 64-bit numbers."""
_MAX_CATEGORY_CHARS = 100
_PLACED = frozenset({"messageKey", "contactKey", "to"})
"""These are under `info` in the vendor's example, and at the top level in its table."""


def category(value: Any) -> str | None:
    """Return the last word of an `eventCategoryType` in lower case; None if there is none."""
    text = parsing.text(value)
    return None if text is None else text.rpartition(".")[2].strip().lower()[:_MAX_CATEGORY_CHARS] or None


def event_id(item: Mapping[str, Any]) -> int | str | None:
    """Return the event's id, as a number if it is one."""
    return _plain(_either(item, "eventID", "eventId"))


def watermark(answer: Mapping[str, Any]) -> int | None:
    """Return the answer's `lastEventID`; None if it is absent, null, 0 or no number that is a position."""
    number = _plain(_either(answer, "lastEventID", "lastEventId"))
    return number if is_position(number) and number > 0 else None


def is_position(number: int | str | None) -> TypeGuard[int]:
    """Return whether a walk can go on from an id. One of more than 64 bits is garbage: all real ids are before it."""
    return isinstance(number, int) and abs(number) <= _MAX_POSITION


def _either(item: Mapping[str, Any], *names: str) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def happened(item: Mapping[str, Any]) -> datetime | None:
    """Return when the event happened; None if its time cannot be read."""
    return parsing.time(item.get("timestamp"), assume=CENTRAL_STANDARD_TIME)


def observe(feed: str, kind: ResourceType, item: Any) -> Observation | None:
    """Return what an event shows; None for one that says nothing.

    The request asks for messages that were not sent, so an event without a category counts as one. A hash of its
    content identifies an event without an id.
    """
    event = parsing.mapping(item)
    if not event:
        return None
    number = event_id(event)
    message = _placed(event, "messageKey")
    occurrence = str(number) if number is not None else _fingerprint(event)
    return Observation(
        kind=kind,
        scope=_scope(feed, number, event),
        key=message if message is not None else f"#{occurrence}",
        status=category(event.get("eventCategoryType")) or f"{FEEDS[feed].word}notsent",
        item=event,
        occurrence_id=occurrence,
    )


def _scope(feed: str, number: int | str | None, event: Mapping[str, Any]) -> str:
    """Return the ledger's scope of an event: a block of ids, which are given in order and never change.

    It does not use the timestamp, which may be readable in one answer and not in the next. Only events without a number
    are kept by its month.
    """
    if isinstance(number, int):
        return f"{feed}/{number // _SCOPE_EVENTS}"
    when = happened(event)
    return f"{feed}/{when:%Y-%m}" if when is not None else f"{feed}/undated"


def _placed(event: Mapping[str, Any], name: str) -> str | None:
    return parsing.text(parsing.mapping(event.get("info")).get(name)) or parsing.text(event.get(name))


def _fingerprint(event: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()[:32]


def describe(feed: Feed, observation: Observation) -> Facts:
    """Read the facts of an event; a value that fits no field goes to `provider` as it is."""
    event: Mapping[str, Any] = observation.item
    code = _plain(event.get("statusCode"))
    message = _placed(event, "messageKey")
    fields: dict[str, Any] = {
        "event_id": event_id(event),
        "code": code,
        "reason": parsing.text(event.get("statusMessage")) or REASONS.get(code if isinstance(code, int) else -1),
        "definition": parsing.text(event.get("definitionKey")),
        "message_key": message,
        "contact_key": _placed(event, "contactKey"),
        "phone": parsing.phone(parsing.mapping(event.get("info")).get("to"), event.get("to")),
        "provider_time": parsing.text(event.get("timestamp")),
    }
    fields["provider"] = _unmapped(event, _TOP_LEVEL) | ({"info": rest} if (rest := _rest_of_info(event)) else {})
    stem, occurrence = feed.path.rstrip("/"), observation.occurrence_id or ""
    return Facts(
        subject=f"{stem if message else _events(stem)}/{quote(message or occurrence, safe='')}",
        time=happened(event),
        fields=fields,
        model=SendData,
        raw_status=_category_as_it_stood(event),
    )


_TOP_LEVEL = frozenset(
    {*_PLACED, "eventID", "eventId", "eventCategoryType", "statusCode", "statusMessage", "definitionKey", "timestamp"}
)


def _rest_of_info(event: Mapping[str, Any]) -> Any:
    info = event.get("info")
    return _unmapped(info, _PLACED) if isinstance(info, dict) else info


def _unmapped(item: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return what no field of ours holds: unknown names, and known ones whose value is neither text nor number."""
    return {
        name: value
        for name, value in item.items()
        if name != "info" and (name not in known or not (value is None or value == "" or parsing.text(value)))
    }


def _plain(value: Any) -> int | str | None:
    """Return a whole number, also one written as text, as a number, and other text as text; None for anything else."""
    number = parsing.integer(value)
    return number if number is not None else parsing.text(value)


def _events(stem: str) -> str:
    return f"{stem.removesuffix('/messages')}/events"


def _category_as_it_stood(event: Mapping[str, Any]) -> str | None:
    text = parsing.text(event.get("eventCategoryType"))
    return None if text is None else text[:_MAX_CATEGORY_CHARS]
