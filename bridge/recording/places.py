"""Where a request goes, without the host: tapes know requests by it."""

from __future__ import annotations

from yarl import URL

from bridge.http.client import HttpRequest


def place(request: HttpRequest) -> str:
    """Return path and query of a request, below the configured path."""
    return below(request.url, request.origin)


def below(url: URL, origin: URL) -> str:
    """Return path and query of an address, without the path that stands before all others at `origin`."""
    base = origin.raw_path.rstrip("/")
    path = url.raw_path_qs
    return path.removeprefix(base) if base and path.startswith((f"{base}/", f"{base}?")) else path
