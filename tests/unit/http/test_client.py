"""The polite client: what it asks, what it never does, and how it says what went wrong."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from datetime import timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from rigs.http import NOW, TOKEN, refused

from bridge.domain import errors
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import CrossOriginLink, NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.http.limiter import Limiter


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
