"""`bridgectl replay-tape`: what a configuration makes of recorded answers, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.support.options import Command, Exit, config_option
from bridge.cli.support.output import print_json_line, print_line
from bridge.cli.support.running import logs_to_stderr, run

if TYPE_CHECKING:
    from bridge.recording import Replay, Summary

_MAX_ROWS = 20


@click.command(
    "replay-tape",
    cls=Command,
    examples="""
    bridgectl run -c bridge.yaml --record tape                              record
    bridgectl replay-tape tape -c bridge.yaml                               the same events, offline
    bridgectl replay-tape tape -c bridge.yaml --json > events.jsonl         for another version's diff-tape --against
    """,
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one CloudEvent a line.")
def replay_tape(folder: Path, config_file: Path, *, as_json: bool) -> Exit:
    """Play a tape of `bridgectl run --record` to a configuration's sources, and print the events that they make.

    Nothing is asked, published or sent, and no store or broker is needed: the answers and the time come from the tape,
    and what is remembered is thrown away at the end. Variables that only hold secrets need not be set. Phones, keys and
    names are the tape's stand-ins, and ids that are made from a key are others, too.

    What failed, and what the tape does not have, is told on stderr. Exits with 1 if requests were made that it does not
    have: then the configuration, or the version, asks otherwise than the recorded one did.
    """
    from bridge.recording import Replay, offline

    logs_to_stderr()
    replay = Replay(folder, offline(config_file))
    run(_print(replay, as_json=as_json))
    print_progress(replay.summary)
    return Exit.FAILED if replay.summary.missing else Exit.DONE


async def _print(replay: Replay, *, as_json: bool) -> None:
    from bridge.cli.commands.tail import readable
    from bridge.domain.event_view import EventView

    async for entry in replay.events():
        if as_json:
            print_json_line(entry.event.body)
        else:
            print_line(readable(EventView.of(entry)))


def print_progress(summary: Summary, name: str = "") -> None:
    """Print on stderr how a replay went; `name` says which, where there are several."""
    of = f"{name}: " if name else ""
    _list([f"{of}{reason}" for reason in summary.failures])
    for reason in summary.passed_over:
        print_line(f"{of}{reason}: passed over", err=True)
    if summary.missing:
        print_line(f"{of}{summary.missing.total()} requests were made that the tape does not have:", err=True)
        _list([f"  {request}  ({times} times)" for request, times in sorted(summary.missing.items())])
    unasked = f", {summary.unasked} answers that nobody asked for" if summary.unasked else ""
    print_line(f"{of}{summary.polls} polls, {summary.events} events{unasked}", err=True)


def _list(lines: list[str]) -> None:
    for line in lines[:_MAX_ROWS]:
        print_line(line, err=True)
    if len(lines) > _MAX_ROWS:
        print_line(f"  and {len(lines) - _MAX_ROWS} more", err=True)
