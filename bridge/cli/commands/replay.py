"""`bridgectl replay`: journalled events to one sink, or into one queue of a subscriber, again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from bridge.cli.support.names import complete_sinks, complete_topics
from bridge.cli.support.options import MOMENT, Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.queue_replay import Selection, fill_queue
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.domain import topics as patterns
from bridge.domain.own_news import is_about
from bridge.domain.times import rfc3339
from bridge.operations.journal import event_views
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly

_BATCH_DELIVERIES = 1000


@click.command(
    cls=Command,
    examples="""
    bridgectl replay crm --since 2h -c bridge.yaml
    bridgectl replay crm --since 2026-03-15T21:00:00Z --until 2026-03-15T22:00:00Z -c bridge.yaml
    bridgectl replay crm --since 24h --topic '*.recipient.failed.#' -c bridge.yaml
    bridgectl replay --queue billing --since 1h --topic 'sms.#' -c bridge.yaml
    """,
)
@click.argument("sink", required=False, shell_complete=complete_sinks)
@config_option
@click.option("--queue", metavar="NAME", help="Instead of a sink: the queue of a subscriber on the broker.")
@click.option("--since", type=MOMENT, required=True, help="Recorded at this time or later: RFC 3339, or such as 2h.")
@click.option("--until", type=MOMENT, help="Recorded before this time.")
@click.option(
    "--topic", "topics", multiple=True, shell_complete=complete_topics, help="Only such events; may be repeated."
)
@json_option
def replay(
    sink: str | None,
    config_file: Path,
    queue: str | None,
    since: datetime,
    until: datetime | None,
    topics: tuple[str, ...],
    *,
    as_json: bool,
) -> Exit:
    """Send journalled events to one sink again, those that its own topics and its own filter select.

    They get the ids that they had. Events that still wait for this sink, and its dead letters, are left alone: those
    are for `bridgectl deliveries redrive`. The running service sends what this command puts among the deliveries.

    With --queue, events go into one queue of a subscriber, with the ids that they had, and nowhere else. Name the
    topics that the queue is bound to: the broker is not asked for them. What the subscriber has already comes twice.
    """
    if (sink is None) == (queue is None):
        raise click.UsageError("give either a sink or --queue NAME")
    parts = load_assembly(config_file, with_secrets=False)
    if sink is not None and sink not in parts.config.sinks:
        raise no_such("sink", sink, parts.config.sinks)
    for topic in topics:
        try:
            patterns.check(topic)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if until is not None and since >= until:
        raise click.UsageError(f"--since {rfc3339(since)} is not before --until {rfc3339(until)}")
    if sink is None:
        put = run(fill_queue(parts, queue or "", Selection(since, until, topics)))
        if as_json:
            print_json({"queue": queue, "selected": put.selected, "replayed": put.replayed})
        else:
            rest = f"; {put.refused} are not accepted by the broker" if put.refused else ""
            print_line(f"{queue}: {put.replayed} of {put.selected} events were put into the queue{rest}")
        return Exit.FAILED if put.refused else Exit.DONE
    selected, again = run(_replay(parts, sink, since, until, topics))
    if as_json:
        print_json({"sink": sink, "selected": selected, "replayed": again})
    else:
        rest = f"; {selected - again} still wait or are dead letters, and were left alone" if again < selected else ""
        print_line(f"{sink}: {again} of {selected} events are due again{rest}")
    return Exit.DONE


async def _replay(
    parts: Assembly, sink: str, since: datetime, until: datetime | None, topics: tuple[str, ...]
) -> tuple[int, int]:
    settings = parts.config.sinks[sink]
    selected = again = 0
    async with parts.opened_store() as store:
        batch: list[NewDelivery] = []
        async for line in event_views(store):
            topic = line.event.topic
            wanted = patterns.matches(settings.topics, topic) and (not topics or patterns.matches(topics, topic))
            wanted = wanted and settings.filter_selects(line.event) and not is_about(line.event, sink)
            if not wanted or line.position.source.startswith("@") or not line.within(since, until):
                continue
            selected += 1
            batch.append(NewDelivery(line.position, line.partition if settings.ordered else None))
            if len(batch) == _BATCH_DELIVERIES:
                again += await _again(store, sink, batch, parts.clock.epoch())
                batch = []
        again += await _again(store, sink, batch, parts.clock.epoch())
    return selected, again


async def _again(store: Store, sink: str, batch: list[NewDelivery], due: float) -> int:
    return await store.replay(sink, batch, due) if batch else 0
