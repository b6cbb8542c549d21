"""The pages under `/_simulator/`, by which a test of another process looks behind the scenes and pulls the strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, Protocol

from aiohttp import web

from bridge.simulator.clock import WorldClock
from bridge.simulator.fault_injection import FaultRegistry
from bridge.simulator.ground_truth import ShownTransition
from bridge.simulator.request_log import RequestLog
from bridge.simulator.settings import FaultRule
from bridge.simulator.world import World, iso_millis

_RULE = {field.name for field in fields(FaultRule)}


class Controlled(Protocol):
    """What the pages see of a simulator."""

    urls: dict[str, str]
    world: World
    time: WorldClock
    board: FaultRegistry
    traffic: dict[str, RequestLog]

    def ground_truth(self, provider: str | None = None, *, without: Collection[str] = ()) -> list[ShownTransition]:
        """Return what was shown."""
        ...

    def unseen(self) -> list[str]:
        """Return what was not shown yet."""
        ...

    def books(self) -> dict[str, Any]:
        """Return what the providers count."""
        ...


async def control(sim: Controlled, request: web.BaseRequest) -> web.Response:
    """Answer one of the simulator's own pages; no fault applies to them and no record counts them."""
    page = _PAGES.get((request.method, request.path.removeprefix("/_simulator/").strip("/")))
    if page is None:
        pages = [f"{method} /_simulator/{name}" for method, name in _PAGES]
        return web.json_response({"error": "Not Found", "pages": pages}, status=404)
    try:
        body = await request.read()
        return web.json_response(page(sim, dict(request.query), json.loads(body) if body else {}))
    except (KeyError, ValueError, TypeError, LookupError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)


def _index(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query, body
    return {"urls": sim.urls, "time": iso_millis(sim.world.now()), "frozen": sim.time.frozen}


def _ground_truth(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del body
    without = [name for name in query.get("without", "").split(",") if name]
    shown: dict[str, list[dict[str, Any]]] = {name: [] for name in sim.traffic}
    for transition in sim.ground_truth(query.get("provider"), without=without):
        shown[transition.provider].append(transition.to_json())
    return shown


def _books(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query, body
    return {**sim.books(), "unseen": len(sim.unseen())}


def _unseen(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query, body
    return sim.unseen()


def _requests(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query, body
    return {name: traffic.report() for name, traffic in sim.traffic.items()}


def _forget_requests(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    report = _requests(sim, query, body)
    for traffic in sim.traffic.values():
        traffic.clear()
    return report


def _faults(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query, body
    return sim.board.report()


def _fault_on(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del query
    undefined = set(body) - _RULE
    if undefined:
        raise ValueError(f"{', '.join(sorted(undefined))}: a rule has {', '.join(sorted(_RULE))}")
    sim.board.switch_on(FaultRule(**body))
    return sim.board.report()


def _fault_off(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    del body
    sim.board.switch_off(query.get("name"))
    return sim.board.report()


def _advance(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    sim.time.advance(float(query["seconds"]))
    return _index(sim, query, body)


def _freeze(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    sim.time.freeze()
    return _index(sim, query, body)


def _thaw(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    sim.time.thaw()
    return _index(sim, query, body)


def _world(sim: Controlled, query: Mapping[str, str], body: Any) -> Any:
    """Carry out one order, such as `{"add_message": {"channel": "sms", "recipients": 3}}`."""
    del query
    ((verb, options),) = body.items()
    order = _ORDERS.get(verb)
    if order is None:
        raise ValueError(f"{verb!r} is not one of {', '.join(_ORDERS)}")
    return order(sim.world, options)


def _add_message(world: World, options: dict[str, Any]) -> Any:
    message = world.add_message(**options)
    return {"subject": message.path, "recipients": message.recipients}


def _move(world: World, options: dict[str, Any]) -> Any:
    world.move(**options)
    return {}


def _add_drop(world: World, options: dict[str, Any]) -> Any:
    return {"subject": world.add_drop(**options).path}


def _move_drop(world: World, options: dict[str, Any]) -> Any:
    subject = options.pop("subject")
    records = [record for kind in world.records.values() for record in kind if record.path == subject]
    world.move_drop(records[0], **options)
    return {}


def _add_send_event(world: World, options: dict[str, Any]) -> Any:
    event = world.add_send_event(**options)
    return {"subject": event.path, "event": event.number}


_Page = Callable[[Controlled, Mapping[str, str], Any], Any]
_PAGES: dict[tuple[str, str], _Page] = {
    ("GET", ""): _index,
    ("GET", "truth"): _ground_truth,
    ("GET", "books"): _books,
    ("GET", "unseen"): _unseen,
    ("GET", "requests"): _requests,
    ("DELETE", "requests"): _forget_requests,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _fault_on,
    ("DELETE", "faults"): _fault_off,
    ("POST", "advance"): _advance,
    ("POST", "freeze"): _freeze,
    ("DELETE", "freeze"): _thaw,
    ("POST", "world"): _world,
}
_ORDERS: dict[str, Callable[[World, dict[str, Any]], Any]] = {
    "add_message": _add_message,
    "move": _move,
    "add_drop": _add_drop,
    "move_drop": _move_drop,
    "add_send_event": _add_send_event,
}
