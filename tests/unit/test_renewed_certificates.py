"""Certificate files that are renewed while the bridge runs, of sources and of sinks."""

from __future__ import annotations

import shutil
import ssl
import subprocess

import pytest
from structlog.testing import capture_logs

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.limiter import Limiter
from bridge.http.tls import Tls
from bridge.testing.fake_endpoint import FakeEndpoint, reply


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("old", "new"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


class Files:
    """The files that a configuration names, and what they hold."""

    def __init__(self, certificates, folder):
        self.certificates = certificates
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))

    def trust(self, name):
        shutil.copy(self.certificates / f"{name}.pem", self.ca)

    def show(self, name, *, key=None):
        shutil.copy(self.certificates / f"{name}.pem", self.cert)
        shutil.copy(self.certificates / f"{key or name}.key", self.key)


@pytest.fixture
def files(certificates, tmp_path):
    files = Files(certificates, tmp_path)
    files.trust("old")
    files.show("old")
    return files


class Jumping:
    """A clock whose monotonic time moves on by more than a look at the files with each call."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        self.seconds += 2.0
        return self.seconds


@pytest.fixture(params=["source", "sink"])
async def ask(request, files):
    """Give a function that asks an endpoint once, as a source or as a sink does, always with the same client."""
    clock = Clock(monotonic=Jumping())
    tls = Tls(files.ca, files.cert, files.key, only_ca_file=True)
    outbound = GuardedClient(allow_private=True, clock=clock, tls=tls)
    clients = {}

    async def ask(far):
        url = f"https://localhost:{far.port}"
        if request.param == "sink":
            await outbound.open()
            return (await outbound.post(Endpoint.of(url), b"{}", {})).status
        if url not in clients:
            limiter = Limiter(1000, clock)
            clients[url] = HttpClient(url, limiter=limiter, clock=clock, tls=tls, limits=HttpLimits(retries=0))
        return (await clients[url].get("/")).status

    yield ask
    await outbound.close()
    for client in clients.values():
        await client.close()


def server(certificates, name, *, clients=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / f"{clients}.pem")
    return FakeEndpoint(tls=context, default=reply(200, b"{}"))


async def test_a_renewed_authority_is_trusted_without_a_restart(certificates, files, ask):
    async with server(certificates, "old") as far:
        assert await ask(far) == 200
        port = far.port
        await far.stop()
        renewed = server(certificates, "new")
        await renewed.start(port)
        with pytest.raises(Transient):
            await ask(renewed)
        files.trust("new")
        assert await ask(renewed) == 200
        await renewed.stop()


async def test_a_renewed_client_certificate_is_shown_without_a_restart(certificates, files, ask):
    async with server(certificates, "old", clients="new") as far:
        with pytest.raises(Transient):
            await ask(far)
        files.show("new")
        assert await ask(far) == 200


@pytest.mark.parametrize("breaks", ["cert", "key", "ca", "pair", "missing"])
async def test_a_broken_file_keeps_the_old_one_and_says_so(certificates, files, ask, breaks):
    async with server(certificates, "old", clients="old") as far:
        far.default = reply(200, b"{}", {"Connection": "close"})
        assert await ask(far) == 200
        if breaks == "pair":
            files.show("new", key="old")
        elif breaks == "missing":
            files.cert.unlink()
        else:
            getattr(files, breaks).write_text("half a fi")
        with capture_logs() as logs:
            for _ in range(3):
                assert await ask(far) == 200
        assert [line["event"] for line in logs] == ["tls.files_unusable"]
        assert "localhost" in logs[0]["endpoint"]
        files.trust("old")
        files.show("old")
        with capture_logs() as logs:
            assert await ask(far) == 200
        assert [line["event"] for line in logs] == ["tls.files_reloaded"]


async def test_files_that_never_could_be_used_are_an_error(certificates, files, ask):
    files.cert.write_text("half a fi")
    async with server(certificates, "old") as far:
        with pytest.raises(Permanent, match="cert_file"):
            await ask(far)
