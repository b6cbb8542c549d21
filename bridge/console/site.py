"""The console as an application: its routes, its layout, and the stream that keeps a page up to date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from markupsafe import Markup, escape

from bridge import __version__
from bridge.config.model import HttpSettings
from bridge.console import words
from bridge.console.access import COOKIE, HEADERS, Access
from bridge.console.acting import Done, OperatorOrders, Question
from bridge.console.facts import ConsoleFacts
from bridge.console.life_picture import status_tone
from bridge.console.reading import BadQuery, Missing, Shown
from bridge.console.reading import Pages as ReadPages
from bridge.coordination.leases import wait_for_stop
from bridge.domain.errors import BridgeError
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import ServiceParts

log = structlog.get_logger()

LIVE_SECONDS = 2.0
"""Seconds between two looks of a stream."""
_MAX_RENDERED = 200
"""Pages, by what they filter, whose looks are kept for those who watch them."""
MAX_STREAMS = 40
"""Pages that are kept up to date at once; further ones stay as they were loaded."""
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_SIGN_IN = "Sign in"
_STATIC = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}

Page = Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Shown]]


@dataclass(slots=True)
class _Rendered:
    """What a page looked like at a moment, for all who watch it."""

    at: float = float("-inf")
    html: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ConsoleSite:
    """Serves the pages and the read API on the address of the health pages."""

    def __init__(self, assembly: Assembly, parts: ServiceParts, settings: HttpSettings) -> None:
        self._settings = settings
        self._clock = assembly.clock
        self._access = Access(settings, assembly.clock)
        self._facts = ConsoleFacts(assembly, parts, settings)
        self._reading = ReadPages(self._facts)
        self._orders = OperatorOrders(self._facts)
        self._templates = _environment(self._clock.now)
        self._name = assembly.config.namespace or "bridge"
        self._rendered: dict[str, _Rendered] = {}
        self._streams = 0
        self._ended = asyncio.Event()
        self._note_progress: Callable[[web.Request], None] = lambda _: None

    def mount(self, app: web.Application, note_progress: Callable[[web.Request], None]) -> None:
        """Add the routes; see `bridge.web.health_server.FurtherPages`."""
        self._note_progress = note_progress
        router = app.router
        for path, page in self._reading.pages().items():
            router.add_get(path, self._guarded(partial(self._page, page)))
            router.add_get(f"/live{path}", self._guarded(partial(self._stream, page)))
        for path, answer in self._reading.answers().items():
            router.add_get(path, self._guarded(partial(self._answer, answer)))
        if self._settings.console == "act":
            for verb, (ask, do) in self._orders.verbs().items():
                router.add_get(f"/act/{verb}", self._guarded(partial(self._ask, verb, ask)))
                router.add_post(f"/act/{verb}", self._guarded(partial(self._do, verb, do)))
        router.add_post("/session", self._secured(self._sign_in))
        router.add_post("/session/end", self._guarded(self._sign_out))
        router.add_get("/static/{name}", self._secured(_static))

    async def run(self, ended: asyncio.Event) -> None:
        """Count until the process has ended; then the streams end, too."""
        self._ended = ended
        await self._facts.run(ended)

    # guards

    def _secured(self, handler: Handler) -> Handler:
        """Return a handler whose every answer has the headers, and that answers our own address alone."""

        async def secured(request: web.Request) -> web.StreamResponse:
            if not self._access.knows_host(request):
                return _refusal(421, "this address is not one of this machine's own; open the console by 127.0.0.1")
            try:
                response = await handler(request)
            except (BadQuery, Missing) as error:
                status = 400 if isinstance(error, BadQuery) else 404
                response = await self._problem(request, str(error), status)
            except BridgeError as error:
                response = await self._problem(request, str(error), 503)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return secured

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self._access.is_allowed(request):
                return await handler(request)
            if request.path.startswith(("/api/", "/live/")) or request.path == "/live":
                return _json({"error": "a token is needed: Authorization: Bearer TOKEN"}, 401)
            return self._sign_in_page(request, wrong=False)

        return self._secured(guarded)

    async def _problem(self, request: web.Request, reason: str, status: int) -> web.Response:
        if request.path.startswith(("/api/", "/live/")):
            return _json({"error": reason}, status)
        return self._html("problem.html", {"title": "Not shown", "reason": reason}, request, status)

    # signing in

    def _sign_in_page(self, request: web.Request, *, wrong: bool) -> web.Response:
        wanted = request.path_qs if request.method == "GET" else "/"
        return self._html("sign_in.html", {"title": _SIGN_IN, "wrong": wrong, "wanted": wanted}, request, 401)

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if not self._access.may_sign_in(request) or not self._access.is_token(str(form.get("token", "")).strip()):
            log.warning(
                "console.sign_in_refused", consequence="nothing was shown; somebody gave a wrong token"
            )  # fmt: skip
            return self._sign_in_page(request, wrong=True)
        wanted = str(form.get("wanted", "/"))
        response = web.Response(status=303, headers={"Location": wanted if _is_own_path(wanted) else "/"})
        self._access.begin_session(request, response)
        return response

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if not self._access.trusts_form(request, str(form.get("form_key", ""))):
            return _refusal(403, "the form was not sent by a page of this console")
        response = web.Response(status=303, headers={"Location": "/"})
        response.del_cookie(COOKIE, path="/")
        return response

    # pages

    async def _page(self, page: Page, request: web.Request) -> web.StreamResponse:
        shown = await page(request.match_info, request.query)
        live = f"/live{request.path_qs}" if shown.is_live else ""
        context = shown.context | {"title": shown.title, "live": live, "section": shown.section}
        return self._html(shown.template, context, request)

    async def _answer(self, answer: Callable[..., Awaitable[Any]], request: web.Request) -> web.StreamResponse:
        return _json(await answer(request.match_info, request.query), 200)

    def _html(self, template: str, context: Mapping[str, Any], request: web.Request, status: int = 200) -> web.Response:
        shared = {
            "installation": self._name, "version": __version__, "now": self._clock.now(), "live": "", "section": "",
            "form_key": self._access.form_key(request), "needs_token": self._access.needs_token,
            "acts": self._settings.console == "act",
        }  # fmt: skip
        html = self._templates.get_template(template).render(shared | dict(context))
        return web.Response(text=html, status=status, content_type="text/html")

    # orders

    async def _ask(self, verb: str, ask: Callable[..., Awaitable[Question]], request: web.Request) -> web.Response:
        question = await ask(request.query)
        fields = [(name, value) for name, value in request.query.items() if name != "form_key"]
        context = {"title": question.title, "question": question, "done": None, "verb": verb, "fields": fields}
        return self._html("act.html", context, request)

    async def _do(self, verb: str, do: Callable[..., Awaitable[Done]], request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._access.trusts_form(request, form.get("form_key", "")):
            return _refusal(403, "the form was not sent by a page of this console; nothing was done")
        done = await do(form, f"console@{request.remote or 'unknown'}")
        self._facts.forget()
        return self._html("act.html", {"title": "Done", "question": None, "done": done, "verb": verb}, request)

    # streams

    async def _stream(self, page: Page, request: web.Request) -> web.StreamResponse:
        """Send the page's contents whenever they have changed."""
        if self._streams >= MAX_STREAMS:
            return _json({"error": f"{MAX_STREAMS} pages are kept up to date already"}, 503)
        name = request.path_qs
        await self._contents(name, page, request)  # what cannot be shown is answered as such
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        self._streams += 1
        try:
            await response.prepare(request)
            await self._send_changes(name, page, request, response)
        except ConnectionError:
            pass  # the browser has gone
        finally:
            self._streams -= 1
            if not self._streams:
                self._rendered.clear()
        return response

    async def _send_changes(self, name: str, page: Page, request: web.Request, response: web.StreamResponse) -> None:
        sent = ""
        while True:
            try:
                html = await self._contents(name, page, request)
            except BridgeError:
                html = sent  # the page says how old it is
            text = ": nothing new\n\n" if html == sent else f"data: {json.dumps(html)}\n\n"
            sent = html
            await response.write(text.encode())
            self._note_progress(request)
            if await wait_for_stop(self._ended, self._clock, LIVE_SECONDS) or not self._access.is_allowed(request):
                return

    async def _contents(self, name: str, page: Page, request: web.Request) -> str:
        """Return the part of a page that changes, made once for all who watch it."""
        if len(self._rendered) > _MAX_RENDERED:
            self._rendered.clear()
        rendered = self._rendered.setdefault(name, _Rendered())
        async with rendered.lock:
            if self._clock.monotonic() - rendered.at >= LIVE_SECONDS / 2:
                shown = await page(request.match_info, request.query)
                rendered.html = self._block(shown)
                rendered.at = self._clock.monotonic()
            return rendered.html

    def _block(self, shown: Shown) -> str:
        template = self._templates.get_template(shown.template)
        context = template.new_context({
            **shown.context, "now": self._clock.now(), "title": shown.title, "acts": self._settings.console == "act",
        })  # fmt: skip
        return "".join(template.blocks["contents"](context))


def _environment(now: Callable[[], datetime]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bridge.console"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    environment.filters |= {
        "number": words.number, "rate": words.rate, "span": words.span, "short": words.short,
        "ago": lambda text: words.ago(text, now()), "due": lambda text: words.due(text, now()),
        "clock_time": words.clock_time, "full_time": words.full_time,
        "cut": words.cut, "commands": _commands,
        "pretty": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
    }  # fmt: skip
    environment.globals |= {"counted": words.counted, "status_tone": status_tone}
    return environment


def _commands(text: str) -> Markup:
    """Return a text in which what stands between back ticks is code."""
    pieces = str(text).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(piece) if number % 2 else escape(piece)
                           for number, piece in enumerate(pieces))  # fmt: skip


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in _STATIC:
        raise Missing("there is no such file")
    body = (files("bridge.console") / "static" / name).read_bytes()
    return web.Response(body=body, content_type=_STATIC[name], charset="utf-8")


def _is_own_path(path: str) -> bool:
    return path.startswith("/") and not path.startswith(("//", "/\\"))


def _refusal(status: int, reason: str) -> web.Response:
    return web.Response(text=f"{reason}\n", status=status, headers=HEADERS)


def _json(value: Any, status: int) -> web.Response:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return web.Response(text=text, status=status, content_type="application/json", headers=HEADERS)
