"""Errors of a provider, named by what the caller does next."""

from __future__ import annotations

from bridge.domain.errors import Permanent, Transient


class ProviderError(Transient):
    """The provider could not answer now."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        """The HTTP status; None if no answer came."""
        self.code = code
        """The provider's own code of the error, a number or a word; None if the body had none."""
        self.timed_out = timed_out


class Throttled(ProviderError):
    """The provider asks for fewer requests (HTTP 429), or an earlier `Retry-After` is not over yet."""


class RequestRejected(Permanent):
    """The provider will never accept this request: a client error, or a redirect, which is not followed."""

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NotFound(RequestRejected):
    """The resource does not exist (HTTP 404 or 410)."""


class TooLarge(Permanent):
    """The answer is larger than the client reads; ask for less at once."""


class CrossOriginLink(Permanent):
    """A link leads to no HTTP address, so it cannot be asked at the configured origin; it is not followed."""
