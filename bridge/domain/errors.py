"""Errors, named by what the caller does next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """What an endpoint answered, as it came: it may hold secrets and personal data, and is never fit for a log."""

    status: int
    body: bytes


class BridgeError(Exception):
    """Something the bridge understood and can say in one line.

    The text of every error of this family is fit for a log: it names the file, the key or the resource and what to do,
    and holds neither secrets nor personal data.
    """

    answer: EndpointAnswer | None = None
    """The answer of a sink's endpoint that led to the error, if there was one; a dead letter keeps it, redacted."""


class Transient(BridgeError):
    """Try again later; `retry_after` is the wait in seconds that the endpoint asks for: a minimum, never a promise.

    With `counts_as_attempt=False` nothing was tried: a sink with a rate limit of its own asks for the delivery again
    after `retry_after` seconds. It costs none of the delivery's attempts, and proves nothing about the endpoint.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, counts_as_attempt: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.counts_as_attempt = counts_as_attempt


class Unauthorized(Transient):
    """The credentials were refused: trying again is harmless, but an operator has to look."""


class Unavailable(Transient):
    """The store or the broker cannot be reached now; nothing was left half done that a second try would not repair."""


class AccessRefused(Unavailable):
    """The store or the broker refuses our credentials: trying again is harmless, but an operator has to look."""


class MissingRight(Unavailable):
    """The store or the broker knows us and does not let us do it: an operator has to give the right that is named."""


class OtherInstallation(Unavailable):
    """The store or the broker belongs to another installation: an operator has to say which one is meant."""


class NotReady(Transient):
    """The provider is still building the answer (HTTP 202): ask later; it does not mean that there is nothing."""


class Permanent(BridgeError):
    """The endpoint will never accept this one; trying again is useless."""


class EndpointGone(Permanent):
    """The endpoint is gone for good (HTTP 410): send it nothing more until an operator says so."""


class LeaseLost(BridgeError):
    """Another replica holds the lease by now: whatever was about to be written must not be."""


class Conflict(BridgeError):
    """A status changed between reading and writing: read again and decide again."""


class PlacedError(ValueError):
    """A value of a configuration cannot be read; `place` leads from the value to the part of it that is wrong.

    The text says what to do.
    """

    def __init__(self, place: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.place = place


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong with a configuration: where, which key, what, and what to do."""

    file: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(BridgeError):
    """The configuration cannot be used; `problems` has a line for each reason."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
