"""Events as Slack messages: pure functions from events to Block Kit, within Slack's limits.

The limits are those of Slack's reference of blocks and text objects. Lengths are counted in UTF-16 units, the strictest
way to count. Text from an event is escaped, so that it can neither mention a user nor contain a link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bridge.plugin import Event

MAX_HEADER_CHARACTERS = 150
"""Characters of a header."""
MAX_TEXT_CHARACTERS = 3000
"""Characters of a section's text."""
MAX_FIELD_CHARACTERS = 2000
"""Characters of a section's field, and of an element of a context."""
MAX_FALLBACK_CHARACTERS = 3000
"""Characters of the text without blocks."""
_MAX_FIELDS = 10
_MAX_LISTED = 5
"""Resources, or values of a ranking, that a digest names."""
_MARKUP_CHARACTERS = 200
"""Characters of a limit that are kept free for labels and markup."""

_BAD = frozenset({"failed", "rejected", "not_sent", "stalled", "overdue", "quiet", "failing", "dead"})
_DOUBTFUL = frozenset({"blacklisted", "inconclusive", "canceled", "unknown"})
_GOOD = frozenset({"sent", "delivered", "completed", "recovered"})

_FACTS = (
    ("Phone", "phone"),
    ("Contact", "contact_key"),
    ("Message key", "message_key"),
    ("Definition", "definition"),
    ("Code", "code"),
    ("Campaign", "campaign"),
    ("Job", "job"),
    ("Reference", "reference"),
    ("Provider's status", "provider_status"),
    ("Failures in a row", "failures"),
)
"""What a message shows of an event's data if it is there, the most important first."""

Message = dict[str, Any]


def group_of(event: Event) -> tuple[str, str, str]:
    """Return the key that events of one digest have in common: the source, their message, and the status."""
    return event.source, _message(event), event.type


def single(event: Event) -> Message:
    """Return the message about one event."""
    title = _words(event, 1)
    fields = [("Resource", event.subject), ("Source", event.source)]
    fields += [(label, str(value)) for label, name in _FACTS if (value := _fact(event, name)) not in (None, "")]
    blocks = [
        _header(f"{_sign(event)} {title[0].upper()}{title[1:]}"),
        {"type": "section", "fields": [_field("When", date(event.time)), *_fields(fields)][:_MAX_FIELDS]},
        *_section("Counts", _counts(event)),
        *_section("Error", [error] if (error := _error(event)) else []),
        _context(_history(event), f"id {event.id}"),
    ]
    return _finished(" · ".join(filter(None, (title, event.subject, _error(event)))), blocks)


def digest(events: Sequence[Event]) -> Message:
    """Return one message about several events of one group; `events` holds at least two."""
    first = events[0]
    title = f"{len(events)} more: {_words(first, len(events))}"
    times = [event.time for event in events]
    blocks = [
        _header(f"{_sign(first)} {title}"),
        {
            "type": "section",
            "fields": [
                *_fields([("Message", _message(first)), ("Source", first.source)]),
                _field("From", date(min(times))),
                _field("To", date(max(times))),
            ],
        },
        *_section("Details", _ranking(event.data.detail for event in events)),
        *_section("Errors", _ranking(_error(event) for event in events)),
        *_section("First of them", _list([_who(event) for event in events])),
        _context(f"{len(events)} events in one message"),
    ]
    return _finished(f"{title} · {_message(first)}", blocks)


def plain(message: Message) -> Message:
    """Return the message as text alone, without its blocks."""
    return {key: value for key, value in message.items() if key != "blocks"}


def date(moment: datetime) -> str:
    """Return Slack's token for a time, shown in each reader's zone; readers without it see UTC."""
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time_secs}}|{moment:%Y-%m-%d %H:%M:%S} UTC>"


def escape(text: str) -> str:
    """Return `text` with the three characters escaped that Slack gives a meaning."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fit(text: str, limit: int) -> str:
    """Return `text` escaped, on one line, at most `limit` long and never empty; a cut never halves an entity."""
    plain = escape(" ".join("".join(char if char.isprintable() else " " for char in text).split())) or "-"
    units = plain.encode("utf-16-le", "replace")
    if len(units) <= 2 * limit:
        return units.decode("utf-16-le")
    cut = units[: 2 * (limit - 1)].decode("utf-16-le", "ignore")
    stem, ampersand, entity = cut.rpartition("&")
    return (stem if ampersand and ";" not in entity else cut) + "…"


# --- what an event says -----------------------------------------------------------------------------------------------


def _fact(event: Event, name: str) -> Any:
    return getattr(event.data, name, None)


def _error(event: Event) -> str:
    return str(_fact(event, "error") or _fact(event, "reason") or "")


def _message(event: Event) -> str:
    """Return the message that an event belongs to; without one its definition, campaign and job, or source."""
    if _fact(event, "message"):
        return str(event.data.message)  # type: ignore[attr-defined]  # this data has it
    if _fact(event, "recipient_counts") is not None or event.type.split(".")[2:3] == ["message"]:
        return str(_fact(event, "definition") or event.subject)
    near = [f"{name} {value}" for name in ("campaign", "job") if (value := _fact(event, name)) is not None]
    return ", ".join(near) or event.source


def _parts(event: Event) -> tuple[str, str, str]:
    words = [*event.type.removeprefix("bridge.").split("."), "", "", ""]
    return words[0], words[1], ".".join(filter(None, words[2:]))


def _words(event: Event, count: int) -> str:
    channel, entity, status = _parts(event)
    noun = entity if count == 1 or not entity else f"{entity}s"
    words = [noun, status] if channel == "bridge" else [channel, noun, status]
    text = " ".join(filter(None, words)).replace("_", " ") or "event"
    detail = event.data.detail if count == 1 else None
    return f"{text}: {detail.replace('_', ' ')}" if detail else text


def _sign(event: Event) -> str:
    status = _parts(event)[2]
    if status in _BAD:
        return ":red_circle:"
    if status in _DOUBTFUL:
        return ":large_orange_circle:"
    return ":large_green_circle:" if status in _GOOD else ":large_blue_circle:"


def _history(event: Event) -> str:
    before = event.data.previous
    change = f"{before} → {event.data.status}" if before else event.data.status
    return f"{change} ({event.data.transition})"


def _counts(event: Event) -> list[str]:
    facts: dict[str, Any] = {}
    for name in ("recipient_counts", "recipient_detail_counts"):
        counts = _fact(event, name)
        facts |= counts if isinstance(counts, dict) else {}
    text = " · ".join(f"{name.replace('_', ' ')} {count}" for name, count in facts.items() if count)
    return [text] if text else []


def _who(event: Event) -> str:
    phone = _fact(event, "phone")
    return f"{event.subject} ({phone})" if phone else event.subject


def _ranking(values: Iterable[str | None]) -> list[str]:
    counts = Counter(value for value in values if value)
    top = counts.most_common(_MAX_LISTED)
    rest = counts.total() - sum(count for _, count in top)
    return [f"{value.replace('_', ' ')}: {count}" for value, count in top] + ([f"other: {rest}"] if rest else [])


def _list(values: Sequence[str]) -> list[str]:
    rest = len(values) - _MAX_LISTED
    return [*values[:_MAX_LISTED], *([f"and {rest} more"] if rest > 0 else [])]


# --- blocks -----------------------------------------------------------------------------------------------------------


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}  # Slack makes no link or mention of it by itself


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": fit(text, MAX_HEADER_CHARACTERS), "emoji": True}}


def _field(label: str, marked: str) -> dict[str, Any]:
    return _mrkdwn(f"*{label}*\n{marked}")


def _fields(facts: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [_field(label, fit(value, MAX_FIELD_CHARACTERS - _MARKUP_CHARACTERS)) for label, value in facts]


def _section(label: str, lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return a section with these lines, or nothing if there are none."""
    if not lines:
        return []
    limit = (MAX_TEXT_CHARACTERS - _MARKUP_CHARACTERS) // len(lines)
    return [{"type": "section", "text": _mrkdwn("\n".join([f"*{label}*", *(fit(line, limit - 1) for line in lines)]))}]


def _context(*texts: str) -> dict[str, Any]:
    return {"type": "context", "elements": [_mrkdwn(fit(text, MAX_FIELD_CHARACTERS)) for text in texts]}


def _finished(text: str, blocks: list[dict[str, Any]]) -> Message:
    return {"text": fit(text, MAX_FALLBACK_CHARACTERS), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}
