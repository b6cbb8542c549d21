"""`bridgectl hooks`: where the providers push to, as they have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.provider_access import quota_limited_source
from bridge.cli.support.push_addresses import compared
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.domain.settings import MASK
from bridge.hooks.registration import Registration
from bridge.protocols.hints import RegistersPushes
from bridge.runtime.assembly import Assembly

Step = Callable[[RegistersPushes, Registration, str], Awaitable[Registration]]


@click.group(
    cls=Group,
    examples="""
    bridgectl hooks list city-voice -c bridge.yaml
    bridgectl hooks register city-voice -c bridge.yaml
    bridgectl hooks remove city-voice -c bridge.yaml
    """,
)
def hooks() -> None:
    """Tell a provider to push to the bridge, see what it has, or take that back.

    Only what calls an address of this source under `hooks.url` is ours; nothing else is changed. Each command may be
    repeated after it was interrupted.
    """


@hooks.command(
    name="list",
    examples="""
    bridgectl hooks list city-voice -c bridge.yaml
    bridgectl hooks list city-voice -c bridge.yaml --json
    """,
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@json_option
def list_(source: str, config_file: Path, *, as_json: bool) -> Exit:
    """List what the provider of a source calls, ours or not; exits with 1 if something is missing."""
    comparison = run(_work(load_assembly(config_file), source, _leave_alone))
    if as_json:
        print_json(_plain(comparison))
    else:
        _print(comparison)
    return Exit.DONE if comparison.is_complete else Exit.FAILED


@hooks.command(
    examples="""
    bridgectl hooks register city-voice -c bridge.yaml
    """
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@json_option
def register(source: str, config_file: Path, *, as_json: bool) -> Exit:
    """Have the provider of a source push all that it can; what is registered already stays.

    The first `secret` of the source's `push` is used. What calls an older address of ours is removed afterwards.
    """
    _report(run(_work(load_assembly(config_file), source, _register)), as_json=as_json)
    return Exit.DONE


@hooks.command(
    examples="""
    bridgectl hooks remove city-voice -c bridge.yaml
    """
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@json_option
def remove(source: str, config_file: Path, *, as_json: bool) -> Exit:
    """Have the provider of a source push to the bridge no more; what others registered stays."""
    _report(run(_work(load_assembly(config_file), source, _remove)), as_json=as_json)
    return Exit.DONE


async def _work(parts: Assembly, source: str, step: Step) -> Registration:
    """Return what the provider has after a step."""
    if source not in parts.config.sources:
        raise no_such("source", source, parts.config.sources)
    async with parts.opened_store() as store, quota_limited_source(parts, store, source) as opened:
        if not isinstance(opened, RegistersPushes):
            raise click.UsageError(f"{source}: its provider cannot be told by requests; set the address in its console")
        await step(opened, *await compared(parts, source, opened))
        return (await compared(parts, source, opened))[0]


async def _leave_alone(_source: RegistersPushes, comparison: Registration, _url: str) -> Registration:
    return comparison


async def _register(source: RegistersPushes, comparison: Registration, url: str) -> Registration:
    """Make what is missing, then remove what is too much: a crash in between leaves too many, never too few."""
    for event in comparison.missing:
        await source.subscribe(event, url)
    for subscription in comparison.surplus:
        await source.unsubscribe(subscription)
    return comparison


async def _remove(source: RegistersPushes, comparison: Registration, _url: str) -> Registration:
    for subscription in comparison.ours:
        await source.unsubscribe(subscription)
    return comparison


def _report(comparison: Registration, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(comparison))
        return
    count = len(comparison.ours)
    others = len(comparison.present) - count
    print_line(f"{count} webhooks call the bridge; {others} of others are as they were")


def _plain(comparison: Registration) -> list[dict[str, str]]:
    rows = [
        {"event": subscription.event, "state": state, "url": _shown(subscription.url, ours=state != "other")}
        for subscription, state in comparison.present
    ]
    return [*rows, *({"event": event, "state": "missing", "url": ""} for event in comparison.missing)]


def _print(comparison: Registration) -> None:
    rows = [(row["event"], row["state"], row["url"]) for row in _plain(comparison)]
    print_table(["event", "state", "address"], rows, empty="nothing is pushed; `hooks register` changes that")


def _shown(url: str, *, ours: bool) -> str:
    """Return an address without its secret: of ours the last part, of others all but the host."""
    parts = urlsplit(url)
    if not ours:
        return f"{parts.scheme}://{parts.hostname}/{MASK}"
    return f"{url.rpartition('/')[0]}/{MASK}"
