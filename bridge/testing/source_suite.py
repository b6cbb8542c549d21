"""The promises of a source that asks over HTTP, each a test: subclass it, say how your provider answers, run pytest."""

# ruff: noqa: D102 - a test's name is its promise

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.catalogue import INTERNAL_EVENTS, Catalogue
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Transient, Unauthorized
from bridge.ingest.intake import INTERNAL_PREFIX, Intake
from bridge.protocols.ledger import Commit, Lease, Ledger
from bridge.protocols.source import Observation, Page, ResourceType, Source, SourcePlugin, SourceSettings
from bridge.testing.fake_endpoint import FakeEndpoint, Step, drip, raw, redirect, reply, reset, silence, torn
from bridge.testing.fakes import Jumping

PHONE = "+16515551000"
EMAIL = "jane.roe@example.com"
CANARIES = (PHONE, "6515551000", EMAIL, "answer-canary")
"""What must never be found in an error, a problem or a log; `SourceSuite.secrets` adds those of the settings."""
NAME = "suite"
_TIMEOUT_SECONDS = 30.0
_POLLS = 200
_REQUESTS = 60
_PAGE_GAP_SECONDS = 0.02
_HUGE_BYTES = 128 * 1024 * 1024
_DAY = timedelta(days=1)
_JSON = {"Content-Type": "application/json"}
_COMPLAINT = f'{{"error": "answer-canary", "message": "no luck with {PHONE} and {EMAIL}"}}'.encode()

PASSING = (408, 425, 429, 500, 502, 503, 504, 599)
"""Statuses after which the same question may be answered."""
REFUSALS = (400, 403, 404, 405, 406, 409, 410, 413, 414, 415, 418, 422, 451)
NONSENSE: dict[str, Step] = {
    "a page of HTML": reply(200, b"<html>answer-canary</html>", {"Content-Type": "text/html"}),
    "HTML that is called JSON": reply(200, b"<html>answer-canary</html>", _JSON),
    "nothing at all": reply(200, b"", _JSON),
    "half a body": torn(200, b'[{"id": 7, "phone": "answer-canary'),
    "half a document": reply(200, b'[{"id": 7, "phone": "answer-canary', _JSON),
    "no text": reply(200, b"\xff\xfe\x00answer-canary", _JSON),
    "a broken archive": reply(200, b"answer-canary", {**_JSON, "Content-Encoding": "gzip"}),
    "brackets without end": reply(200, b"[" * 200_000, _JSON),
    "no HTTP": raw(b"answer-canary, and not HTTP\r\n\r\n"),
    "a reset": reset(),
}
"""Answers that no provider means, and that nobody can read."""
SHAPES: dict[str, Step] = {
    text.decode(): reply(200, text, _JSON)
    for text in (
        b"null", b"true", b"42", b"1e999", b'"answer-canary"', b"[]", b"{}", b"[null]", b"[[]]", b"[7]", b'[""]',
        b"[{}]", b'{"error": "answer-canary"}', b'[{"id": null}]', b'[{"id": {}, "status": [], "state": {}}]',
        b'{"items": 7, "messages": {}, "events": "answer-canary"}',
    )
}  # fmt: skip
"""JSON that is of another shape than was asked for."""


class Account(ABC):
    """A provider's account as your source sees it: resources that come and move, and the answers about them.

    Give people the number `PHONE` or the address `EMAIL`: the suite looks for them where they must not be. `clock` is
    the time by which the source goes; hours of it go by within a second.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @abstractmethod
    def add(self) -> str:
        """Have something new, as of now; return its path, which is its events' `subject`."""

    @abstractmethod
    def move(self, subject: str) -> None:
        """Let one more thing happen to it, as of now; it is called once for each."""

    @abstractmethod
    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as the provider does, wrong credentials too."""

    async def open(self) -> None:  # noqa: B027 - most have nothing to begin
        """Begin."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End."""


class _Apart:
    """A source whose pages come so far apart that each is committed before the next one is there."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncGenerator[Page]:
        async with aclosing(cast("AsyncGenerator[Page]", self._source.pages(cursor, watched))) as pages:
            async for page in pages:
                yield page
                await asyncio.sleep(_PAGE_GAP_SECONDS)


class _Killed(LeaseLost):
    """The process ends before a commit; the intake lets this through as it is."""


class _Mortal:
    """A ledger whose holder is killed before one of its commits."""

    def __init__(self, ledger: SqliteStore) -> None:
        self._ledger = ledger
        self.left: int | None = None
        """How many commits are made still; None for no end."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise _Killed("killed")
        return await self._ledger.commit(lease, commit)


@dataclass
class Work:
    """A source at work, as the service has it: its intake, a ledger of its own, and a provider that can be harmed."""

    suite: _SourceFixtures
    provider: FakeEndpoint
    account: Account
    store: SqliteStore
    time: Jumping
    baseline: bool = False
    wanted: Counter[str] = field(default_factory=Counter)
    """How many things happened to each resource that are to be told."""
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = _Mortal(self.store)
        self.catalogue = self.suite.catalogue
        self.begin()

    def begin(self, *, apart: bool = False) -> None:
        """Be a new process on the same ledger; `apart` is for one that commits each page by itself."""
        self.source = self.suite.make(self.provider.url, self.time.clock)
        self.sources.append(self.source)
        kind = self.suite.values(self.provider.url)["type"]
        # Both stand-ins pass on what they do not change.
        source = cast("Source", _Apart(self.source)) if apart else self.source
        ledger = cast("Ledger", self.ledger)
        self.intake = Intake(NAME, kind, source, ledger, self.time.clock, baseline=self.baseline)

    def add(self, count: int = 1) -> list[str]:
        """Have so many new resources, which are to be told."""
        subjects = [self.account.add() for _ in range(count)]
        self.wanted.update(subjects)
        return subjects

    def move(self, subject: str) -> None:
        """Let one more thing happen to a resource, which is to be told."""
        self.account.move(subject)
        self.wanted[subject] += 1

    async def lease(self) -> Lease:
        """Return the lease under which it is polled."""
        lease = await self.store.acquire(f"source/{NAME}", "suite", 1e9)
        assert lease is not None
        return lease

    async def poll(self) -> BridgeError | None:
        """Poll once, an interval after the last time; return what it failed with, which is fit for a log."""
        self.time.ahead += self.suite.interval
        lease = await self.lease()
        error: BridgeError | None = None
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self.intake.poll(lease)
        except BridgeError as raised:
            error = raised
            self.suite.check_text(str(error), f"{error!r} {error.__cause__!r}")
        for problem in self.source.problems:
            self.suite.check_text(problem)
        return error

    async def published(self) -> Counter[str]:
        """Return how much was told of each resource; no id stands twice in the journal, and each event can be read."""
        counter: Counter[str] = Counter()
        ids: set[str] = set()
        after = (await self.store.journal(NAME)).base
        while entries := await self.store.read(NAME, after, 1000):
            after = entries[-1].position.seq
            for entry in entries:
                event = self.catalogue.read(entry.event.body)
                assert event.id not in ids, f"{event.topic} of {event.subject} is told twice"
                ids.add(event.id)
                assert event.data.status != "unknown", f"{event.subject}: {event.data.model_dump()}"
                counter[event.subject] += 1
        return Counter({subject: counter[subject] for subject in self.wanted if counter[subject]})

    async def publish_all(self) -> None:
        """Poll until all that happened was told, and a few times more: not less and not more than once."""
        rest = _POLLS
        while await self.published() < self.wanted or self.source.behind:
            assert rest, (
                f"not published after {_POLLS} polls: {self.wanted - await self.published()}; {self.source.problems}"
            )
            rest -= 1
            await self.poll()
        for _ in range(3):
            assert await self.poll() is None
        assert await self.published() == self.wanted

    async def pages(self) -> list[Page]:
        """Return what a first poll yields, without writing anything down."""
        return [page async for page in self.source.pages({}, ())]


@dataclass
class Harm:
    """What was said of a provider that did what it should not."""

    errors: list[BridgeError] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, error: BridgeError | None, problems: Sequence[str]) -> None:
        """Take note of what one poll said."""
        self.errors += [error] if error else []
        self.problems += problems

    @property
    def noticed(self) -> bool:
        """Whether anything was said."""
        return bool(self.errors or self.problems)

    def all_are(self, kind: type[BridgeError]) -> bool:
        """Say whether there were errors, all of them of this kind."""
        return bool(self.errors) and all(isinstance(error, kind) for error in self.errors)


class _SourceFixtures:
    """A provider, and a source that polls it."""

    plugin: SourcePlugin
    """What the entry point names."""
    secrets: tuple[str, ...] = ()
    """Secrets in `values`; none may be found in an error's text or in a log."""
    several = 120
    """How many resources come at once where there are many."""
    interval = 60.0
    """Seconds between two polls."""

    @abstractmethod
    def values(self, url: str) -> dict[str, Any]:
        """Return the settings, as they stand in a configuration, of a source that asks at `url`."""

    @abstractmethod
    def account(self, clock: Clock) -> Account:
        """Return an empty account."""

    def make(self, url: str, clock: Clock, rate: str = "1000/s") -> Source:
        """Return a source that asks at `url`."""
        return self.plugin.build(NAME, self.settings(url, rate), clock)

    def settings(self, url: str, rate: str = "1000/s") -> SourceSettings:
        """Return the settings of a source that asks at `url`."""
        return self.plugin.settings.model_validate(
            {**self.values(url), "interval": f"{self.interval:g}s", "rate": rate}
        )

    @property
    def catalogue(self) -> Catalogue:
        """All events that may come of it."""
        return Catalogue((*self.plugin.events, *INTERNAL_EVENTS))

    def check_text(self, text: str, more: str = "") -> None:
        """Fail unless `text` is one line that is fit for a log."""
        assert text
        assert "\n" not in text
        output = f"{text} {more}"
        assert [canary for canary in (*CANARIES, *self.secrets) if canary in output] == []

    @pytest.fixture
    async def work(self, tmp_path: Path) -> AsyncIterator[Work]:
        """Start a provider, and a source that asks it."""
        async with self.at_work(tmp_path) as work:
            yield work

    @asynccontextmanager
    async def at_work(self, folder: Path, *, baseline: bool = False) -> AsyncIterator[Work]:
        time = Jumping()
        account = self.account(time.clock)
        store = SqliteStore(folder / "suite.db", clock=time.clock)
        await store.open()
        await account.open()
        async with FakeEndpoint(default=account.answer) as provider:
            work = Work(self, provider, account, store, time, baseline=baseline)
            try:
                yield work
            finally:
                for source in work.sources:
                    await source.close()
                await account.close()
                await store.close()

    @pytest.fixture(autouse=True)
    def nothing_secret_is_printed(
        self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> Iterator[None]:
        """Look through everything that was printed and logged, debug lines too."""
        caplog.set_level(logging.DEBUG)
        yield
        output = "".join(capfd.readouterr()) + caplog.text
        assert [canary for canary in (*CANARIES, *self.secrets) if canary in output] == []

    async def harmed(self, work: Work, step: Step) -> Harm:
        """Poll while the provider does `step` to every request, before anything was seen and after it.

        Whatever it does, that is a failure or a problem and no other exception, and all is told once it is well.
        """
        harm = Harm()
        subject, _ = work.add(2)
        await self.suffers(work, step, harm)
        work.move(subject)
        work.add()
        await self.suffers(work, step, harm)
        return harm

    async def suffers(self, work: Work, step: Step, harm: Harm) -> None:
        """Poll while the provider does `step` to every request, then until all was told; note what was said of it."""
        work.provider.default = step
        harm.note(await work.poll(), work.source.problems)
        work.provider.default = work.account.answer
        await work.publish_all()


class _EventPromises(_SourceFixtures):
    """Every status becomes an event, once."""

    async def test_making_one_asks_nothing_and_it_can_be_closed_twice(self, work: Work) -> None:
        await work.source.close()
        await work.source.close()
        assert work.provider.requests == []

    async def test_its_settings_show_no_secret(self, work: Work) -> None:
        settings = self.settings(work.provider.url)
        shown = f"{settings!r} {settings} {settings.model_dump_json()}"
        assert [secret for secret in self.secrets if secret in shown] == []

    async def test_an_empty_account_is_no_failure(self, work: Work) -> None:
        await work.publish_all()
        assert work.provider.requests

    async def test_what_is_new_is_told_once(self, work: Work) -> None:
        work.add(3)
        await work.publish_all()

    async def test_what_happens_to_it_later_is_told_once_each_time(self, work: Work) -> None:
        first, second = work.add(2)
        await work.publish_all()
        work.move(first)
        await work.publish_all()
        work.add()
        work.move(second)
        await work.publish_all()

    async def test_many_that_come_at_once_are_all_told(self, work: Work) -> None:
        work.add(self.several)
        await work.publish_all()

    async def test_the_same_cursor_shows_the_same(self, work: Work) -> None:
        work.add(3)
        shown = [
            [
                (observation.scope, observation.key, observation.status)
                for page in await work.pages()
                for observation in page.observations
            ]
            for _ in range(2)
        ]
        assert shown[0] == shown[1]

    async def test_a_new_process_goes_on_where_the_last_one_stood(self, work: Work) -> None:
        first, second = work.add(2)
        await work.publish_all()
        work.begin()
        await work.publish_all()
        work.move(first)
        work.begin()
        await work.publish_all()
        work.add()
        work.move(second)
        work.begin()
        await work.publish_all()

    async def test_process_killed_before_any_commit_loses_nothing(self, work: Work) -> None:
        for made in range(_REQUESTS):
            first, _ = work.add(2)
            work.ledger.left = made
            work.begin(apart=True)
            error = await work.poll()
            work.ledger.left = None
            if not isinstance(error, _Killed):
                break
            work.begin()
            await work.publish_all()
            work.move(first)
            await work.publish_all()
        assert made, "it was never killed"
        await work.publish_all()

    async def test_poll_interrupted_after_any_page_loses_nothing(self, work: Work) -> None:
        work.add(5)
        for pages in range(_REQUESTS):
            seen = 0
            async with aclosing(cast("AsyncGenerator[Page]", work.source.pages({}, ()))) as reading:
                while seen < pages and await anext(reading, None) is not None:
                    seen += 1
            if seen < pages:
                break
        await work.publish_all()

    async def test_a_backfill_tells_what_is_new_and_nothing_twice(self, work: Work) -> None:
        known = work.add(2)
        await work.publish_all()
        work.add(2)
        work.move(known[0])
        work.time.ahead += self.interval
        cursor = await work.store.cursor(NAME)
        now = work.time.now()
        await work.intake.backfill(now - _DAY, now + timedelta(minutes=1))
        assert await work.store.cursor(NAME) == cursor
        await work.publish_all()
        await work.intake.backfill(now - _DAY, work.time.now())
        assert await work.published() == work.wanted

    async def test_baseline_publishes_only_changes_after_first_start(self, tmp_path: Path) -> None:
        async with self.at_work(tmp_path, baseline=True) as work:
            old = [work.account.add() for _ in range(3)]
            work.wanted = Counter(dict.fromkeys(old, 0))
            await work.publish_all()
            work.move(old[0])
            work.add()
            await work.publish_all()


class _PagePromises(_SourceFixtures):
    """What a page of the source holds."""

    async def test_pages_say_what_they_should(self, work: Work) -> None:
        work.add(3)
        began = work.time.now()
        pages = await work.pages()
        ended = work.time.now()
        assert any(page.observations for page in pages)
        for page in pages:
            assert began <= page.by <= ended
            assert page.by.tzinfo is not None
            assert page.after is None or page.after.tzinfo is not None
            assert not [name for name in page.cursor if name.startswith(INTERNAL_PREFIX)]
            assert {type(value) for value in page.cursor.values()} <= {str, type(None)}
            assert isinstance(page.unchanged, int)
            for observation in page.observations:
                assert {type(value) for value in (observation.scope, observation.key, observation.status)} == {str}
                assert "" not in (observation.scope, observation.key, observation.status)
        assert work.source.retention > 0

    async def test_no_page_of_a_backfill_moves_the_cursor(self, work: Work) -> None:
        work.add(3)
        now = work.time.now()
        pages = [page async for page in work.source.backfill(now - _DAY, now + timedelta(minutes=1))]
        assert any(page.observations for page in pages)
        assert [dict(page.cursor) for page in pages if page.cursor] == []

    async def test_a_resource_keeps_its_scope_and_its_key(self, work: Work) -> None:
        subjects = set(work.add(3))

        async def names() -> dict[str, tuple[str, str]]:
            return {
                observation.kind.describe(observation).subject: (observation.scope, observation.key)
                for page in await work.pages()
                for observation in page.observations
            }

        before = await names()
        assert subjects <= set(before)
        for subject in subjects:
            work.move(subject)
        work.time.ahead += self.interval
        after = await names()
        assert {subject: after[subject] for subject in subjects} == {subject: before[subject] for subject in subjects}

    async def test_every_status_has_an_event_that_is_announced(self, work: Work) -> None:
        work.add(2)
        kinds: list[ResourceType] = []
        for page in await work.pages():
            kinds += [observation.kind for observation in page.observations if observation.kind not in kinds]
        announced = set(self.catalogue.types)
        for kind in kinds:
            assert set(kind.events) == set(kind.lifecycle.statuses)
            for status, event in kind.events.items():
                assert event in announced, f"{event.__name__} is neither of the catalogue nor of the plugin's events"
                assert (event.status, event.entity) == (status, kind.entity)
                assert kind.channel in event.channels

    async def test_details_are_added_in_the_order_of_observations(self, work: Work) -> None:
        work.add(5)
        seen = [observation for page in await work.pages() for observation in page.observations]
        completed = await work.source.complete(seen)
        assert [name(observation) for observation in completed] == [name(observation) for observation in seen]


class _OperatorPromises(_SourceFixtures):
    """What an operator can ask the source."""

    async def test_a_probe_says_in_a_line_that_all_is_well(self, work: Work) -> None:
        work.add()
        probe = await work.source.probe()
        self.check_text(probe.summary)
        assert math.isfinite(probe.requests_per_day)
        assert probe.requests_per_day > 0
        assert work.provider.requests
        await work.publish_all()

    async def test_a_probe_reports_a_provider_that_fails_or_refuses(self, work: Work) -> None:
        work.provider.default = reply(401, _COMPLAINT, _JSON)
        with pytest.raises(Unauthorized) as refused:
            await work.source.probe()
        self.check_text(str(refused.value))
        await work.provider.stop()
        with pytest.raises(Transient) as away:
            await work.source.probe()
        self.check_text(str(away.value))

    @pytest.mark.parametrize("text", ["", "no such thing", "/../../etc/passwd", "\n", "https://example.com/?a=b"])
    async def test_unknown_resource_is_refused_with_a_reason(self, work: Work, text: str) -> None:
        with pytest.raises(ValueError, match=r"\w") as refused:
            work.source.resource(text)
        assert not isinstance(refused.value, UnicodeError)
        assert work.provider.requests == []


class _FaultPromises(_SourceFixtures):
    """No fault of the provider costs an event."""

    @pytest.mark.parametrize("status", PASSING)
    async def test_a_provider_that_fails_for_a_while_costs_nothing(self, work: Work, status: int) -> None:
        harm = await self.harmed(work, reply(status, _COMPLAINT, _JSON))
        assert harm.all_are(Transient), harm

    @pytest.mark.parametrize("status", REFUSALS)
    async def test_a_provider_that_refuses_for_a_while_costs_nothing(self, work: Work, status: int) -> None:
        assert (await self.harmed(work, reply(status, _COMPLAINT, _JSON))).noticed

    async def test_refused_credentials_are_told_apart(self, work: Work) -> None:
        harm = await self.harmed(work, reply(401, _COMPLAINT, _JSON))
        assert harm.all_are(Unauthorized), harm

    async def test_a_wish_for_quiet_is_passed_on(self, work: Work) -> None:
        harm = await self.harmed(work, reply(429, _COMPLAINT, {**_JSON, "Retry-After": "177"}))
        assert harm.errors
        for error in harm.errors:
            assert isinstance(error, Transient)
            assert error.retry_after == pytest.approx(177, abs=2)

    @pytest.mark.parametrize("step", NONSENSE.values(), ids=NONSENSE.keys())
    async def test_unreadable_answer_is_a_failure_and_loses_nothing(self, work: Work, step: Step) -> None:
        assert (await self.harmed(work, step)).noticed

    @pytest.mark.parametrize("step", SHAPES.values(), ids=SHAPES.keys())
    async def test_an_answer_of_another_shape_costs_nothing(self, work: Work, step: Step) -> None:
        await self.harmed(work, step)

    @pytest.mark.parametrize("status", [202, 204, 206])
    async def test_a_success_without_an_answer_costs_nothing(self, work: Work, status: int) -> None:
        await self.harmed(work, reply(status))

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_brings_nobody_our_credentials(self, work: Work, status: int) -> None:
        async with FakeEndpoint(default=reply(200, b"[]", _JSON)) as elsewhere:
            assert (await self.harmed(work, redirect(f"{elsewhere.url}/elsewhere", status))).noticed
            assert elsewhere.requests == []

    @pytest.mark.parametrize("step", [silence(), drip()], ids=["silent", "dripping"])
    async def test_endless_provider_can_be_left(self, work: Work, step: Step) -> None:
        work.add(2)
        work.provider.default = step
        polling = asyncio.ensure_future(work.intake.poll(await work.lease()))
        await work.provider.arrived(1)
        polling.cancel()
        await asyncio.wait([polling], timeout=_TIMEOUT_SECONDS)
        assert polling.done()
        work.provider.default = work.account.answer
        await work.publish_all()

    async def test_an_answer_without_end_is_not_read_to_its_end(self, work: Work) -> None:
        whole: list[bool] = []

        async def huge(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers=_JSON)
            await response.prepare(request)
            block = b" " * (1024 * 1024)
            whole.append(False)
            for _ in range(_HUGE_BYTES // len(block)):
                await response.write(block)
            whole[-1] = True
            return response

        assert (await self.harmed(work, huge)).noticed
        assert whole
        assert not any(whole)

    async def test_a_provider_that_is_down_costs_nothing(self, work: Work) -> None:
        subject, _ = work.add(2)
        await work.provider.stop()
        assert isinstance(await work.poll(), Transient)
        await work.provider.start(work.provider.port)
        await work.publish_all()
        work.move(subject)
        await work.provider.stop()
        assert isinstance(await work.poll(), Transient)
        await work.provider.start(work.provider.port)
        await work.publish_all()

    async def test_a_host_without_an_address_is_asked_again(self, work: Work) -> None:
        source = self.make("http://nowhere.invalid", work.time.clock)
        try:
            with pytest.raises(Transient) as caught:
                [page async for page in source.pages({}, ())]
        finally:
            await source.close()
        self.check_text(str(caught.value))

    @pytest.mark.parametrize("step", [reply(500), NONSENSE["half a body"], reset()], ids=["500", "torn", "reset"])
    async def test_any_one_request_that_fails_costs_nothing(self, work: Work, step: Step) -> None:
        for good in range(_REQUESTS):
            subjects = work.add(3)
            before = len(work.provider.requests)
            work.provider.answer(*[work.account.answer] * good, step)
            await work.poll()
            if len(work.provider.requests) - before <= good:
                work.provider.forget()
                break
            await work.publish_all()
            work.move(subjects[0])
        assert good, "no request was made"
        await work.publish_all()

    async def test_baseline_survives_a_failed_request_at_first_start(self, tmp_path: Path) -> None:
        for good in range(_REQUESTS):
            folder = tmp_path / str(good)
            folder.mkdir()
            async with self.at_work(folder, baseline=True) as work:
                old = [work.account.add() for _ in range(3)]
                work.wanted = Counter(dict.fromkeys(old, 0))
                work.provider.answer(*[work.account.answer] * good, reply(500))
                await work.poll()
                enough = len(work.provider.requests) <= good
                work.provider.forget()
                await work.publish_all()
                work.move(old[1])
                await work.publish_all()
            if enough:
                break
        assert good, "no request was made"

    async def test_its_budget_holds_within_a_poll(self, work: Work) -> None:
        clock = Clock()
        account = self.account(clock)
        await account.open()
        arrived: list[float] = []

        async def counting(request: web.BaseRequest) -> web.StreamResponse:
            arrived.append(clock.monotonic())
            return await account.answer(request)

        work.provider.default = counting
        for _ in range(self.several):
            account.add()
        source = self.make(work.provider.url, clock, rate="8/s")
        try:
            async with asyncio.timeout(4):
                async for _ in source.pages({}, ()):
                    pass
        except TimeoutError:
            pass  # long enough to see its pace
        finally:
            await source.close()
            await account.close()
        assert arrived
        assert [
            later - earlier for earlier, later in zip(arrived, arrived[8:], strict=False) if later - earlier < 1
        ] == []


class SourceSuite(_EventPromises, _PagePromises, _OperatorPromises, _FaultPromises):
    """Subclass it as `TestMySource(SourceSuite)`, and define `plugin`, `values` and `account`.

    The promises are those of `bridge.source.Source`, and those that hold for every source that asks over HTTP: whatever
    a provider does, nothing is lost, nothing is told twice, and no secret is told. pytest needs `asyncio_mode =
    "auto"`.
    """


def name(observation: Observation) -> Sequence[str]:
    """Return what an observation is called and says."""
    return observation.scope, observation.key, observation.status
