"""`bridgectl trace`: one resource's life, from the poll that saw a change to each sink's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.commands.tail import mask_phones
from bridge.cli.support.answers import shown_answer
from bridge.cli.support.options import Command, config_option, json_option
from bridge.cli.support.output import Coloured, print_json, print_line
from bridge.cli.support.program import in_typed_name
from bridge.cli.support.running import load_assembly, run
from bridge.domain.settings import format_duration
from bridge.operations.known_statuses import Recorded, baselines
from bridge.operations.trace import trace_resource
from bridge.runtime.assembly import Assembly

_COLOURS = {"dead": "red", "set_aside": "red", "waiting": "yellow", "taken": "green"}


@click.command(
    cls=Command,
    examples="""
    bridgectl trace /messages/voice/10507/recipients/364898 -c bridge.yaml
    bridgectl trace 10507 -c bridge.yaml                                by an id: all resources that have it
    bridgectl trace 5f0c6d1be2a94d2c8f6a3f0e9d8c7b6a -c bridge.yaml     all of the resource of one event
    """,
)
@click.argument("resource", metavar="RESOURCE|EVENT-ID")
@config_option
@json_option
def trace(resource: str, config_file: Path, *, as_json: bool) -> None:
    """Tell one resource's life: each change, when it was seen, whether the broker has it, and what each sink did.

    RESOURCE is a path as in an event's `subject`, or its last part; EVENT-ID is an event's id. Of a resource without
    any event, the last known status is told where the bridge has one.
    """
    parts = load_assembly(config_file, with_secrets=False)
    traced, known = run(_trace(parts, resource))
    if not traced and not known:
        raise click.ClickException(_nothing(parts, resource))
    if as_json:
        print_json(traced or [status.plain() for status in known])
        return
    for status in known:
        print_line(f"{status.subject}: {status}")
    for change in traced:
        _print(change)


def _nothing(parts: Assembly, resource: str) -> str:
    kept = format_duration(parts.config.journal.keep)
    silent = baselines(parts)
    first = f", or was there at the first start of {' or '.join(silent)} (first_sight: baseline)" if silent else ""
    return (
        f"the journal has nothing of {resource!r}: it was not seen, did not change, or changed longer than {kept} "
        f"ago (journal.keep){first}"
    )


def _print(change: dict[str, Any]) -> None:
    before = f" (was {change['previous']})" if change["previous"] else ""
    print_line(f"{change['time']}  {change['topic']}{before}  {change['transition']}")
    print_line(f"    subject    {change['subject']}")
    print_line(f"    event      {change['id']}  at {change['position']}")
    after, by = (change["observed"] or {}).get("after"), (change["observed"] or {}).get("by")
    if by:
        print_line(f"    observed   {f'between {after} and {by}' if after else f'by {by}'}")
    if change["due"]:
        print_line(f"    due        a final status was expected by {change['due']}")
    if change["resolves"]:
        print_line(f"    resolves   the overdue event {change['resolves']}")
    print_line(f"    committed  {change['recorded']}")
    print_line(f"    broker     {_broker(change)}")
    for key in ("error", "reason"):
        if change[key]:
            print_line(f"    {key:<10} {mask_phones(change[key])}")
    for sink in change["sinks"]:
        print_line(f"    -> {sink['sink']}: ", Coloured(in_typed_name(sink["said"]), _COLOURS.get(sink["state"])))
        for attempt in sink["attempts"]:
            print_line(f"         {attempt['at']}  {attempt['kind']}: {attempt['error']}")
        if sink["answer"] is not None:
            print_line(f"         answered {shown_answer(sink['answer'])}")


def _broker(change: dict[str, Any]) -> str:
    if change["set_aside"] is not None:
        return f"does not have it, a dead letter of the relay: {change['set_aside']['said']}"
    return "has confirmed it" if change["confirmed"] else "has not confirmed it yet"


async def _trace(parts: Assembly, resource: str) -> tuple[list[dict[str, Any]], list[Recorded]]:
    async with parts.opened_store(read_only=True) as store:
        traced, known = await trace_resource(parts, store, resource)
    for outcome in (outcome for change in traced for outcome in change["sinks"] if outcome["state"] == "filtered"):
        outcome["said"] = mask_phones(outcome["said"])  # a condition may have a number
    return traced, known
