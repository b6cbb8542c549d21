"""Who may see the console: a token, a session, and forms of its own pages alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.console import TOKEN, console

from bridge.config.loading import load
from bridge.domain.errors import ConfigError

PATHS = (
    "/", "/events", "/events/city:1", "/resources?of=city:1", "/books?of=city:1", "/sinks", "/sinks/crm", "/sources", "/live/",
    "/api/overview", "/api/sources", "/api/sinks", "/api/sinks/crm/deliveries", "/api/events", "/api/events/city:1",
    "/api/resources?of=city:1", "/live/events", "/live/sinks/crm",
)  # fmt: skip
SOURCES = "{city: {type: govdelivery, url: 'https://tms.example', token: canary, channels: [sms]}}"
FACTS = ("city", "crm", "sms", "recipient", "503", "sqlite")


async def test_without_the_token_nothing_is_shown(tmp_path: Path) -> None:
    async with console(tmp_path, token=TOKEN) as browser:
        wrong = (
            {},
            {"Authorization": "Bearer wrong"},
            {"Cookie": "bridge_console=99999999999.0"},
            {"Cookie": "bridge_console=x"},
        )
        for path in PATHS:
            for headers in wrong:
                status, text = await browser.get(path, **headers)
                assert status == 401, path
                assert not [fact for fact in FACTS if fact in text.replace(path, "")], (path, text)
        status, text = await browser.post("/session", {"token": "wrong-wrong-wrong-wrong"})
        assert (status, "That is not the token" in text) == (401, True)
        assert (await browser.get("/livez"))[0] == 200


async def test_token_opens_the_console_for_programs_and_browsers(tmp_path: Path) -> None:
    async with console(tmp_path, token=TOKEN) as browser:
        assert (await browser.get("/api/overview", Authorization=f"Bearer {TOKEN}"))[0] == 200
        form = {"token": TOKEN, "wanted": "/sinks?x=1"}
        assert (await browser.post("/session", form))[0] == 303
        assert browser.headers["Location"] == "/sinks?x=1"
        cookie = browser.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
        assert TOKEN not in cookie
        status, page = await browser.get("/sinks")
        assert status == 200
        key = page.partition('name="form_key" value="')[2].partition('"')[0]
        assert (await browser.post("/session/end", {"form_key": "wrong"}))[0] == 403
        assert (await browser.post("/session/end", {"form_key": key}, Origin="http://elsewhere.example"))[0] == 403
        assert (await browser.post("/session/end", {"form_key": key}))[0] == 303
        assert (await browser.get("/sinks"))[0] == 401


@pytest.mark.parametrize("wanted", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example"])
async def test_signing_in_leads_to_no_other_site(tmp_path: Path, wanted: str) -> None:
    async with console(tmp_path, full=False, token=TOKEN) as browser:
        await browser.post("/session", {"token": TOKEN, "wanted": wanted})
        assert browser.headers["Location"] == "/"
        elsewhere = {"Origin": "http://elsewhere.example"}
        assert (await browser.post("/session", {"token": TOKEN}, **elsewhere))[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", 200), ("localhost", 200), ("[::1]:8080", 200), ("evil.example:8080", 421), ("10.0.0.1", 421)],
)
async def test_without_a_token_only_this_machine_is_answered(tmp_path: Path, host: str, status: int) -> None:
    async with console(tmp_path) as browser:
        assert (await browser.get("/", Host=host))[0] == status
        assert (await browser.get("/api/events", Host=host))[0] == status


async def test_every_answer_forbids_other_hosts_and_inline_code(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        for path in ("/", "/sinks/crm", "/api/overview", "/static/console.js", "/events/city:99", "/events?topic=A"):
            _, text = await browser.get(path)
            policy = browser.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert browser.headers["X-Content-Type-Options"] == "nosniff"
            assert "style=" not in text
            assert "<script>" not in text
            assert "onclick" not in text


@pytest.mark.parametrize(
    ("http", "problem"),
    [
        ("{listen: ':8080', console: read}", "http.console: :8080 is no loopback address"),
        ("{listen: 'box.example:8080', console: act}", "is no loopback address"),
        ("{console: read, token: short}", "http.token: has fewer than 16 characters"),
        ("{console: write}", "http.console"),
    ],
)
def test_unguarded_console_is_refused(tmp_path: Path, http: str, problem: str) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(f"http: {http}\nsources: {SOURCES}\n")
    with pytest.raises(ConfigError) as error:
        load(file)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "http", ["{listen: ':8080', console: off}", "{listen: '[::1]:8080', console: read}", "{listen: null, console: read}",
             "{listen: ':8080', console: act, token: abcdefghijklmnop}", "{listen: 'localhost:1', console: read}"],
)  # fmt: skip
def test_guarded_console_is_accepted(tmp_path: Path, http: str) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(f"http: {http}\nsources: {SOURCES}\n")
    assert load(file).http.console in {"off", "read", "act"}
