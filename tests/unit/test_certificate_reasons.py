"""Why a certificate is not trusted, in the same words for sources and sinks."""

from __future__ import annotations

import datetime as dt
import ssl
import subprocess

import pytest

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import ProviderError
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.limiter import Limiter
from bridge.http.tls import Tls, tls_reason
from bridge.testing.fake_endpoint import FakeEndpoint

DAY = dt.timedelta(days=1)


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authority")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 3, "-keyout", folder / "ca.key",
            "-out", folder / "ca.pem", "-subj", "/CN=Test authority")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def issue(authority, tmp_path_factory):
    """Give a function that makes a certificate: for a name, valid from and until a number of days from now."""

    def issue(names="DNS:localhost,IP:127.0.0.1", *, start=-1, end=2):
        folder = tmp_path_factory.mktemp("certificate")
        now = dt.datetime.now(dt.UTC)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", folder / "request.pem",
                "-subj", "/CN=server")  # fmt: skip
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={folder}/index.txt\nserial={folder}/serial\nnew_certs_dir={folder}\n"
            f"default_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName={names}\n"
        )
        span = [f"{now + days * DAY:%Y%m%d%H%M%SZ}" for days in (start, end)]
        openssl("ca", "-batch", "-config", folder / "ca.cnf", "-in", folder / "request.pem", "-out", folder / "cert.pem",
                "-cert", authority / "ca.pem", "-keyfile", authority / "ca.key", "-startdate", span[0],
                "-enddate", span[1])  # fmt: skip
        return folder

    return issue


def serving(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return FakeEndpoint(tls=context)


async def failures(far, tls):
    """Return what a source and a sink say of a server, and what a sink's check says."""
    clock = Clock()
    url = f"https://localhost:{far.port}"
    texts = []
    client = HttpClient(url, limiter=Limiter(1000, clock), clock=clock, tls=tls, limits=HttpLimits(retries=0))
    with pytest.raises(ProviderError) as caught:
        await client.get("/messages")
    texts.append(str(caught.value))
    await client.close()
    outbound = GuardedClient(allow_private=True, clock=clock, tls=tls)
    await outbound.open()
    with pytest.raises(Transient) as caught:
        await outbound.post(Endpoint.of(url), b"{}", {})
    texts.append(str(caught.value))
    await outbound.close()
    return texts


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"start": -3, "end": -1}, "not trusted: it has expired"),
        ({"start": 1, "end": 2}, "not trusted: it is not valid yet"),
        ({"names": "DNS:other.example.com"}, "not trusted: it is for another host name"),
    ],
    ids=["expired", "not yet", "another name"],
)
async def test_a_source_and_a_sink_say_why_a_certificate_fails(issue, authority, options, reason):
    async with serving(issue(**options)) as far:
        texts = await failures(far, Tls(authority / "ca.pem"))
        assert all(reason in text for text in texts), texts
        assert far.requests == []


async def test_source_and_sink_say_that_an_authority_is_unknown(issue):
    async with serving(issue()) as far:
        texts = await failures(far, Tls())
    assert all("not trusted: its authority is unknown" in text for text in texts), texts


@pytest.mark.parametrize(
    "alert",
    ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED",
     "SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "TLSV1_ALERT_UNKNOWN_CA"],
)  # fmt: skip
def test_a_refused_client_certificate_is_said(alert):
    error = ssl.SSLError(1, f"[SSL: {alert}] alert of the server (_ssl.c:2580)")
    assert tls_reason(error) == f"it refuses the client certificate, or asks for one ({alert})"
