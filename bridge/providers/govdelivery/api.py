"""GovDelivery's requests: one message, a page of a list, the account's channels; and how its paths are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from bridge.errors import Transient
from bridge.providers import reading
from bridge.providers.http import Answer, Client, Failed, Params, Throttled

_MESSAGE = re.compile(r"(/messages/([a-z]+)/([^/?#]+))(?:/recipients/([^/?#]+))?/?")
_FAILURES_IN_A_ROW = 3


class Health:
    """Tells one bad resource from a provider that fails as a whole."""

    def __init__(self) -> None:
        self._answers = 0
        self._in_a_row = 0
        self._last: Failed | None = None

    def answered(self) -> None:
        """Count an answer."""
        self._answers += 1
        self._in_a_row = 0

    def failed(self, error: Failed) -> bool:
        """Count a failure; True where so many in a row say that it is not the resource."""
        self._last = error
        self._in_a_row += 1
        return self._in_a_row >= _FAILURES_IN_A_ROW

    def check(self) -> None:
        """Raise the last failure if there was no answer at all."""
        if self._last is not None and not self._answers:
            raise self._last


class Outage(Transient):
    """The provider fails as a whole: the sweep ends, and the caller backs off."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list."""

    items: list[Any]
    next: str | None
    prev: str | None
    last: str | None
    at: datetime
    date: float | None
    """The provider's own clock, in seconds since 1970."""


class Api:
    """Asks the provider and reads the frame of its answers; `health` hears how it went."""

    def __init__(self, client: Client, health: Health) -> None:
        self._client = client
        self.health = health

    async def object(self, target: str) -> tuple[Answer, Mapping[str, Any]]:
        """Return a JSON object; raises as `Client.get` does, and `Failed` for anything else."""
        answer, value = await self._ask(target, None)
        if not isinstance(value, dict):
            raise self._torn(f"{answer.what}: the provider answered no JSON object", answer.status)
        return answer, value

    async def listing(self, target: str, params: Params | None = None) -> Listing:
        """Return a page of a JSON array; raises as `Client.get` does, and `Failed` for anything else."""
        answer, value = await self._ask(target, params)
        if not isinstance(value, list):
            raise self._torn(f"{answer.what}: the provider answered no JSON array", answer.status)
        return Listing(
            value, answer.link("next"), answer.link("prev"), answer.link("last"), answer.at, provider_clock(answer)
        )

    async def _ask(self, target: str, params: Params | None) -> tuple[Answer, Any]:
        try:
            answer = await self._client.get(target, params)
            value = answer.json()
        except Throttled:
            raise
        except Failed as error:
            failure = error
        else:
            self.health.answered()
            return answer, value
        if self.health.failed(failure):
            raise Outage(f"several requests in a row failed; the last: {failure}", retry_after=failure.retry_after)
        raise failure

    def _torn(self, text: str, status: int) -> Failed:
        return Failed(text, status=status)


def provider_clock(answer: Answer) -> float | None:
    """Return the provider's own time of an answer in whole seconds since 1970, None where it does not say."""
    date = reading.http_date(answer.headers.get("Date"))
    return None if date is None else date.timestamp()


def message_path(text: Any) -> str | None:
    """Return the canonical path `/messages/<channel>/<id>` of a message or of one of its recipients, else None."""
    found = _parts(text)
    return None if found is None else found[1]


def recipient_key(text: Any, message: str) -> str | None:
    """Return a recipient's key in `message`: its id, or its whole path where that lies elsewhere; None without one."""
    found = _parts(text)
    if found is None or found[4] is None:
        return None
    return found[4] if found[1] == message else f"{found[1]}/recipients/{found[4]}"


def canonical(text: str) -> str | None:
    """Return the canonical path of a message or a recipient that is written as a path or an address."""
    found = _parts(text if text.startswith("/") or "://" in text else f"/{text}")
    if found is None:
        return None
    return found[1] if found[4] is None else f"{found[1]}/recipients/{found[4]}"


def channel_of(path: str) -> str:
    """Return the channel in a canonical path."""
    return path.split("/", 3)[2]


def _parts(text: Any) -> re.Match[str] | None:
    if not isinstance(text, str):
        return None
    try:
        path = urlsplit(text.strip()).path
    except ValueError:
        return None
    # An address may have the path of a proxy before the provider's own.
    start = path.find("/messages/")
    return _MESSAGE.fullmatch(path, start) if start >= 0 else None
