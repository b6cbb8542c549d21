"""What the console may show of phones, addresses and keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bridge.delivery import masking
from bridge.domain.errors import Permanent
from bridge.domain.event import WireEvent
from bridge.domain.event_view import EventView
from bridge.protocols.sink import Privacy

_NOTHING = b"{}"
_HIDDEN = "(cannot be shown: what is personal in it is not known)"


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks by one level of privacy; `key` makes the tokens of `token`."""

    level: Privacy
    key: bytes = b""

    def view(self, view: EventView) -> EventView:
        """Return an event as it may be shown; of one that cannot be read, nothing but its position, id and topic."""
        try:
            return EventView(view.position, masking.apply(self.level, view.event, self.key))
        except Permanent:
            wire = view.event
            return EventView(view.position, replace(wire, body=_NOTHING))

    def text(self, text: str | None, event: EventView | None = None) -> str | None:
        """Return a text as it may be shown; `event` is the one that it is about, not masked."""
        if not text:
            return text
        try:
            return masking.mask_text(self.level, text, _wire(event), self.key)
        except Permanent:
            return _HIDDEN

    def values(self, value: Any) -> Any:
        """Return a value of JSON, with each text in it as it may be shown."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {name: self.values(item) for name, item in value.items()}
            case list():
                return [self.values(item) for item in value]
        return value

    def attempts(self, rows: list[dict[str, Any]], event: EventView | None) -> list[dict[str, Any]]:
        """Return tries, of which the texts may name a person."""
        return [row | {"error": self.text(row["error"], event)} for row in rows]

    def answer(self, answer: dict[str, Any] | None, event: EventView | None) -> dict[str, Any] | None:
        """Return an endpoint's answer."""
        return None if answer is None else answer | {"body": self.text(answer["body"], event)}


_WITHOUT_EVENT = WireEvent("", "", 0, _NOTHING)


def _wire(event: EventView | None) -> WireEvent:
    return _WITHOUT_EVENT if event is None else event.event
