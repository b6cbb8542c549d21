"""Private Redis and RabbitMQ servers for tests: on free ports of 127.0.0.1, ended by the id they were started with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

import redis

from bridge.testing.free_port import free_port

_RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")
_START_TIMEOUT_SECONDS = 120.0
_MAX_START_ATTEMPTS = 3
_MAX_LOG_CHARACTERS = 4000
"""Characters of what a server said that are shown where it does not start."""


class MissingServerError(RuntimeError):
    """A server program is not installed; the text says which Debian package has it."""


def wait_for(condition: Callable[[], bool], what: str, *, within: float = _START_TIMEOUT_SECONDS) -> None:
    """Return as soon as `condition` holds; raises `TimeoutError` naming `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:.0f} s")
        time.sleep(0.02)


class _Server:
    """A server process of ours: started, stopped, killed and paused by its own id."""

    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server and wait until it answers; its data is kept from the last run."""
        raise NotImplementedError

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """End the server in good order."""
        self._signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self._wait()

    def pause(self) -> None:
        """Stop the server's clock (SIGSTOP): connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """End the server and delete its data."""
        raise NotImplementedError

    def _wait(self) -> None:
        if self.process is not None:
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait(timeout=30)
            self.process = None


class RedisServer(_Server):
    """One `redis-server`; with `appendonly` its data survives `kill`."""

    def __init__(self, *, appendonly: bool = False, port: int | None = None, options: tuple[str, ...] = ()) -> None:
        self.program = shutil.which("redis-server")
        if self.program is None:
            raise MissingServerError("redis-server is not installed (Debian package: redis-server)")
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-redis-"))
        self.appendonly = appendonly
        self.options = options

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self.appendonly else []
        self.process = subprocess.Popen(  # noqa: S603 - the server under test
            [
                str(self.program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--save", "", "--databases", "64", *persistence, *self.options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(self._answers, f"redis-server on port {self.port}")

    def _answers(self) -> bool:
        client = redis.Redis(port=self.port, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def remove(self) -> None:
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RabbitMQServer(_Server):
    """One RabbitMQ node of its own name, ports and folders; durable queues survive `kill`."""

    def __init__(self) -> None:
        if not (_RABBITMQ_BIN / "rabbitmq-server").exists():
            raise MissingServerError("rabbitmq-server is not installed (Debian package: rabbitmq-server)")
        self.port = free_port()
        self.dist_port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-rabbitmq-"))
        self.node = f"bridge-{uuid.uuid4().hex[:8]}@localhost"
        self.config = self.folder / "rabbitmq.conf"
        self.config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "loopback_users = none\n"
            "vm_memory_high_watermark.absolute = 2GB\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file = false\n"
            "log.console = false\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        self._cookie = uuid.uuid4().hex
        self._said = self.folder / "said.txt"

    @property
    def url(self) -> str:
        """The URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def environment(self) -> dict[str, str]:
        """What the node's own tools need to find it."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": str(home),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_CONFIG_FILE": str(self.config.with_suffix("")),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {self._cookie} +S 2:2 +sbwt none",
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {self._cookie} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def start(self) -> None:
        """Start the node and wait until it accepts a log-in.

        On a machine that is short of time, a node may give up while it boots: it has a few tries.
        """
        for attempt in range(1, _MAX_START_ATTEMPTS + 1):
            with self._said.open("wb") as said:
                self.process = subprocess.Popen(  # noqa: S603 - the server under test
                    [str(_RABBITMQ_BIN / "rabbitmq-server")],
                    env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                    cwd=self.folder,
                )  # fmt: skip
            wait_for(lambda: self._ended or self._answers(), f"rabbitmq-server {self.node}")
            if not self._ended:
                return
            text = self._said.read_text(errors="replace")[-_MAX_LOG_CHARACTERS:]
            if attempt == _MAX_START_ATTEMPTS:
                raise RuntimeError(f"rabbitmq-server {self.node} ended {attempt} times while starting:\n{text}")

    @property
    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _answers(self) -> bool:
        # The listener opens last in a node's boot: a protocol greeting means that it is up.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(probe.recv(8))
        except OSError:
            return False

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node and return what it printed; takes half a second.

        In a session of its own: Linux shares its processors out by session, and Erlang's threads, which look for work
        in turns while they start, need half a minute where they have to share one with many busy processes.
        """
        done = subprocess.run(  # noqa: S603 - the server under test
            [str(_RABBITMQ_BIN / "rabbitmqctl"), "-q", *arguments],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False,
            start_new_session=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def wipe(self) -> None:
        """Delete every queue and every exchange that a test has made."""
        self.ctl(
            "eval",
            '[rabbit_amqqueue:delete(Q, false, false, <<"test">>) || Q <- rabbit_amqqueue:list()], '
            '[rabbit_exchange:delete(element(2, X), false, <<"test">>) || X <- rabbit_exchange:list(), '
            'binary:match(element(4, element(2, X)), [<<"amq.">>]) =:= nomatch, element(4, element(2, X)) =/= <<>>].',
        )

    def stop(self) -> None:
        """End the node in good order."""
        with contextlib.suppress(RuntimeError):
            self.ctl("stop")
        super().stop()

    def remove(self) -> None:
        """End the node and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
