"""Which sinks are disabled, for whatever shows what waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.protocols.store import Store


@dataclass(frozen=True, slots=True)
class Disabled:
    """A sink that gets nothing until an operator enables it, because its endpoint said that it is gone."""

    sink: str
    answered: str
    since: str | None

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        enable = f"`bridgectl deliveries redrive {self.sink} --all` enables it"
        return f"the sink is disabled{since}: {self.answered}; {enable}"

    def plain(self) -> dict[str, str | None]:
        """Return it for JSON."""
        return {"answered": self.answered, "since": self.since}


async def disabled(store: Store) -> dict[str, Disabled]:
    """Return the disabled sinks by name."""
    notes = await store.statuses("sink/")
    disabled = ((place.removeprefix("sink/"), note) for place, note in notes.items())
    return {
        sink: Disabled(sink, note["disabled"], note.get("disabled_at") or None)
        for sink, note in disabled if note.get("disabled")
    }  # fmt: skip
