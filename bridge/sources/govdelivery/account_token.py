"""The token of an account, and how the bridge recognises that another token belongs to the same account."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.domain.errors import Unauthorized
from bridge.http.errors import NotFound
from bridge.http.limiter import account_key
from bridge.sources.govdelivery.api import Api
from bridge.sources.govdelivery.settings import GovDeliverySettings
from bridge.sources.govdelivery.state import MessageState

_RECOGNIZED_BY_MESSAGES = 3


class AccountToken:
    """The token of one account at one origin."""

    def __init__(self, settings: GovDeliverySettings) -> None:
        self._settings = settings

    def token(self) -> str:
        """Return the token; raises `Unauthorized` if its file cannot be read or used."""
        try:
            return self._settings.token.reveal()
        except OSError as error:
            reason = error.strerror
        raise Unauthorized(f"the token's file cannot be read ({reason}): nothing is asked without it")

    async def headers(self) -> Mapping[str, str]:
        """Return the header that carries the token."""
        return {"X-AUTH-TOKEN": self.token()}

    def fingerprint(self) -> str:
        """Return a name of the token at its origin."""
        return account_key(self._settings.url, self.token())

    def account(self) -> str:
        """Return the fingerprint; while the token's file cannot be used, a name of that file."""
        try:
            return self.fingerprint()
        except Unauthorized:
            return account_key(self._settings.url, f"file {self._settings.token.path}")


async def knows_newest_messages(api: Api, cursor: Mapping[str, str]) -> bool:
    """Return whether the account has one of the newest messages that a cursor knows."""
    states = {path: MessageState.load(text) for path, text in cursor.items() if path.startswith("/")}
    present = [path for path, state in states.items() if not state.missing]
    for path in sorted(present, key=lambda path: states[path].discovered, reverse=True)[:_RECOGNIZED_BY_MESSAGES]:
        try:
            await api.object(path)
        except NotFound:
            continue
        return True
    return False
