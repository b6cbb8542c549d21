"""`bridgectl check`: the file, then every part it names, without sending anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from bridge.cli.support.known_topics import check_topics, topic_notes
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.push_addresses import compared, takes_pushes
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.shared_allowance import AccountCost, overdrawn
from bridge.domain.errors import (
    AccessRefused,
    BridgeError,
    ConfigError,
    MissingRight,
    OtherInstallation,
    Transient,
    Unauthorized,
)
from bridge.domain.times import YEAR_DAYS
from bridge.ingest.account import check_account
from bridge.protocols.deliveries import RELAY_SINK
from bridge.protocols.hints import RegistersPushes
from bridge.protocols.sink import Sink
from bridge.protocols.source import HasAccount, Source
from bridge.runtime.assembly import Assembly
from bridge.runtime.installation import KeptInstallation
from bridge.runtime.sink_runner import INTERNAL_JOURNAL

_TIMEOUT_SECONDS = 20.0
LACKS = "lacks a right"
"""The state of a store or broker that knows us and does not let us do all that the service does."""
_GIVE_WAY = ("requests/day", "requests/year")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one part."""

    part: str
    state: str
    """`ok`, `warning`, `unreachable`, `lacks a right`, `refused`, or `foreign`: it is another installation's."""
    said: str
    requests_per_day: float | None = None
    cost: AccountCost | None = None


class _Answer(NamedTuple):
    """What a part said when it was asked."""

    summary: str
    requests_per_day: float | None = None
    warning: str | None = None
    cost: AccountCost | None = None


@click.command(
    cls=Command,
    examples="""
    bridgectl check -c bridge.yaml              the file, the store, the broker, each source and each sink
    bridgectl check -c bridge.yaml --offline    the file alone; no connection is made
    bridgectl check -c bridge.yaml --json       for a script; the exit code says it too
    """,
)
@config_option
@click.option("--offline", is_flag=True, help="Check the file alone.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning.")
@json_option
def check(config_file: Path, *, offline: bool, strict: bool, as_json: bool) -> Exit:
    """Check a configuration, then everything it names, without sending any event.

    Problems of the file are printed on stderr with file, line and key (exit code 3), and a sink's topic that no event
    can have is such a problem. Then each right that the service needs is tried at the store and the broker, which
    leaves nothing behind. Each source is asked one cheap question, and whether the store's cursor is of its account; a
    provider that should push, and can be asked, whether it does. Each sink is asked whether it can be reached. The exit
    code is 3 if the store or the broker belongs to another installation, 4 if any of them is unreachable or does not
    give a right, 1 if any refuses us. A yearly allowance that is too small, for one source or for all that share an
    account, is a warning, and so are missing pushes: with --strict the exit code is 1.
    """
    try:
        parts = load_assembly(config_file)
        parts.check_addresses()
        sources, sinks = parts.sources(), parts.sinks()
        parts.check_pushes(sources)
        parts.check_expectations(sources)
        check_topics(parts.config)
    except ConfigError as error:
        if as_json:
            print_json(
                {"file": str(config_file), "ok": False, "problems": [_problem(problem) for problem in error.problems]}
            )
        raise
    findings = [] if offline else _add_up(run(_ask(parts, sources, sinks)))
    worst, notes = _exit(findings, strict=strict), topic_notes(parts.config)
    if as_json:
        rows = [_plain(finding) for finding in findings]
        print_json({"file": str(config_file), "ok": worst is Exit.DONE, "problems": [], "notes": notes, "parts": rows})
    else:
        _print(config_file, parts, findings)
        for note in notes:
            print_note(note)
    return worst


def _problem(problem: Any) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "key": problem.key, "text": problem.text}


def _plain(finding: Finding) -> dict[str, Any]:
    plain: dict[str, Any] = {"part": finding.part, "state": finding.state, "said": finding.said}
    if finding.requests_per_day is not None:
        plain["requests_per_day"] = round(finding.requests_per_day)
        plain["requests_per_year"] = round(finding.requests_per_day * YEAR_DAYS)
    return plain


def _print(file: Path, parts: Assembly, findings: list[Finding]) -> None:
    config = parts.config
    print_line(f"{file}: ok: sources {_names(config.sources)}; sinks {_names(config.sinks)}")
    if findings:
        rows = [
            (finding.part, finding.state, _count(finding, 1), _count(finding, YEAR_DAYS), finding.said)
            for finding in findings
        ]
        print_table(["part", "state", "requests/day", "requests/year", "said"], rows, give_way=_GIVE_WAY, prose="said")


def _names(parts: dict[str, Any]) -> str:
    return ", ".join(parts) or "none"


def _count(finding: Finding, days: int) -> str | None:
    return None if finding.requests_per_day is None else f"{round(finding.requests_per_day * days):,}"


def _exit(findings: list[Finding], *, strict: bool) -> Exit:
    states = {finding.state for finding in findings}
    if "foreign" in states:
        return Exit.CONFIG
    if states & {"unreachable", LACKS}:
        return Exit.UNREACHABLE
    return Exit.FAILED if "refused" in states or (strict and "warning" in states) else Exit.DONE


async def _ask(parts: Assembly, sources: dict[str, Source], sinks: dict[str, Sink]) -> list[Finding]:
    kept = await _kept(parts, sources)
    return await asyncio.gather(
        _finding("store", _store(parts)),
        _finding("broker", _broker(parts, kept)),
        *([] if parts.config.hooks is None else [_finding("hooks", _hooks(parts, sources))]),
        *(_finding(f"source {name}", _source(parts, name, source, kept)) for name, source in sources.items()),
        *(_finding(f"sink {name}", _sink(sink)) for name, sink in sinks.items()),
    )


def _add_up(findings: list[Finding]) -> list[Finding]:
    """Turn each source into a warning that keeps to its account's yearly allowance only without the others."""
    warnings = overdrawn([finding.cost for finding in findings if finding.cost is not None])
    return [
        replace(finding, state="warning", said=warnings[finding.cost.source])
        if finding.state == "ok" and finding.cost is not None and finding.cost.source in warnings
        else finding
        for finding in findings
    ]


async def _finding(part: str, asked: Awaitable[_Answer]) -> Finding:
    try:
        probe = await asyncio.wait_for(asked, _TIMEOUT_SECONDS)
    except TimeoutError:
        return Finding(part, "unreachable", f"no answer within {_TIMEOUT_SECONDS:g} s")
    except BridgeError as error:
        return Finding(part, _state(error), str(error))
    except Exception as error:  # noqa: BLE001 - a plugin's defect is a finding like any other; its text may quote secrets
        return Finding(part, "refused", f"a defect: unexpected {type(error).__name__}")
    state, said = ("ok", probe.summary) if probe.warning is None else ("warning", probe.warning)
    return Finding(part, state, said, probe.requests_per_day, probe.cost)


def _state(error: BridgeError) -> str:
    match error:
        case OtherInstallation():
            return "foreign"
        case MissingRight():
            return LACKS
        case Unauthorized() | AccessRefused():
            return "refused"
    return "unreachable" if isinstance(error, Transient) else "refused"


async def _store(parts: Assembly) -> _Answer:
    async with parts.opened_store(check=False) as store:
        sources = [*parts.config.sources, INTERNAL_JOURNAL]
        await store.check_rights(sources, [*parts.config.sinks, RELAY_SINK])
        KeptInstallation(await store.mark()).check_store(store.place, parts.config.names)
    return _Answer(str(parts.config.show()["store"]))


async def _broker(parts: Assembly, kept: _Kept | None) -> _Answer:
    async with parts.opened_broker() as broker:
        await broker.check_rights([broker.sink_queue(name) for name in parts.config.sinks])
        if kept is not None:
            kept.installation.check_broker(broker.place, await broker.mark())
    return _Answer(str(parts.config.show()["broker"]))


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store knows of the other parts."""

    installation: KeptInstallation
    cursors: Mapping[str, Mapping[str, str]]


async def _kept(parts: Assembly, names: Iterable[str]) -> _Kept | None:
    """Ask the store; None if it cannot be read, which is a finding of its own."""
    with suppress(BridgeError, TimeoutError):
        async with asyncio.timeout(_TIMEOUT_SECONDS), parts.opened_store() as store:
            return _Kept(await KeptInstallation.read(store), {name: await store.cursor(name) for name in names})
    return None


async def _source(parts: Assembly, name: str, source: Source, kept: _Kept | None) -> _Answer:
    try:
        probe = await source.probe()
        label, cursor = parts.config.sources[name].account_label, kept.cursors[name] if kept is not None else {}
        await check_account(name, source, label, cursor)
        unregistered = await _unregistered(parts, name, source)
    finally:
        await source.close()
    cost = None
    if isinstance(source, HasAccount) and probe.requests_per_year is not None:
        cost = AccountCost(name, source.account, probe.requests_per_day, probe.requests_per_year)
    return _Answer(probe.summary, probe.requests_per_day, probe.warning or unregistered, cost)


async def _unregistered(parts: Assembly, name: str, source: Source) -> str | None:
    """Say what the provider should push and does not, if it can be told by requests."""
    if not takes_pushes(source) or not isinstance(source, RegistersPushes):
        return None
    comparison, _ = await compared(parts, name, source)
    if comparison.is_complete:
        return None
    lacks = ", ".join(comparison.missing) or "nothing, but calls older addresses too"
    return f"the provider does not push what it should: it lacks {lacks}; run `bridgectl hooks register {name}`"


async def _hooks(parts: Assembly, sources: dict[str, Source]) -> _Answer:
    names = [name for name, source in sources.items() if takes_pushes(source)]
    url = "" if parts.config.hooks is None else parts.config.hooks.url
    warning = None
    if not names:
        warning = "nothing listens, for no source has `push:`"
    elif url.startswith("http:"):
        warning = f"{url} is not https: whatever the providers send, secrets too, can be read on the way"
    return _Answer(f"{url} is for {', '.join(names)}; it has to be reachable from outside", None, warning)


async def _sink(sink: Sink) -> _Answer:
    try:
        await sink.open()
        return _Answer(await sink.probe())
    finally:
        await sink.close()
