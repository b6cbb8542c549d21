"""The webhooks of a simulated GovDelivery account: made, listed and removed; nothing is pushed by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bridge.simulator.provider_api import SimRequest, SimResponse, answer_json

EVENT_TYPES = frozenset({"sending", "inconclusive", "blacklisted", "sent", "canceled", "failed"})
_PATH = re.compile(r"/webhooks(?:/(\d+))?/?")
_PAGE_WEBHOOKS = 50
"""Webhooks in a page of the list."""


class SimulatedWebhooks:
    """Answers as the vendor's page has it: one webhook for each event type, in pages of 50."""

    def __init__(self) -> None:
        self.webhooks: dict[int, Mapping[str, Any]] = {}
        self._last = 0

    def add(self, event_type: str, url: str) -> int:
        """Make a webhook, and return its number."""
        self._last += 1
        self.webhooks[self._last] = {
            "url": url, "event_type": event_type, "_links": {"self": f"/webhooks/{self._last}"},
        }  # fmt: skip
        return self._last

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer; what is asked for is done."""
        match = _PATH.fullmatch(ask.path)
        if match is None:
            return answer_json({"error": "Not Found"}, 404)
        if match[1] is not None:
            return self._single(ask, int(match[1]))
        return self._make(ask.body) if ask.method == "POST" else self._list(ask)

    def _single(self, ask: SimRequest, number: int) -> SimResponse:
        if number not in self.webhooks:
            return answer_json({"error": "Not Found"}, 404)
        if ask.method == "DELETE":
            del self.webhooks[number]
            return SimResponse(204)
        return answer_json(self.webhooks[number])

    def _make(self, body: bytes) -> SimResponse:
        try:
            value = json.loads(body)
            event_type, url = value["event_type"], value["url"]
        except (ValueError, TypeError, KeyError):
            return answer_json({"errors": {"url": ["can't be blank"]}}, 422)
        if event_type not in EVENT_TYPES:
            return answer_json({"errors": {"event_type": ["is not included in the list"]}}, 422)
        return answer_json(self.webhooks[self.add(event_type, url)], 201)

    def _list(self, ask: SimRequest) -> SimResponse:
        page = int(ask.query.get("page", "1"))
        numbers = sorted(self.webhooks)[(page - 1) * _PAGE_WEBHOOKS :]
        answer = answer_json([self.webhooks[number] for number in numbers[:_PAGE_WEBHOOKS]])
        if len(numbers) > _PAGE_WEBHOOKS:
            answer.headers["Link"] = f'</webhooks?page={page + 1}>; rel="next"'
        return answer
