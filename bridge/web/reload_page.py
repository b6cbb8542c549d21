"""`POST /-/reload`: has the configuration file read again, where the configuration allows that."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

_STATUS = {"reloaded": 200, "unchanged": 200, "refused": 422, "waiting": 503}
"""HTTP status codes by outcome."""


def reload_route(
    is_allowed: Callable[[], bool], reload: Callable[[], Awaitable[Mapping[str, Any]]]
) -> web.RouteDef:  # fmt: skip
    """Return the page; `reload` returns the outcome, with its `status`.

    A web page that an operator looks at could make the operator's browser send the request: browsers are refused.
    """

    async def answer(request: web.Request) -> web.Response:
        if not is_allowed():
            return _json({"status": "off", "reason": "set `http.reload: true` to allow this"}, 404)
        if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
            return _json({"status": "forbidden", "reason": "browsers may not ask for a reload"}, 403)
        outcome = await reload()
        return _json(outcome, _STATUS[outcome["status"]])

    return web.post("/-/reload", answer)


def _json(value: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(text=json.dumps(value) + "\n", status=status, content_type="application/json")
