"""TLS connections to Redis that read their certificate files again when these were renewed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

_Stamp = tuple[int, int, int]
_FILES = ("ca_certs", "certfile", "keyfile")


class Renewing:
    """Mixed into a TLS connection of the library's, which reads its files once and keeps them for every reconnection.

    Files that cannot be used leave what was read before, for example while a certificate is new and its key is not.
    """

    ssl_context: Any
    host: str
    _read: tuple[_Stamp | None, ...] | None = None

    def _connection_arguments(self) -> Any:
        self._renew()
        return super()._connection_arguments()  # type: ignore[misc]  # the library's

    def _renew(self) -> None:
        files = self.ssl_context
        stamps = tuple(_stamp(getattr(files, name)) for name in _FILES)
        if stamps == self._read:
            return
        before, files.context = files.context, None
        try:
            files.get()
        except (OSError, ssl.SSLError) as error:
            if before is None:
                raise
            files.context = before
            log.warning(
                "tls.files_unusable", endpoint=self.host, reason=type(error).__name__,
                consequence="new connections use what the files held before, until the files change again",
            )  # fmt: skip
        self._read = stamps


def _stamp(path: str | None) -> _Stamp | None:
    try:
        status = Path(path or "").stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
