"""Regular expressions that take linear time: RE2, the extra `regex`."""

from __future__ import annotations

from typing import Any

_MAX_MEMORY_BYTES = 1 << 20
"""Bytes that one compiled expression may take; a larger one is refused when it is read."""
_MAX_CHARACTERS = 1000


class RegularExpression:
    """A compiled expression, looked for anywhere in a text; `^` and `$` stand for the text's ends.

    Raises `ValueError` if it cannot be used, or if the library is not installed.
    """

    __slots__ = ("_search", "text")

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"has more than {_MAX_CHARACTERS} characters; write a shorter expression")
        self.text = text
        self._search = _compiled(text).search

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegularExpression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def is_in(self, text: str) -> bool:
        """Say whether the expression matches any part of a text."""
        return self._search(text) is not None


def _compiled(text: str) -> Any:
    try:
        import re2
    except ImportError:
        raise ValueError(
            "matches needs the extra `regex`, which is not installed: pip install 'bridge[regex]'; or use prefix, "
            "suffix, exact or in"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"is no expression that RE2 knows: {said}; RE2 has no (?=…), (?<=…) and \\1") from None
