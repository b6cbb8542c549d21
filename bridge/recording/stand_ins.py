"""Stand-ins for texts and digits: the same for the same value of one tape, and none that leads back to it."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import TypeVar

_HIDDEN_DIGITS = 9
_ROUNDS = 8
_MAX_REMEMBERED_ENTRIES = 200_000

T = TypeVar("T")


class StandIns:
    """Makes stand-ins with the key of one tape; pure, apart from the memory that makes it fast."""

    def __init__(self, key: bytes) -> None:
        self._secret = key
        self._tokens: dict[str, str] = {}
        self._digits: dict[str, str] = {}

    def knows(self, text: str) -> bool:
        """Return whether a stand-in was made for this text."""
        return text in self._tokens

    def token(self, text: str) -> str:
        """Return the stand-in of a text; white space around it makes no difference."""
        text = text.strip()
        known = self._tokens.get(text)
        if known is None:
            data = text.encode("utf-8", "surrogatepass")
            digest = blake2b(data, key=self._secret, digest_size=10).digest()
            known = "~" + base64.b32encode(digest).decode().lower()
            remember(self._tokens, text, known)
        return known

    def digits(self, text: str) -> str:
        """Return a text with other digits at its end, as many as before: two phones never get the same ones."""
        known = self._digits.get(text)
        if known is None:
            plain = "".join(char for char in text if "0" <= char <= "9")
            # The same phone with and without the code of its country ends in the same nine digits, also afterwards.
            shown = max(1, len(plain) - _HIDDEN_DIGITS)
            changed = iter(plain[:shown] + self._permuted(plain[shown:]))
            known = "".join(next(changed) if "0" <= char <= "9" else char for char in text)
            remember(self._digits, text, known)
        return known

    def _permuted(self, digits: str) -> str:
        """Map the numbers of so many digits onto each other, one to one: a Feistel network in decimal digits."""
        size = len(digits)
        left, right = size // 2, size - size // 2
        left_half, other = int(digits[:left] or 0), int(digits[left:] or 0)
        for number in range(_ROUNDS):
            data = f"{size}:{number}:{other}".encode()
            mixed = left_half + int.from_bytes(blake2b(data, key=self._secret, digest_size=8).digest())
            left_half, other = other, mixed % 10 ** (left if number % 2 == 0 else right)
        return f"{left_half:0{left}d}{other:0{right}d}"[-size:] if size else ""


def remember(known: dict[str, T], text: str, decided: T) -> None:
    """Keep what was decided for a text; a full memory begins anew."""
    if len(known) >= _MAX_REMEMBERED_ENTRIES:
        known.clear()
    known[text] = decided
