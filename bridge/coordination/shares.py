"""The share that this process has of the accounts and journals, by what the processes of the roster say of themselves.

All compute the same from the same announcements. Where two of them see different ones for a moment, the leases decide.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.coordination.assignment import assign, favourite
from bridge.coordination.turns import Turn
from bridge.protocols.roster import Member, Presence


@dataclass(frozen=True, slots=True)
class ShareMember:
    """A process that takes part in the sharing."""

    owner: str
    name: str
    """Its host and number, for people."""
    since: float
    """When it started, by its own clock: only to order those that are all new."""
    steady: float
    """Seconds for which it has announced itself without a gap."""
    accounts: frozenset[str]
    """The leases of the accounts that it can poll; none without the role `poll`."""
    relays: bool

    @classmethod
    def of(cls, member: Member, age: float) -> ShareMember | None:
        """Return the process of an announcement of `age` seconds ago; None if it ends or does not share."""
        if member.accounts is None or member.is_leaving:
            return None
        accounts, relays = frozenset(member.accounts), "relay" in member.roles
        name = f"{member.host}:{member.pid}"
        return cls(member.owner, name, member.since, member.steady + age, accounts, relays)


@dataclass(frozen=True, slots=True)
class Partition:
    """Who polls which account, and who relays.

    A process takes part when it has been there for a while: one that comes and goes at short intervals gets nothing,
    and so nothing moves because of it. Work that only new processes can do goes to the first of them.
    """

    members: Mapping[str, ShareMember] = field(default_factory=dict)
    """Those that take part, or wait for it, by owner."""
    settled: frozenset[str] = frozenset()
    """The owners of those that have been there for long enough."""
    pollers: Mapping[str, str] = field(default_factory=dict)
    """The owner of each account that somebody can poll, by the account's lease."""

    @classmethod
    def of(cls, candidates: Collection[ShareMember], settle_seconds: float) -> Partition:
        """Share the accounts out."""
        members = {candidate.owner: candidate for candidate in candidates}
        settled = frozenset(owner for owner, member in members.items() if member.steady >= settle_seconds)
        accounts = {account for member in candidates for account in member.accounts}
        eligible = {}
        for account in accounts:
            able = [owner for owner, member in members.items() if account in member.accounts]
            eligible[account] = _chosen(able, members, settled)
        return cls(members, settled, assign(eligible))

    def relays(self, accounts: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
        """Return who relays which journal: who polls its source if that relays, too, and otherwise a fair share.

        `accounts` has the lease of the account of each source; `others` are journals without a source.
        """
        able = [owner for owner, member in self.members.items() if member.relays]
        relaying = _chosen(able, self.members, self.settled)
        owners = {source: self.pollers.get(account) for source, account in accounts.items()}
        followed = {source: owner for source, owner in owners.items() if owner is not None and owner in able}
        rest = dict.fromkeys(accounts.keys() - followed.keys(), relaying)
        chosen = {journal: favourite(journal, relaying) for journal in others}
        return followed | assign(rest) | {journal: owner for journal, owner in chosen.items() if owner is not None}


def _chosen(owners: Sequence[str], members: Mapping[str, ShareMember], settled: Collection[str]) -> list[str]:
    """Return those of `owners` that have settled, or the first of all."""
    lasting = [owner for owner in owners if owner in settled]
    return lasting or sorted(owners, key=lambda owner: (members[owner].since, owner))[:1]


@dataclass(frozen=True, slots=True)
class ShareChange:
    """What has changed for this process."""

    gained: tuple[str, ...]
    handed_over: tuple[str, ...]
    share: int
    all_accounts: int
    """All accounts that anybody polls."""
    reason: str


class Shares:
    """Turns of one process, set anew at each announcement."""

    def __init__(
        self, owner: str, settle_seconds: float, grace_seconds: float, report: Callable[[ShareChange], None]
    ) -> None:
        """Prepare; `report` hears when the accounts of this process change."""
        self.reason = ""
        """How the present share comes about."""
        self.is_shared = False
        """Whether another process takes part."""
        self._owner = owner
        self._settle_seconds = settle_seconds
        self._grace_seconds = grace_seconds
        self._report = report
        self._sources: dict[str, str] = {}
        self._accounts: dict[str, Turn] = {}
        self._journals: dict[str, Turn] = {}
        self._partition: Partition | None = None
        self._shape: Mapping[str, tuple[bool, frozenset[str], bool]] | None = None
        """What the turns were set by; None as long as they are not for the present sources."""
        self._known: dict[str, ShareMember] = {}
        self._observed_at: float | None = None
        self._grace_until = float("-inf")

    @property
    def accounts(self) -> tuple[str, ...]:
        """The leases of the accounts that this process can poll."""
        return tuple(self._accounts)

    @property
    def share(self) -> tuple[str, ...]:
        """Those among them that it should poll."""
        return tuple(account for account, turn in self._accounts.items() if turn.is_ours)

    def set_sources(self, accounts: Mapping[str, Sequence[str]], *, polls: bool) -> None:
        """Say which sources belong to which account, by its lease, and whether this process polls at all.

        The turn of an account that it could poll before stays as it is; that of a new one comes with the next
        observation.
        """
        self._sources = {source: account for account, sources in accounts.items() for source in sources}
        known = self._accounts if polls else {}
        self._accounts = {account: known.get(account) or Turn(is_ours=False) for account in accounts if polls}
        self._shape = None

    def account(self, lease: str) -> Turn:
        """Return the turn of an account that this process can poll."""
        return self._accounts[lease]

    def journal(self, name: str) -> Turn:
        """Return the turn of a journal's relay."""
        if name not in self._journals:
            self._journals[name] = Turn(is_ours=False)
            self._apply_journals()
        return self._journals[name]

    def observe(self, presences: Sequence[Presence], now: float) -> None:
        """Set the turns by who is there, as the store answered at `now`, in monotonic seconds."""
        candidates = self._candidates(presences, now)
        self.is_shared = len(candidates.keys() | {self._owner}) > 1
        self._known = candidates
        shape = _shape(candidates, self._settle_seconds)
        if shape != self._shape:
            before, self._shape = self._partition, shape
            self._partition = Partition.of(candidates.values(), self._settle_seconds)
            self._apply(before or Partition())

    def _candidates(self, presences: Sequence[Presence], now: float) -> dict[str, ShareMember]:
        """Return who takes part now.

        After a time without the store all seem gone until they have announced themselves again. For a while they are
        still counted, so that who comes first does not take everything.
        """
        if self._observed_at is not None and now - self._observed_at > self._grace_seconds:
            self._grace_until = now + self._grace_seconds
        self._observed_at = now
        candidates = {}
        for presence in presences:
            kept = self._known.get(presence.member.owner) if now < self._grace_until else None
            candidate = kept if presence.gone else ShareMember.of(presence.member, presence.age)
            if candidate is not None:
                candidates[candidate.owner] = candidate
        return candidates

    def _apply(self, before: Partition) -> None:
        if self._partition is None:
            return
        pollers = self._partition.pollers
        gained: list[str] = []
        handed_over: list[str] = []
        for account, turn in self._accounts.items():
            is_ours = pollers.get(account) == self._owner
            if turn.set(is_ours=is_ours):
                (gained if is_ours else handed_over).append(account)
        self._apply_journals()
        own, everything, processes = len(self.share), len(pollers), len({*pollers.values()})
        noun = "process" if processes == 1 else "processes"
        self.reason = f"{own} of {everything} accounts among {processes} {noun}" + self._waiting()
        if gained or handed_over:
            cause = _cause(before, self._partition)
            self._report(ShareChange(tuple(gained), tuple(handed_over), own, everything, cause))

    def _waiting(self) -> str:
        if self._partition is None or self._owner in self._partition.settled or self.share:
            return ""
        return f"; it gets its share when it has run for {self._settle_seconds:g} s"

    def _apply_journals(self) -> None:
        if self._partition is not None and self._shape is not None:
            others = self._journals.keys() - self._sources.keys()
            relays = self._partition.relays(self._sources, others)
            for name, turn in self._journals.items():
                turn.set(is_ours=relays.get(name) == self._owner)


def _shape(
    candidates: Mapping[str, ShareMember], settle_seconds: float
) -> dict[str, tuple[bool, frozenset[str], bool]]:
    """Return all that matters for the shares."""
    return {owner: (item.steady >= settle_seconds, item.accounts, item.relays) for owner, item in candidates.items()}


def _cause(before: Partition, now: Partition) -> str:
    """Say in words which processes have come and gone."""
    former = {owner: member.name for owner, member in before.members.items()}
    present = {owner: member.name for owner, member in now.members.items()}
    new = now.settled - before.settled if before.members else now.members.keys()
    came = [f"{present[owner]} takes part" for owner in sorted(new)]
    went = [f"{former[owner]} takes part no more" for owner in sorted(former.keys() - present.keys())]
    return "; ".join(came + went) or "a process can poll other accounts than before"
