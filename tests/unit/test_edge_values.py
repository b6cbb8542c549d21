"""Ids, cursors and times at their edges: no provider's odd value swallows an event, its own or one that follows."""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake, PollResult
from bridge.protocols.ledger import Commit, Ledger
from bridge.sources import govdelivery, marketingcloud, spacivox

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ABSENT = object()
IDS: Mapping[str, str | None] = {
    "0": "0", "-3": "-3", '"0"': "0", '"-4"': "-4", "0.0": "0", "-0.0": "0", "2.5": "2.5", "1e3": "1000", '"x"': "x",
    '"007"': "007", '" 8 "': "8", "9223372036854775807": "9223372036854775807",
    "9223372036854775808": "9223372036854775808", "1e300": "1e+300", f"1{'0' * 38}": f"1{'0' * 38}",
    "true": None, "null": None, '""': None, '"  "': None, "[]": None, "{}": None, "NaN": None, "1e999": None,
}  # fmt: skip
"""JSON texts of an id, and the id that they mean; None is no id."""
TIMES = (
    "null", '""', '"soon"', "0", "-1", "1e300", "true", "[]", '"0001-01-01T00:00:00Z"', '"1969-12-31T23:59:59Z"',
    '"2100-01-01T00:00:00"', '"9999-12-31T23:59:59.999999-23:59"', '"2026-02-30T00:00:00Z"', '"2026-03-01T11:59:60Z"',
)  # fmt: skip
WATERMARKS = ("null", "0", "-1", '"x"', "2.5", "true", "[]", str(2**63), str(10**60), '"1003"', "1003.0", "-1e300")
ids = st.lists(st.sampled_from(sorted(IDS)), max_size=2, unique_by=lambda text: IDS[text] or text)
times = st.sampled_from(TIMES) | st.none()
Answer = Callable[[web.Request], str]


def fields(**values: str | None) -> str:
    """Return a JSON object of JSON texts, without those that are None."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in values.items() if text is not None) + "}"


class World:
    """One provider on a socket, one source that asks it, and a store."""

    def __init__(self, plugin: Any, answer: Answer) -> None:
        self.plugin = plugin
        self.answer = answer
        self.seconds = 0.0

    def run(self, act: Callable[[World], Any], **options: Any) -> None:
        asyncio.run(self._run(act, options))

    async def _run(self, act: Callable[[World], Any], options: Mapping[str, Any]) -> None:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(text=self.answer(request), content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handle)
        clock = Clock(
            lambda: NOW + timedelta(seconds=self.seconds), lambda: self.seconds, self._sleep, random.Random(7)
        )
        with tempfile.TemporaryDirectory() as folder:
            async with TestServer(app) as server:
                url = str(server.make_url("/"))
                where = {"auth_url": url} if self.plugin is marketingcloud.plugin else {"url": url, "token": "t"}
                checked = self.plugin.settings.model_validate({"type": "x", "rate": "5000/s", **where, **options})
                store = SqliteStore(Path(folder) / "bridge.db", clock=clock)
                await store.open()
                source = self.plugin.build("edge", checked, clock)
                self.store: Ledger = store
                self.intake = Intake("edge", "edge", source, store, clock)
                try:
                    await act(self)
                finally:
                    await source.close()
                    await store.close()

    async def _sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)
        await asyncio.sleep(0)

    async def poll(self) -> tuple[PollResult, list[str]]:
        """Poll once; return what came of it, and the subjects of the new events."""
        before = (await self.store.journal("edge")).committed
        lease = await self.store.acquire("source/edge", "me", 1e6)
        assert lease is not None
        result = await self.intake.poll(lease)
        self.seconds += 700.0
        entries = await self.store.read("edge", before, 1000)
        return result, [json.loads(entry.event.body)["subject"].rpartition("/")[2] for entry in entries]


@settings(max_examples=60)
@given(ids, times, st.sampled_from(WATERMARKS) | st.none(), st.sampled_from(["earliest", "latest"]))
@example(["0", "-3"], None, None, "earliest")
@example(['"0"', '"-4"'], None, "0", "earliest")
@example(["0.0"], None, str(2**63), "earliest")
@example(["0"], None, None, "latest")
def test_marketing_cloud_publishes_each_event_once(
    odd: Sequence[str], time: str | None, stated: str | None, start: str
) -> None:
    def event(key: str, number: str | None) -> str:
        info = json.dumps({"messageKey": key})
        return fields(eventID=number, timestamp=time, eventCategoryType='"SMSNotSent"', info=info)

    def after(request: web.Request) -> int:
        return int(request.query.get("lastEventId", -(2**70)))

    def answer(request: web.Request) -> str:
        if request.path == "/v2/token":
            return json.dumps(
                {"access_token": "t", "expires_in": 86400, "rest_instance_url": str(request.url.origin())}
            )
        shown = [(key, number) for key, number, position in feed if after(request) < position]
        return fields(lastEventID=stated, messages=f"[{','.join(event(*pair) for pair in shown)}]")

    feed = [(f"m{number}", str(number), number) for number in (1001, 1002, 1003)]
    feed += [(f"odd{index}", text, 1003) for index, text in enumerate(odd)]
    late = [("late", "1004", 1004), *((f"later{index}", text, 1004) for index, text in enumerate(odd))]

    async def act(world: World) -> None:
        first = sorted(key for key, _, _ in feed) if start == "earliest" else []
        assert sorted((await world.poll())[1]) == first
        feed.extend(late)
        expected = {key for key, number, _ in late if start == "earliest" or number == "1004" or _is_new(number)}
        assert expected <= set((await world.poll())[1])
        assert (await world.poll())[1] == []

    def _is_new(number: str) -> bool:
        """Return whether a first start did not skip the id; one that is no whole number is always new."""
        meant = IDS[number]
        return meant is None or not meant.lstrip("-").isdecimal() or int(meant) > 1003  # noqa: PLR2004 - the last id that the feed of this test has

    World(marketingcloud.plugin, answer).run(act, client_id="c", client_secret="s", start=start, page_size=10)


@settings(max_examples=60)
@given(ids, times)
@example(["0", "-3"], None)
@example(["2.5", "NaN"], '"0001-01-01T00:00:00Z"')
def test_spacivox_publishes_each_record_once(odd: Sequence[str], time: str | None) -> None:
    records = [fields(id="1001", state="0", timestamp='"2026-03-01T11:00:00Z"')]
    records += [fields(id=text, state="0", timestamp=time) for text in odd]

    async def act(world: World) -> None:
        expected = {"1001", *(key for text in odd if (key := IDS[text]) is not None)}
        result, subjects = await world.poll()
        assert sorted(subjects) == sorted(quoted(key) for key in expected)
        assert bool(result.problems) is any(IDS[text] is None for text in odd)
        records.append(fields(id="1002", state="0", timestamp='"2026-03-01T11:30:00Z"'))
        assert (await world.poll())[1] == ["1002"]
        assert (await world.poll())[1] == []

    World(spacivox.plugin, lambda _: f"[{','.join(records)}]").run(act)


@settings(max_examples=60)
@given(ids, times, times)
@example(["0", "-3"], None, None)
@example(['"x"'], '"9999-12-31T23:59:59.999999-23:59"', '"1969-12-31T23:59:59Z"')
def test_govdelivery_publishes_each_recipient_once(
    odd: Sequence[str], created: str | None, completed: str | None
) -> None:
    message = "/messages/sms/5"
    recipients = ["1001", *odd]

    def answer(request: web.Request) -> str:
        if request.path == message:
            return fields(
                status='"sending"', created_at=created, completed_at=completed, _links=json.dumps({"self": message}),
                recipient_counts=json.dumps({"total": len(recipients), "sent": len(recipients)}),
            )  # fmt: skip
        shown = (fields(id=text, status='"sent"', created_at=created, completed_at=completed) for text in recipients)
        return f"[{','.join(shown)}]"

    async def act(world: World) -> None:
        expected = {"5", "1001", *(key for text in odd if (key := IDS[text]) is not None)}
        result, subjects = await world.poll()
        assert sorted(subjects) == sorted(expected)
        assert bool(result.problems) is any(IDS[text] is None for text in odd)
        recipients.append("1002")
        assert (await world.poll())[1] == ["1002"]
        assert (await world.poll())[1] == []

    World(govdelivery.plugin, answer).run(act, messages=[message], discover=False)


def quoted(key: str) -> str:
    return key.replace("+", "%2B")


STORED = (
    "", "null", "0", "-1", "x", "2.5", "true", "[]", "{}", "NaN", "1e999", str(2**63), str(-(2**63) - 1), "1" * 60, "\x00",
    "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59",
    '{"due":null,"found":"x"}', '{"due":1e999,"found":-1}', '{"until":"x","deep":null}', '{"until":1e300,"deep":-1e300}',
    '{"due":0,"found":0,"sweep":{"todo":[[1,2]],"started":"x","settled":[]}}', '{"due":true,"found":[],"counts":"x"}',
)  # fmt: skip
"""What an entry of a cursor may be in a store that another version, or another program, wrote to."""


def _providers() -> dict[str, tuple[Any, Mapping[str, Any], Callable[[list[str]], Answer]]]:
    def marketing_cloud(numbers: list[str]) -> Answer:
        def answer(request: web.Request) -> str:
            if request.path == "/v2/token":
                return json.dumps(
                    {"access_token": "t", "expires_in": 3600, "rest_instance_url": str(request.url.origin())}
                )
            after = int(request.query.get("lastEventId", "-1"))
            shown = [number for number in numbers if int(number) > after]
            events = (
                fields(eventID=number, eventCategoryType='"SMSNotSent"', info=f'{{"messageKey":"{number}"}}')
                for number in shown
            )
            return fields(lastEventID=shown[-1] if shown else None, messages=f"[{','.join(events)}]")

        return answer

    def spacivox_records(numbers: list[str]) -> Answer:
        return lambda _: f"[{','.join(fields(id=n, state='0', timestamp=STAMP) for n in numbers)}]"

    def govdelivery_messages(numbers: list[str]) -> Answer:
        def answer(request: web.Request) -> str:
            message = {
                "status": '"completed"',
                "created_at": STAMP,
                "completed_at": STAMP,
                "recipient_counts": '{"total":0}',
            }
            if request.path == "/messages/sms":
                listed = (fields(id=n, _links=f'{{"self":"/messages/sms/{n}"}}', **message) for n in reversed(numbers))
                return f"[{','.join(listed)}]"
            return fields(**message) if request.path.rpartition("/")[2] in numbers else "[]"

        return answer

    return {
        "marketingcloud": (marketingcloud.plugin, {"client_id": "c", "client_secret": "s"}, marketing_cloud),
        "spacivox": (spacivox.plugin, {}, spacivox_records),
        "govdelivery": (govdelivery.plugin, {"channels": ["sms"]}, govdelivery_messages),
    }


STAMP = '"2026-03-01T11:00:00Z"'
PROVIDERS = _providers()


@pytest.mark.parametrize("name", PROVIDERS)
def test_no_stored_cursor_stops_a_source_or_repeats(name: str) -> None:
    """Entries of the cursor with odd values, all and one by one: what is new comes, and nothing comes twice."""
    plugin, options, serve = PROVIDERS[name]
    numbers = ["1001", "1002"]

    async def act(world: World) -> None:
        assert sorted((await world.poll())[1]) == ["1001", "1002"]
        own = [key for key in await world.store.cursor("edge") if not key.startswith("~")]
        assert own
        for index, value in enumerate(STORED):
            for keys in (own, [own[index % len(own)]]):
                lease = await world.store.acquire("source/edge", "me", 1e6)
                await world.store.commit(lease, Commit("edge", cursor=dict.fromkeys(keys, value)))
                numbers.append(str(int(numbers[-1]) + 1))
                published = [*(await world.poll())[1], *(await world.poll())[1]]
                assert published == numbers[-1:], (keys, value)

    World(plugin, serve(numbers)).run(act, **options)


@settings(max_examples=60)
@given(ids, times, times)
@example(["0", "-3"], None, None)
@example(["0.0", "2.5"], '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999-23:59"')
def test_govdelivery_follows_each_listed_message_once(
    odd: Sequence[str], created: str | None, completed: str | None
) -> None:
    """The list of messages: no odd id or time of one hides it, or one that stands next to it."""
    listed = ["1001", *odd]

    def answer(request: web.Request) -> str:
        message = {"status": '"sending"', "recipient_counts": '{"total":0}'}
        if request.path == "/messages/sms":
            shown = (fields(id=text, created_at=created, completed_at=completed, **message) for text in listed)
            return f"[{','.join(shown)}]"
        return "[]" if "/recipients" in request.path else fields(created_at=created, completed_at=completed, **message)

    async def act(world: World) -> None:
        expected = {"1001", *(key for text in odd if (key := IDS[text]) is not None and PLAIN.fullmatch(key))}
        result, subjects = await world.poll()
        assert sorted(subjects) == sorted(expected)
        assert bool(result.problems) is (len(expected) < len(listed))
        listed.append("1002")
        assert (await world.poll())[1] == ["1002"]
        assert (await world.poll())[1] == []

    World(govdelivery.plugin, answer).run(act, channels=["sms"])


PLAIN = re.compile(r"[0-9A-Za-z_.+-]+")
"""Ids that can stand in a path."""
