"""Text that a person sees: what a terminal would obey, or nobody would see, is shown as an escape."""

from __future__ import annotations

import codecs

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN = {"…": "...", "→": "->"}
"""What stands for our own punctuation on a terminal that does not know it."""
_MAX_BYTE, _MAX_TWO_BYTES = 0xFF, 0xFFFF


def visible(text: str) -> str:
    r"""Return a text on one line in which every control character, mark of direction or odd blank is escaped.

    A line feed is `\n`, an escape character `\x1b`, a right-to-left override `\u202e`. Letters of all scripts stay.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def visible_lines(text: str) -> str:
    """Return a text of our own lines, each as `visible` has it."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """Return JSON that says the same, with the characters inside its texts that a terminal would obey as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\r\t" else _json_escaped(char) for char in text)


def encodable(text: str, encoding: str | None) -> str:
    """Return a text that an encoding can write: what it does not know is an escape."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.encode(name, "bridge.visible").decode(name)
    except LookupError:
        return text
    return text


def encodable_json(text: str, encoding: str | None) -> str:
    """Return JSON that says the same and that an encoding can write."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return "".join(char if char.isascii() else _json_escaped(char) for char in text)
    except LookupError:
        return text
    return text


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code <= _MAX_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _MAX_TWO_BYTES else f"\\U{code:08x}"


def _json_escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(char) or _escaped(char) for char in error.object[error.start : error.end]), error.end


codecs.register_error("bridge.visible", _replace)
