"""Access tokens, as of OAuth 2 client credentials: one request for all callers, renewed early, dropped when refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.domain.clock import Clock
from bridge.http import parsing

ASSUMED_LIFETIME_SECONDS = 600.0
"""For how long a token is used of which its endpoint does not say it."""
_MAX_LIFETIME_SECONDS = 86400.0
_RENEW_EARLY_SECONDS = 60.0
_RENEW_EARLY_MAX_RATIO = 0.2
"""Of a token's lifetime."""

TokenStyle = Literal["basic", "form", "json"]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is sent to get a token: the credentials are a header with `basic`, else among the fields."""

    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    style: TokenStyle = "basic"

    def headers(self) -> dict[str, str]:
        """Return the headers without the media type."""
        if self.style != "basic":
            return {}
        pair = f"{self.client_id}:{self.client_secret}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def fields(self) -> dict[str, str]:
        """Return the fields of the body."""
        fields = {"grant_type": "client_credentials"}
        if self.scope is not None:
            fields["scope"] = self.scope
        if self.style != "basic":
            fields |= {"client_id": self.client_id, "client_secret": self.client_secret}
        return fields


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and for how many seconds it is used."""

    text: str = field(repr=False)
    lifetime: float

    @classmethod
    def read(cls, answer: Any) -> AccessToken | None:
        """Read a token endpoint's JSON answer; None if there is no token in it."""
        value = parsing.mapping(answer)
        text = parsing.text(value.get("access_token"))
        return None if text is None else cls(text, token_lifetime(value.get("expires_in")))


class AccessTokens:
    """Gives the current token. A caller that asks while one is being fetched waits for that one."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[AccessToken]],
        clock: Clock,
        header: str = "Authorization",
        prefix: str = "Bearer ",
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._header, self._prefix = header, prefix
        self._token: AccessToken | None = None
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """Return the header with a token that stays valid for a while; raises as `fetch` does."""
        async with self._fetching:
            if self._token is None or self._clock.monotonic() >= self._until:
                asked = self._clock.monotonic()
                self._token = await self._fetch()
                self._until = asked + self._token.lifetime
            return self._header_of(self._token)

    def drop(self, headers: Mapping[str, str] | None = None) -> None:
        """Forget the token, for it may have ended before its time; given its headers, only if it is still that one."""
        if headers is None or (self._token and headers.get(self._header) == self._header_of(self._token)[self._header]):
            self._token = None

    def _header_of(self, token: AccessToken) -> Mapping[str, str]:
        return {self._header: f"{self._prefix}{token.text}"}


def token_lifetime(expires_in: Any, assumed: float = ASSUMED_LIFETIME_SECONDS) -> float:
    """Return for how many seconds to use a token: a little less than the endpoint says, or than `assumed`."""
    seconds: float = parsing.integer(expires_in) or 0
    seconds = seconds if 0 < seconds <= _MAX_LIFETIME_SECONDS else assumed
    return seconds - min(_RENEW_EARLY_SECONDS, seconds * _RENEW_EARLY_MAX_RATIO)
