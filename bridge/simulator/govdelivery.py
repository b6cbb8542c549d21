"""GovDelivery TMS as an HTTP server shows it: messages, recipients and their pages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

from bridge.simulator.ground_truth import ShownStatus
from bridge.simulator.histories import FINALS
from bridge.simulator.provider_api import JSON, SimRequest, SimResponse, answer_json, path_of
from bridge.simulator.webhooks import SimulatedWebhooks
from bridge.simulator.world import CALL_DETAILS, CHANNELS, COLLECTIONS, RECIPIENT_STATUSES, Message, World, iso

RECIPIENTS_PAGE = 50
_Rendered = tuple[int, bytes, list[ShownStatus]]
_PATH = re.compile(
    r"/messages/(?P<channel>sms|voice|email)"
    r"(?:/(?P<number>\d+)(?:/(?P<recipients>recipients)(?:/(?P<recipient>\d+)|/(?P<collection>[a-z_]+))?)?)?"
    r"(?:/page/(?P<page>\d+))?/?"
)
_VIEWS = {"/reports/messages/": "statistics", "/webhooks": "webhooks"}
_SORTS = ("created_at", "completed_at", "status", "id")


class SimulatedGovDelivery:
    """Answers as the vendor's reference has it; what the reference leaves open is chosen leniently."""

    provider = "govdelivery"

    def __init__(self, world: World) -> None:
        self._world = world
        self._settings = world.settings
        self.webhooks = SimulatedWebhooks()
        self._pages: WeakKeyDictionary[Message, dict[tuple[str | None, int], _Rendered]] = WeakKeyDictionary()

    def view(self, path: str) -> str | None:
        """Return `root`, `statistics`, `webhooks`, `messages`, `message`, `recipient`, `recipients[.<collection>]`."""
        if path == "/":
            return "root"
        if not path.startswith("/messages/"):
            return next((name for begin, name in _VIEWS.items() if path.startswith(begin)), None)
        match = _PATH.fullmatch(path)
        if match is None:
            return "messages"
        if match["collection"]:
            return f"recipients.{match['collection']}"
        return next(
            (name for name in ("recipient", "recipients") if match[name]), "message" if match["number"] else "messages"
        )

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer."""
        if ask.headers.get("X-AUTH-TOKEN") != self._settings.govdelivery_token:
            return answer_json({"error": "Invalid authentication token"}, 401)
        if ask.view == "root":
            return answer_json(
                {"_links": {"self": "/", **{f"{name}_messages": f"/messages/{name}" for name in CHANNELS}}}
            )
        if ask.view == "webhooks":
            return self.webhooks.answer(ask)
        if ask.view == "statistics":
            return self._statistics(ask)
        match = _PATH.fullmatch(ask.path)
        return _not_found() if match is None else self._resource(ask, match)

    def _resource(self, ask: SimRequest, match: re.Match[str]) -> SimResponse:
        page = _page_number(match["page"] or ask.query.get("page"))
        if match["number"] is None:
            return self._messages(ask, match["channel"], page)
        message = self._world.message(match["channel"], int(match["number"]))
        if message is None:
            return _not_found()
        if match["recipient"]:
            return self._recipient(message, int(match["recipient"]) - message.first)
        if match["recipients"]:
            return self._recipients(ask, message, match["collection"], page)
        return answer_json(
            _message(message, counts=True), shown_statuses=[ShownStatus(message.path, message.state.status)]
        )

    def shown_statuses(self, ask: SimRequest, payload: Any) -> list[ShownStatus]:
        """Return the statuses in a body, and in the collections of calls the detail that the path tells."""
        collection = ask.view.partition(".")[2]
        detail = collection if collection in CALL_DETAILS else None
        items = payload if isinstance(payload, list) else [payload]
        shown = []
        for item in items:
            links = item.get("_links") if isinstance(item, dict) else None
            path = path_of(links.get("self")) if isinstance(links, dict) else None
            if path is None and isinstance(item, dict) and isinstance(item.get("id"), int | str):
                path = f"{_base(ask.path).removesuffix(f'/{collection}')}/{item['id']}"
            status = item.get("status") if isinstance(item, dict) else None
            if path is not None and isinstance(status, str | int):
                shown.append(ShownStatus(path, str(status), detail))
        return shown

    # --- lists ----------------------------------------------------------------------------------------------------

    def _messages(self, ask: SimRequest, channel: str, page: int) -> SimResponse:
        messages = self._world.settled(channel)
        size = self._settings.page_size
        if channel != "voice":
            asked = ask.query.get("page_size", str(size))
            if not asked.isdecimal() or not 1 <= int(asked) <= 100:  # noqa: PLR2004 - the vendor's bounds
                return answer_json({"error": "page_size must be between 1 and 100"}, 400)
            size = int(asked)
            sort = ask.query.get("sort_by", "created_at")
            order = ask.query.get("sort_order", "DESC").upper()
            if sort not in _SORTS or order not in {"ASC", "DESC"}:
                return answer_json({"error": "sort_by or sort_order is invalid"}, 400)
            messages.sort(key=lambda message: _sort_key(message, sort), reverse=order == "DESC")
        else:
            messages.reverse()
        start = max(0, (page - 1) * size + ask.shift)
        shown = messages[start : start + size]
        shown_statuses = [ShownStatus(message.path, message.state.status) for message in shown]
        answer = answer_json([_message(message, counts=False) for message in shown], shown_statuses=shown_statuses)
        _link(answer, ask, page, len(messages), size)
        return answer

    def _recipients(self, ask: SimRequest, message: Message, collection: str | None, page: int) -> SimResponse:
        if collection is not None and collection not in COLLECTIONS[message.channel]:
            return _not_found()
        if self._world.clock.now() < message.born + self._settings.builds_for:
            return SimResponse(202, b"", {"Content-Type": JSON})
        total = len(message.states) if collection is None else len(message.members[collection])
        body, shown_statuses = self._page(message, collection, page, ask.shift)
        answer = SimResponse(200, body, {"Content-Type": JSON}, shown_statuses)
        _link(answer, ask, page, total, RECIPIENTS_PAGE)
        return answer

    def _page(
        self, message: Message, collection: str | None, page: int, shift: int
    ) -> tuple[bytes, Sequence[ShownStatus]]:
        start = max(0, (page - 1) * RECIPIENTS_PAGE + shift)
        stop = start + RECIPIENTS_PAGE
        plain = collection is None and not shift
        version = message.page_changes[page - 1] if plain else message.version
        pages = self._pages.setdefault(message, {})
        cached = pages.get((collection, start))
        if cached is not None and cached[0] == version:
            return cached[1], cached[2]
        if collection is None:
            indices: Sequence[int] = range(start, min(stop, len(message.states)))
        else:
            indices = message.members[collection][start:stop]
        detail = collection if collection in CALL_DETAILS else None
        body = b"[" + ",".join([_recipient(message, index) for index in indices]).encode() + b"]"
        prefix = f"{message.path}/recipients/"
        shown_statuses = [
            ShownStatus(f"{prefix}{message.first + index}", message.states[index].status, detail) for index in indices
        ]
        pages[collection, start] = (version, body, shown_statuses)
        return body, shown_statuses

    def _recipient(self, message: Message, index: int) -> SimResponse:
        if not 0 <= index < len(message.states):
            return _not_found()
        shown = ShownStatus(message.recipient(index), message.states[index].status)
        return SimResponse(200, _recipient(message, index).encode(), {"Content-Type": JSON}, [shown])

    def _statistics(self, ask: SimRequest) -> SimResponse:
        match = re.fullmatch(r"/reports/messages/(sms|email)/statistics/?", ask.path)
        if match is None:
            return _not_found()
        try:
            start, end = (datetime.fromisoformat(ask.query[name]).timestamp() for name in ("start", "end"))
        except (KeyError, ValueError):
            return answer_json({"errors": {"start": ["start and end are required times"]}}, 422)
        counts = dict.fromkeys(RECIPIENT_STATUSES, 0)
        for message in self._world.settled(match[1]):
            if start <= message.born < end:
                for status in counts:
                    counts[status] += message.counts[status]
        return answer_json({"recipients": counts})


def recipient_counts(message: Message) -> dict[str, int]:
    """Return what the provider counts of a message's recipients."""
    return {"total": len(message.states), **{status: message.counts[status] for status in RECIPIENT_STATUSES}}


def detail_counts(message: Message) -> dict[str, int]:
    """Return what the provider counts of a call's ends: four of the five that there are."""
    return {name: message.details[name] for name in ("busy", "no_answer", "human", "machine")}


def _message(message: Message, *, counts: bool) -> dict[str, Any]:
    links = {"self": message.path, "recipients": f"{message.path}/recipients"}
    links |= {name: f"{message.path}/recipients/{name}" for name in COLLECTIONS[message.channel]}
    shown: dict[str, Any] = (
        {"play_url": "http://www.example.com/media/hello.wav", "from_number": "+15555550100"}
        if message.channel == "voice"
        else {"body": "Today is sunny and 70\u00b0F"}
    )
    shown |= {
        "created_at": iso(message.born),
        "completed_at": None if message.completed is None else iso(message.completed),
        "status": message.state.status,
        "_links": links,
    }
    if counts and message.state.status != "new":
        shown["recipient_counts"] = recipient_counts(message)
        if message.channel == "voice":
            shown["recipient_detail_counts"] = detail_counts(message)
    return shown


def _recipient(message: Message, index: int) -> str:
    """Return one recipient as JSON; by hand, since pages of them are most of what is asked for."""
    state = message.states[index]
    address = message.addresses[index]
    completed = f'"{iso(message.changed[index])}"' if state.status in FINALS else "null"
    error = "null" if state.error is None else json.dumps(state.error, ensure_ascii=False)
    who = (
        f'"email":"{address}"'
        if message.channel == "email"
        else f'"phone":"{address.removeprefix("+1")}","formatted_phone":"{address}"'
    )
    return (
        f'{{{who},"status":{json.dumps(state.status)},"error_message":{error},"created_at":"{iso(message.born)}",'
        f'"completed_at":{completed},"_links":{{"self":"{message.path}/recipients/{message.first + index}",'
        f'"{message.channel}_message":"{message.path}"}}}}'
    )


def _link(answer: SimResponse, ask: SimRequest, page: int, total: int, size: int) -> None:
    last = max(1, -(-total // size))
    if last == 1 and page == 1:
        return
    targets = {"first": 1, "prev": page - 1, "next": page + 1, "last": last}
    if page <= 1:
        del targets["prev"]
    if page >= last:
        del targets["next"]
    others = {key: value for key, value in ask.query.items() if key != "page"}
    base = _base(ask.path)
    answer.headers["Link"] = ", ".join(
        f'<{base}?{urlencode({**others, "page": number})}>; rel="{relation}"' for relation, number in targets.items()
    )


def _base(path: str) -> str:
    return re.sub(r"/page/\d+/?$", "", path).rstrip("/")


def _page_number(text: str | None) -> int:
    return max(1, int(text)) if text and text.isdecimal() else 1


def _sort_key(message: Message, sort: str) -> tuple[Any, int]:
    value = {
        "created_at": message.born,
        "completed_at": message.completed or 0.0,
        "status": message.state.status,
        "id": message.number,
    }[sort]
    return value, message.number


def _not_found() -> SimResponse:
    return answer_json({"error": "Not Found"}, 404)
