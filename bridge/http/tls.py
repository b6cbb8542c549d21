"""TLS settings: the authorities to trust, and the client certificate to show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from bridge.domain.errors import Permanent


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


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")


def tls_reason(error: BaseException) -> str:
    """Return the library's own text of an error, which names no URL: TLS's reason, or the text of an error number."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is ValueError else type(error).__name__
