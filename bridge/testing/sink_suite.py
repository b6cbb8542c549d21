"""The promises of a sink that calls a URL, each a test: subclass it, say how to make yours, and pytest runs them."""

# ruff: noqa: D102 - a test's name is its promise

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from bridge.domain.catalogue import Catalogue
from bridge.domain.errors import BridgeError, EndpointGone, Permanent, Transient
from bridge.domain.event import Event, Transition, WireEvent
from bridge.domain.events.govdelivery import EVENTS, RecipientData, RecipientFailed
from bridge.protocols.sink import Outgoing, Sink
from bridge.testing.fake_endpoint import (
    FakeEndpoint,
    ReceivedRequest,
    Step,
    drip,
    flood,
    raw,
    redirect,
    reply,
    reset,
    silence,
    torn,
)

PHONE = "+16515551000"
EMAIL = "jane.roe@example.com"
PATH = "/hooks/path-canary"
QUERY = "token=query-canary"
CANARIES = (PHONE, "6515551000", EMAIL, "path-canary", "query-canary", "answer-canary")
"""What must never be found in an error's text; `SinkSuite.secrets` adds those of a sink's own settings."""
PRIVATE_HOSTS = (
    "127.0.0.1",
    "localhost",
    "0.0.0.0",  # noqa: S104 - nothing is bound to it: it is spoken to, and reaches this host
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[fe80::1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
)
_DAY = timedelta(days=1)
_TIMEOUT_SECONDS = 10.0


def sample(number: int = 1, *, message: str | None = None) -> Event:
    """Return an event, another one for each number, with a phone and an address in it."""
    at = datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)
    message = message or f"/messages/voice/{10000 + number}"
    return RecipientFailed.of(
        id=f"{number:032x}",
        source="/govdelivery/city-voice",
        subject=f"{message}/recipients/{number}",
        time=at,
        recordedtime=at + timedelta(seconds=18),
        data=RecipientData(
            channel="voice",
            status="failed",
            previous="sending",
            detail="busy",
            transition=Transition.ADVANCE,
            message=message,
            phone=PHONE,
            error=f"the mailbox of {EMAIL} is full",
            completed_at=at,
        ),
    )


def outgoing(event: Event | WireEvent, attempt: int = 1) -> Outgoing:
    """Return `event` as delivery hands it to a sink."""
    wire = event.to_wire() if isinstance(event, Event) else event
    return Outgoing(wire, attempt, Catalogue(EVENTS).read)


class SinkSuite:
    """Subclass it as `TestMySink(SinkSuite)` and define `make`; pytest needs `asyncio_mode = "auto"`.

    The promises are those of `bridge.sink.Sink`, and those that hold for every sink that calls a URL.
    """

    secrets: tuple[str, ...] = ()
    """Secrets of the settings that `make` uses; none may be found in an error's text."""
    accepts: Step = staticmethod(reply(200))
    """How the endpoint says that it accepted an event."""
    several = 20
    """How many events are sent at once."""

    @abstractmethod
    def make(self, url: str, *, allow_private: bool) -> Sink:
        """Return the sink, not opened, that posts to `url`, with `send_timeout` of at most a few seconds."""

    @asynccontextmanager
    async def sending_to(self, receiver: FakeEndpoint) -> AsyncIterator[Sink]:
        """Open a sink that may speak to `receiver`, and close it afterwards."""
        receiver.default = self.accepts
        sink = self.make(f"{receiver.url}{PATH}?{QUERY}", allow_private=True)
        await sink.open()
        try:
            yield sink
        finally:
            await sink.close()

    async def refusal(self, sink: Sink, number: int = 1) -> BridgeError:
        """Send one event that the endpoint does not accept; return the error, which holds no secret."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            with pytest.raises(BridgeError) as caught:
                await sink.send(outgoing(sample(number)))
        text = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert [canary for canary in (*CANARIES, *self.secrets) if canary in text] == []
        assert "\n" not in str(caught.value)
        return caught.value

    @pytest.fixture
    async def receiver(self) -> AsyncIterator[FakeEndpoint]:
        """Start an endpoint that follows its script."""
        async with FakeEndpoint() as receiver:
            yield receiver

    async def test_an_event_that_was_answered_with_2xx_is_delivered(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            await sink.send(outgoing(sample()))
        assert [request.method for request in receiver.requests] == ["POST"]
        assert receiver.requests[0].path.startswith(PATH)

    @pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 599])
    async def test_a_passing_failure_is_tried_again(self, receiver: FakeEndpoint, status: int) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(reply(status, b"answer-canary " + PHONE.encode()))
            error = await self.refusal(sink)
        assert isinstance(error, Transient)
        assert error.retry_after is None or status == 429

    @pytest.mark.parametrize("status", [400, 413, 415, 422])
    async def test_a_refusal_is_permanent(self, receiver: FakeEndpoint, status: int) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(reply(status, b"answer-canary " + PHONE.encode()))
            error = await self.refusal(sink)
        assert isinstance(error, Permanent)

    async def test_an_endpoint_that_is_gone_is_told_apart(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(reply(410))
            assert isinstance(await self.refusal(sink), EndpointGone)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, receiver: FakeEndpoint, status: int) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(redirect("/elsewhere", status))
            error = await self.refusal(sink)
        assert isinstance(error, Transient)
        assert len(receiver.requests) == 1

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_wait_in_seconds_is_passed_on(self, receiver: FakeEndpoint, status: int) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(reply(status, headers={"Retry-After": "17"}))
            error = await self.refusal(sink)
        assert isinstance(error, Transient)
        assert error.retry_after == 17

    async def test_a_wait_until_a_date_is_passed_on(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            date = format_datetime(datetime.now(UTC) + _DAY, usegmt=True)
            receiver.answer(reply(503, headers={"Retry-After": date}))
            error = await self.refusal(sink)
        assert isinstance(error, Transient)
        assert error.retry_after == pytest.approx(_DAY.total_seconds(), abs=60)

    @pytest.mark.parametrize("step", [reset(), raw(b"answer-canary, and not HTTP\r\n\r\n")], ids=["reset", "no HTTP"])
    async def test_a_connection_that_breaks_is_tried_again(self, receiver: FakeEndpoint, step: Step) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(step)
            assert isinstance(await self.refusal(sink), Transient)
            await sink.send(outgoing(sample(2)))

    async def test_an_endpoint_that_is_down_is_tried_again(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            await receiver.stop()
            assert isinstance(await self.refusal(sink), Transient)
            await receiver.start(receiver.port)
            await sink.send(outgoing(sample(2)))
        assert len(receiver.requests) == 1

    async def test_a_host_without_an_address_is_tried_again(self) -> None:
        sink = self.make(f"http://nowhere.invalid{PATH}?{QUERY}", allow_private=False)
        await sink.open()
        try:
            assert isinstance(await self.refusal(sink), Transient)
        finally:
            await sink.close()

    @pytest.mark.parametrize("step", [drip(500), flood(500), torn(500)], ids=["drips", "floods", "is torn"])
    async def test_a_status_counts_even_if_its_body_never_ends(self, receiver: FakeEndpoint, step: Step) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(step)
            assert isinstance(await self.refusal(sink), Transient)
            await sink.send(outgoing(sample(2)))

    async def test_a_silent_endpoint_does_not_block_the_next_event(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            receiver.answer(silence())
            sending = asyncio.ensure_future(sink.send(outgoing(sample())))
            await receiver.arrived(1)
            sending.cancel()
            with pytest.raises((asyncio.CancelledError, Transient)):
                await sending
            await sink.send(outgoing(sample(2)))
        assert len(receiver.requests) == 2

    @pytest.mark.parametrize("host", PRIVATE_HOSTS)
    async def test_a_private_address_gets_nothing_unless_it_is_allowed(self, receiver: FakeEndpoint, host: str) -> None:
        sink = self.make(f"http://{host}:{receiver.port}{PATH}?{QUERY}", allow_private=False)
        await sink.open()
        try:
            error = await self.refusal(sink)
            with pytest.raises(Permanent, match="allow_private"):
                await sink.probe()
        finally:
            await sink.close()
        assert isinstance(error, Permanent)
        assert "allow_private" in str(error)
        assert receiver.requests == []

    async def test_many_events_at_once_are_all_delivered(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            await asyncio.gather(*(sink.send(outgoing(sample(n))) for n in range(1, self.several + 1)))
        assert len(receiver.requests) == self.several

    async def test_connections_are_used_again(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            for number in range(1, 6):
                await sink.send(outgoing(sample(number)))
        assert receiver.connections == 1

    async def test_a_probe_sends_no_event_and_says_where_they_go(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            text = await sink.probe()
        assert [request for request in receiver.requests if self.is_event(request)] == []
        assert "\n" not in text
        assert [canary for canary in (*CANARIES, *self.secrets) if canary in text] == []

    async def test_a_probe_reports_an_endpoint_that_is_down(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            await receiver.stop()
            with pytest.raises(Transient):
                await sink.probe()

    async def test_a_closed_sink_can_be_closed_again_and_reopened(self, receiver: FakeEndpoint) -> None:
        async with self.sending_to(receiver) as sink:
            await sink.send(outgoing(sample()))
            await sink.close()
            await sink.close()
            await sink.open()
            await sink.send(outgoing(sample(2)))
        assert len(receiver.requests) == 2

    def is_event(self, request: ReceivedRequest) -> bool:  # noqa: ARG002 - for those who override it
        """Say whether a request carries an event; override it where a probe sends another request to the endpoint."""
        return True
