"""`bridgectl simulate`: the three providers on this machine, with faults on demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.commands.run import stop_on_signals
from bridge.cli.support.options import Command, FiniteFloat
from bridge.cli.support.output import print_json, print_json_line, print_line, print_table, print_text
from bridge.cli.support.program import NAME, NAMES, in_typed_name
from bridge.cli.support.running import run as run_to_end

if TYPE_CHECKING:
    from bridge.providers.models import Definition
    from bridge.simulator import Simulator, SimulatorSettings

_MARK = f"# Written by `{NAME} simulate`;"
_MARKS = tuple(f"# Written by `{name} simulate`;" for name in NAMES)


@click.command(
    cls=Command,
    examples="""
    bridgectl simulate                                        three lively providers on 127.0.0.1:8025
    bridgectl simulate --write-config demo.yaml               and a configuration for `bridgectl run -c demo.yaml`
    bridgectl simulate --speed 600 --messages-per-minute 10   much happens, and fast
    bridgectl simulate --fault torn_body --fault http_503:share=0.3,limit=20
    bridgectl simulate --fault 'too_many:path=^/j/,value=30'  only Spacivox, Retry-After: 30
    bridgectl simulate --provider ./mine.yaml                 the provider that a definition describes
    bridgectl simulate --list-faults                          all that can go wrong
    curl -s http://127.0.0.1:8025/_simulator/books         what the providers count
    """,
)
@click.option("--listen", default="127.0.0.1:8025", show_default=True, metavar="HOST:PORT", help="Port 0 is any.")
@click.option("--separate-ports", is_flag=True, help="One port for each provider, from PORT on.")
@click.option(
    "--speed",
    type=FiniteFloat(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Simulated seconds in a real one: how much faster lives go.",
)
@click.option("--seed", type=int, help="The same seed gives the same world; by default another one each time.")
@click.option(
    "--messages-per-minute",
    type=FiniteFloat(min=0),
    default=2.0,
    show_default=True,
    help="GovDelivery messages in a simulated minute; the other providers keep step.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="Switch a fault on; repeatable. Keys: share (default 0.1), limit, path (a regular expression), value.",
)
@click.option(
    "--provider", metavar="NAME", help="Serve one provider instead: an installed definition, or the path of a file."
)
@click.option("--list-faults", is_flag=True, help="Print all faults and exit.")
@click.option(
    "--write-config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a complete configuration of the bridge for this simulator.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of text.")
def simulate(
    *,
    listen: str,
    separate_ports: bool,
    speed: float,
    seed: int | None,
    messages_per_minute: float,
    faults: tuple[str, ...],
    provider: str | None,
    list_faults: bool,
    write_config: Path | None,
    as_json: bool,
) -> None:
    """Serve GovDelivery, Spacivox and Marketing Cloud as they are documented, with people who do not exist.

    Prints where they listen, what opens them, and the sources to paste into a configuration; runs until Ctrl-C. Under
    /_simulator/ the pages truth, books, unseen, requests and faults show what the providers know and did.
    """
    if list_faults:
        _list_faults(as_json=as_json)
        return
    host, port = _address(listen)
    settings = _settings(speed, seed, messages_per_minute, faults, separate_ports=separate_ports)
    definition = None if provider is None else _definition(provider)
    run_to_end(_serve(settings, host, port, write_config, definition, as_json=as_json))


def _definition(provider: str) -> tuple[str, Definition]:
    """Return a definition, and the text by which a configuration elsewhere names it."""
    from bridge.cli.commands.providers import read
    from bridge.providers import loading

    definition = read(provider)
    return (provider if provider in loading.installed() else str(Path(provider).resolve())), definition


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port there is
        raise click.BadParameter(f"{listen!r} is not HOST:PORT, such as 127.0.0.1:8025", param_hint="--listen")
    return host.strip("[]"), int(port)


def _settings(
    speed: float, seed: int | None, messages: float, faults: tuple[str, ...], *, separate_ports: bool
) -> SimulatorSettings:
    from random import SystemRandom

    from bridge.simulator import FaultRule, SimulatorSettings
    from bridge.simulator.fault_catalogue import FAULTS
    from bridge.simulator.fault_injection import FaultRegistry

    try:
        rules = tuple(FaultRule.parse(text, share=0.1) for text in faults)
        for rule in rules:
            FaultRegistry(FAULTS, 0).switch_on(rule)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    share = messages / 2.0
    return SimulatorSettings(
        seed=SystemRandom().randrange(1 << 32) if seed is None else seed,
        speed=speed,
        messages_per_minute=messages,
        drops_per_minute=10.0 * share,
        texts_per_minute=share,
        emails_per_minute=share,
        sends_per_minute=4.0 * share,
        email_sends_per_minute=share,
        separate_ports=separate_ports,
        faults=rules,
    )


async def _serve(
    settings: SimulatorSettings,
    host: str,
    port: int,
    write_config: Path | None,
    provider: tuple[str, Definition] | None,
    *,
    as_json: bool,
) -> None:
    from bridge.domain.errors import BridgeError
    from bridge.simulator import Simulator
    from bridge.simulator.config_snippet import defined_source
    from bridge.simulator.config_snippet import sources as snippet

    stop = stop_on_signals()
    sim = Simulator(settings, definition=None if provider is None else provider[1])
    try:
        await sim.start(host, port)
    except OSError as error:
        raise BridgeError(
            f"cannot listen on {host}:{port}: {error.strerror}; --listen HOST:PORT names another"
        ) from None
    try:
        sources = snippet(sim.urls, settings) if provider is None else defined_source(*provider, sim.url)
        if write_config is not None:
            _write(write_config, sources, settings)
        if as_json:
            _print_json(sim, sources, write_config)
        elif provider is None:
            _print(sim.urls, settings, write_config)
        else:
            _print_sources(sources, write_config)
        await stop.wait()
    finally:
        await sim.stop()


def _write(file: Path, sources: dict[str, Any], settings: SimulatorSettings) -> None:
    import yaml

    from bridge.domain.errors import BridgeError
    from bridge.simulator.config_snippet import complete

    if file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(_MARKS):
        raise BridgeError(f"{file} is another file; it was left as it is. --write-config FILE names a new one")
    # A world of another seed has other resources; its own state keeps the ledger from mistaking one for the other.
    state = file.resolve().parent / f"{file.stem}-state-{settings.seed}"
    text = yaml.safe_dump(complete(sources, state=state), sort_keys=False)
    file.write_text(f"{_MARK} run with: bridgectl run -c {file}\n{text}", encoding="utf-8")


def _print_json(sim: Simulator, sources: dict[str, Any], write_config: Path | None) -> None:
    said = {
        "url": sim.url,
        "urls": sim.urls,
        "seed": sim.settings.seed,
        "sources": sources,
        "config": None if write_config is None else str(write_config),
    }
    print_json_line(said)


def _print(urls: dict[str, str], settings: SimulatorSettings, write_config: Path | None) -> None:
    from bridge.simulator.config_snippet import sources

    for provider, url in urls.items():
        print_line(f"{provider:<15} {url}")
    print_line(f"{'GovDelivery':<15} X-AUTH-TOKEN: {settings.govdelivery_token}")
    print_line(f"{'Spacivox':<15} Authorization: Bearer {settings.spacivox_token}")
    print_line(f"{'Marketing Cloud':<15} client {settings.client_id}, secret {settings.client_secret}")
    print_line(f"{'seed':<15} {settings.seed}")
    print_text(f"{'behind':<15} {urls['govdelivery']}/_simulator/books\n\n")
    _print_sources(sources(urls, settings), write_config)


def _print_sources(sources: dict[str, Any], write_config: Path | None) -> None:
    import yaml

    print_line("# for a configuration of the bridge:")
    print_text(yaml.safe_dump({"sources": sources}, sort_keys=False) + "\n")
    if write_config is not None:
        print_text(in_typed_name(f"# written to {write_config}; now: bridgectl run -c {write_config}\n\n"))
    print_line("Ctrl-C ends it.")


def _list_faults(*, as_json: bool) -> None:
    from bridge.simulator.fault_catalogue import FAULTS

    faults: list[dict[str, Any]] = [
        {"name": fault.name, "summary": fault.summary, "on": list(fault.views) or ["everything"], "value": fault.value}
        for fault in FAULTS.values()
    ]
    if as_json:
        print_json(faults)
        return
    print_table(
        ["fault", "on", "value", "what happens"],
        [[fault["name"], ", ".join(fault["on"]), fault["value"], fault["summary"]] for fault in faults],
    )
