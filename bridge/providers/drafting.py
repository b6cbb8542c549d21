"""Begins a definition from one answer of a provider: what can be guessed is, and the rest is marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from bridge.domain import topics
from bridge.http import parsing
from bridge.providers import times

_FORMATS = ("iso", "rfc2822", "epoch_ms", "epoch_s", "%Y-%m-%d %H:%M:%S")
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_KEYS = ("id", "uuid", "sid", "message_id", "message_uuid", "messageid", "messageId", "uid", "key")
_STATUSES = ("status", "state", "message_state", "event", "delivery_status", "deliveryStatus")
_CREATED = (
    "created_at",
    "date_created",
    "created",
    "createdAt",
    "message_time",
    "sent_at",
    "sentAt",
    "timestamp",
    "date",
)
_CHANGED = ("updated_at", "date_updated", "updatedAt", "changed_at", "completed_at", "doneAt", "finalized_at")
_PHONES = ("to", "phone", "to_number", "number", "recipient", "msisdn", "destination")
_LINKS = ("next", "next_page_uri", "nextPage", "next_url", "href")
_FINAL = re.compile(
    r"deliver(?:ed|y_failed)|undeliver|fail|reject|expire|cancel|read|complete|busy|no.?answer", re.IGNORECASE
)


def draft(body: bytes, *, path: str, provider: str, channel: str) -> str:
    """Return the text of a definition; raises `ValueError` that says what is wrong with the answer."""
    for word in (provider, channel):
        if not topics.is_word(word):
            raise ValueError(f"{word!r} cannot stand in a topic; use lower-case letters, digits and _")
    try:
        answer = parsing.json(body)
    except ValueError:
        raise ValueError("is no JSON; save the body of an answer as it came") from None
    place, items = next(_lists(answer, "$"), ("", []))
    if not items:
        raise ValueError("has no list with objects in it; save an answer that shows some items")
    return _text(_Guess(answer, place, items), path, provider, channel)


def _lists(value: Any, place: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    if isinstance(value, list):
        objects = [item for item in value if isinstance(item, dict)]
        if objects:
            yield place, objects
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _lists(inner, _joined(place, key))


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if re.fullmatch(r"[A-Za-z_@][\w@-]*", key) else f"{place}['{key}']"


class _Guess:
    """What the answer seems to say."""

    def __init__(self, answer: Any, place: str, items: Sequence[dict[str, Any]]) -> None:
        self.place = place
        self.items = items
        self.answer = answer
        keys = list(dict.fromkeys(key for item in items for key in item))
        self.key = self._first(keys, _KEYS)
        self.status = self._first(keys, _STATUSES)
        self.created, self.created_format = self._time(keys, _CREATED)
        self.changed, self.changed_format = self._time(keys, _CHANGED)
        self.phone = self._first(keys, _PHONES)
        self.link = next(_links(answer, "$"), None)

    def _first(self, keys: Sequence[str], names: Sequence[str]) -> str | None:
        scalar = {key for key in keys if any(parsing.text(item.get(key)) for item in self.items)}
        named = next((name for name in names if name in scalar), None)
        ending = next((key for key in keys if key in scalar and key.lower().endswith(names[0])), None)
        return named or ending

    def _time(self, keys: Sequence[str], names: Sequence[str]) -> tuple[str | None, str]:
        for key in sorted(keys, key=lambda key: names.index(key) if key in names else len(names)):
            written = self._format([item[key] for item in self.items if item.get(key) is not None])
            if key in names and written is not None:
                return key, written
        return None, "iso"

    @staticmethod
    def _format(values: Sequence[Any]) -> str | None:
        for written in _FORMATS:
            moments = [times.reader([written], "UTC")(value) for value in values]
            if moments and all(moment is not None and _EARLIEST < moment < _LATEST for moment in moments):
                return written
        return None

    @property
    def statuses(self) -> list[str]:
        """Return the values of the status, the most frequent first."""
        values = (parsing.text(item.get(self.status)) for item in self.items) if self.status else ()
        return [value for value, _ in Counter(filter(None, values)).most_common()]


def _links(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _LINKS and (inner is None or (isinstance(inner, str) and inner.startswith(("/", "http")))):
                yield _joined(place, key)
            yield from _links(inner, _joined(place, key))


def _word(value: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).lower()).strip("_") or "other"


def _quoted(value: str) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).split("\n")[0]


def _time_line(name: str, key: str, written: str, *, known: bool) -> str:
    return f"  {name}: {{path: $.{key}, format: {_quoted(written)}}}{'' if known else '  # ?'}"


def _text(guess: _Guess, path: str, provider: str, channel: str) -> str:
    statuses = guess.statuses or ["sent", "delivered"]
    words = {value: _word(value) for value in statuses}
    finals = [word for word in dict.fromkeys(words.values()) if _FINAL.search(word)] or list(words.values())[-1:]
    open_words = [word for word in dict.fromkeys(words.values()) if word not in finals]
    lines = [
        "# Begun from one answer. Look up each line with `# ?` in the provider's documentation.",
        "definition: 1",
        f"title: Messages of {provider}",
        "docs: [https://example.com/docs]  # ?",
        "url: https://api.example.com  # ?",
        "settings:",
        '  token: {about: "The account\'s token.", type: secret}  # ?',
        "auth: {bearer: token}  # ?",
        "budget: {rate: 1/s}  # ?",
        "listing:",
        f"  path: {_quoted(path)}",
        f"  items: {_quoted(guess.place)}",
        *([f"  pages: {{link: {_quoted(guess.link)}}}"] if guess.link else ["  # pages: {link: $.next}  # ?"]),
        "window:",
        "  start: {param: start, format: iso}  # ?",
        "  end: {param: end, format: iso}  # ?",
        "  lookback: 72h  # ? for how long a status may still change",
        f"identity: {{key: {_quoted(f'$.{guess.key}' if guess.key else '$.id')}}}{'' if guess.key else '  # ?'}",
        "times:",
        _time_line("created", guess.created or "created_at", guess.created_format, known=guess.created is not None),
    ]
    if guess.changed:
        lines.append(_time_line("changed", guess.changed, guess.changed_format, known=True))
    lines += [
        "status:",
        f"  path: $.{guess.status or 'status'}{'' if guess.status else '  # ?'}",
        "  map:  # ? there may be more than the answer showed",
        *(f"    {_quoted(value)}: {word}" for value, word in words.items()),
        *(["  follows:  # ?", *(f"    {word}: [{', '.join(finals)}]" for word in open_words)] if open_words else []),
        f"  finals: [{', '.join(finals)}]  # ?",
    ]
    if guess.phone:
        lines += ["facts:", f"  phone: $.{guess.phone}"]
    lines.append(f"events: {{provider: {provider}, channel: {channel}, entity: message}}")
    return "\n".join(lines) + "\n"
