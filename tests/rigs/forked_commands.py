"""Commands of the bridge in processes of their own, forked from one that has imported everything.

The interpreter and its imports are most of what a short command costs, and a service's first second. Folder,
environment, signals, exit code and all output are those of a real process. What is about the start of the interpreter
itself has to start one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

SERVE = "from rigs.forked_commands import serve; serve()"
PRELOADED = (
    "bridge.adapters.kombu.broker",
    "bridge.adapters.redis.store",
    "bridge.adapters.sqlite.broker",
    "bridge.adapters.sqlite.store",
    "bridge.cli.commands.run",
    "bridge.sources.govdelivery",
    "bridge.sources.marketingcloud",
    "bridge.sources.rest",
    "bridge.sources.spacivox",
    "bridge_archive",
    "bridge_email",
    "bridge_slack",
    "bridge_webhook",
)
"""What the children need is imported once, before the first of them, together with every command."""
_START_SECONDS = 120.0


class ForkedProcess:
    """One command; it has what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.args: tuple[str, ...] = ()
        self.returncode: int | None = None
        """The exit code, negative for a signal's number; None while it runs."""
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that all commands are forked from."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        search_path = os.pathsep.join(filter(None, [environ.get("PYTHONPATH"), str(Path(__file__).parents[1])]))
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env={**environ, "PYTHONPATH": search_path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._started: queue.SimpleQueue[ForkedProcess] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="fork-server-reader", daemon=True)
        self._reader.start()

    def close(self) -> None:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.wait()
        self._reader.join()
        self._server.stdout.close()

    def start(
        self, folder: Path, *arguments: str, environ: Mapping[str, str], out: Path, err: Path, session: bool = False
    ) -> ForkedProcess:
        """Start a command whose output is appended to two files; with `session` it gets a session of its own."""
        job = [str(folder), str(out), str(err), list(arguments), dict(environ), session]
        assert self._server.stdin
        for path in (out, err):
            path.touch(0o600)  # here already, for whoever reads them at once
        with self._lock:
            self._server.stdin.write(json.dumps(job) + "\n")
            self._server.stdin.flush()
            process = self._started.get(timeout=_START_SECONDS)
        process.args = arguments
        return process

    def run(
        self,
        folder: Path,
        *arguments: str,
        environ: Mapping[str, str],
        timeout: float | None = None,
        session: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a folder, with this environment and nothing to read."""
        with tempfile.TemporaryDirectory(prefix="bridge-command-") as output:
            out, err = Path(output, "out"), Path(output, "err")
            process = self.start(folder, *arguments, environ=environ, out=out, err=err, session=session)
            try:
                code = process.wait(timeout)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

    def _read(self) -> None:
        assert self._server.stdout
        running: dict[int, ForkedProcess] = {}
        for line in self._server.stdout:
            pid, code = json.loads(line)
            if code is None:
                running[pid] = ForkedProcess(pid)
                self._started.put(running[pid])
            else:
                running.pop(pid).end(code)


@cache
def fork_server() -> ForkServer:
    """Return the server of this test process."""
    server = ForkServer(os.environ)
    atexit.register(server.close)
    return server


# --- in the server ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each command that stands in a line of stdin; print each start and each exit code."""
    from bridge.cli import commands

    for path in sorted(Path(commands.__path__[0]).glob("[!_]*.py")):
        importlib.import_module(f"{commands.__name__}.{path.stem}")
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    buffer = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap()
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                _fork(json.loads(line), (woken, wakes))


def _say(pid: int, code: int | None) -> None:
    os.write(1, json.dumps([pid, code]).encode() + b"\n")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(pid, os.waitstatus_to_exitcode(status))


def _fork(job: list[Any], own: tuple[int, ...]) -> None:
    pid = os.fork()
    if pid:
        _say(pid, None)
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under `nohup`
    os.closerange(3, max(own) + 1)  # a command that is started by `exec` has nothing else
    _become(*job)


def _become(
    folder: str, output: str, errors: str, arguments: list[str], environ: dict[str, str], session: bool
) -> NoReturn:
    """Be a command, until its end."""
    import bridge
    from bridge.cli import main

    if session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for descriptor, path, mode in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, errors, os.O_WRONLY)):
        opened = os.open(path, mode | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = [str(Path(bridge.__path__[0], "__main__.py")), *arguments]
    sys.orig_argv = [sys.executable, "-m", "bridge", *arguments]
    main(arguments)
