"""How each kind of push is verified: pure functions of the request, the keys and the time.

All comparisons take the same time whatever they compare. Nothing of a body is read before its push is verified, apart
from Twilio's form, whose fields are what is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit, urlunsplit

from bridge.domain.pushes import PushRefused, PushRequest

Verify = Callable[[PushRequest, Sequence[str], float, float], None]
"""Takes the request, the keys, the time in seconds since 1970 and the tolerance in seconds; raises `PushRefused`."""

MAX_FIELDS = 200
"""Fields of a form that are read; a push with more is refused."""
_FUTURE_SECONDS = 60.0
"""Seconds by which a provider's clock may be ahead of ours, if the tolerance is not less."""
_DEFAULT_PORTS = {"https": 443, "http": 80}


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a form, in their order; raises `PushRefused`."""
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise PushRefused("content") from None


def path_secret(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify that the path ends with a secret."""
    _require(_any_equal(request.secret, keys), "secret")


def basic(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify HTTP Basic; a key is `USER:PASSWORD`."""
    given = _decoded(_credentials(request, "basic"))
    _require(_holds_for_any(hmac.compare_digest(given, key.encode()) for key in keys), "signature")


def bearer(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify a token in `Authorization: Bearer`."""
    _require(_any_equal(_credentials(request, "bearer"), keys), "signature")


def twilio(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify Twilio's signature of the address and the form; of JSON, the address has the digest of the body.

    Twilio signs the address with or without its port, so both are tried. See
    https://www.twilio.com/docs/usage/security#validating-requests.
    """
    given = request.headers.get("x-twilio-signature", "")
    digest = dict(parse_qsl(urlsplit(request.url).query)).get("bodySHA256")
    if digest is not None:
        _require(hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), digest.lower().encode()))
        text = ""
    else:
        text = "".join(name + value for name, value in sorted(set(form_fields(request.body))))
    expected = (_hmac("sha1", key, url + text) for key in keys for url in _with_and_without_port(request.url))
    _require(_any_equal(given, expected))


def plivo_v2(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify Plivo's second signature: of the address without its query, and a nonce. It does not cover the body."""
    signatures = _listed(request, "x-plivo-signature-v2", "x-plivo-signature-ma-v2")
    text = urlsplit(request.url)._replace(query="", fragment="").geturl()
    text += request.headers.get("x-plivo-signature-v2-nonce", "")
    _require_listed(signatures, [_hmac("sha256", key, text) for key in keys])


def plivo_v3(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify Plivo's third signature: of the address with its query, the form, and a nonce."""
    signatures = _listed(request, "x-plivo-signature-v3", "x-plivo-signature-ma-v3")
    fields = form_fields(request.body) if request.method == "POST" else []
    url = urlsplit(request.url)
    text = url._replace(query="", fragment="").geturl()
    query = _sorted_text(parse_qs(url.query, keep_blank_values=True).items(), "=", "&")
    if query or fields:
        text += f"?{query}"
    if query and fields:
        text += "."
    text += _sorted_text(_grouped(fields).items(), "", "")
    text += "." + request.headers.get("x-plivo-signature-v3-nonce", "")
    _require_listed(signatures, [_hmac("sha256", key, text) for key in keys])


def telnyx(request: PushRequest, keys: Sequence[str], now: float, tolerance: float) -> None:
    """Verify Telnyx's Ed25519 signature of a time and the body; a key is the account's public key, base64."""
    stamp = request.headers.get("telnyx-timestamp", "")
    given = _decoded(request.headers.get("telnyx-signature-ed25519", ""))
    text = stamp.encode() + b"|" + request.body
    _require(_holds_for_any(_is_ed25519(given, text, key) for key in keys))
    _require_recent(stamp, now, tolerance)


def vonage(request: PushRequest, keys: Sequence[str], now: float, tolerance: float) -> None:
    """Verify Vonage's signed token (JWT, HS256), whose `payload_hash` is the digest of the body."""
    token = _credentials(request, "bearer")
    signed, _, signature = token.rpartition(".")
    head, _, claims = signed.partition(".")
    given = _url_decoded(signature)
    _require(_holds_for_any(hmac.compare_digest(given, _digest("sha256", key, signed)) for key in keys))
    _require(_object(_url_decoded(head)).get("alg") == "HS256")
    said = _object(_url_decoded(claims))
    digest = hashlib.sha256(request.body).hexdigest()
    _require(hmac.compare_digest(str(said.get("payload_hash", "")).lower().encode(), digest.encode()))
    _require_recent(said.get("iat"), now, tolerance)
    if "exp" in said:
        _require(isinstance(said["exp"], int | float) and said["exp"] > now, "time")


def marketing_cloud(request: PushRequest, keys: Sequence[str], _now: float, _tolerance: float) -> None:
    """Verify the signature of Marketing Cloud's Event Notification Service: HMAC-SHA256 of the whole body."""
    given = request.headers.get("x-sfmc-ens-signature", "")
    _require(_any_equal(given, [_base64(_digest("sha256", key, request.body)) for key in keys]))


VERIFIERS: Mapping[str, Verify] = {
    "path": path_secret,
    "basic": basic,
    "bearer": bearer,
    "twilio": twilio,
    "plivo_v2": plivo_v2,
    "plivo_v3": plivo_v3,
    "telnyx": telnyx,
    "vonage": vonage,
}
"""By the name that a definition has for each."""


def check_available(kind: str) -> None:
    """Raise `ValueError` that says what to install if a kind needs what is not there."""
    if kind == "telnyx":
        try:
            import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        except ImportError:
            raise ValueError("verifying its pushes needs the extra: pip install 'bridge[jwt]'") from None


# --- comparing --------------------------------------------------------------------------------------------------------


def _require(holds: bool, reason: Any = "signature") -> None:  # noqa: FBT001 - it reads as an assertion
    if not holds:
        raise PushRefused(reason)


def _holds_for_any(results: Iterable[bool]) -> bool:
    """Say whether one holds; all are looked at, so that the time tells nothing."""
    return sum(results) > 0


def _any_equal(given: str, expected: Iterable[str]) -> bool:
    data = given.encode("utf-8", "surrogatepass")
    return _holds_for_any(hmac.compare_digest(data, text.encode()) for text in expected)


def _require_listed(signatures: Sequence[str], expected: Sequence[str]) -> None:
    _require(_holds_for_any(_any_equal(signature, expected) for signature in signatures))


def _require_recent(stamp: Any, now: float, tolerance: float) -> None:
    try:
        age = now - float(stamp)
    except (TypeError, ValueError):
        raise PushRefused("time") from None
    _require(-min(tolerance, _FUTURE_SECONDS) <= age <= tolerance, "time")


def _is_ed25519(signature: bytes, text: bytes, key: str) -> bool:
    ed25519 = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    exceptions = import_module("cryptography.exceptions")
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(_decoded(key)).verify(signature, text)
    except (ValueError, exceptions.InvalidSignature):
        return False
    return True


# --- reading headers --------------------------------------------------------------------------------------------------


def _credentials(request: PushRequest, scheme: str) -> str:
    given, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if given.lower() == scheme else ""


def _listed(request: PushRequest, *names: str) -> list[str]:
    """Return the signatures in headers that list one for each active key."""
    return [text.strip() for name in names for text in request.headers.get(name, "").split(",") if text.strip()]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _url_decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise PushRefused("signature") from None
    _require(isinstance(value, dict))
    return dict(value)


# --- signing ----------------------------------------------------------------------------------------------------------


def _digest(algorithm: str, key: str, text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hmac.digest(key.encode(), data, algorithm)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hmac(algorithm: str, key: str, text: str) -> str:
    return _base64(_digest(algorithm, key, text))


def _with_and_without_port(url: str) -> Iterable[str]:
    parts = urlsplit(url)
    host = parts.netloc
    if parts.port is None:
        default = _DEFAULT_PORTS.get(parts.scheme)
        return (url, urlunsplit(parts._replace(netloc=f"{host}:{default}")))
    return (url, urlunsplit(parts._replace(netloc=host.rpartition(":")[0])))


def _grouped(fields: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in fields:
        groups.setdefault(name, []).append(value)
    return groups


def _sorted_text(groups: Iterable[tuple[str, list[str]]], between: str, separator: str) -> str:
    return separator.join(f"{name}{between}{value}" for name, values in sorted(groups) for value in sorted(values))
