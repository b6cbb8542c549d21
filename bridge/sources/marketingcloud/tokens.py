"""Marketing Cloud's access tokens: one request in flight for all, renewed a little early, dropped when refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Unauthorized
from bridge.domain.settings import Secret
from bridge.http import parsing
from bridge.http.client import HttpClient, origin
from bridge.http.errors import NotFound, RequestRejected

_ASSUMED = 600.0
_LONGEST = 86400.0
_EARLY = 60.0
_EARLY_AT_MOST = 0.2
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the token endpoint wants to know."""

    client_id: str
    client_secret: Secret
    account_id: str | None

    def body(self) -> dict[str, str]:
        """Return the request's body; it holds the secret."""
        body = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret.reveal(),
        }
        return body if self.account_id is None else body | {"account_id": self.account_id}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and the host to which it belongs."""

    text: str = field(repr=False)
    rest: str
    lifetime: float
    """Seconds for which it is used."""
    until: float
    """When it is renewed, by the monotonic clock."""


class TokenProvider:
    """Gives the present access token.

    Whoever asks while one is being fetched waits for that one. Error texts never quote what the endpoint answered.
    """

    def __init__(self, client: HttpClient, credentials: Credentials, clock: Clock, rest_url: str | None) -> None:
        self._client = client
        self._credentials = credentials
        self._clock = clock
        self._rest_url = rest_url
        self._token: Token | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> Token:
        """Return a token that is good for a while; raises `Unauthorized`, `Failed` or `Permanent`."""
        async with self._turn:
            if self._token is None or self._clock.monotonic() >= self._token.until:
                self._token = await self._fetch()
            return self._token

    def drop(self, token: Token) -> None:
        """Use `token` no more, unless it has been replaced already."""
        if self._token is token:
            self._token = None

    async def _fetch(self) -> Token:
        asked = self._clock.monotonic()
        try:
            answer = await self._client.post_json("/v2/token", self._credentials.body())
        except NotFound as error:
            raise Permanent(f"{error}: check auth_url") from None
        except Unauthorized as error:
            raise Unauthorized(
                "the token request was refused: check client_id, client_secret and account_id",
                retry_after=error.retry_after,
            ) from None
        except RequestRejected as error:
            if error.status in _REDIRECTS:
                raise Unauthorized(f"{error}: check auth_url") from None
            told = f" (code {error.code})" if error.code else ""
            raise Unauthorized(
                f"the token request was refused with {error.status}{told}: "
                "check client_id, client_secret, account_id and auth_url"
            ) from None
        value = parsing.mapping(answer.json())
        text = parsing.text(value.get("access_token"))
        if text is None:
            raise answer.refused("the answer has no access_token")
        lifetime = _lifetime(value.get("expires_in"))
        return Token(text, self._rest(value.get("rest_instance_url")), lifetime, asked + lifetime)

    def _rest(self, told: Any) -> str:
        """Return where the REST API is; raises `Permanent` where the token may not go."""
        if self._rest_url is not None:
            return self._rest_url
        auth = self._client.origin
        try:
            rest = origin(parsing.text(told) or _sibling(auth))
        except ValueError:
            raise Permanent("the token's rest_instance_url is no usable address: set rest_url") from None
        if auth.scheme == "https" and not rest.startswith("https:"):
            raise Permanent("the token's rest_instance_url is not encrypted: the token is not sent there; set rest_url")
        return rest


def _lifetime(told: Any) -> float:
    """Return for how many seconds to use a token that says when it expires."""
    seconds: float = parsing.integer(told) or 0
    seconds = seconds if 0 < seconds <= _LONGEST else _ASSUMED
    return seconds - min(_EARLY, seconds * _EARLY_AT_MOST)


def _sibling(auth: URL) -> str:
    """Return the vendor's REST host beside its authentication host, or nothing for another vendor's name."""
    host = auth.host or ""
    return f"https://{host.replace('.auth.', '.rest.', 1)}" if ".auth." in host else ""
