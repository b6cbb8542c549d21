"""The embedded broker: queues, bindings and messages in one SQLite file that several processes may share."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from bridge.adapters import taps
from bridge.adapters.sqlite.broker_file import (
    BrokerFile,
    check_readable,
    check_writable,
    declare,
    depth_of,
    has_queue,
    mark_of,
    publish_entries,
    set_mark,
)
from bridge.adapters.sqlite.broker_subscription import SqliteSubscription
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, OtherInstallation, Unavailable
from bridge.domain.event import JournalEntry
from bridge.domain.installation import Mark, check_broker
from bridge.domain.namespace import DEFAULT, Namespace
from bridge.protocols.broker import Inbox

T = TypeVar("T")
log = structlog.get_logger()

_CALL_SECONDS = 30.0


class SqliteBroker:
    """A broker in a SQLite file, for one machine. Construction has no side effects.

    `publish` is one transaction, synced to the disk. The messages of a consumer whose process died come back after
    `lease` seconds. Queues are shared by all processes that open the file.
    """

    def __init__(self, path: Path, *, clock: Clock, lease: float = 10.0, namespace: Namespace = DEFAULT) -> None:
        self._path = Path(path)
        self._namespace = namespace
        self._clock = clock
        self._lease = lease
        self._file: BrokerFile | None = None
        self._own: Mark | None = None
        self._subscriptions: set[SqliteSubscription] = set()
        self._renewed = 0.0
        self._worker = ThreadWorker(
            "bridge-embedded-broker", rest=self._rest, end=self._drop, interrupt=self._interrupt
        )

    async def open(self) -> None:
        """Open the file, and make it if it is not there."""
        await self.call(lambda _file: None)

    async def close(self) -> None:
        """End the thread and close the file."""
        await self._worker.close()

    @property
    def place(self) -> str:
        """Where the broker is: its file."""
        return str(self._path)

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the file has; None if it has none."""
        return await self.call(_mark)

    async def claim_for(self, mark: Mark) -> None:
        """Use the file for one installation only, also when it is opened anew; raises `OtherInstallation`."""
        self._own = mark
        await self.call(self._check)

    async def take_over(self, mark: Mark) -> None:
        """Give the file this mark instead of its own."""
        self._own = None
        await self.call(lambda file: set_mark(file.durable, str(mark), replace=True))

    def sink_queue(self, sink: str) -> str:
        """Return the name of a sink's queue."""
        return self._namespace.sink_queue(sink)

    async def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a queue bound to `topics`; repeating it changes nothing."""
        await self.call(lambda file: declare(file.durable, queue, topics))

    async def publish(self, entries: Sequence[JournalEntry], *, queue: str | None = None) -> int:
        """Return when the file holds them all, in every queue that wants them; the number that no queue wanted."""
        if not entries:
            return 0
        now = self._clock.epoch()
        unroutable = await self.call(lambda file: publish_entries(file.durable, entries, now, queue))
        self.wake()
        return unroutable

    @asynccontextmanager
    async def inbox(self, queue: str, *, prefetch: int = 256) -> AsyncIterator[Inbox]:
        """Consume a queue that was declared."""
        async with self._subscribed(SqliteSubscription(self, self._clock, queue, None, prefetch)) as inbox:
            yield inbox

    @asynccontextmanager
    async def tap(self, topics: Sequence[str]) -> AsyncIterator[Inbox]:
        """Consume what is published from now on; its messages need no acknowledgement."""
        queue = taps.new_queue(self._namespace)
        async with self._subscribed(
            SqliteSubscription(self, self._clock, queue, tuple(topics), taps.PREFETCH_MESSAGES)
        ) as inbox:
            yield inbox

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 for one that does not exist."""
        return await self.call(lambda file: depth_of(file.lax, queue))

    async def has_queue(self, queue: str) -> bool:
        """Return whether a queue exists."""
        return await self.call(lambda file: has_queue(file.lax, queue))

    async def ping(self) -> None:
        """Return if the file can be written to."""
        await self.call(lambda file: check_writable(file.lax))

    async def check_rights(self, _queues: Sequence[str]) -> None:
        """Try whether the file can be written to: there are no other rights."""
        await self.ping()

    async def reach(self) -> None:
        """Return if the file can be read, or is not there yet; nothing is made or written."""
        try:
            await asyncio.to_thread(check_readable, self._path)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._path}: {error}") from error

    # shared with subscriptions

    def submit(self, job: Callable[[BrokerFile], T]) -> asyncio.Future[T]:
        """Do `job` in the thread."""
        return self._worker.submit(lambda: self._with_file(job))

    async def call(self, job: Callable[[BrokerFile], T]) -> T:
        """Do `job` in the thread and return its result; raises `Unavailable`."""
        return await self._worker.call(lambda: self._with_file(job), within=_CALL_SECONDS, what=str(self._path))

    def wake(self) -> None:
        """Have this process's subscriptions look again."""
        for subscription in self._subscriptions:
            subscription.check_now()

    @asynccontextmanager
    async def _subscribed(self, subscription: SqliteSubscription) -> AsyncIterator[Inbox]:
        await self.call(lambda file: subscription.renew(file.lax, self._until()))
        subscription.check()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            with contextlib.suppress(Unavailable):  # what cannot be given back now comes back when the lease ends
                await asyncio.shield(self.call(lambda file: subscription.leave(file.lax)))
            self.wake()

    def _until(self) -> float:
        return self._clock.epoch() + self._lease

    # for the thread

    def _with_file(self, job: Callable[[BrokerFile], T]) -> T:
        """Do `job`; this is the one place where SQLite's errors become ours."""
        try:
            if self._file is None:
                self._file = self._opened()
            self._renew()
            return job(self._file)
        except OtherInstallation:
            self._drop()  # so that the next call looks whether it still is another's
            raise
        except BridgeError:
            raise
        except (sqlite3.Error, OSError) as error:
            self._drop()
            text = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"{self._path}: {text}") from error

    def _opened(self) -> BrokerFile:
        file = BrokerFile(self._path)
        try:
            self._check(file)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self, file: BrokerFile) -> None:
        """Raise `OtherInstallation` if the file has another mark; one without any gets ours."""
        if self._own is None:
            return
        if mark_of(file.durable) is None:
            set_mark(file.durable, str(self._own), replace=False)
        check_broker(self.place, _mark(file), self._own)

    def _renew(self) -> None:
        """Prolong the leases of this process's consumers, whatever the event loop is busy with."""
        now = self._clock.monotonic()
        if self._file is None or now - self._renewed < self._lease / 3:
            return
        self._renewed = now
        for subscription in tuple(self._subscriptions):
            subscription.renew(self._file.lax, self._until())

    def _rest(self, wake: int) -> None:
        wait_readable(wake, seconds=self._lease / 3)
        if self._file is not None and self._subscriptions:
            try:
                self._with_file(lambda _file: None)
            except Unavailable as error:
                log.warning(
                    "broker.lease_not_renewed", reason=str(error), consequence="messages may be delivered twice"
                )

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _interrupt(self) -> None:
        if (file := self._file) is not None:
            file.interrupt()


def _mark(file: BrokerFile) -> Mark | None:
    text = mark_of(file.durable)
    return None if text is None else Mark.parse(text)
