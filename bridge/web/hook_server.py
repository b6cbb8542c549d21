"""The HTTP server to which providers push: each push is verified, kept as a hint, and answered at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from bridge.domain.errors import BridgeError
from bridge.domain.pushes import PushReader, PushRefused, PushRequest
from bridge.web.listener import REQUEST_SECONDS, Listener

log = structlog.get_logger()

MAX_PUSH_BYTES = 1024 * 1024
"""Bytes of a push's body; a larger one is refused with 413."""
KEEP_SECONDS = 0.4
"""Seconds that the store may need to keep a hint; the provider has its answer within half a second."""
_MAX_HEADER_BYTES = 8190
_RETRY_AFTER_SECONDS = 10
_NOT_KEPT = 503
"""The status of a push that could not be kept."""
_STATUSES = {"secret": 404, "signature": 401, "time": 401, "content": 400}
_SILENT = logging.getLogger("bridge.hooks.library")
"""Writes nothing: the library's own messages quote what unknown callers send."""
_SILENT.setLevel(logging.CRITICAL + 1)


class PushServer:
    """One address for the pushes of all sources: URL/SOURCE, or URL/SOURCE/SECRET. It never waits for a poll.

    What is answered with 200 is kept; whatever is not kept is answered with another status. Nothing that a push says
    reaches the log.
    """

    def __init__(
        self,
        url: str,
        readers: Mapping[str, PushReader],
        keep: Callable[[str, Collection[str]], Awaitable[bool]],
        *,
        epoch: Callable[[], float],
        report: Callable[[str, str], None] = lambda _, __: None,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        """Prepare; `keep` stores the things that a source was pushed about, and returns False if there are too many.

        `url` is the address as the providers know it. `report` is called with the source and the result of each push.
        """
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._readers = readers
        self._keep = keep
        self._epoch = epoch
        self._report = report
        self._request_seconds = request_seconds
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; raises `OSError` if the address is taken."""
        app = web.Application(client_max_size=MAX_PUSH_BYTES, middlewares=[self._note_request])
        for path in ("/{source}", "/{source}/{secret}"):
            app.router.add_post(f"{self._prefix}{path}", self._push)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_SILENT,
            auto_decompress=False,  # a small body could become a huge one
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            keepalive_timeout=self._request_seconds,
            lingering_time=0.0,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - `setup` has just made it
        self._listener = Listener(self._runner.server, request_seconds=self._request_seconds, serves="pushes")
        try:
            await self._listener.start(host, port)
        except OSError:
            await self.stop()
            raise
        self.port = self._listener.port

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._listener is not None:
            self._listener.begin_request(request.protocol)
        try:
            return await handler(request)
        finally:
            if self._listener is not None:
                self._listener.end_request(request.protocol)

    async def _push(self, request: web.Request) -> web.Response:
        source = request.match_info["source"]
        reader = self._readers.get(source)
        if reader is None:
            return web.Response(status=404)
        status, result = await self._answer(source, reader, request)
        self._report(source, result)
        headers = {hdrs.RETRY_AFTER: str(_RETRY_AFTER_SECONDS)} if status == _NOT_KEPT else None
        return web.Response(status=status, headers=headers)

    async def _answer(self, source: str, reader: PushReader, request: web.Request) -> tuple[int, str]:
        """Return the status and the result, as the metric `bridge_pushes_total` has it."""
        if hdrs.CONTENT_ENCODING in request.headers:
            return 415, "refused"
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return 413, "refused"
        try:
            push = reader.read(self._received(request, body), self._epoch())
        except PushRefused as refused:
            return _STATUSES[refused.reason], "unreadable" if refused.reason == "content" else "refused"
        except BridgeError as error:
            return self._failed(source, str(error))
        except Exception as error:  # noqa: BLE001 - its own text could quote the push
            return self._failed(source, f"it cannot be read ({type(error).__name__})")
        return await self._store(source, push.things) if push.things else (200, "ok")

    def _received(self, request: web.Request, body: bytes) -> PushRequest:
        path = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        headers = {name.lower(): value for name, value in request.headers.items()}
        return PushRequest(
            f"{self._origin}{path}", request.match_info.get("secret", ""), headers, body, method=request.method
        )

    async def _store(self, source: str, things: Collection[str]) -> tuple[int, str]:
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                kept = await self._keep(source, things)
        except TimeoutError:
            return self._failed(source, f"the store needs more than {KEEP_SECONDS:g} s")
        except BridgeError as error:
            return self._failed(source, str(error))
        return (200, "ok") if kept else (_NOT_KEPT, "too_many")

    def _failed(self, source: str, reason: str) -> tuple[int, str]:
        log.warning(
            "push.cannot_be_kept", source=source, reason=reason,
            consequence="the provider is told to try again; the polls find what it was about",
        )  # fmt: skip
        return _NOT_KEPT, "failed"
