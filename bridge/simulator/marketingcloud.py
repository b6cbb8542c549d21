"""Salesforce Marketing Cloud as an HTTP server shows it: tokens, and the feed of what was not sent."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from bridge.domain.clock import Clock
from bridge.simulator.ground_truth import ShownStatus
from bridge.simulator.provider_api import SimRequest, SimResponse, answer_json
from bridge.simulator.world import SendEvent, World

_PATH = re.compile(r"/messaging/v1/(sms|email)/messages/?")
_CENTRAL = 6 * 3600.0  # seconds behind UTC, all the year
_MAX_PAGE_ITEMS = 2000


class SimulatedMarketingCloud:
    """Answers as the vendor's reference has it; `lastEventId` is exclusive unless a fault says otherwise."""

    provider = "marketingcloud"

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._issued = 0

    def view(self, path: str) -> str | None:
        """Return `token` or `events`."""
        if path == "/v2/token":
            return "token"
        return "events" if path.startswith("/messaging/") else None

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer."""
        if ask.view == "token":
            return self._token(ask)
        kind, _, token = ask.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or self._tokens.get(token, 0.0) <= self._clock.monotonic():
            return answer_json({"message": "Not Authorized", "errorcode": 0, "documentation": ""}, 401)
        match = _PATH.fullmatch(ask.path)
        if match is None:
            return answer_json({"message": "Not Found", "errorcode": 10001, "documentation": ""}, 404)
        size = ask.query.get("$pageSize", str(self._world.settings.page_size))
        last = ask.query.get("lastEventId", "0")
        if ask.query.get("type") != "notSent" or not size.isdecimal() or int(size) < 1 or not last.isdecimal():
            return answer_json({"message": "Invalid request", "errorcode": 10006, "documentation": ""}, 400)
        return self._events(match[1], int(last), min(int(size), _MAX_PAGE_ITEMS))

    def shown_statuses(self, ask: SimRequest, payload: Any) -> list[ShownStatus]:
        """Return the events in a body."""
        feed = "email" if "/email/" in ask.path else "sms"
        items = payload.get("messages") if isinstance(payload, dict) else None
        shown = []
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict) and isinstance(item.get("eventID"), int | str):
                info = item.get("info")
                key = (info if isinstance(info, dict) else {}).get("messageKey") or item.get("messageKey")
                base = f"/messaging/v1/{feed}"
                subject = f"{base}/messages/{key}" if key else f"{base}/events/{item['eventID']}"
                category = str(item.get("eventCategoryType") or "").rpartition(".")[2]
                shown.append(ShownStatus(subject, category, None, f"{feed}:{item['eventID']}"))
        return shown

    def expire(self) -> None:
        """Let every token that was given out be good for nothing from now on."""
        self._tokens.clear()

    def _token(self, ask: SimRequest) -> SimResponse:
        try:
            asked = json.loads(ask.body)
        except ValueError:
            asked = None
        if ask.method != "POST" or not isinstance(asked, dict):
            return answer_json({"error": "invalid_request", "error_description": "The body is not JSON."}, 400)
        if asked.get("grant_type") != "client_credentials":
            return answer_json({"error": "unsupported_grant_type", "error_description": "Use client_credentials."}, 400)
        settings = self._world.settings
        known = asked.get("client_id") == settings.client_id and asked.get("client_secret") == settings.client_secret
        if not known or asked.get("account_id", settings.account_id) != settings.account_id:
            return answer_json({"error": "invalid_client", "error_description": "Invalid client ID or secret."}, 401)
        self._issued += 1
        token = f"simulated-access-{settings.seed}-{self._issued}"
        self._tokens[token] = self._clock.monotonic() + settings.token_lifetime
        return answer_json(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": int(settings.token_lifetime),
                "scope": "email_read sms_read",
                "soap_instance_url": f"{ask.origin}/",
                "rest_instance_url": f"{ask.origin}/",
            }
        )

    def _events(self, feed: str, last: int, size: int) -> SimResponse:
        end = self._world.highest_event()
        events = self._world.sends[feed]
        start = self._world.sends_after(feed, last)
        shown = events[start : start + size]
        more = start + size < len(events)
        watermark = shown[-1].number if more else max(last, end)
        payload = {"lastEventID": watermark, "count": len(shown), "messages": [_event(event) for event in shown]}
        shown_statuses = [ShownStatus(event.path, event.category, None, f"{feed}:{event.number}") for event in shown]
        return answer_json(payload, shown_statuses=shown_statuses)


def _event(event: SendEvent) -> dict[str, Any]:
    info = {"messageKey": event.message_key, "contactKey": event.contact_key, "to": event.to}
    return {
        "statusCode": event.code,
        "statusMessage": event.reason,
        "eventCategoryType": f"TransactionalSendEvents.{event.category}",
        "timestamp": central(event.at),
        "definitionKey": event.definition,
        "eventID": event.number,
        "info": {key: value for key, value in info.items() if value is not None},
    }


def central(moment: float) -> str:
    """Return a time as Marketing Cloud writes it: UTC-06:00 without saying so, zeros at the end cut to two digits."""
    text = datetime.fromtimestamp(moment - _CENTRAL, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return text.removesuffix("0")
