"""What the text of a secret may be: characters that nobody sees are dropped around it, and named inside it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp", "Zs"})
"""Unicode's categories of what is no visible character: controls, marks of format, surrogates, separators."""
_NAMES = {
    "\0": "NULL", "\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE", "\x7f": "DELETE",
    "\x85": "NEXT LINE", BYTE_ORDER_MARK: "BYTE ORDER MARK",
}  # fmt: skip
_SURROGATES = range(0xDC80, 0xDD00)
"""What Python makes of a byte of the environment that is not UTF-8; the byte is the code less 0xDC00."""


class FoldedText(str):
    """A text that a file has on several lines, and that YAML joined with blanks; as a secret it is another one."""

    __slots__ = ()


def character_name(character: str) -> str:
    """Return how a character is called: `ZERO WIDTH SPACE (U+200B)`."""
    code = ord(character)
    if code in _SURROGATES:
        return f"a byte that is not UTF-8 (0x{code - 0xDC00:02X})"
    name = _NAMES.get(character) or unicodedata.name(character, "CONTROL CHARACTER")
    return f"{name} (U+{code:04X})"


def unseen_character(text: str) -> str | None:
    """Return the name of the first character that no secret has; None if there is none. A plain blank is allowed."""
    if isinstance(text, FoldedText):
        return character_name("\n")
    unseen = (char for char in text if char == "\ufffd" or (char != " " and unicodedata.category(char) in _UNSEEN))
    first = next(unseen, None)
    return None if first is None else character_name(first)


def secret_text(text: str) -> str:
    """Return a secret without white space and a byte order mark around it; raises `ValueError`.

    The error names a character that no secret has. It quotes nothing of the secret, and does not say where in it.
    """
    inner = _trimmed(text)
    name = unseen_character(FoldedText(inner) if isinstance(text, FoldedText) else inner)
    if name is not None:
        raise ValueError(f"has {name} in it, which no secret has; write the secret anew, without it")
    return inner


def read_secret(path: Path, *, is_list: bool = False) -> str:
    """Return the secret in a file, with `is_list` one a line; raises `OSError`, or `ValueError` as `secret_text`."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        is_what = "is UTF-16 text" if utf_16 else "is not UTF-8 text"
        raise ValueError(f"{is_what}; save it as UTF-8") from None
    if not _trimmed(text):
        raise ValueError("is empty")
    if not is_list:
        return secret_text(text)
    return "\n".join(line for line in map(secret_text, _trimmed(text).split("\n")) if line)


def _trimmed(text: str) -> str:
    former = None
    while former != text:
        former, text = text, text.strip().strip(BYTE_ORDER_MARK)
    return text
