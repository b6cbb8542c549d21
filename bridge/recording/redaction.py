"""What of a provider's answer a tape may keep: all that makes events, and stand-ins for all that names a person.

Kept are ids, statuses, codes, counts, times, and the paths between resources. Everything else that is text has a
stand-in, also fields that nobody knows: a `~` and 16 letters, or for a phone as many digits, of which the last nine are
others. Stand-ins are made with a key that is drawn for each tape and never written down: on one tape, the same value
has the same stand-in and two values have two; between two tapes there is no way from one to the other. Of what was said
about an error, plain words and short numbers are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from aiohttp import hdrs
from multidict import MultiMapping
from yarl import URL

from bridge.domain.personal_data import PHONE
from bridge.http import parsing
from bridge.http.client import HttpRequest
from bridge.http.headers import http_date, links, parse_retry_after, requested_wait
from bridge.http.response import Response
from bridge.recording.places import below, place
from bridge.recording.stand_ins import StandIns, remember

TORN = "torn"
JSON = "json"
GRANTED = "granted"
_STAND_IN = re.compile(r"~[a-z2-7]{16}")
_IDENTITY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LABEL = re.compile(r"(?=.*[A-Za-z])(?!.*\d{7})[A-Za-z0-9][\w .:/-]{0,63}|-?\d{1,6}", re.ASCII)
_NUMERAL = re.compile(r"-?\d{1,18}", re.ASCII)
_ID = re.compile(rf"#?-?\d{{1,{parsing.MAX_NUMBER_DIGITS}}}", re.ASCII)
_PHONE = re.compile(PHONE, re.ASCII)
_PHONE_CHARACTERS = re.compile(r"[+\d\s().\-\u2010-\u2015/x]+", re.ASCII)
_EMAIL = re.compile(r"[^\s@<>\"'(),;:/?&=]+@[^\s@<>\"'(),;:/?&=]+")
_E164 = re.compile(r"\+\d{7,15}", re.ASCII)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\"'\s?#]*", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_$@][\w.$-]{0,63}", re.ASCII)
_SECRET = re.compile(r"token|secret|passw|authoriz|api_?key|signature|credential|session|cookie|\bsig\b")
_SAID = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")
_TRIM = re.compile(r"^([\W_]*)(.*?)([\W_]*)$", re.DOTALL)
_PUNCTUATION = ".,;:!?()[]\"'"
_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019/_][^\W\d_]+)*|\d{1,4}|\d(?:\.\d{1,3}){1,3}")
_DIGITS_IN_A_ROW = re.compile(r"\d{5,}", re.ASCII)
_SEGMENT = re.compile(r"(?!.*%(?:40|2B))[A-Za-z0-9_.$~%-]{1,64}", re.IGNORECASE)
_ARGUMENT = re.compile(r"(?!.*\d{7})[\w.:$+-]{0,40}", re.ASCII)
_MEDIA = re.compile(r"[\w.+-]+/[\w.+-]+(?:\s*;\s*charset=[\w-]+)?", re.ASCII)
_BRACKETS = re.compile(r"\(([^)]*)\)")
_MARK = re.compile(rf"\d{{1,{parsing.MAX_NUMBER_DIGITS}}}|[0-9a-f]{{32}}", re.ASCII)
_NUMBERED = frozenset({"page", "page_size", "per_page", "limit", "offset", "lasteventid", "$pagesize", "team", "id"})
_ELSEWHERE = "https://elsewhere.invalid"
_UNREADABLE = "http://["
_MAX_NUMBER_DIGITS = 256
_SMALL_NUMBER_LIMIT = 10**6
"""Numbers below it are no phones, and are kept."""

_Rule = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Field:
    """What is kept of all fields of one name."""

    name: str
    """The name itself, or its stand-in."""
    rule: _Rule
    quotes_names: bool = False
    """Whether it holds what was said of an error."""


_SECRET_FIELD = _Field("", lambda _: None)
"""Of fields that open a door, nothing is kept."""


class Redactor:
    """Makes the stand-ins of one tape; pure, apart from the memory that makes it fast."""

    def __init__(self, key: bytes) -> None:
        self._stand_ins = StandIns(key)
        self.token = self._stand_ins.token
        self.digits = self._stand_ins.digits
        self._shown: dict[str, str] = {}
        self._fields: dict[str, _Field] = {}
        self._replaced: list[tuple[str, str]] = []
        identity = self._strings(_IDENTITY, number=lambda value: value, shown=self._shown)
        count = self._strings(_NUMERAL, number=lambda value: value)
        label = self._strings(_LABEL, number=self._number)
        self._rules: Mapping[str, _Rule] = {
            **dict.fromkeys(("id", "eventid", "lasteventid"), identity),
            **dict.fromkeys(("count", "total", "page", "expires_in", "team", "job", "campaign"), count),
            **dict.fromkeys(("recipient_counts", "recipient_detail_counts"), lambda value: self._all(value, count)),
            **dict.fromkeys(("status", "state", "statuscode", "eventcategorytype", "definitionkey"), label),
            **dict.fromkeys(("code", "errorcode", "error_code"), label),
            **dict.fromkeys(("phone", "formatted_phone", "number", "to", "msisdn", "from_number"), self._phone),
            "_links": lambda value: self._all(value, self._link),
            "messagekey": self._key,
        }

    # --- one answer ---------------------------------------------------------------------------------------------------

    def request(self, request: HttpRequest) -> str:
        """Return path and query of a request, below the configured path; `place` says the same of a request's own."""
        return self._path(place(request))

    def headers(self, answer: Response, origin: URL) -> dict[str, str]:
        """Return the headers that decide what a client does next, and nothing of the others."""
        headers = answer.headers
        kept = {
            hdrs.CONTENT_TYPE: _kept(headers, hdrs.CONTENT_TYPE, lambda text: bool(_MEDIA.fullmatch(text))),
            hdrs.RETRY_AFTER: _retry_after(answer),
            hdrs.LAST_MODIFIED: _kept(headers, hdrs.LAST_MODIFIED, lambda text: http_date(text) is not None),
            hdrs.DATE: _kept(headers, hdrs.DATE, lambda text: http_date(text) is not None),
            hdrs.ETAG: f'"{self.token(headers[hdrs.ETAG])}"' if hdrs.ETAG in headers else None,
            hdrs.LINK: self._link_header(answer, origin),
        }
        return {name: value for name, value in kept.items() if value is not None}

    def body(self, answer: Response, method: str) -> dict[str, Any]:
        """Return what is kept of a body: `json`, or of one that is no JSON under `torn` the sign that tells its kind.

        What is answered to anything but GET are access tokens: kept are their lifetime, whether there was one
        (`granted`), and an error's code.
        """
        try:
            value = parsing.json(answer.body)
        except ValueError:
            return {TORN: _kind(answer.body)}
        if method != hdrs.METH_GET:
            return _authentication(answer.body, value)
        self._replaced = []
        return {JSON: self._anything(value)}

    def opaque(self, text: str) -> str:
        """Return a text of ours, such as a cursor's entry: without hosts, addresses and phones."""
        text = _ORIGIN.sub("", text)
        text = _EMAIL.sub(lambda match: self.token(match[0]), text)
        return _E164.sub(lambda match: self.digits(match[0]), text)

    # --- what the ledger knew -----------------------------------------------------------------------------------------

    def scope(self, text: str) -> str:
        """Return a scope of the ledger as a source on tape will name it."""
        return self._path(text)

    def name(self, text: str, marks: Collection[str] = ()) -> str:
        """Return a resource's name in the ledger as a source on tape will find it in the answers.

        Where the provider marks the occurrences of a resource, its name is no id but a key that the customer chose, or
        for want of one a mark.
        """
        if marks and not (text.startswith("#") and text[1:] in marks):
            return str(self._key(text))
        if _ID.fullmatch(text) or text == "@":
            return text
        if text.startswith("/"):
            return self._path(text)
        return text if text in self._shown and not self._stand_ins.knows(text) else self.token(text)

    def history(self, text: str) -> str | None:
        """Return a history of the ledger, None for a history that may hold more than statuses and numbers."""
        visits, _, marks = text.partition("|")
        unknown = all(_LABEL.fullmatch(unquote(brackets)) for brackets in _BRACKETS.findall(visits))
        plain = _BRACKETS.sub("", visits)
        known = (not plain or plain.isalnum()) and all(_MARK.fullmatch(mark) for mark in marks.split(",") if mark)
        return text if unknown and known else None

    # --- values -------------------------------------------------------------------------------------------------------

    def _anything(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case dict():
                return self._object(value)
            case list():
                return [self._anything(item) for item in value]
            case _:
                return self._number(value)

    def _object(self, value: Mapping[str, Any]) -> dict[str, Any]:
        outer, self._replaced = self._replaced, []
        fields: dict[str, Any] = {}
        quoting: list[tuple[str, Any]] = []
        for name, field in value.items():
            if (rule := self._fields.get(name) or self._field(name)) is _SECRET_FIELD:
                continue
            fields[rule.name] = None if field is None else rule.rule(field)
            if rule.quotes_names:
                quoting.append((rule.name, field))
        # What was said of an error comes last, when the names are known that it may quote.
        for name, field in quoting:
            fields[name] = self._error_name(field) if isinstance(field, str) else fields[name]
        outer.extend(self._replaced)
        self._replaced = outer
        return fields

    def _field(self, name: str) -> _Field:
        """Decide once what is kept of the fields of a name."""
        lower = name.lower()
        if _SECRET.search(lower):
            field = _SECRET_FIELD
        elif lower in _QUOTING:
            field = _Field(
                self._name(name),
                lambda value: None if isinstance(value, str) else self._anything(value),
                quotes_names=True,
            )
        else:
            rule = self._rules.get(lower)
            field = _Field(self._name(name), self._anything if rule is None else partial(self._all, rule=rule))
        remember(self._fields, name, field)
        return field

    def _all(self, value: Any, rule: _Rule) -> Any:
        """Apply a rule to a value, or to each in a structure of them."""
        match value:
            case dict():
                return {self._name(name): self._all(item, rule) for name, item in value.items()}
            case list():
                return [self._all(item, rule) for item in value]
            case bool() | None:
                return value
            case _:
                return rule(value)

    def _name(self, name: str) -> str:
        return name if _NAME.fullmatch(name) and not _DIGITS_IN_A_ROW.search(name) else self.token(name)

    def _strings(self, kept: re.Pattern[str], number: _Rule, shown: dict[str, str] | None = None) -> _Rule:
        def rule(value: Any) -> Any:
            if not isinstance(value, str):
                return number(value)
            if not kept.fullmatch(value.strip()):
                return self._text(value)
            if shown is not None:
                remember(shown, value.strip(), value.strip())
            return value

        return rule

    def _text(self, text: str) -> str:
        if not text.strip() or parsing.time(text) is not None:
            return text
        if _PHONE.fullmatch(text.strip()):
            return self.digits(text)
        return self._stand_in(text)

    def _stand_in(self, text: str) -> str:
        token = self.token(text)
        if len(text.strip()) > 3:  # noqa: PLR2004 - shorter ones stand in other words by chance
            self._replaced.append((text.strip(), token))
        return token

    def _key(self, value: Any) -> Any:
        """Return the stand-in of a key, the same for a number and for its text."""
        text = parsing.text(value)
        return self._text(text) if text is not None else self._anything(value)

    def _phone(self, value: Any) -> Any:
        if not isinstance(value, str):
            return self._digits_of(value)
        if not value.strip() or not _PHONE_CHARACTERS.fullmatch(value):
            return self._text(value)
        return self.digits(value)

    def _number(self, value: Any) -> Any:
        """Return a number that may be a phone with other digits, and a small one as it is."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(value, float) and not math.isfinite(value):
            return value
        if abs(value) >= _SMALL_NUMBER_LIMIT:
            return self._digits_of(value)
        # What stands behind a point may be a place on earth, and that is somebody's.
        return float(int(value)) if isinstance(value, float) else value

    def _digits_of(self, value: Any) -> Any:
        if isinstance(value, float):
            return float(self._digits_of(int(value))) if math.isfinite(value) else value
        if value.bit_length() > _MAX_NUMBER_DIGITS:
            return 1 << (_MAX_NUMBER_DIGITS + 1)
        return int(self.digits(str(value)))

    def _link(self, value: Any) -> Any:
        if not isinstance(value, str):
            return self._number(value)
        try:
            url = URL(value.strip())
        except ValueError:
            return self._text(value)
        return self._path(url.raw_path_qs) if value.strip() else value

    def _error_name(self, text: str) -> str:
        """Return what was said of an error: plain words, short numbers, and stand-ins for everything else."""
        for original, token in sorted(self._replaced, key=lambda pair: -len(pair[0])):
            text = text.replace(original, token)
        return _SAID.sub(lambda match: self._said(match[0]), text)

    def _said(self, chunk: str) -> str:
        before, core, after = _TRIM.findall(chunk)[0]
        if not core or _STAND_IN.fullmatch(chunk.strip(_PUNCTUATION)):
            return chunk
        quoted = chunk[0] in "\"'" and chunk[0] == chunk[-1]
        if not quoted and _WORD.fullmatch(core):
            return chunk
        if _PHONE.fullmatch(core) or core.isdecimal():
            return f"{before}{self.digits(core)}{after}"
        return f"{before}{self.token(core)}{after}"

    # --- paths --------------------------------------------------------------------------------------------------------

    def _path(self, text: str) -> str:
        path, mark, query = text.partition("?")
        kept = "/".join(part if not part or _SEGMENT.fullmatch(part) else self.token(part) for part in path.split("/"))
        if not mark:
            return kept
        pairs = parse_qsl(query, keep_blank_values=True)
        if all(self._argument(name, value) == value for name, value in pairs):
            return f"{kept}?{query}"
        return f"{kept}?" + "&".join(
            f"{quote(name, safe='$')}={quote(self._argument(name, value), safe='~:')}" for name, value in pairs
        )

    def _argument(self, name: str, value: str) -> str:
        name = name.lower()
        if _SECRET.search(name):
            return "~"
        if (name in _NUMBERED and _NUMERAL.fullmatch(value)) or _ARGUMENT.fullmatch(value):
            return value
        return value if parsing.time(value) is not None else self.token(value)

    def _link_header(self, answer: Response, origin: URL) -> str | None:
        given = answer.headers.getall(hdrs.LINK, ())
        if not given:
            return None
        targets = links(given).items()
        return ", ".join(
            f'<{self._target(answer.url, target, origin)}>; rel="{name}"' for name, target in _named(targets)
        )

    def _target(self, base: URL, target: str, origin: URL) -> str:
        try:
            url = base.join(URL(target))
            inside = (url.scheme, url.host, url.port) == (origin.scheme, origin.host, origin.port)
        except ValueError:
            return _UNREADABLE
        path = self._path(below(url, origin))
        return path if inside else f"{_ELSEWHERE}{path}"


_QUOTING = frozenset({"error_message", "statusmessage", "error"})


def _named(links: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, target) for name, target in links if name in {"first", "prev", "next", "last"}]


def _kept(headers: MultiMapping[str], name: str, fits: Callable[[str], bool]) -> str | None:
    """Return a header's value, or `?` for one that cannot be read; None where there is none."""
    value = headers.get(name)
    return None if value is None else value if fits(value.strip()) else "?"


def _retry_after(answer: Response) -> str | None:
    """Return `Retry-After`; without one, the wait that the answer's rate limit says."""
    if hdrs.RETRY_AFTER in answer.headers:
        return _kept(answer.headers, hdrs.RETRY_AFTER, lambda text: parse_retry_after(text, answer.at) is not None)
    wait = requested_wait(answer.headers, answer.status, answer.at)
    return None if wait is None else f"{wait:g}"


def _kind(body: bytes) -> str:
    """Return a sign that is no JSON, of the same kind as a body that is none: HTML, torn, or nothing."""
    start = body.lstrip()[:1]
    return "" if not start else "<" if start == b"<" else "["


def _authentication(body: bytes, value: Any) -> dict[str, Any]:
    answer = parsing.mapping(value)
    kept = {"expires_in": parsing.integer(answer.get("expires_in")), "error": parsing.error_code(body)}
    granted = parsing.text(answer.get("access_token")) is not None
    return {JSON: {name: item for name, item in kept.items() if item is not None}, GRANTED: granted}
