"""The statuses of messages and recipients as data, and the facts that an event tells of either."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bridge.domain.event import Event
from bridge.domain.events import govdelivery as events
from bridge.domain.lifecycle import Lifecycle
from bridge.http import parsing
from bridge.protocols.source import Facts, Observation, ResourceType

_COUNT_AT_MOST = 10**12
MESSAGE_KEY = "@"
"""The message's own key inside its scope; recipients have their ids."""

MESSAGE = Lifecycle(
    status_by_value={status: status for status in ("new", "queued", "sending", "completed", "canceled")},
    follows={
        "new": ["queued", "canceled"],
        "queued": ["sending", "canceled"],
        "sending": ["completed", "canceled"],
    },
    finals=frozenset({"completed", "canceled"}),
    codes={"new": "n", "queued": "q", "sending": "s", "completed": "c", "canceled": "x"},
)

RECIPIENT = Lifecycle(
    status_by_value={
        status: status for status in ("new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed")
    },
    follows={
        "new": ["sending", "blacklisted", "canceled"],
        "sending": ["sent", "failed", "inconclusive", "blacklisted", "canceled"],
        "inconclusive": ["sent", "failed", "blacklisted", "canceled"],
    },
    finals=frozenset({"sent", "failed", "blacklisted", "canceled"}),
    codes={
        "new": "n",
        "sending": "s",
        "inconclusive": "i",
        "blacklisted": "b",
        "canceled": "x",
        "sent": "d",
        "failed": "f",
    },
)

DETAILS: Mapping[str, tuple[str, ...]] = {
    "sent": ("human", "machine"),
    "failed": ("busy", "no_answer", "could_not_connect"),
}
"""What became of a call, by its status; each detail is a collection of recipients of its own."""

STATUS_OF_DETAIL: Mapping[str, str] = {detail: status for status, details in DETAILS.items() for detail in details}

_MESSAGE_EVENTS: dict[str, type[Event]] = {
    "new": events.MessageNew,
    "queued": events.MessageQueued,
    "sending": events.MessageSending,
    "completed": events.MessageCompleted,
    "canceled": events.MessageCanceled,
}
_RECIPIENT_EVENTS: dict[str, type[Event]] = {
    "new": events.RecipientNew,
    "sending": events.RecipientSending,
    "inconclusive": events.RecipientInconclusive,
    "blacklisted": events.RecipientBlacklisted,
    "canceled": events.RecipientCanceled,
    "sent": events.RecipientSent,
    "failed": events.RecipientFailed,
}

# What a person wrote (body, say_text, play_url) is the message's content and not its status: no event carries it.
_COMMON_FIELDS = {"_links", "id", "status", "created_at", "completed_at"}
_MESSAGE_FIELDS = _COMMON_FIELDS | {"recipient_counts", "recipient_detail_counts", "body", "say_text", "play_url"}
_RECIPIENT_FIELDS = _COMMON_FIELDS | {"phone", "formatted_phone", "error_message"}


def kinds(channel: str, statuses: Mapping[str, str]) -> tuple[ResourceType, ResourceType]:
    """Return the message's and the recipient's kind in a channel; `statuses` are further provider's values."""
    message = MESSAGE.with_names(_fitting(MESSAGE, statuses))
    recipient = RECIPIENT.with_names(_fitting(RECIPIENT, statuses))
    return (
        ResourceType(channel, "message", message, _MESSAGE_EVENTS, describe_message, events.MessageOverdue),
        ResourceType(channel, "recipient", recipient, _RECIPIENT_EVENTS, describe_recipient, events.RecipientOverdue),
    )


def _fitting(lifecycle: Lifecycle, statuses: Mapping[str, str]) -> dict[str, str]:
    return {value: status for value, status in statuses.items() if status in lifecycle.codes}


def counts(value: Any) -> dict[str, int] | None:
    """Return counts by name without those that cannot be numbers of people; None where there are none at all."""
    numbers = {name: parsing.integer(raw) for name, raw in parsing.mapping(value).items()}
    return {
        name: count for name, count in numbers.items() if count is not None and 0 <= count <= _COUNT_AT_MOST
    } or None


def describe_message(observation: Observation) -> Facts:
    """Read a message's facts; its text is left out, because it is content and not status."""
    item = parsing.mapping(observation.item)
    created, completed = parsing.time(item.get("created_at")), parsing.time(item.get("completed_at"))
    status = observation.kind.lifecycle.status_by_value.get(observation.status)
    fields = {
        "recipient_counts": counts(item.get("recipient_counts")),
        "created_at": created,
        "completed_at": completed,
        "provider": _others(item, _MESSAGE_FIELDS),
    }
    if observation.kind.channel == "voice":
        fields["recipient_detail_counts"] = counts(item.get("recipient_detail_counts"))
    return Facts(
        subject=observation.scope,
        time={"new": created, "completed": completed}.get(status or ""),
        fields=fields,
        model=events.MessageData,
        raw_status=observation.status,
    )


def describe_recipient(observation: Observation) -> Facts:
    """Read a recipient's facts; the phone in E.164 where the provider gives it, and only once."""
    item = parsing.mapping(observation.item)
    created, completed = parsing.time(item.get("created_at")), parsing.time(item.get("completed_at"))
    lifecycle = observation.kind.lifecycle
    status = lifecycle.status_by_value.get(observation.status)
    error = item.get("error_message")
    # One that is no text is not lost: it is told as any field that nobody knows.
    is_text = not error or isinstance(error, str) or parsing.text(error) is not None
    return Facts(
        subject=recipient_path(observation.scope, observation.key),
        time=completed if status in lifecycle.finals else created if status == "new" else None,
        fields={
            "message": observation.scope,
            "phone": parsing.phone(item.get("formatted_phone"), item.get("phone")),
            "error": parsing.text(error),
            "created_at": created,
            "completed_at": completed,
            "provider": _others(item, _RECIPIENT_FIELDS if is_text else _RECIPIENT_FIELDS - {"error_message"}),
        },
        model=events.RecipientData,
        raw_status=observation.status,
    )


def recipient_path(message: str, key: str) -> str:
    """Return a recipient's path from its message and its key, which is a path of its own where it lies elsewhere."""
    return key if key.startswith("/") else f"{message}/recipients/{key}"


def _others(item: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in known}
