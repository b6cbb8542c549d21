"""What a definition says of pushes: how they are verified and read, and the looks that they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.domain.pushes import Push, PushRefused, PushRequest
from bridge.hooks.settings import PushSettings
from bridge.hooks.verifiers import VERIFIERS, check_available, form_fields
from bridge.http import parsing
from bridge.http.errors import NotFound, Throttled
from bridge.protocols.hints import EVERYTHING
from bridge.protocols.source import Observation, Page
from bridge.providers.models import PushSpec
from bridge.providers.requests import LookupSpec, filled
from bridge.sources.rest.errors import NothingThere
from bridge.sources.rest.records import ItemReader, UnreadableItem
from bridge.sources.rest.requests import ApiClient
from bridge.sources.rest.sweep import PollSweep

MAX_RESOURCES = 1000
"""Resources of one push that are looked at; a push with more is refused."""
_MAX_KEY_CHARS = 300


class RestPushes:
    """Verifies and reads pushes as a definition says; see `bridge.domain.pushes.PushReader`."""

    def __init__(self, spec: PushSpec, settings: PushSettings) -> None:
        """Prepare; raises `ValueError` if a library is missing."""
        check_available(spec.verify)
        self.secret_in_path = spec.verify == "path"
        self._verify = VERIFIERS[spec.verify]
        self._settings = settings
        self._id = None if spec.id is None or spec.then == "poll" else spec.id.reader()

    def read(self, request: PushRequest, now: float) -> Push:
        """Return the ids of the resources that a push is about; raises `PushRefused`."""
        self._verify(request, self._settings.keys(), now, self._settings.tolerance)
        if self._id is None:
            return Push((EVERYTHING,))
        value = _document(request)
        items = value if isinstance(value, list) else [value]
        keys = list(dict.fromkeys(parsing.text(self._id(item)) for item in items[: MAX_RESOURCES + 1]))
        if not keys or len(items) > MAX_RESOURCES:
            raise PushRefused("content")
        return Push([_checked(key) for key in keys])


def _document(request: PushRequest) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return dict(form_fields(request.body))
    try:
        return parsing.json(request.body)
    except (ValueError, RecursionError):
        raise PushRefused("content") from None


def _checked(key: str | None) -> str:
    if key is None or len(key) > _MAX_KEY_CHARS or not key.isprintable() or key == EVERYTHING:
        raise PushRefused("content")
    return key


class PushedLookups:
    """Looks at the resources that were pushed, by the definition's own request for single resources.

    What a push shows is only which resource to look at. A resource that no poll would have seen any more, because it is
    older than everything that is read, stays unseen.
    """

    def __init__(self, lookup: LookupSpec, client: ApiClient, reader: ItemReader, clock: Clock, settings: Any) -> None:
        reach = max(float(getattr(settings, name, 0.0)) for name in ("lookback", "give_up"))
        self._client = client
        self._reader = reader
        self._clock = clock
        self._reach = timedelta(seconds=reach) if reach else timedelta.max
        self._ids = lookup.ids
        self._path = filled(lookup.path, client.values)
        self._params = client.params_of(lookup.params)
        self._read = lookup.items.reader()
        self._items_at = lookup.items.text

    async def pages(self, things: Mapping[str, datetime], sweep: PollSweep) -> AsyncIterator[Page]:
        """Yield what the provider shows of each resource; one that it does not know is passed over."""
        for keys in self._groups([key for key in things if key != EVERYTHING]):
            try:
                items, at = await self._ask(keys)
            except (LeaseLost, Unauthorized, Throttled):
                raise
            except (NotFound, NothingThere):
                sweep.answered = True
                continue
            except BridgeError as error:
                sweep.on_failure(f"looking at {len(keys)} pushed resources", error)
                continue
            sweep.answered = True
            for observation in self._observed(items, keys, at, sweep):
                yield Page((observation,), at, pushed=things[observation.key])

    def _groups(self, keys: Sequence[str]) -> Iterator[Sequence[str]]:
        size = 1 if self._ids is None else self._ids.batch
        return (keys[start : start + size] for start in range(0, len(keys), size))

    async def _ask(self, keys: Sequence[str]) -> tuple[list[Any], datetime]:
        if self._ids is None:
            target, params = self._path.replace("{id}", quote(keys[0], safe="")), self._params
        else:
            target, params = self._path, {**self._params, self._ids.param: self._ids.separator.join(keys)}
        answer, value = await self._client.ask(target, params)
        shown = self._read(value)
        items = shown if isinstance(shown, list) else [shown]
        if self._ids is None and not isinstance(shown, dict):
            raise answer.refused(f"the answer has no resource at {self._items_at}")
        return items, answer.at

    def _observed(
        self, items: Sequence[Any], keys: Sequence[str], at: datetime, sweep: PollSweep
    ) -> Iterator[Observation]:
        """Yield what is readable, was asked for, and is young enough that a poll would have seen it."""
        for item in items:
            observation = self._reader.observe(item)
            if isinstance(observation, UnreadableItem):
                sweep.unreadable[f"items {observation.reason}"] += 1
                continue
            created = self._reader.created(item)
            if observation.key in keys and (created is None or at - created <= self._reach):
                yield observation
