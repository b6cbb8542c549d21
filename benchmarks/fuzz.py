"""A long run of the fuzz tests of all that reads providers' answers: `python benchmarks/fuzz.py --minutes 10`.

It runs the targets of tests/unit/test_parser_fuzz.py one after the other until the time is over, prints how many inputs
each has been through and every input that broke a promise, and exits with 1 if there was one. By default hypothesis
makes the inputs, each round from another seed; with `--engine atheris` (not among the development dependencies:
`pip install atheris`) libFuzzer does, led by the coverage of the code that reads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
ROUND = 200


def targets() -> dict[str, Any]:
    """Return the targets of the tests by the promise that each is held to."""
    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    import test_parser_fuzz

    return test_parser_fuzz.TARGETS


def counted(function: Callable[[Any], None], counts: Counter[str], name: str) -> Callable[[Any], None]:
    """Return `function`, which counts its calls."""

    def one(value: Any) -> None:
        counts[name] += 1
        function(value)

    return one


def with_hypothesis(minutes: float, first_seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Run rounds of all targets until the time is over; return how many inputs each had, and what was found."""
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    few = settings(
        max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], print_blob=True,
    )  # fmt: skip
    ends = time.monotonic() + minutes * 60
    number = first_seed
    while time.monotonic() < ends:
        for name, (function, strategy) in targets().items():
            if name in failures or time.monotonic() >= ends:
                continue
            try:
                seed(number)(few(given(strategy)(counted(function, counts, name))))()
            except Exception:  # noqa: BLE001 - whatever it is, it is what we came for
                failures[name] = traceback.format_exc()
                print(f"BROKEN with seed {number}: {name}\n{failures[name]}", flush=True)
        number += 1
    print(f"seeds {first_seed} to {number - 1}")
    return counts, failures


def with_atheris(name: str, seconds: float) -> None:
    """Hand one target to libFuzzer for so many seconds; it ends the process, with 77 when something was found."""
    import atheris

    with atheris.instrument_imports(include=["bridge.sources", "bridge.domain", "bridge.http", "bridge.ingest"]):
        function, strategy = targets()[name]
    test = given(strategy)(settings(database=None, deadline=None)(counted(function, Counter(), name)))
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={int(seconds)}", "-print_final_stats=1", "-timeout=60", "-max_len=4096"],
        test.hypothesis.fuzz_one_input,
    )
    atheris.Fuzz()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10.0, help="how long in all (default 10)")
    options.add_argument(
        "--seed", type=int, default=int(time.time()), help="the first round's seed (default: the time)"
    )
    options.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    asked = options.parse_args()
    began = time.monotonic()
    if asked.engine == "atheris":
        broken = 0
        for name in targets():
            print(f"--- {name}", flush=True)
            child = multiprocessing.Process(target=with_atheris, args=(name, asked.minutes * 60 / len(targets())))
            child.start()
            child.join()
            broken += child.exitcode != 0
        print(f"{time.monotonic() - began:.0f} s with atheris, {broken} promises broken")
        return int(broken > 0)
    counts, failures = with_hypothesis(asked.minutes, asked.seed)
    for name in targets():
        print(f"{counts[name]:>10,}  {'BROKEN' if name in failures else 'holds '}  {name}")
    print(f"{counts.total():>10,}  inputs in {time.monotonic() - began:.0f} s, {len(failures)} promises broken")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
