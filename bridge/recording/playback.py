"""Plays one source's polls of a tape: each answer comes at its time and in its order, and the network is not asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, Permanent
from bridge.http.client import HttpRequest
from bridge.http.errors import NotFound, ProviderError, Throttled, TooLarge
from bridge.http.response import RequestFailure, Response
from bridge.protocols.source import Page
from bridge.recording.files import Begun, Line, Poll, TapeError, moment
from bridge.recording.frozen_clock import FrozenTime, PollContext, advance_to
from bridge.recording.places import place
from bridge.recording.recorder import REQUEST
from bridge.recording.redaction import GRANTED, JSON, TORN

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OK_STATUS = 200
_NOT_FOUND_STATUS = 404
_STEP = ("", "step")
_QUIET_AFTER = 25
"""Turns of the event loop in which a source that has all it asked for asks for more, if it ever will."""
_SETTLED_AFTER_TURNS = 3


@dataclass(frozen=True, slots=True, order=True)
class UnmatchedRequest:
    """A request that the tape has no answer for: the configuration, or the version, asks otherwise."""

    source: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.source}: {self.method} {self.path}"


@dataclass(slots=True)
class Summary:
    """What a replay came to."""

    polls: int = 0
    events: int = 0
    failures: list[str] = field(default_factory=list)
    """The polls that failed, and the resources that did, as the running service would have told them."""
    missing: Counter[UnmatchedRequest] = field(default_factory=Counter)
    """Requests without an answer on the tape, and how often each was made."""
    unasked: int = 0
    """Answers on the tape that nobody asked for."""
    passed_over: list[str] = field(default_factory=list)
    """Sources on the tape that the configuration does not have, or has as another type."""


class RecordingExhausted(Exception):
    """The tape breaks off in the middle of a poll; no source takes this for a provider's failure."""


@dataclass(slots=True)
class ReplayTime:
    """The time of everybody else, whose work overlaps in no certain order: that of the end of the poll."""

    at: datetime = _EPOCH

    def clock(self) -> Clock:
        """Return a clock that shows it, and whose waits are over at once."""
        return Clock(now=self._now, monotonic=self._monotonic, sleep=self._sleep)

    def _now(self) -> datetime:
        return self.at

    def _monotonic(self) -> float:
        return self.at.timestamp()

    async def _sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request that waits for its turn, or a step."""

    key: tuple[str, str]
    answer: asyncio.Future[Line | None]


class Playback:
    """The playback of one source: gives the answers of a poll in the order in which they came.

    Where several requests are under way, which of their answers came first decides what follows, and so does how many
    pages had been asked for before. So each answer and each step waits until all that came before it are through,
    unless the source has come to rest and asks for none of them.
    """

    def __init__(self, name: str, now: ReplayTime, summary: Summary) -> None:
        self._name = name
        self._now = now
        self._summary = summary
        self._poll: Poll | None = None
        self._left: deque[Line] = deque()
        self._given: dict[tuple[str, str], Line] = {}
        self._completions: deque[Begun] = deque()
        self._waiting: list[_Waiting] = []
        self._busy = 0
        self._moves = 0
        self._move = asyncio.Event()

    async def play(self, poll: Poll, work: Awaitable[Any]) -> None:
        """Give the poll's answers while `work` asks for them; raises what `work` raises."""
        self._poll, self._left = poll, deque(poll.course)
        self._completions = deque(poll.completions)
        self._given = {}
        giving, working = asyncio.ensure_future(self._give()), asyncio.ensure_future(work)
        try:
            await asyncio.wait([giving, working], return_when=asyncio.FIRST_COMPLETED)
            (working if working.done() else giving).result()
        finally:
            giving.cancel()
            working.cancel()
            await asyncio.gather(giving, working, return_exceptions=True)
            self._summary.unasked += sum(line["line"] == "answer" for line in self._left)
            self._waiting.clear()

    def begin(self, cursor: Mapping[str, str], watched: Sequence[str]) -> PollContext:
        """Begin the poll at the time at which it began."""
        del cursor, watched
        poll = self._poll
        if poll is None:
            raise TapeError(f"{self._name}: a poll that is not on the tape")
        return PollContext(self, _frozen_time(poll.begun))

    async def step(self) -> None:
        """Wait until it is the step's turn."""
        await self._turn(_STEP)

    def page(self, page: Page) -> None:
        """Do nothing: what pages lead to is in the ledger."""

    def ended(self, error: Exception | None) -> None:
        """Do nothing: the poller gets the error."""

    def completing(self) -> PollContext:
        """Begin to look up details when the recorded run did."""
        now = self._now.at
        begun = self._completions.popleft() if self._completions else Begun(now, now.timestamp(), 0)
        return PollContext(self, _frozen_time(begun))

    def completed(self) -> None:
        """Do nothing: the caller has the details."""

    async def send(
        self, request: HttpRequest, ask: Callable[[], Awaitable[Response | RequestFailure]]
    ) -> Response | RequestFailure:
        """Return what came at that time; the network is not asked."""
        del ask
        key = (request.method, place(request))
        # Who asks once more than the recorded run within one poll is told the same once more.
        line = await self._turn(key) or self._given.get(key)
        if line is None:
            return self._none(request)
        self._given[key] = line
        at = moment(line["at"])
        advance_to(at, line["monotonic"])
        return self._outcome(request, line, at)

    def _none(self, request: HttpRequest) -> Response | RequestFailure:
        if request.method != hdrs.METH_GET:
            # A token that the recorded run still had; it opens nothing here.
            at = self._now.at
            return _answer(request, {"status": _OK_STATUS, GRANTED: True, JSON: {}}, at, at)
        self._summary.missing[UnmatchedRequest(self._name, request.method, place(request))] += 1
        # As if it were not there: a source goes on without it where it can, and the others are not delayed.
        return RequestFailure(NotFound(f"{request.what}: the tape has no answer to it", status=_NOT_FOUND_STATUS))

    def _outcome(self, request: HttpRequest, line: Line, at: datetime) -> Response | RequestFailure:
        if "failure" in line:
            return _failure(request, line["failure"])
        return _answer(request, line, moment(line["asked"]), at)

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    def busy(self, by: int) -> None:
        """Note that the ledger has work, or one piece less: until it has none, nothing is at rest."""
        self._busy += by
        self._moved()

    def _moved(self) -> None:
        self._moves += 1
        self._move.set()

    async def _turn(self, key: tuple[str, str]) -> Line | None:
        """Wait for the line of the tape that belongs to a request or a step; None where it has none."""
        waiting = _Waiting(key, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._moved()
        try:
            return await waiting.answer
        finally:
            self._moved()
            with suppress(ValueError):
                self._waiting.remove(waiting)

    async def _give(self) -> None:
        while True:
            await self._move.wait()
            self._move.clear()
            while self._waiting:
                await self._give_next()

    async def _give_next(self) -> None:
        """Give one answer, or wait until something happens."""
        await _turns(_SETTLED_AFTER_TURNS)
        if self._left and (request := self._asks_for(self._left[0])) is not None:
            self._deliver(request, self._left.popleft())
        elif await self._at_rest() and self._waiting:
            self._deliver(*self._out_of_turn())

    def _deliver(self, waiting: _Waiting, line: Line | None) -> None:
        self._waiting.remove(waiting)
        if line is None and not self._left and self._poll is not None and not self._poll.whole:
            waiting.answer.set_exception(RecordingExhausted())
        else:
            waiting.answer.set_result(line)

    def _asks_for(self, line: Line) -> _Waiting | None:
        key = (line["method"], line["path"]) if line["line"] == "answer" else _STEP
        return next((waiting for waiting in self._waiting if waiting.key == key), None)

    def _out_of_turn(self) -> tuple[_Waiting, Line | None]:
        """Take the first line that anybody waits for; without one, there is a request that the tape does not have."""
        for line in self._left:
            if (request := self._asks_for(line)) is not None:
                self._left.remove(line)
                return request, line
        return self._waiting[0], None

    async def _at_rest(self) -> bool:
        """Return True when nothing happens any more without an answer; False as soon as something does."""
        moves = self._moves
        if self._busy:
            # What the source has shown is being committed; what follows from that is not known yet.
            self._move.clear()
            await self._move.wait()
            return False
        for _ in range(_QUIET_AFTER):
            await _turns(1)
            if self._moves != moves:
                return False
        return True


def _frozen_time(begun: Begun) -> FrozenTime:
    return FrozenTime(begun.at, begun.monotonic, Random(begun.seed))


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def _answer(request: HttpRequest, line: Line, asked: datetime, at: datetime) -> Response:
    headers = CIMultiDictProxy(CIMultiDict(line.get("headers", {})))
    value = line.get(JSON)
    if line.get(GRANTED):
        # The token itself is on no tape, nor the host that it is for: requests are known by their paths.
        value = {**line[JSON], "access_token": "on-tape", "rest_instance_url": str(request.origin)}
    body = line[TORN].encode() if TORN in line else json.dumps(value).encode()
    unchanged = line.get("unchanged", False)
    return Response(request.what, line["status"], body, asked, at, request.url, headers, unchanged)


def _failure(request: HttpRequest, line: Mapping[str, Any]) -> RequestFailure:
    text = line["text"].replace(REQUEST, request.what)
    error: BridgeError
    match line["error"]:
        case "TooLarge":
            error = TooLarge(text)
        case "Throttled":
            error = Throttled(text, retry_after=line["retry_after"])
        case "Failed":
            error = ProviderError(text, retry_after=line["retry_after"], timed_out=line["timed_out"])
        case _:
            error = Permanent(text)
    return RequestFailure(error, again=line["again"])
