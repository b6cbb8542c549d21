"""One mail server and its recipients: the sink."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.plugin import Clock, Digests, Event, Outgoing
from bridge_email.message import Letterhead
from bridge_email.session import MailServer
from bridge_email.settings import EmailSettings, address_of
from bridge_email.templates import Templates

_DIGEST = "digest"


class Email:
    """Sends each event as a message; with a window, the first one at once and those that follow in digests.

    An event is delivered when the mail server has accepted the message with it. An event keeps its `Message-ID`.
    """

    def __init__(self, name: str, settings: EmailSettings, clock: Clock) -> None:
        self._clock = clock
        self._settings = settings
        self._sender = address_of(settings.sender)
        self._to = [address_of(text) for text in settings.to]
        self._letterhead = Letterhead(name, self._sender, self._to)
        self._templates = Templates(settings.subject, settings.text, settings.html)
        self._server = MailServer(name, settings)
        self._digests: Digests | None = None

    async def open(self) -> None:
        """Get ready to gather; connections are made when there is something to send."""
        if self._settings.window is not None:
            self._digests = Digests(self._clock, self._settings.window, post=self._send, acquire=_at_once)

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the mail server has accepted a message with this event, alone or in a digest."""
        if self._digests is None:
            await self._send([outgoing.event])
        else:
            await self._digests.add(_DIGEST, outgoing.event)

    async def probe(self) -> str:
        """Connect and log in; send nothing."""
        await self._server.check()
        return f"writes to {len(self._to)} by {self._server.endpoint}, {_SECURITY[self._settings.security]}"

    async def close(self) -> None:
        """Stop gathering without sending the rest, and close the connection."""
        if self._digests is not None:
            await self._digests.close()
        await self._server.close()

    async def _send(self, events: Sequence[Event]) -> None:
        content = self._templates.render(events)
        message = self._letterhead.message(content, [event.id for event in events], self._clock.now())
        await self._server.send(message, [address.addr_spec for address in self._to], self._sender.addr_spec)


_SECURITY = {"starttls": "encrypted by STARTTLS", "tls": "encrypted by TLS", "none": "not encrypted"}


async def _at_once() -> None:
    """Let a digest go without a wait: the mail server takes one message after the other."""
