"""TLS settings: the authorities to trust, and the client certificate to show."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tls:
    """How an endpoint proves its identity, and how the bridge proves its own; certificates are always verified."""

    ca_file: str | Path | None = None
    """PEM: certificates of authorities to trust."""
    cert_file: str | Path | None = None
    """PEM: the client certificate with its chain."""
    key_file: str | Path | None = None
    """PEM: the key of the client certificate; None if `cert_file` holds it."""
    only_ca_file: bool = False
    """Trust the authorities of `ca_file` instead of the system's, not in addition to them."""
    cert_setting: str = "cert_file"
    """The configuration key of the client certificate, for error texts."""

    def context(self) -> ssl.SSLContext:
        """Read the files; raises `Permanent` that names the setting and the file that cannot be used."""
        try:
            context = self._trust()
        except OSError as error:  # ssl.SSLError is one
            problem = f"ca_file {self.ca_file} holds no usable certificates: {tls_reason(error)}"
        else:
            try:
                if self.cert_file:
                    context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except (OSError, ValueError) as error:
                problem = f"{self.cert_setting} {self.cert_file} and its key cannot be used: {tls_reason(error)}"
            else:
                return context
        raise Permanent(problem)  # here, so that the library's error does not come along as its context

    def _trust(self) -> ssl.SSLContext:
        if self.only_ca_file:
            return ssl.create_default_context(cafile=self.ca_file)
        context = ssl.create_default_context()
        if self.ca_file:
            context.load_verify_locations(cafile=self.ca_file)
        return context


NO_TLS = Tls()
_CHECK_SECONDS = 1.0
"""Seconds between two looks at whether a file has changed."""

_Stamp = tuple[int, int, int]


class ReloadingContext:
    """The TLS context of an endpoint, read again when a file of it changed: a certificate is renewed without a restart.

    Files that cannot be used leave the context as it was, for example while a certificate is new and its key is not.
    New connections use the new context; a connection that is open goes on.
    """

    def __init__(self, tls: Tls, clock: Clock) -> None:
        """Prepare; nothing is read before `current` is called."""
        self._tls = tls
        self._clock = clock
        self._first = asyncio.Lock()
        self._files = _files(tls)
        self._stamps: list[_Stamp | None] = []
        self._context: ssl.SSLContext | None = None
        self._check_at = 0.0

    async def current(self, endpoint: str) -> ssl.SSLContext:
        """Return the context for a new connection; raises `Permanent` if its files could never be used.

        `endpoint` is the name for the log.
        """
        if self._context is None:
            return await self._load()
        now = self._clock.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_SECONDS
            await self._refresh(endpoint)
        return self._context

    async def _load(self) -> ssl.SSLContext:
        async with self._first:
            context = self._context
            if context is None:
                self._check_at, self._stamps = self._clock.monotonic() + _CHECK_SECONDS, self._read_stamps()
                context = self._context = await asyncio.to_thread(self._tls.context)
            return context

    async def _refresh(self, endpoint: str) -> None:
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        # Noted before the files are read: a file that changes while it is read has another stamp at the next look.
        self._stamps = stamps
        try:
            self._context = await asyncio.to_thread(self._tls.context)
        except Permanent as error:
            log.warning(
                "tls.files_unusable", endpoint=endpoint, reason=str(error),
                consequence="new connections use what the files held before, until the files change again",
            )  # fmt: skip
        else:
            log.info("tls.files_reloaded", endpoint=endpoint, consequence="new connections use what they hold now")

    def _read_stamps(self) -> list[_Stamp | None]:
        return [_stamp(path) for path in self._files]


def _files(tls: Tls) -> list[str | Path]:
    named = [path for path in (tls.ca_file, tls.cert_file, tls.key_file) if path]
    system = None if tls.only_ca_file else ssl.get_default_verify_paths().cafile
    return [*named, system] if system else named


def _stamp(path: str | Path) -> _Stamp | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")


_UNTRUSTED = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and no known authority",
    19: "its authority is unknown",
    20: "its authority is unknown",
    21: "its authority is unknown",
    23: "it was revoked",
    62: "it is for another host name",
    64: "it is for another address",
}
"""What OpenSSL's codes of a failed verification say."""
_CLIENT_CERTIFICATE_ALERT = re.compile(r"ALERT_(?:(?:NO|BAD|UNSUPPORTED)_)?(?:CERTIFICATE|UNKNOWN_CA)")


def tls_reason(error: BaseException) -> str:
    """Return why no connection came about or it broke, in words that name no URL: why a certificate is not trusted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _UNTRUSTED.get(error.verify_code)
        message = f"{reason} ({error.verify_message})" if reason else error.verify_message
        return f"its certificate is not trusted: {message}"
    if isinstance(error, OSError) and _CLIENT_CERTIFICATE_ALERT.search(str(error)):
        return f"it refuses the client certificate, or asks for one ({_alert(error)})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is ValueError else type(error).__name__


def _alert(error: OSError) -> str:
    match = re.search(r"[A-Z0-9]+_ALERT_[A-Z_]+", str(error))
    return match[0] if match else "alert"
