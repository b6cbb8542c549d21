"""What items would become: the events of a definition's samples, and those of one look at a real account."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, cast

from bridge.domain.lifecycle import classify
from bridge.domain.times import rfc3339
from bridge.protocols.source import Observation, Page, Source
from bridge.providers.models import Definition
from bridge.providers.requests import expander
from bridge.sources.rest.records import ItemReader, UnreadableItem


def differences(definition: Definition) -> Iterator[str]:
    """Yield, for each sample that becomes other events than it expects, a line that says which."""
    placeholders = dict.fromkeys(definition.settings, "setting")
    reader = ItemReader(definition, placeholders, {})
    for index, sample in enumerate(definition.samples):
        items = definition.listing.items.reader()(sample.answer)
        if not isinstance(items, list):
            yield f"samples[{index}].answer: has no list at {definition.listing.items.text}"
            continue
        if definition.listing.expand is not None:
            items = expander(definition.listing.expand)(items)
        made = [_event(reader.observe(item)) for item in items]
        wanted = [(expected.topic, expected.key) for expected in sample.expect]
        if made != wanted:
            yield f"samples[{index}]: becomes {_said(made)} instead of {_said(wanted)}"


def _said(events: list[tuple[str, str]]) -> str:
    return ", ".join(f"{topic} of {key}" for topic, key in events) or "nothing"


def _event(observation: Observation | UnreadableItem) -> tuple[str, str]:
    if isinstance(observation, UnreadableItem):
        return "unreadable", observation.reason
    observation.kind.describe(observation)
    return topic_of(observation), observation.key


def topic_of(observation: Observation) -> str:
    """Return the topic of the event that an item makes at first sight."""
    kind = observation.kind
    change = classify(kind.lifecycle, None, observation.status, observation.occurrence_id)
    return f"{kind.channel}.{kind.entity}.{'unknown' if change is None else change.status}"


async def first_events(source: Source, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the first items of a first poll would become, and the problems; raises as `Source.pages` does."""
    seen: list[dict[str, Any]] = []
    try:
        async with aclosing(cast("AsyncGenerator[Page]", source.pages({}, ()))) as pages:
            async for page in pages:
                seen += [_plain(observation) for observation in page.observations]
                if len(seen) >= limit:
                    break
        return seen[:limit], list(source.problems)
    finally:
        await source.close()


def _plain(observation: Observation) -> dict[str, Any]:
    facts = observation.kind.describe(observation)
    time = facts.time or facts.first_time
    return {
        "topic": topic_of(observation), "subject": facts.subject, "status": observation.status,
        "time": None if time is None else rfc3339(time),
    }  # fmt: skip
