"""Writes the head of an answer anew in plain form: the same status, and only what every parser of HTTP accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAX_FIELD_BYTES = 64 * 1024
"""Bytes of a header; the parser reads headers up to this length, and a plain head leaves longer ones out."""
MAX_FIELDS = 1000
"""Headers of an answer; the parser reads so many, and a plain head leaves out those that follow."""
MAX_HEAD_BYTES = 256 * 1024
"""Bytes of an irregular head that are kept; a head that has not ended by then is cut off there."""
_MAX_LENGTH_DIGITS = 18

_STATUS_LINE = re.compile(rb"HTTP/(\d)(?:\.(\d))?[ \t]+(\d{3})(?=\s)", re.IGNORECASE)
_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONNECTION_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"upgrade", b"proxy-connection"}
)

_OWN_FIELDS = (b"Connection", b"Content-Length or Transfer-Encoding")

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PlainHead:
    """A final status and the headers that could be read; `data` ends with the blank line."""

    status: int
    fields: Sequence[Field]
    framing: Field | None
    """The header that says where the body ends; None if the body ends with the connection."""
    is_framed: bool
    """False if the headers contradict each other on where the body ends."""

    @property
    def data(self) -> bytes:
        """The head, followed by the body; the connection is not used again."""
        return self._written(self.framing)

    @property
    def bodiless(self) -> bytes:
        """The head of an answer whose body cannot be read."""
        return self._written((b"Content-Length", b"0"))

    def _written(self, framing: Field | None) -> bytes:
        fields = [*self.fields, (b"Connection", b"close"), *([framing] if framing else [])]
        lines = [b"HTTP/1.1 %03d " % self.status, *(b"%s: %s" % field for field in fields)]
        return b"\r\n".join([*lines, b"", b""])


def has_status(raw: bytes) -> bool:
    """Say whether `raw` begins with a final status, whether or not its line has ended."""
    return _final(raw) is not None


def split(raw: bytes) -> tuple[PlainHead | None, bytes] | None:
    """Return the head in plain form and what follows it; None while the head has not ended.

    The head is None if `raw` does not begin with a status line. Interim answers (1xx) before it are left out.
    """
    position = _start_of_final(raw)
    end = _HEAD_END.search(raw, position)
    if end is not None:
        return plain(raw[position : end.start()] + b"\n"), raw[end.end() :]
    if len(raw) < MAX_HEAD_BYTES:
        return None
    head = plain(raw)
    return head and replace(head, framing=None, is_framed=False), b""


def plain(raw: bytes) -> PlainHead | None:
    """Return a head that may break off anywhere in plain form; None without a final status."""
    match = _final(raw)
    if match is None:
        return None
    # What follows the last line end may be half a header.
    _, *lines = _LINE_END.split(raw[match.end() :])[:-1] or [b""]
    fields = list(_fields(_unfolded(lines)))
    length, is_framed = _framing(fields)
    kept = [
        (name, value)
        for name, value in fields
        if name.lower() not in _CONNECTION_FIELDS and len(name) + len(value) <= MAX_FIELD_BYTES
    ]
    return PlainHead(int(match[3]), kept[: MAX_FIELDS - len(_OWN_FIELDS)], length, is_framed)


def _final(raw: bytes) -> re.Match[bytes] | None:
    match = _STATUS_LINE.match(raw, _start_of_final(raw))
    return None if match is None or _is_interim(match) else match


def _start_of_final(raw: bytes) -> int:
    position = len(raw) - len(raw.lstrip())
    while (match := _STATUS_LINE.match(raw, position)) and _is_interim(match):
        end = _HEAD_END.search(raw, match.end() - 1)
        if end is None:
            return position
        position = end.end()
    return position


def _is_interim(match: re.Match[bytes]) -> bool:
    return match[3].startswith(b"1") and match[3] != b"101"


def _unfolded(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Join lines that begin with a blank to the line before (RFC 9112, 5.2)."""
    joined: list[bytes] = []
    for line in lines:
        if not line.startswith((b" ", b"\t")):
            joined.append(line)
        elif joined:
            joined[-1] += b" " + line.strip()
    return joined


def _fields(lines: Iterable[bytes]) -> Iterable[Field]:
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and _NAME.fullmatch(name.strip()):
            yield name.strip(), _CONTROL.sub(b" ", value).strip()


def _framing(fields: Sequence[Field]) -> tuple[Field | None, bool]:
    """Return the header that says where the body ends, and whether that can be told (RFC 9112, 6.3)."""
    codings = [coding for coding in _words(fields, b"transfer-encoding") if coding not in (b"identity", b"")]
    if codings:  # counts more than a length that is also given
        return ((b"Transfer-Encoding", b"chunked"), True) if codings[-1] == b"chunked" else (None, True)
    lengths = set(_words(fields, b"content-length"))
    if not lengths:
        return None, True
    length = lengths.pop()
    if lengths or not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        return None, False
    return (b"Content-Length", length), True


def _words(fields: Sequence[Field], name: bytes) -> list[bytes]:
    return [word.strip().lower() for key, value in fields if key.lower() == name for word in value.split(b",")]
