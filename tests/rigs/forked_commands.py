"""Commands of the bridge in processes of their own, forked from one that has imported everything.

Many short commands cost little then: the interpreter and its imports are most of what one costs. Folder, environment,
exit code and all output are those of a real process.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

SERVE = "from rigs.forked_commands import serve; serve()"
PRELOADED = (
    "bridge.cli.commands.check",
    "bridge.cli.commands.config",
    "bridge.cli.commands.plugins",
    "bridge.adapters.kombu.broker",
    "bridge.adapters.redis.store",
    "bridge.adapters.sqlite.store",
    "bridge.sources.govdelivery",
    "bridge.sources.marketingcloud",
    "bridge.sources.spacivox",
    "bridge_archive",
    "bridge_email",
    "bridge_slack",
    "bridge_webhook",
)
"""What the children need is imported once, before the first of them."""


class ForkedCommands:
    """Runs commands one after the other; use it with `with`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        search_path = os.pathsep.join([environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])])
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env={**environ, "PYTHONPATH": search_path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(self, folder: Path, *arguments: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a folder, with this environment and nothing to read."""
        output, errors = folder / ".stdout", folder / ".stderr"
        assert self._server.stdin
        assert self._server.stdout
        job = [str(folder), str(output), str(errors), list(arguments), dict(environ)]
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        done = subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())
        output.unlink()
        errors.unlink()
        return done


def serve() -> None:
    """Fork a child for each command that stands in a line of stdin, and print its exit code."""
    for name in PRELOADED:
        importlib.import_module(name)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _become(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - it is the answer


def _become(folder: str, output: str, errors: str, arguments: list[str], environ: dict[str, str]) -> None:
    """Be a command, until its end."""
    from bridge.cli import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for descriptor, path, mode in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, errors, os.O_WRONLY)):
        os.dup2(os.open(path, mode | os.O_CREAT, 0o600), descriptor)
    main(arguments)
