"""The rule by which processes share work: equal shares, everything given out, and little that moves."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.coordination.assignment import assign, favourite

OWNERS = st.lists(st.text("abcdef0123456789", min_size=4, max_size=6), min_size=1, max_size=7, unique=True)
WORK = st.lists(st.text("uvwxyz", min_size=1, max_size=4), max_size=40, unique=True)


@given(OWNERS, WORK, st.randoms())
def test_equal_processes_have_shares_within_one(owners: list[str], work: list[str], rng: random.Random) -> None:
    assigned = assign(dict.fromkeys(work, owners))
    assert assigned.keys() == set(work)
    loads = Counter(assigned.values())
    shares = [loads[owner] for owner in owners]
    assert max(shares) - min(shares) <= 1
    rng.shuffle(owners)
    rng.shuffle(work)
    assert assign(dict.fromkeys(work, owners)) == assigned, "all compute alike, in whatever order they hear of it"


@given(st.dictionaries(st.text("uvwxyz", min_size=1, max_size=3), st.sets(st.sampled_from("abcd")), max_size=30))
def test_work_goes_only_where_it_can_be_done(eligible: dict[str, set[str]]) -> None:
    assigned = assign(eligible)
    assert assigned.keys() == {work for work, owners in eligible.items() if owners}
    assert all(owner in eligible[work] for work, owner in assigned.items())


def test_versatile_process_makes_up_for_a_restricted_one() -> None:
    eligible = {f"common{n}": ["both", "few"] for n in range(3)} | {f"own{n}": ["both"] for n in range(3)}
    assert Counter(assign(eligible).values()) == {"both": 3, "few": 3}


def test_few_accounts_move_when_a_process_joins() -> None:
    moved, fewest = 0, 0.0
    for seed in range(200):
        rng = random.Random(seed)
        owners, work = [f"host:{rng.random()}" for _ in range(rng.randint(2, 6))], [f"source/{n}" for n in range(30)]
        before, after = assign(dict.fromkeys(work, owners[:-1])), assign(dict.fromkeys(work, owners))
        moved += sum(before[name] != after[name] for name in work)
        fewest += len(work) / len(owners)
    assert moved < 1.4 * fewest


def test_favourite_stays_while_its_process_does() -> None:
    owners = ["a", "b", "c"]
    chosen = favourite("_bridge", owners)
    assert chosen in owners
    assert favourite("_bridge", [owner for owner in owners if owner in (chosen, "a")]) == chosen
    assert favourite("_bridge", []) is None
