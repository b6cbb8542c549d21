"""Who may see the console: its token, a browser's session, and where a form was sent from."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from ipaddress import ip_address

from aiohttp import web

from bridge.config.model import HttpSettings
from bridge.domain.clock import Clock

COOKIE = "bridge_console"
SESSION_SECONDS = 12 * 3600
"""Seconds after which a browser has to show the token again."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser hides where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer of the console carries."""


class Access:
    """Decides who may see the console. Without a token, that is this machine; with one, it is needed everywhere.

    A session is a time and its signature by the token: all replicas accept it, and a new token ends it.
    """

    def __init__(self, settings: HttpSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._own_key = secrets.token_bytes(32)
        """Signs forms where there is no token."""

    @property
    def needs_token(self) -> bool:
        """Whether a token is asked for."""
        return self._settings.token is not None

    def knows_host(self, request: web.Request) -> bool:
        """Return whether the address in the browser is ours.

        Without a token only a loopback address is: a page of another site could have its own name lead to this machine,
        and read the console by that name.
        """
        return self.needs_token or _is_loopback(request.host)

    def is_allowed(self, request: web.Request) -> bool:
        """Return whether a request has shown the token, by itself or by its session."""
        if self._settings.token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given.strip())
        return self._is_session(request.cookies.get(COOKIE, ""))

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token."""
        return hmac.compare_digest(text.encode(), self._key())

    def begin_session(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give a browser that has shown the token a session."""
        until = str(int(self._clock.epoch()) + SESSION_SECONDS)
        response.set_cookie(
            COOKIE, f"{until}.{self._sign('session', until)}", max_age=SESSION_SECONDS, httponly=True,
            samesite="Strict", secure=_is_secure(request), path="/",
        )  # fmt: skip

    def form_key(self, request: web.Request) -> str:
        """Return what a form of this session has to bring back."""
        return self._sign("form", request.cookies.get(COOKIE, "") if self.needs_token else "")

    def trusts_form(self, request: web.Request, key: str) -> bool:
        """Return whether a form was sent by a page of ours, in the same session."""
        return _is_same_origin(request) and hmac.compare_digest(key.encode(), self.form_key(request).encode())

    def may_sign_in(self, request: web.Request) -> bool:
        """Return whether the form with the token was sent by a page of ours."""
        return _is_same_origin(request)

    def _is_session(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        if not until.isdecimal() or not hmac.compare_digest(signature.encode(), self._sign("session", until).encode()):
            return False
        return int(until) > self._clock.epoch()

    def _key(self) -> bytes:
        token = self._settings.token
        return self._own_key if token is None else token.reveal().encode()

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_secure(request: web.Request) -> bool:
    return request.secure or request.headers.get("X-Forwarded-Proto", "") == "https"


def _is_same_origin(request: web.Request) -> bool:
    """Return whether a browser says that a page of this very address sent the request."""
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    return origin.partition("://")[2].lower() == request.host.lower()
