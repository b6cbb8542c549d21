"""What a sink may see: phones, e-mail addresses and keys as they are, as their last four characters, or as tokens.

What is masked, `…1000` under `last4` and `tok_` with 16 hexadecimal digits under `token`:

- `data.phone`, `data.contact_key`, `data.message_key` and `data.reference`: the whole value;
- phones and e-mail addresses inside texts: `data.error`, `data.reason`, `data.definition`, and every attribute and
  field that none of our models knows; hosts, ports, times and the numbers of resources in paths stay;
- in `data.provider`: the whole value of a field whose name says phone, address, person or key; in all other fields,
  phones, addresses and bare numbers of ten digits or more;
- phone, contact key and message key inside `subject` and `partitionkey`: always a token, so that the paths of two
  resources stay different.

Everything else stays as it is: `id`, `source`, `type`, the times, statuses, counts, and the provider's own numbers of
messages, recipients, campaigns, jobs, teams and events. Of a value of four characters or fewer, none is shown. A token
is a keyed hash: the same value has the same token everywhere, as long as the key stays the same, and a phone has the
same token in every spelling.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import filterfalse
from typing import Any
from urllib.parse import quote

from bridge.domain.errors import Permanent
from bridge.domain.event import WireEvent
from bridge.domain.personal_data import EMAIL, NOT_PERSONAL, PERSONAL_FIELDS, PHONE, names_person
from bridge.protocols.sink import Privacy

_WHOLE_PHONE = re.compile(PHONE)
_MAY_BE_PERSONAL = re.compile(rf"{EMAIL}|{PHONE}|\d{{5,}}")
_PERSONAL = re.compile(rf"(?P<email>{EMAIL})|(?P<kept>{NOT_PERSONAL})|(?P<phone>{PHONE})|(?P<digits>\d{{5,}})")
_NUMBER = re.compile(r"\d{5,}")
_PHONE_NUMBERS = range(10**9, 10**16)  # a bare number of ten to sixteen digits may be a phone

_KEPT_ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "time", "recordedtime", "datacontenttype", "dataschema"}
)
_PATHS = frozenset({"subject", "partitionkey"})
_KEPT_DATA = frozenset(
    {
        "channel", "status", "previous", "detail", "transition", "observed", "message", "recipient_counts",
        "recipient_detail_counts", "created_at", "completed_at", "campaign", "job", "team", "state", "timestamp",
        "event_id", "code", "provider_time", "failures", "since",
    }
)  # fmt: skip
_SHOWN_CHARACTERS = 4
"""Characters at the end of a value that `last4` shows."""

_Mask = Callable[[str], str]


def apply(level: Privacy, wire: WireEvent, key: bytes) -> WireEvent:
    """Return `wire` as a sink of this privacy level may see it; pure, and the same object under `full`.

    `key` makes the tokens, and another key makes other tokens. Without a key, which only `last4` allows, paths show the
    last four characters too, since a hash without a key can be guessed. The id, the topic and the time stay as they
    are. Raises `Permanent` for a body that cannot be read, because its personal data cannot be masked.
    """
    if level == "full":
        return wire
    if level == "token" and not key:
        raise ValueError("tokens need a key")
    try:
        body = _masked_body(level, json.loads(wire.body), key)
    except (ValueError, TypeError, RecursionError):
        raise Permanent(f"the event cannot be read, so privacy: {level} cannot be kept and it is not sent") from None
    return replace(wire, body=body)


def mask_text(level: Privacy, text: str, wire: WireEvent, key: bytes) -> str:
    """Return a text about an event, such as its endpoint's answer, as a sink of this privacy level may have it.

    What is personal in the event is masked in the text, in whatever place it stands; so is all that looks like a phone
    or an address. A text that is JSON is masked field by field. Raises `Permanent` as `apply` does.
    """
    if level == "full":
        return text
    try:
        view = _view_of(level, json.loads(wire.body), key)
    except (ValueError, TypeError, RecursionError):
        raise Permanent("the event cannot be read, so what is personal in it is not known") from None
    return view.text(text)


def _view_of(level: Privacy, event: Any, key: bytes) -> _View:
    if not isinstance(event, dict):
        raise TypeError("not a JSON object")
    token = _Tokens(key) if key else last4
    return _View.of(event.get("data"), token, token if level == "token" else last4)


def _masked_body(level: Privacy, event: Any, key: bytes) -> bytes:
    view = _view_of(level, event, key)
    return json.dumps(view.event(event), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def last4(value: str) -> str:
    """Return the last four characters behind an ellipsis; of four or fewer, none."""
    return "…" + value[-_SHOWN_CHARACTERS:] if len(value) > _SHOWN_CHARACTERS else "…"


class _Tokens:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, value: str) -> str:
        return "tok_" + hmac.new(self._key, _normalize(value).encode(), hashlib.sha256).hexdigest()[:16]


def _normalize(value: str) -> str:
    """Return the same text for all spellings of a value: the digits of a phone, an address in lower case."""
    text = value.strip()
    if _WHOLE_PHONE.fullmatch(text):
        return _digits(text)
    return text.lower() if "@" in text else text


def _digits(text: str) -> str:
    return "".join(str(int(char)) for char in text if char.isdecimal())


@dataclass(frozen=True, slots=True)
class _View:
    """Masks one event for one privacy level."""

    mask: _Mask
    token: _Mask
    spellings: Mapping[str, str]
    """The personal values that a path may contain, by each spelling in a path."""
    keys: tuple[str, ...]
    """The personal values that no pattern matches in a text, longest first."""
    numbers: tuple[str, ...]
    """The digits of the personal values; a text may contain a part of them."""

    @classmethod
    def of(cls, data: Any, token: _Mask, mask: _Mask) -> _View:
        personal = (
            {name: str(data[name]) for name in PERSONAL_FIELDS if data.get(name)} if isinstance(data, dict) else {}
        )
        values = {value for value in personal.values() if len(value) > _SHOWN_CHARACTERS}
        in_paths = [value for name, value in personal.items() if name != "reference"]
        return cls(
            mask=mask,
            token=token,
            spellings={
                spelling: value for value in in_paths for spelling in (value, quote(value), quote(value, safe=""))
            },
            keys=tuple(sorted(filterfalse(_MAY_BE_PERSONAL.fullmatch, values), key=len, reverse=True)),
            numbers=tuple(_digits(value) for value in values),
        )

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._attribute(name, value) for name, value in event.items()}

    def text(self, text: str) -> str:
        """Mask a text that is no part of an event."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self._text(text)
        if not isinstance(value, dict | list):
            return self._text(text)
        return json.dumps(self._mixed(value), ensure_ascii=False, separators=(",", ":"))

    def _attribute(self, name: str, value: Any) -> Any:
        if name in _KEPT_ATTRIBUTES:
            return value
        if name in _PATHS and isinstance(value, str):
            return self._path(value)
        if name == "data" and isinstance(value, dict):
            return {field: self._field(field, content) for field, content in value.items()}
        return self._field(name, value)

    def _path(self, path: str) -> str:
        """Replace the segments that name a person; the provider's own numbers stay."""
        for spelling, value in self.spellings.items():
            if "/" in spelling:  # a key with a slash is more than one segment
                path = path.replace(spelling, self.token(value))
        return "/".join(map(self._segment, path.split("/")))

    def _segment(self, segment: str) -> str:
        if segment in self.spellings:
            return self.token(self.spellings[segment])
        names_person = any(_is_part(segment, spelling) for spelling in self.spellings)
        if names_person or "@" in segment or "%40" in segment or segment.startswith(("+", "%2B")):
            return self.token(segment)
        return segment

    def _field(self, name: str, value: Any) -> Any:
        if name in _KEPT_DATA:
            return value
        return self._whole(value) if name in PERSONAL_FIELDS or names_person(name) else self._mixed(value)

    def _whole(self, value: Any) -> Any:
        """Mask a value that is personal as a whole; in a structure, mask each value."""
        match value:
            case bool() | None:
                return value
            case dict():
                return {self._text(name): self._whole(content) for name, content in value.items()}
            case list():
                return [self._whole(item) for item in value]
            case _:
                return self.mask(str(value)) if value != "" else value

    def _mixed(self, value: Any) -> Any:
        """Mask what is personal inside a value."""
        match value:
            case str():
                return self._text(value)
            case dict():
                return {
                    self._text(name): self._whole(content) if names_person(name) else self._mixed(content)
                    for name, content in value.items()
                }
            case list():
                return [self._mixed(item) for item in value]
            case int() if abs(value) in _PHONE_NUMBERS:
                return self.mask(str(value))
            case _:
                return value

    def _text(self, text: str) -> str:
        """Mask what is personal inside a text; a mask is not masked again."""
        for key in self.keys:
            if key in text:
                return self.mask(key).join(map(self._text, text.split(key)))
        # Most texts have nothing to mask; to find that out by the whole pattern takes three times as long.
        return _PERSONAL.sub(self._mask_match, text) if _MAY_BE_PERSONAL.search(text) else text

    def _mask_match(self, match: re.Match[str]) -> str:
        text = match[0]
        match match.lastgroup:
            case "kept":
                return _NUMBER.sub(self._mask_part, text)
            case "digits":
                return self._mask_part(match)
            case _:
                return self.mask(text)

    def _mask_part(self, match: re.Match[str]) -> str:
        """Mask a number that is a part of one of the event's own personal values."""
        text = match[0]
        return self.mask(text) if any(_digits(text) in number for number in self.numbers) else text


def _is_part(segment: str, spelling: str) -> bool:
    return len(spelling) > _SHOWN_CHARACTERS and not spelling.isdecimal() and spelling in segment
