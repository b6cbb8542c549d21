"""What the HTTP library's exceptions mean for a request: in words fit for a log, and whether a second try may help."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import aiohttp

from bridge.domain.errors import Permanent
from bridge.http.errors import ProviderError
from bridge.http.response import RequestFailure
from bridge.http.tls import tls_reason


@dataclass(frozen=True, slots=True)
class _TransportError:
    """What an exception of the library means; the first row whose types match counts."""

    types: tuple[type[Exception], ...]
    text: str
    again: bool = False
    timed_out: bool = False
    advice: str = ""


_TRANSPORT_ERRORS = (
    _TransportError((aiohttp.ConnectionTimeoutError,), "no connection within the time allowed", timed_out=True),
    _TransportError((TimeoutError,), "no complete answer within the time allowed", timed_out=True),
    _TransportError(
        (aiohttp.ClientConnectorCertificateError,), "no encrypted connection", advice="; check url and ca_file"
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


def _tls_text(error: Exception) -> str:
    """Return the reason that TLS gives for an error; empty if it has nothing to do with TLS."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    is_tls = isinstance(cause, ssl.SSLError) or (isinstance(cause, OSError) and "[SSL" in str(cause))
    return f": {tls_reason(cause)}" if is_tls else ""


def translated(what: str, error: Exception) -> RequestFailure:
    """Return what an exception of the library means; raises it again if it is none of the library's.

    The library's own texts may quote addresses and are not repeated.
    """
    for row in _TRANSPORT_ERRORS:
        if isinstance(error, row.types):
            text = f"{what}: {row.text}{_tls_text(error)}{row.advice}"
            return RequestFailure(ProviderError(text, timed_out=row.timed_out), again=row.again)
    if isinstance(error, ValueError):
        return RequestFailure(Permanent(f"{what}: the request cannot be written; is there a line break in the token?"))
    raise error
