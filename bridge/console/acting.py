"""What the console may change: each thing is confirmed on a page of its own, and leaves a line in the log."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from bridge.console.facts import ConsoleFacts
from bridge.console.looking_up import has_text, shown_delivery
from bridge.console.queries import BadQuery, DeliveriesQuery, Missing, deliveries_query, position
from bridge.domain.event import Position
from bridge.operations.deliveries import discard_deliveries, known_sinks, redrive_deliveries
from bridge.operations.delivery_filter import STATES, select
from bridge.protocols.roster import Pause

log = structlog.get_logger()

MAX_DELIVERIES = 100_000
"""Deliveries that one order changes; the same order again does the next ones."""
_MAX_REASON_CHARACTERS = 200

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """What the page asks before anything is done."""

    title: str
    says: str
    """What will happen, in a sentence."""
    button: str
    back: str
    """The address of the page to go back to."""
    is_dangerous: bool = False
    wants_reason: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What was done."""

    says: str
    back: str


class OperatorOrders:
    """Asks for, and carries out, what an operator orders in a browser."""

    def __init__(self, facts: ConsoleFacts) -> None:
        self._facts = facts
        self._config = facts.assembly.config

    def verbs(self) -> dict[str, tuple[Callable[[Form], Awaitable[Question]], Callable[[Form, str], Awaitable[Done]]]]:
        """Return for each verb how to ask, and how to do it; the latter is told who ordered it."""
        return {
            "pause": (self._ask_pause, self._pause),
            "resume": (self._ask_resume, self._resume),
            "poll": (self._ask_poll, self._poll),
            "redrive": (self._ask_redrive, self._redrive),
            "discard": (self._ask_discard, self._discard),
        }

    # sources and sinks

    async def _ask_pause(self, form: Form) -> Question:
        part, back = self._part(form)
        kind, _, name = part.partition("/")
        rests = "its provider is not asked" if kind == "source" else "its events wait"
        return Question(
            f"Pause the {kind} {name}?", f"Until it is resumed, {rests}. All processes follow within 5 seconds.",
            "Pause it", back, wants_reason=True,
        )  # fmt: skip

    async def _pause(self, form: Form, by: str) -> Done:
        part, back = self._part(form)
        reason = " ".join(form.get("because", "").split())[:_MAX_REASON_CHARACTERS]
        changed = await self._facts.parts.store.pause(part, Pause(self._facts.clock.epoch(), by, reason))
        _note("pause", part, by, int(changed))
        return Done("It is paused." if changed else "It was paused already, and stays so.", back)

    async def _ask_resume(self, form: Form) -> Question:
        part, back = self._part(form)
        kind, _, name = part.partition("/")
        return Question(f"Resume the {kind} {name}?", "It works again, beginning with what waited.", "Resume it", back)

    async def _resume(self, form: Form, by: str) -> Done:
        part, back = self._part(form)
        changed = await self._facts.parts.store.resume(part)
        _note("resume", part, by, int(changed))
        return Done("It works again." if changed else "It was not paused.", back)

    async def _ask_poll(self, form: Form) -> Question:
        part, back = self._part(form, "source")
        says = "The process that polls it does so as soon as the account's budget of requests allows."
        return Question(f"Poll the source {part.partition('/')[2]} now?", says, "Poll it", back)

    async def _poll(self, form: Form, by: str) -> Done:
        part, back = self._part(form, "source")
        store = self._facts.parts.store
        if part in (await store.orders()).pauses:
            return Done("It is paused, so it is not polled. Resume it first.", back)
        await store.request_poll(part.partition("/")[2], secrets.token_hex(8))
        _note("poll", part, by, 1)
        return Done("The poll is asked for.", back)

    def _part(self, form: Form, kind: str = "") -> tuple[str, str]:
        part = form.get("part", "")
        present, _, name = part.partition("/")
        names = {"source": list(self._config.sources), "sink": list(self._config.sinks)}
        if (kind and present != kind) or present not in names or name not in names[present]:
            raise Missing(f"there is no {kind or 'source or sink'} of that name in the configuration")
        return part, "/sources" if present == "source" else f"/sinks/{name}"

    # deliveries

    async def _ask_redrive(self, form: Form) -> Question:
        sink, chosen, back = await self._chosen(form)
        says = (
            f"{_deliveries(len(chosen))} to {sink} will be due at once, and the count of tries starts again. A sink "
            "that is disabled is enabled by this."
        )
        return Question(f"Redrive {_deliveries(len(chosen))}?", says, "Redrive", back)

    async def _redrive(self, form: Form, by: str) -> Done:
        sink, chosen, back = await self._chosen(form)
        count, enabled = await redrive_deliveries(self._facts.assembly, self._facts.parts.store, sink, chosen)
        _note("redrive", f"sink/{sink}", by, count)
        return Done(f"{_deliveries(count)} due again.{' The sink is enabled.' if enabled else ''}", back)

    async def _ask_discard(self, form: Form) -> Question:
        sink, chosen, back = await self._chosen(form)
        says = f"{_deliveries(len(chosen))} will never be sent to {sink}. The events stay in the journal."
        return Question(f"Discard {_deliveries(len(chosen))}?", says, "Discard", back, is_dangerous=True)

    async def _discard(self, form: Form, by: str) -> Done:
        sink, chosen, back = await self._chosen(form)
        count = await discard_deliveries(self._facts.parts.store, sink, chosen)
        _note("discard", f"sink/{sink}", by, count)
        return Done(f"{_deliveries(count)} discarded.", back)

    async def _chosen(self, form: Form) -> tuple[str, list[Position], str]:
        """Return the sink, the deliveries that are meant, and the page to go back to."""
        sink, store = form.get("sink", ""), self._facts.parts.store
        if not sink or not await known_sinks(self._config.sinks, store, sink):
            raise Missing(f"there is no sink {sink!r}")
        back = f"/sinks/{sink}"
        if text := form.get("position"):
            chosen = position(text)
            if await store.delivery(sink, chosen) is None:
                raise Missing(f"{text} neither waits for {sink} nor is a dead letter")
            return sink, [chosen], back
        wanted = deliveries_query(form)
        if wanted.filter.states == STATES and not wanted.filter.is_narrow and not wanted.text and "all" not in form:
            raise BadQuery("say which: a filter, or all")
        return sink, await self._matching(sink, wanted), f"{back}?{wanted.address}"

    async def _matching(self, sink: str, wanted: DeliveriesQuery) -> list[Position]:
        masks, chosen = await self._facts.masks(), list[Position]()
        async for selected in select(await self._facts.store(), sink, wanted.filter):
            if not wanted.text or has_text(shown_delivery(selected, masks, {}), wanted.text):
                chosen.append(selected.delivery.position)
            if len(chosen) == MAX_DELIVERIES:
                break
        return chosen


def _deliveries(count: int) -> str:
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def _note(action: str, part: str, by: str, count: int) -> None:
    log.info(
        "console.acted", action=action, part=part, by=by, count=count, consequence="an operator ordered it in a browser"
    )
