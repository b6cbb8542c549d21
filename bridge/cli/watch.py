"""`bridge watch`: single resources that an operator wants followed."""

from __future__ import annotations

from pathlib import Path

import click

from bridge.assembly import Assembly
from bridge.cli.common import Exit, Group, assembly, config_option, json_option, print_json, print_table, run


@click.group(
    cls=Group,
    examples="""
    bridge watch add city-voice /messages/voice/10507 -c bridge.yaml
    bridge watch list -c bridge.yaml
    bridge watch remove city-voice 10507 -c bridge.yaml
    """,
)
def watch() -> None:
    """Follow single messages, by id or path, beside those that a source finds by itself."""


@watch.command(
    examples="""
    bridge watch add city-voice 10507 -c bridge.yaml                    by id
    bridge watch add city-voice /messages/voice/10507 -c bridge.yaml    by path
    """
)
@click.argument("source")
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...")
@config_option
def add(source: str, resources: tuple[str, ...], config_file: Path) -> Exit:
    """Follow resources of a source from its next poll on."""
    parts = assembly(config_file)
    run(_change(parts, source, resources, add=True))
    return Exit.DONE


@watch.command(
    examples="""
    bridge watch remove city-voice 10507 -c bridge.yaml
    """
)
@click.argument("source")
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...")
@config_option
def remove(source: str, resources: tuple[str, ...], config_file: Path) -> Exit:
    """Follow resources no longer; what a source finds by itself is followed all the same."""
    parts = assembly(config_file)
    known = run(_change(parts, source, resources, add=False))
    return Exit.DONE if known else Exit.FAILED


@watch.command(
    name="list",
    examples="""
    bridge watch list -c bridge.yaml
    bridge watch list city-voice -c bridge.yaml --json
    """,
)
@click.argument("source", required=False)
@config_option
@json_option
def list_(source: str | None, config_file: Path, *, as_json: bool) -> Exit:
    """List what operators named, for one source or all."""
    parts = assembly(config_file)
    names = list(parts.config.sources) if source is None else [_known(parts, source)]
    found = run(_watched(parts, names))
    if as_json:
        print_json([{"source": name, "resource": resource} for name, resource in found])
    else:
        print_table(["source", "resource"], found)
    return Exit.DONE


def _known(parts: Assembly, source: str) -> str:
    if source not in parts.config.sources:
        raise click.UsageError(f"there is no source {source!r} in the configuration; there is {_names(parts)}")
    return source


def _names(parts: Assembly) -> str:
    return ", ".join(parts.config.sources)


async def _change(parts: Assembly, source: str, resources: tuple[str, ...], *, add: bool) -> bool:
    reader = parts.source(_known(parts, source))
    try:
        paths = [reader.resource(text) for text in resources]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    finally:
        await reader.close()
    changed = []
    async with parts.opened_store() as store:
        for path in paths:
            changed.append(await (store.watch if add else store.unwatch)(source, path))
            click.echo(f"{path}: {_SAID[add, changed[-1]]}")
    return all(changed)


_SAID = {
    (True, True): "is followed from the next poll on",
    (True, False): "was followed already",
    (False, True): "is followed no longer",
    (False, False): "was not followed",
}


async def _watched(parts: Assembly, names: list[str]) -> list[tuple[str, str]]:
    async with parts.opened_store() as store:
        return [(name, resource) for name in names for resource in await store.watched(name)]
