"""The console in a real browser: every page and control, on a normal day and on a bad one, for everybody."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from rigs.console import CANARIES, KEY, PHONE, TOKEN, console

pytestmark = pytest.mark.acceptance

CHROMIUM = shutil.which("chromium") or "/Applications/Chromium.app/Contents/MacOS/Chromium"
PHONE_SIZE, SCREEN_SIZE = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
SHOWN = ".violations.map(({id, nodes}) => [id, nodes.slice(0, 3).map((node) => node.html)])"
AXE = f"async () => (await axe.run()){SHOWN}"
CONTRAST = f"async () => (await axe.run({{runOnly: ['color-contrast']}})){SHOWN}"


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@asynccontextmanager
async def page_of(chromium: Browser, origin: str, size: dict[str, int], scheme: str) -> AsyncIterator[Page]:
    """Give a page that may ask nobody but `origin`, and whose console stays silent."""
    context = await chromium.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]  # both fit
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(origin) else said.append(request.url))
    yield page
    await context.close()
    assert said == []


async def check(page: Page, axe: str) -> None:
    """Find nothing wrong with a page: by axe-core, in its width, and no canary."""
    await page.evaluate(axe)
    assert await page.evaluate(AXE) == [], page.url
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    text = await page.content()
    assert not [canary for canary in CANARIES if canary in text], page.url


@pytest.fixture(scope="module")
def axe(node_modules: Path) -> str:
    return (node_modules / "axe-core" / "axe.min.js").read_text()


async def test_a_normal_day_of_the_demo(axe: str) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "demo", "--seed", "7", stdout=asyncio.subprocess.PIPE, env=environ
    )
    try:
        assert demo.stdout is not None
        first = (await asyncio.wait_for(demo.stdout.readline(), 120)).decode()
        assert first.startswith("Console at http://127.0.0.1:"), first
        origin = first.split()[2].rstrip("/")
        drained = asyncio.ensure_future(demo.stdout.read())
        async with browser() as chromium, page_of(chromium, origin, SCREEN_SIZE, "light") as page:
            for _ in range(200):
                if await asyncio.to_thread(_answers, origin):
                    break
                await asyncio.sleep(0.1)
            await page.goto(f"{origin}/")
            await expect(page.get_by_role("heading", level=1)).to_have_text("All is well", timeout=60_000)
            await expect(page.locator("svg.road.wide a")).to_have_count(5)  # three sources, the journal, one sink
            await check(page, axe)
            await page.get_by_role("link", name="Events", exact=True).click()
            newest = page.locator("tbody tr").first
            before = await newest.get_attribute("data-key")
            await expect(newest).not_to_have_attribute("data-key", before or "", timeout=60_000)  # new ones come
            pause = page.get_by_role("button", name="Live")
            await pause.click()
            await expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
            held = await newest.get_attribute("data-key")
            await page.get_by_label("Topics").fill("voice.recipient.#")
            assert await newest.get_attribute("data-key") == held
            await page.get_by_role("button", name="Filter").click()
            await expect(page.locator("tbody th a").first).to_contain_text("voice.recipient.")
            await page.locator("tbody th a").first.click()
            await expect(page.get_by_text("the broker holds it")).to_be_visible()
            await page.get_by_role("link", name="The resource's life").click()
            await expect(page.locator("svg.life a").first).to_be_visible()
            await check(page, axe)
            await page.get_by_role("link", name="Sources", exact=True).click()
            await expect(page.get_by_text("Budget:").first).to_be_visible()
            await check(page, axe)
            await page.get_by_role("link", name="Pause city").click()
            await page.get_by_label("Why").fill("maintenance")
            await page.get_by_role("button", name="Pause it").click()
            await expect(page.get_by_role("status").first).to_have_text("It is paused.")
            await page.get_by_role("link", name="Back").click()
            await expect(page.get_by_text("maintenance")).to_be_visible()
            await page.get_by_role("link", name="Resume city").click()
            await page.get_by_role("button", name="Resume it").click()
            await expect(page.get_by_text("It works again.")).to_be_visible()
    finally:
        demo.send_signal(signal.SIGINT)
        await asyncio.wait_for(demo.wait(), 120)
    await drained


def _answers(origin: str) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"{origin}/livez", timeout=5) as response:  # noqa: S310 - our own address
            return response.status == 200
    except OSError:
        return False


async def test_a_bad_day_on_a_phone_behind_a_token(axe: str, tmp_path: Path) -> None:
    async with console(tmp_path, console="act", token=TOKEN) as site, browser() as chromium:
        context = await chromium.new_context(viewport=PHONE_SIZE, color_scheme="dark")
        page = await context.new_page()
        await page.goto(f"{site.origin}/sinks/crm")
        await check(page, axe)
        await page.get_by_label("The console's token").fill("not-the-token-at-all")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        await page.get_by_label("The console's token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{site.origin}/")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("things are wrong")
        await expect(page.locator("svg.road.narrow .box.bad").first).to_be_visible()
        for path in ("/", "/events", "/events/city:2", "/resources", "/resources?of=city:2", "/sinks", "/sinks/crm",
                     "/sources", "/events/city:99", "/act/discard?sink=crm&state=dead"):  # fmt: skip
            await page.goto(site.origin + path)
            await check(page, axe)
            await page.emulate_media(color_scheme="light")
            assert await page.evaluate(CONTRAST) == [], path
            await page.emulate_media(color_scheme="dark")
        await page.goto(f"{site.origin}/sinks")
        await page.get_by_role("link", name="422").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("tbody")).to_contain_text("…0143")
        await page.get_by_role("link", name="Discard…").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Discard 1 delivery?")
        await page.get_by_role("link", name="Cancel").click()
        await page.get_by_role("link", name="Redrive city:2").click()
        await page.get_by_role("button", name="Redrive").click()
        await expect(page.get_by_text("1 delivery due again.")).to_be_visible()
        # By the keyboard alone: past the navigation, into the contents.
        await page.goto(f"{site.origin}/events")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the contents")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Topics")).to_be_focused()
        await page.get_by_label("Key").fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(re.compile(f"key={KEY}"))  # the page before it has seven rows, too
        await expect(page.locator("tbody tr")).to_have_count(7)
        await page.get_by_label("Key").fill(PHONE[1:7])
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("No such event is kept.")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("The console's token")).to_be_visible()
        await context.close()
