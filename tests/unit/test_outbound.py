"""The way out: which addresses are spoken to, what answers mean, and what an error may say."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp.abc import AbstractResolver
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.http.addresses import is_public
from bridge.http.guarded import (
    MAX_ANSWER_BYTES,
    Endpoint,
    EndpointResponse,
    GuardedClient,
    SecretUrl,
)
from bridge.http.headers import parse_retry_after
from bridge.http.networks import Network, is_within
from bridge.http.tls import Tls
from bridge.testing.fake_endpoint import FakeEndpoint, flood, redirect, reply, silence, torn

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


class Names(AbstractResolver):
    """A name service that says what it is told, another thing each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in addresses
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def receiver():
    async with FakeEndpoint() as receiver:
        yield receiver


@pytest.fixture
async def outbound():
    client = GuardedClient(allow_private=True, clock=Clock(now=lambda: NOW), timeout=5.0)
    await client.open()
    yield client
    await client.close()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "2606:4700:4700::1111",
     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_public_addresses_are_spoken_to(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.9.9.9",
     "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
     "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
     "240.0.0.1", "255.255.255.255",
     "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
     "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1",
     "2001:0:808:808::1", "2001:db8::1", "3fff::1", "100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
     "fec0::1", "ff02::1", "5f00::1", "not an address", ""],
)  # fmt: skip
def test_addresses_that_are_not_of_the_public_internet_are_refused(address):
    assert not is_public(address)


@given(st.ip_addresses())
def test_no_address_that_the_registries_keep_back_is_public(address):
    embedded = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if address in ipaddress.ip_network("64:ff9b::/96"):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    decision = embedded or address
    if not decision.is_global or decision.is_multicast or decision.is_reserved:
        assert not is_public(str(address))


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_as_itself(address):
    number = int(address)
    for outer in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_public(str(ipaddress.IPv6Address(outer))) == is_public(str(address))


@pytest.mark.parametrize(("networks", "is_sent"), [(["127.0.0.0/8"], True), (["10.0.0.0/8", "fd00::/8"], False)])
async def test_only_named_networks_are_permitted(receiver, networks, is_sent):
    outbound = GuardedClient(allow_private=False, allow_networks=networks, clock=Clock())
    await outbound.open()
    endpoint = Endpoint.of(receiver.url)
    if is_sent:
        assert (await outbound.post(endpoint, b"{}", {})).status == 200
        await outbound.check_connectivity(endpoint)
    else:
        with pytest.raises(Permanent, match=r"allow_networks to its network"):
            await outbound.post(endpoint, b"{}", {})
    await outbound.close()
    assert len(receiver.requests) == is_sent


@pytest.mark.parametrize(
    ("address", "is_in"),
    [("10.2.3.4", True), ("10.3.0.1", False), ("::ffff:10.2.3.4", True), ("fd00:2::1", True), ("fd00:2::1%eth0", True),
     ("fd01::1", False), ("localhost", False)],
)  # fmt: skip
def test_network_contains_its_addresses_alone(address, is_in):
    assert is_within(["10.2.0.0/16", "fd00:2::/32"])(address) == is_in


@pytest.mark.parametrize(
    ("text", "problem"),
    [("10.2.0.1/16", "write 10.2.0.0/16"), ("intranet", "is not a network"), ("10.2.0.0/40", "is not a network")],
)
def test_wrong_network_is_told_how_to_write_it(text, problem):
    with pytest.raises(ValidationError, match=problem):
        TypeAdapter(Network).validate_python(text)
    assert TypeAdapter(Network).validate_python(" 10.2.0.0/16 ") == "10.2.0.0/16"


async def test_name_with_private_addresses_is_refused_for_each(receiver):
    names = Names(["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"])
    outbound = GuardedClient(allow_private=False, clock=Clock(), resolver=names)
    await outbound.open()
    with pytest.raises(Permanent, match=r"http://hooks.example.com.* private.*allow_private: true"):
        await outbound.post(Endpoint.of(f"http://hooks.example.com:{receiver.port}/x"), b"", {})
    await outbound.close()
    assert receiver.connections == 0


async def test_name_changing_after_the_check_is_checked_again(receiver):
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    asked = []

    def admitted(address):
        asked.append(address)
        return address == "127.0.0.1"

    outbound = GuardedClient(allow_private=False, clock=Clock(), resolver=names, public=admitted)
    await outbound.open()
    endpoint = Endpoint.of(f"http://hooks.example.com:{receiver.port}/x")
    receiver.answer(reply(200, headers={"Connection": "close"}))
    assert (await outbound.post(endpoint, b"", {})).status == 200
    outbound._session.connector.clear_dns_cache()
    with pytest.raises(Permanent, match="private"):
        await outbound.post(endpoint, b"", {})
    await outbound.close()
    assert asked == ["127.0.0.1", "127.0.0.2"]
    assert len(receiver.requests) == 1


async def test_of_several_addresses_only_the_admitted_one_is_connected_to(receiver):
    outbound = GuardedClient(
        allow_private=False, clock=Clock(), resolver=Names(["127.0.0.2", "::1", "127.0.0.1"]),
        public=lambda address: address == "127.0.0.1",
    )  # fmt: skip
    await outbound.open()
    answer = await outbound.post(Endpoint.of(f"http://hooks.example.com:{receiver.port}/x"), b"", {})
    await outbound.close()
    assert answer.status == 200


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "0177.0.0.1"])
async def test_numeric_address_forms_do_not_pass_the_check(receiver, host):
    outbound = GuardedClient(allow_private=False, clock=Clock())
    await outbound.open()
    with pytest.raises((Permanent, Transient)):
        await outbound.post(Endpoint.of(f"http://{host}:{receiver.port}/x"), b"", {})
    with pytest.raises((Permanent, Transient)):
        await outbound.check_connectivity(Endpoint.of(f"http://{host}:{receiver.port}/x"))
    await outbound.close()
    assert receiver.connections == 0


async def test_a_proxy_of_the_environment_is_not_used(receiver, outbound, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    assert (await outbound.post(Endpoint.of(receiver.url), b"", {})).status == 200


async def test_cookies_are_not_kept(receiver, outbound):
    receiver.answer(reply(200, headers={"Set-Cookie": "session=1"}))
    for _ in range(2):
        await outbound.post(Endpoint.of(f"http://localhost:{receiver.port}/"), b"", {})
    assert "cookie" not in receiver.requests[1].headers


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("17", 17.0), (" 5 ", 5.0), ("1.5", 1.5), ("Wed, 01 May 2024 12:02:00 GMT", 120.0),
     ("Wednesday, 01-May-24 12:02:00 GMT", 120.0), ("Wed, 01 May 2024 12:02:00 -0000", 120.0),
     ("Wed, 01 May 2024 11:00:00 GMT", 0.0), ("-3", 0.0), ("soon", None), ("", None), ("1e3", 1000.0), ("nan", None),
     ("²", None), ("9" * 400, None), ("Wed, 99 May 2024 12:02:00 GMT", None), (None, None)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_header_breaks_the_reader(value):
    retry_after = parse_retry_after(value, NOW)
    assert retry_after is None or retry_after >= 0


async def test_an_answer_comes_with_its_wait_and_its_text(receiver, outbound):
    date = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
    receiver.answer(reply(503, b"later", {"Date": format_datetime(NOW, usegmt=True), "Retry-After": date}))
    answer = await outbound.post(Endpoint.of(receiver.url), b"", {})
    assert answer == EndpointResponse(receiver.url, 503, b"later", 90.0, answer.headers)
    assert answer.headers["Retry-After"] == date


async def test_a_redirect_is_handed_back_and_not_followed(receiver, outbound):
    receiver.answer(redirect("/elsewhere"))
    answer = await outbound.post(Endpoint.of(receiver.url), b"", {})
    assert answer.status == 302
    assert "redirects are not followed" in str(answer.error())
    assert len(receiver.requests) == 1


async def test_of_an_endless_answer_only_the_beginning_is_read(receiver, outbound):
    receiver.answer(flood())
    answer = await outbound.post(Endpoint.of(receiver.url), b"", {})
    assert (answer.status, len(answer.body)) == (200, MAX_ANSWER_BYTES)


async def test_answer_torn_after_its_status_counts_as_delivered(receiver, outbound):
    receiver.answer(torn(200))
    assert (await outbound.post(Endpoint.of(receiver.url), b"", {})).error() is None


async def test_silence_ends_with_the_timeout(receiver):
    outbound = GuardedClient(allow_private=True, clock=Clock(), timeout=0.5)
    await outbound.open()
    receiver.answer(silence())
    with pytest.raises(Transient, match="did not answer in time"):
        await outbound.post(Endpoint.of(receiver.url), b"", {})
    await outbound.close()


async def test_what_is_posted_arrives_byte_for_byte(receiver, outbound):
    body = '{"name": "Zoë"}\n'.encode()
    await outbound.post(Endpoint.of(f"{receiver.url}/a%2Fb?c=d%26e"), body, {"Content-Type": "x/y"})
    (request,) = receiver.requests
    assert (request.body, request.path, request.headers["content-type"]) == (body, "/a%2Fb?c=d%26e", "x/y")


async def test_closed_client_is_transient_and_can_reopen(receiver, outbound):
    await outbound.close()
    with pytest.raises(Transient, match="closed"):
        await outbound.post(Endpoint.of(receiver.url), b"", {})
    await outbound.open()
    await outbound.open()
    assert (await outbound.post(Endpoint.of(receiver.url), b"", {})).status == 200


async def test_endpoint_can_be_reached_without_sending(receiver, outbound):
    await outbound.check_connectivity(Endpoint.of(receiver.url))
    assert receiver.requests == []
    await receiver.stop()
    with pytest.raises(Transient, match=r"cannot be reached|broke the connection off"):
        await outbound.check_connectivity(Endpoint.of(receiver.url))


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


async def posted_over_tls(receiver, tls):
    outbound = GuardedClient(allow_private=True, clock=Clock(), tls=tls)
    await outbound.open()
    try:
        await outbound.check_connectivity(Endpoint.of(f"https://localhost:{receiver.port}/x"))
        return await outbound.post(Endpoint.of(f"https://localhost:{receiver.port}/x"), b"hello", {})
    finally:
        await outbound.close()


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(certificate):
    async with FakeEndpoint(tls=server_context(certificate)) as receiver:
        with pytest.raises(Transient, match="certificate is not trusted"):
            await posted_over_tls(receiver, Tls())
        outbound = GuardedClient(allow_private=True, clock=Clock())
        await outbound.open()
        with pytest.raises(Transient, match="certificate is not trusted"):
            await outbound.post(Endpoint.of(f"{receiver.url}/x"), b"", {})
        await outbound.close()
        assert receiver.requests == []


async def test_a_certificate_in_ca_file_is_trusted(certificate):
    async with FakeEndpoint(tls=server_context(certificate)) as receiver:
        answer = await posted_over_tls(receiver, Tls(ca_file=certificate / "cert.pem"))
    assert answer.status == 200
    assert receiver.requests[0].body == b"hello"


async def test_client_certificate_is_shown_to_endpoint_on_request(certificate):
    context = server_context(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate / "cert.pem")
    trusted = Tls(certificate / "cert.pem", certificate / "cert.pem", certificate / "key.pem")
    async with FakeEndpoint(tls=context) as receiver:
        assert (await posted_over_tls(receiver, trusted)).status == 200
        with pytest.raises(Transient):
            await posted_over_tls(receiver, Tls(ca_file=certificate / "cert.pem"))


async def test_certificate_files_that_cannot_be_used_are_named(certificate, tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing of that kind")
    for tls, name in ((Tls(ca_file=broken), "ca_file"), (Tls(cert_file=broken), "cert_file")):
        with pytest.raises(Permanent, match=f"{name} .*broken.pem"):
            await GuardedClient(allow_private=True, clock=Clock(), tls=tls).open()


@pytest.fixture
def locked_key(certificate, tmp_path):
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "ec", "-in", certificate / "key.pem", "-aes256", "-passout", "pass:x", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    return locked


async def test_encrypted_key_is_named_without_a_password_prompt(certificate, locked_key):
    tls = Tls(None, certificate / "cert.pem", locked_key)
    with pytest.raises(Permanent, match="without a password"):
        await GuardedClient(allow_private=True, clock=Clock(), tls=tls).open()


async def test_endpoint_without_tls_is_retried(receiver):
    with pytest.raises(Transient):
        await posted_over_tls(receiver, Tls())


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [("https://crm.example.com/hooks/canary?canary=1#canary", "https://crm.example.com"),
     ("https://canary:canary@crm.example.com:8443/", "https://crm.example.com:8443"),
     ("HTTP://CRM.example.com:80", "http://crm.example.com"), ("http://[::1]:8080/canary", "http://[::1]:8080"),
     ("https://xn--bcher-kva.example/canary", "https://bücher.example")],
)  # fmt: skip
def test_of_a_url_only_scheme_host_and_port_are_shown(url, name):
    assert Endpoint.of(url).name == name


@pytest.mark.parametrize(
    "url",
    ["", "canary", "ftp://canary.example.com/", "https://", "https:///canary", "http://[::1", "https://canary:port/"],
)
def test_what_is_no_url_is_refused_without_being_quoted(url):
    with pytest.raises(ValueError, match="is not a URL") as caught:
        Endpoint.of(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [("https://crm.example.com/hooks/canary", "https://crm.example.com/********"),
     ("https://crm.example.com", "https://crm.example.com"),
     ("https://canary@crm.example.com/", "https://crm.example.com/********"),
     ("https://crm.example.com/?t=canary", "https://crm.example.com/********")],
)  # fmt: skip
def test_a_dumped_url_keeps_its_path_to_itself(url, shown):
    adapter = TypeAdapter(SecretUrl)
    assert adapter.dump_python(adapter.validate_python(url)) == shown


async def test_leaving_in_the_middle_gives_the_connection_back(receiver, outbound):
    receiver.answer(silence())
    posting = asyncio.ensure_future(outbound.post(Endpoint.of(receiver.url), b"", {}))
    await receiver.arrived(1)
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting
    assert (await outbound.post(Endpoint.of(receiver.url), b"", {})).status == 200
