"""Fixtures of the polite client's tests."""

from __future__ import annotations

import subprocess

import pytest
from rigs.http import NOW, TOKEN, serving

from bridge.http.client import HttpClient
from bridge.http.limiter import Limiter
from bridge.testing.fakes import ManualTime


@pytest.fixture
async def far():
    async with serving() as server:
        yield server


@pytest.fixture
def time():
    return ManualTime(NOW)


@pytest.fixture
async def open_client(far, time):
    clients = []

    def make(origin: str = "", rate: float = 1000.0, **options) -> HttpClient:
        async def headers():
            return {"X-AUTH-TOKEN": TOKEN}

        client = HttpClient(
            origin or far.url, limiter=Limiter(rate, time.clock), clock=time.clock, headers=headers, **options
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)
