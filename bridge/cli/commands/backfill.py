"""`bridgectl backfill`: a past range of one source, apart from the live cursor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.notes import print_error, print_note
from bridge.cli.support.options import MOMENT, Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line, progress_console
from bridge.cli.support.provider_access import quota_limited_source
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.domain.visible_text import visible
from bridge.ingest.backfill import Backfill, BackfillProgress
from bridge.ingest.expectations import FinalStatuses
from bridge.ingest.intake import Intake
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly

_MAX_BACKLOG_EVENTS = 50_000
_PROBLEMS_SHOWN = 20
_LINE_EVERY_SECONDS = 10.0
_MIN_PROGRESS_STEPS = 0.001
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
"""No provider is older, and clocks can be counted back from here."""


@click.command(
    cls=Command,
    former={"--start": "--since", "--end": "--until"},
    examples="""
    bridgectl backfill drops --since 2026-03-01T00:00:00Z --until 2026-03-15T00:00:00Z -c bridge.yaml
    bridgectl backfill city-voice --since 48h -c bridge.yaml             the last two days
    bridgectl backfill city-voice --since 48h --rate 1/s -c bridge.yaml  gently
    """,
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@click.option("--since", "start", type=MOMENT, required=True, help="From this time on: RFC 3339, or such as 48h.")
@click.option("--until", "end", type=MOMENT, help="Until this time; now, where it is left out.")
@click.option(
    "--rate",
    metavar="RATE",
    help="Requests, such as 1/s; at most the source's own rate, and half of it while a service polls the source.",
)
@click.option("--restart", is_flag=True, help="Read again what an interrupted run of the last day has read.")
@json_option
def backfill(
    source: str,
    config_file: Path,
    start: datetime,
    end: datetime | None,
    rate: str | None,
    *,
    restart: bool,
    as_json: bool,
) -> Exit:
    """Fetch what happened, or was created, in a past range, and publish what of it the bridge does not know.

    It may run while the service runs. Neither the cursor nor what is polled changes. What was published is not
    published again, as long as the ledger remembers it. A first start's baseline counts as known. After Ctrl-C the same
    command goes on where it stood. The events go the way of all others: a running service publishes and delivers them.

    The two keep within the account's budget of requests: while a service polls the source, each has half of it. --rate
    makes the command's part less. Exits with 1 when something could not be read; the same command then reads that
    alone.
    """
    parts = load_assembly(config_file)
    if source not in parts.config.sources:
        raise no_such("source", source, parts.config.sources)
    if start < _FIRST:
        raise click.UsageError(f"--since {rfc3339(start)} is before any provider; begin at {rfc3339(_FIRST)} or later")
    now = parts.clock.now()
    span = start, min(end or now, now)
    if span[0] >= span[1]:
        raise click.UsageError(f"--since {rfc3339(start)} is not before --until {rfc3339(span[1])}")
    wanted = None if rate is None else _rate(rate)
    try:
        filled, published = run(_backfill(parts, source, span, wanted, restart=restart))
    except KeyboardInterrupt:
        print_note("what was read is kept; the same command goes on from there within a day")
        raise
    _print(source, filled, as_json=as_json, published=published)
    return Exit.FAILED if filled.problems else Exit.DONE


def _rate(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from bridge.domain.settings import Rate

    try:
        return float(TypeAdapter(Rate).validate_python(text))
    except ValidationError as error:
        raise click.UsageError(f"--rate: {error.errors()[0]['ctx']['error']}") from None


def _print(source: str, filled: BackfillProgress, *, as_json: bool, published: bool) -> None:
    if as_json:
        print_json({
            "source": source,
            "start": rfc3339(filled.start),
            "end": rfc3339(filled.end),
            "observed": filled.observed,
            "events": filled.events,
            "left_to_the_poller": filled.yielded,
            "problems": filled.problems,
            "resumed": filled.resumed > 0,
        })  # fmt: skip
    else:
        events = f"{filled.events:,} new {'event' if filled.events == 1 else 'events'}"
        print_line(f"{source}: {filled.observed:,} looked at, {events}")
        if filled.yielded:
            print_line(f"{filled.yielded:,} changes were left to the service, which has seen the same resources move")
    for problem in filled.problems[:_PROBLEMS_SHOWN]:
        print_error(problem)
    if len(filled.problems) > _PROBLEMS_SHOWN:
        print_error(f"and {len(filled.problems) - _PROBLEMS_SHOWN} more such problems")
    if filled.events and not published:
        print_note("no service relays now; the events wait in the journal until `bridgectl run`")


async def _backfill(
    parts: Assembly, name: str, span: tuple[datetime, datetime], rate: float | None, *, restart: bool
) -> tuple[BackfillProgress, bool]:
    async with parts.opened_store() as store:
        async with quota_limited_source(parts, store, name, rate) as source:
            with _progress(parts.clock.monotonic) as print_progress:
                settings = parts.config.sources[name]
                intake = Intake(
                    name, settings.type, source, store, parts.clock, account_label=settings.account_label,
                    finals=FinalStatuses.of(settings.expect),
                )  # fmt: skip
                room = _room(parts, store, name)
                work = Backfill(name, intake, source, store, parts.clock, room=room, on_progress=print_progress)
                filled = await work.run(*span, restart=restart)
        return filled, await store.holder(f"relay/{name}") is not None


def _room(parts: Assembly, store: Store, name: str) -> Callable[[], Any]:
    bound = parts.config.journal.max_bytes

    async def room() -> str | None:
        state = await store.journal(name)
        if state.backlog > _MAX_BACKLOG_EVENTS:
            return f"{state.backlog:,} events wait for the broker; is the service running?"
        if state.bytes > bound:
            return f"the journal has reached its bound of {bound:,} bytes; is the service running?"
        return None

    return room


# --- telling how far it is ----------------------------------------------------------------------------------------


@contextmanager
def _progress(monotonic: Callable[[], float]) -> Iterator[Callable[[BackfillProgress], None]]:
    """Give what shows progress on stderr: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(monotonic).print_progress
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console(), transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def print_progress(state: BackfillProgress) -> None:
            total = (state.end - state.start).total_seconds()
            progress.update(task, total=total, completed=state.covered, description=visible(_said(state)))

        yield print_progress


class _Lines:
    """A line for each step that was begun, and one every few seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._reporter = -_LINE_EVERY_SECONDS
        self._step: tuple[datetime, datetime] | None = None
        self._waits: str | None = None

    def print_progress(self, state: BackfillProgress) -> None:
        """Print a line, if there is news or it has been quiet for long."""
        now = self._monotonic()
        news = state.step != self._step or state.waits != self._waits
        if news or now - self._reporter >= _LINE_EVERY_SECONDS:
            print_line(_said(state), err=True)
            self._reporter, self._step, self._waits = now, state.step, state.waits


def _said(state: BackfillProgress) -> str:
    share = state.covered / max((state.end - state.start).total_seconds(), _MIN_PROGRESS_STEPS)
    waits = f"; {state.waits}" if state.waits else ""
    at = rfc3339(truncate_to_millis(state.step[0]))
    return f"{at}  {share:4.0%}  {state.observed:,} looked at, {state.events:,} new events{waits}"
