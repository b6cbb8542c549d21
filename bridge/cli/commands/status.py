"""`bridgectl status`: one screen that answers whether all is well."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from bridge.cli.support.options import Command, Exit, FiniteFloat, config_option, json_option
from bridge.cli.support.output import print_drawn, print_json, print_json_line
from bridge.cli.support.overview_rows import plain_overview
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.screen import screen
from bridge.config.loading import load_servers
from bridge.domain.errors import ConfigError
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import Overview
from bridge.runtime.overview_reader import read_overview

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR, _HIDE_CURSOR, _SHOW_CURSOR = "\x1b[2J", "\x1b[?25l", "\x1b[?25h"


@click.command(
    cls=Command,
    examples="""
    bridgectl status -c bridge.yaml                                         is all well?
    bridgectl status -c bridge.yaml --watch                                 the same, again and again in place
    bridgectl status -c bridge.yaml --json | jq -r '.problems[] | .code'    for a script
    """,
)
@config_option
@click.option("--watch", is_flag=True, help="Refresh the screen until Ctrl-C.")
@click.option(
    "--every", type=FiniteFloat(min=0.1), default=2.0, show_default=True, metavar="SECONDS",
    help="How often --watch refreshes.",
)  # fmt: skip
@json_option
def status(config_file: Path, every: float, *, watch: bool, as_json: bool) -> Exit:
    """Say whether all is well: processes, sources, sinks, store and broker.

    Exits with 0 if all is well, and with 1 if something is wrong; so it does if the store or the broker cannot be
    reached, and then shows what can be shown without it. What is worth knowing and not wrong is shown as a remark.
    Nothing is written, neither to the store nor to the broker. If the file itself is wrong, the processes that run on
    with an earlier one are shown as far as possible, and it exits with 3. With --watch it exits with 0 after Ctrl-C;
    with --json each refresh is then one line.
    """
    try:
        parts = load_assembly(config_file, with_secrets=False)
    except ConfigError:
        _show_processes(config_file, as_json=as_json)
        raise
    if watch:
        with suppress(KeyboardInterrupt), _whole_screen(on=not as_json):  # the way in which this command ends
            run(_watch(parts, every, as_json=as_json))
        return Exit.DONE
    overview = run(read_overview(parts))
    _show(overview, as_json=as_json)
    return Exit.DONE if overview.is_well else Exit.FAILED


def _show(overview: Overview, *, as_json: bool) -> None:
    if as_json:
        print_json(plain_overview(overview))
    else:
        for line in screen(overview, _width()):
            print_drawn(line)


def _show_processes(config_file: Path, *, as_json: bool) -> None:
    """Show the processes that run on an earlier file, if this one still says where they are."""
    with suppress(ConfigError):
        overview = run(read_overview(Assembly(load_servers(config_file))))
        if overview.processes:
            _show(overview, as_json=as_json)


def _width() -> int | None:
    """Return the width of the terminal; None if there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def _whole_screen(*, on: bool) -> Iterator[None]:
    """Have an empty screen without a cursor on a terminal; what was shown last stays there."""
    if not on or not sys.stdout.isatty():
        yield
        return
    print_drawn(_HIDE_CURSOR + _CLEAR, line_break=False)
    try:
        yield
    finally:
        print_drawn(_SHOW_CURSOR, line_break=False)


async def _watch(parts: Assembly, every: float, *, as_json: bool) -> None:
    while True:
        overview = await read_overview(parts)
        if as_json:
            print_json_line(plain_overview(overview))
        else:
            _refresh(overview)
        await asyncio.sleep(every)


def _refresh(overview: Overview) -> None:
    lines = [f"{overview.at.astimezone():%H:%M:%S}  Ctrl-C ends it", *screen(overview, _width())]
    if not sys.stdout.isatty():
        print_drawn("\n".join(lines) + "\n")
        return
    height = shutil.get_terminal_size().lines - 1
    shown = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines[:height])
    print_drawn(_HOME + shown + _CLEAR_BELOW, line_break=False)
