"""Every alert in a real run of its fault, with a job next to it on a normal day: python benchmarks/alerts.py [FACTOR].

All times of the rules are divided by FACTOR, 60 if it is left out: two minutes of an alert are two seconds. Printed is
after how many seconds each alert fired, by job. It exits with 1 if one of them did not, or if one fired for the job on
its normal day.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness import until  # noqa: E402 - the tests' own
from rigs.faulty_jobs import FAULTS, LIVELY, NORMAL, Site, Watch, normal  # noqa: E402 - likewise
from rigs.prometheus import Prometheus, alerts, shortened  # noqa: E402 - likewise

from bridge.simulator import Simulator  # noqa: E402 - after the tests' folder is known

_LONGEST_SECONDS = 4 * 3600


async def main(factor: float) -> int:
    """Run all jobs, then none; return the exit code."""
    within = _LONGEST_SECONDS / factor + 300
    folder = Path(tempfile.mkdtemp(prefix="bridge-alerts-"))
    async with Simulator(LIVELY) as simulator, Site(folder, simulator) as site:
        await normal(site)
        for prepare, _, _ in FAULTS.values():
            await prepare(site)
        jobs = {name: job.ports for name, job in site.jobs.items()}
        async with Prometheus(folder, jobs, shortened(factor, longest=_LONGEST_SECONDS)) as prometheus:
            await until(prometheus.is_up, "Prometheus is ready")
            watch = Watch(prometheus)
            problems = []

            async def run(job: str) -> None:
                _, happens, names = FAULTS[job]
                try:
                    await happens(site, prometheus)
                    await watch.until_fired(job, names, within)
                    print(f"{job}: all fired", flush=True)
                except TimeoutError as error:
                    problems.append(str(error))

            await asyncio.gather(*map(run, FAULTS))
            try:
                await watch.until_silent(NORMAL)
            except TimeoutError as error:
                problems.append(f"on a normal day: {error}")
            for job in site.jobs.values():
                job.end()
            await watch.until_fired("", frozenset({"BridgeNotRunning"}), within)
    for job, fired in watch.fired.items():
        for name, seconds in sorted(fired.items(), key=lambda item: item[1]):
            print(f"{job or '(no job)':14} {name:34} {seconds:6.1f} s")
    seen = {name for fired in watch.fired.values() for name in fired}
    never = [alert["alert"] for alert in alerts() if alert["alert"] not in seen]
    print(f"{len(seen)} alerts fired; never: {never or 'none'}")
    print("\n".join(problems) or "no alert on the normal day")
    return 1 if problems or never else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what it started ends with it
    sys.exit(asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)))
