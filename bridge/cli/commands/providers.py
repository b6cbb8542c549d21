"""`bridgectl providers`: the definitions of providers, and what helps to write one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.notes import print_error, print_note
from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table, print_text
from bridge.cli.support.suggestions import no_such
from bridge.domain.errors import ConfigError
from bridge.providers import loading
from bridge.providers.events import event_classes, lifecycle
from bridge.providers.models import Definition


@click.group(
    cls=Group,
    examples="""
    bridgectl providers list                          the definitions that are installed
    bridgectl providers show twilio-messages          its settings, statuses and events
    bridgectl providers new answer.json > mine.yaml   begin one from an answer of the provider
    bridgectl providers check mine.yaml               check it, and run its samples
    bridgectl providers try texts -c bridge.yaml      ask the provider once, and store nothing
    """,
)
def providers() -> None:
    """List, show, write and try definitions of providers, for sources of `type: rest`."""


@providers.command(
    name="list",
    examples="""
    bridgectl providers list
    bridgectl providers list --json | jq -r '.[].name'
    """,
)
@json_option
def list_(*, as_json: bool) -> Exit:
    """List the installed definitions: what each reads, and how."""
    rows = []
    for name, (_, distribution) in loading.installed().items():
        try:
            definition = read(name)
        except ConfigError as error:
            print_note(f"left out: {error}")
            continue
        rows.append((name, definition.title, shapes(definition), distribution))
    if as_json:
        print_json([dict(zip(("name", "title", "shapes", "distribution"), row, strict=True)) for row in rows])
    else:
        print_table(["name", "title", "shapes", "distribution"], rows)
    return Exit.DONE


def shapes(definition: Definition) -> str:
    """Return how a definition is polled, in words."""
    given = [name for name in ("window", "feed", "follow") if getattr(definition, name) is not None]
    return ", ".join(given)


def read(provider: str) -> Definition:
    """Return a definition by name, or by its file's path from here; raises `ConfigError`."""
    try:
        return loading.load(loading.find(provider, Path()))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@providers.command(
    examples="""
    bridgectl providers show twilio-messages
    bridgectl providers show ./mine.yaml --json
    """
)
@click.argument("provider")
@json_option
def show(provider: str, *, as_json: bool) -> Exit:
    """Show what a definition needs and makes: settings, statuses, events, and facts that no page gives."""
    definition = read(provider)
    if as_json:
        print_json(_plain(definition))
        return Exit.DONE
    print_line(f"{definition.title}; polled by {shapes(definition)}")
    print_line("")
    print_table(["setting", "type", "default", "meaning"], [
        (name, spec.type, "required" if spec.default is None else spec.default, spec.about)
        for name, spec in definition.settings.items()
    ])  # fmt: skip
    print_line("")
    table = lifecycle(definition)
    print_table(["status", "event", "topic", "then", "final"], [
        (word, cls.__name__, f"{cls.channels[0]}.{cls.entity}.{word}", ", ".join(table.follows.get(word, ())),
         "yes" if word in table.finals else "")
        for word, cls in event_classes(definition).items()
    ])  # fmt: skip
    for heading, lines in (("unsure:", definition.unsure), ("from:", definition.docs)):
        if lines:
            print_text("\n".join(["", heading, *(f"  {line}" for line in lines)]))
    return Exit.DONE


def _plain(definition: Definition) -> dict[str, Any]:
    table = lifecycle(definition)
    return {
        "title": definition.title, "shapes": shapes(definition), "docs": definition.docs, "unsure": definition.unsure,
        "settings": {
            name: {"type": spec.type, "default": spec.default, "about": spec.about}
            for name, spec in definition.settings.items()
        },
        "statuses": {
            word: {
                "event": cls.__name__, "topic": f"{cls.channels[0]}.{cls.entity}.{word}",
                "follows": list(table.follows.get(word, ())), "final": word in table.finals,
            }
            for word, cls in event_classes(definition).items()
        },
    }  # fmt: skip


@providers.command(
    examples="""
    bridgectl providers check ./mine.yaml
    bridgectl providers check ./mine.yaml --against ./mine-of-last-year.yaml
    """
)
@click.argument("provider")
@click.option("--against", metavar="FILE", help="An older version, whose consumers must not notice the new one.")
def check(provider: str, against: str | None) -> Exit:
    """Check a definition, and run its samples; no request is made.

    Problems are printed on stderr with file, line and key (exit code 3). A sample that becomes other events than it
    expects, and a change that consumers of an older version would notice, end with exit code 1.
    """
    from bridge.cli.support.samples import differences
    from bridge.providers.compatibility import breaking

    definition = read(provider)
    failures = list(differences(definition))
    if against is not None:
        failures += breaking(read(against), definition)
    for line in failures:
        print_error(f"{provider}: {line}")
    if failures:
        return Exit.FAILED
    events = len(event_classes(definition))
    print_line(f"{provider}: ok: {events} events, {len(definition.samples)} samples as expected")
    return Exit.DONE


@providers.command(
    examples="""
    bridgectl providers new answer.json > mine.yaml
    bridgectl providers new answer.json --path /v1/messages --channel sms --provider acme > mine.yaml
    """
)
@click.argument("answer", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--path", default="/messages", show_default=True, help="The path of the list.")
@click.option("--provider", "name", default="acme", show_default=True, help="The provider's name, one word.")
@click.option("--channel", default="sms", show_default=True, help="The first word of the topics.")
def new(answer: Path, path: str, name: str, channel: str) -> Exit:
    """Begin a definition from an answer that the provider gave to a list request, and print it.

    Items, ids, statuses, times, phone and pages are guessed from the answer. What has to be looked up in the provider's
    documentation is marked with `# ?`.
    """
    from bridge.providers.drafting import draft

    try:
        body = answer.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{answer} cannot be read: {error.strerror}") from None
    try:
        text = draft(body, path=path, provider=name, channel=channel)
    except ValueError as error:
        raise click.UsageError(f"{answer}: {error}") from None
    print_text(text)
    return Exit.DONE


@providers.command(
    name="try",
    examples="""
    bridgectl providers try texts -c bridge.yaml
    bridgectl providers try texts -c bridge.yaml --json | jq -r .topic
    """,
)
@config_option
@click.argument("source", shell_complete=complete_sources)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many items are shown.")
@json_option
def try_(config_file: Path, source: str, limit: int, *, as_json: bool) -> Exit:
    """Ask the provider of a source once, and show what would become of each item; nothing is stored or sent."""
    from bridge.cli.support.running import load_assembly, run
    from bridge.cli.support.samples import first_events

    parts = load_assembly(config_file)
    if source not in parts.config.sources:
        raise no_such("source", source, parts.config.sources)
    seen, problems = run(first_events(parts.source(source), limit))
    if as_json:
        print_json(seen)
    else:
        print_table(["topic", "subject", "time"], [(event["topic"], event["subject"], event["time"]) for event in seen])
    for problem in problems:
        print_error(f"{source}: {problem}")
    return Exit.FAILED if problems else Exit.DONE
