"""From an event to a request: URL parts percent-encoded, headers on one line, a body that is built and never pasted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from pydantic_core import from_json

from bridge.domain.errors import Permanent
from bridge.domain.event import WireEvent
from bridge.forms.escaping import TABLES
from bridge.forms.expressions import Scope, as_text
from bridge.forms.models import Escape, RequestTemplate

_SEGMENT_SAFE = "~-._:@!$&'()*+,;="
"""What may stand in a part of a path as it is: everything but the marks that end a part."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request that is ready to be sent."""

    method: str
    url: str
    """The configured URL with the parts that belong to the event."""
    headers: Mapping[str, str]
    body: bytes


class Renderer:
    """Renders the events of one sink; pure: one event always becomes the same request."""

    def __init__(
        self,
        requests: list[RequestTemplate],
        *,
        sink: str,
        url: str,
        settings: Mapping[str, Any],
        escape: Escape = "none",
        max_body: int | None = None,
    ) -> None:
        self._requests = requests
        self._sink = sink
        self._base, _, self._query = url.partition("?")
        self._settings = settings
        self._escape = TABLES[escape]
        self._max_body_bytes = max_body

    def render(self, wire: WireEvent) -> RenderedRequest:
        """Return the request for an event; raises `Permanent` if the event cannot have one."""
        try:
            event = from_json(wire.body)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise Permanent("not a CloudEvent, so no request can be made of it")
        event |= {"topic": wire.topic, "sink": self._sink}
        scope = Scope(event, self._settings, self._escape)
        plain = Scope(event, self._settings)  # no markup has a meaning in a URL or a header
        request = next(item for item in self._requests if item.when is None or item.when.matches(event))
        body = self._body(request, scope)
        headers = {name: _header(value) for name, value in (request.headers.build(plain) or {}).items()}
        if body and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = _CONTENT_TYPES[request.encoding]
        return RenderedRequest(request.method, self._url(request, plain), headers, body)

    def _url(self, request: RequestTemplate, scope: Scope) -> str:
        segments = [_segment(value) for value in request.path.build(scope) or ()]
        if len(segments) != len(request.path.raw):
            raise Permanent("the event lacks a field that the path of the request needs")
        query = urlencode(
            {name: as_text(value) for name, value in (request.query.build(scope) or {}).items()}, quote_via=quote
        )
        path = "/".join([self._base.rstrip("/") if segments else self._base, *segments])
        whole = "&".join(filter(None, (self._query, query)))
        return f"{path}?{whole}" if whole else path

    def _body(self, request: RequestTemplate, scope: Scope) -> bytes:
        if request.body is None:
            return b""
        value = request.body.build(scope)
        if request.encoding == "form":
            fields = value if isinstance(value, dict) else {}
            body = urlencode({name: as_text(item) for name, item in fields.items()}).encode()
        else:
            body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if self._max_body_bytes is not None and len(body) > self._max_body_bytes:
            raise Permanent(f"the body would have {len(body)} bytes, and the endpoint takes {self._max_body_bytes}")
        return body


def _segment(value: Any) -> str:
    text = as_text(value)
    if text in ("", ".", ".."):
        raise Permanent("the event would make a part of the URL's path empty or relative, so nothing is sent")
    return quote(text.encode("utf-8", "replace"), safe=_SEGMENT_SAFE)


def _header(value: Any) -> str:
    return quote(as_text(value).encode("utf-8", "replace"), safe=_PRINTABLE).strip()
