"""Processes that join, end and die at random while twelve sources of six accounts are polled under load.

    PYTHONPATH=tests python tests/faults/joins_and_deaths.py --changes 30 --interval 3s --rate 4/s --lease 5

A record moves on only when its status has arrived, so each status has to arrive, under one id. The provider notes every
request: no account's budget may be exceeded in any second, and no source may be left without a poll for long.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness import Process, until
from rigs.shared_accounts import SharedAccounts

from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.testing.servers import RedisServer

MAX_PROCESSES = 4


@dataclass
class Outcome:
    """What a run came to."""

    changes: Counter[str] = field(default_factory=Counter)
    transitions: int = 0
    lost: int = 0
    renamed: int = 0
    repeated: int = 0
    """Events that arrived more than once under one id: what a process had in hand when it was killed."""
    most_in_a_second: int = 0
    longest_gap: float = 0.0
    """The longest time without a poll of any source, in seconds."""
    moves: int = 0
    """How often an account came to a process."""
    seconds: float = 0.0
    fair: int = 0
    """How often shares were within one of each other before the next change."""

    def table(self) -> str:
        return "\n".join(f"{name:<18}{value}" for name, value in vars(self).items())


async def run(
    folder: Path,
    changes: int,
    *,
    seed: int,
    interval: str,
    rate: str,
    lease: float,
    records: int = 4,
    kills: bool = True,
) -> Outcome:
    """Let processes come and go so often, then see what has arrived."""
    rng, outcome, running, everyone = random.Random(seed), Outcome(), [], []
    with RedisServer(appendonly=True) as redis:
        async with SharedAccounts(records) as accounts:
            config = accounts.configuration(
                folder, redis.url, redis.url, interval=interval, rate=rate, lease=f"{lease:g}s", claim="5s"
            )
            store = RedisStore(redis.url, clock=Clock())

            def join() -> None:
                process = Process(folder, "run", "-c", str(config), name=f"p{len(everyone)}")
                running.append(process)
                everyone.append(process)

            async def is_fair() -> bool:
                holders = [await store.holder(f"account/{name}") for name in accounts.lists if name.endswith("-0")]
                held = Counter(holder.split(":")[1] for holder in holders if holder)
                alive = [held[str(process.process.pid)] for process in running]
                return sum(alive) == len(holders) and max(alive) - min(alive) <= 1

            try:
                join()
                await until(lambda: all(known.polled_at for known in accounts.lists.values()), "all are polled")
                began = time.monotonic()
                for _ in range(changes):
                    await asyncio.sleep(rng.uniform(0.5, 3.5 * lease))
                    outcome.fair += await is_fair()
                    kinds = ["join"] * (len(running) < MAX_PROCESSES) + ["kill", "stop"][not kills :] * (
                        len(running) > 1
                    )
                    kind = rng.choice(kinds)
                    outcome.changes[kind] += 1
                    if kind == "join":
                        join()
                        continue
                    ended = running.pop(rng.randrange(len(running)))
                    await asyncio.to_thread(ended.kill if kind == "kill" else ended.stop)
                await asyncio.sleep(2 * lease)
                outcome.seconds = time.monotonic() - began
                outcome.longest_gap = max(accounts.gaps(began).values())
                accounts.freeze()
                await until(lambda: not accounts.lost, "every status has arrived", within=60)
            finally:
                for process in running:
                    await asyncio.to_thread(process.stop)
                await store.close()
            outcome.transitions, outcome.lost, outcome.renamed = (
                len(accounts.ids),
                len(accounts.lost),
                len(accounts.renamed),
            )
            outcome.repeated = sum(count - 1 for count in accounts.times.values())
            outcome.most_in_a_second = accounts.most_in_a_second
    lines = [line for process in everyone for line in process.log if line["event"] == "share.changed"]
    outcome.moves = sum(len((line["gained"] or "").split(", ")) for line in lines if line["gained"])
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description="Let processes join, end and die at random; print what it cost.")
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--interval", default="3s")
    parser.add_argument("--rate", default="4/s")
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--records", type=int, default=4, help="records of each source that move at once")
    parser.add_argument("--no-kills", action="store_true", help="every process ends by SIGTERM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(
            run(
                Path(folder), options.changes, seed=options.seed, interval=options.interval, rate=options.rate,
                lease=options.lease, records=options.records, kills=not options.no_kills,
            )
        )  # fmt: skip
    print(outcome.table(), flush=True)  # noqa: T201 - a script for a person
    exceeded = outcome.most_in_a_second > float(options.rate.partition("/")[0])
    sys.exit(1 if outcome.lost or outcome.renamed or exceeded else 0)


if __name__ == "__main__":
    main()
