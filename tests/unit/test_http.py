"""The polite client: what it asks, what it never does, and how it says what went wrong."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain import errors
from bridge.domain.clock import Clock
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import CrossOriginLink, NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.http.limiter import Limiter, account_key, shared_limiter
from bridge.http.tls import Tls
from bridge.testing.fakes import ManualTime

TOKEN = "s3cr3t-t0ken"
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


@dataclass
class Far:
    """A provider of which each test says what it answers."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.answer is not None
        return await self.answer(request)

    def says(self, *responses: web.Response | Callable[[], web.Response], **options) -> None:
        """Answer one after the other, the last one for ever."""
        left = list(responses) or [lambda: web.Response(**options)]

        async def answer(_: web.Request) -> web.StreamResponse:
            now = left.pop(0) if len(left) > 1 else left[0]
            return now() if callable(now) else now

        self.answer = answer


@asynccontextmanager
async def serving() -> AsyncIterator[Far]:
    far = Far()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    async with TestServer(app) as server:
        far.url = str(server.make_url("/"))
        yield far


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


async def refused(
    client: HttpClient, target: str = "/messages/sms/1?phone=%2B16515551000", **options
) -> errors.BridgeError:
    with pytest.raises(errors.BridgeError) as caught:
        await client.get(target, **options)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "6515551000" not in str(error)
    assert TOKEN not in str(error)
    assert "\n" not in str(error)
    return error


async def test_response_has_request_time_and_arrival_time(far, time, open_client):
    far.says(text='{"a": 1}', headers={"X-One": "two"})
    answer = await open_client().get("/messages/sms", {"page_size": 100, "$x": "+1"})
    assert (answer.status, answer.json(), answer.headers["x-one"], answer.unchanged) == (200, {"a": 1}, "two", False)
    assert answer.asked == answer.at == NOW + timedelta(seconds=time.seconds)
    assert far.requests[0].query == {"page_size": "100", "$x": "+1"}
    assert far.requests[0].headers["X-AUTH-TOKEN"] == TOKEN
    assert far.requests[0].headers["User-Agent"].startswith("bridge/")
    assert TOKEN not in repr(answer)
    assert '"a"' not in repr(answer)


async def test_credentials_are_asked_for_each_try_so_that_they_rotate(far, time):
    tokens = itertools.count()

    async def headers():
        return {"Authorization": f"Bearer {next(tokens)}"}

    client = HttpClient(far.url, limiter=Limiter(1000, time.clock), clock=time.clock, headers=headers)
    far.says(lambda: web.Response(status=503), lambda: web.Response(text="{}"))
    await client.get("/")
    assert [request.headers["Authorization"] for request in far.requests] == ["Bearer 0", "Bearer 1"]
    await client.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (202, errors.NotReady),
        (301, RequestRejected),
        (302, RequestRejected),
        (304, ProviderError),
        (307, RequestRejected),
        (400, RequestRejected),
        (401, errors.Unauthorized),
        (403, errors.Unauthorized),
        (404, NotFound),
        (408, ProviderError),
        (410, NotFound),
        (413, RequestRejected),
        (418, RequestRejected),
        (425, ProviderError),
        (429, Throttled),
        (500, ProviderError),
        (501, ProviderError),
        (502, ProviderError),
        (599, ProviderError),
    ],
)
async def test_each_status_becomes_the_error_that_says_what_to_do(far, open_client, status, kind):
    far.says(
        lambda: web.Response(
            status=status,
            text='{"error": "no such phone +16515551000", "errorcode": 50100}',
            headers={"Location": "https://elsewhere.example/?token=1"} if 300 <= status < 400 else {},
        )
    )
    error = await refused(open_client())
    assert type(error) is kind
    code = None if status in {202, 304} else "50100"  # the one says nothing of a fault, the other has no body
    if kind is not errors.NotReady:
        assert str(error).startswith(f"GET /messages/sms/1: {status}{' (code 50100)' if code else ''}, ")
    if isinstance(error, RequestRejected | ProviderError):
        assert (error.status, error.code) == (status, code)
    assert "elsewhere" not in str(error)
    assert all(request.path == "/messages/sms/1" for request in far.requests)


@pytest.mark.parametrize("status", [200, 201, 204, 206])
async def test_every_other_success_is_an_answer(far, open_client, status):
    far.says(lambda: web.Response(status=status))
    assert (await open_client().get("/")).status == status


async def test_202_is_an_answer_for_those_who_want_it(far, open_client):
    far.says(status=202, text="[]")
    assert (await open_client().get("/", ready_only=False)).status == 202


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("999999", 3600.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 3600.0),
        ("Wed, 01 May 2024 12:00:10", 10.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [202, 429, 503])
async def test_retry_after_is_read_as_seconds_and_date(far, open_client, status, value, seconds):
    headers = {"Date": format_datetime(NOW, usegmt=True), "Retry-After": value}
    far.says(lambda: web.Response(status=status, headers=headers))
    error = await refused(open_client())
    assert isinstance(error, errors.Transient)
    assert error.retry_after == (seconds if seconds is None else pytest.approx(seconds, abs=0.5))


async def test_nothing_is_asked_before_retry_after_ends(far, time, open_client):
    far.says(lambda: web.Response(status=429, headers={"Retry-After": "60"}), lambda: web.Response(text="{}"))
    client = open_client()
    await refused(client)
    error = await refused(client)
    assert isinstance(error, Throttled)
    assert error.retry_after == pytest.approx(60, abs=0.1)
    assert len(far.requests) == 1
    time.seconds += 57
    await client.get("/")
    assert len(far.requests) == 2
    assert time.seconds == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateway_error_is_retried_at_once_a_few_times(far, time, open_client, status):
    far.says(lambda: web.Response(status=status), lambda: web.Response(status=status), lambda: web.Response(text="{}"))
    assert (await open_client().get("/")).status == 200
    far.requests.clear()
    far.says(lambda: web.Response(status=status))
    await refused(open_client())
    assert len(far.requests) == 3
    assert max(time.slept) < 1.5


async def test_gateway_error_with_retry_after_is_not_retried_at_once(far, open_client):
    far.says(lambda: web.Response(status=503, headers={"Retry-After": "1"}))
    await refused(open_client())
    assert len(far.requests) == 1


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (b"<!DOCTYPE html><p>+16515551000", "HTML"),
        (b"  \n<html>", "HTML"),
        (b'[{"phone": "+16515551000", ', "torn JSON"),
        (b"[" * 300, "torn JSON"),
        (b"", "nothing"),
        (b" \r\n", "nothing"),
        (b"\xff\xfe\x00", "torn JSON"),
    ],
)
async def test_non_json_answer_is_named_and_not_quoted(far, open_client, body, shape):
    far.says(body=body)
    answer = await open_client().get("/messages/sms")
    with pytest.raises(ProviderError, match=f"^GET /messages/sms: the provider answered {shape} instead of JSON$"):
        answer.json()


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1/",
        "http://[::1/",
        "http://127.0.0.1:99999999/",
        "javascript:alert(1)",
    ],
)
async def test_credentials_never_follow_a_link_to_another_place(far, open_client, target):
    assert isinstance(await refused(open_client(), target), CrossOriginLink)
    assert far.requests == []


async def test_a_name_before_a_links_host_is_no_login(far, open_client):
    far.says(text="{}")
    client = open_client()
    host = far.url.removeprefix("http://")
    await client.get(f"http://somebody:else@{host}messages")
    await client.get(f"http://{host.rstrip('/')}@127.0.0.1:1/messages")
    assert [request.path_qs for request in far.requests] == ["/messages"] * 2
    assert all("Authorization" not in request.headers for request in far.requests)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/messages/sms?page=2", "/tms/messages/sms?page=2"),
        ("/tms/messages/sms", "/tms/messages/sms"),
        ("messages/sms", "/tms/messages/sms"),
        ("/", "/tms/"),
        ("/tmsx", "/tms/tmsx"),
        ("/tms", "/tms"),
        ("{url}messages/sms", "/tms/messages/sms"),
        ("{url}tms/messages/sms", "/tms/messages/sms"),
        ("{url}messages/sms%2F1?a=%2F", "/tms/messages/sms%2F1?a=%2F"),
    ],
)
async def test_a_path_in_the_configured_address_stands_before_every_path(far, open_client, target, path):
    far.says(text="{}")
    await open_client(f"{far.url}tms/").get(target.format(url=far.url))
    assert far.requests[0].raw_path == path


async def test_link_without_configured_path_leads_to_next_page(far, open_client):
    far.says(text="[]", headers={"Link": '</messages/sms?page=2>; rel="next"'})
    client = open_client(f"{far.url}tms")
    await client.get((await client.get("/messages/sms")).link("next"))
    assert far.requests[1].path_qs == "/tms/messages/sms?page=2"


async def test_the_next_page_is_found_however_its_link_is_written(far, open_client):
    far.says(
        lambda: web.Response(headers={"Link": '<?page=2>; rel="next"'}),
        lambda: web.Response(headers={"Link": f'<{far.url}messages/sms/page/3>;rel=next,< /a>; rel="last", '}),
        lambda: web.Response(headers={"Link": ""}),
    )
    client = open_client()
    first = await client.get("/messages/sms?page_size=1")
    second = await client.get(first.link("next"))
    third = await client.get(second.link("next"))
    assert second.link("last") == f"{far.url}a"
    assert third.link("next") is None
    assert [request.path_qs for request in far.requests] == [
        "/messages/sms?page_size=1",
        "/messages/sms?page=2",
        "/messages/sms/page/3",
    ]


async def test_unreadable_link_is_an_error_not_the_end(far, open_client):
    far.says(headers={"Link": '<http://[::1>; rel="next"'})
    answer = await open_client().get("/x")
    with pytest.raises(ProviderError, match="the link 'next' cannot be read"):
        answer.link("next")


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_without_end_is_cut_off(far, open_client, announced):
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced:
            response.content_length = 1 << 40
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    far.answer = endless
    error = await refused(open_client(limits=HttpLimits(body=1024 * 1024)))
    assert isinstance(error, TooLarge)
    assert str(error) == "GET /messages/sms/1: the answer is larger than 1 MiB; ask for less at once"


async def test_compression_bomb_is_cut_off(far, open_client):
    far.says(body=gzip.compress(bytes(4 << 20)), headers={"Content-Encoding": "gzip"})
    assert isinstance(await refused(open_client(limits=HttpLimits(body=1 << 20))), TooLarge)


async def raw_server(handle):
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_connection_that_was_closed_while_idle_is_replaced_unseen(time, open_client):
    requests = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n[]")
        await writer.drain()
        await reader.read(1)  # the second request meets a reset
        writer.transport.abort()

    server, url = await raw_server(once)
    async with server:
        client = open_client(url)
        assert (await client.get("/")).json() == []
        assert (await client.get("/")).json() == []
        await client.close()
    assert len(requests) == 2


async def test_an_answer_that_breaks_off_half_way_is_no_answer(time, open_client):
    tries = []

    async def torn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1,2,3]")
        writer.close()

    server, url = await raw_server(torn)
    async with server:
        error = await refused(open_client(url))
    assert "broke before the answer was complete" in str(error)
    assert len(tries) == 3


async def test_noise_on_the_line_is_an_error_of_the_provider(open_client):
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"this is not HTTP\r\n\r\n")
        writer.close()

    server, url = await raw_server(noise)
    async with server:
        assert "not HTTP" in str(await refused(open_client(url)))


async def test_a_provider_that_never_answers_is_given_up_in_time(open_client):
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server, url = await raw_server(mute)
    async with server:
        client = open_client(url, limits=HttpLimits(read=0.05))
        error = await refused(client)
        await client.close()
    assert isinstance(error, ProviderError)
    assert error.timed_out


async def test_a_closed_door_is_said_so(open_client):
    error = await refused(open_client(f"http://127.0.0.1:{unused_port()}"))
    assert str(error) == "GET /messages/sms/1: cannot connect to the provider"


async def test_a_name_that_nobody_knows_is_said_so(open_client):
    assert "cannot be resolved" in str(await refused(open_client("http://provider.invalid")))


async def test_token_with_line_break_is_reported_without_it(far, time):
    async def headers():
        return {"X-AUTH-TOKEN": f"{TOKEN}\r\nX: y"}

    client = HttpClient(far.url, limiter=Limiter(1000, time.clock), clock=time.clock, headers=headers)
    assert isinstance(await refused(client), errors.Permanent)
    await client.close()


async def test_own_defect_is_not_reported_as_the_providers(far, open_client):
    with pytest.raises(TypeError):
        await open_client().post_json("/v2/token", object())


async def test_json_can_be_sent(far, open_client):
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"method": request.method, "got": await request.json()})

    far.answer = echo
    answer = await open_client().post_json("/v2/token", {"grant_type": "client_credentials"})
    assert answer.json() == {"method": "POST", "got": {"grant_type": "client_credentials"}}


async def test_unmodified_page_is_not_resent_but_still_read(far, time, open_client):
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"1"':
            assert request.headers["If-Modified-Since"] == "Wed, 01 May 2024 12:00:00 GMT"
            return web.Response(status=304)
        return web.Response(
            text="[1]",
            headers={"ETag": '"1"', "Last-Modified": "Wed, 01 May 2024 12:00:00 GMT", "Link": "<?p=2>;rel=next"},
        )

    far.answer = answer
    client = open_client()
    first = await client.get("/a")
    time.seconds += 60
    second = await client.get("/a")
    other = await client.get("/b")
    assert [first.unchanged, second.unchanged, other.unchanged] == [False, True, False]
    assert second.json() == [1]
    assert second.link("next") == first.link("next")
    assert second.at - first.at == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=1))


@pytest.mark.parametrize(
    "body", [b'[{"id": 9, "sta', b"<html>", b"", b'{"error": "later"}'], ids=["torn", "html", "nothing", "shape"]
)
async def test_unusable_answer_is_requested_whole_next_time(far, open_client, body):
    bodies = [body, b"[1]"]

    async def answer(request):
        if "If-None-Match" in request.headers:
            return web.Response(status=304)
        return web.Response(body=bodies.pop(0), headers={"ETag": '"7"'})

    far.answer = answer
    client = open_client()
    first = await client.get("/a")
    with pytest.raises(ProviderError, match=r"GET /a: "):
        raise first.refused(f"{first.json()} is no list")
    assert (await client.get("/a")).json() == [1]
    first.forget()
    assert (await client.get("/a")).unchanged


async def test_a_client_without_a_memory_makes_no_conditional_request(far, open_client):
    far.says(lambda: web.Response(body=b"", headers={"ETag": '"1"'}))
    client = open_client(limits=HttpLimits(memory=0))
    for _ in range(2):
        await client.get("/a")
    assert not any("If-None-Match" in request.headers for request in far.requests)


async def test_unmodified_page_has_current_time_and_links(far, open_client):
    far.says(
        web.Response(
            text="[1]", headers={"ETag": '"1"', "Date": "Wed, 01 May 2024 12:00:00 GMT", "Link": "</2>;rel=next"}
        ),
        web.Response(status=304, headers={"Date": "Wed, 01 May 2024 12:05:00 GMT"}),
        web.Response(status=304, headers={"Date": "Wed, 01 May 2024 12:06:00 GMT", "Link": "</3>;rel=next"}),
    )
    client = open_client()
    _, second, third = [await client.get("/a") for _ in range(3)]
    assert (second.headers["Date"], second.link("next")) == ("Wed, 01 May 2024 12:05:00 GMT", f"{far.url}2")
    assert (third.headers["Date"], third.link("next")) == ("Wed, 01 May 2024 12:06:00 GMT", f"{far.url}3")
    assert third.json() == [1]


async def test_second_change_within_one_second_is_noticed(far, open_client):
    modified = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    body, date = ["first"], [modified]

    async def answer(request: web.Request) -> web.Response:
        headers = {
            name: format_datetime(when, usegmt=True) for name, when in (("Date", date[0]), ("Last-Modified", modified))
        }
        if request.headers.get("If-Modified-Since") == headers["Last-Modified"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body[0], headers=headers)

    far.answer = answer
    client = open_client()
    assert (await client.get("/a")).body == b"first"
    body[0] = "second"
    date[0] += timedelta(seconds=60)
    assert (await client.get("/a")).body == b"second"
    again = await client.get("/a")
    assert (again.body, again.unchanged) == (b"second", True)


async def test_what_is_remembered_is_bounded_in_bytes(far, open_client):
    far.says(lambda: web.Response(body=b"x" * 100, headers={"ETag": '"1"'}))
    client = open_client(limits=HttpLimits(memory=400))
    for page in (1, 2, 3, 4, 1, 5, 1, 2):
        await client.get(f"/{page}")
    conditional = ["If-None-Match" in request.headers for request in far.requests]
    assert conditional == [False, False, False, False, True, False, True, False]
    far.says(lambda: web.Response(body=b"x" * 101, headers={"ETag": '"2"'}))
    await client.get("/2")
    await client.get("/2")
    assert ["If-None-Match" in request.headers for request in far.requests[-2:]] == [True, False]


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


# --- the budget -------------------------------------------------------------------------------------------------------


def most_in(starts: list[float], window: float) -> int:
    return max(sum(start <= other < start + window for other in starts) for start in starts)


@given(
    rate=st.one_of(st.integers(1, 300).map(float), st.floats(0.05, 60)),
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    pauses=st.dictionaries(st.integers(0, 59), st.floats(0, 4), max_size=5),
)
def test_in_no_second_is_more_started_than_the_budget_allows(rate, waits, pauses):
    async def run() -> None:
        time = ManualTime(NOW)
        limiter = Limiter(rate, time.clock)
        starts: list[float] = []
        for number, wait in enumerate(waits):
            quiet_until = 0.0
            if number in pauses:
                limiter.pause(pauses[number])
                quiet_until = time.seconds + pauses[number]
            await limiter.start()
            assert time.seconds >= quiet_until
            starts.append(time.seconds)
            time.seconds += wait if wait > 1 else 0.0
        whole = float(rate).is_integer()
        assert most_in(starts, 1.0) <= (rate if whole else int(rate) + 1)
        if rate < 1:
            assert most_in(starts, 1 / rate - 1e-9) == 1

    asyncio.run(run())


@pytest.mark.parametrize("rate", [4.0, 500.0])
async def test_budget_is_fully_used_when_enough_is_waiting(time, rate):
    limiter = Limiter(rate, time.clock)
    count = int(rate * 5)
    for _ in range(count):
        await limiter.start()
    assert time.seconds == pytest.approx(5, rel=0.25)


async def test_who_asks_first_starts_first(time):
    limiter = Limiter(4.0, time.clock)
    order: list[int] = []

    async def one(number: int) -> None:
        await limiter.start()
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))


async def test_one_who_gave_up_waiting_costs_the_others_nothing(time):
    limiter = Limiter(1.0, Clock())
    await limiter.start()
    waiting = asyncio.create_task(limiter.start())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not limiter._queue.locked()


async def test_account_shares_the_lowest_budget_among_its_sources(time):
    key = account_key("https://tms.govdelivery.com/", TOKEN)
    limiter = shared_limiter(key, 4.0, time.clock)
    assert TOKEN not in key
    assert account_key("https://TMS.govdelivery.com:443", TOKEN) == key
    assert account_key("https://tms.govdelivery.com", "another") != key
    assert shared_limiter(key, 2.0, time.clock) is limiter
    assert shared_limiter(key, 8.0, time.clock) is limiter
    assert limiter.rate == 2.0
    assert shared_limiter("other", 2.0, time.clock) is not limiter


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_of_nothing_is_refused(rate):
    with pytest.raises(ValueError, match="above 0"):
        Limiter(rate, Clock())
