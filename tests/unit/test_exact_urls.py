"""URLs byte for byte: what is written is the request line; and links of a provider behind a balancer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from bridge.domain.clock import Clock
from bridge.domain.settings import Secret
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.exact_url import exact_join, exact_url
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.limiter import Limiter
from bridge.testing.sink_suite import outgoing, sample
from bridge_slack.api import IncomingWebhook
from bridge_webhook import WebhookSettings, plugin

TARGETS = [
    "/hook", "/", "/hook?", "/?", "/hook/?", "/a%2Fb", "/a%2fb", "/a%3Ab", "/a:b", "/a%40b", "/a@b", "/a%28b%29", "/a(b)",
    "/a%7Eb", "/a~b", "/a%2Db", "/a%41b", "/a%20b", "/a+b", "/a%2Bb", "/a%25b", "/a%b", "/a%zzb", "/a%", "/a;b=c", "/a,b",
    "/a//b", "//a", "/a/", "/a/./b", "/a/../b", "/a/%2E%2E/b", "/a'b", '/a"b', "/a|b", "/a{b}", "/a[b]", "/a^b", "/a`b", "/a\\b",
    "/a<b>", "/h?a", "/h?a=", "/h?=a", "/h?a=b&", "/h?&a=b", "/h?a=b&a=c", "/h?a=%2F", "/h?a=/", "/h?a=%3A%40%28", "/h?a=?",
    "/h?a=b?c=d", "/h??", "/h?a=%3F", "/h?a+b=c%20d", "/h?a=%2B", "/h?a=b;c=d", "/h?a=b%26c", "/h?a=b%3Dc", "/h?a=%C3%BC",
    "/h?sig=aB%2Fc%3D%3D&se=2024-05-01T12%3A00%3A00Z", "/h?a=%7e", "/h?a=[b]", "/h?a='b'", '/h?a="b"', "/h?a=|",
    "/%C3%BC", "/%u00FC", "/h?%",
]  # fmt: skip


class LineServer:
    """Writes down the first line and the Authorization of each request; answers from `bodies`, then an empty list."""

    def __init__(self, *links: str) -> None:
        self.lines = []
        self.tokens = []
        self.links = list(links)

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            self.lines.append(lines[0].split(" ")[1])
            self.tokens.append([line for line in lines if line.lower().startswith("authorization")])
            link = f'Link: <{self.links.pop(0)}>; rel="next"\r\n'.encode() if self.links else b""
            writer.write(b"HTTP/1.1 200 OK\r\n" + link + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def listening(*links):
    lines = LineServer(*links)
    server = await asyncio.start_server(lines.serve, "127.0.0.1", 0)
    lines.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield lines


@asynccontextmanager
async def asking(url):
    clock = Clock()

    async def headers():
        return {"Authorization": "Bearer a-token"}

    client = HttpClient(url, limiter=Limiter(1000, clock), clock=clock, headers=headers, limits=HttpLimits(retries=0))
    yield client
    await client.close()


async def test_a_webhooks_url_is_the_request_line():
    async with listening() as lines:
        for target in TARGETS:
            settings = {"type": "webhook", "topics": ["#"], "url": f"{lines.url}{target}", "allow_private": True}
            sink = plugin.build("crm", WebhookSettings.model_validate(settings), Clock())
            await sink.open()
            await sink.send(outgoing(sample(1)))
            await sink.close()
        assert lines.lines == TARGETS


async def test_the_url_of_a_slack_webhook_is_the_request_line():
    outbound = GuardedClient(allow_private=True, clock=Clock())
    await outbound.open()
    async with listening() as lines:
        for target in TARGETS:
            await IncomingWebhook(Secret(f"{lines.url}{target}")).post(outbound, {"text": "hello"})
        assert lines.lines == TARGETS
    await outbound.close()


async def test_a_providers_link_is_the_request_line():
    async with listening() as lines, asking(lines.url) as client:
        for target in TARGETS:
            await client.get(f"{lines.url}{target}")
            await client.get(f"https://inner.example{target}")
        assert lines.lines == [target for target in TARGETS for _ in range(2)]


@pytest.mark.parametrize(
    ("text", "target"),
    [("https://h", "/"), ("https://h?a=b", "/?a=b"), ("https://h?", "/?"), ("https://h/a b", "/a%20b"),
     ("https://h/ü?ü", "/%C3%BC?%C3%BC"), ("https://h/a#b?c", "/a"), ("https://h/a?b#c", "/a?b")],
)  # fmt: skip
def test_only_what_no_request_line_can_hold_is_encoded(text, target):
    assert exact_url(text).raw_path_qs == target


@pytest.mark.parametrize(
    ("base", "target", "joined"),
    [("https://h/a/b?c=d", "?page=2", "https://h/a/b?page=2"), ("https://h/a/b", "c?", "https://h/a/c?"),
     ("https://h/a/b", "/c%2Fd?e=%3A", "https://h/c%2Fd?e=%3A"), ("https://h/a/b", "//i/c%40", "https://i/c%40"),
     ("https://h/a/b", "../c", "https://h/c"), ("https://h/a/b", "http://i:81/c%28?%2F", "http://i:81/c%28?%2F")],
)  # fmt: skip
def test_a_link_is_joined_byte_for_byte(base, target, joined):
    assert str(exact_join(URL(base), target)) == joined


@pytest.mark.parametrize("host", ["http://inner.example", "https://inner.example:8443", "http://127.0.0.1:1", "http://localhost",
                                  "//10.0.0.7", "HTTP://INNER.EXAMPLE", "http://name:word@inner.example", "http://[::1]:9"])  # fmt: skip
@pytest.mark.parametrize("base", ["", "/tms"])
async def test_a_link_of_a_provider_behind_a_balancer_is_followed(host, base):
    links = [f"{host}/messages?page=2&after=a%2Fb", f"{host}{base}/messages?page=3", ""]
    async with listening(*links) as lines, asking(f"{lines.url}{base}") as client:
        second = await client.get((await client.get("/messages")).link("next"))
        await client.get(second.link("next"))
    targets = ["/messages", "/messages?page=2&after=a%2Fb", "/messages?page=3"]
    assert lines.lines == [f"{base}{target}" for target in targets]
    assert lines.tokens == [["Authorization: Bearer a-token"]] * 3


async def test_no_token_leaves_the_configured_origin():
    async with listening() as other, listening(f"{other.url}/messages?page=2") as lines, asking(lines.url) as client:
        await client.get((await client.get("/messages")).link("next"))
        assert other.lines == []
        assert lines.lines == ["/messages", "/messages?page=2"]


def test_an_endpoint_names_its_host_alone():
    endpoint = Endpoint.of("https://bücher.example:8443/secret%2Fpath?")
    assert endpoint.name == "https://bücher.example:8443"
    assert endpoint.url.raw_host == "xn--bcher-kva.example"
