"""The client of a definition's API: its credentials, its errors, and its pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.domain.clock import Clock
from bridge.domain.errors import Unauthorized
from bridge.domain.settings import Secret
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import ProviderError
from bridge.http.limiter import account_key, shared_limiter
from bridge.http.response import Response
from bridge.http.status import NO_CONTENT_STATUS
from bridge.http.tls import NO_TLS, Tls
from bridge.providers.models import Definition
from bridge.providers.requests import ListSpec, PagesSpec, Scalar, SettingRef, expander, filled
from bridge.sources.rest.auth import credentials
from bridge.sources.rest.errors import ErrorRules, NothingThere, TooMuch

_MAX_PAGES = 20_000

_LIMITS = HttpLimits(retries=1)

Params = Mapping[str, str | int | None]
KnownCount = Callable[[Response], int | None]


@dataclass(frozen=True, slots=True)
class ItemPage:
    """One answer of a list, read."""

    items: list[Any]
    answer: Response
    value: Any
    """The body; None if there was none, or if it was not read."""
    unchanged: int | None = None
    """How many items the answer has, if all of them are known to be as they were; then they may be left out."""


class ApiClient:
    """Asks a definition's API for one source, within its budget."""

    def __init__(self, definition: Definition, settings: Any, clock: Clock, memory: int = 0) -> None:
        if settings.url is None:
            raise ValueError("url: is missing; add `url:` and its value")
        self._definition = definition
        self.values = {name: getattr(settings, name) for name in definition.settings}
        self.account = account_key(settings.url, self._identity(plain_secrets=True))
        """See `bridge.protocols.source.HasAccount`."""
        identifying = self._identity(plain_secrets=False)
        self.fingerprint = account_key(settings.url, identifying) if identifying else self.account
        """See `bridge.protocols.source.RecognizesAccount`."""
        limiter = shared_limiter(self.account, settings.rate, clock)
        ca_file = getattr(settings, "ca_file", None)
        tls = NO_TLS if ca_file is None else Tls(ca_file, only_ca_file=True)
        self._credentials = credentials(definition.auth, settings, clock, limiter, tls)
        self._rules = ErrorRules(definition.errors)
        self.http = HttpClient(
            settings.url, limiter=limiter, clock=clock, headers=self._credentials.headers, tls=tls,
            limits=replace(_LIMITS, connections=max(2, definition.budget.concurrency), memory=memory),
            refusal=self._rules.refusal,
        )  # fmt: skip
        self.concurrency = definition.budget.concurrency

    def _identity(self, *, plain_secrets: bool) -> str:
        """Return the settings that tell the account; with none that is not secret, the credentials."""
        named = [name for name, spec in self._definition.settings.items() if spec.account]
        if plain_secrets:
            named += [name for name, value in self.values.items() if isinstance(value, Secret)]
        values = (self.values[name] for name in named)
        return "\n".join(value.reveal() if isinstance(value, Secret) else str(value) for value in values)

    async def close(self) -> None:
        """Close all connections."""
        await self.http.close()
        await self._credentials.close()

    def params_of(self, params: Mapping[str, Scalar | SettingRef]) -> dict[str, str | int | None]:
        """Return parameters with the values of settings for their names."""
        return {
            name: _written(self.values[value.setting] if isinstance(value, SettingRef) else value)
            for name, value in params.items()
        }

    async def ask(self, target: str, params: Params) -> tuple[Response, Any]:
        """Return an answer and its body; raises as `HttpClient.get` does, and by the definition's rules."""
        answer = await self.fetch(target, params)
        return answer, self.value_of(answer)

    async def fetch(self, target: str, params: Params) -> Response:
        """Return an answer that is not yet read; raises as `HttpClient.get` does."""
        signed = {**params, **self._credentials.params()}
        try:
            return await self.http.get(target, signed)
        except Unauthorized:
            if not self._credentials.drop():
                raise
            return await self.http.get(target, signed)

    def value_of(self, answer: Response) -> Any:
        """Return the body of an answer, None if there is none; raises by the definition's rules."""
        if answer.status == NO_CONTENT_STATUS:
            return None
        value = answer.json()
        if self._rules.reads_answers and (error := self._rules.meaning(answer, value)) is not None:
            raise error
        return value


class ItemList:
    """Asks for a list of items, with parameters of its own in addition to those of the definition."""

    def __init__(self, client: ApiClient, listing: ListSpec, params: Params | None = None) -> None:
        pages = listing.pages
        self.client = client
        self.path = filled(listing.path, client.values)
        self._next = _NextPage(pages) if pages is not None else None
        self._params = {**client.params_of(listing.params), **(params or {})}
        self._items, self._items_at = listing.items.reader(), listing.items.text
        self._expanded = None if listing.expand is None else expander(listing.expand)
        self._cap = None if pages is None else pages.cap

    async def pages(self, params: Params, known: KnownCount | None = None) -> AsyncGenerator[ItemPage, None]:
        """Yield the pages of a question to their end; raises `TooMuch` if the provider shows only a part.

        `known` says of an answer how many items it has if all of them are known as they are.
        """
        target, query = self.path, {**self._params, **(self._next.first() if self._next else {}), **params}
        count = 0
        visited: set[str] = set()
        for number in range(_MAX_PAGES):
            page = await self._page(target, query, known)
            if page is None:
                return
            count += len(page.items)
            yield page
            if self._cap is not None and count >= self._cap:
                raise TooMuch(f"{page.answer.what}: {count} items, as many as the provider shows of one question")
            following = self._next.after(page, query, number, count) if self._next else None
            if following is None:
                return
            target, query = following[0] or target, following[1]
            place = f"{target} {sorted(query.items(), key=str)}"
            if place in visited:
                raise page.answer.refused("the next page was read before")
            visited.add(place)
        raise ProviderError(f"GET {self.path}: the list goes on after {_MAX_PAGES} pages")

    async def _page(self, target: str, query: Params, known: KnownCount | None) -> ItemPage | None:
        try:
            answer = await self.client.fetch(target, query)
            count = None if known is None else known(answer)
            if count is not None and self._next is None:
                return ItemPage([], answer, None, count)
            value = self.client.value_of(answer)
        except NothingThere:
            return None
        items = items_of(answer, value, self._items, self._items_at)
        return ItemPage(items if self._expanded is None else self._expanded(items), answer, value, count)


def items_of(answer: Response, value: Any, read: Callable[[Any], Any], at: str) -> list[Any]:
    """Return the items of a body; raises `ProviderError` for anything else than a list, which is not "empty"."""
    if answer.status == NO_CONTENT_STATUS:
        return []
    items = read(value)
    if not isinstance(items, list):
        where = "something else than a list" if at == "$" else f"no list at {at}"
        raise answer.refused(f"the provider answered {where}")
    return items


def _written(value: Any) -> str | int | None:
    if isinstance(value, Secret):
        return value.reveal()
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, int) else str(value)


class _NextPage:
    """Finds the question for the next page."""

    def __init__(self, spec: PagesSpec) -> None:
        self._spec = spec
        self._link = spec.link.reader() if spec.link else None
        self._token = spec.cursor.token.reader() if spec.cursor else None
        self._total = spec.total.reader() if spec.total else None
        self._end = spec.end or ("short" if spec.counted else "no_next")

    def first(self) -> dict[str, str | int | None]:
        """Return the parameters of the first page."""
        counted = self._spec.counted
        first: dict[str, str | int | None] = {}
        if counted is not None and counted.size_param is not None:
            first[counted.size_param] = counted.size
        if self._spec.number is not None:
            first[self._spec.number.param] = self._spec.number.first
        return first

    def after(self, page: ItemPage, query: Params, number: int, count: int) -> tuple[str | None, dict[str, Any]] | None:
        """Return target and parameters of the page after `page`, the one of this number from 0; None at the end.

        The target is None if it stays. `count` is how many items were read so far.
        """
        if self._is_end(page, count):
            return None
        if self._link is not None or self._spec.header is not None:
            link = self._target(page)
            return None if link is None else (link, {})
        if self._spec.cursor is not None and self._token is not None:
            token = parsing.text(self._token(page.value))
            return None if token is None else (None, {**query, self._spec.cursor.param: token})
        if self._spec.offset is not None:
            return None, {**query, self._spec.offset.param: count}
        assert self._spec.number is not None  # noqa: S101 - the model allows exactly one kind
        return None, {**query, self._spec.number.param: self._spec.number.first + number + 1}

    def _is_end(self, page: ItemPage, count: int) -> bool:
        counted = self._spec.counted
        if page.value is None or (not page.items and self._end in ("empty", "short")):
            return True
        if self._end == "short" and counted is not None and len(page.items) < counted.size:
            return True
        total = None if self._total is None else parsing.integer(self._total(page.value))
        return total is not None and count >= total

    def _target(self, page: ItemPage) -> str | None:
        if self._link is None:
            return page.answer.link(self._spec.header or "next")
        return parsing.text(self._link(page.value))
