"""Certificate files of the store and the broker that are renewed while the bridge runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.testing.tcp_proxy import TcpProxy

Build = Callable[[str], RedisStore | KombuBroker]
KINDS = {
    "store": ("rediss", lambda url: RedisStore(url, clock=Clock())),
    "redis broker": ("rediss", lambda url: KombuBroker(url, exchange="bridge.events", clock=Clock())),
    "rabbitmq": ("amqps", lambda url: KombuBroker(url, exchange="bridge.events", clock=Clock())),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("old", "new"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


class Server:
    """A server that shows a certificate, and lets in only who shows the same one."""

    def __init__(self, certificates: Path, files: Path) -> None:
        self.certificates = certificates
        self.files = files
        self.contexts = {name: self._context(name) for name in ("old", "new")}
        self.shown = "old"
        self.context = self._context("old")
        self.context.sni_callback = self._choose

    def _context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # a refused client hears of it while it connects
        context.load_cert_chain(self.certificates / f"{name}.pem", self.certificates / f"{name}.key")
        context.load_verify_locations(self.certificates / f"{name}.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        connection.context = self.contexts[self.shown]

    def write(self, name: str, *kinds: str) -> None:
        """Put what a client needs into the files of the configuration: `ca.pem`, `cert.pem`, `cert.key`."""
        for kind in kinds or ("ca.pem", "cert.pem", "cert.key"):
            shutil.copy(self.certificates / f"{name}{Path(kind).suffix}", self.files / kind)


@asynccontextmanager
async def connected(
    kind: str, server: Server, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[RedisStore | KombuBroker, TcpProxy]]:
    scheme, build = KINDS[kind]
    upstream = request.getfixturevalue("redis_url" if scheme == "rediss" else "rabbitmq_url")
    port = int(upstream.rpartition(":")[2].partition("/")[0])
    files = "&".join(f"ssl_{name}={server.files / file}" for name, file in
                     (("ca_certs", "ca.pem"), ("certfile", "cert.pem"), ("keyfile", "cert.key")))  # fmt: skip
    async with TcpProxy(port, tls=server.context) as proxy:
        user, path = ("guest:guest@", "/") if scheme == "amqps" else ("", "0")
        part = build(f"{scheme}://{user}localhost:{proxy.port}/{path}?{files}")
        try:
            yield part, proxy
        finally:
            await part.close()


async def answers(part: RedisStore | KombuBroker) -> bool:
    """Say whether a call comes through; one may end with the connection that was cut."""
    for _ in range(2):
        try:
            await part.ping()
        except BridgeError:
            await asyncio.sleep(0)
        else:
            return True
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_renewed_files_are_used_at_the_next_connection(
    kind: str, certificates: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = Server(certificates, tmp_path)
    server.write("old")
    async with connected(kind, server, request) as (part, proxy):
        assert await answers(part)
        server.shown = "new"
        proxy.cut()
        assert not await answers(part), "the server shows and wants another certificate"
        server.write("new")
        assert await answers(part), "without a restart"


async def test_half_renewed_files_leave_what_was_read(
    certificates: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = Server(certificates, tmp_path)
    server.write("old")
    async with connected("store", server, request) as (part, proxy):
        assert await answers(part)
        server.write("new", "cert.pem")
        proxy.cut()
        with capture_logs() as logs:
            assert await answers(part)
        assert [line["event"] for line in logs] == ["tls.files_unusable"]
        server.write("new")
        server.shown = "new"
        proxy.cut()
        assert await answers(part)
