"""Who polls what while processes come and go: each sees the others' announcements alone, and no two clocks agree."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.coordination.shares import ShareChange, Shares
from bridge.observability.metrics import Metrics
from bridge.protocols.roster import Member, Presence
from bridge.runtime.sharing import announced_for, report_change

SETTLE, TTL, BEAT = 15.0, 10.0, 1.0
SOURCES = {f"source/s{number}": [f"s{number}"] for number in range(6)}
BOTH = ("poll", "relay")


@dataclass
class Peer:
    """One process: its own clock, and what it would announce."""

    shares: Shares
    owner: str
    roles: Sequence[str]
    skew: float
    steady_since: float
    reports: list[ShareChange] = field(default_factory=list)
    leaving: bool = False
    is_alive: bool = True


class Town:
    """Processes with one roster; a test moves the store's time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.peers: dict[str, Peer] = {}
        self.said: dict[str, tuple[Member, float]] = {}
        self.store_is_unavailable = False

    def join(self, owner: str, roles: Sequence[str] = BOTH, accounts: Collection[str] = SOURCES.keys()) -> Peer:
        reports: list[ShareChange] = []
        shares = Shares(owner, SETTLE, TTL, reports.append)
        shares.set_sources({name: SOURCES[name] for name in sorted(accounts)}, polls="poll" in roles)
        skew = random.Random(owner).uniform(-1e6, 1e6)
        peer = self.peers[owner] = Peer(shares, owner, roles, skew, self.now, reports)
        self.announce(peer)
        return peer

    def announce(self, peer: Peer) -> None:
        shares = peer.shares
        member = Member(
            peer.owner, "box", 1, tuple(peer.roles), "1", "g", peer.skew, steady=self.now - peer.steady_since,
            accounts=shares.accounts, share=shares.share, is_leaving=peer.leaving,
        )  # fmt: skip
        self.said[peer.owner] = (member, self.now)
        shares.observe(self.presences(), self.now + peer.skew)

    def presences(self) -> list[Presence]:
        return [Presence(member, at, self.now - at, gone=self.now - at >= TTL) for member, at in self.said.values()]

    def die(self, owner: str) -> None:
        self.peers.pop(owner).is_alive = False

    def leave(self, owner: str) -> None:
        peer = self.peers[owner]
        peer.leaving = True
        self.announce(peer)
        del self.peers[owner]

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += BEAT
            for peer in () if self.store_is_unavailable else tuple(self.peers.values()):
                self.announce(peer)

    def turns(self) -> Counter[str]:
        return Counter(account for peer in self.peers.values() for account in peer.shares.share)

    def sizes(self) -> list[int]:
        return sorted(len(peer.shares.share) for peer in self.peers.values())

    def is_shared_out(self) -> bool:
        return self.turns() == Counter(SOURCES.keys()) and self.sizes()[-1] - self.sizes()[0] <= 1


@pytest.fixture
def town() -> Town:
    return Town()


def test_first_process_polls_everything_at_once(town: Town) -> None:
    town.join("a")
    assert town.sizes() == [6]
    town.join("b")
    assert town.sizes() == [0, 6]
    assert (
        town.peers["b"].shares.reason == "0 of 6 accounts among 1 process; it gets its share when it has run for 15 s"
    )


def test_joined_process_has_its_share_within_two_leases(town: Town) -> None:
    town.join("a")
    town.pass_time(100)
    town.join("b")
    town.pass_time(SETTLE - 2 * BEAT)
    assert town.sizes() == [0, 6]
    town.pass_time(4 * BEAT)
    assert town.is_shared_out()
    report = town.peers["b"].reports[-1]
    assert (report.share, report.all_accounts, len(report.gained), report.handed_over) == (3, 6, 3, ())
    assert report.reason == "box:1 takes part"
    assert town.peers["b"].shares.reason == "3 of 6 accounts among 2 processes"


def test_process_that_leaves_is_followed_at_the_next_beat(town: Town) -> None:
    for owner in "abc":
        town.join(owner)
    town.pass_time(40)
    assert town.sizes() == [2, 2, 2]
    town.leave("b")
    town.pass_time(BEAT)
    assert town.is_shared_out()


def test_dead_process_is_followed_when_its_word_ends(town: Town) -> None:
    for owner in "abc":
        town.join(owner)
    town.pass_time(40)
    town.die("a")
    town.pass_time(TTL + BEAT)
    assert town.is_shared_out()


def test_flapping_process_moves_nothing(town: Town) -> None:
    for owner in "ab":
        town.join(owner)
    town.pass_time(40)
    before = {owner: (peer.shares.share, len(peer.reports)) for owner, peer in town.peers.items()}
    for number in range(20):
        town.join(f"flapping{number}")
        town.pass_time(5)
        assert not town.peers[f"flapping{number}"].shares.share
        town.die(f"flapping{number}")
    assert {owner: (peer.shares.share, len(peer.reports)) for owner, peer in town.peers.items()} == before


def test_new_processes_inherit_when_the_only_old_one_dies(town: Town) -> None:
    town.join("a")
    town.pass_time(40)
    town.join("b")
    town.pass_time(3)
    town.join("c")
    town.die("a")
    town.pass_time(TTL + BEAT)
    assert town.turns() == Counter(SOURCES.keys())
    town.pass_time(SETTLE)
    assert town.is_shared_out()


def test_store_outage_leaves_the_shares_alone(town: Town) -> None:
    for owner in "abc":
        town.join(owner)
    town.pass_time(40)
    before = {owner: peer.shares.share for owner, peer in town.peers.items()}
    town.store_is_unavailable = True
    town.pass_time(60)
    town.store_is_unavailable = False
    for owner, peer in town.peers.items():
        town.announce(peer)
        assert peer.shares.share == before[owner], "who comes back first does not take everything"
    town.pass_time(30)
    assert {owner: peer.shares.share for owner, peer in town.peers.items()} == before


def test_process_that_died_in_an_outage_is_followed(town: Town) -> None:
    for owner in "ab":
        town.join(owner)
    town.pass_time(40)
    town.store_is_unavailable = True
    town.die("b")
    town.pass_time(60)
    town.store_is_unavailable = False
    town.pass_time(TTL + 2 * BEAT)
    assert town.sizes() == [6]


def test_source_of_one_configuration_stays_with_its_process(town: Town) -> None:
    town.join("all")
    town.join("few", accounts=["source/s0", "source/s1", "source/s2"])
    town.pass_time(40)
    assert set(town.peers["few"].shares.share) == {"source/s0", "source/s1", "source/s2"}
    assert len(town.peers["all"].shares.share) == 3


def test_relay_follows_the_poller(town: Town) -> None:
    for owner in "ab":
        town.join(owner)
        for name in ("s0", "s1", "s2", "_bridge", "orphan"):
            town.peers[owner].shares.journal(name)
    town.pass_time(40)
    for peer in town.peers.values():
        for name in ("s0", "s1", "s2"):
            assert peer.shares.journal(name).is_ours == (f"source/{name}" in peer.shares.share)
    for name in ("_bridge", "orphan"):
        assert sum(peer.shares.journal(name).is_ours for peer in town.peers.values()) == 1


def test_relays_without_pollers_share_the_journals(town: Town) -> None:
    roles = {"p": ["poll"], "r1": ["relay"], "r2": ["relay"], "sends": ["sink"]}
    for owner, role in roles.items():
        town.join(owner, role)
    assert len(town.peers["p"].shares.share) == 6, "a process with another role takes no account away"
    town.pass_time(40)
    relayed = {
        owner: {name for [name] in SOURCES.values() if town.peers[owner].shares.journal(name).is_ours}
        for owner in roles
    }
    assert len(relayed["r1"]) == len(relayed["r2"]) == 3
    assert not relayed["r1"] & relayed["r2"]
    assert not relayed["p"] | relayed["sends"]


def test_earlier_version_takes_no_part(town: Town) -> None:
    town.join("new")
    town.said["old"] = (Member("old", "box", 2, BOTH, "0", "g", 0.0), town.now)
    town.pass_time(5)
    assert town.sizes() == [6]


def test_changed_sources_are_shared_out_anew(town: Town) -> None:
    peer = town.join("a", accounts=["source/s0"])
    kept = peer.shares.account("source/s0")
    peer.shares.set_sources({"source/s0": ["s0"], "account/s1": ["s1", "s2"]}, polls=True)
    town.pass_time(BEAT)
    assert set(peer.shares.share) == {"source/s0", "account/s1"}
    assert peer.shares.account("source/s0") is kept
    assert peer.reports[-1].gained == ("account/s1",)
    assert peer.reports[-1].reason == "a process can poll other accounts than before"


@given(
    st.lists(st.tuples(st.sampled_from(["join", "die", "leave", "wait", "outage"]), st.integers(1, 25)), max_size=25)
)
def test_shares_are_fair_once_nothing_changes(happenings: list[tuple[str, int]]) -> None:
    town = Town()
    town.join("p0")
    for number, (what, seconds) in enumerate(happenings, 1):
        rng = random.Random(number)
        if what == "join":
            town.join(f"p{number}")
        elif what in ("die", "leave") and len(town.peers) > 1:
            getattr(town, what)(rng.choice(sorted(town.peers)))
        town.store_is_unavailable = what == "outage"
        town.pass_time(seconds)
    town.store_is_unavailable = False
    town.pass_time(2 * SETTLE)
    assert town.is_shared_out()
    before = {owner: peer.shares.share for owner, peer in town.peers.items()}
    town.pass_time(60)
    assert {owner: peer.shares.share for owner, peer in town.peers.items()} == before


def test_log_names_the_first_accounts_of_many() -> None:
    metrics, many = Metrics(), tuple(f"source/s{number:02}" for number in range(50))
    with capture_logs() as logs:
        report_change(metrics, ShareChange(many, ("account/x",), 50, 60, "box:1 takes part"))
        report_change(metrics, ShareChange((), many[:1], 49, 60, "box:2 takes part"))
    assert logs[0]["gained"].startswith("source/s00, source/s01, ")
    assert logs[0]["gained"].endswith("source/s19 and 30 more")
    assert (logs[0]["accounts"], logs[0]["handed_over"]) == ("50 of 60", "account/x")
    assert (logs[1]["gained"], logs[1]["handed_over"]) == (None, "source/s00")
    text = metrics.text().decode()
    assert 'bridge_account_moves_total{direction="gained"} 50.0' in text
    assert 'bridge_account_moves_total{direction="handed_over"} 2.0' in text


def test_announcement_ends_before_the_leases() -> None:
    assert announced_for(15.0) == 10.0
    assert announced_for(3.0) == 2.0
