"""Which process gets which work: a rule that all processes compute alike from who is alive."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b


def score(work: str, owner: str) -> bytes:
    """Return how well a piece of work and a process fit together: the same everywhere, and as good as random."""
    return blake2b(f"{work}\0{owner}".encode(), digest_size=8).digest()


def favourite(work: str, owners: Collection[str]) -> str | None:
    """Return the process that fits a piece of work best, whatever other work there is; None without a process."""
    return max(owners, key=lambda owner: (score(work, owner), owner), default=None)


def assign(eligible: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the process of each piece of work, by the processes that can do it; work that nobody can do is left out.

    Processes that can do the same get shares within one of each other. Work that few can do goes first, so that those
    who can do more make up for it. When a process comes or goes, most of the other work stays where it is.
    """
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for work, owners in sorted(eligible.items()):
        groups[tuple(sorted(set(owners)))].append(work)
    assigned: dict[str, str] = {}
    loads: Counter[str] = Counter()
    for owners, names in sorted(groups.items(), key=lambda group: (len(group[0]), group[0])):
        if owners:
            assigned |= _spread(names, owners, loads)
    return assigned


def _spread(names: Sequence[str], owners: Sequence[str], loads: Counter[str]) -> dict[str, str]:
    """Give each piece of work to the process that fits best and has room; `loads` counts it.

    All have room up to one level. What is left over goes one above it, to as many processes as needed.
    """
    level, left_over = _level([loads[owner] for owner in owners], len(names))
    pairs = sorted(((score(name, owner), name, owner) for name in names for owner in owners), reverse=True)
    assigned: dict[str, str] = {}
    for _, name, owner in pairs:
        if name in assigned or loads[owner] > level or (loads[owner] == level and not left_over):
            continue
        left_over -= loads[owner] == level
        loads[owner] += 1
        assigned[name] = owner
    return assigned


def _level(loads: Sequence[int], count: int) -> tuple[int, int]:
    """Return up to which load `count` pieces of work fill these processes, and how many are left over then."""
    level = min(loads)
    while (needed := sum(load <= level for load in loads)) <= count:
        count -= needed
        level += 1
    return level, count
