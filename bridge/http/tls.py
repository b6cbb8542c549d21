"""TLS settings: whom to trust, and the client certificate to show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from bridge.domain.errors import Permanent

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


NO_TLS = Tls()
