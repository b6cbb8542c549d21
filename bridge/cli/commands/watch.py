"""`bridgectl watch`: single resources that an operator wants followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.protocols.source import Source
from bridge.runtime.assembly import Assembly


@click.group(
    cls=Group,
    examples="""
    bridgectl watch add city-voice /messages/voice/10507 -c bridge.yaml
    bridgectl watch list -c bridge.yaml
    bridgectl watch remove city-voice 10507 -c bridge.yaml
    """,
)
def watch() -> None:
    """Follow single messages, by id or path, in addition to those that a source finds by itself."""


@watch.command(
    examples="""
    bridgectl watch add city-voice /messages/voice/10507 -c bridge.yaml
    bridgectl watch add city-voice /messages/voice/10507 /messages/sms/2101 -c bridge.yaml
    """
)
@click.argument("source", shell_complete=complete_sources)
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...")
@config_option
@json_option
def add(source: str, resources: tuple[str, ...], config_file: Path, *, as_json: bool) -> Exit:
    """Follow resources of a source from its next poll on.

    RESOURCE is a path. An id alone will do where the source follows one channel only.
    """
    parts = load_assembly(config_file, with_secrets=False)
    _print_changes(source, run(_change(parts, source, resources, add=True)), add=True, as_json=as_json)
    return Exit.DONE


@watch.command(
    examples="""
    bridgectl watch remove city-voice 10507 -c bridge.yaml
    """
)
@click.argument("source", shell_complete=complete_sources)
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...")
@config_option
@json_option
def remove(source: str, resources: tuple[str, ...], config_file: Path, *, as_json: bool) -> Exit:
    """Follow resources no longer; what a source finds by itself is followed all the same.

    RESOURCE is a path, or the id of what `bridgectl watch list` shows. Exits with 1 if one of them was not followed.
    """
    parts = load_assembly(config_file, with_secrets=False)
    changes = run(_change(parts, source, resources, add=False))
    _print_changes(source, changes, add=False, as_json=as_json)
    return Exit.DONE if all(changes.values()) else Exit.FAILED


@watch.command(
    name="list",
    examples="""
    bridgectl watch list -c bridge.yaml
    bridgectl watch list city-voice -c bridge.yaml --json
    """,
)
@click.argument("source", required=False, shell_complete=complete_sources)
@config_option
@json_option
def list_(source: str | None, config_file: Path, *, as_json: bool) -> Exit:
    """List what operators named, for one source or all."""
    parts = load_assembly(config_file, with_secrets=False)
    names = list(parts.config.sources) if source is None else [_known(parts, source)]
    result = run(_watched(parts, names))
    if as_json:
        print_json([{"source": name, "resource": resource} for name, resource in result])
    else:
        print_table(["source", "resource"], result, empty="no message is followed by name; `watch add` does that")
    return Exit.DONE


def _known(parts: Assembly, source: str) -> str:
    if source not in parts.config.sources:
        raise no_such("source", source, parts.config.sources)
    return source


def _print_changes(source: str, changes: Mapping[str, bool], *, add: bool, as_json: bool) -> None:
    if as_json:
        print_json([
            {"source": source, "resource": path, "followed": add, "changed": changed}
            for path, changed in changes.items()
        ])  # fmt: skip
        return
    for path, changed in changes.items():
        print_line(f"{path}: {_SAID[add, changed]}")


async def _change(parts: Assembly, source: str, resources: tuple[str, ...], *, add: bool) -> dict[str, bool]:
    """Return for each resource whether anything changed."""
    reader = parts.source(_known(parts, source))
    changes: dict[str, bool] = {}
    try:
        async with parts.opened_store() as store:
            followed = () if add else await store.watched(source)
            paths = [_path(reader, text, followed, remove=not add) for text in resources]
            for path in paths:
                changes[path] = await (store.watch if add else store.unwatch)(source, path)
    finally:
        await reader.close()
    return changes


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
    async with parts.opened_store(read_only=True) as store:
        return [(name, resource) for name in names for resource in await store.watched(name)]
