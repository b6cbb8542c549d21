"""Takes pictures of the console, on a good day and a bad one: `python docs/console_pictures.py FOLDER [--docs]`.

Every page is taken at 1280 and at 390 pixels, light and dark. With `--docs`, the pictures of the pages are written
anew. It needs Chromium.
"""

# ruff: noqa: INP001 - a script next to the pages, and no package

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from playwright.async_api import Browser, async_playwright

from bridge.cli.commands.run import console_of
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.observability.logging import configure_logging
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, demo_settings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port

HOW_TO = Path(__file__).parent / "how-to"
SHOWN = {"now": (1280, "light"), "sink": (1280, "light"), "life": (1280, "dark")}
"""What the pages show."""
SIZES = {1280: 800, 390: 844}
WARM_UP_SECONDS = 75.0
SETTLE_MILLISECONDS = 900
REFUSAL = '{"error": "unknown contact"}'


def configuration(folder: Path, origins: dict[str, str], endpoint: str, port: int) -> Path:
    """Write a configuration: three sources and a fourth that is unreachable, and sinks of all states."""
    settings = demo_settings(seed=7)
    polled = sources(origins, settings, interval="1s")
    dead = {**polled["drops"], "url": f"http://127.0.0.1:{free_port()}", "stall_after": "5s"}
    hook = {"type": "webhook", "allow_private": True, "retry": ["5s", "60s", "600s"]}
    chosen = {"not": {"exact": {"data.transition": "first"}}}
    values = {
        "state": str(folder / "state"),
        "http": {"listen": f"127.0.0.1:{port}", "console": "act"},
        "sources": {**polled, "drops-east": dead},
        "sinks": {
            "archive": {"type": "archive", "path": str(folder / "events"), "topics": ["#"]},
            "crm": {**hook, "url": f"{endpoint}/crm", "topics": ["*.recipient.#", "voicemail.#"], "where": chosen},
            "ops-desk": {**hook, "url": f"http://127.0.0.1:{free_port()}/", "topics": ["*.recipient.failed.#"]},
        },
    }
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def some_fail() -> Any:
    """Return an endpoint's manner: most events are accepted, some never, some not yet."""
    answers = itertools.cycle([200, 200, 422, 200, 200, 503, 200, 200, 200])

    async def step(_: web.BaseRequest) -> web.StreamResponse:
        status = next(answers)
        return web.Response(status=status, text=REFUSAL if status >= web.HTTPBadRequest.status_code else "")

    return step


async def main(folder: Path) -> None:
    """Run a service for a while, then take the pictures."""
    configure_logging("error", "console")
    with tempfile.TemporaryDirectory(prefix="bridge-") as state:
        async with Simulator(demo_settings(seed=7)) as simulator, FakeEndpoint(default=some_fail()) as endpoint:
            port = free_port()
            config = load(configuration(Path(state), simulator.urls, endpoint.url, port))
            assembly = Assembly(config, Clock())
            parts = build(assembly)
            service = Service(parts, assembly.clock, console=console_of(config, parts, assembly.clock))
            stop = asyncio.Event()
            serving = asyncio.ensure_future(service.run(stop, listen=("127.0.0.1", port)))
            await asyncio.sleep(WARM_UP_SECONDS)
            await take(f"http://127.0.0.1:{port}", folder)
            stop.set()
            await serving
    if "--docs" in sys.argv:
        for name, (width, scheme) in SHOWN.items():
            shutil.copy(folder / f"{name}-{width}-{scheme}.png", HOW_TO / f"console-{name}.png")


async def take(origin: str, folder: Path) -> None:
    """Take a picture of each page in each size and scheme."""
    events = await asyncio.to_thread(answer, f"{origin}/api/events?topic=*.recipient.failed.%23")
    position = events["events"][-1]["position"]
    paths = {
        "now": "/", "sources": "/sources", "sinks": "/sinks", "sink": "/sinks/crm?state=dead", "events": "/events",
        "event": f"/events/{position}", "life": f"/resources?of={position}", "books": f"/books?of={position}",
        "act": "/act/discard?sink=crm&state=dead",
    }  # fmt: skip
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--hide-scrollbars"]
        )
        for width, scheme in itertools.product(SIZES, ("light", "dark")):
            await pictures(chromium, origin, paths, folder, width, scheme)
        await chromium.close()


async def pictures(
    chromium: Browser, origin: str, paths: dict[str, str], folder: Path, width: int, scheme: Any
) -> None:
    """Take one picture of each page."""
    context = await chromium.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme)
    page = await context.new_page()
    for name, path in paths.items():
        await page.goto(origin + path)
        await page.wait_for_timeout(SETTLE_MILLISECONDS)
        await page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=name in {"now", "sources"})
    await context.close()


def answer(url: str) -> Any:
    """Return an answer of the read API."""
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own address
        return json.load(response)


if __name__ == "__main__":
    pictures_folder = Path(sys.argv[1])
    pictures_folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(pictures_folder))
