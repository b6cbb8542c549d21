"""One guarded way out to URLs: public addresses only, no redirects, small answers, and errors without secrets."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import AfterValidator, PlainSerializer
from yarl import URL

from bridge.concurrency.shared_timeout import SharedTimeout
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointGone, Permanent, Transient
from bridge.domain.settings import MASK
from bridge.http.addresses import RefusedAddressError, is_public

ANSWER_LIMIT = 64 * 1024
"""Bytes of an answer that are read; nothing that a sink asks of an answer needs more."""
CONNECT_TIMEOUT = 10.0
"""Seconds for resolving, connecting and TLS."""
_DRAIN_TIMEOUT = 1.0
_KEEPALIVE = 4.0  # below the five seconds after which many servers close an idle connection
_AGAIN = frozenset({408, 425, 429})

AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]


# --- where to, and what came back -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL that was read once; its path and query are taken for secrets, so only `name` is ever shown."""

    url: URL
    name: str
    """Scheme, host, and port where it is not the usual one: fit for a log."""

    @classmethod
    def of(cls, text: str) -> Endpoint:
        """Read a URL; raises `ValueError`, whose text quotes nothing of it."""
        try:
            url = URL(text.strip())
            port = url.port
        except ValueError:
            raise ValueError("is not a URL; write https://HOST/PATH") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("is not a URL that can be posted to; write https://HOST/PATH")
        host = f"[{url.host}]" if ":" in url.host else url.host
        name = f"{url.scheme}://{host}" + ("" if url.is_default_port() else f":{port}")
        return cls(url.with_fragment(None), name)


def _checked(text: str) -> str:
    Endpoint.of(text)
    return text


def _masked(text: str) -> str:
    endpoint = Endpoint.of(text)
    bare = endpoint.url.raw_path_qs in ("", "/") and endpoint.url.user is None
    return endpoint.name if bare else f"{endpoint.name}/{MASK}"


SecretUrl = Annotated[str, AfterValidator(_checked), PlainSerializer(_masked, return_type=str)]
"""A setting that holds a URL; dumped, its path and query are masked, for many services keep a token there."""


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class EndpointResponse:
    """What the far side said; `body` is at most `ANSWER_LIMIT` bytes long and never fit for a log."""

    endpoint: str
    status: int
    body: bytes
    retry_after: float | None

    def error(self) -> BridgeError | None:
        """Return None where the event was taken (2xx), else the error that says what to do.

        408, 425, 429 and 5xx are `Transient` with the far side's Retry-After; 410 is `EndpointGone`; all others,
        redirects among them, are `Permanent`.
        """
        status = self.status
        if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own classes
            return None
        text = f"{self.endpoint} answered {status}"
        if status in _AGAIN or status >= 500:  # noqa: PLR2004 - likewise
            return Transient(text, retry_after=self.retry_after)
        if status == 410:  # noqa: PLR2004 - likewise
            return EndpointGone(f"{text}: the endpoint is gone, nothing more is sent to it until it is enabled again")
        if 300 <= status < 400:  # noqa: PLR2004 - likewise
            return Permanent(f"{text}: redirects are not followed; configure the URL that it leads to")
        return Permanent(text)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` asks for, finite, as a number or as a date; None for anything else."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000" says UTC without saying so
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# --- the way itself ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust beyond the system's authorities, and the client certificate to show."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    """PEM: the certificate with its chain."""
    key_file: Path | None = None
    """PEM; None where the key is in `cert_file`."""

    def context(self) -> ssl.SSLContext:
        """Read the files; raises `Permanent` that names the one that cannot be used."""
        context = ssl.create_default_context()
        try:
            if self.ca_file:
                context.load_verify_locations(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise Permanent(f"ca_file {self.ca_file} holds no usable certificates: {_reason(error)}") from None
        try:
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            raise Permanent(f"cert_file {self.cert_file} and its key cannot be used: {_reason(error)}") from None
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")


def _reason(error: BaseException) -> str:
    """Return the library's own word for it, which names no URL: an error number's text, or TLS's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is ValueError else type(error).__name__


class GuardedClient:
    """Posts bytes to URLs on behalf of one sink.

    Without `allow_private`, only public addresses are spoken to, and the address that was checked is the one that is
    connected to: the check stands where the socket is made, after every resolving. Proxies of the environment,
    cookies and redirects are never used. Construction has no side effects; `open` comes before `post`.

    A private address is `Permanent`: what refuses it is the configuration, not the network, and the events can be
    redriven once that was mended. Everything else that keeps an answer away is `Transient`.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        clock: Clock,
        timeout: float = 30.0,
        connections: int = 16,
        tls: Tls | None = None,
        resolver: AbstractResolver | None = None,
        public: Callable[[str], bool] = is_public,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._patience = SharedTimeout(timeout)
        self._connections = connections
        self._tls = tls or Tls()
        self._resolver = resolver
        self._admits = (lambda _: True) if allow_private else public
        self._context: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; raises `Permanent` where certificate files cannot be used."""
        if self._session is not None:
            return
        self._context = await asyncio.to_thread(self._tls.context)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                ssl=self._context,
                socket_factory=self._socket,
                keepalive_timeout=_KEEPALIVE,
                resolver=self._resolver,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": "bridge", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close all connections; may be called again, and `open` may follow."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> EndpointResponse:
        """Post and return what was answered, whatever its status; raises `Transient` where nothing was.

        Once a status has arrived, it counts: an answer whose body is torn, endless or slow comes back with what of the
        body was read in time, and its connection is not used again.
        """
        if self._session is None:
            raise Transient(f"{endpoint.name}: the connections are closed")
        try:
            return await self._patience.wait_for(self._exchange(self._session, endpoint, body, headers))
        except _RAISED as error:
            raise _translated(endpoint.name, error) from None

    async def _exchange(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]
    ) -> EndpointResponse:
        # Ready as a payload, it need not be looked for among all types of data that can be posted.
        data = aiohttp.BytesPayload(body)
        async with session.post(endpoint.url, data=data, headers=headers, allow_redirects=False) as response:
            content = response.content
            text = content.read_nowait() if content.is_eof() else await _read(content)
            asked = response.headers.get("Retry-After")
            return EndpointResponse(
                endpoint.name,
                response.status,
                text[:ANSWER_LIMIT],
                parse_retry_after(asked, self._clock.now()) if asked else None,
            )

    async def check_connectivity(self, endpoint: Endpoint) -> None:
        """Connect and shake hands, sending nothing; raises as `post` does."""
        context = self._context if endpoint.url.scheme == "https" else None
        host, port = endpoint.url.raw_host, endpoint.url.port
        try:
            async with asyncio.timeout(min(self._timeout, CONNECT_TIMEOUT)):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                admitted = [address for *_, address in found if self._admits(str(address[0]))]
                if not admitted:
                    raise RefusedAddressError  # noqa: TRY301 - as the socket factory raises it
                await _connect_any(admitted, context, host)
        except _RAISED as error:
            raise _translated(endpoint.name, error) from None

    def _socket(self, found: AddrInfo) -> socket.socket:
        """Make the socket for an address that was resolved: the last place before the connection is made."""
        family, kind, protocol, _, address = found
        if not self._admits(str(address[0])):
            raise RefusedAddressError
        return socket.socket(family=family, type=kind, proto=protocol)


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
    """Read up to the limit; what tears, drips or never ends is left where it is."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            while size <= ANSWER_LIMIT and (part := await content.readany()):
                parts.append(part)
                size += len(part)
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    return b"".join(parts)


_RAISED = (aiohttp.ClientError, OSError)
"""What the library raises where no answer comes, a `TimeoutError` among it."""


def _translated(name: str, error: BaseException) -> BridgeError:
    """Return what the caller does next about one of `_RAISED`; the texts name the host and nothing else."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            text = f"{name} cannot be reached: {_reason(error.certificate_error)}"
        case RefusedAddressError() | aiohttp.ClientConnectorError(os_error=RefusedAddressError()):
            return Permanent(
                f"{name} leads to a private, loopback, link-local or reserved address, so nothing was sent; "
                "set allow_private: true where that is meant"
            )
        case aiohttp.ClientConnectorError():
            text = f"{name} cannot be reached: {_reason(error.os_error)}"
        case TimeoutError():
            text = f"{name} did not answer in time"
        case aiohttp.InvalidURL():
            return Permanent(f"{name}: the URL cannot be used; give the host by name or in dotted form")
        case _:
            text = f"{name} broke the connection off: {_reason(error)}"
    return Transient(text)
