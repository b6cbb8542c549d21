"""`bridge watch`: single resources that an operator wants followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.running import load_assembly, run
from bridge.protocols.source import Source
from bridge.runtime.assembly import Assembly


@click.group(
    cls=Group,
    examples="""
    bridge watch add city-voice /messages/voice/10507 -c bridge.yaml
    bridge watch list -c bridge.yaml
    bridge watch remove city-voice 10507 -c bridge.yaml
    """,
)
def watch() -> None:
    """Follow single messages, by id or path, in addition to those that a source finds by itself."""


@watch.command(
    examples="""
    bridge watch add city-voice /messages/voice/10507 -c bridge.yaml
    bridge watch add city-voice /messages/voice/10507 /messages/sms/2101 -c bridge.yaml
    """
)
@click.argument("source")
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...")
@config_option
def add(source: str, resources: tuple[str, ...], config_file: Path) -> Exit:
    """Follow resources of a source from its next poll on.

    RESOURCE is a path. An id alone will do where the source follows one channel only.
    """
    parts = load_assembly(config_file)
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
    """Follow resources no longer; what a source finds by itself is followed all the same.

    RESOURCE is a path, or the id of what `bridge watch list` shows. Exits with 1 if one of them was not followed,
    whatever it is; an id that several followed paths have is wrong usage.
    """
    parts = load_assembly(config_file)
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
    parts = load_assembly(config_file)
    names = list(parts.config.sources) if source is None else [_known(parts, source)]
    result = run(_watched(parts, names))
    if as_json:
        print_json([{"source": name, "resource": resource} for name, resource in result])
    else:
        print_table(["source", "resource"], result)
    return Exit.DONE


def _known(parts: Assembly, source: str) -> str:
    if source not in parts.config.sources:
        raise click.UsageError(f"there is no source {source!r} in the configuration; there is {_names(parts)}")
    return source


def _names(parts: Assembly) -> str:
    return ", ".join(parts.config.sources)


async def _change(parts: Assembly, source: str, resources: tuple[str, ...], *, add: bool) -> bool:
    reader = parts.source(_known(parts, source))
    changed = []
    try:
        async with parts.opened_store() as store:
            followed = () if add else await store.watched(source)
            paths = [_path(reader, text, followed, remove=not add) for text in resources]
            for path in paths:
                changed.append(await (store.watch if add else store.unwatch)(source, path))
                print_line(f"{path}: {_SAID[add, changed[-1]]}")
    finally:
        await reader.close()
    return all(changed)


def _path(reader: Source, text: str, followed: Sequence[str], *, remove: bool) -> str:
    """Return the path that an operator means: what the source reads, else what is followed and has that path or id.

    What is to be removed and is neither is the text itself: it is not followed.
    """
    try:
        return reader.resource(text)
    except ValueError as error:
        meant = [path for path in followed if text in (path, path.rpartition("/")[2])]
        if len(meant) > 1:
            raise click.UsageError(f"{text!r} may be {' or '.join(meant)}; give the path") from None
        if not meant and not remove:
            raise click.UsageError(str(error)) from None
        return meant[0] if meant else text


_SAID = {
    (True, True): "is followed from the next poll on",
    (True, False): "was followed already",
    (False, True): "is followed no longer",
    (False, False): "was not followed",
}


async def _watched(parts: Assembly, names: list[str]) -> list[tuple[str, str]]:
    async with parts.opened_store() as store:
        return [(name, resource) for name in names for resource in await store.watched(name)]
