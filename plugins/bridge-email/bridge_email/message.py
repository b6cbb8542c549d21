"""Events as messages: headers that say who wrote, that nobody need answer, and which message is a repetition."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

from bridge_email.templates import Content

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NO_WORD = re.compile(r"[^A-Za-z0-9-]+", re.ASCII)


class Letterhead:
    """What all messages of one sink have in common."""

    def __init__(self, sink: str, sender: Address, to: Sequence[Address]) -> None:
        self._sink = _NO_WORD.sub("-", sink).strip("-") or "sink"
        self._sender = sender
        self._to = tuple(to)

    def message_id(self, event_ids: Sequence[str]) -> str:
        """Return the `Message-ID` for these events: the same ones in any order have the same."""
        name = event_ids[0] if len(event_ids) == 1 else ""
        if not _PLAIN_ID.fullmatch(name):
            name = hashlib.sha256("\0".join(sorted(event_ids)).encode("utf-8", "replace")).hexdigest()[:32]
        return f"<{name}.{self._sink}@{self._sender.domain}>"

    def message(self, content: Content, event_ids: Sequence[str], now: datetime) -> EmailMessage:
        """Return a message; its headers hold nothing of an event but its id, and the subject, which is one line."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = self._to
        message["Subject"] = content.subject
        message["Date"] = now
        message["Message-ID"] = self.message_id(event_ids)
        message["List-Id"] = f"<{self._sink}.bridge.{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"  # Exchange asks for this one
        message.set_content(content.text, cte="quoted-printable")
        if content.html is not None:
            message.add_alternative(content.html, subtype="html", cte="quoted-printable")
        return message
