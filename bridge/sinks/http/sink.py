"""One endpoint that gets every event as a request of a form."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.settings import MASK, Secret
from bridge.forms.answers import error_of
from bridge.forms.models import AnswerRules
from bridge.forms.rendering import RenderedRequest, Renderer
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.tls import Tls
from bridge.protocols.sink import Outgoing
from bridge.sinks.http.settings import HttpSinkSettings
from bridge.sinks.http.throttle import SendThrottle


class HttpSink:
    """Renders each event by its form, keeps to the throttle, and reads the answer by the form's rules."""

    def __init__(self, name: str, settings: HttpSinkSettings, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._endpoint = Endpoint.of(settings.url)
        self._headers = {header: value.reveal() for header, value in settings.headers.items()}
        self._permanent_statuses = frozenset(settings.permanent_statuses)
        self._throttle = SendThrottle(settings.throttle, clock, sha256(settings.url.encode()).digest())
        self._outbound = GuardedClient(
            allow_private=settings.allow_private,
            clock=clock,
            timeout=settings.send_timeout,
            connections=settings.concurrency,
            tls=Tls(settings.ca_file, settings.cert_file, settings.key_file),
        )

    async def open(self) -> None:
        """Make the connection pool."""
        await self._outbound.open()

    async def send(self, outgoing: Outgoing) -> None:
        """Send one event; returns when the answer says that it was accepted."""
        request = self._render(outgoing)
        endpoint = Endpoint.of(request.url)
        await self._throttle.wait()
        answer = await self._outbound.request(request.method, endpoint, request.body, request.headers)
        if error := error_of(answer, self._answers, self._permanent_statuses):
            if isinstance(error, Transient) and error.retry_after:
                self._throttle.pause(error.retry_after)
            raise error

    def preview(self, outgoing: Outgoing) -> Mapping[str, Any]:
        """Return the request that an event would become, as plain values; secrets are masked."""
        request = self._render(outgoing)
        body = request.body.decode("utf-8", "replace")
        return {
            "method": request.method,
            "url": self._masked(self._shown_url(request.url)),
            "headers": {name: self._masked(value) for name, value in request.headers.items()},
            "body": self._masked(body),
            "bytes": len(request.body),
        }

    def _shown_url(self, url: str) -> str:
        """Return a URL without the configured path and query, in which many services keep a token."""
        settings, form = self._settings, self._settings.form
        base, _, query = settings.url.partition("?")
        if form is not None and settings.url == form.url:
            return url
        path, _, whole = url.partition("?")
        added, further = path.removeprefix(base.rstrip("/")), whole.removeprefix(query).lstrip("&")
        shown = self._endpoint.name + (f"/{MASK}" if self._endpoint.url.raw_path_qs not in ("", "/") else "")
        return f"{shown}{added}?{further}" if further else f"{shown}{added}"

    def _masked(self, text: str) -> str:
        values = [getattr(self._settings, name) for name in type(self._settings).secret_fields()]
        secrets = {value.reveal() for value in values if isinstance(value, Secret)} | set(self._headers.values())
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, MASK).replace(quote(secret, safe=""), MASK)
        return text

    async def probe(self) -> str:
        """Connect, without sending anything."""
        await self._outbound.open()
        await self._outbound.check_connectivity(self._endpoint)
        form = self._settings.form
        return f"sends to {self._endpoint.name}, {'a request of its own' if form is None else form.title}"

    async def close(self) -> None:
        """Close the connections."""
        await self._outbound.close()

    @property
    def _answers(self) -> AnswerRules:
        form = self._settings.form
        return form.answers if form is not None else self._settings.answers or AnswerRules()

    def _render(self, outgoing: Outgoing) -> RenderedRequest:
        settings, form = self._settings, self._settings.form
        renderer = Renderer(
            settings.requests,
            sink=self._name,
            url=settings.url,
            settings=settings.form_values(),  # read for each event: a secret's file may have changed
            escape=settings.escape if form is None else form.escape,
            max_body=None if form is None else form.max_body,
        )
        request = renderer.render(outgoing.wire)
        return RenderedRequest(request.method, request.url, {**request.headers, **self._headers}, request.body)
