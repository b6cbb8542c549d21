"""The suite for sources fails where a source breaks its promises, and passes where it keeps them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient, Unauthorized
from bridge.domain.settings import Secret
from bridge.http.headers import parse_retry_after
from bridge.protocols.source import Observation, Page, Probe, SourcePlugin, SourceSettings
from bridge.testing.fakes import KIND
from bridge.testing.source_suite import NONSENSE, PHONE, SHAPES, Account, SourceSuite

SECRET = "secret-canary"
LIMIT = 16 * 1024 * 1024


class Known(SourceSettings):
    url: str
    token: Secret


class Shown(SourceSettings):
    url: str
    token: str


class Things:
    """A source of a page of changes, which keeps all promises but those that its flaws break."""

    retention = 3600.0

    def __init__(self, flaws: set[str], settings: Any, clock: Clock) -> None:
        self.problems: list[str] = []
        self.behind = False
        self._flaws = flaws
        self._settings = settings
        self._clock = clock

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        del watched
        things = await self._ask(cursor.get("since"))
        moved = {"since": things[-1]["at"]} if things else {}
        if "shows ten at most" in self._flaws:
            things = things[:10]
        if "steps before it has read" in self._flaws:
            moved = {"since": self._clock.now().isoformat()}
            yield Page((), self._clock.now(), cursor=moved)
        if "hurries" in self._flaws:
            for _ in things:
                await self._ask(None)
        yield self._page(things, moved)

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        things = [thing for thing in await self._ask(start.isoformat()) if datetime.fromisoformat(thing["at"]) <= end]
        yield self._page(things, {"since": end.isoformat()} if "steps with a backfill" in self._flaws else {})

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        return observations[::-1] if "mixes up details" in self._flaws else observations

    def resource(self, text: str) -> str:
        if "takes any name" in self._flaws:
            return f"/things/{text}"
        raise ValueError(f"{text!r}: nothing to name")

    async def probe(self) -> Probe:
        things = await self._ask(None)
        return Probe(f"takes {SECRET}" if "tells its secret" in self._flaws else f"shows {len(things)}", 1440.0)

    async def close(self) -> None:
        pass

    def _page(self, things: Sequence[Mapping[str, Any]], cursor: Mapping[str, str | None]) -> Page:
        now = self._clock.now()
        by = now.replace(tzinfo=None) if "knows no time zones" in self._flaws else now
        seen = [
            Observation(
                KIND,
                f"/{thing['at']}" if "keeps by time" in self._flaws else "/things",
                str(thing["id"]),
                thing["state"],
                thing,
            )
            for thing in things
        ]
        return Page(seen, by=by, cursor=cursor)

    async def _ask(self, since: str | None) -> list[dict[str, Any]]:
        flaws = self._flaws
        token = self._settings.token
        headers = {"Authorization": token.reveal() if isinstance(token, Secret) else token}
        params = {"since": since} if since else {}
        body = bytearray()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(
                    self._settings.url, params=params, headers=headers, allow_redirects="is led away" in flaws
                ) as answer,
            ):
                status = answer.status
                limit = 2**40 if "reads without end" in flaws else LIMIT
                while len(body) < limit and (more := await answer.content.read(LIMIT)):
                    body += more
                wait = parse_retry_after(answer.headers.get("Retry-After"), self._clock.now())
            answered = json.loads(body) if status == 200 else None
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            if "lets errors through" in flaws:
                raise
            text = f"{error} {body[:200]!r}" if "quotes answers" in flaws else type(error).__name__
            raise Transient(f"GET /: {text}") from None
        if status == 401 and "knows no operator" not in flaws:
            raise Unauthorized("GET /: the token was refused")
        if "takes failures for emptiness" in flaws and not isinstance(answered, list):
            return []
        if "gives up" in flaws and status >= 500:
            raise Permanent(f"GET /: {status}")
        if not isinstance(answered, list):
            text = body.decode(errors="replace") if "quotes answers" in flaws else "no list"
            raise Transient(f"GET /: {status}, {text}", retry_after=None if "hears no wishes" in flaws else wait)
        if "trusts shapes" in flaws:
            return [thing for thing in answered if thing["state"]]
        return [
            thing
            for thing in answered
            if isinstance(thing, dict) and isinstance(thing.get("id"), int) and "state" in thing
        ]


class Shelf(Account):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.things: list[dict[str, Any]] = []

    def add(self) -> str:
        self.things.append({"id": len(self.things) + 1, "phone": PHONE})
        self._become(len(self.things), "sending")
        return f"/things/recipients/{len(self.things)}"

    def move(self, subject: str) -> None:
        self._become(int(subject.rpartition("/")[2]), "failed")

    def _become(self, number: int, state: str) -> None:
        self.things[number - 1] |= {"state": state, "at": self.clock.now().isoformat()}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") != SECRET:
            return web.json_response({}, status=401)
        since = datetime.fromisoformat(request.query.get("since", "1970-01-01T00:00:00+00:00"))
        changed = [thing for thing in self.things if datetime.fromisoformat(thing["at"]) >= since]
        return web.json_response(sorted(changed, key=lambda thing: thing["at"]))


def plugin(*flaws: str) -> SourcePlugin:
    settings = Shown if "shows its secret" in flaws else Known
    return SourcePlugin(
        settings, lambda _, values, clock: Things(set(flaws), values, clock), tuple(KIND.events.values())
    )


class TestOneThatKeepsThem(SourceSuite):
    plugin = plugin()
    secrets = (SECRET,)

    def values(self, url: str) -> dict[str, Any]:
        return {"type": "things", "url": url, "token": SECRET}

    def account(self, clock: Clock) -> Account:
        return Shelf(clock)


CASES: list[tuple[str, str, tuple[Any, ...]]] = [
    ("shows its secret", "its_settings_show_no_secret", ()),
    ("tells its secret", "a_probe_says_in_a_line_that_all_is_well", ()),
    ("steps before it has read", "a_process_that_is_killed_before_any_of_its_commits_costs_nothing", ()),
    ("steps with a backfill", "no_page_of_a_backfill_moves_the_cursor", ()),
    ("keeps by time", "a_resource_keeps_its_scope_and_its_key", ()),
    ("keeps by time", "a_backfill_tells_what_is_new_and_nothing_twice", ()),
    ("mixes up details", "details_are_added_to_what_was_asked_about_in_its_order", ()),
    ("takes any name", "a_resource_that_it_does_not_know_is_refused_with_a_reason", ("no such thing",)),
    ("knows no time zones", "pages_say_what_they_should", ()),
    ("shows ten at most", "many_that_come_at_once_are_all_told", ()),
    ("is led away", "a_redirect_brings_nobody_our_credentials", (302,)),
    ("reads without end", "an_answer_without_end_is_not_read_to_its_end", ()),
    (
        "lets errors through",
        "an_answer_that_nobody_can_read_is_a_failure_and_costs_nothing",
        (NONSENSE["half a body"],),
    ),
    ("lets errors through", "a_provider_that_is_down_costs_nothing", ()),
    ("lets errors through", "a_host_without_an_address_is_asked_again", ()),
    ("quotes answers", "a_provider_that_refuses_for_a_while_costs_nothing", (403,)),
    ("quotes answers", "an_answer_that_nobody_can_read_is_a_failure_and_costs_nothing", (NONSENSE["half a document"],)),
    ("knows no operator", "refused_credentials_are_told_apart", ()),
    ("knows no operator", "a_probe_of_a_provider_that_is_away_or_refuses_says_so", ()),
    ("takes failures for emptiness", "a_provider_that_fails_for_a_while_costs_nothing", (500,)),
    ("takes failures for emptiness", "a_provider_that_refuses_for_a_while_costs_nothing", (404,)),
    ("gives up", "a_provider_that_fails_for_a_while_costs_nothing", (503,)),
    ("hears no wishes", "a_wish_for_quiet_is_passed_on", ()),
    ("trusts shapes", "an_answer_of_another_shape_costs_nothing", (SHAPES["[null]"],)),
    ("hurries", "its_budget_holds_within_a_poll", ()),
]


@pytest.mark.parametrize(("flaw", "promise", "given"), CASES, ids=[f"{flaw}: {name}" for flaw, name, _ in CASES])
async def test_a_broken_promise_is_found(tmp_path: Path, flaw: str, promise: str, given: tuple[Any, ...]) -> None:
    suite = TestOneThatKeepsThem()
    suite.plugin = plugin(flaw)
    async with suite.at_work(tmp_path) as work:
        with pytest.raises((Exception, pytest.fail.Exception)):  # noqa: PT011 - whatever makes a test fail
            async with asyncio.timeout(60):
                await getattr(suite, f"test_{promise}")(work, *given)
