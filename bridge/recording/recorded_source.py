"""A recorded source: it works as always, inside polls whose begin and end the hooks see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Protocol

from bridge.protocols.source import Observation, Page, Probe, Source
from bridge.recording.frozen_clock import PollContext


class RecordingHooks(Protocol):
    """What records a source, or plays its tape to it."""

    def begin(self, cursor: Mapping[str, str], watched: Sequence[str]) -> PollContext:
        """Begin a poll, and return its inside."""
        ...

    async def step(self) -> None:
        """Hear that the next page is asked for; the source works on it when this returns."""
        ...

    def page(self, page: Page) -> None:
        """Hear of a page that the poll yields."""
        ...

    def ended(self, error: Exception | None) -> None:
        """Hear that the poll has yielded all, or gave up."""
        ...

    def completing(self) -> PollContext:
        """Begin to look up details, and return the inside of that."""
        ...

    def completed(self) -> None:
        """Hear that the details were looked up."""
        ...


class RecordedSource:
    """A source whose polls go through the hooks; everything else goes to the source itself."""

    def __init__(self, source: Source, hooks: RecordingHooks) -> None:
        self._source = source
        self._hooks = hooks
        self.retention = source.retention
        self.problems: list[str] = []
        self.behind = False
        # What only some sources can do is told by what they have, and looked for on the object itself.
        for name in dir(source):
            if not name.startswith("_") and not hasattr(self, name):
                setattr(self, name, getattr(source, name))

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Look at nothing in particular: a push only makes the next poll come sooner, for it is on no tape."""

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Poll once, on tape; see `bridge.source.Source.pages`."""
        inside = self._hooks.begin(cursor, watched)
        try:
            pages = self._source.pages(cursor, watched)
            async with aclosing(inside.steps(pages, self._hooks.step)) as steps:
                async for page in steps:
                    self._hooks.page(page)
                    self._check()
                    yield page
        except Exception as error:
            self._hooks.ended(error)
            raise
        else:
            self._hooks.ended(None)
        finally:
            self._check()

    def _check(self) -> None:
        self.retention = self._source.retention
        self.problems = self._source.problems
        self.behind = self._source.behind

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Look up details, on tape; see `bridge.source.Source.complete`."""
        with self._hooks.completing().entered():
            completed = await self._source.complete(observations)
        self._hooks.completed()
        return completed

    def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Yield a past range; that is on no tape."""
        return self._source.backfill(start, end)

    def resource(self, text: str) -> str:
        """Return the canonical path of what an operator named."""
        return self._source.resource(text)

    async def probe(self) -> Probe:
        """Ask the provider one cheap question; that is on no tape."""
        return await self._source.probe()

    async def close(self) -> None:
        """Give back connections."""
        await self._source.close()
