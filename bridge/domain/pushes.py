"""A provider's push as it came in, and what it says once it is verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Refusal = Literal["secret", "signature", "time", "content"]
"""Why a push is refused: the secret in its path is wrong, its signature, or its time; or it cannot be read."""


class PushRefused(Exception):  # noqa: N818 - it is an answer, and no failure of ours
    """A push is not the provider's, or cannot be read. Its text has no value of the push."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason


@dataclass(frozen=True, slots=True)
class PushRequest:
    """A push as it came in, not yet verified; it shows nothing of itself in a log."""

    url: str = field(repr=False)
    """The address that the provider called, with its query, as the provider knows it."""
    secret: str = field(repr=False)
    """What stood in the path behind the source's name; empty if there was nothing."""
    headers: Mapping[str, str] = field(repr=False)
    """By their names in lower case."""
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Push:
    """What a verified push says."""

    things: Sequence[str] = ()
    """What should be looked at now."""


class PushReader(Protocol):
    """Verifies and reads the pushes of one source: pure, and quick, for the provider waits."""

    secret_in_path: bool
    """Whether the path of the address ends with the secret."""

    def read(self, request: PushRequest, now: float) -> Push:
        """Return what a push says; raises `PushRefused`.

        Nothing of the body is read before the push is verified. `now` is in seconds since 1970.
        """
        ...
