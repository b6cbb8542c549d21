"""`bridgectl tail`: subscribes, and prints events as they are published."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click

from bridge.cli.support.names import complete_topics
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import MOMENT, Command, Exit, config_option
from bridge.cli.support.output import print_json_line, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.config.model import Config
from bridge.delivery.masking import last4
from bridge.domain import personal_data
from bridge.domain import topics as patterns
from bridge.domain.errors import Unavailable
from bridge.domain.event import Position
from bridge.domain.event_view import EventView
from bridge.operations.journal import event_views
from bridge.protocols.broker import Inbox
from bridge.runtime.assembly import Assembly

_BATCH_EVENTS = 256
_WAIT_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_MAX_REMEMBERED_EVENTS = 100_000
_NOWHERE = Position("-", 0)


@click.command(
    cls=Command,
    former={"--count": "--limit"},
    examples="""
    bridgectl tail -c bridge.yaml                                       everything, from now on
    bridgectl tail '*.recipient.failed.#' voicemail.drop.rejected -c bridge.yaml
    bridgectl tail --json -c bridge.yaml | jq .data.error               one CloudEvent a line, phones in full
    bridgectl tail --since 1h --limit 20 -c bridge.yaml                 the journal's last hour first
    """,
)
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", shell_complete=complete_topics)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one CloudEvent a line, as it travels.")
@click.option("-n", "--limit", "count", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--since", type=MOMENT, help="Begin with what the journal keeps since then: RFC 3339, or such as 2h.")
def tail(
    topics: tuple[str, ...], config_file: Path, count: int | None, since: datetime | None, *, as_json: bool
) -> Exit:
    """Print events as they are published, until Ctrl-C or SIGTERM.

    Topics are exact words, `*` for one word and a final `#` for none or more; without any, everything is printed. A
    line for a person shows the last four characters of a phone. When the broker goes away, a note on stderr says so,
    and printing goes on when it is back; with --since, what was missed is then printed from the journal.
    """
    for topic in topics:
        try:
            patterns.check(topic)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    parts = load_assembly(config_file, with_secrets=False)
    _note_unknown(topics, parts.config)
    tailing = _Tail(
        parts,
        topics or ("#",),
        _print_json if as_json else _print_readable,
        count,
    )
    with suppress(KeyboardInterrupt):  # the way in which this command ends
        run(tailing.follow(since))
    return Exit.DONE


def _note_unknown(topics: tuple[str, ...], config: Config) -> None:
    from bridge.cli.support.known_topics import known_topics, unknown_topic

    known = known_topics(config) if topics else []
    for topic in topics:
        if (wrong := unknown_topic(topic, known)) is not None:
            print_note(wrong)


class _Tail:
    def __init__(
        self, parts: Assembly, topics: tuple[str, ...], show: Callable[[EventView], None], count: int | None
    ) -> None:
        self._parts = parts
        self._topics = topics
        self._show = show
        self._left = count
        self._seen: set[str] = set()
        self._order: deque[str] = deque()

    async def follow(self, since: datetime | None) -> None:
        """Print until the count is reached; a broker that has gone is waited for, unless it was never there."""
        connected = False
        was_behind = False
        while self._left != 0:
            try:
                async with self._parts.opened_broker() as broker, broker.tap(self._topics) as inbox:
                    if was_behind:
                        print_note("the broker is back")
                    connected, was_behind = True, False
                    # The subscription stands before the journal is read: nothing falls in between.
                    if since is not None:
                        await self._past(since)
                    await self._present(inbox)
            except Unavailable as error:
                if not connected:
                    raise
                if not was_behind:
                    lost = "" if since else "; what is published until then is not shown (the journal keeps it)"
                    print_note(f"{error}{lost}; trying again")
                was_behind = True
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _past(self, since: datetime) -> None:
        async with self._parts.opened_store(read_only=True) as store:
            views = [
                line async for line in event_views(store)
                if line.within(since, None) and patterns.matches(self._topics, line.event.topic)
            ]  # fmt: skip
        for line in sorted(views, key=lambda view: view.recorded or since):
            self._print(line)

    async def _present(self, inbox: Inbox) -> None:
        while self._left != 0:
            received = await inbox.get(_BATCH_EVENTS, _WAIT_SECONDS)
            for message in received:
                if message.problem is None:
                    self._print(EventView(message.position or _NOWHERE, message.event))
            await inbox.ack(received)

    def _print(self, line: EventView) -> None:
        if self._left == 0 or line.event.id in self._seen:
            return
        self._remember(line.event.id)
        self._show(line)
        if self._left is not None:
            self._left -= 1

    def _remember(self, event: str) -> None:
        self._seen.add(event)
        self._order.append(event)
        if len(self._order) > _MAX_REMEMBERED_EVENTS:
            self._seen.discard(self._order.popleft())


def _print_json(line: EventView) -> None:
    print_json_line(line.event.body)


def _print_readable(line: EventView) -> None:
    print_line(readable(line))


def readable(line: EventView) -> str:
    """Return one line for a person: time, topic, subject, what it was before, and why; phones end in four digits."""
    data = line.data
    parts = [str(line.body.get("time", "")), line.event.topic, line.subject]
    if data.get("transition") in ("skip", "regress", "reopen"):
        parts.append(f"{data['transition']} from {data.get('previous')}")
    if data.get("phone"):
        parts.append(last4(str(data["phone"])))
    parts += [
        mask_phones(str(data[key])) for key in ("error", "reason", "provider_status") if data.get(key) is not None
    ]
    return "  ".join(part for part in parts if part)


def mask_phones(text: str) -> str:
    """Return a text in which only the last four digits of anything like a phone number are left."""
    return personal_data.mask_phones(text, last4)
