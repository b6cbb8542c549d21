"""What the commands tell of events that a sink's filter did not select."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rigs.cli import ONE

from bridge.config.loading import load
from bridge.domain.event import Position
from bridge.runtime.assembly import Assembly


def filtered(bridge, file: Path, where: str, *numbers: int) -> str:
    """Give the sink `ops` a filter that did not select these events of a resource; return the last one's position."""
    places = [Position.parse(event["position"]) for event in bridge("trace", ONE, "-c", file, "--json").json]
    chosen = [places[number] for number in numbers]
    file.write_text(file.read_text().replace("ordered: true", f"where: {where}"))

    async def note() -> None:
        async with Assembly(load(file)).opened_store() as store:
            await store.filter_out("ops", chosen)

    asyncio.run(note())
    return str(chosen[-1])


def said(bridge, file) -> str:
    sinks = bridge("trace", ONE, "-c", file, "--json").json[1]["sinks"]
    return next(f"{sink['state']}: {sink['said']}" for sink in sinks if sink["sink"] == "ops")


def test_trace_names_the_condition_that_dropped_an_event(bridge, seeded) -> None:
    place = filtered(bridge, seeded, "{exact: {data.detail: no_answer}}", 1)
    assert said(bridge, seeded) == 'filtered: not sent: its filter asks for exact data.detail: "no_answer"'
    assert "not selected by its filter" in bridge("deliveries", "show", "ops", place, "-c", seeded).out


def test_trace_tells_of_a_filter_that_has_changed_since(bridge, seeded) -> None:
    filtered(bridge, seeded, "{exact: {data.detail: busy}}", 1)
    assert said(bridge, seeded).startswith("filtered: not sent: its filter of that time")
    assert bridge("replay", "ops", "--since", "5h", "-c", seeded, "--json").json["replayed"] == 1
    assert said(bridge, seeded).startswith("waiting")


def test_the_books_of_a_sink_count_filtered_events(bridge, seeded) -> None:
    filtered(bridge, seeded, "{exact: {data.detail: no_answer}}", 0, 1)
    answer = bridge("sinks", "-c", seeded, "--json").json
    assert {sink["name"]: sink["filtered"] for sink in answer["sinks"]} == {"crm": 0, "ops": 2}
    assert answer["totals"]["filtered"] == 2
    assert bridge("sinks", "-c", seeded).out.endswith(", 2 filtered, 0 expired\n")
