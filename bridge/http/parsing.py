"""Lenient reading of what providers answer: absent, null and of another type is None, never an error."""

from __future__ import annotations

import json as standard_json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

_BOM = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile(r"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|[c-fC-F][0-9a-fA-F]{2})")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
LONGEST_NUMBER = 40
"""Whole numbers of more digits are no numbers to us: no id is so long."""
_INTEGER = re.compile(rf"[+-]?\d{{1,{LONGEST_NUMBER}}}")
_LARGEST = 10**LONGEST_NUMBER
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_CODE = re.compile(r"\d{1,6}|[a-z][a-z_]{0,39}")
_CODE_KEYS = ("errorcode", "errorCode", "error_code", "code", "error")
_LARGEST_ERROR_BODY = 65536
_LONGEST_TIME = 64
_LEVELS = 64
_DIGITS = 300


def json(body: bytes) -> Any:
    """Return the value of a JSON text; raises `ValueError`.

    A byte order mark is passed over, and bytes or escapes that are no characters are read as U+FFFD: one bad character
    in an error message must not hide a page of statuses. Where a number is too long, or a value too deep in others, for
    the library, such numbers are read as text, and what lies deeper than anybody looks as None.
    """
    body = body.removeprefix(_BOM)
    try:
        return from_json(body)
    except ValueError:
        text = _without_lone_surrogates(body.decode("utf-8", "replace"))
    try:
        return from_json(text)
    except ValueError:
        return _patiently(text)


def _patiently(text: str) -> Any:
    try:
        value = standard_json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _DIGITS else digits)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _shallow(value, _LEVELS)


def _shallow(value: Any, levels: int) -> Any:
    match value:
        case dict() | list() if not levels:
            return None
        case dict():
            return {name: _shallow(each, levels - 1) for name, each in value.items()}
        case list():
            return [_shallow(each, levels - 1) for each in value]
        case _:
            return value


def _without_lone_surrogates(text: str) -> str:
    # Pairs stand for one character each and are taken out of the way first, so that what is left over stands alone.
    text = _PAIR.sub(lambda found: str(standard_json.loads(f'"{found[0]}"')), text)
    return _LONE_SURROGATE.sub(r"\\ufffd", text)


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """Return a text or a number as text without white space around it; None for anything else and for nothing."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        # Longer integers than any id has would need seconds to print.
        return str(value) if value.bit_length() <= 256 else None  # noqa: PLR2004 - see above
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)  # noqa: PLR2004 - exact so far
    return None


def integer(value: Any) -> int | None:
    """Return a whole number of up to 40 digits, also one written as text or as `2.0`; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value) if abs(value) < _LARGEST else None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


def time(value: Any, *, assume: timezone = UTC) -> datetime | None:
    """Return an RFC 3339 time in UTC; one without an offset is in the zone `assume`; None for anything else.

    A blank for the `T`, a comma for the point, absent seconds and up to nine digits of a second are read as well.
    """
    return _time(value, assume) if isinstance(value, str) and len(value) <= _LONGEST_TIME else None


@lru_cache(maxsize=2048)  # a wave of messages has few different times, and each is read for many recipients
def _time(text: str, assume: timezone) -> datetime | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in range(1, 7))
    micros = int((found[7] or "0").ljust(6, "0")[:6])
    try:
        # A leap second, `23:59:60`, is written down as the second that follows.
        moment = datetime(year, month, day, hour, minute, min(second, 59), micros, tzinfo=_zone(found[8], assume))
        return (moment + timedelta(seconds=second - min(second, 59))).astimezone(UTC) if second <= 60 else None  # noqa: PLR2004 - leap
    except (ValueError, OverflowError):
        return None


def _zone(offset: str | None, assume: timezone) -> timezone:
    if offset is None:
        return assume
    if offset[0] not in "+-":
        return UTC
    span = timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
    return timezone(-span if offset[0] == "-" else span)


def phone(*candidates: Any) -> str | None:
    """Return the first candidate in E.164 form, else the first that says anything at all."""
    first = None
    for found in map(text, candidates):
        if found is None:
            continue
        if _E164.fullmatch(found):
            return found
        first = first or found
    return first


def error_code(body: bytes) -> str | None:
    """Return the provider's own code in an error's body: a number of few digits or a lower case word, no sentence."""
    if len(body) > _LARGEST_ERROR_BODY:
        return None
    try:
        value = json(body)
    except ValueError:
        return None
    fields = mapping(value)
    codes = (text(fields.get(key)) for key in _CODE_KEYS)
    return next((code for code in codes if code is not None and _CODE.fullmatch(code)), None)
