"""The polite client's certificates: its own, and those that it accepts."""

from __future__ import annotations

import ssl

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.http import refused

from bridge.domain import errors
from bridge.http.tls import Tls


@pytest.fixture
async def secure(certificate):
    cert, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="{}")

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    yield str(server.make_url("/"))
    await server.close()


async def test_a_private_authority_and_a_client_certificate_are_honoured(secure, certificate, open_client):
    cert, key = certificate
    client = open_client(secure, tls=Tls(ca_file=cert, cert_file=cert, key_file=key, only_ca_file=True))
    assert (await client.get("/")).status == 200


async def test_unverified_certificate_is_never_accepted(secure, open_client):
    assert "certificate is not trusted" in str(await refused(open_client(secure)))


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (Tls(ca_file="/nowhere.pem", only_ca_file=True), "ca_file /nowhere.pem holds no usable certificates"),
        (Tls(cert_file=__file__, cert_setting="client_cert"), f"client_cert {__file__} and its key cannot be used"),
    ],
)
async def test_a_certificate_file_that_cannot_be_used_is_said_so(open_client, tls, text):
    error = await refused(open_client("https://127.0.0.1:1", tls=tls))
    assert isinstance(error, errors.Permanent)
    assert text in str(error)
