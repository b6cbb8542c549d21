"""`bridgectl takeover`: say that store and broker belong to this installation from now on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from bridge.cli.support.options import Command, Exit, config_option
from bridge.cli.support.output import print_line
from bridge.cli.support.running import load_assembly, run
from bridge.domain.installation import Mark
from bridge.runtime.assembly import Assembly
from bridge.runtime.installation import KeptInstallation, take_over


@dataclass(frozen=True, slots=True)
class _Found:
    """What store and broker say of themselves."""

    store: str
    broker: str
    kept: KeptInstallation
    marked: Mark | None
    refusals: Sequence[str]
    """Why a service with this configuration would not start."""

    def lines(self) -> Iterator[str]:
        """Yield what a person wants to know before the answer."""
        known = f"; its broker was {self.kept.broker}" if self.kept.broker else ""
        yield f"store   {self.store}: {_describe(self.kept.mark)}{known}"
        yield f"broker  {self.broker}: {_describe(self.marked)}"
        yield from self.refusals


@click.command(
    cls=Command,
    examples="""
    bridgectl takeover -c bridge.yaml          tells what it finds, and asks
    bridgectl takeover -c bridge.yaml --yes    for a script
    """,
)
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def takeover(config_file: Path, *, yes: bool) -> Exit:
    """Say that this store and this broker belong to this installation from now on.

    It is for a store that was lost, and for a broker that was another installation's. Who used them until now is
    refused from then on: at the start, and when it connects again. Nothing else is changed. What waits in the broker's
    queues is delivered by this installation.
    """
    parts = load_assembly(config_file)
    present = run(_inspect(parts))
    for line in present.lines():
        print_line(line)
    if not present.refusals:
        print_line("both are this installation's already, or nobody's: there is nothing to take over")
        return Exit.DONE
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked: --yes takes over without a question")
        click.confirm("Take over?", abort=True)
    mark = run(_take_over(parts))
    print_line(f"taken over: installation {mark.id}; restart what runs with another mark")
    return Exit.DONE


def _describe(mark: Mark | None) -> str:
    if mark is None:
        return "no mark"
    return f"installation {mark.id}" + (f" of the namespace {mark.namespace}" if mark.namespace else "")


async def _inspect(parts: Assembly) -> _Found:
    async with parts.opened_store(check=False) as store, parts.opened_broker() as broker:
        kept, marked = await KeptInstallation.read(store), await broker.mark()
        refusals = kept.refusals(store.place, broker.place, marked, parts.config.names)
        return _Found(store.place, broker.place, kept, marked, refusals)


async def _take_over(parts: Assembly) -> Mark:
    async with parts.opened_store(check=False) as store, parts.opened_broker() as broker:
        return await take_over(store, broker, parts.config.names)
