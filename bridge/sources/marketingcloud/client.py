"""The client of an account's REST API: a token for each request, and a pause when the vendor blocks the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bridge.domain.clock import Clock
from bridge.domain.errors import Unauthorized
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import Throttled
from bridge.http.limiter import Limiter, account_key, shared_limiter
from bridge.http.response import Response
from bridge.sources.marketingcloud.settings import MarketingCloudSettings
from bridge.sources.marketingcloud.tokens import Credentials, Token, TokenProvider

_BLOCKED_CODE = "50200"
_BLOCKED_SECONDS = 300.0
# The vendor closes connections that were idle for 5 s. The client closes its own first, or the next poll would find
# them dead.
_LIMITS = HttpLimits(keepalive=4.0, memory=0)


class RestClient:
    """Asks the REST API of one account, and fetches its tokens, within one budget of requests."""

    def __init__(self, settings: MarketingCloudSettings, clock: Clock) -> None:
        self._clock = clock
        business_unit = None if settings.account_id is None else str(settings.account_id)
        self.account = account_key(settings.auth_url, f"{settings.client_id} {business_unit}")
        """See `bridge.protocols.source.HasAccount`."""
        self.fingerprint = self.account if business_unit is None else account_key(settings.auth_url, business_unit)
        """See `bridge.protocols.source.RecognizesAccount`; without a business unit, that of the client's package."""
        self._limiter = shared_limiter(self.account, settings.rate, clock)
        self._auth = HttpClient(settings.auth_url, limiter=self._limiter, clock=clock, limits=_LIMITS)
        credentials = Credentials(settings.client_id, settings.client_secret, business_unit)
        self._tokens = TokenProvider(self._auth, credentials, clock, settings.rest_url)
        self._rest: _RestHost | None = None

    @property
    def host(self) -> str | None:
        """Return the REST host's name; None before the first request."""
        return None if self._rest is None else self._rest.client.origin.host

    async def token(self) -> Token:
        """Return the current token; raises as `TokenProvider.get` does."""
        with self._pausing_when_blocked():
            return await self._tokens.get()

    async def get(self, path: str, params: Mapping[str, str | int]) -> Response:
        """Ask for a path with a valid token; raises as `bridge.http.client.HttpClient.get` does."""
        with self._pausing_when_blocked():
            return await self._get_with_token(path, params)

    async def close(self) -> None:
        """Close all connections."""
        await self._auth.close()
        if self._rest is not None:
            await self._rest.client.close()

    @contextmanager
    def _pausing_when_blocked(self) -> Iterator[None]:
        """Pause the account for minutes if the vendor blocks it and does not say for how long."""
        try:
            yield
        except Throttled as error:
            if error.code != _BLOCKED_CODE or error.retry_after is not None:
                raise
            self._limiter.pause(_BLOCKED_SECONDS)
            raise Throttled(
                f"{error}: blocked for a while, nothing is asked for {_BLOCKED_SECONDS:.0f} s",
                retry_after=_BLOCKED_SECONDS,
                status=error.status,
                code=error.code,
            ) from None

    async def _get_with_token(self, path: str, params: Mapping[str, str | int]) -> Response:
        token = await self._tokens.get()
        try:
            return await (await self._client(token)).get(path, params)
        except Unauthorized:
            # A token can end before its time. A new one shows whether it was that, or whether rights are missing.
            self._tokens.drop(token)
        token = await self._tokens.get()
        return await (await self._client(token)).get(path, params)

    async def _client(self, token: Token) -> HttpClient:
        if self._rest is not None and self._rest.token.rest != token.rest:
            await self._rest.client.close()
            self._rest = None
        if self._rest is None:
            self._rest = _RestHost(token, self._limiter, self._clock)
        self._rest.token = token
        return self._rest.client


class _RestHost:
    """The client of one REST host, which sends only tokens that were issued for this very host."""

    def __init__(self, token: Token, limiter: Limiter, clock: Clock) -> None:
        self.token = token
        self.client = HttpClient(token.rest, limiter=limiter, clock=clock, headers=self._headers, limits=_LIMITS)

    async def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token.text}"}
