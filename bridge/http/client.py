"""The polling HTTP client: a budget of requests, bounded answers, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Annotated, Any, Protocol

import aiohttp
from aiohttp import hdrs
from pydantic import AfterValidator
from yarl import URL

from bridge import __version__
from bridge.domain.answers import NO_ANSWER, answer_class
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Transient, Unauthorized
from bridge.http import parsing
from bridge.http.conditional import ConditionalCache, confirmed, validators
from bridge.http.connector import ReportingConnector
from bridge.http.errors import CrossOriginLink, NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.http.exact_url import exact_join, exact_url
from bridge.http.headers import requested_wait
from bridge.http.lenient import head_limits
from bridge.http.limiter import Limiter
from bridge.http.response import MAX_CACHED_URLS, RequestFailure, Response
from bridge.http.status import NOT_MODIFIED_STATUS, OK_STATUS, is_client_error, is_redirect, is_success
from bridge.http.tls import NO_TLS, ReloadingContext, Tls
from bridge.http.transport_errors import translated
from bridge.protocols.request_context import bind_slot, current

_MIB = 1024 * 1024
_RETRY_AFTER_CAP_SECONDS = 3600.0
_MAX_PATH_CHARS = 120
_SCHEMES = frozenset({"http", "https"})

Headers = Callable[[], Awaitable[Mapping[str, str]]]
Params = Mapping[str, str | int | None]
Refusal = Callable[[Response, float | None], BridgeError | None]
"""Says what an answer means that is no success, given the seconds that it asks to wait; None is HTTP's own meaning."""


def origin(value: str) -> str:
    """Return an absolute http or https address, with or without a path; raises `ValueError` that says what is wrong."""
    try:
        url = URL(value.strip())
        good = url.scheme in _SCHEMES and bool(url.host) and url.port is not None
    except ValueError:
        good = False
    if not good:
        raise ValueError("is not an address; write https:// and a host")
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("an address here has neither a user nor a query: the credentials have keys of their own")
    text = str(exact_url(value.strip()))
    return text if value.strip().endswith("/") else text.removesuffix("/")


Origin = Annotated[str, AfterValidator(origin)]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One try of one request, without its headers and what it sends: those hold secrets."""

    what: str
    """Method and path, fit for a log."""
    method: str
    url: URL = field(repr=False)
    origin: URL = field(repr=False)
    """The configured origin, with the path that is put before all targets."""
    known: Response | None = field(repr=False)
    """The answer that HTTP 304 would confirm."""


class Transport(Protocol):
    """Stands between the clients and the network: listens to the traffic, or answers instead of the provider.

    It is bound to a task as `bridge.protocols.request_context.RequestContext.transport`.
    """

    async def send(
        self, request: HttpRequest, ask: Callable[[], Awaitable[Response | RequestFailure]]
    ) -> Response | RequestFailure:
        """Return the outcome of one try, which `ask` would fetch from the provider; raises as `ask` does."""
        ...


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long a client waits and how much it reads; all times are in seconds and all sizes in bytes."""

    connect: float = 10.0
    """Seconds until a connection is open."""
    read: float = 30.0
    """Seconds between two pieces of an answer."""
    total: float = 120.0
    """Seconds for a whole request."""
    body: int = 32 * _MIB
    """Bytes of an answer, unpacked; a larger one raises `TooLarge`."""
    keepalive: float = 15.0
    """Seconds for which an idle connection is kept. If the provider closes it earlier, the next request fails once."""
    connections: int = 16
    retries: int = 2
    """Further tries at once after a reset, a connection closed while idle, or a 502, 503 or 504 without Retry-After."""
    memory: int = 8 * _MIB
    """Bytes of bodies that are kept for conditional requests; with 0 there are no conditional requests."""


_DEFAULT_LIMITS = HttpLimits()


class HttpClient:
    """Asks one origin within a budget of requests, with credentials that never leave the origin.

    `headers` is awaited for each try, so that secrets can rotate. A path in `origin` is put before every target and
    link that does not begin with it. A link to another origin is asked at the configured one. Every failure is one of
    `bridge.domain.errors` or `bridge.http.errors`; its text names the method and the path, and neither queries nor
    bodies nor headers. Once the lease of the task has ended, the client sends nothing and raises `LeaseLost`.
    Construction has no side effects. Close it when done.
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
        refusal: Refusal | None = None,
    ) -> None:
        self.origin = exact_url(origin.rstrip("/") + "/")
        self.limiter = limiter
        self._clock = clock
        self._headers = headers
        self._limits = limits
        self._certificates = ReloadingContext(tls, clock)
        self._user_agent = user_agent
        self._refusal = refusal
        self._session: aiohttp.ClientSession | None = None
        self._memory = ConditionalCache(limits.memory)

    async def get(self, target: str, params: Params | None = None, *, ready_only: bool = True) -> Response:
        """Ask for `target`, a path or an absolute link, at the configured origin; every 2xx is an answer.

        A parameter that is None is left out. With `ready_only`, 202 raises `NotReady`. The request is conditional if
        the last answer gave a validator.
        """
        url = _url(self.origin, target)
        query = {name: value for name, value in (params or {}).items() if value is not None}
        if query:
            url = url.update_query(query)
        return await self._request(hdrs.METH_GET, url, ready_only=ready_only)

    async def post_json(self, target: str, value: Any, *, ready_only: bool = True) -> Response:
        """Send `value` as JSON; use it only for requests that do no harm when they arrive twice."""
        return await self._request(hdrs.METH_POST, _url(self.origin, target), value, ready_only=ready_only)

    async def post_form(self, target: str, fields: Mapping[str, str]) -> Response:
        """Send a form; use it only for requests that do no harm when they arrive twice."""
        return await self._request(hdrs.METH_POST, _url(self.origin, target), Form(fields), ready_only=True)

    async def delete(self, target: str) -> Response:
        """Remove what is at `target`; raises `NotFound` if it is not there, perhaps because a first try removed it."""
        return await self._request(hdrs.METH_DELETE, _url(self.origin, target), ready_only=False)

    async def close(self) -> None:
        """Close all connections; a later request opens new ones."""
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
        what = f"{method} {url.raw_path[:_MAX_PATH_CHARS]}"
        headers = dict(await self._headers()) if self._headers is not None else {}
        known = self._memory.get(url) if method == hdrs.METH_GET else None
        if known is not None:
            headers |= validators(known)
        request = HttpRequest(what, method, url, self.origin, known)

        transport: Transport | None = current().transport
        if transport is None:
            answer = await self._ask(request, headers, value)
        else:
            answer = await transport.send(request, partial(self._ask, request, headers, value))
        if (on_answer := current().on_answer) is not None:
            on_answer(NO_ANSWER if isinstance(answer, RequestFailure) else answer_class(answer.status))
        if isinstance(answer, RequestFailure):
            return answer
        if known is not None and answer.status == NOT_MODIFIED_STATUS:
            return confirmed(known, answer)
        failure = self._check_status(answer, ready_only=ready_only)
        if failure is None and method == hdrs.METH_GET:
            return self._memory.put(url, answer)
        return failure or answer

    async def _ask(self, request: HttpRequest, headers: Mapping[str, str], value: Any) -> Response | RequestFailure:
        secure = await self._certificates.current(str(self.origin.origin())) if self.origin.scheme == "https" else True
        session = self._open()
        slot = await self.limiter.acquire(current().share)
        asked = self._clock.now()
        try:
            self._check_lease()
            bind_slot(slot)
            async with session.request(
                request.method, request.url, headers=headers, allow_redirects=False, ssl=secure, **_body(value)
            ) as response:
                slot.answered()
                body = await self._read(response)
        except Exception as error:  # noqa: BLE001 - `translated` raises what it does not know
            return translated(request.what, error)
        finally:
            slot.release()
        if body is None:
            size = self._limits.body // _MIB
            return RequestFailure(
                TooLarge(f"{request.what}: the answer is larger than {size} MiB; ask for less at once")
            )
        return Response(
            request.what, response.status, body, asked, self._clock.now(), request.url, response.headers,
            on_forget=self._memory.forget,
        )  # fmt: skip

    def _check_status(self, answer: Response, *, ready_only: bool) -> RequestFailure | None:
        if answer.status == OK_STATUS:  # nearly every answer
            return None
        after = requested_wait(answer.headers, answer.status, self._clock.now())
        after = after if after is None else min(after, _RETRY_AFTER_CAP_SECONDS)
        own = None if self._refusal is None or is_success(answer.status) else self._refusal(answer, after)
        if own is None:
            failure = _check_status(answer, after, ready_only=ready_only)
        else:
            failure = RequestFailure(own)
            after = own.retry_after if isinstance(own, Transient) else None
        if failure is not None and isinstance(failure.error, ProviderError) and after is not None:
            self.limiter.pause(after)
        return failure

    def _check_lease(self) -> None:
        if (lease := current().lease) is not None:
            lease.check(self._clock.monotonic())

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Return the body, or None as soon as it is known to be too large."""
        cap, length = self._limits.body, response.content_length
        if (length or 0) > cap:
            response.close()
            return None
        if length is not None and hdrs.CONTENT_ENCODING not in response.headers:
            return await response.read()  # it ends after the announced length
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
            self._session = aiohttp.ClientSession(
                connector=ReportingConnector(
                    self._check_lease,
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
                **head_limits(),
            )
            # aiohttp would repeat a request on a connection that died while idle, without asking the budget.
            self._session._retry_connection = False  # noqa: SLF001 - it offers no public switch; its own TestClient does this
        return self._session


@dataclass(frozen=True, slots=True)
class Form:
    """Fields that are sent as a form instead of as JSON."""

    fields: Mapping[str, str] = field(repr=False)


def _body(value: Any) -> dict[str, Any]:
    return {"data": dict(value.fields)} if isinstance(value, Form) else {"json": value}


@lru_cache(maxsize=MAX_CACHED_URLS)
def _url(origin: URL, target: str) -> URL:
    """Return the address at an origin that a path or a link leads to; raises `CrossOriginLink`.

    A link to another host, or to `http` instead of `https`, leads to its path and query at the origin: behind a
    balancer, a provider may not know its own address. So nothing, and no token, is ever sent anywhere else.
    """
    try:
        link = exact_join(origin, target)
    except ValueError:
        link = None
    if link is None or link.scheme not in _SCHEMES:
        raise CrossOriginLink(
            "a link leads to something that is not asked with HTTP: not followed, the token stays here"
        )
    path, base = link.raw_path, origin.raw_path.rstrip("/")
    if base and not f"{path.rstrip('?')}/".startswith(f"{base}/"):
        # A proxy in front of the provider need not put its path into the links that the provider writes.
        path = f"{base}{path}"
    return URL.build(
        scheme=origin.scheme,
        authority=origin.raw_authority,
        path=path,
        query_string=link.raw_query_string,
        encoded=True,
    )


def _check_status(answer: Response, after: float | None, *, ready_only: bool) -> RequestFailure | None:
    """Return the failure that a status means for the caller; None if the answer can be used."""
    if answer.status == 202 and ready_only:  # noqa: PLR2004 - HTTP's own figure
        text = f"{answer.what}: the provider is still building the answer: asked again later"
        return RequestFailure(NotReady(text, retry_after=after))
    if is_success(answer.status):
        return None
    return _error_for(answer.what, answer.status, parsing.error_code(answer.body), after)


def _error_for(what: str, status: int, code: str | None, after: float | None) -> RequestFailure:
    outcome = f"{what}: {status}" + (f" (code {code})" if code else "")
    error: BridgeError
    match status:
        case 401 | 403:
            text = f"{outcome}, the provider refuses the credentials: check the token and its rights"
            error = Unauthorized(text, retry_after=after)
        case 404 | 410:
            error = NotFound(
                f"{outcome}, the provider does not know this resource (any more)", status=status, code=code
            )
        case 429:
            text = f"{outcome}, the provider asks for fewer requests"
            error = Throttled(text, retry_after=after, status=status, code=code)
        case 304 | 408 | 425:
            text = f"{outcome}, the provider could not answer now"
            error = ProviderError(text, retry_after=after, status=status, code=code)
        case _ if is_redirect(status):
            error = RequestRejected(
                f"{outcome}, a redirect: not followed, the token stays here", status=status, code=code
            )
        case _ if is_client_error(status):
            error = RequestRejected(f"{outcome}, the provider refuses this request", status=status, code=code)
        case _:
            error = ProviderError(f"{outcome}, the provider failed", retry_after=after, status=status, code=code)
    return RequestFailure(error, again=status in {502, 503, 504} and after is None)
