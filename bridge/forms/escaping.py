"""How a text of an event stays a text where markup, mentions and line breaks have a meaning."""

from __future__ import annotations

import html
from collections.abc import Mapping

Table = Mapping[int, str]
"""What each character becomes; characters that are not in it stay."""

_ELLIPSIS = "…"
_SPACES = {**dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")}
_MENTION = {ord("@"): "@\u200b"}
"""A character without width behind the sign: no service finds a name there, and a reader sees no difference."""
_MARKDOWN = {ord(char): f"\\{char}" for char in "\\`*_{}[]()<>#+-.!|~:=^$&"}

TABLES: Mapping[str, Table] = {
    "none": {},
    "lines": _SPACES,
    "mentions": _SPACES | _MENTION,
    "markdown": _SPACES | _MARKDOWN | _MENTION,
    "html": _SPACES | {ord(char): html.escape(char) for char in "&<>\"'"},
}
"""The ways to escape: `lines` makes one line of a text, `mentions` also disarms `@`, the others also markup."""


def escaped(text: str, table: Table, limit: int | None) -> str:
    """Return a text escaped, and cut so that it has at most `limit` characters *with* its escapes."""
    if limit is None:
        return text.translate(table) if table else text
    text = text[: limit + 1]  # a text of any length costs no more than its beginning
    whole = text.translate(table) if table else text
    if len(whole) <= limit:
        return whole
    kept, size = [], len(_ELLIPSIS)
    for char in text:
        part = table.get(ord(char), char)
        size += len(part)
        if size > limit:
            break
        kept.append(part)
    return "".join(kept) + _ELLIPSIS if limit else ""
