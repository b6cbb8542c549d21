"""`bridgectl demo`: the main job with nothing to set up."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from bridge.cli.commands.run import console_of, stop_on_signals
from bridge.cli.support.names import complete_topics
from bridge.cli.support.options import Command, Exit, FiniteFloat
from bridge.cli.support.output import Coloured, print_json_line, print_line, print_table, print_text
from bridge.cli.support.program import in_typed_name
from bridge.cli.support.running import run as run_to_end
from bridge.domain.errors import Unavailable

if TYPE_CHECKING:
    from bridge.protocols.broker import Inbox
    from bridge.runtime.assembly import Assembly
    from bridge.simulator import SimulatorSettings

_POLL = "1s"
_PORT = 8080
_BATCH_EVENTS = 256
_WIDE_COLUMNS = 110
_NEXT = """
The same as a service, with a configuration of your own:
  bridgectl simulate --seed 7 &
  bridgectl init trial.yaml --provider simulated --no-check
  bridgectl run -c trial.yaml"""
_COLOURS = {
    "failed": "red", "rejected": "red", "not_sent": "red", "blacklisted": "magenta", "canceled": "magenta",
    "unknown": "yellow", "inconclusive": "yellow", "sent": "green", "delivered": "green", "completed": "green",
}  # fmt: skip


@click.command(
    cls=Command,
    examples="""
    bridgectl demo                          simulated providers, events as they happen, until Ctrl-C
    bridgectl demo --seconds 20             end by itself
    bridgectl demo --json | jq .data        one CloudEvent a line
    bridgectl demo 'voice.#' --seed 7       calls only; the same seed gives the same world
    """,
)
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", shell_complete=complete_topics)
@click.option("--seconds", type=FiniteFloat(min=0, min_open=True), help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print one CloudEvent a line.")
@click.option("--seed", type=int, help="Which simulated world; by default another one each time.")
def demo(topics: tuple[str, ...], *, seconds: float | None, as_json: bool, seed: int | None) -> Exit:
    """See the bridge at work: simulated providers, embedded store and broker, events as they happen.

    Everything is real but the providers: they are served on this machine, polled over HTTP, and nothing leaves it. What
    is made is thrown away at the end.
    """
    from bridge.domain import topics as patterns

    try:
        wanted = [patterns.check(topic) for topic in topics] or ["#"]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder:
        run_to_end(_demo(Path(folder), wanted, seconds, seed, as_json=as_json))
    return Exit.DONE


async def _demo(folder: Path, topics: list[str], seconds: float | None, seed: int | None, *, as_json: bool) -> None:
    from bridge.observability.logging import configure_logging
    from bridge.runtime.parts import build
    from bridge.runtime.service import Service
    from bridge.simulator import Simulator, demo_settings

    configure_logging("warning", "console")
    stop = stop_on_signals()
    settings = demo_settings() if seed is None else demo_settings(seed=seed)
    counts: Counter[str] = Counter()
    async with Simulator(settings) as simulator:
        assembly = _assembly(folder, simulator.urls, settings)
        parts = build(assembly)
        service = Service(parts, assembly.clock, console=console_of(assembly.config, parts, assembly.clock))
        listen = assembly.config.http.listen
        if not as_json:
            origin = simulator.urls["govdelivery"]
            print_text(
                f"Console at http://{listen}/ in a browser.\n"
                f"Simulated providers at {origin}, asked every {_POLL}; embedded store and broker. Ctrl-C ends it.\n\n"
            )
        # As `bridgectl tail` in another process would: the subscription stands before anything is published.
        async with assembly.opened_broker() as broker, broker.tap(topics) as inbox:
            printing = asyncio.ensure_future(_print(inbox, counts, as_json=as_json))
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, stop.set)
            serving = asyncio.ensure_future(service.run(stop, listen=(listen.host, listen.port) if listen else None))
            try:
                await asyncio.wait([serving, printing], return_when=asyncio.FIRST_COMPLETED)
                if printing.done():
                    printing.result()
            finally:
                stop.set()
                await asyncio.gather(serving, return_exceptions=True)
                printing.cancel()
                with suppress(asyncio.CancelledError):
                    await printing
            serving.result()
    if not as_json:
        _sum_up(counts)


def _assembly(folder: Path, urls: Mapping[str, str], settings: SimulatorSettings) -> Assembly:
    import yaml

    from bridge.config.loading import load
    from bridge.runtime.assembly import Assembly
    from bridge.simulator.config_snippet import configuration

    values = configuration(urls, settings, state=folder / "state", interval=_POLL)
    # What `bridgectl tail` sees is printed here; a sink that prints would print everything twice.
    values["sinks"] = {"archive": {"type": "stdout", "path": str(folder / "events.jsonl"), "topics": ["#"]}}
    values["http"] = {"listen": _free_address(), "console": "act"}
    file = folder / "bridge.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return Assembly(load(file))


def _free_address() -> str:
    """Return the console's usual address, or one with another port where that one is in use."""
    for port in (_PORT, 0):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{trial.getsockname()[1]}"
    raise Unavailable("no port of 127.0.0.1 is free")


async def _print(inbox: Inbox, counts: Counter[str], *, as_json: bool) -> None:
    while True:
        received = await inbox.get(_BATCH_EVENTS, 1.0)
        for message in received:
            counts[message.event.topic] += 1
            if as_json:
                print_json_line(message.event.body)
            else:
                for pieces in _lines(message.event.body, message.event.topic):
                    print_line(*pieces)
        await inbox.ack(received)


def _lines(body: bytes, topic: str) -> list[tuple[str | Coloured, ...]]:
    """Return the line of an event; on a narrow terminal, the resource has a line of its own."""
    from datetime import datetime

    from pydantic_core import from_json

    from bridge.delivery.masking import last4

    event = from_json(body)
    data = event["data"]
    at = datetime.fromisoformat(event["recordedtime"]).astimezone().strftime("%H:%M:%S")
    moved = f"{data['previous']} → {data['status']}" if data["previous"] else data["status"]
    flag = f"({data['transition']})" if data["transition"] in {"skip", "regress", "reopen", "unknown"} else ""
    parts = [
        moved,
        flag,
        last4(data["phone"]) if data.get("phone") else "",
        data.get("error") or data.get("reason") or "",
    ]
    outcome = "  ".join(filter(None, parts))
    if get_terminal_size((_WIDE_COLUMNS, 1)).columns < _WIDE_COLUMNS:
        return [
            (f"{at}  ", Coloured(topic, _COLOURS.get(data["status"])), f"  {outcome}"),
            (f"{'':10}{event['subject']}",),
        ]
    coloured = Coloured(f"{topic:<42}", _COLOURS.get(data["status"]))
    return [(f"{at}  ", coloured, f" {event['subject']:<44} {outcome}")]


def _sum_up(counts: Counter[str]) -> None:
    print_text(f"\n{counts.total()} events:")
    print_table(["topic", "events"], [[topic, count] for topic, count in sorted(counts.items())])
    print_text(in_typed_name(_NEXT))
