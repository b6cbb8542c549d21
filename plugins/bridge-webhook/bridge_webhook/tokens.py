"""Access tokens for an endpoint that asks for them: fetched as everything else that a sink sends."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from bridge.plugin import (
    AccessToken,
    AccessTokens,
    Clock,
    Endpoint,
    GuardedClient,
    TokenRequest,
    Transient,
    Unauthorized,
)
from bridge_webhook.settings import WebhookSettings

_REFUSALS = range(400, 500)
_PASSING_STATUSES = frozenset({408, 425, 429})


def tokens_of(settings: WebhookSettings, outbound: GuardedClient, clock: Clock) -> AccessTokens | None:
    """Return the tokens that the settings ask for, if they do."""
    url, client_id, secret = settings.token_url, settings.client_id, settings.client_secret
    if url is None or client_id is None or secret is None:
        return None
    endpoint = Endpoint.of(url)

    async def fetch() -> AccessToken:
        try:
            request = TokenRequest(client_id, secret.reveal(), settings.scope, settings.token_style)
        except OSError as error:
            raise Unauthorized(f"the file of client_secret cannot be read: {error.strerror}") from None
        return await _fetched(outbound, endpoint, request)

    return AccessTokens(fetch, clock)


async def _fetched(outbound: GuardedClient, endpoint: Endpoint, request: TokenRequest) -> AccessToken:
    if request.style == "json":
        media_type, body = "application/json", json.dumps(request.fields())
    else:
        media_type, body = "application/x-www-form-urlencoded", urlencode(request.fields())
    headers = {"Content-Type": media_type, "Accept": "application/json", **request.headers()}
    answer = await outbound.post(endpoint, body.encode(), headers)
    text = f"the token request to {endpoint.name} was answered with {answer.status}"
    if answer.status in _REFUSALS and answer.status not in _PASSING_STATUSES:
        raise Unauthorized(f"{text}: check client_id, client_secret and scope")
    if answer.error() is not None:
        raise Transient(text, retry_after=answer.retry_after)
    try:
        token = AccessToken.read(json.loads(answer.body))
    except (ValueError, RecursionError):
        token = None
    if token is None:
        raise Transient(f"{text} and no access_token")
    return token
