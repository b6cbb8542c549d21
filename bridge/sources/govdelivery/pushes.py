"""GovDelivery's pushes: a form with the address of a recipient; without a signature, so the secret is in the path."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from yarl import URL

from bridge.domain.pushes import Push, PushRefused, PushRequest
from bridge.hooks.settings import PushSettings
from bridge.hooks.verifiers import form_fields, path_secret
from bridge.http import parsing
from bridge.http.client import HttpClient
from bridge.http.errors import NotFound, ProviderError
from bridge.protocols.hints import PushSubscription
from bridge.sources.govdelivery.api import channel_of, message_path
from bridge.sources.govdelivery.settings import GovDeliverySettings
from bridge.sources.shapes.pushed import PushedThings

EVENTS = ("sending", "inconclusive", "blacklisted", "sent", "canceled", "failed")
"""What a webhook can be about [client]; each is about one of these, and none is about a whole message."""
_MAX_PAGES = 50
_WEBHOOKS = "/webhooks"
_ADDRESSES = ("recipient_url", "message_url")


class GovDeliveryPushes:
    """Reads which message a push is about; nothing else of it counts, for anybody could have written it.

    The form is documented, a signature is not [doc]. See `bridge.domain.pushes.PushReader`.
    """

    secret_in_path = True

    def __init__(self, settings: PushSettings, url: str, channels: Sequence[str]) -> None:
        self._settings = settings
        self._origin = URL(url).origin()
        self._channels = channels

    def read(self, request: PushRequest, now: float) -> Push:
        """Return the message that a push is about; none if its channel is not followed. Raises `PushRefused`."""
        path_secret(request, self._settings.keys(), now, self._settings.tolerance)
        fields = dict(form_fields(request.body))
        paths = {self._message(text) for name in _ADDRESSES if (text := fields.get(name))}
        if len(paths) != 1:
            raise PushRefused("content")
        (path,) = paths
        return Push((path,) if channel_of(path) in self._channels else ())

    def _message(self, text: str) -> str:
        try:
            origin = URL(text.strip()).origin()
        except ValueError:
            raise PushRefused("content") from None
        path = message_path(text)
        if origin != self._origin or path is None:
            raise PushRefused("content")
        return path


class PushedMessages:
    """What a GovDelivery source does with pushes, in addition to its polls; see `bridge.protocols.hints`."""

    push_events: Sequence[str] = EVENTS

    def __init__(self, settings: GovDeliverySettings, client: Callable[[], HttpClient]) -> None:
        self._asked = client
        self._pushed = PushedThings()
        push = settings.push
        self.pushes = None if push is None else GovDeliveryPushes(push, settings.url, settings.channels)

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Look at these messages in the next poll."""
        self._pushed.put(things, early=early)

    @property
    def postponed(self) -> Collection[str]:
        """The messages that were pushed, and that the last poll had no time for."""
        return self._pushed.left

    async def subscriptions(self) -> Sequence[PushSubscription]:
        """Return the account's webhooks; raises as `pages` does."""
        webhooks: list[PushSubscription] = []
        target: str | None = _WEBHOOKS
        for _ in range(_MAX_PAGES):
            if target is None:
                return webhooks
            answer = await self._asked().get(target)
            items = answer.json()
            if not isinstance(items, list):
                raise answer.refused("the provider answered no list of webhooks")
            webhooks += [webhook for item in items if (webhook := _webhook(parsing.mapping(item))) is not None]
            target = answer.link("next")
        raise ProviderError(f"GET {_WEBHOOKS}: the list goes on after {_MAX_PAGES} pages")

    async def subscribe(self, event: str, url: str) -> None:
        """Make a webhook; raises as `pages` does."""
        await self._asked().post_json(_WEBHOOKS, {"url": url, "event_type": event})

    async def unsubscribe(self, subscription: PushSubscription) -> None:
        """Remove a webhook; nothing happens if it is gone."""
        with suppress(NotFound):
            await self._asked().delete(subscription.id)


def _webhook(item: Mapping[str, Any]) -> PushSubscription | None:
    """Read a listed webhook; None if it has no identity."""
    link = parsing.mapping(item.get("_links")).get("self")
    number = parsing.text(item.get("id"))
    path = urlsplit(link).path if isinstance(link, str) else f"{_WEBHOOKS}/{quote(number, safe='')}" if number else ""
    event, url = parsing.text(item.get("event_type")), parsing.text(item.get("url"))
    return PushSubscription(path, event, url) if path and event and url else None
