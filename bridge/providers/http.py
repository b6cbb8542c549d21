"""The polite HTTP client of the providers: a budget of requests, bounded answers, and errors that say what to do."""

from __future__ import annotations

import asyncio
import hashlib
import math
import ssl
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Annotated, Any, Protocol
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import AfterValidator
from yarl import URL

from bridge import __version__
from bridge.clock import Clock
from bridge.errors import BridgeError, NotReady, Permanent, Transient, Unauthorized
from bridge.ledger import SHARE, TENURE, Share
from bridge.providers import reading
from bridge.source import SECOND, UNDER_WAY

MIB = 1024 * 1024
RETRY_AFTER_CAP = 3600.0
_PATIENCE = 5.0
_EVEN_UP_TO = 100.0
_PATH_SHOWN = 120
_SETTLED_AFTER = 60.0
_URLS_KEPT = 2048

Headers = Callable[[], Awaitable[Mapping[str, str]]]
Params = Mapping[str, str | int]


class Failed(Transient):
    """The provider could not answer now."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        """The HTTP status; None where no answer came."""
        self.code = code
        """The provider's own code of the error, a number or a word, where the body had one."""
        self.timed_out = timed_out


class Throttled(Failed):
    """The provider asks for fewer requests (HTTP 429), or its earlier wish for quiet still holds."""


class Refused(Permanent):
    """The provider will never take this very request: a client error, or a redirect, which is not followed."""

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Vanished(Refused):
    """The resource is not there (HTTP 404 or 410)."""


class TooLarge(Permanent):
    """The answer is larger than the client reads; ask for less at once."""


class ForeignLink(Permanent):
    """A link leads away from the configured origin; it is not followed, for the credentials would leave with it."""


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


# --- the budget -------------------------------------------------------------------------------------------------------


class Turn:
    """One request's place in a budget: granted, then on its way, then answered. What is said twice is said once."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def leaves(self) -> None:
        """Note that the request is on its way."""
        self._limiter._leaves(self)  # noqa: SLF001 - the two are one thing

    def answered(self) -> None:
        """Note that it has arrived, for the answer has begun."""
        self._limiter._answered(self)  # noqa: SLF001 - the two are one thing

    def ends(self) -> None:
        """Note that nobody waits for it any more; what has left without an answer may arrive still."""
        self._limiter._ends(self)  # noqa: SLF001 - the two are one thing


class Limiter:
    """A budget of requests, first come first served, for all that use one account.

    In no window of one second do more than `rate` requests arrive (of a rate with a fraction: never more than its next
    whole number, and below 1/s one in 1/`rate` seconds). Up to 100/s they are evenly spaced. When a request arrived is
    the far side's to know: it is after it left, which is after its connection was opened, and before its answer came.
    So a second goes by between one's answer and the leaving of the one that takes its place, and a packet that the
    network lost, or a process that was stopped for a moment, moves nothing into a second that is full. An answer may
    take its time, though: a request on its way counts as arrived after one second.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError("a rate is a number above 0")
        self._clock = clock
        self._turn = asyncio.Lock()
        self._quiet_until = -math.inf
        self._granted = -math.inf
        self._freed = asyncio.Event()
        self._share = math.inf
        self._pending: set[Turn] = set()
        self._under_way: dict[Turn, float] = {}
        """When each left, oldest first."""
        self._arrivals: deque[float] = deque()
        """When the others arrived at the latest, oldest first; those that matter still."""
        self.rate = rate
        self._reckon()

    def _reckon(self) -> None:
        rate = min(self.rate, self._share)
        self._capacity = max(1, int(rate))
        self._window = self._capacity / rate * SECOND
        self._spacing = 1 / rate if rate <= _EVEN_UP_TO else 0.0

    def slow_to(self, rate: float) -> None:
        """Lower the budget to `rate` if it is higher: of several users of an account the most careful one decides."""
        if rate < self.rate:
            self.rate = rate
            self._reckon()

    def pause(self, seconds: float) -> None:
        """Start nothing for `seconds`: the far side asked for quiet."""
        self._quiet_until = max(self._quiet_until, self._clock.monotonic() + seconds)

    async def start(self) -> None:
        """Return when a request may start, and count it as arrived at once; raises as `turn` does."""
        (await self.turn()).ends()

    async def turn(self, share: Share | None = None) -> Turn:
        """Return when a request may be begun; its turn is to be told when it leaves and, in any case, its end.

        No more than the `share` is used meanwhile. Raises `Throttled` at once instead of waiting out a pause of more
        than a few seconds.
        """
        async with self._turn:
            while (wait := await self._wait_within(share)) > 0:
                if math.isinf(wait):
                    self._freed.clear()
                    await self._freed.wait()
                else:
                    await self._clock.sleep(wait)
            self._granted = self._clock.monotonic()
            turn = Turn(self)
            self._pending.add(turn)
            return turn

    def _leaves(self, turn: Turn) -> None:
        if turn in self._pending:
            self._pending.remove(turn)
            self._under_way[turn] = self._clock.monotonic()
            self._freed.set()

    def _answered(self, turn: Turn) -> None:
        if self._under_way.pop(turn, None) is not None:
            self._arrivals.append(self._clock.monotonic())

    def _ends(self, turn: Turn) -> None:
        if turn in self._pending:
            self._leaves(turn)
            self._answered(turn)

    async def _wait_within(self, share: Share | None) -> float:
        if share is not None and (allowed := await share.allowed()) != self._share:
            self._share = allowed
            self._reckon()
        return self._wait()

    def _wait(self) -> float:
        """Return for how many seconds nothing can be begun; infinite until one that is pending has left.

        It is the least that is known now: while one is under way, the second behind it has not begun.
        """
        now = self._clock.monotonic()
        quiet = self._quiet_until - now
        if quiet > _PATIENCE:
            raise Throttled("the account was asked for quiet: no request until then", retry_after=quiet)
        self._look_back(now)
        wait = max(quiet, self._granted + self._spacing - now)
        ahead = len(self._arrivals) + len(self._under_way) + len(self._pending) - self._capacity
        if ahead < 0:
            return wait
        if ahead < len(self._arrivals):
            return max(wait, self._arrivals[ahead] + self._window - now)
        if ahead < len(self._arrivals) + len(self._under_way):
            return max(wait, self._window)
        return math.inf

    def _look_back(self, now: float) -> None:
        """Count as arrived what is long under way, and forget what no window reaches any more."""
        while self._under_way and (left := next(iter(self._under_way.values()))) <= now - UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
            insort(self._arrivals, left + UNDER_WAY)
        while self._arrivals and self._arrivals[0] <= now - self._window:
            self._arrivals.popleft()


_limiters: WeakValueDictionary[tuple[str, Clock], Limiter] = WeakValueDictionary()


def account_key(origin: str, secret: str) -> str:
    """Return a name for an account at an origin from which its secret cannot be read."""
    return f"{URL(origin).origin()} {hashlib.sha256(secret.encode()).hexdigest()[:16]}"


def shared_limiter(account: str, rate: float, clock: Clock) -> Limiter:
    """Return the one limiter of an account in this process; the lowest rate that anybody asked for holds."""
    limiter = _limiters.get((account, clock))
    if limiter is None:
        limiter = Limiter(rate, clock)
        _limiters[account, clock] = limiter
    limiter.slow_to(rate)
    return limiter


# --- the answer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to its end."""

    what: str
    """Method and path, fit for a log."""
    status: int
    body: bytes = field(repr=False)
    asked: datetime
    """When the request was started."""
    at: datetime
    """When the answer had arrived."""
    url: URL = field(repr=False)
    headers: CIMultiDictProxy[str] = field(repr=False)
    unchanged: bool = False
    """The provider said that nothing changed since this client last asked (HTTP 304); the body is the earlier one.

    That says nothing about whether the earlier one was ever written down.
    """
    forget: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Makes the client ask for this answer whole the next time."""

    def json(self) -> Any:
        """Return the value of the body; raises `Failed` that tells HTML, nothing and torn JSON apart."""
        try:
            return reading.json(self.body)
        except ValueError:
            pass
        start = self.body.lstrip()[:1]
        shape = "HTML" if start == b"<" else "torn JSON" if start else "nothing"
        raise self.refused(f"the provider answered {shape} instead of JSON")

    def refused(self, why: str) -> Failed:
        """Return the failure of an answer that cannot be used; what stands for it is not asked for again (HTTP 304)."""
        self.forget()
        return Failed(f"{self.what}: {why}", status=self.status)

    def link(self, relation: str) -> str | None:
        """Return the absolute target of a relation of the `Link` header, fit for `Client.get`; None without one."""
        return self.links(relation)[0]

    def links(self, *relations: str) -> list[str | None]:
        """Return the targets of several relations, each as `link` does."""
        found = reading.links(self.headers.getall(hdrs.LINK, ()))
        return [self._target(relation, found.get(relation)) for relation in relations]

    def _target(self, relation: str, target: str | None) -> str | None:
        if target is None:
            return None
        try:
            return _joined(self.url, target)
        except ValueError:
            raise self.refused(f"the link {relation!r} cannot be read") from None


@lru_cache(maxsize=_URLS_KEPT)
def _joined(base: URL, target: str) -> str:
    """Return a link's absolute target; raises `ValueError`. The same pages are read again and again."""
    return str(base.join(URL(target)))


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one try, and whether another one at once may help."""

    error: BridgeError
    again: bool = False


class _Memory:
    """The last answers with validators, least recently used first, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._answers: OrderedDict[URL, Answer] = OrderedDict()

    def get(self, url: URL) -> Answer | None:
        answer = self._answers.get(url)
        if answer is not None:
            self._answers.move_to_end(url)
        return answer

    def put(self, url: URL, answer: Answer) -> Answer:
        """Keep an answer that may be asked for conditionally; return it with the means to forget it."""
        self._drop(url)
        body = answer.body
        if answer.status != 200 or not body or len(body) > self._limit // 4 or not _validators(answer):  # noqa: PLR2004 - HTTP
            return answer
        kept = replace(answer, forget=partial(self._forget, url, body))
        self._answers[url] = kept
        self._size += len(body)
        while self._size > self._limit:
            self._drop(next(iter(self._answers)))
        return kept

    def _forget(self, url: URL, body: bytes) -> None:
        kept = self._answers.get(url)
        if kept is not None and kept.body is body:
            self._drop(url)

    def _drop(self, url: URL) -> None:
        old = self._answers.pop(url, None)
        self._size -= len(old.body) if old else 0


def _validators(answer: Answer) -> dict[str, str]:
    if hdrs.ETAG not in answer.headers and not _settled(answer):
        return {}
    pairs = ((hdrs.IF_NONE_MATCH, hdrs.ETAG), (hdrs.IF_MODIFIED_SINCE, hdrs.LAST_MODIFIED))
    return {asked: answer.headers[given] for asked, given in pairs if given in answer.headers}


def _settled(answer: Answer) -> bool:
    """Whether its `Last-Modified` stands for this answer alone.

    It counts in seconds: what changed again in the same one would be taken for unchanged for ever (RFC 9110, 8.8.2.2).
    """
    modified, date = (reading.http_date(answer.headers.get(name)) for name in (hdrs.LAST_MODIFIED, hdrs.DATE))
    return modified is not None and date is not None and (date - modified).total_seconds() >= _SETTLED_AFTER


def _confirmed(known: Answer, answer: Answer) -> Answer:
    """Return what HTTP 304 stands for: the earlier body, under the headers as they are now (RFC 9111, 4.3.4)."""
    headers = CIMultiDict(known.headers)
    headers.update(answer.headers)
    return replace(known, asked=answer.asked, at=answer.at, headers=CIMultiDictProxy(headers), unchanged=True)


# --- the wire ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One try of one request, without its headers and what it sends: those hold secrets."""

    what: str
    """Method and path, fit for a log."""
    method: str
    url: URL = field(repr=False)
    origin: URL = field(repr=False)
    """The configured one, with the path that stands before all others."""
    known: Answer | None = field(repr=False)
    """What HTTP 304 would stand for."""


class Wire(Protocol):
    """Stands between the clients and the network: hears what goes by, or answers in the provider's stead."""

    async def carry(self, request: Request, ask: Callable[[], Awaitable[Answer | Failure]]) -> Answer | Failure:
        """Return the outcome of one try, which `ask` would fetch from the provider; raises as `ask` does."""
        ...


WIRE: ContextVar[Wire | None] = ContextVar("WIRE", default=None)
"""What stands there for the clients that are used in this context; None is the network alone."""


# --- the client -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tls:
    """How the far side proves itself, and we to it; certificates are always verified."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context; raises `Permanent` when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key, password="")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        else:
            return context
        raise Permanent(f"ca_file, client_cert or client_key cannot be used ({reason}): nothing is asked without them")


@dataclass(frozen=True, slots=True)
class Limits:
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


_NO_TLS = Tls()
_DEFAULT_LIMITS = Limits()


class Client:
    """Asks one origin, politely, with credentials that never leave it.

    `headers` is awaited for each try, so that secrets rotate. A path in `origin` is put before every target, links too,
    that does not begin with it. Every failure is one of `bridge.errors` or of this module; its text names the method
    and the path, and neither queries nor bodies nor headers. Once the lease under which it is used has ended, nothing
    is asked: it raises `LeaseLost`. Construction has no side effects. Close it when done.
    """

    def __init__(
        self,
        origin: str,
        *,
        limiter: Limiter,
        clock: Clock,
        headers: Headers | None = None,
        limits: Limits = _DEFAULT_LIMITS,
        tls: Tls = _NO_TLS,
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
        self._memory = _Memory(limits.memory)

    async def get(self, target: str, params: Params | None = None, *, ready_only: bool = True) -> Answer:
        """Ask for `target`, a path or an absolute link of the same origin; every 2xx is an answer.

        With `ready_only`, 202 raises `NotReady`. A conditional request is made where the last answer gave a validator.
        """
        url = _url(self.origin, target)
        if params:
            url = url.update_query(params)
        return await self._request(hdrs.METH_GET, url, ready_only=ready_only)

    async def post_json(self, target: str, value: Any, *, ready_only: bool = True) -> Answer:
        """Send `value` as JSON; only for requests that do no harm when they arrive twice."""
        return await self._request(hdrs.METH_POST, _url(self.origin, target), value, ready_only=ready_only)

    async def close(self) -> None:
        """Give back connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, method: str, url: URL, value: Any = None, *, ready_only: bool) -> Answer:
        retries = self._limits.retries
        attempt = 0
        while True:
            match await self._try(method, url, value, ready_only=ready_only):
                case Answer() as answer:
                    return answer
                case Failure(error=error, again=again) if not again or attempt >= retries:
                    raise error
            await self._clock.sleep(self._clock.random.random() * 0.5 * 2.0**attempt)
            attempt += 1

    async def _try(self, method: str, url: URL, value: Any, *, ready_only: bool) -> Answer | Failure:
        what = f"{method} {url.raw_path[:_PATH_SHOWN]}"
        headers = dict(await self._headers()) if self._headers is not None else {}
        known = self._memory.get(url) if method == hdrs.METH_GET else None
        if known is not None:
            headers |= _validators(known)
        request = Request(what, method, url, self.origin, known)

        def ask() -> Awaitable[Answer | Failure]:
            return self._ask(request, headers, value)

        wire = WIRE.get()
        answer = await (ask() if wire is None else wire.carry(request, ask))
        if isinstance(answer, Failure):
            return answer
        if known is not None and answer.status == 304:  # noqa: PLR2004 - HTTP's own figure
            return _confirmed(known, answer)
        failure = self._judge(answer, ready_only=ready_only)
        if failure is None and method == hdrs.METH_GET:
            return self._memory.put(url, answer)
        return failure or answer

    async def _ask(self, request: Request, headers: Mapping[str, str], value: Any) -> Answer | Failure:
        session = self._open()
        turn = await self.limiter.turn(SHARE.get())
        asked = self._clock.now()
        try:
            self._check_tenure()
            _TURN.set(turn)
            async with session.request(
                request.method, request.url, headers=headers, json=value, allow_redirects=False
            ) as response:
                turn.answered()
                body = await self._read(response)
        except Exception as error:  # noqa: BLE001 - `_mishap` hands on what it does not know
            return _mishap(request.what, error)
        finally:
            turn.ends()
        if body is None:
            size = self._limits.body // MIB
            return Failure(TooLarge(f"{request.what}: the answer is larger than {size} MiB; ask for less at once"))
        return Answer(request.what, response.status, body, asked, self._clock.now(), request.url, response.headers)

    def _judge(self, answer: Answer, *, ready_only: bool) -> Failure | None:
        asked = answer.headers.get(hdrs.RETRY_AFTER)
        after = None if asked is None else reading.retry_after(asked, self._clock.now())
        after = after if after is None else min(after, RETRY_AFTER_CAP)
        failure = _judge(answer, after, ready_only=ready_only)
        if failure is not None and isinstance(failure.error, Failed) and after is not None:
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
                connector=_Connector(
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


_TURN: ContextVar[Turn] = ContextVar("_TURN")
"""The turn of the request that this task makes."""


class _Connector(aiohttp.TCPConnector):
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
        connection = await super().connect(req, traces, timeout)
        try:
            self._check()
        except BaseException:
            connection.release()
            raise
        _TURN.get().leaves()
        return connection


@lru_cache(maxsize=_URLS_KEPT)
def _url(origin: URL, target: str) -> URL:
    """Return the address of a path or a link at an origin; raises `ForeignLink` where it leads elsewhere."""
    base = origin.raw_path.rstrip("/")
    try:
        url = origin.join(URL(target))
        foreign = _place(url) != _place(origin)
        if base and not f"{url.raw_path}/".startswith(f"{base}/"):
            # Whoever stands before the provider need not put the path into the links that the provider writes.
            url = url.with_path(f"{base}{url.raw_path}", encoded=True, keep_query=True)
    except ValueError:
        foreign = True
    if foreign:
        raise ForeignLink("a link leads to another origin than the configured one: not followed, the token stays here")
    return url.with_user(None).with_fragment(None)


def _place(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def _judge(answer: Answer, after: float | None, *, ready_only: bool) -> Failure | None:
    """Decide what a status means for the caller; None is an answer."""
    if answer.status == 202 and ready_only:  # noqa: PLR2004 - HTTP's own figure
        text = f"{answer.what}: the provider is still building the answer: asked again later"
        return Failure(NotReady(text, retry_after=after))
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own figures
        return None
    return _refusal(answer.what, answer.status, reading.error_code(answer.body), after)


def _refusal(what: str, status: int, code: str | None, after: float | None) -> Failure:
    told = f"{what}: {status}" + (f" (code {code})" if code else "")
    error: BridgeError
    match status:
        case 401 | 403:
            text = f"{told}, the provider refuses the credentials: check the token and its rights"
            error = Unauthorized(text, retry_after=after)
        case 404 | 410:
            error = Vanished(f"{told}, the provider does not know this resource (any more)", status=status, code=code)
        case 429:
            text = f"{told}, the provider asks for fewer requests"
            error = Throttled(text, retry_after=after, status=status, code=code)
        case 304 | 408 | 425:
            text = f"{told}, the provider could not answer now"
            error = Failed(text, retry_after=after, status=status, code=code)
        case _ if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own figures
            error = Refused(f"{told}, a redirect: not followed, the token stays here", status=status, code=code)
        case _ if 400 <= status < 500:  # noqa: PLR2004 - HTTP's own figures
            error = Refused(f"{told}, the provider refuses this request", status=status, code=code)
        case _:
            error = Failed(f"{told}, the provider failed", retry_after=after, status=status, code=code)
    return Failure(error, again=status in {502, 503, 504} and after is None)


@dataclass(frozen=True, slots=True)
class _Mishap:
    """What an exception of the library means; the first row that fits counts."""

    types: tuple[type[Exception], ...]
    text: str
    again: bool = False
    timed_out: bool = False


_MISHAPS = (
    _Mishap((aiohttp.ConnectionTimeoutError,), "no connection within the time allowed", timed_out=True),
    _Mishap((TimeoutError,), "no complete answer within the time allowed", timed_out=True),
    _Mishap(
        (aiohttp.ClientConnectorCertificateError,), "the provider's certificate is not trusted; check url and ca_file"
    ),
    _Mishap((aiohttp.ClientSSLError,), "no encrypted connection came about"),
    _Mishap((aiohttp.ClientConnectorDNSError,), "the provider's host name cannot be resolved"),
    _Mishap((aiohttp.ClientConnectorError,), "cannot connect to the provider"),
    _Mishap((aiohttp.InvalidURL,), "the address cannot be asked"),
    _Mishap(
        (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionError, OSError),
        "the connection broke before the answer was complete",
        again=True,
    ),
    _Mishap((aiohttp.ClientError,), "the provider answered something that is not HTTP"),
)


def _mishap(what: str, error: Exception) -> Failure:
    """Translate what the library raised; its own texts may quote addresses and are left behind."""
    for row in _MISHAPS:
        if isinstance(error, row.types):
            return Failure(Failed(f"{what}: {row.text}", timed_out=row.timed_out), again=row.again)
    if isinstance(error, ValueError):
        return Failure(Permanent(f"{what}: the request cannot be written; is there a line break in the token?"))
    raise error
