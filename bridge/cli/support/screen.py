"""The screen of `bridge status`: what is wrong first, then the parts, within the terminal's width."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import click

from bridge.cli.support.output import print_table
from bridge.cli.support.overview_rows import (
    PROCESS_HEADERS,
    SINK_HEADERS,
    SOURCE_HEADERS,
    process_row,
    sink_row,
    source_row,
)
from bridge.runtime.overview import Overview, StatusFinding, counted


def screen(overview: Overview, width: int | None) -> list[str]:
    """Return the lines; None is no width, so that nothing is cut.

    Only tables are cut, at their last column: what is wrong with a part stands in full among the findings.
    """
    return [*_headline(overview), *_servers(overview, width), *_tables(overview, width)]


def _headline(overview: Overview) -> Iterator[str]:
    problems = sum(finding.is_problem for finding in overview.findings)
    if not problems:
        yield click.style("all is well", fg="green", bold=True)
    else:
        yield click.style(counted(problems, "problem"), fg="red", bold=True)
    for finding in overview.findings:
        yield _finding(finding)
    yield ""


def _finding(finding: StatusFinding) -> str:
    mark, colour = ("!", "red") if finding.is_problem else ("-", "yellow")
    return f"  {click.style(mark, fg=colour, bold=True)} {finding.part}: {' '.join(finding.text.split())}"


def _servers(overview: Overview, width: int | None) -> Iterator[str]:
    servers = (
        ("store", overview.store, overview.store_problem),
        ("broker", overview.broker, overview.broker_problem),
    )
    for name, place, problem in servers:
        state = click.style("ok", fg="green") if problem is None else click.style("unreachable", fg="red")
        yield f"{name:<8}{state}  {_cut(place, None if width is None else width - 22)}"


def _tables(overview: Overview, width: int | None) -> Iterator[str]:
    if overview.store_problem is not None:
        yield from ("", "what the processes do is not known without the store")
    elif overview.processes:
        rows = [process_row(presence, overview.at) for presence in overview.processes]
        yield from _table(PROCESS_HEADERS, rows, width)
    yield from _table(SOURCE_HEADERS, [source_row(source, overview.at) for source in overview.sources], width)
    if overview.sinks:
        yield from _table(SINK_HEADERS, [sink_row(sink, overview.at) for sink in overview.sinks], width)
    else:
        yield from ("", "there is no sink")


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table; columns in which no row has anything are left out."""
    kept = [index for index in range(len(headers)) if any(row[index] not in (None, "") for row in rows)]
    text = io.StringIO()
    print_table([headers[index] for index in kept], [[row[index] for index in kept] for row in rows], to=text)
    yield ""
    for line in text.getvalue().splitlines():
        yield _cut(line, width)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
