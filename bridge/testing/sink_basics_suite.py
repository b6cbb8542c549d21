"""The promises of every sink, whatever it gives events to, each a test: subclass it, say how to make yours.

A sink that calls a URL has further promises: `bridge.testing.sink_suite.SinkSuite`.
"""

# ruff: noqa: D102 - a test's name is its promise

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from bridge.domain.errors import Transient
from bridge.protocols.sink import Sink
from bridge.testing.sink_suite import EMAIL, PHONE, outgoing, sample

_TIMEOUT_SECONDS = 30.0


class SinkBasicsSuite:
    """Subclass it as `TestMySink(SinkBasicsSuite)`; pytest needs `asyncio_mode = "auto"`.

    Fixtures of the subclass prepare the place that events go to.
    """

    secrets: tuple[str, ...] = ()
    """Secrets of the settings that `make` uses; none may be found in a text of the sink."""
    several = 20
    """How many events are sent at once."""

    @abstractmethod
    def make(self) -> Sink:
        """Return the sink, not opened."""

    @abstractmethod
    def delivered(self) -> Sequence[str]:
        """Return the ids of the events that have arrived so far."""

    @abstractmethod
    def broken(self) -> AbstractAsyncContextManager[None]:
        """Let nothing arrive for a while, for a reason that passes."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sink]:
        """Open a sink, and close it afterwards."""
        sink = self.make()
        await sink.open()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                yield sink
        finally:
            await sink.close()

    def has_no_secret(self, text: str) -> bool:
        """Say whether a text is one line without secrets and personal data."""
        return "\n" not in text and not [secret for secret in (PHONE, EMAIL, *self.secrets) if secret in text]

    async def test_event_that_was_sent_has_arrived(self) -> None:
        async with self.opened() as sink:
            await sink.send(outgoing(sample()))
            assert list(self.delivered()) == [sample().id]

    async def test_events_sent_at_once_all_arrive_once(self) -> None:
        async with self.opened() as sink:
            await asyncio.gather(*(sink.send(outgoing(sample(n))) for n in range(1, self.several + 1)))
            assert sorted(self.delivered()) == sorted(sample(n).id for n in range(1, self.several + 1))

    async def test_what_fails_for_now_arrives_later(self) -> None:
        async with self.opened() as sink:
            await sink.send(outgoing(sample(1)))
            async with self.broken():
                with pytest.raises(Transient) as caught:
                    await sink.send(outgoing(sample(2)))
                assert self.has_no_secret(f"{caught.value}")
                assert self.has_no_secret(f"{caught.value!r} {caught.value.__cause__!r}")
            await sink.send(outgoing(sample(2), attempt=2))
            assert sorted(self.delivered()) == sorted([sample(1).id, sample(2).id])

    async def test_probe_says_where_events_go_and_sends_none(self) -> None:
        async with self.opened() as sink:
            text = await sink.probe()
        assert text
        assert self.has_no_secret(text)
        assert list(self.delivered()) == []

    async def test_probe_reports_what_would_fail(self) -> None:
        async with self.opened() as sink, self.broken():
            with pytest.raises(Transient) as caught:
                await sink.probe()
        assert self.has_no_secret(str(caught.value))

    async def test_cancelled_event_holds_up_no_other(self) -> None:
        async with self.opened() as sink:
            sending = asyncio.ensure_future(sink.send(outgoing(sample(1))))
            await asyncio.sleep(0)  # it has begun
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await sink.send(outgoing(sample(2)))
            assert list(self.delivered()).count(sample(2).id) == 1

    async def test_sink_closes_twice_and_opens_again(self) -> None:
        async with self.opened() as sink:
            await sink.send(outgoing(sample(1)))
            await sink.close()
            await sink.close()
            await sink.open()
            await sink.send(outgoing(sample(2)))
            assert list(self.delivered()) == [sample(1).id, sample(2).id]
