"""The pages that show something, and the answers of the read API: one set of facts for both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.console import life_picture, road
from bridge.console.facts import ConsoleFacts
from bridge.console.looking_up import Lookup
from bridge.console.queries import BadQuery, Missing, deliveries_query, events_query

__all__ = ["BadQuery", "Missing", "Pages", "Shown"]

Names = Mapping[str, str]
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Shown:
    """A page: its template, and what stands in it."""

    template: str
    title: str
    section: str
    """The entry of the navigation that it belongs to."""
    context: dict[str, Any]
    is_live: bool = True


class Pages:
    """Each page by its path, and each answer of the read API by its path."""

    def __init__(self, facts: ConsoleFacts) -> None:
        self._facts = facts
        self._lookup = Lookup(facts)

    def pages(self) -> dict[str, Callable[[Names, Query], Awaitable[Shown]]]:
        """Return the pages by path."""
        return {
            "/": self._now,
            "/sources": self._sources,
            "/sinks": self._sinks,
            "/sinks/{name}": self._sink,
            "/events": self._events,
            "/events/{position}": self._event,
            "/resources": self._resource,
            "/books": self._books,
        }

    def answers(self) -> dict[str, Callable[[Names, Query], Awaitable[Any]]]:
        """Return the answers of the read API by path."""
        return {
            "/api/overview": self._api_overview,
            "/api/sources": self._api_sources,
            "/api/sinks": self._api_sinks,
            "/api/sinks/{name}/deliveries": self._api_deliveries,
            "/api/events": self._api_events,
            "/api/events/{position}": self._api_event,
            "/api/resources": self._api_resource,
            "/api/books": self._api_books,
        }

    # pages

    async def _now(self, _names: Names, _query: Query) -> Shown:
        overview = await self._facts.overview()
        context = {
            "overview": overview, "wide": road.wide(overview), "narrow": road.narrow(overview),
            "committed_line": road.sparkline(overview["rates"]["committed_series"]),
            "delivered_line": road.sparkline(overview["rates"]["delivered_series"]),
        }  # fmt: skip
        return Shown("now.html", "Now", "now", context)

    async def _sources(self, _names: Names, _query: Query) -> Shown:
        overview = await self._facts.overview()
        return Shown("sources.html", "Sources", "sources", {"sources": overview["sources"], "tone": road.source_tone})

    async def _sinks(self, _names: Names, _query: Query) -> Shown:
        return Shown("sinks.html", "Sinks", "sinks", {"sinks": await self._facts.sinks(), "tone": road.sink_tone})

    async def _sink(self, names: Names, query: Query) -> Shown:
        name, wanted = names["name"], deliveries_query(query)
        sink = next((sink for sink in await self._facts.sinks() if sink["name"] == name), None)
        page = await self._lookup.deliveries(name, wanted)
        context = {
            "name": name, "sink": sink, "tone": road.sink_tone, "page": page, "query": query, "wanted": wanted,
            "settings": await self._facts.sink_topics(name), "next": wanted.link(f"/sinks/{name}", page["next"]),
        }  # fmt: skip
        return Shown("sink.html", name, "sinks", context)

    async def _events(self, _names: Names, query: Query) -> Shown:
        wanted = events_query(query)
        page = await self._lookup.events(wanted)
        context = {
            "page": page, "query": query, "sources": await self._facts.journals(),
            "next": wanted.link("/events", page["next"]), "is_first": not wanted.before,
        }  # fmt: skip
        return Shown("events.html", "Events", "events", context, is_live=not wanted.before)

    async def _event(self, names: Names, _query: Query) -> Shown:
        event = await self._lookup.event(names["position"])
        return Shown("event.html", f"Event {event['position']}", "events", {"event": event})

    async def _resource(self, _names: Names, query: Query) -> Shown:
        of, name = query.get("of", "").strip(), query.get("name", "").strip()
        if not of and not name:
            return Shown("resource.html", "Resources", "resources", {"life": None, "picture": None}, is_live=False)
        life = await self._lookup.life(of, name)
        context = {"life": life, "picture": life_picture.of(life["changes"]) if life["changes"] else None}
        return Shown("resource.html", "A resource's life", "resources", context, is_live=bool(of))

    async def _books(self, _names: Names, query: Query) -> Shown:
        books = await self._lookup.books(query.get("of", ""))
        sides = (books["provider"] or {}, books["seen"] or {}, books["last_events"])
        context = {"books": books, "statuses": list(dict.fromkeys(status for side in sides for status in side))}
        return Shown("books.html", "A message's books", "resources", context)

    # the read API

    async def _api_overview(self, _names: Names, _query: Query) -> Any:
        return await self._facts.overview()

    async def _api_sources(self, _names: Names, _query: Query) -> Any:
        return {"sources": (await self._facts.overview())["sources"]}

    async def _api_sinks(self, _names: Names, _query: Query) -> Any:
        return {"sinks": await self._facts.sinks()}

    async def _api_deliveries(self, names: Names, query: Query) -> Any:
        return await self._lookup.deliveries(names["name"], deliveries_query(query))

    async def _api_events(self, _names: Names, query: Query) -> Any:
        return await self._lookup.events(events_query(query))

    async def _api_event(self, names: Names, _query: Query) -> Any:
        return await self._lookup.event(names["position"])

    async def _api_resource(self, _names: Names, query: Query) -> Any:
        of, name = query.get("of", "").strip(), query.get("name", "").strip()
        if not of and not name:
            raise BadQuery("say which: of=POSITION of one of its events, or name=PATH")
        return await self._lookup.life(of, name)

    async def _api_books(self, _names: Names, query: Query) -> Any:
        return await self._lookup.books(query.get("of", ""))
