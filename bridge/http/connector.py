"""The connector that reports when a request is about to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from bridge.http.lenient import LenientConnector
from bridge.protocols.request_context import current


class ReportingConnector(LenientConnector):
    """Tells the request's slot that it has a connection and is about to leave; `check` may still raise.

    The library's own traces report this too, but their other signals double the cost of a request.
    """

    def __init__(self, check: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._check = check

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - its signature
    ) -> Connection:
        """Return a connection for `req`, and report that the request is about to leave."""
        connection = await super().connect(req, traces, timeout)
        try:
            self._check()
        except BaseException:
            connection.release()
            raise
        slot = current().slot
        if slot is not None:
            slot.sent()
        return connection
