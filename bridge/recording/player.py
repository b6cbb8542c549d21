"""Plays tapes to the sources of a configuration, offline: the same answers, at the same times, in the same order."""

from __future__ import annotations

import heapq
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bridge.adapters.sqlite.store import SqliteStore
from bridge.config.loading import load
from bridge.config.model import Config
from bridge.domain.errors import BridgeError
from bridge.domain.event import JournalEntry
from bridge.ingest.intake import INTERNAL_PREFIX, Intake
from bridge.ingest.poller import describe_unexpected
from bridge.protocols.ledger import Commit, Lease, Ledger, StatusChange
from bridge.protocols.source import Source
from bridge.recording.files import Poll, TapeError, polls, sources
from bridge.recording.frozen_clock import frozen_clock
from bridge.recording.playback import Playback, RecordingExhausted, ReplayTime, Summary
from bridge.recording.recorded_source import RecordedSource
from bridge.runtime.assembly import Assembly

_LEASE_SECONDS = 1e9
_BATCH_EVENTS = 1000
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def offline(path: Path) -> Config:
    """Read a configuration as `bridge.config.load` does; variables that are not set, such as secrets, need not be."""
    environ = dict(os.environ)
    with suppress(OSError, UnicodeDecodeError):
        environ = dict.fromkeys(_VARIABLE.findall(path.read_text(encoding="utf-8")), "unset") | environ
    return load(path, environ=environ)


class _Watched:
    """A ledger that reports its work to the playback: a source that asks nothing may be waiting for a write."""

    def __init__(self, ledger: Ledger, hooks: Playback) -> None:
        self._ledger = ledger
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._ledger, name)

        async def watched(*args: Any, **options: Any) -> Any:
            self._hooks.busy(1)
            try:
                return await work(*args, **options)
            finally:
                self._hooks.busy(-1)

        return watched


@dataclass(slots=True)
class _Run:
    """One source of one recorded run, with a source of ours that stands for it."""

    hooks: Playback
    source: Source
    intake: Intake


class Replay:
    """Plays all tapes of a directory, poll after poll in the order of their beginnings, into a ledger of its own.

    Of a tape that was begun in the middle of a source's life, the ledger knows what the recorded one knew. `summary` is
    complete when all events were read.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.summary = Summary()
        self._folder = folder
        self._config = config
        self._now = ReplayTime()
        self._assembly = Assembly(config, frozen_clock(self._now.clock()))
        self._runs: dict[tuple[str, str], _Run] = {}
        self._leases: dict[str, Lease] = {}
        self._read: dict[str, int] = {}

    async def events(self) -> AsyncIterator[JournalEntry]:
        """Yield every event that is made, in order; raises `TapeError`, and `ConfigError` as a source's plugin does."""
        with tempfile.TemporaryDirectory(prefix="bridge-tape-") as scratch:
            store = SqliteStore(Path(scratch) / "ledger.db", clock=self._assembly.clock, begin=0)
            try:
                await store.open()
                for poll in self._polls():
                    async for entry in self._play(poll, store):
                        yield entry
            finally:
                for run in self._runs.values():
                    await run.source.close()
                await store.close()

    def _polls(self) -> Iterator[Poll]:
        streams = []
        for name, runs in sources(self._folder).items():
            if name not in self._config.sources:
                self.summary.passed_over.append(f"{name}: on the tape, and not in {self._config.file}")
                continue
            streams += [polls(files) for files in runs]
        return heapq.merge(*streams, key=lambda poll: poll.begun.at)

    async def _play(self, poll: Poll, store: SqliteStore) -> AsyncIterator[JournalEntry]:
        name = poll.source
        kind = self._config.sources[name].type
        if kind != poll.kind:
            problem = f"{name}: of type {poll.kind} on the tape, and {kind} in {self._config.file}"
            if problem not in self.summary.passed_over:
                self.summary.passed_over.append(problem)
            return
        self._now.at = max(self._now.at, poll.last)
        if name not in self._leases:
            lease = await store.acquire(f"source/{name}", "replay", _LEASE_SECONDS)
            if lease is None:
                raise TapeError(f"{name}: its lease is held in a ledger that nobody else knows")
            self._leases[name] = lease
        run = self._run(poll, store)
        await self._start_from(poll, run, store)
        try:
            await run.hooks.play(poll, run.intake.poll(self._leases[name]))
        except RecordingExhausted:
            pass
        except BridgeError as error:
            self._failed(poll, str(error))
        except Exception as error:  # noqa: BLE001 - a source's defect is what a replay is to show
            self._failed(poll, f"the source failed with {describe_unexpected(error)}")
        for problem in run.source.problems:
            self._failed(poll, problem)
        self.summary.polls += 1
        async for entry in self._news(name, store):
            yield entry

    def _failed(self, poll: Poll, reason: str) -> None:
        self.summary.failures.append(f"{poll.begun.at:%Y-%m-%dT%H:%M:%SZ}  {poll.source}: {reason}")

    def _run(self, poll: Poll, store: SqliteStore) -> _Run:
        key = (poll.source, poll.run)
        if key not in self._runs:
            name, settings = poll.source, self._config.sources[poll.source]
            hooks = Playback(name, self._now, self.summary)
            source = RecordedSource(self._assembly.source(name), hooks)
            baseline = settings.first_sight == "baseline"
            ledger = cast("Ledger", _Watched(store, hooks))
            intake = Intake(name, settings.type, source, ledger, self._assembly.clock, baseline=baseline)
            self._runs[key] = _Run(hooks, source, intake)
        return self._runs[key]

    async def _start_from(self, poll: Poll, run: _Run, store: SqliteStore) -> None:
        """Take over what the recorded poll started from, where the tape does not tell how it came to that."""
        name = poll.source
        lease, retention = self._leases[name], run.source.retention
        cursor = await store.cursor(name)
        changes: dict[str, str | None] = {key: value for key, value in poll.own.items() if key not in cursor}
        if poll.cursor is not None:
            changes |= dict.fromkeys(key for key in cursor if not key.startswith(INTERNAL_PREFIX)) | poll.cursor
        known = dict(poll.seen)
        histories = await store.last_seen(name, list(known), retention) if known else ()
        statuses = [
            StatusChange(key, None, history)
            for (key, history), present in zip(known.items(), histories, strict=True)
            if present is None
        ]
        if changes or statuses:
            await store.commit(lease, Commit(name, statuses=statuses, cursor=changes, retention=retention))
        if poll.watched is not None:
            named = set(await store.watched(name))
            for resource in named - set(poll.watched):
                await store.unwatch(name, resource)
            for resource in set(poll.watched) - named:
                await store.watch(name, resource)

    async def _news(self, name: str, store: SqliteStore) -> AsyncIterator[JournalEntry]:
        after = self._read.setdefault(name, (await store.journal(name)).base)
        while entries := await store.read(name, after, _BATCH_EVENTS):
            for entry in entries:
                self.summary.events += 1
                yield entry
            after = self._read[name] = entries[-1].position.seq
