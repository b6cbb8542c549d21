"""`bridge` commands that die where they are told to: real processes, forked from one that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import bridge.adapters.kombu.broker
import bridge.adapters.redis.store
import bridge.adapters.sqlite.broker
import bridge.adapters.sqlite.store
import bridge.cli
import bridge.cli.commands.run
import bridge.runtime.service
from bridge.config import registry
from bridge.runtime.assembly import Assembly
from bridge.testing.kill_points import MARK, KillSwitch

for _name in ("govdelivery", "spacivox", "marketingcloud"):
    registry.load_source(_name)
registry.load_sink("webhook")

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["faults.mortal"])


def _run(arguments: Sequence[str], point: str | None, nth: int, folder: str, error: str) -> None:
    os.chdir(folder)
    with Path(error).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if point is not None:
        switch = KillSwitch(point, nth)
        for part in ("source", "store", "broker", "sink"):
            setattr(Assembly, part, _armed(switch, part, getattr(Assembly, part)))
    bridge.cli.main(list(arguments))


def _armed(switch: KillSwitch, part: str, make: Any) -> Any:
    return lambda *arguments: switch.arm(part, make(*arguments))


class Mortal:
    """One `bridge` command in a process of its own. It starts in a fraction of what a new interpreter takes."""

    def __init__(self, folder: Path, *arguments: str, name: str, point: str | None = None, nth: int = 1) -> None:
        self.err = folder / f"{name}.err"
        self.err.touch()
        self.process: ForkServerProcess = _forks.Process(
            target=_run, args=(arguments, point, nth, str(folder), str(self.err)), daemon=True
        )
        self.process.start()

    @property
    def ended(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs."""
        return self.process.exitcode

    @property
    def killed(self) -> bool:
        return self.ended == -signal.SIGKILL

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.read_text().splitlines() if line.startswith("{")]

    @property
    def mark(self) -> dict[str, Any] | None:
        """What it wrote when it died at its point."""
        return next((line for line in self.log if line["event"] == MARK), None)

    def kill(self) -> None:
        if self.ended is None:
            self.process.kill()
            self.process.join(10)

    def terminate(self) -> None:
        self.process.terminate()


if __name__ == "__main__":
    sys.exit("this module is imported by the crash tests")
