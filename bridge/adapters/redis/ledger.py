"""The ledger in Redis: statuses in small hashes, the journal in a stream, all of one source in one hash slot."""

from __future__ import annotations

import json
import secrets
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.adapters.lua import load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.expectations import SHARDS, RedisExpectations, expectation_arguments
from bridge.adapters.redis.keys import Keys, bucket_of, name_of
from bridge.adapters.redis.source_names import SourceNames
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, LeaseLost, Unavailable
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.protocols.ledger import Commit, JournalState, Key, Lease, StatusChange, new_base

_ACQUIRE, _HOLD, _TOUCH, _COMMIT, _CONFIRM, _TRIM, _RESET = (
    load("bridge.adapters.redis", name)
    for name in ("acquire", "hold", "touch", "commit", "confirm", "trim", "reset_source")
)
_SLACK = 1.25
"""Scopes are kept a quarter longer than asked for, so that most reads need not write."""
_SCOPES_REMEMBERED = 100_000
_MAX_UNCERTAIN_COMMITS = 64
_BATCH_BUCKETS = 500
_TRIM_STEP_ENTRIES = 10_000
_GAP = 8
"""Reading up to this many unwanted entries is cheaper than another command."""
_OVERHEAD = 48
"""Roughly what a stream adds to an event's own bytes."""


@dataclass(slots=True)
class _Memory:
    """What this process knows without asking; losing it costs a few commands."""

    sources: set[str] = field(default_factory=set)
    begins: dict[str, int] = field(default_factory=dict)
    """Where a new journal of each source would have begun at its last commit."""
    kept: dict[tuple[str, str], float] = field(default_factory=dict)
    """Until when each scope is surely kept, by the wall clock."""
    uncertain_commits: dict[Hashable, str] = field(default_factory=dict)
    """The nonces of commits whose answers were lost."""


class RedisLedger(RedisExpectations):
    """`Ledger` on Redis 6.2 or later. Writes are as durable as the server's own `appendonly` makes them."""

    def __init__(self, link: RedisClient, keys: Keys, clock: Clock, *, begin: int | None = None) -> None:
        RedisExpectations.__init__(self, link, keys)
        self._clock = clock
        self._begin = begin
        self._memory = _Memory()
        self._source_names = SourceNames(link, keys, clock)

    # leases

    async def acquire(self, name: str, owner: str, ttl: float) -> Lease | None:
        """Take the lease if it is free or already `owner`'s; the token is new unless it was already held."""
        key = self._keys.lease(name)
        token = await self._link.run(_ACQUIRE, [key, f"{key}:n"], owner, _ms(ttl))
        return None if token is None else Lease(name, owner, int(token), ttl)

    async def renew(self, lease: Lease) -> None:
        """Hold the lease for another `ttl`; raises `LeaseLost` if it has ended or somebody else has it."""
        if not await self._link.run(_HOLD, [self._keys.lease(lease.name)], _holder(lease), _ms(lease.ttl)):
            raise _lost(lease)

    async def release(self, lease: Lease) -> None:
        """Give the lease back at once; nothing happens if it was lost."""
        await self._link.run(_HOLD, [self._keys.lease(lease.name)], _holder(lease), 0)

    async def holder(self, name: str) -> str | None:
        """Return the owner of a lease that is held now."""
        held: bytes | None = await self._link.command("GET", self._keys.lease(name))
        return None if held is None else held.decode().partition(" ")[2]

    # statuses, cursor

    async def last_seen(self, source: str, keys: Sequence[Key], retention: float) -> Sequence[str | None]:
        """Return the history of each key in order, None if there is none, and keep their scopes for `retention`."""
        if not keys:
            return []
        await self._keep(source, {key.scope for key in keys}, retention)
        wanted: dict[tuple[str, str], tuple[list[int], list[str]]] = {}
        for index, (scope, name) in enumerate(keys):
            bucket, kept = bucket_of(name)
            group = wanted.get((scope, bucket))
            if group is None:
                group = wanted[scope, bucket] = ([], [])
            group[0].append(index)
            group[1].append(kept)
        base = self._keys.source(source)
        answers = await self._link.commands(
            [("HMGET", f"{base}:b:{scope}:{bucket}", *fields) for (scope, bucket), (_, fields) in wanted.items()]
        )
        histories: list[str | None] = [None] * len(keys)
        for (indexes, _), values in zip(wanted.values(), answers, strict=True):
            for index, value in zip(indexes, values, strict=True):
                if value is not None:
                    histories[index] = value.decode()
        return histories

    async def _keep(self, source: str, scopes: Iterable[str], retention: float) -> None:
        """Extend what would end too soon. Written at a quarter of the reads' worth of time, not at every read."""
        now, kept = self._clock.epoch(), self._memory.kept
        late = [scope for scope in scopes if kept.get((source, scope), 0.0) < now + retention]
        if late:
            await self._link.run(_TOUCH, [self._keys.source(source)], _ms(retention * _SLACK), *late)
            self._remember(source, late, now + retention * _SLACK)

    def _remember(self, source: str, scopes: Iterable[str], until: float) -> None:
        kept = self._memory.kept
        if len(kept) > _SCOPES_REMEMBERED:
            kept.clear()
        for scope in scopes:
            kept[source, scope] = until

    async def scope(self, source: str, scope: str) -> Mapping[str, str]:
        """Return the histories of all resources of a scope by name; names of more than 20 characters are digests."""
        base = self._keys.source(source)
        buckets = sorted(bucket.decode() for bucket in await self._link.command("SMEMBERS", f"{base}:i:{scope}"))
        histories_by_name: dict[str, str] = {}
        for start in range(0, len(buckets), _BATCH_BUCKETS):
            batch = buckets[start : start + _BATCH_BUCKETS]
            answers = await self._link.commands([("HGETALL", f"{base}:b:{scope}:{bucket}") for bucket in batch])
            for bucket, answer in zip(batch, answers, strict=True):
                histories_by_name |= {name_of(bucket, kept): history for kept, history in _texts(answer).items()}
        return histories_by_name

    async def cursor(self, source: str) -> dict[str, str]:
        """Return all entries of the source's cursor."""
        return _texts(await self._link.command("HGETALL", f"{self._keys.source(source)}:c"))

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        """Write statuses, events and cursor as one; return the number of the journal's last event.

        Raises `LeaseLost` or `Conflict` with nothing written. A commit whose answer was lost is sent once more, under
        the nonce by which the server knows whether it was written; so is an equal one after `Unavailable`.
        """
        source = commit.source
        if source not in self._memory.sources:
            await self._name(source)
        number = await self._sent(lease, commit)
        if number == -1:
            raise _lost(lease)
        if number == -2:  # noqa: PLR2004 - the script's own word
            raise Conflict(f"source {source}: a status changed between reading and writing; nothing was written")
        if number in {0, self._memory.begins[source] + len(commit.events)}:
            await self._name(source)  # the journal is a new one: the server may have been emptied since we named it
        return number

    async def _name(self, source: str) -> None:
        """Have the source stand among those that there are."""
        await self._link.command("SADD", self._keys.common("sources"), source)
        self._memory.sources.add(source)

    async def _sent(self, lease: Lease | None, commit: Commit) -> int:
        keys, held = [self._keys.source(commit.source)], ""
        if lease is not None:
            keys, held = [*keys, self._keys.lease(lease.name)], _holder(lease)
        begin = new_base(self._clock.epoch()) if self._begin is None else self._begin
        self._memory.begins[commit.source] = begin
        arguments = [begin, *_commit_arguments(commit)]
        uncertain, mark = self._memory.uncertain_commits, _fingerprint(commit)
        nonce = uncertain.get(mark)
        if nonce is None:
            nonce = secrets.token_hex(6)
            try:
                return int(await self._link.run(_COMMIT, keys, held, nonce, *arguments))
            except Unavailable:
                if len(uncertain) > _MAX_UNCERTAIN_COMMITS:
                    uncertain.clear()
                if commit.events:
                    uncertain[mark] = nonce
        number = int(await self._link.run(_COMMIT, keys, held, nonce, *arguments))
        uncertain.pop(mark, None)
        return number

    # journal

    async def sources(self) -> Sequence[str]:
        """Return the names of all sources that have a journal or a cursor, in alphabetical order."""
        return await self._source_names.read()

    async def journal(self, source: str) -> JournalState:
        """Return how far the journal reaches."""
        values = await self._link.command("HMGET", f"{self._keys.source(source)}:s", "z", "c", "r", "f", "u", "b")
        base, committed, confirmed, first, unroutable, size = (int(value or 0) for value in values)
        return JournalState(base, committed, confirmed, first or 1, unroutable, size)

    async def read(self, source: str, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return up to `limit` kept entries with numbers above `after`, in order."""
        if limit <= 0:
            return []
        result = await self._link.command(
            "XRANGE", f"{self._keys.source(source)}:j", f"{after + 1}-0", "+", "COUNT", limit
        )
        return [_entry(source, item) for item in result]

    async def entries(self, positions: Sequence[Position]) -> Sequence[JournalEntry | None]:
        """Return the entries at `positions` in order; None where one is no longer kept."""
        if not positions:
            return []
        wanted: dict[str, set[int]] = {}
        for source, seq in positions:
            wanted.setdefault(source, set()).add(seq)
        commands: list[tuple[str | int, ...]] = []
        readers: list[tuple[str, list[int]]] = []
        for source, numbers in wanted.items():
            ordered = sorted(numbers)
            if source.startswith("@"):
                commands.append(("HMGET", f"{self._keys.sink(source[1:])}:ae", *ordered))
                readers.append((source, ordered))
                continue
            for start, end in _runs(ordered):
                commands.append(("XRANGE", f"{self._keys.source(source)}:j", f"{start}-0", f"{end}-0"))
                readers.append((source, []))
        entries_by_position: dict[Position, JournalEntry] = {}
        for (source, seqs), answer in zip(readers, await self._link.commands(commands), strict=True):
            if source.startswith("@"):
                kept = [_unpack(source, seq, packed) for seq, packed in zip(seqs, answer, strict=True) if packed]
            else:
                kept = [_entry(source, item) for item in answer]
            entries_by_position.update((entry.position, entry) for entry in kept)
        return [entries_by_position.get(position) for position in positions]

    async def confirm(self, lease: Lease, source: str, upto: int, unroutable: int = 0) -> None:
        """Note that the broker holds everything up to `upto`, and how many of it no queue wanted."""
        keys = [self._keys.source(source), self._keys.lease(lease.name)]
        if await self._link.run(_CONFIRM, keys, _holder(lease), upto, unroutable) == -1:
            raise _lost(lease)

    async def trim(self, source: str, before: int) -> int:
        """Forget entries with numbers below `before`, never unconfirmed ones; return how many were forgotten.

        Done in steps, for one long command would keep everybody else waiting.
        """
        forgotten, more = 0, 1
        while more:
            gone, more = await self._link.run(_TRIM, [self._keys.source(source)], before, _TRIM_STEP_ENTRIES)
            forgotten += gone
        return forgotten

    async def reset_source(self, lease: Lease, source: str) -> None:
        """Forget a source's cursor, statuses and watched resources; its journal stays, with what is not published yet.

        The keys of the statuses stand in no list, so the whole server is searched for them, step by step.
        """
        base = self._keys.source(source)
        keys = [base, self._keys.lease(lease.name)]
        batch: list[str] = []
        async for key in self._link.scan(f"{_escaped(base)}:[bi]:*"):
            batch.append(key)
            if len(batch) == _BATCH_BUCKETS:
                await self._reset(lease, keys, batch)
                batch = []
        await self._reset(lease, keys, batch)
        await self.drop_expectations(lease, source)
        await self._reset(lease, keys, [f"{base}:w", f"{base}:h", f"{base}:c"])
        self._memory.kept.clear()
        self._memory.uncertain_commits.clear()

    async def drop_expectations(self, lease: Lease, source: str) -> None:
        """Forget all expectations of a source."""
        index = f"{self._keys.source(source)}:e"
        keys = [self._keys.source(source), self._keys.lease(lease.name)]
        await self._reset(lease, keys, [*(f"{index}:{shard}" for shard in ("", *range(SHARDS))), index])

    async def _reset(self, lease: Lease, keys: Sequence[str], names: Sequence[str]) -> None:
        if await self._link.run(_RESET, [*keys, *names], _holder(lease)) == -1:
            raise _lost(lease)

    # what operators ask for, and what runs tell

    async def watch(self, source: str, resource: str) -> bool:
        """Follow a resource; False if it was already followed."""
        return bool(await self._link.command("SADD", f"{self._keys.source(source)}:w", resource))

    async def unwatch(self, source: str, resource: str) -> bool:
        """Follow a resource no longer; False if it was not followed."""
        return bool(await self._link.command("SREM", f"{self._keys.source(source)}:w", resource))

    async def watched(self, source: str) -> Sequence[str]:
        """Return the resources that operators named, sorted."""
        return sorted(item.decode() for item in await self._link.command("SMEMBERS", f"{self._keys.source(source)}:w"))

    async def set_status(self, name: str, values: Mapping[str, str]) -> None:
        """Keep what a part tells about itself; what it told before under other names stays."""
        if values:
            words = [word for key, value in values.items() for word in (json.dumps([name, key]), value)]
            await self._link.command("HSET", self._keys.common("notes"), *words)

    async def statuses(self, prefix: str) -> Mapping[str, Mapping[str, str]]:
        """Return what parts have told about themselves, by name."""
        values_by_name: dict[str, dict[str, str]] = {}
        for place, value in sorted(_texts(await self._link.command("HGETALL", self._keys.common("notes"))).items()):
            name, key = json.loads(place)
            if name.startswith(prefix):
                values_by_name.setdefault(name, {})[key] = value
        return values_by_name

    async def ping(self) -> None:
        """Return if the store answers and can be written to."""
        await self._link.command("SET", self._keys.common("ping"), "1", "EX", 60)


def _escaped(text: str) -> str:
    """Return a pattern of `SCAN` that matches the text and nothing else."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _holder(lease: Lease) -> str:
    # The token alone would do, were it not for a failover that loses the newest tokens.
    return f"{lease.token} {lease.owner}"


def _lost(lease: Lease | None) -> LeaseLost:
    return LeaseLost(
        f"the lease {lease.name if lease else ''} has ended or another replica holds it; nothing was written"
    )


def _fingerprint(commit: Commit) -> Hashable:
    """Two commits of the same events are the same: an occurrence's id is made once."""
    return (
        commit.source,
        tuple(commit.statuses),
        tuple(event.id for event in commit.events),
        tuple(commit.cursor.items()),
    )


def _texts(pairs: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in pairs.items()}


def _grouped(statuses: Sequence[StatusChange]) -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    groups: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for (scope, name), expected, history in statuses:
        bucket, kept = bucket_of(name)
        groups.setdefault((scope, bucket), []).append((kept, "-" if expected is None else f"={expected}", history))
    return groups


def _commit_arguments(commit: Commit) -> list[str | bytes | int]:
    size = sum(len(event.body) + len(event.id) + len(event.topic) + _OVERHEAD for event in commit.events)
    words: list[str | bytes | int] = []
    buckets = 0
    for (scope, bucket), changes in _grouped(commit.statuses).items():
        for start in range(0, len(changes), _BATCH_BUCKETS):
            fields, expected, histories = zip(*changes[start : start + _BATCH_BUCKETS], strict=True)
            words += (scope, bucket, len(fields), *fields, *expected, *histories)
            buckets += 1
    for event in commit.events:
        words += (event.id, event.topic, event.time, event.body)
    for name, value in commit.cursor.items():
        words += (name, "-" if value is None else f"={value}")
    head = (_ms(commit.retention * _SLACK), size, buckets, len(commit.events), len(commit.cursor))
    return [*head, *words, *(expectation_arguments(commit) if commit.expected or commit.met else ())]


def _entry(source: str, item: tuple[bytes, dict[bytes, bytes]]) -> JournalEntry:
    number, values = item
    event = WireEvent(values[b"i"].decode(), values[b"t"].decode(), int(values[b"w"]), values[b"b"])
    return JournalEntry(Position(source, int(number.partition(b"-")[0])), event)


def pack(event: WireEvent) -> bytes:
    """Return an event of another publisher as one value."""
    return json.dumps([event.id, event.topic, event.time]).encode() + b"\n" + event.body


def _unpack(source: str, seq: int, packed: bytes) -> JournalEntry:
    head, _, body = packed.partition(b"\n")
    identity, topic, time = json.loads(head)
    return JournalEntry(Position(source, seq), WireEvent(identity, topic, time, body))


def _runs(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Return ranges that cover `seqs`, which are sorted, with no gap inside a range greater than `_GAP`."""
    runs: list[tuple[int, int]] = []
    for seq in seqs:
        if runs and seq - runs[-1][1] <= _GAP:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return runs
