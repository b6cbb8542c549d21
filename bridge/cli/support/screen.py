"""The screen of `bridgectl status`: what is wrong first, then the parts, within the terminal's width."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.cli.support.output import print_table, styled
from bridge.cli.support.overview_rows import (
    PROCESS_HEADERS,
    PROCESSES_GIVE_WAY,
    SINK_HEADERS,
    SINKS_GIVE_WAY,
    SOURCE_HEADERS,
    SOURCES_GIVE_WAY,
    process_row,
    sink_row,
    source_row,
)
from bridge.cli.support.table_layout import fit
from bridge.domain.visible_text import visible
from bridge.runtime.overview import Overview, StatusFinding, counted


def screen(overview: Overview, width: int | None) -> list[str]:
    """Return the lines; None is no width, so that nothing is cut.

    Only the errors in tables are cut: what is wrong with a part stands in full among the findings.
    """
    return [*_headline(overview), *_servers(overview, width), *_tables(overview, width)]


def _headline(overview: Overview) -> Iterator[str]:
    problems = sum(finding.is_problem for finding in overview.findings)
    if not problems:
        yield styled("all is well", "green", bold=True)
    else:
        yield styled(counted(problems, "problem"), "red", bold=True)
    for finding in overview.findings:
        yield _finding(finding)
    yield ""


def _finding(finding: StatusFinding) -> str:
    mark, colour = ("!", "red") if finding.is_problem else ("-", "yellow")
    return f"  {styled(mark, colour, bold=True)} {finding.part}: {visible(' '.join(finding.text.split()))}"


def _servers(overview: Overview, width: int | None) -> Iterator[str]:
    servers = (
        ("store", overview.store, overview.store_problem),
        ("broker", overview.broker, overview.broker_problem),
    )
    for name, place, problem in servers:
        state = styled("ok", "green") if problem is None else styled("unreachable", "red")
        yield f"{name:<8}{state}  {_cut(visible(place), None if width is None else width - 22)}"


def _tables(overview: Overview, width: int | None) -> Iterator[str]:
    if overview.store_problem is not None:
        yield from ("", "what the processes do is not known without the store")
    elif overview.processes:
        rows = [process_row(presence, overview) for presence in overview.processes]
        yield from _table(PROCESS_HEADERS, rows, width, PROCESSES_GIVE_WAY, "")
    yield from _table(
        SOURCE_HEADERS,
        [source_row(source, overview.at) for source in overview.sources],
        width,
        SOURCES_GIVE_WAY,
        "error",
    )
    if overview.sinks:
        yield from _table(
            SINK_HEADERS, [sink_row(sink, overview.at) for sink in overview.sinks], width, SINKS_GIVE_WAY, "last error"
        )
    else:
        yield from ("", "there is no sink")


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None, give_way: Sequence[str], prose: str
) -> Iterator[str]:
    """Yield the lines of a table without columns in which no row has anything, and without those that do not fit.

    Only the texts of the column `prose` are cut.
    """
    cells = [["-" if cell in (None, "") else visible(str(cell)) for cell in row] for row in rows]
    kept = [index for index in range(len(headers)) if any(row[index] != "-" for row in cells)]
    own = [headers[index] for index in kept]
    widths = [max(len(headers[index]), *(len(row[index]) for row in cells)) for index in kept]
    layout = fit(own, widths, sum(widths) * 2 if width is None else width, give_way, prose)
    shown = [
        [_cut(row[kept[at]], layout.prose_width if at == layout.prose else None) for at in layout.shown]
        for row in cells
    ]
    text = io.StringIO()
    print_table([own[at] for at in layout.shown], shown, to=text)
    yield from ("", *text.getvalue().splitlines())


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
