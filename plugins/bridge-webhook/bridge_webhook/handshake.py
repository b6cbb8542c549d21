"""The handshake of the CloudEvents webhook specification: the endpoint says who may post to it, and how much."""

from __future__ import annotations

import asyncio

from bridge.plugin import Clock, Endpoint, GuardedClient, Transient, Unauthorized
from bridge_webhook.settings import WebhookSettings

ORIGIN = "WebHook-Request-Origin"
_GRANT_SECONDS = 86400.0
"""How long a permission is relied on before the endpoint is asked again."""
_MAX_WAIT_SECONDS = 5.0
"""How long a request waits here to keep the allowed rate; one that would wait longer waits in the store."""
_SECONDS_PER_MINUTE = 60.0
_SERVER_ERROR_STATUS = 500
_TOO_MANY_REQUESTS_STATUS = 429


class Handshake:
    """Asks for permission before the first event and keeps the rate that was allowed; one request for all callers."""

    def __init__(
        self, outbound: GuardedClient, endpoint: Endpoint, clock: Clock, *, origin: str, rate: float | None
    ) -> None:
        self._outbound = outbound
        self._endpoint = endpoint
        self._clock = clock
        self._origin = origin
        self._rate = rate
        self._asking = asyncio.Lock()
        self._granted_until = 0.0
        self._interval = 0.0
        """Seconds between two requests."""
        self._next_at = 0.0

    @classmethod
    def of(
        cls, settings: WebhookSettings, outbound: GuardedClient, endpoint: Endpoint, clock: Clock
    ) -> Handshake | None:
        """Return the handshake that the settings ask for, if they do."""
        if settings.origin is None:
            return None
        return cls(outbound, endpoint, clock, origin=settings.origin, rate=settings.origin_rate)

    async def headers(self) -> dict[str, str]:
        """Return what a request has to have, once it may be sent; raises `Transient` if it may not be sent now."""
        async with self._asking:
            if self._clock.monotonic() >= self._granted_until:
                await self._ask()
        await self._keep_rate()
        return {ORIGIN: self._origin}

    async def _ask(self) -> None:
        headers = {ORIGIN: self._origin}
        if self._rate is not None:
            headers["WebHook-Request-Rate"] = str(max(1, round(self._rate * _SECONDS_PER_MINUTE)))
        answer = await self._outbound.request("OPTIONS", self._endpoint, b"", headers)
        allowed = answer.headers.get("WebHook-Allowed-Origin", "").strip()
        if allowed.lower() not in ("*", self._origin.lower()):
            if answer.status >= _SERVER_ERROR_STATUS or answer.status == _TOO_MANY_REQUESTS_STATUS:
                raise Transient(f"{self._endpoint.name} answered {answer.status}", retry_after=answer.retry_after)
            raise Unauthorized(f"{self._endpoint.name} does not allow requests of {self._origin}: nothing is sent")
        rate = answer.headers.get("WebHook-Allowed-Rate", "").strip()
        per_minute = int(rate) if rate.isascii() and rate.isdecimal() and len(rate) < 10 else 0  # noqa: PLR2004 - digits
        self._interval = _SECONDS_PER_MINUTE / per_minute if per_minute else 0.0
        self._granted_until = self._clock.monotonic() + _GRANT_SECONDS

    async def _keep_rate(self) -> None:
        now = self._clock.monotonic()
        at = max(self._next_at, now)
        if at - now > _MAX_WAIT_SECONDS:
            text = f"{self._endpoint.name} allows {round(_SECONDS_PER_MINUTE / self._interval)} requests a minute"
            raise Transient(text, retry_after=at - now, counts_as_attempt=False)
        self._next_at = at + self._interval
        if at > now:
            await self._clock.sleep(at - now)
