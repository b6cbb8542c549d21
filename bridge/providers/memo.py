"""What is made of a definition is made once: two sources of one definition share their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from bridge.providers.models import Definition

T = TypeVar("T")
_MAX_ENTRIES = 256


class OncePerDefinition(Generic[T]):
    """Calls a function once for all definitions that say the same; `parts` are the keys that matter, or all."""

    def __init__(self, make: Callable[[Definition], T], *parts: str) -> None:
        self._make = make
        self._parts = set(parts) or None
        self._made: dict[str, T] = {}

    def __call__(self, definition: Definition) -> T:
        """Return what the function makes of a definition."""
        text = definition.model_dump_json(include=self._parts)
        if text not in self._made:
            if len(self._made) >= _MAX_ENTRIES:
                self._made.clear()
            self._made[text] = self._make(definition)
        return self._made[text]
