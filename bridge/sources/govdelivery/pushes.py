"""GovDelivery's pushes: a form with the address of a recipient; without a signature, so the secret is in the path."""

from __future__ import annotations

from collections.abc import Sequence

from yarl import URL

from bridge.domain.pushes import Push, PushRefused, PushRequest
from bridge.hooks.settings import PushSettings
from bridge.hooks.verifiers import form_fields, path_secret
from bridge.sources.govdelivery.api import channel_of, message_path

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
