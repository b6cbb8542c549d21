"""Requests signed with a key carry a token that the provider can verify, and errors do not quote the key."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import jwt
import pytest

from bridge.domain.clock import Clock
from bridge.domain.errors import Unauthorized
from bridge.domain.settings import Secret
from bridge.providers.requests import JwtAuth
from bridge.sources.rest.auth import SignedCredentials

KEY = "a key of more than thirty-two characters"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def signed(algorithm, time):
    spec = JwtAuth.model_validate(
        {"algorithm": algorithm, "key": "key", "claims": {"iss": {"setting": "account"}, "v": 2}, "ttl": "15m"}
    )
    settings = SimpleNamespace(key=Secret(KEY), account="acme")
    return SignedCredentials(spec, settings, Clock(now=lambda: NOW, monotonic=lambda: time[0]))


async def token(credentials):
    header = (await credentials.headers())["Authorization"]
    assert header.startswith("Bearer ")
    return header.removeprefix("Bearer ")


async def test_token_has_the_claims_and_is_renewed_in_time():
    time = [1000.0]
    credentials = signed("HS256", time)
    first = await token(credentials)
    claims = jwt.decode(first, KEY, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    begun = int(NOW.timestamp())
    assert {name: claims[name] for name in ("iss", "v", "iat", "exp")} == {
        "iss": "acme", "v": 2, "iat": begun, "exp": begun + 900,
    }  # fmt: skip
    time[0] += 700
    assert await token(credentials) == first
    time[0] += 60
    second = await token(credentials)
    assert second != first
    assert credentials.drop() is False
    assert await token(credentials) != second


async def test_unusable_key_is_refused_without_being_quoted():
    with pytest.raises(Unauthorized, match="the key cannot sign with ES256: check key") as refused:
        await signed("ES256", [0.0]).headers()
    assert KEY not in str(refused.value)
