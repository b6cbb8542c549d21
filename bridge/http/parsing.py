"""Lenient readers of what providers answer: a value that is absent, null or of another type is None, not an error."""

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
MAX_NUMBER_DIGITS = 40
"""Digits; a longer whole number is not read as a number: no id is so long."""
_INTEGER = re.compile(rf"[+-]?\d{{1,{MAX_NUMBER_DIGITS}}}")
_LARGEST_INTEGER = 10**MAX_NUMBER_DIGITS
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_CODE = re.compile(r"\d{1,6}|[a-z][a-z_]{0,39}")
_CODE_KEYS = ("errorcode", "errorCode", "error_code", "code", "error")
_MAX_ERROR_BODY_BYTES = 65536
_MAX_TIME_CHARS = 64
_MAX_LEVELS = 64
"""Levels of objects and arrays in each other that are read of a JSON text that the fast reader refuses."""
_MAX_JSON_DIGITS = 300


def json(body: bytes) -> Any:
    """Return the value of a JSON text; raises `ValueError`.

    It skips a byte order mark, and reads bytes or escapes that are no characters as U+FFFD: one bad character in an
    error message must not hide a page of statuses. If the library refuses a text because a number is too long or the
    nesting too deep, such numbers become text, and values below 64 levels become None.
    """
    body = body.removeprefix(_BOM)
    try:
        return from_json(body)
    except ValueError:
        text = _without_lone_surrogates(body.decode("utf-8", "replace"))
    try:
        return from_json(text)
    except ValueError:
        return _read_slowly(text)


def _read_slowly(text: str) -> Any:
    try:
        value = standard_json.loads(
            text, parse_int=lambda digits: int(digits) if len(digits) <= _MAX_JSON_DIGITS else digits
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _shallow(value, _MAX_LEVELS)


def _shallow(value: Any, levels: int) -> Any:
    match value:
        case dict() | list() if not levels:
            return None
        case dict():
            return {name: _shallow(member, levels - 1) for name, member in value.items()}
        case list():
            return [_shallow(member, levels - 1) for member in value]
        case _:
            return value


def _without_lone_surrogates(text: str) -> str:
    # Each pair stands for one character. Pairs are replaced first, so that every surrogate that is left stands alone.
    text = _PAIR.sub(lambda pair: str(standard_json.loads(f'"{pair[0]}"')), text)
    return _LONE_SURROGATE.sub(r"\\ufffd", text)


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """Return a text or a number as text, without white space around it; None for empty text and for anything else."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        # To print a much longer integer would take seconds; no id is so long.
        return str(value) if value.bit_length() <= 256 else None  # noqa: PLR2004 - see above
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)  # noqa: PLR2004 - exact so far
    return None


def integer(value: Any) -> int | None:
    """Return a whole number of up to 40 digits, also one written as text or as `2.0`; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value) if abs(value) < _LARGEST_INTEGER else None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


def time(value: Any, *, assume: timezone = UTC) -> datetime | None:
    """Return an RFC 3339 time in UTC; one without an offset is in the zone `assume`; None for anything else.

    It also reads a blank for the `T`, a comma for the point, no seconds, and up to nine digits of a second.
    """
    return _time(value, assume) if isinstance(value, str) and len(value) <= _MAX_TIME_CHARS else None


@lru_cache(maxsize=2048)  # the messages of a wave have few different times, and each is read for many recipients
def _time(text: str, assume: timezone) -> datetime | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[n] or 0) for n in range(1, 7))
    micros = int((match[7] or "0").ljust(6, "0")[:6])
    try:
        # A leap second, `23:59:60`, becomes the second that follows it.
        moment = datetime(year, month, day, hour, minute, min(second, 59), micros, tzinfo=_zone(match[8], assume))
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
    """Return the first candidate in E.164 form; if none is, the first that is not empty."""
    first = None
    for candidate in map(text, candidates):
        if candidate is None:
            continue
        if _E164.fullmatch(candidate):
            return candidate
        first = first or candidate
    return first


def error_code(body: bytes) -> str | None:
    """Return the provider's own code in an error's body: a number of few digits or a lower case word, no sentence."""
    if len(body) > _MAX_ERROR_BODY_BYTES:
        return None
    try:
        value = json(body)
    except ValueError:
        return None
    fields = mapping(value)
    codes = (text(fields.get(key)) for key in _CODE_KEYS)
    return next((code for code in codes if code is not None and _CODE.fullmatch(code)), None)
