"""`bridgectl run`: the long-lived service, or one round of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from bridge.cli.support.options import Command, Exit, SuggestingChoice, config_option, json_option
from bridge.cli.support.output import print_json, print_table
from bridge.cli.support.running import run as run_to_end

if TYPE_CHECKING:
    import asyncio
    import signal

    from bridge.cli.support.signals import Hangups
    from bridge.config.model import Config
    from bridge.runtime.assembly import Assembly
    from bridge.runtime.once import OnceReport
    from bridge.runtime.service import Service


def _size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read a size, or fail as wrong usage."""
    from pydantic import TypeAdapter, ValidationError

    from bridge.config.types import Size

    try:
        return TypeAdapter[int](Size).validate_python(value)
    except ValidationError as error:
        raise click.BadParameter(str(error.errors()[0]["ctx"]["error"]), context, parameter) from None


@click.command(
    cls=Command,
    examples="""
    bridgectl run -c bridge.yaml                      poll, relay and deliver until SIGTERM or Ctrl-C
    bridgectl run -c bridge.yaml --once               one round of everything, then exit
    bridgectl run -c bridge.yaml --role poll          only ask the providers; others relay and deliver
    bridgectl run -c bridge.yaml --role relay --role sink
    bridgectl run -c bridge.yaml --record tape        keep what the providers answer, for replay-tape and diff-tape
    """,
)
@config_option
@click.option("--once", is_flag=True, help="Poll every source once, relay and deliver what came of it, and exit.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=SuggestingChoice(["poll", "relay", "sink"]),
    help="Do only this part of the work; repeatable. By default all of it.",
)
@click.option(
    "--record",
    "tape",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep what the providers answer in this directory, without personal data.",
)
@click.option(
    "--record-max",
    "tape_bytes",
    default="1GB",
    show_default=True,
    callback=_size,
    metavar="SIZE",
    help="Record no more when the directory holds so much.",
)
@click.option("--record-gzip", "tape_gzip", is_flag=True, help="Compress what is recorded.")
@json_option
def run(
    config_file: Path,
    tape: Path | None,
    tape_bytes: int,
    *,
    once: bool,
    roles: tuple[str, ...],
    tape_gzip: bool,
    as_json: bool,
) -> Exit:
    """Poll the sources, publish their events, and deliver them to the sinks.

    Runs until SIGTERM or Ctrl-C. Then polling stops, what was committed is published, deliveries in flight are finished
    or released, and the process exits with 0 within `drain_timeout`. A second signal ends it at once; nothing is lost
    by that either. Several processes may run on one configuration: each source is polled by one of them at a time.

    SIGHUP has the file read again. A good one is followed at once, and what does not differ in it is not disturbed. A
    bad one is refused as a whole, and the log says why. A closed terminal ends the process as SIGTERM does.

    With --once the outcome is printed on stdout, or on stderr if a sink prints its events on stdout. It exits with 1
    if a source failed, and with 4 if the store or the broker cannot be reached. SIGTERM or Ctrl-C ends it early, with
    130; what is in flight is finished or released.

    With --record, the answers from which the events are made are kept as well: ids, statuses, counts and times as they
    are; of phones, keys, names and texts, stand-ins that nobody can trace back; of tokens nothing. The commands
    `replay-tape` and `diff-tape` play them again.
    """
    from bridge.cli.support.signals import Hangups
    from bridge.config import registry
    from bridge.observability.logging import configure_logging
    from bridge.runtime.config_file import ConfigFile
    from bridge.runtime.parts import build
    from bridge.runtime.service import ROLES, Service

    hangups = None if once else Hangups()
    file = ConfigFile(config_file)
    config = file.load()
    configure_logging(config.log.level, config.log.format)
    with _assembling(tape, tape_bytes, compress=tape_gzip) as assemble:
        assembly = file.assemble_by(assemble)
        service = Service(build(assembly), assembly.clock, roles=roles or ROLES, file=file)
        if hangups is not None:
            run_to_end(_serve(service, assembly, hangups), hangup_ends=False)
            return Exit.DONE
        report = run_to_end(service.once())
    delivers = "sink" in (roles or ROLES)
    printing = delivers and any(registry.load_sink(sink.type).is_printing(sink) for sink in config.sinks.values())
    _show(report, as_json=as_json, to=sys.stderr if printing else sys.stdout)
    return Exit.FAILED if report.failures else Exit.DONE


@contextmanager
def _assembling(tape: Path | None, tape_bytes: int, *, compress: bool) -> Iterator[Callable[[Config], Assembly]]:
    """Give what makes the parts of a configuration, now and after each reload."""
    from bridge.domain.clock import Clock
    from bridge.runtime.assembly import Assembly

    clock = Clock()
    if tape is None:
        yield lambda config: Assembly(config, clock)
        return
    from bridge.recording import Recorder

    recorder = Recorder(tape, clock, limit=tape_bytes, compress=compress)
    try:
        yield recorder.assembly
    finally:
        recorder.close()


async def _serve(service: Service, assembly: Assembly, hangups: Hangups) -> None:
    import signal

    from bridge.config.model import HttpSettings

    http: HttpSettings = assembly.config.http
    tune_gc()
    stop = stop_on_signals(_log_signal, (signal.SIGTERM, signal.SIGINT))
    if service.reloader is not None:
        hangups.listen(partial(service.reloader.request, "SIGHUP"), partial(_on_closed_terminal, stop))
    await service.run(stop, listen=(http.listen.host, http.listen.port) if http.listen else None)


def _on_closed_terminal(stop: asyncio.Event) -> None:
    import signal

    _log_signal(signal.SIGHUP)
    stop.set()


def tune_gc() -> None:
    """Have the garbage collector look seldom, and never at what stays anyway.

    Events come and go by their reference counts alone; looking for cycles among them and all modules, a few hundred
    objects at a time, took a quarter of the time that an event takes.
    """
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def stop_on_signals(
    report: Callable[[int], object] = lambda _: None, numbers: tuple[signal.Signals, ...] | None = None
) -> asyncio.Event:
    """Return an event that the first of these signals sets, SIGTERM, SIGINT and SIGHUP if none are named.

    The second one ends the process at once.

    `report` is called with the number of the first one.
    """
    import asyncio

    from bridge.cli.support.signals import ENDING, on_first_signal

    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        report(number)
        stop.set()

    on_first_signal(on_signal, numbers or ENDING)
    return stop


def _log_signal(number: int) -> None:
    import signal

    import structlog

    structlog.get_logger().info(
        "bridge.signal_received", signal=signal.Signals(number).name,
        consequence="it ends in good order; a second signal ends it at once",
    )  # fmt: skip


def _show(report: OnceReport, *, as_json: bool, to: TextIO) -> None:
    if as_json:
        print_json(_plain(report), to=to)
        return
    rows: list[list[Any]] = [
        ["source", name, f"{result.observed} looked at, {result.events} events", "; ".join(result.problems[:1])]
        for name, result in sorted(report.polls.items())
    ]
    rows += [["source", name, "failed", reason] for name, reason in sorted(report.failures.items())]
    rows += [["source", name, "not polled", reason] for name, reason in sorted(report.paused.items())]
    rows.append(["relay", "", f"{report.published} published, {report.unroutable} that no queue wanted", ""])
    rows += [
        ["sink", name, f"{counts['taken']} delivered, {counts['waiting']} waiting, {counts['dead']} dead", ""]
        for name, counts in sorted(report.deliveries.items())
    ]
    print_table(["part", "name", "outcome", "problem"], rows, to=to, prose="problem")


def _plain(report: OnceReport) -> dict[str, Any]:
    return {
        "sources": {
            name: {"observed": result.observed, "events": result.events, "problems": result.problems}
            for name, result in sorted(report.polls.items())
        },
        "failures": report.failures,
        "paused": report.paused,
        "published": report.published,
        "unroutable": report.unroutable,
        "sinks": report.deliveries,
    }
