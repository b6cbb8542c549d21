"""The polling HTTP client: a budget of requests, bounded answers, and errors that say what to do."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Protocol

import aiohttp
from aiohttp import hdrs
from pydantic import AfterValidator
from yarl import URL

from bridge import __version__
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Permanent, Unauthorized
from bridge.http import parsing
from bridge.http.conditional import ConditionalCache, confirmed, validators
from bridge.http.connector import CURRENT_SLOT, ReportingConnector
from bridge.http.errors import CrossOriginLink, NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.http.headers import retry_after
from bridge.http.limiter import Limiter
from bridge.http.response import URLS_KEPT, RequestFailure, Response
from bridge.http.tls import NO_TLS, Tls
from bridge.protocols.request_context import SHARE, TENURE

MIB = 1024 * 1024
RETRY_AFTER_CAP = 3600.0
_PATH_SHOWN = 120

Headers = Callable[[], Awaitable[Mapping[str, str]]]
Params = Mapping[str, str | int]


# --- addresses --------------------------------------------------------------------------------------------------------


def origin(value: str) -> str:
    """Return an absolute http or https address, with or without a path; raises `ValueError` that says what is wrong."""
    try:
        url = URL(value.strip())
        good = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
    except ValueError:
        good = False
    if not good:
        raise ValueError("is not an address; write https:// and a host")
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("an address here has neither a user nor a query: the credentials have keys of their own")
    return str(url)


Origin = Annotated[str, AfterValidator(origin)]


# --- the wire ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One try of one request, without its headers and what it sends: those hold secrets."""

    what: str
    """Method and path, fit for a log."""
    method: str
    url: URL = field(repr=False)
    origin: URL = field(repr=False)
    """The configured one, with the path that stands before all others."""
    known: Response | None = field(repr=False)
    """What HTTP 304 would stand for."""


class Transport(Protocol):
    """Stands between the clients and the network: hears what goes by, or answers in the provider's stead."""

    async def send(
        self, request: HttpRequest, ask: Callable[[], Awaitable[Response | RequestFailure]]
    ) -> Response | RequestFailure:
        """Return the outcome of one try, which `ask` would fetch from the provider; raises as `ask` does."""
        ...


WIRE: ContextVar[Transport | None] = ContextVar("WIRE", default=None)
"""What stands there for the clients that are used in this context; None is the network alone."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long and how much, in seconds and bytes."""

    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of an answer."""
    total: float = 120.0
    body: int = 32 * MIB
    keepalive: float = 15.0
    """How long an idle connection is kept; less than the far side keeps it, or it is found dead."""
    connections: int = 16
    retries: int = 2
    """Tries at once after a reset, a connection closed while idle, or a 502, 503 or 504 that names no time."""
    memory: int = 8 * MIB
    """Bodies kept for conditional requests; 0 makes none."""


_DEFAULT_LIMITS = HttpLimits()


class HttpClient:
    """Asks one origin, politely, with credentials that never leave it.

    `headers` is awaited for each try, so that secrets rotate. A path in `origin` is put before every target, links too,
    that does not begin with it. Every failure is one of `bridge.domain.errors` or `bridge.http.errors`; its text names
    the method and the path, and neither queries nor bodies nor headers. Once the lease of the task has ended,
    the client sends nothing and raises `LeaseLost`. Construction has no side effects. Close it when done.
    """

    def __init__(
        self,
        origin: str,
        *,
        limiter: Limiter,
        clock: Clock,
        headers: Headers | None = None,
        limits: HttpLimits = _DEFAULT_LIMITS,
        tls: Tls = NO_TLS,
        user_agent: str = f"bridge/{__version__}",
    ) -> None:
        self.origin = URL(origin.rstrip("/") + "/")
        self.limiter = limiter
        self._clock = clock
        self._headers = headers
        self._limits = limits
        self._tls = tls
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._memory = ConditionalCache(limits.memory)

    async def get(self, target: str, params: Params | None = None, *, ready_only: bool = True) -> Response:
        """Ask for `target`, a path or an absolute link of the same origin; every 2xx is an answer.

        With `ready_only`, 202 raises `NotReady`. A conditional request is made where the last answer gave a validator.
        """
        url = _url(self.origin, target)
        if params:
            url = url.update_query(params)
        return await self._request(hdrs.METH_GET, url, ready_only=ready_only)

    async def post_json(self, target: str, value: Any, *, ready_only: bool = True) -> Response:
        """Send `value` as JSON; only for requests that do no harm when they arrive twice."""
        return await self._request(hdrs.METH_POST, _url(self.origin, target), value, ready_only=ready_only)

    async def close(self) -> None:
        """Give back connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, method: str, url: URL, value: Any = None, *, ready_only: bool) -> Response:
        retries = self._limits.retries
        attempt = 0
        while True:
            match await self._try(method, url, value, ready_only=ready_only):
                case Response() as answer:
                    return answer
                case RequestFailure(error=error, again=again) if not again or attempt >= retries:
                    raise error
            await self._clock.sleep(self._clock.random.random() * 0.5 * 2.0**attempt)
            attempt += 1

    async def _try(self, method: str, url: URL, value: Any, *, ready_only: bool) -> Response | RequestFailure:
        what = f"{method} {url.raw_path[:_PATH_SHOWN]}"
        headers = dict(await self._headers()) if self._headers is not None else {}
        known = self._memory.get(url) if method == hdrs.METH_GET else None
        if known is not None:
            headers |= validators(known)
        request = HttpRequest(what, method, url, self.origin, known)

        def ask() -> Awaitable[Response | RequestFailure]:
            return self._ask(request, headers, value)

        wire = WIRE.get()
        answer = await (ask() if wire is None else wire.send(request, ask))
        if isinstance(answer, RequestFailure):
            return answer
        if known is not None and answer.status == 304:  # noqa: PLR2004 - HTTP's own figure
            return confirmed(known, answer)
        failure = self._check_status(answer, ready_only=ready_only)
        if failure is None and method == hdrs.METH_GET:
            return self._memory.put(url, answer)
        return failure or answer

    async def _ask(self, request: HttpRequest, headers: Mapping[str, str], value: Any) -> Response | RequestFailure:
        session = self._open()
        turn = await self.limiter.acquire(SHARE.get())
        asked = self._clock.now()
        try:
            self._check_tenure()
            CURRENT_SLOT.set(turn)
            async with session.request(
                request.method, request.url, headers=headers, json=value, allow_redirects=False
            ) as response:
                turn.answered()
                body = await self._read(response)
        except Exception as error:  # noqa: BLE001 - `_translate` hands on what it does not know
            return _translate(request.what, error)
        finally:
            turn.release()
        if body is None:
            size = self._limits.body // MIB
            return RequestFailure(
                TooLarge(f"{request.what}: the answer is larger than {size} MiB; ask for less at once")
            )
        return Response(request.what, response.status, body, asked, self._clock.now(), request.url, response.headers)

    def _check_status(self, answer: Response, *, ready_only: bool) -> RequestFailure | None:
        asked = answer.headers.get(hdrs.RETRY_AFTER)
        after = None if asked is None else retry_after(asked, self._clock.now())
        after = after if after is None else min(after, RETRY_AFTER_CAP)
        failure = _check_status(answer, after, ready_only=ready_only)
        if failure is not None and isinstance(failure.error, ProviderError) and after is not None:
            self.limiter.pause(after)
        return failure

    def _check_tenure(self) -> None:
        if (tenure := TENURE.get()) is not None:
            tenure.check(self._clock.monotonic())

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Return the body, or None as soon as it is known to be too large."""
        cap, length = self._limits.body, response.content_length
        if (length or 0) > cap:
            response.close()
            return None
        if length is not None and hdrs.CONTENT_ENCODING not in response.headers:
            return await response.read()  # it ends where it said
        pieces: list[bytes] = []
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > cap:
                response.close()
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self._limits
            secure: ssl.SSLContext | bool = self._tls.context() if self.origin.scheme == "https" else True
            self._session = aiohttp.ClientSession(
                connector=ReportingConnector(
                    self._check_tenure,
                    ssl=secure,
                    limit=limits.connections,
                    keepalive_timeout=limits.keepalive,
                    ttl_dns_cache=60,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=limits.total, connect=None, sock_connect=limits.connect, sock_read=limits.read
                ),
                headers={
                    hdrs.ACCEPT: "application/json",
                    hdrs.ACCEPT_ENCODING: "gzip, deflate",
                    hdrs.USER_AGENT: self._user_agent,
                },
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            # aiohttp would repeat a request by itself on a connection that died while idle, past the budget's back.
            self._session._retry_connection = False  # noqa: SLF001 - it offers no public switch; its own TestClient does this
        return self._session


@lru_cache(maxsize=URLS_KEPT)
def _url(origin: URL, target: str) -> URL:
    """Return the address of a path or a link at an origin; raises `CrossOriginLink` where it leads elsewhere."""
    base = origin.raw_path.rstrip("/")
    try:
        url = origin.join(URL(target))
        foreign = _origin_of(url) != _origin_of(origin)
        if base and not f"{url.raw_path}/".startswith(f"{base}/"):
            # Whoever stands before the provider need not put the path into the links that the provider writes.
            url = url.with_path(f"{base}{url.raw_path}", encoded=True, keep_query=True)
    except ValueError:
        foreign = True
    if foreign:
        raise CrossOriginLink(
            "a link leads to another origin than the configured one: not followed, the token stays here"
        )
    return url.with_user(None).with_fragment(None)


def _origin_of(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def _check_status(answer: Response, after: float | None, *, ready_only: bool) -> RequestFailure | None:
    """Decide what a status means for the caller; None is an answer."""
    if answer.status == 202 and ready_only:  # noqa: PLR2004 - HTTP's own figure
        text = f"{answer.what}: the provider is still building the answer: asked again later"
        return RequestFailure(NotReady(text, retry_after=after))
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own figures
        return None
    return _error_for(answer.what, answer.status, parsing.error_code(answer.body), after)


def _error_for(what: str, status: int, code: str | None, after: float | None) -> RequestFailure:
    told = f"{what}: {status}" + (f" (code {code})" if code else "")
    error: BridgeError
    match status:
        case 401 | 403:
            text = f"{told}, the provider refuses the credentials: check the token and its rights"
            error = Unauthorized(text, retry_after=after)
        case 404 | 410:
            error = NotFound(f"{told}, the provider does not know this resource (any more)", status=status, code=code)
        case 429:
            text = f"{told}, the provider asks for fewer requests"
            error = Throttled(text, retry_after=after, status=status, code=code)
        case 304 | 408 | 425:
            text = f"{told}, the provider could not answer now"
            error = ProviderError(text, retry_after=after, status=status, code=code)
        case _ if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own figures
            error = RequestRejected(f"{told}, a redirect: not followed, the token stays here", status=status, code=code)
        case _ if 400 <= status < 500:  # noqa: PLR2004 - HTTP's own figures
            error = RequestRejected(f"{told}, the provider refuses this request", status=status, code=code)
        case _:
            error = ProviderError(f"{told}, the provider failed", retry_after=after, status=status, code=code)
    return RequestFailure(error, again=status in {502, 503, 504} and after is None)


@dataclass(frozen=True, slots=True)
class _TransportError:
    """What an exception of the library means; the first row that fits counts."""

    types: tuple[type[Exception], ...]
    text: str
    again: bool = False
    timed_out: bool = False


_TRANSPORT_ERRORS = (
    _TransportError((aiohttp.ConnectionTimeoutError,), "no connection within the time allowed", timed_out=True),
    _TransportError((TimeoutError,), "no complete answer within the time allowed", timed_out=True),
    _TransportError(
        (aiohttp.ClientConnectorCertificateError,), "the provider's certificate is not trusted; check url and ca_file"
    ),
    _TransportError((aiohttp.ClientSSLError,), "no encrypted connection came about"),
    _TransportError((aiohttp.ClientConnectorDNSError,), "the provider's host name cannot be resolved"),
    _TransportError((aiohttp.ClientConnectorError,), "cannot connect to the provider"),
    _TransportError((aiohttp.InvalidURL,), "the address cannot be asked"),
    _TransportError(
        (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionError, OSError),
        "the connection broke before the answer was complete",
        again=True,
    ),
    _TransportError((aiohttp.ClientError,), "the provider answered something that is not HTTP"),
)


def _translate(what: str, error: Exception) -> RequestFailure:
    """Translate what the library raised; its own texts may quote addresses and are left behind."""
    for row in _TRANSPORT_ERRORS:
        if isinstance(error, row.types):
            return RequestFailure(ProviderError(f"{what}: {row.text}", timed_out=row.timed_out), again=row.again)
    if isinstance(error, ValueError):
        return RequestFailure(Permanent(f"{what}: the request cannot be written; is there a line break in the token?"))
    raise error
