"""The simulated providers as one HTTP server, or as one for each, with a record of what they have shown."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from email.utils import format_datetime
from typing import Any, Self

import structlog
from aiohttp import web

from bridge.domain.clock import Clock
from bridge.providers.models import Definition
from bridge.simulator.clock import WorldClock
from bridge.simulator.control import control
from bridge.simulator.defined_vendor import DefinedVendor, simulated_values
from bridge.simulator.defined_world import DefinedWorld
from bridge.simulator.fault_catalogue import FAULTS
from bridge.simulator.fault_injection import Active, Fault, FaultContext, FaultRegistry, Stage
from bridge.simulator.govdelivery import SimulatedGovDelivery, detail_counts, recipient_counts
from bridge.simulator.ground_truth import GroundTruth, ShownTransition
from bridge.simulator.marketingcloud import SimulatedMarketingCloud
from bridge.simulator.provider_api import ProviderApi, SimRequest, SimResponse, answer_json
from bridge.simulator.raw_response import NotifyingResponse, Wire, WireResponse
from bridge.simulator.request_log import RequestLog
from bridge.simulator.settings import SimulatorSettings
from bridge.simulator.spacivox import SimulatedSpacivox
from bridge.simulator.world import CHANNELS, FEEDS, RECIPIENT_STATUSES, RECORD_KINDS, World

log = structlog.get_logger()

PROVIDERS = ("govdelivery", "spacivox", "marketingcloud")
CONTROL = "/_simulator/"
_TICK_SECONDS = 1.0
_SHUTDOWN_SECONDS = 0.1
_MAX_BODY_BYTES = 1 << 20

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Listener:
    """One listening port, which can be shut for a while."""

    def __init__(self, handler: Handler, host: str, port: int, idle_close: float) -> None:
        self._server = web.Server(handler, handler_cancellation=True, keepalive_timeout=idle_close, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_SHUTDOWN_SECONDS)
        self._host = host
        self._port = port
        self._site: web.TCPSite | None = None
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Listen, and return the origin."""
        if self._site is None:
            await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def shut(self, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Refuse connections for a while, and drop those that are there."""
        if self._reopening is None or self._reopening.done():
            self._reopening = asyncio.create_task(self._shut(seconds, sleep))

    async def _shut(self, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        if self._site is not None:
            await self._site.stop()
        for connection in self._server.connections:
            connection.force_close()
        await sleep(seconds)
        await self.open()

    async def close(self) -> None:
        """Listen no more."""
        if self._reopening is not None:
            self._reopening.cancel()
            with suppress(asyncio.CancelledError):
                await self._reopening
        await self._runner.cleanup()


class Simulator:
    """Three providers with a world behind them, faults on demand, and a record of what they have shown.

    Use it as `async with Simulator(settings) as sim`, or with `start` and `stop`. `sim.world` is where a test places
    and moves resources; `sim.switch_on` brings a fault; `sim.ground_truth()` returns what a poll could see.
    """

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        clock: Clock | None = None,
        definition: Definition | None = None,
    ) -> None:
        """Begin a world; with a `definition`, that of the one provider which it describes."""
        self.settings = settings or SimulatorSettings()
        self.clock = clock or Clock()
        self.time = WorldClock(self.clock, begins_ago=self.settings.begins_ago, manual=self.settings.manual_clock)
        self.world = World(self.settings, self.time)
        self._cloud = SimulatedMarketingCloud(self.world, self.clock)
        self._apis: tuple[ProviderApi, ...] = (
            SimulatedGovDelivery(self.world),
            SimulatedSpacivox(self.world),
            self._cloud,
        )
        self.defined: DefinedVendor | None = None
        """The provider that the definition describes."""
        self.providers: tuple[str, ...] = PROVIDERS
        if definition is not None:
            resources = DefinedWorld(definition, self.settings, self.time)
            self.defined = DefinedVendor(definition, resources, self.clock, simulated_values(definition))
            self._apis, self.providers = (self.defined,), (self.defined.provider,)
        word = None if self.defined is None else self.defined.word
        self._ground_truths = {name: GroundTruth(name, word) for name in self.providers}
        self.traffic = {name: RequestLog() for name in self.providers}
        self.board = FaultRegistry(FAULTS, self.settings.seed)
        for rule in self.settings.faults:
            self.board.switch_on(rule)
        self.urls: dict[str, str] = {}
        """The origin of each provider, once started."""
        self._listeners: dict[str, _Listener] = {}
        self._stopped = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL: of all three, or with `separate_ports` of GovDelivery.

        With separate ports the others listen on the next two, or with port 0 on any. Raises `OSError` when a port is
        in use.
        """
        self._stopped.clear()
        names = self.providers
        groups = [(name,) for name in names] if self.settings.separate_ports else [names]
        for number, group in enumerate(groups):
            listener = _Listener(self._handler(group), host, port + number if port else 0, self.settings.idle_close)
            for name in group:
                self._listeners[name] = listener
            try:
                url = await listener.open()
            except OSError:
                await self.stop()
                raise
            self.urls |= dict.fromkeys(group, url)
        self._ticker = asyncio.create_task(self._tick())
        return self.url

    async def stop(self) -> None:
        """Stop listening; a client that still waits for an answer is cut off."""
        self._stopped.set()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        for listener in dict.fromkeys(self._listeners.values()):
            await listener.close()
        self._listeners.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Return the base URL."""
        return self.urls[self.providers[0]]

    async def _tick(self) -> None:
        """Let the world go on while nobody asks, so that the next question need not create all arrivals since."""
        while True:
            (self.world if self.defined is None else self.defined.world).now()
            await self.clock.sleep(_TICK_SECONDS)

    # --- what a test asks -----------------------------------------------------------------------------------------

    def switch_on(self, name: str, **options: Any) -> Active:
        """Switch a fault on; the options are those of `FaultRule`: share, limit, path, value."""
        return self.board.switch_on(name, **options)

    def switch_off(self, name: str | None = None) -> None:
        """Switch one fault off, or all."""
        self.board.switch_off(name)

    def ground_truth(self, provider: str | None = None, *, without: Collection[str] = ()) -> list[ShownTransition]:
        """Return every change of status that complete answers have shown, in order of time.

        `without` names kinds of answers to leave out, for a client that does not read statuses from them.
        """
        names = self.providers if provider is None else (provider,)
        shown = [transition for name in names for transition in self._ground_truths[name].transitions(without=without)]
        return sorted(shown, key=lambda transition: transition.at)

    def unseen(self) -> list[str]:
        """Return the resources whose present status was in no answer yet: empty once everything was shown."""
        if self.defined is not None:
            shown = self._ground_truths[self.defined.provider]
            return [path for path, raw in self.defined.present_statuses().items() if shown.last(path) != raw]
        now = self.world.now()
        gov, drops, cloud = (self._ground_truths[name] for name in PROVIDERS)
        missing = []
        for channel in CHANNELS:
            for message in self.world.settled(channel):
                if gov.last(message.path) != message.state.status:
                    missing.append(message.path)
                paths = zip(message.recipients, message.states, strict=True)
                missing += [path for path, state in paths if gov.last(path) != state.status]
        for kind in RECORD_KINDS:
            missing += [
                record.path
                for record in self.world.records[kind]
                if drops.last(record.path) != record.state(now).status
            ]
        for feed in FEEDS:
            missing += [send.path for send in self.world.sends[feed] if cloud.last(send.path) is None]
        return missing

    def books(self) -> dict[str, Any]:
        """Return what the providers count now: of each message, each kind of record and each feed."""
        if self.defined is not None:
            return {self.defined.provider: dict(Counter(self.defined.present_statuses().values()))}
        now = self.world.now()
        messages = []
        totals = dict.fromkeys(RECIPIENT_STATUSES, 0)
        for channel in CHANNELS:
            for message in self.world.settled(channel):
                counts = recipient_counts(message)
                book: dict[str, Any] = {
                    "subject": message.path,
                    "status": message.state.status,
                    "recipient_counts": counts,
                }
                if channel == "voice":
                    book["recipient_detail_counts"] = detail_counts(message)
                messages.append(book)
                for status in totals:
                    totals[status] += counts[status]
        records: dict[str, dict[str, int]] = {}
        for kind in RECORD_KINDS:
            states = records[kind] = {}
            for record in self.world.records[kind]:
                state = record.state(now).status
                states[state] = states.get(state, 0) + 1
        return {
            "govdelivery": {"messages": messages, "recipients": totals},
            "spacivox": records,
            "marketingcloud": {feed: len(self.world.sends[feed]) for feed in FEEDS},
        }

    # --- answering ------------------------------------------------------------------------------------------------

    def _handler(self, providers: Collection[str]) -> Handler:
        apis = [api for api in self._apis if api.provider in providers]

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if request.path.startswith(CONTROL):
                return await control(self, request)
            for api in apis:
                view = api.view(request.path)
                if view is not None:
                    return await self._provide(api, view, request)
            return NotifyingResponse(answer_json({"error": "Not Found"}, 404), lambda: None)

        return handle

    async def _provide(self, api: ProviderApi, view: str, request: web.BaseRequest) -> web.StreamResponse:
        traffic = self.traffic[api.provider]
        traffic.begin(view, self.clock.monotonic())
        status = 0
        try:
            ask = SimRequest(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers=request.headers,
                body=await request.content.read(_MAX_BODY_BYTES) if request.can_read_body else b"",
                view=view,
                origin=f"http://{request.host}",
            )
            answer, delivery = self._answer(api, ask)
            # Not the web server's own, which knows only the real time: a clock that is set ahead is ahead here too.
            answer.headers.setdefault("Date", format_datetime(self.clock.now(), usegmt=True))
            status = answer.status
        finally:
            traffic.end(status)

        def sent() -> None:
            if answer.shown_statuses:
                self._ground_truths[api.provider].saw(view, answer.shown_statuses, self.time.now())

        if delivery is None:
            return NotifyingResponse(answer, sent)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        wire = Wire(transport, answer, self.clock.sleep, self._stopped)
        active, context = delivery

        async def deliver() -> None:
            if active.fault.delivery is not None and await active.fault.delivery(wire, context):
                sent()

        return WireResponse(deliver)

    def _answer(self, api: ProviderApi, ask: SimRequest) -> tuple[SimResponse, tuple[Active, FaultContext] | None]:
        """Return the answer to a question after all faults that apply to it, and the fault of its delivery."""
        chosen = self.board.choose(ask)
        if not chosen:
            return api.answer(ask), None
        before = [active for active in chosen if active.fault.stage is Stage.WORLD]
        applied = self._context(api, ask, SimResponse(), before)[1]
        answer = SimResponse()
        instead: list[Fault] = []
        for active in (active for active in chosen if active.fault.stage is Stage.INSTEAD):
            answer, instead = self._context(api, ask, answer, [active])
            if instead:
                break
        if instead:
            answer.shown_statuses = ()
        else:
            answer = api.answer(ask)
            content = [active for active in chosen if active.fault.stage is Stage.CONTENT]
            answer, changed = self._context(api, ask, answer, content)
            if changed:
                answer.shown_statuses = api.shown_statuses(ask, json.loads(answer.body))
            shown_statuses = answer.shown_statuses
            answer, written = self._context(
                api, ask, answer, [active for active in chosen if active.fault.stage is Stage.BYTES]
            )
            answer.shown_statuses = (
                shown_statuses if all(fault.reads for fault in (*applied, *changed, *written)) else ()
            )
        wires = [active for active in chosen if active.fault.stage is Stage.WIRE]
        if not wires:
            return answer, None
        self.board.count(wires[0])
        return answer, (wires[0], self._new_context(api, ask, answer, wires[0]))

    def _context(
        self, api: ProviderApi, ask: SimRequest, answer: SimResponse, chosen: list[Active]
    ) -> tuple[SimResponse, list[Fault]]:
        applied = []
        for active in chosen:
            context = self._new_context(api, ask, answer, active)
            # A second fault may find that the first has taken away what it changes; then only the first applies.
            with suppress(KeyError, TypeError, AttributeError, ValueError):
                if active.fault.effect is not None and active.fault.effect(context):
                    self.board.count(active)
                    applied.append(active.fault)
                    answer = context.answer
        return answer, applied

    def _new_context(self, api: ProviderApi, ask: SimRequest, answer: SimResponse, active: Active) -> FaultContext:
        return FaultContext(
            ask=ask,
            answer=answer,
            value=active.value,
            random=active.random,
            world=self.world,
            memory=active.memory,
            expire_tokens=self._cloud.expire if self.defined is None else self.defined.expire,
            refuse=lambda seconds: self._listeners[api.provider].shut(seconds, self.clock.sleep),
        )
