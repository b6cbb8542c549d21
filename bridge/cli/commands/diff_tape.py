"""`bridgectl diff-tape`: which events two configurations, or two versions, make differently of recorded answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.commands.replay_tape import print_progress
from bridge.cli.support.options import Command, Exit
from bridge.cli.support.output import print_json_line, print_line
from bridge.cli.support.running import logs_to_stderr, run
from bridge.domain.event_view import EventView

if TYPE_CHECKING:
    from bridge.recording import EventDifference, Replay

_FILES_COUNT = 2
_SIGNS = {"first": "-", "second": "+", "both": "~"}


@click.command(
    "diff-tape",
    cls=Command,
    examples="""
    bridgectl diff-tape tape -c bridge.yaml -c changed.yaml            what a change of the configuration changes
    bridgectl replay-tape tape -c bridge.yaml --json > before.jsonl    with the version in use, then with the new one:
    bridgectl diff-tape tape -c bridge.yaml --against before.jsonl     what the new version changes
    """,
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option(
    "-c", "--config", "config_files", type=click.Path(path_type=Path), required=True, multiple=True, metavar="FILE",
    help="A configuration file; two of them, or one with --against.",
)  # fmt: skip
@click.option(
    "--against", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Compare with these events, which `replay-tape --json` has printed, instead of a first configuration.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one difference a line, as JSON.")
def diff_tape(folder: Path, config_files: tuple[Path, ...], against: Path | None, *, as_json: bool) -> Exit:
    """Play a tape twice, and print the events that differ: `-` only the first has, `+` only the second, `~` both.

    Events are compared by id and by all that they say, apart from when they were recorded. Nothing is asked, published
    or sent; see `bridgectl replay-tape`. Exits with 1 if anything differs, or if requests were made that the tape does
    not have.
    """
    from bridge.recording import Replay, offline

    if len(config_files) + (against is not None) != _FILES_COUNT:
        raise click.UsageError("give two configurations with -c, or one and --against FILE")
    logs_to_stderr()
    replays = [Replay(folder, offline(file)) for file in config_files]
    result = run(_print(replays, against, as_json=as_json))
    for replay, file in zip(replays, config_files, strict=True):
        print_progress(replay.summary, str(file))
    print_line(f"{result} events differ" if result else "no event differs", err=True)
    return Exit.FAILED if result or any(replay.summary.missing for replay in replays) else Exit.DONE


async def _print(replays: list[Replay], against: Path | None, *, as_json: bool) -> int:
    from bridge.recording import compare

    sides = [*([_written(against)] if against is not None else []), *map(_made, replays)]
    differences = 0
    async for difference in compare(*sides):
        differences += 1
        if as_json:
            print_json_line(difference.plain())
        else:
            for line in readable(difference):
                print_line(line)
    return differences


async def _made(replay: Replay) -> AsyncIterator[dict[str, Any]]:
    async for entry in replay.events():
        yield json.loads(entry.event.body)


async def _written(path: Path) -> AsyncIterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                event = json.loads(line)
                _ = event["id"], event["data"], event["type"]
            except (ValueError, KeyError, TypeError):
                raise click.ClickException(
                    f"{path}:{number}: not an event; `bridgectl replay-tape --json` prints such lines"
                ) from None
            yield event


def readable(difference: EventDifference) -> list[str]:
    """Return the lines of a difference: which side, the event as `bridgectl tail` prints it, and what changes in it."""
    from bridge.cli.commands import tail
    from bridge.domain.event import Position, WireEvent

    event = difference.event
    detail = event["data"].get("detail")
    topic = event["type"].removeprefix("bridge.") + (f".{detail}" if detail else "")
    wire = WireEvent(event["id"], topic, 0, json.dumps(event).encode())
    lines = [f"{_SIGNS[difference.side]} {tail.readable(EventView(Position('-', 0), wire))}"]
    return lines + [f"    {name}: {_shown(change)} -> {_shown(other)}" for name, change, other in difference.changes]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
