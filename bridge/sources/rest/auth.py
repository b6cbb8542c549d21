"""How requests prove who asks: headers and parameters, made anew for each try, so that secrets can rotate."""

from __future__ import annotations

import base64
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from yarl import URL

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Unauthorized
from bridge.domain.settings import Secret
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import NotFound, RequestRejected
from bridge.http.limiter import Limiter
from bridge.http.oauth2 import AccessToken, AccessTokens, TokenRequest, token_lifetime
from bridge.http.response import Response
from bridge.http.tls import Tls
from bridge.providers.requests import AuthSpec, JwtAuth, LoginAuth, OAuth2, SettingRef, filled, placeholders

_RENEW_EARLY_RATIO = 0.2
_LIMITS = HttpLimits(memory=0)


class RequestCredentials(Protocol):
    """What is added to each request."""

    async def headers(self) -> Mapping[str, str]:
        """Return the headers; raises as `bridge.protocols.source.Source.pages` does."""
        ...

    def params(self) -> Mapping[str, str]:
        """Return the parameters."""
        ...

    def drop(self) -> bool:
        """Forget what was refused; say whether asking once more may help."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def plain(value: Any) -> str:
    """Return a setting's value as text; a secret in the clear."""
    return value.reveal() if isinstance(value, Secret) else str(value)


@dataclass(frozen=True, slots=True)
class SentCredentials:
    """Credentials that are sent as they are."""

    spec: AuthSpec
    settings: Any

    async def headers(self) -> Mapping[str, str]:
        """Return a header with the credentials; none if they are a parameter."""
        spec = self.spec
        if spec.basic is not None:
            pair = f"{self._of(spec.basic.user)}:{self._of(spec.basic.password)}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        if spec.header is not None:
            return {spec.header.name: f"{spec.header.prefix}{self._of(spec.header.value)}"}
        return {} if spec.bearer is None else {"Authorization": f"Bearer {self._of(spec.bearer)}"}

    def params(self) -> Mapping[str, str]:
        """Return the parameter with the credentials, if they are one."""
        return {} if self.spec.query is None else {self.spec.query.name: self._of(self.spec.query.value)}

    def drop(self) -> bool:
        """Return False: they are what the configuration gives."""
        return False

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _of(self, name: str) -> str:
        return plain(getattr(self.settings, name))


class FetchedToken(ABC):
    """A token that a request fetches: one request for all callers, renewed a little early, dropped when refused."""

    def __init__(
        self, client: HttpClient, clock: Clock, header: str = "Authorization", prefix: str = "Bearer "
    ) -> None:
        self._client = client
        self._tokens = AccessTokens(self._fetch, clock, header, prefix)

    async def headers(self) -> Mapping[str, str]:
        """Return the header with a token that stays valid for a while."""
        return await self._tokens.headers()

    def params(self) -> Mapping[str, str]:
        """Return nothing: a token is a header."""
        return {}

    def drop(self) -> bool:
        """Forget the token, for it may have ended before its time; True, for asking again may help."""
        self._tokens.drop()
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    @abstractmethod
    async def _ask(self) -> Response:
        """Ask for a token."""

    @abstractmethod
    async def _fetch(self) -> AccessToken:
        """Return a new token; raises as `bridge.protocols.source.Source.pages` does."""


class TokenCredentials(FetchedToken):
    """Tokens of OAuth 2."""

    def __init__(self, spec: OAuth2, settings: Any, clock: Clock, limiter: Limiter, tls: Tls) -> None:
        self._spec = spec
        self._settings = settings
        client = HttpClient(
            settings.token_url, limiter=limiter, clock=clock, limits=_LIMITS, tls=tls, headers=self._own_headers
        )
        super().__init__(client, clock)
        self._path = URL(settings.token_url).raw_path

    def _request(self) -> TokenRequest:
        spec = self._spec
        client_id, client_secret = (
            plain(getattr(self._settings, name)) for name in (spec.client_id, spec.client_secret)
        )
        return TokenRequest(client_id, client_secret, spec.scope, spec.style)

    async def _own_headers(self) -> Mapping[str, str]:
        return self._request().headers()

    async def _ask(self) -> Response:
        send = self._client.post_json if self._spec.style == "json" else self._client.post_form
        return await send(self._path, self._request().fields())

    async def _fetch(self) -> AccessToken:
        try:
            answer = await self._ask()
        except NotFound as error:
            raise Permanent(f"{error}: check token_url in the definition") from None
        except (Unauthorized, RequestRejected) as error:
            wait = error.retry_after if isinstance(error, Unauthorized) else None
            raise Unauthorized(
                f"the token request was refused: check {self._spec.client_id} and {self._spec.client_secret}",
                retry_after=wait,
            ) from None
        token = AccessToken.read(answer.json())
        if token is None:
            raise answer.refused("the answer has no access_token")
        return token


class LoginCredentials(FetchedToken):
    """Tokens of a request that signs in."""

    def __init__(self, spec: LoginAuth, settings: Any, clock: Clock, limiter: Limiter, tls: Tls) -> None:
        client = HttpClient(settings.url, limiter=limiter, clock=clock, limits=_LIMITS, tls=tls)
        super().__init__(client, clock, spec.header, spec.prefix)
        self._spec = spec
        self._settings = settings
        self._token, self._expires = spec.token.reader(), None if spec.expires is None else spec.expires.reader()

    async def _ask(self) -> Response:
        names = {*placeholders(self._spec.path)}
        path = filled(self._spec.path, {name: getattr(self._settings, name) for name in names})
        fields = {
            name: plain(getattr(self._settings, value.setting)) if isinstance(value, SettingRef) else value
            for name, value in self._spec.body.items()
        }
        if self._spec.style == "json":
            return await self._client.post_json(path, fields)
        return await self._client.post_form(path, {name: str(value) for name, value in fields.items()})

    async def _fetch(self) -> AccessToken:
        try:
            answer = await self._ask()
        except NotFound as error:
            raise Permanent(f"{error}: check auth.login.path in the definition") from None
        except (Unauthorized, RequestRejected) as error:
            names = [value.setting for value in self._spec.body.values() if isinstance(value, SettingRef)]
            wait = error.retry_after if isinstance(error, Unauthorized) else None
            raise Unauthorized(f"signing in was refused: check {' and '.join(names)}", retry_after=wait) from None
        value = answer.json()
        text = parsing.text(self._token(value))
        if text is None:
            raise answer.refused(f"the answer has no token at {self._spec.token.text}")
        stated = None if self._expires is None else self._expires(value)
        return AccessToken(text, token_lifetime(stated, self._spec.ttl))


@dataclass(slots=True)
class _Held:
    text: str = field(default="", repr=False)
    until: float = 0.0
    """When it is renewed, by the monotonic clock."""


class SignedCredentials:
    """Tokens that are signed here with a key."""

    def __init__(self, spec: JwtAuth, settings: Any, clock: Clock) -> None:
        self._spec = spec
        self._settings = settings
        self._clock = clock
        try:
            self._jwt: Any = import_module("jwt")
        except ImportError:
            raise Permanent("its definition signs tokens, which needs the extra: pip install 'bridge[jwt]'") from None
        self._held = _Held()

    async def headers(self) -> Mapping[str, str]:
        """Return the header with a token that stays valid for a while; raises `Unauthorized` for an unusable key."""
        if self._clock.monotonic() >= self._held.until:
            self._held = self._sign()
        return {"Authorization": f"Bearer {self._held.text}"}

    def params(self) -> Mapping[str, str]:
        """Return nothing: a token is a header."""
        return {}

    def drop(self) -> bool:
        """Forget the token, so that the next one is signed with the key as it is now; asking again does not help."""
        self._held = _Held()
        return False

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _sign(self) -> _Held:
        now, ttl = self._clock.epoch(), self._spec.ttl
        claims: dict[str, Any] = {
            name: plain(getattr(self._settings, value.setting)) if isinstance(value, SettingRef) else value
            for name, value in self._spec.claims.items()
        }
        claims |= {"iat": int(now), "exp": int(now + ttl), "jti": secrets.token_hex(16)}
        key = plain(getattr(self._settings, self._spec.key))
        try:
            text = self._jwt.encode(claims, key, algorithm=self._spec.algorithm)
        except (ValueError, TypeError, self._jwt.PyJWTError):  # its text could quote the key
            raise Unauthorized(f"the key cannot sign with {self._spec.algorithm}: check {self._spec.key}") from None
        return _Held(str(text), self._clock.monotonic() + ttl * (1 - _RENEW_EARLY_RATIO))


def credentials(spec: AuthSpec, settings: Any, clock: Clock, limiter: Limiter, tls: Tls) -> RequestCredentials:
    """Return what a definition's requests are signed with; raises `Permanent` if the extra for it is missing."""
    if spec.oauth2 is not None:
        return TokenCredentials(spec.oauth2, settings, clock, limiter, tls)
    if spec.jwt is not None:
        return SignedCredentials(spec.jwt, settings, clock)
    if spec.login is not None:
        return LoginCredentials(spec.login, settings, clock, limiter, tls)
    return SentCredentials(spec, settings)
