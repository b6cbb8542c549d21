"""Marketing Cloud's access tokens: one request for all callers, renewed a little early, dropped when refused."""

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
from bridge.http.oauth2 import token_lifetime
from bridge.http.status import is_redirect


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a token request sends."""

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
    """An access token, and the REST host for which it was issued."""

    text: str = field(repr=False)
    rest: str
    lifetime: float
    """Seconds for which the token is used."""
    until: float
    """When the token is renewed, by the monotonic clock."""


class TokenProvider:
    """Gives the current access token.

    A caller that asks while a token is being fetched waits for that one. Error texts never quote the endpoint's answer.
    """

    def __init__(self, client: HttpClient, credentials: Credentials, clock: Clock, rest_url: str | None) -> None:
        self._client = client
        self._credentials = credentials
        self._clock = clock
        self._rest_url = rest_url
        self._token: Token | None = None
        self._fetching = asyncio.Lock()

    async def get(self) -> Token:
        """Return a token that stays valid for a while; raises `Unauthorized`, `ProviderError` or `Permanent`."""
        async with self._fetching:
            if self._token is None or self._clock.monotonic() >= self._token.until:
                self._token = await self._fetch()
            return self._token

    def drop(self, token: Token) -> None:
        """Stop using `token`, unless it has been replaced already."""
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
            if is_redirect(error.status):
                raise Unauthorized(f"{error}: check auth_url") from None
            code = f" (code {error.code})" if error.code else ""
            raise Unauthorized(
                f"the token request was refused with {error.status}{code}: "
                "check client_id, client_secret, account_id and auth_url"
            ) from None
        value = parsing.mapping(answer.json())
        text = parsing.text(value.get("access_token"))
        if text is None:
            raise answer.refused("the answer has no access_token")
        lifetime = token_lifetime(value.get("expires_in"))
        return Token(text, self._rest(value.get("rest_instance_url")), lifetime, asked + lifetime)

    def _rest(self, stated: Any) -> str:
        """Return the address of the REST API; raises `Permanent` if the token may not be sent there."""
        if self._rest_url is not None:
            return self._rest_url
        auth = self._client.origin
        try:
            rest = origin(parsing.text(stated) or _sibling(auth))
        except ValueError:
            raise Permanent("the token's rest_instance_url is no usable address: set rest_url") from None
        if auth.scheme == "https" and not rest.startswith("https:"):
            raise Permanent("the token's rest_instance_url is not encrypted: the token is not sent there; set rest_url")
        return rest


def _sibling(auth: URL) -> str:
    """Return the REST host that belongs to an authentication host; empty if its name is not the vendor's."""
    host = auth.host or ""
    return f"https://{host.replace('.auth.', '.rest.', 1)}" if ".auth." in host else ""
