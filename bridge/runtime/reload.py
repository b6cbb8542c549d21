"""Reads the configuration again while the process works, and has it follow: a bad file changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from bridge.config.difference import ConfigDifference
from bridge.config.file_identity import FileIdentity
from bridge.domain.errors import BridgeError, ConfigError, Unavailable
from bridge.domain.retry import RECONNECT, Backoff
from bridge.ingest.poller import describe_unexpected
from bridge.observability.logging import change_level
from bridge.runtime.assembly import Assembly
from bridge.runtime.config_file import ConfigFile, ReadFile
from bridge.runtime.process import Process
from bridge.web.reload_page import reload_route

log = structlog.get_logger()

_WATCH_SECONDS = 1.0
"""Seconds between two looks at a file that is watched; a change is read when the next look shows the same file."""
_AGAIN_SECONDS = 30.0
"""Seconds after which a watched file that was refused is read again: a secret's file may have come later."""
_ANSWER_SECONDS = 8.0
"""Seconds that a request for a reload waits for the outcome, which is less than its connection has."""
_MAX_PROBLEMS_SHOWN = 3

Settle = Callable[[], Awaitable[None]]
"""Waits until the parts that differ have ended and started."""
Follow = Callable[[Assembly, ConfigDifference], Awaitable[Settle]]
"""Has the process follow another configuration; raises `BridgeError`, and then nothing has changed."""


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """What came of one request."""

    status: str
    """`reloaded`, `unchanged`, `refused`, or `waiting` while the store does not answer or a former reload goes on."""
    generation: str
    """The generation that runs now."""
    reason: str | None = None
    changes: dict[str, list[str]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        reason = {} if self.reason is None else {"reason": self.reason}
        return {"status": self.status, "generation": self.generation, **reason, **self.changes}


class Reloader:
    """Serves the requests for a reload one after the other, and watches the file if `reload: watch` says so.

    First the file is read and compared. Then all is done that can fail: the parts are built, the books of new sinks
    opened. Only then the parts of the process are exchanged, in one step, and those that differ end and start. So a
    file is followed whole, or not at all.
    """

    def __init__(self, process: Process, file: ConfigFile, follow: Follow) -> None:
        self._process = process
        self._clock = process.clock
        self._file = file
        self._follow = follow
        self._asked = asyncio.Event()
        self._triggers: list[str] = []
        self._waiting: list[asyncio.Future[ReloadOutcome]] = []
        self._seen: FileIdentity | None = file.last_read
        self._again_at: float | None = None
        self._backoff = Backoff(self._clock.random, cap=RECONNECT)
        process.metrics.reload_successful.set(1)
        process.metrics.reloaded_at.set(self._clock.epoch())

    @property
    def route(self) -> web.RouteDef:
        """The page on which a reload can be asked for, if the configuration that runs allows it."""

        async def reload() -> dict[str, Any]:
            return (await self.outcome("http")).plain()

        return reload_route(lambda: self._file.config.http.reload, reload)

    def request(self, trigger: str) -> None:
        """Ask for a reload, as soon as the process works; what is asked until then is one reload."""
        if trigger not in self._triggers:
            self._triggers.append(trigger)
        self._asked.set()

    async def outcome(self, trigger: str) -> ReloadOutcome:
        """Ask for a reload, and return what came of it; the parts that differ may still be ending and starting."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.request(trigger)
        with suppress(TimeoutError):
            return await asyncio.wait_for(waiting, _ANSWER_SECONDS)
        reason = "the process starts, ends, or is busy with the reload before; this one comes next"
        return ReloadOutcome("waiting", self._generation, reason)

    async def run(self) -> None:
        """Serve requests until the task is cancelled, which is how a process begins to end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_wait()):
                    await self._asked.wait()
            await self._check_time_and_file()
            if self._asked.is_set():
                await self._serve()

    # when

    def _seconds_to_wait(self) -> float | None:
        """Return the seconds until something is to be looked at without being asked; None for never."""
        watched = _WATCH_SECONDS if self._file.config.reload == "watch" else None
        if self._again_at is None:
            return watched
        again = max(0.0, self._again_at - self._clock.monotonic())
        return again if watched is None else min(watched, again)

    async def _check_time_and_file(self) -> None:
        """Ask for a reload if it is time to try again, or if the watched file is another one, and rests."""
        if self._again_at is not None and self._clock.monotonic() >= self._again_at:
            self._again_at = None
            self.request("again")
        if self._file.config.reload == "watch":
            now = await self._file.identity()
            # A file that is still being written looks different at each look.
            if now == self._seen and now != self._file.last_read:
                self.request("watch")
            self._seen = now

    # what

    async def _serve(self) -> None:
        triggers, waiting = self._triggers, self._waiting
        self._triggers, self._waiting = [], []
        self._asked.clear()
        self._again_at = None
        settle: Settle | None = None
        try:
            outcome, settle = await self._reload(triggers)
        except Unavailable as error:
            outcome = self._wait(str(error))
        except BridgeError as error:
            outcome = self._refuse(_reason(error), triggers)
        except Exception as error:  # noqa: BLE001 - a plugin's defect must not end the process that works
            outcome = self._refuse(f"a part of it failed with {describe_unexpected(error)}", triggers)
        for future in waiting:
            if not future.done():
                future.set_result(outcome)
        if settle is not None:
            started = self._clock.monotonic()
            await settle()
            seconds = round(self._clock.monotonic() - started, 1)
            log.info("config.in_effect", generation=self._generation, seconds=seconds)

    async def _reload(self, triggers: list[str]) -> tuple[ReloadOutcome, Settle | None]:
        file = await self._file.read()
        if not file.difference:
            self._note_success(file)
            log.info("config.unchanged", trigger=", ".join(triggers), generation=self._generation)
            return ReloadOutcome("unchanged", self._generation), None
        settle = await self._follow(file.assembly, file.difference)
        self._note_success(file)
        changes = _changes(file.difference)
        log.info(
            "config.reloaded", trigger=", ".join(triggers), generation=self._generation, **changes,
            consequence="what differs ends and starts anew; all else goes on",
        )  # fmt: skip
        return ReloadOutcome("reloaded", self._generation, changes=changes), settle

    def _note_success(self, file: ReadFile) -> None:
        if "log.level" in file.difference.settings:
            change_level(file.read.config.log.level)
        self._file.accept(file)
        self._backoff.on_success()
        self._process.note_reload(None)

    def _refuse(self, reason: str, triggers: list[str]) -> ReloadOutcome:
        if self._file.config.reload == "watch":
            self._again_at = self._clock.monotonic() + _AGAIN_SECONDS
        self._process.note_reload(reason)
        log.error(
            "config.refused", trigger=", ".join(triggers), reason=reason, generation=self._generation,
            consequence="nothing has changed: the configuration of this generation goes on",
        )  # fmt: skip
        return ReloadOutcome("refused", self._generation, reason)

    def _wait(self, reason: str) -> ReloadOutcome:
        seconds = self._backoff.on_failure()
        self._again_at = self._clock.monotonic() + seconds
        reason = f"the new configuration waits for the store: {reason}"
        self._process.note_reload(reason)
        log.warning("config.waits_for_store", reason=reason, again_in=round(seconds, 1), generation=self._generation)
        return ReloadOutcome("waiting", self._generation, reason)

    @property
    def _generation(self) -> str:
        return self._process.parts.generation


def _changes(difference: ConfigDifference) -> dict[str, list[str]]:
    """Return what differs, by what becomes of it; nothing of what stays."""
    changes = {"settings": list(difference.settings)}
    for kind, parts in (("sources", difference.sources), ("sinks", difference.sinks)):
        changes |= {f"{kind}_{verb}": list(getattr(parts, verb)) for verb in ("added", "changed", "removed")}
    return {name: names for name, names in changes.items() if names}


def _reason(error: BridgeError) -> str:
    """Return in one line what is wrong: the first few problems, and how many more there are."""
    if not isinstance(error, ConfigError):
        return str(error)
    problems = [str(problem) for problem in error.problems]
    more = len(problems) - _MAX_PROBLEMS_SHOWN
    return "; ".join(problems[:_MAX_PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
