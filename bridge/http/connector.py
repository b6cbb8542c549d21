"""The connector that reports when a request is about to leave."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from bridge.http.limiter import RequestSlot

CURRENT_SLOT: ContextVar[RequestSlot] = ContextVar("CURRENT_SLOT")
"""The turn of the request that this task makes."""


class ReportingConnector(aiohttp.TCPConnector):
    """Hears that a request has its connection and is about to leave; `check` may still raise.

    The library's own traces tell it, too, and cost a request as much again in their other signals.
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
        CURRENT_SLOT.get().sent()
        return connection
