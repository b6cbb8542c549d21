"""`bridgectl reconcile`: a provider's own account against what the bridge knows, published and delivered."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import Coloured, print_json, print_line, print_progress_line, print_table
from bridge.cli.support.provider_access import is_polled, quota_limited_source
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.delivery.masking import last4
from bridge.domain.settings import parse_duration
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.account import verify_account
from bridge.protocols.source import Source, Statistics
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Difference, GroupBook, Report
from bridge.runtime.assembly import Assembly

_MAX_ROWS = 50
_POLLS = 2
_MAX_WAIT_SECONDS = 60.0
_EXTRA_WAIT_SECONDS = 5.0
_SAID = {
    "missing": "the provider shows it, we have never seen it",
    "status": "the provider says another status than we know",
    "gone": "we know it, the provider shows it no more",
    "withheld": "the provider counts more than it lists",
    "event": "the last event told another status than we know",
    "unconfirmed": "the broker has not confirmed its event",
    "undelivered": "the sink's books know nothing of its event",
}


@click.command(
    cls=Command,
    former={"--patience": "--wait"},
    examples="""
    bridgectl reconcile city-voice -c bridge.yaml
    bridgectl reconcile city-voice --resource /messages/voice/10507 -c bridge.yaml
    bridgectl reconcile drops -c bridge.yaml --json | jq -r '.differences[].resource'
    """,
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@click.option("--resource", help="Compare this message or recipient only: its path, or its id if that is clear.")
@click.option("--deep", is_flag=True, help="Read every resource, also where the counts agree or there are none.")
@click.option("--all", "everything", is_flag=True, help="Take in messages that are followed no longer.")
@click.option(
    "--wait",
    "max_wait",
    metavar="DURATION",
    help="How long what is under way may take to arrive; by default two polls while a service runs, else nothing.",
)
@json_option
def reconcile(
    source: str,
    config_file: Path,
    resource: str | None,
    max_wait: str | None,
    *,
    deep: bool,
    everything: bool,
    as_json: bool,
) -> Exit:
    """Compare a source's books: what the provider counts and shows, what the bridge knows, what events told, what the
    broker confirmed, and what each sink settled.

    Each resource that differs is named. Exits with 1 if there is any, or if something could not be compared. Where the
    provider contradicts itself, that is told as its own difference and changes nothing of the exit code. Nothing is
    written. Dead letters and deliveries that wait are accounted for and no difference.

    \b
    govdelivery    the counts of each followed message; where they differ, its recipients one by one
                   and, where the account has statistics, what they count of SMS in all
    spacivox       every record of the last `lookback`
    marketingcloud what lies beyond the watermark; with --deep every event that the provider still has
    """  # noqa: D205, D301 - click wraps the paragraphs, and its mark for lines to be kept is the control character
    parts = load_assembly(config_file)
    if source not in parts.config.sources:
        raise no_such("source", source, parts.config.sources)
    waits = None if max_wait is None else _duration(max_wait)
    report = run(_reconcile(parts, source, resource, waits, deep=deep, everything=everything))
    if as_json:
        print_json(plain(report))
    else:
        _print(report)
    return Exit.DONE if report.balanced else Exit.FAILED


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"--wait: {error}") from None


async def _reconcile(
    parts: Assembly, name: str, resource: str | None, max_wait: float | None, *, deep: bool, everything: bool
) -> Report:
    settings = parts.config.sources[name]
    async with parts.opened_store() as store:
        if max_wait is None:
            polled = await is_polled(store, name)
            max_wait = min(_POLLS * settings.interval + _EXTRA_WAIT_SECONDS, _MAX_WAIT_SECONDS) if polled else 0.0
        async with quota_limited_source(parts, store, name) as source:
            await verify_account(store, name, source, settings.account_label)
            if resource is not None:
                resource = _path(source, resource)
            wanted = CompareOptions(resource, deep=deep, everything=everything, max_wait=max_wait)
            reconciler = Reconciler(name, source, store, parts.clock, published=settings.first_sight == "emit")
            report = await reconciler.compare(wanted, _reporter())
        await reconciler.settle(
            report, wanted, store, {sink: settings.topics for sink, settings in parts.config.sinks.items()}
        )
        return report


def _path(source: Source, text: str) -> str:
    try:
        return source.resource(text)
    except ValueError as error:
        # A source that follows everything has no names to give; a path is what it is.
        if text.startswith("/"):
            return text
        raise click.UsageError(f"--resource: {error}") from None


def _reporter() -> Callable[[str], None]:
    """Return what says on a terminal which group is being read; elsewhere nothing is said."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda group: print_progress_line(f"{mask_path(group)} …")


_PERSONAL = re.compile(r"(?<=/)(?:[^/]*(?:@|%40)[^/]*|(?:\+|%2B)[^/]*|(?<=/messages/)\d{7,})(?=/|$)")
"""Parts of a path that may name a person: an address, a phone, or a customer's own key that looks like one."""


def mask_path(path: str) -> str:
    """Return a resource's path without phones and addresses; the provider's own numbers stay as they are."""
    return _PERSONAL.sub(lambda match: last4(match[0]), path)


# --- answers ------------------------------------------------------------------------------------------------------


def plain(report: Report) -> dict[str, Any]:
    """Return a report as plain values, without phone numbers."""
    journal = report.journal
    return {
        "source": report.source,
        "at": rfc3339(truncate_to_millis(report.at)),
        "balanced": report.balanced,
        "differences": [_plain_difference(difference) for difference in report.differences],
        "provider_contradicts_itself": report.contradictions,
        "not_compared": report.remarks,
        "surveys": [
            {
                "of": statistic.label,
                "start": rfc3339(statistic.start),
                "end": rfc3339(statistic.end),
                "provider": statistic.total,
                "known": statistic.known,
                "groups": statistic.groups,
            }
            for statistic in report.statistics
        ],
        "failures": {mask_path(group): reason for group, reason in report.failures.items()},
        "groups": [
            {
                "group": group.group,
                "of": group.label,
                "provider": group.provider,
                "ledger": group.ledger,
                "events": group.events,
            }
            for group in report.groups
        ],
        "totals": report.totals(),
        "journal": {
            "events": journal.events,
            "kept": max(journal.committed - journal.first + 1, 0),
            "confirmed": journal.events - journal.backlog,
            "unconfirmed": journal.backlog,
        },
        "sinks": {
            name: {
                "taken": book.counts.delivered,
                "waiting": book.counts.waiting,
                "dead": book.counts.dead,
                "discarded": book.counts.discarded,
                "filtered": book.counts.filtered,
                "expired": book.counts.expired,
                "unaccounted": book.unaccounted,
            }
            for name, book in report.sinks.items()
        },
    }


def _plain_difference(difference: Difference) -> dict[str, Any]:
    return {
        "resource": mask_path(difference.resource),
        "what": difference.what,
        "provider": difference.provider,
        "ledger": difference.ledger,
        "event": difference.event,
        "sink": difference.sink,
    }


def _print(report: Report) -> None:
    differing = {difference.group for difference in report.differences}
    _print_counts(report, [group for group in report.groups if group.group in differing])
    if report.differences:
        rows = [
            [
                mask_path(difference.resource),
                difference.provider,
                difference.ledger,
                difference.event,
                difference.sink,
                _SAID[difference.what],
            ]
            for difference in report.differences[:_MAX_ROWS]
        ]
        print_line()
        print_table(
            ["resource", "provider", "ledger", "last event", "sink", "what"],
            rows,
            give_way=("last event", "sink"),
            prose="what",
        )
        if len(report.differences) > _MAX_ROWS:
            print_line(f"… and {len(report.differences) - _MAX_ROWS:,} more; --json names them all")
    if report.sinks:
        print_line()
        _print_sinks(report)
    print_line()
    for line in report.contradictions:
        print_line(f"the provider contradicts itself: {line}")
    for statistic in report.statistics:
        print_line(_statistics_line(statistic))
    for line in report.remarks:
        print_line(f"not compared: {line}")
    for group, reason in report.failures.items():
        print_line(f"failed: {mask_path(group)}: {reason}")
    print_line(Coloured(_verdict(report), "green" if report.balanced else "red"))


def _statistics_line(statistics: Statistics) -> str:
    counted = f"{statistics.total:,} {statistics.label}s, {statistics.known:,} in {statistics.groups:,} known messages"
    text = f"the provider's statistics, {rfc3339(statistics.start)} to {rfc3339(statistics.end)}: {counted}"
    return (
        text
        if statistics.total == statistics.known
        else f"{text}; is there one that no list shows? `bridgectl watch` takes it in"
    )


def _verdict(report: Report) -> str:
    compared = f"{len(report.groups):,} compared"
    if report.balanced:
        return f"{report.source}: the books balance; {compared}"
    resources = len({difference.resource for difference in report.differences})
    failed = f", {len(report.failures):,} could not be asked for" if report.failures else ""
    return f"{report.source}: {resources:,} resources differ{failed}; {compared}"


def _print_counts(report: Report, differing: Sequence[GroupBook]) -> None:
    rows = []
    for label, columns in report.totals().items():
        rows += _rows(f"all: {label}", columns["provider"], columns["ledger"], columns["events"])
    for difference in differing[:_MAX_ROWS]:
        rows += _rows(difference.group, difference.provider or {}, difference.ledger, difference.events)
    print_table(["of", "status", "provider", "ledger", "events"], rows)


def _rows(label: str, provider: Any, ledger: Any, events: Any) -> list[list[Any]]:
    statuses = dict.fromkeys([*provider, *ledger, *events])
    return [[label, status, *(count.get(status, 0) for count in (provider, ledger, events))] for status in statuses]


def _print_sinks(report: Report) -> None:
    journal = report.journal
    print_line(f"{journal.events:,} events made, {journal.events - journal.backlog:,} confirmed by the broker")
    rows = [
        [name, book.counts.delivered, book.counts.waiting, book.counts.dead, book.counts.discarded, book.unaccounted]
        for name, book in report.sinks.items()
    ]
    print_table(["sink", "taken", "waiting", "dead", "discarded", "unaccounted"], rows)
