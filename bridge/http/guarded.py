"""The sinks' HTTP client: public addresses only, no redirects, small answers, and errors without secrets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import AfterValidator, PlainSerializer
from yarl import URL

from bridge.concurrency.shared_timeout import SharedTimeout
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointAnswer, EndpointGone, Permanent, Transient, Unauthorized
from bridge.domain.secret_text import secret_text
from bridge.domain.settings import MASK
from bridge.http.addresses import RefusedAddressError, is_public
from bridge.http.exact_url import exact_url
from bridge.http.headers import requested_wait
from bridge.http.lenient import LenientConnector, head_limits
from bridge.http.networks import is_within
from bridge.http.parsing import error_code
from bridge.http.status import (
    CREDENTIALS_REFUSED_STATUSES,
    EVENT_IS_WRONG_STATUSES,
    GONE_STATUS,
    is_redirect,
    is_success,
)
from bridge.http.tls import NO_TLS, ReloadingContext, Tls, tls_reason

MAX_ANSWER_BYTES = 64 * 1024
"""Bytes of an answer that are read; no sink needs more of an answer."""
CONNECT_TIMEOUT_SECONDS = 10.0
"""Seconds for resolving, connecting and TLS."""
_DRAIN_TIMEOUT_SECONDS = 1.0
_HEAD_TIMEOUT_SECONDS = 3.0
"""Seconds that the rest of a head may take after its status; then the status counts alone."""
_KEEPALIVE_SECONDS = 4.0
"""Seconds; many servers close an idle connection after five."""

E = TypeVar("E", bound=BridgeError)
AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked URL, which is asked byte for byte as it was written.

    Its path and query may be secrets, so only `name` is ever shown.
    """

    url: URL
    name: str
    """Scheme, host, and the port if it is not the usual one: fit for a log."""

    @classmethod
    def of(cls, text: str) -> Endpoint:
        """Read a URL; raises `ValueError`, whose text quotes nothing of it."""
        try:
            url = exact_url(text.strip())
            port = url.port
        except ValueError:
            raise ValueError("is not a URL; write https://HOST/PATH") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("is not a URL that can be posted to; write https://HOST/PATH")
        host = f"[{url.host}]" if ":" in url.host else url.host
        name = f"{url.scheme}://{host}" + ("" if url.is_default_port() else f":{port}")
        return cls(url, name)


def _checked(text: str) -> str:
    text = secret_text(text)
    Endpoint.of(text)
    return text


def _masked(text: str) -> str:
    endpoint = Endpoint.of(text)
    bare = endpoint.url.raw_path_qs in ("", "/") and endpoint.url.user is None
    return endpoint.name if bare else f"{endpoint.name}/{MASK}"


SecretUrl = Annotated[str, AfterValidator(_checked), PlainSerializer(_masked, return_type=str)]
"""A setting that holds a URL; in a dump its path and query are masked, because many services keep a token there."""


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class EndpointResponse:
    """The answer of an endpoint; `body` is at most `MAX_ANSWER_BYTES` long and never fit for a log."""

    endpoint: str
    status: int
    body: bytes
    retry_after: float | None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By any spelling of their names."""

    def error(self, permanent: Collection[int] = EVENT_IS_WRONG_STATUSES) -> BridgeError | None:
        """Return None if the endpoint accepted the event (2xx), else the error that says what to do.

        A status of `permanent` says that the event is wrong: `Permanent`. 410 is `EndpointGone`. All others are
        `Transient` with the endpoint's Retry-After, redirects and refusals among them: 401, 403, 404 and their like
        come for a moment whenever a receiver is updated or a secret is rotated. The text has the endpoint's own code of
        the error, if its body is JSON with one.
        """
        return None if is_success(self.status) else self.attached_to(self._refusal(permanent))

    def attached_to(self, error: E) -> E:
        """Return an error of the sink's own with this answer, so that a dead letter keeps it, redacted."""
        error.answer = EndpointAnswer(self.status, self.body)
        return error

    def _refusal(self, permanent: Collection[int]) -> BridgeError:
        status, code = self.status, error_code(self.body)
        text = f"{self.endpoint} answered {status}" + (f" (code {code})" if code else "")
        if status in permanent:
            return Permanent(text)
        if status == GONE_STATUS:
            return EndpointGone(f"{text}: the endpoint is gone, nothing more is sent to it until it is enabled again")
        if status in CREDENTIALS_REFUSED_STATUSES:
            text = f"{text}: the endpoint refuses the credentials; check the secrets and headers of the sink"
            return Unauthorized(text, retry_after=self.retry_after)
        if is_redirect(status):
            text = f"{text}: redirects are not followed; configure the URL that it leads to"
        return Transient(text, retry_after=self.retry_after)


class GuardedClient:
    """Posts bytes to URLs on behalf of one sink.

    Without `allow_private`, it connects only to public addresses, and to those in `allow_networks`. The checked address
    is the one that it connects to: the check stands where the socket is made, after every resolution. It never uses
    proxies of the environment, cookies or redirects. Construction has no side effects; `open` comes before `post`.

    A private address is `Permanent`: the configuration refuses it, not the network, and the events can be redriven
    once the configuration is fixed. Every other reason for which no answer comes is `Transient`.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        allow_networks: Sequence[str] = (),
        clock: Clock,
        timeout: float = 30.0,
        connections: int = 16,
        tls: Tls = NO_TLS,
        resolver: AbstractResolver | None = None,
        public: Callable[[str], bool] = is_public,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._deadline = SharedTimeout(timeout)
        self._connections = connections
        self._certificates = ReloadingContext(tls, clock)
        self._resolver = resolver
        self._is_allowed = _permission(allow_private=allow_private, public=public, own=is_within(allow_networks))
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; raises `Permanent` if certificate files cannot be used."""
        if self._session is not None:
            return
        await self._certificates.current("")
        self._session = aiohttp.ClientSession(
            connector=LenientConnector(
                head_timeout=min(_HEAD_TIMEOUT_SECONDS, self._timeout / 2),
                limit=self._connections,
                socket_factory=self._socket,
                keepalive_timeout=_KEEPALIVE_SECONDS,
                resolver=self._resolver,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": "bridge", "Accept-Encoding": "identity"},
            **head_limits(),
        )

    async def close(self) -> None:
        """Close all connections; may be called again, and `open` may follow."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> EndpointResponse:
        """Post and return the answer; see `request`."""
        return await self.request("POST", endpoint, body, headers)

    async def request(
        self, method: str, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]
    ) -> EndpointResponse:
        """Send a request and return the answer, whatever its status; raises `Transient` if no answer came.

        Once a status has arrived, it counts, whatever follows. If the headers or the body are irregular, torn, endless
        or slow, the answer has the part that was read in time, and its connection is not used again.
        """
        if self._session is None:
            raise Transient(f"{endpoint.name}: the connections are closed")
        try:
            return await self._deadline.wait_for(self._exchange(self._session, method, endpoint, body, headers))
        except _RAISED as error:
            raise _translate(endpoint.name, error) from None

    async def _exchange(
        self, session: aiohttp.ClientSession, method: str, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]
    ) -> EndpointResponse:
        # As a ready payload it saves the library a search through all types of data that can be posted.
        data = aiohttp.BytesPayload(body) if body or method == "POST" else None
        secure = await self._certificates.current(endpoint.name) if endpoint.url.scheme == "https" else True
        async with session.request(
            method, endpoint.url, data=data, headers=headers, allow_redirects=False, ssl=secure
        ) as response:
            content = response.content
            text = content.read_nowait() if content.is_eof() else await _read(content)
            return EndpointResponse(
                endpoint.name,
                response.status,
                text[:MAX_ANSWER_BYTES],
                None
                if is_success(response.status)
                else requested_wait(response.headers, response.status, self._clock.now()),
                response.headers,
            )

    async def check_connectivity(self, endpoint: Endpoint) -> None:
        """Connect, with TLS if the URL asks for it, and send nothing; raises as `post` does."""
        context = await self._certificates.current(endpoint.name) if endpoint.url.scheme == "https" else None
        host, port = endpoint.url.raw_host, endpoint.url.port
        try:
            async with asyncio.timeout(min(self._timeout, CONNECT_TIMEOUT_SECONDS)):
                loop = asyncio.get_running_loop()
                resolved = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                allowed = [address for *_, address in resolved if self._is_allowed(str(address[0]))]
                if not allowed:
                    raise RefusedAddressError  # noqa: TRY301 - as the socket factory raises it
                await _connect_any(allowed, context, host)
        except _RAISED as error:
            raise _translate(endpoint.name, error) from None

    def _socket(self, resolved: AddrInfo) -> socket.socket:
        """Make the socket for a resolved address: the last step before the connection is made."""
        family, kind, protocol, _, address = resolved
        if not self._is_allowed(str(address[0])):
            raise RefusedAddressError
        return socket.socket(family=family, type=kind, proto=protocol)


def _permission(
    *, allow_private: bool, public: Callable[[str], bool], own: Callable[[str], bool]
) -> Callable[[str], bool]:
    """Return the check whether an address may be connected to."""

    def is_allowed(address: str) -> bool:
        return allow_private or public(address) or own(address)

    return is_allowed


async def _connect_any(addresses: list[Any], context: ssl.SSLContext | None, host: str | None) -> None:
    for position, address in enumerate(addresses, 1):
        try:
            _, writer = await asyncio.open_connection(
                address[0], address[1], ssl=context, server_hostname=host if context else None
            )
        except OSError:
            if position == len(addresses):
                raise
        else:
            writer.transport.abort()
            return


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read up to the limit of bytes and time; a body that tears, drips or never ends is cut off."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT_SECONDS):
            while size <= MAX_ANSWER_BYTES and (part := await content.readany()):
                parts.append(part)
                size += len(part)
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    return b"".join(parts)


_RAISED = (aiohttp.ClientError, OSError)
"""What the library raises if no answer comes, `TimeoutError` included."""


def _translate(name: str, error: BaseException) -> BridgeError:
    """Return the error of ours for one of `_RAISED`; the texts name the host and nothing else."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            text = f"{name} cannot be reached: {tls_reason(error.certificate_error)}"
        case RefusedAddressError() | aiohttp.ClientConnectorError(os_error=RefusedAddressError()):
            return Permanent(
                f"{name} leads to a private, loopback, link-local or reserved address, so nothing was sent; "
                "set allow_private: true, or allow_networks to its network, if that is intended"
            )
        case aiohttp.ClientConnectorError():
            text = f"{name} cannot be reached: {tls_reason(error.os_error)}"
        case TimeoutError():
            text = f"{name} did not answer in time"
        case aiohttp.InvalidURL():
            return Permanent(f"{name}: the URL cannot be used; give the host by name or in dotted form")
        case aiohttp.ClientResponseError():
            text = f"{name} answered something that is not HTTP"
        case _:
            text = f"{name} broke the connection off: {tls_reason(error)}"
    return Transient(text)
