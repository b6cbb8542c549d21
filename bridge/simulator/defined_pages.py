"""The pages of a simulated provider's lists, in each way that a definition may name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from bridge.providers.models import Definition
from bridge.simulator.defined_items import DefinedItem
from bridge.simulator.provider_api import SimRequest

_PAGE_ITEMS = 20
_POSITION = "_from"


class DefinedPages:
    """Cuts the items of a question into pages."""

    def __init__(self, definition: Definition) -> None:
        self._spec = definition.listing.pages

    def page(
        self, ask: SimRequest, items: Sequence[DefinedItem]
    ) -> tuple[Sequence[DefinedItem], dict[str, Any], dict[str, str]]:
        """Return the items of the page that is asked for, what stands around them, and headers."""
        spec = self._spec
        if spec is None:
            return items, {}, {}
        items = items if spec.cap is None else items[: spec.cap]
        size = spec.counted.size if spec.counted is not None else _PAGE_ITEMS
        start = self._start(ask.query, size)
        shown = items[start : start + size]
        following = start + size
        has_next = following < len(items) or (spec.end == "empty" and bool(shown))
        envelope: dict[str, Any] = {} if spec.total is None else spec.total.write({}, len(items))
        headers: dict[str, str] = {}
        if spec.link is not None:
            envelope = spec.link.write(envelope, self._link(ask, following) if has_next else None)
        if spec.cursor is not None:
            envelope = spec.cursor.token.write(envelope, str(following) if has_next else None)
        if spec.header is not None and has_next:
            headers["Link"] = f'<{self._link(ask, following)}>; rel="{spec.header}"'
        return shown, envelope, headers

    def _start(self, query: Mapping[str, str], size: int) -> int:
        spec = self._spec
        assert spec is not None  # noqa: S101 - the caller has looked
        if spec.offset is not None:
            return _number(query.get(spec.offset.param))
        if spec.number is not None:
            return (
                (_number(query.get(spec.number.param)) - spec.number.first) * size
                if query.get(spec.number.param)
                else 0
            )
        return _number(query.get(_POSITION if spec.cursor is None else spec.cursor.param))

    @staticmethod
    def _link(ask: SimRequest, following: int) -> str:
        return f"{quote(ask.path)}?{urlencode({**ask.query, _POSITION: following})}"


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
