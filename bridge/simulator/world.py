"""What exists in the simulated world: messages and recipients, records, send events, each with its history."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from random import Random
from typing import Literal
from uuid import UUID

from bridge.simulator.clock import WorldClock
from bridge.simulator.histories import NEW, REASONS, HistoryGenerator, State, Step, mobile, phone, pick
from bridge.simulator.settings import SimulatorSettings

RECIPIENT_STATUSES = ("new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed")
CALL_DETAILS = ("human", "machine", "busy", "no_answer", "could_not_connect")
COLLECTIONS = {
    "sms": ("failed", "sent"),
    "email": ("failed", "sent"),
    "voice": ("failed", "sent", *CALL_DETAILS),
}
CHANNELS = tuple(COLLECTIONS)
RECORD_KINDS = ("voicemail_drop", "text", "email")
FEEDS = ("sms", "email")
_MESSAGE = -1  # the number under which a message's own steps stand among those of its recipients


def iso(moment: float) -> str:
    """Return a time as GovDelivery writes it: whole seconds in UTC."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_millis(moment: float) -> str:
    """Return a time as Spacivox writes it: milliseconds in UTC."""
    seconds, millis = divmod(_millis(moment), 1000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{millis:03d}Z"


def _millis(moment: float) -> int:
    """Return a time in the precision of a Spacivox timestamp."""
    return int(moment * 1000 + 1e-3)


class Message:
    """A GovDelivery message and its recipients, as they are at the time to which it was settled.

    What is to come is kept in order of time and applied by `settle`, so that a message that did not change costs
    nothing, however many recipients it has.
    """

    def __init__(
        self, channel: str, number: int, born: float, first: int, addresses: Sequence[str], state: State
    ) -> None:
        self.channel = channel
        self.number = number
        self.path = f"/messages/{channel}/{number}"
        self.born = born
        self.state = NEW
        self.completed: float | None = None
        self.first = first
        """The id of the first recipient; the others follow without gaps."""
        self.addresses = addresses
        self.version = 0
        """Counts the changes; an answer rendered at one version stands until the next."""
        self.states = [state] * len(addresses)
        self.changed = [born] * len(addresses)
        self.page_changes: Counter[int] = Counter()
        """How often each run of 50 recipients has changed."""
        self.counts: Counter[str] = Counter({state.status: len(addresses)})
        self.details: Counter[str] = Counter()
        self.members: dict[str, list[int]] = {name: [] for name in COLLECTIONS[channel]}
        self._pending: list[tuple[float, int, int, State]] = []
        self._serial = itertools.count()
        for name in (state.status, state.detail):
            if name in self.members:
                self.members[name] = list(range(len(addresses)))
                self.details[name] = len(addresses)

    def recipient(self, index: int = 0) -> str:
        """Return the path of a recipient by its number in the message, from 0."""
        if not 0 <= index < len(self.states):
            raise IndexError(f"{self.path} has {len(self.states)} recipients")
        return f"{self.path}/recipients/{self.first + index}"

    @property
    def recipients(self) -> list[str]:
        """Return the paths of all recipients."""
        return [self.recipient(index) for index in range(len(self.states))]

    def plan(self, at: float, index: int | None, state: State) -> None:
        """Have a recipient, or with None the message itself, enter `state` at `at`."""
        heapq.heappush(self._pending, (at, next(self._serial), _MESSAGE if index is None else index, state))

    def plan_all(self, steps: Sequence[tuple[float, int, State]]) -> None:
        """Plan many steps of recipients at once."""
        self._pending.extend((at, next(self._serial), index, state) for at, index, state in steps)
        heapq.heapify(self._pending)

    def settle(self, now: float) -> Message:
        """Apply all that has happened up to `now`, and return this message."""
        pending = self._pending
        while pending and pending[0][0] <= now:
            at, _, index, state = heapq.heappop(pending)
            if index == _MESSAGE:
                self._enter(at, state)
            else:
                self._enter_recipient(at, index, state)
        return self

    def _enter(self, at: float, state: State) -> None:
        self.version += 1
        self.state = state
        self.completed = at if state.status in {"completed", "canceled"} else None

    def _enter_recipient(self, at: float, index: int, state: State) -> None:
        self.version += 1
        self.page_changes[index // 50] += 1
        old = self.states[index]
        self.states[index] = state
        self.changed[index] = at
        self.counts[old.status] -= 1
        self.counts[state.status] += 1
        for name in (old.status, old.detail):
            if name in self.members:
                members = self.members[name]
                del members[bisect_left(members, index)]
                self.details[name] -= 1
        for name in (state.status, state.detail):
            if name in self.members:
                insort(self.members[name], index)
                self.details[name] += 1


@dataclass(slots=True)
class Record:
    """A Spacivox record: a voicemail drop, a text or an e-mail."""

    kind: str
    number: int
    born: float
    address: str
    team: int
    campaign: int
    job: int
    reference: str
    steps: list[Step] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the path under which events name the record."""
        return f"/j/{self.kind}_records/{self.number}"

    def state(self, now: float) -> State:
        """Return the state at `now`: a function of time alone."""
        return self.steps[bisect_right(self.steps, now, key=lambda step: step.at) - 1].state


@dataclass(slots=True)
class SendEvent:
    """One TransactionalSendEvent of Marketing Cloud."""

    feed: str
    number: int
    at: float
    code: int
    reason: str
    category: str
    definition: str
    message_key: str | None
    contact_key: str
    to: str
    tail: int
    """How many events of other kinds follow before the next one: the watermark may stand after them."""

    @property
    def path(self) -> str:
        """Return the path under which events name what was not sent."""
        if self.message_key is None:
            return f"/messaging/v1/{self.feed}/events/{self.number}"
        return f"/messaging/v1/{self.feed}/messages/{self.message_key}"


class World:
    """All resources of the three providers, at the time of its clock.

    Every method looks at the clock first: what was to happen until then has happened. A test places resources with
    `add_message`, `add_drop` and `add_send_event`, and moves them with `move`, `move_drop`.
    """

    def __init__(self, settings: SimulatorSettings, clock: WorldClock) -> None:
        self.settings = settings
        self.clock = clock
        self.messages: dict[str, list[Message]] = {channel: [] for channel in CHANNELS}
        """In order of creation, the oldest first."""
        self.records: dict[str, list[Record]] = {kind: [] for kind in RECORD_KINDS}
        """In order of their timestamps."""
        self.sends: dict[str, list[SendEvent]] = {feed: [] for feed in FEEDS}
        """In order of their ids."""
        self._by_number: dict[tuple[str, int], Message] = {}
        self._history = HistoryGenerator(settings)
        self._ids = Random(f"{settings.seed}/ids")
        base = self._ids.randrange(10_000, 40_000_000, 1000)
        self._message_number = base
        self._recipient_number = base * 20
        self._record_number = base
        self._event_number = base
        self._people = self._ids.randrange(70_000)
        self._begin = clock.now()
        self._streams = self._begin_streams()

    # --- time -----------------------------------------------------------------------------------------------------

    def _begin_streams(self) -> list[tuple[float, int, Iterator[float], Callable[[float], object]]]:
        settings = self.settings
        begin = self._begin - settings.backlog / settings.speed
        plans: list[tuple[str, float, Callable[[float], object]]] = [
            ("messages", settings.messages_per_minute, self._create_message),
            ("voicemail_drop", settings.drops_per_minute, lambda at: self._create_record("voicemail_drop", at)),
            ("text", settings.texts_per_minute, lambda at: self._create_record("text", at)),
            ("email", settings.emails_per_minute, lambda at: self._create_record("email", at)),
            ("sends", settings.sends_per_minute, lambda at: self._create_send("sms", at)),
            ("email sends", settings.email_sends_per_minute, lambda at: self._create_send("email", at)),
        ]
        streams: list[tuple[float, int, Iterator[float], Callable[[float], object]]] = []
        for order, (name, rate, create) in enumerate(plans):
            times = self._history.arrival_times(Random(f"{settings.seed}/births/{name}"), rate, begin)
            streams.extend((at, order, times, create) for at in itertools.islice(times, 1))
        heapq.heapify(streams)
        return streams

    def now(self) -> float:
        """Return the time, after everything that was to be born until then was born."""
        now = self.clock.now()
        while self._streams and self._streams[0][0] <= now:
            at, order, times, create = self._streams[0]
            create(at)
            heapq.heapreplace(self._streams, (next(times), order, times, create))
        return now

    # --- arrivals -------------------------------------------------------------------------------------------------

    def _person(self) -> int:
        self._people += 1
        return self._people

    def _create_message(self, at: float) -> None:
        random = Random(f"{self.settings.seed}/message/{self._message_number + 1}")
        channel = "voice" if random.random() < self.settings.voice_share else "sms"
        self._add_live(channel, at, [phone(self._person()) for _ in range(self._history.recipients(random))], random)

    def _add_live(self, channel: str, at: float, addresses: Sequence[str], random: Random) -> Message:
        message = self._place(channel, at, addresses, NEW)
        own, theirs = self._history.message(random, channel, at, len(addresses))
        message.plan_all(theirs)
        for step in own:
            message.plan(step.at, None, step.state)
        return message

    def _place(self, channel: str, at: float, addresses: Sequence[str], state: State) -> Message:
        self._message_number += 1
        message = Message(channel, self._message_number, at, self._recipient_number + 1, addresses, state)
        self._recipient_number += len(addresses)
        insort(self.messages[channel], message, key=attrgetter("born"))
        self._by_number[channel, message.number] = message
        if len(self.messages[channel]) > self.settings.keep_messages:
            self.remove(self.messages[channel][0].path)
        return message

    def _create_record(self, kind: str, at: float) -> None:
        random = Random(f"{self.settings.seed}/{kind}/{self._record_number + 1}")
        record = self._place_record(kind, at, random.randint(1, self.settings.teams), random.randint(1, 5))
        record.steps.extend(self._history.record(random, at))

    def _place_record(self, kind: str, at: float, team: int, campaign: int) -> Record:
        self._record_number += 1
        number = self._record_number
        person = self._person()
        address = f"person-{person}@example.com" if kind == "email" else mobile(person)
        start = [Step(at, State("0"))]
        record = Record(kind, number, at, address, team, campaign, campaign * 100 + 1, f"C-{person % 5000:06d}", start)
        insort(self.records[kind], record, key=attrgetter("born"))
        del self.records[kind][: -self.settings.keep_records]
        return record

    def _create_send(self, feed: str, at: float) -> None:
        random = Random(f"{self.settings.seed}/send/{self._event_number}")
        self._place_send(feed, at, self._history.reason(random), random)

    def _place_send(self, feed: str, at: float, code: int, random: Random) -> SendEvent:
        number = self._event_number + random.randint(1, 15)
        tail = random.choice((0, 0, random.randint(1, 20)))
        self._event_number = number + tail
        person = self._person()
        event = SendEvent(
            feed=feed,
            number=number,
            at=at,
            code=code,
            reason=REASONS.get(code, (f"Reason{code}", 0))[0],
            category="EmailNotSent" if feed == "email" else "SMSNotSent",
            definition=pick(random, ("account-reset", "appointment-reminder", "delivery-notice", "two-factor-code")),
            message_key=str(UUID(int=random.getrandbits(128), version=4)),
            contact_key=f"subscriber-{person}",
            to=f"person-{person}@example.com" if feed == "email" else phone(person).removeprefix("+"),
            tail=tail,
        )
        self.sends[feed].append(event)
        del self.sends[feed][: -self.settings.keep_records]
        return event

    # --- by hand --------------------------------------------------------------------------------------------------

    def add_message(
        self,
        channel: str = "sms",
        recipients: int | Sequence[str] = 1,
        *,
        status: str = "new",
        recipient_status: str = "new",
        at: float | None = None,
        live: bool = False,
    ) -> Message:
        """Place a message, born now or `at`, and return it.

        `recipients` is how many, or their phones in E.164. With `live` its history runs by itself from its
        creation, as the seed decides; else it stays as it is until it is moved.
        """
        now = self.now()
        born = now if at is None else at
        count = recipients if isinstance(recipients, int) else len(recipients)
        addresses = [phone(self._person()) for _ in range(count)] if isinstance(recipients, int) else list(recipients)
        if channel == "email" and isinstance(recipients, int):
            addresses = [f"person-{number}@example.com" for number in range(count)]
        if live:
            random = Random(f"{self.settings.seed}/message/{self._message_number + 1}")
            return self._add_live(channel, born, addresses, random).settle(now)
        message = self._place(channel, born, addresses, State(recipient_status))
        if status != "new":
            message.plan(born, None, State(status))
        return message.settle(now)

    def move(
        self, path: str, status: str, *, error: str | None = None, detail: str | None = None, at: float | None = None
    ) -> None:
        """Move a message or a recipient, named by its path, into `status` now or at a later time.

        What was planned for it stays planned. Raises `KeyError` for a path that does not exist.
        """
        now = self.now()
        message, index = self.find(path)
        message.plan(now if at is None else at, index, State(status, detail, error))
        message.settle(now)

    def find(self, path: str) -> tuple[Message, int | None]:
        """Return the message of a path and, for a recipient's, its number in the message; raises `KeyError`."""
        parts = path.strip("/").split("/")
        try:
            message = self._by_number[parts[1], int(parts[2])]
            index = int(parts[4]) - message.first if parts[3:4] == ["recipients"] else None
        except (IndexError, ValueError, KeyError):
            raise KeyError(path) from None
        if index is not None and not 0 <= index < len(message.states):
            raise KeyError(path)
        return message, index

    def message(self, channel: str, number: int) -> Message | None:
        """Return a message as it is now; None when there is none, or none any more."""
        message = self._by_number.get((channel, number))
        return None if message is None else message.settle(self.now())

    def remove(self, path: str) -> None:
        """Let a message vanish, as if it had never been; raises `KeyError`."""
        message, _ = self.find(path)
        del self._by_number[message.channel, message.number]
        self.messages[message.channel].remove(message)

    def add_drop(
        self, *, kind: str = "voicemail_drop", state: int = 0, at: float | None = None, team: int = 1, campaign: int = 1
    ) -> Record:
        """Place a Spacivox record, born now or `at`, and return it."""
        record = self._place_record(kind, self.now() if at is None else at, team, campaign)
        record.steps[0] = Step(record.born, State(str(state)))
        return record

    def move_drop(self, record: Record, state: int, *, at: float | None = None) -> None:
        """Move a record into a state, now or at a later time."""
        step = Step(self.now() if at is None else at, State(str(state)))
        insort(record.steps, step, key=attrgetter("at"))

    def add_send_event(
        self,
        feed: Literal["sms", "email"] = "sms",
        *,
        code: int = 24,
        category: str | None = None,
        message_key: str | None = "",
    ) -> SendEvent:
        """Place a Marketing Cloud event, as of now, and return it; `message_key=None` leaves the key out."""
        event = self._place_send(feed, self.now(), code, Random(f"{self.settings.seed}/send/{self._event_number}"))
        if category is not None:
            event.category = category
        if message_key != "":
            event.message_key = message_key
        return event

    # --- what faults do to lives ----------------------------------------------------------------------------------

    def swap(self, message: Message) -> bool:
        """Let one sent recipient fail and one failed be sent, so that the counts stand as before."""
        now = self.now()
        pair = [self._one_in(message, status) for status in ("sent", "failed")]
        if None in pair:
            return False
        for index, failed in zip(pair, (True, False), strict=True):
            message.plan(now, index, self._history.end(self._ids, message.channel, failed=failed))
        message.settle(now)
        return True

    def set_back(self, message: Message, start: Sequence[str], status: str, *, back_after: float | None) -> bool:
        """Let one recipient of the statuses `start` enter `status`, and with `back_after` seconds return."""
        now = self.now()
        index = next(
            (index for start_status in start if (index := self._one_in(message, start_status)) is not None), None
        )
        if index is None:
            return False
        was = message.states[index]
        message.plan(
            now,
            index,
            self._history.end(self._ids, message.channel, failed=True) if status == "failed" else State(status),
        )
        if back_after is not None:
            message.plan(now + back_after, index, was)
        message.settle(now)
        return True

    @staticmethod
    def _one_in(message: Message, status: str) -> int | None:
        return next((index for index, state in enumerate(message.states) if state.status == status), None)

    # --- what a provider would count ------------------------------------------------------------------------------

    def highest_event(self) -> int:
        """Return how far the events of all kinds have come: a watermark at the end of a feed."""
        self.now()
        return self._event_number

    def sends_after(self, feed: str, number: int) -> int:
        """Return the position in a feed of its first event beyond the id `number`."""
        return bisect_right(self.sends[feed], number, key=lambda event: event.number)

    def records_between(self, kind: str, start: float, end: float) -> list[Record]:
        """Return the records whose timestamp lies in the window, both ends included."""
        self.now()
        records = self.records[kind]
        first = bisect_left(records, _millis(start), key=lambda record: _millis(record.born))
        return records[first : bisect_right(records, _millis(end), key=lambda record: _millis(record.born))]

    def settled(self, channel: str) -> list[Message]:
        """Return a channel's messages as they are now, the oldest first."""
        now = self.now()
        return [message.settle(now) for message in self.messages[channel]]
