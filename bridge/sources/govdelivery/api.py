"""GovDelivery's requests: one message, a page of a list, the account's channels; and how its paths are read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from bridge.domain.errors import BridgeError, LeaseLost, Transient, Unauthorized
from bridge.http.client import HttpClient, Params
from bridge.http.errors import NotFound, ProviderError, RequestRejected, Throttled
from bridge.http.headers import http_date
from bridge.http.response import Response

_MESSAGE = re.compile(r"(/messages/([a-z]+)/([^/?#]+))(?:/recipients/([^/?#]+))?/?")
_FAILURES_IN_A_ROW = 3


class ProviderHealth:
    """Tells one bad resource from a provider that fails as a whole."""

    def __init__(self) -> None:
        self._answers = 0
        self._in_a_row = 0
        self._last: BridgeError | None = None
        self._root: bool | None = None
        self.asking = asyncio.Lock()
        """Held while the root is asked, so that several who fail at once ask it once."""

    @property
    def alive(self) -> bool:
        """Whether anything was answered so far."""
        return self._answers > 0

    @property
    def doubtful(self) -> bool:
        """Whether so many requests failed in a row that it may not be the resources."""
        return self._in_a_row >= _FAILURES_IN_A_ROW

    @property
    def root(self) -> bool | None:
        """Whether the root answered since the last answer from anywhere; None where it was not asked."""
        return self._root

    def answered(self) -> None:
        """Count an answer."""
        self._answers += 1
        self._in_a_row = 0
        self._root = None

    def failed(self, error: BridgeError) -> None:
        """Count a failure."""
        self._last = error
        self._in_a_row += 1

    def refused(self, error: BridgeError) -> None:
        """Note that a request was refused: nothing to count, unless nothing else is answered at all."""
        self._last = error

    def count_response(self, *, lives: bool) -> None:
        """Note what the root said; where it lives, the failures so far were the resources' own."""
        self._root = lives
        if lives:
            self._in_a_row = 0

    def check(self) -> None:
        """Raise the last failure if there was no answer at all."""
        if self._last is not None and not self.alive:
            raise self._last


class Outage(Transient):
    """The provider fails as a whole: the sweep ends, and the caller backs off."""


class CredentialsRejected(Unauthorized):
    """The provider refuses the credentials for more than one resource: the sweep ends."""


ENDS_SWEEP = (CredentialsRejected, Throttled, Outage, LeaseLost)
"""What is no matter of the resource that was asked for; all else is."""


@dataclass(frozen=True, slots=True)
class MessageListing:
    """A page of a list."""

    items: list[Any]
    answer: Response = field(repr=False)
    at: datetime
    date: float | None
    """The provider's own clock, in seconds since 1970."""
    digest: int
    """What tells its bytes from others, in this process."""
    page_cache: bool = False
    """Whether its bytes are those that the caller knew; it has no items then."""

    @property
    def next(self) -> str | None:
        """The next page; raises `ProviderError` where the link cannot be read, so take the items first."""
        return self.answer.link("next")

    @property
    def prev(self) -> str | None:
        """The page before; None too where the link cannot be read."""
        return self._optional("prev")

    @property
    def last(self) -> str | None:
        """The last page; None too where the link cannot be read."""
        return self._optional("last")

    def _optional(self, relation: str) -> str | None:
        try:
            return self.answer.link(relation)
        except ProviderError:
            return None


class Api:
    """Asks the provider and reads the frame of its answers; `health` hears how it went."""

    def __init__(self, client: HttpClient, health: ProviderHealth) -> None:
        self._client = client
        self.health = health

    async def object(self, target: str, *, having: Collection[str] = ()) -> tuple[Response, Mapping[str, Any]]:
        """Return a JSON object, with one at least of the fields `having`; raises as `HttpClient.get` does.

        Anything else is `ProviderError`: an error told with a 200, for one.
        """

        def fits(value: Any) -> bool:
            return isinstance(value, dict) and (not having or not value.keys().isdisjoint(having))

        return await self._ask(target, None, fits, f"JSON object{' of a message' if having else ''}")

    async def listing(self, target: str, params: Params | None = None, *, known: int | None = None) -> MessageListing:
        """Return a page of a JSON array; raises as `HttpClient.get` does, and `ProviderError` for anything else.

        A page whose digest is `known` is not taken apart.
        """
        answer, value = await self._ask(
            target, params, lambda value: isinstance(value, list), "JSON array", known=known
        )
        digest = hash(answer.body)
        return MessageListing(value, answer, answer.at, provider_clock(answer), digest, digest == known)

    async def _ask(
        self,
        target: str,
        params: Params | None,
        fits: Callable[[Any], bool],
        wanted: str,
        *,
        known: int | None = None,
    ) -> tuple[Response, Any]:
        try:
            answer = await self._client.get(target, params)
            value = [] if known is not None and hash(answer.body) == known else answer.json()
            if not fits(value):
                raise answer.refused(f"the provider answered no {wanted}")  # noqa: TRY301 - a torn answer counts like one that never came
        except Throttled:
            raise
        except NotFound:
            raise
        except RequestRejected as error:
            self.health.refused(error)
            raise
        except (ProviderError, Unauthorized) as error:
            failure = error
        else:
            self.health.answered()
            return answer, value
        self.health.failed(failure)
        await self._blame_provider_or_resource(failure)
        raise failure

    async def _blame_provider_or_resource(self, failure: ProviderError | Unauthorized) -> None:
        """Return where the failure may be the resource's own; raises one of `ENDS_SWEEP` where it is not.

        One failure says nothing of the provider. Refused credentials do, unless something else was answered with them.
        """
        health = self.health
        refused = isinstance(failure, Unauthorized)
        async with health.asking:
            suspicious = health.doubtful or (refused and not health.alive and not health.root)
            if not suspicious or (health.root is not False and await self._lives()):
                return
        if refused:
            raise CredentialsRejected(str(failure), retry_after=failure.retry_after)
        raise Outage(f"several requests in a row failed; the last: {failure}", retry_after=failure.retry_after)

    async def _lives(self) -> bool:
        """Ask the root whether the provider answers us at all; a refusal is an answer where others were had."""
        try:
            lives = isinstance((await self._client.get("/", ready_only=False)).json(), dict)
        except (Throttled, LeaseLost):
            raise
        except RequestRejected:
            lives = self.health.alive
        except BridgeError:
            lives = False
        self.health.count_response(lives=lives)
        return lives


def provider_clock(answer: Response) -> float | None:
    """Return the provider's own time of an answer in whole seconds since 1970, None where it does not say."""
    date = http_date(answer.headers.get("Date"))
    return None if date is None else date.timestamp()


def message_path(text: Any) -> str | None:
    """Return the canonical path `/messages/<channel>/<id>` of a message or of one of its recipients, else None."""
    parts = _parts(text)
    return None if parts is None else parts[1]


def recipient_key(text: Any, message: str) -> str | None:
    """Return a recipient's key in `message`: its id, or its whole path where that lies elsewhere; None without one."""
    parts = _parts(text)
    if parts is None or parts[4] is None:
        return None
    return parts[4] if parts[1] == message else f"{parts[1]}/recipients/{parts[4]}"


def canonical(text: str) -> str | None:
    """Return the canonical path of a message or a recipient that is written as a path or an address."""
    parts = _parts(text if text.startswith("/") or "://" in text else f"/{text}")
    if parts is None:
        return None
    return parts[1] if parts[4] is None else f"{parts[1]}/recipients/{parts[4]}"


def channel_of(path: str) -> str:
    """Return the channel in a canonical path."""
    return path.split("/", 3)[2]


def _parts(text: Any) -> re.Match[str] | None:
    if isinstance(text, dict):
        text = text.get("href")
    if not isinstance(text, str):
        return None
    try:
        path = urlsplit(text.strip()).path
    except ValueError:
        return None
    # An address may have the path of a proxy before the provider's own.
    start = path.find("/messages/")
    return _MESSAGE.fullmatch(path, start) if start >= 0 else None
