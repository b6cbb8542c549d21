"""One complete answer of a provider, and the failure of one try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from bridge.domain.errors import BridgeError
from bridge.http import parsing
from bridge.http.errors import ProviderError
from bridge.http.exact_url import exact_join
from bridge.http.headers import links

MAX_CACHED_URLS = 2048


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of a provider, read to its end."""

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

    This does not say whether the earlier answer was ever committed.
    """
    on_forget: Callable[[URL, bytes], None] | None = field(default=None, repr=False, compare=False)
    """Called by `forget` with the URL and the body; None where no client keeps answers."""

    def json(self) -> Any:
        """Return the value of the body; raises `ProviderError` that says whether it was HTML, nothing or torn JSON."""
        try:
            return parsing.json(self.body)
        except ValueError:
            pass
        start = self.body.lstrip()[:1]
        shape = "HTML" if start == b"<" else "torn JSON" if start else "nothing"
        raise self.refused(f"the provider answered {shape} instead of JSON")

    def json_list(self) -> list[Any]:
        """Return the array of the body; raises `ProviderError` for anything else, which does not count as empty."""
        value = self.json()
        if not isinstance(value, list):
            raise self.refused("the provider answered something else than a list")
        return value

    def refused(self, why: str) -> ProviderError:
        """Return the error for an answer that cannot be used; the next request asks for the whole answer again."""
        self.forget()
        return ProviderError(f"{self.what}: {why}", status=self.status)

    def forget(self) -> None:
        """Make the client ask for the whole answer the next time."""
        if self.on_forget is not None:
            self.on_forget(self.url, self.body)

    def link(self, relation: str) -> str | None:
        """Return the absolute target of a relation of the `Link` header, fit for `HttpClient.get`; None without one."""
        return self.links(relation)[0]

    def links(self, *relations: str) -> list[str | None]:
        """Return the targets of several relations, each as `link` does."""
        targets = links(self.headers.getall(hdrs.LINK, ()))
        return [self._target(relation, targets.get(relation)) for relation in relations]

    def _target(self, relation: str, target: str | None) -> str | None:
        if target is None:
            return None
        try:
            return _joined(self.url, target)
        except ValueError:
            raise self.refused(f"the link {relation!r} cannot be read") from None


@lru_cache(maxsize=MAX_CACHED_URLS)
def _joined(base: URL, target: str) -> str:
    """Return a link's absolute target; raises `ValueError`. Cached, as the same pages are read again and again."""
    return str(exact_join(base, target))


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """The failure of one try, and whether a second try at once may help."""

    error: BridgeError
    again: bool = False
