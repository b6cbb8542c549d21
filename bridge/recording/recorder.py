"""Records what the providers answer while the bridge runs; whatever befalls the tape, the polling goes on."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import structlog

from bridge.config.model import Config
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost
from bridge.domain.lifecycle import StatusHistory
from bridge.http.client import HttpRequest
from bridge.http.errors import ProviderError, Throttled, TooLarge
from bridge.http.response import RequestFailure, Response
from bridge.ingest.intake import INTERNAL_PREFIX
from bridge.ingest.poller import describe_unexpected
from bridge.protocols.ledger import Key
from bridge.protocols.source import Page, Source
from bridge.protocols.store import Store
from bridge.recording.files import Full, Line, Writer, prepare, stamp
from bridge.recording.frozen_clock import FrozenTime, PollContext, advance_to, frozen_clock, real_time
from bridge.recording.recorded_source import RecordedSource
from bridge.recording.redaction import Redactor
from bridge.runtime.assembly import Assembly

log = structlog.get_logger()

REQUEST = "<request>"
"""Stands in an error's text for method and path."""
_SEED_BITS = 2**32
_NOTED = 1_000_000
"""So many resources of a source are remembered from one poll to the next as those that the tape has met."""
_NOT_MODIFIED_STATUS = 304
ERROR_NAMES: Mapping[type[Exception], str] = {ProviderError: "Failed", Throttled: "Throttled", TooLarge: "TooLarge"}
"""How a tape names the error of a request. These words belong to the format, also if a class is renamed."""


class Recorder:
    """Keeps what the sources of one process are answered, up to `limit` bytes in the directory.

    Construction makes the directory, and raises `Unavailable` where nothing can be written there. From then on nothing
    is raised: the tape ends, with one log line, and the polling goes on. Close it when the sources are closed.
    """

    def __init__(self, folder: Path, clock: Clock, *, limit: int, compress: bool = False) -> None:
        self._folder = folder
        self._budget = prepare(folder, limit)
        self._compress = compress
        self._real = clock
        self._run = _new_run(clock)
        self._redactor = Redactor(secrets.token_bytes(32))
        self._writers: list[Writer] = []
        self._hooks_by_source: dict[str, _Recording] = {}
        self._over = False
        self.clock = frozen_clock(clock)
        """For the sources, and for all that shares their clock."""
        log.info("tape.records", folder=str(folder), run=self._run, bytes_at_most=limit, bytes_there=self._budget.used)

    def assembly(self, config: Config) -> Assembly:
        """Return the parts of a configuration, with all sources on tape."""
        return _Recorded(config, self)

    def record(self, name: str, kind: str, source: Source) -> Source:
        """Return the source, on tape from now on; one that replaces another of its name begins a run of its own."""
        run = _new_run(self._real) if name in self._hooks_by_source else self._run
        writer = Writer(self._folder, name, kind, run, self._budget, compress=self._compress)
        self._writers.append(writer)
        hooks = self._hooks_by_source[name] = _Recording(self, writer, self._real, self._redactor)
        return RecordedSource(source, hooks)

    def own(self, source: str, entries: Mapping[str, str]) -> None:
        """Hear which entries of a source's cursor are the intake's own."""
        if source in self._hooks_by_source:
            self._hooks_by_source[source].own(entries)

    def seen(self, source: str, keys: Sequence[Key], histories: Sequence[str | None]) -> None:
        """Hear what the ledger knows of a source's resources; raises nothing."""
        if source in self._hooks_by_source and not self._over:
            try:
                self._hooks_by_source[source].seen(keys, histories)
            except Exception as error:  # noqa: BLE001 - a tape is not worth a poll
                self._broken(describe_unexpected(error))

    def write(self, writer: Writer, make: Callable[[], Line]) -> None:
        """Write the line that `make` returns, unless the tape has ended; raises nothing."""
        if self._over:
            return
        try:
            writer.write(make(), self._real.now())
        except Full:
            self._over = True
            log.warning(
                "tape.full", folder=str(self._folder), bytes=self._budget.used, bytes_at_most=self._budget.limit,
                consequence="nothing more is recorded; polling goes on",
            )  # fmt: skip
        except OSError as error:
            self._broken(error.strerror or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a tape is not worth a poll
            self._broken(describe_unexpected(error))

    def _broken(self, reason: str) -> None:
        self._over = True
        log.warning(
            "tape.cannot_be_written", folder=str(self._folder), reason=reason,
            consequence="nothing more is recorded; polling goes on",
        )  # fmt: skip

    def close(self) -> None:
        """End the files."""
        for writer in self._writers:
            try:
                writer.close()
            except OSError as error:
                self._broken(error.strerror or type(error).__name__)


def _new_run(clock: Clock) -> str:
    return f"{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


class _Recording:
    """The recorder of one source: writes the answers to its polls."""

    def __init__(self, recorder: Recorder, writer: Writer, real: Clock, redactor: Redactor) -> None:
        self._recorder = recorder
        self._writer = writer
        self._real = real
        self._redactor = redactor
        self._cursor: dict[str, str] | None = None
        self._watched: list[str] = []
        self._own: dict[str, str] = {}
        self._noted: set[int] = set()

    def _write(self, make: Callable[[], Line]) -> None:
        self._recorder.write(self._writer, make)

    # --- polls --------------------------------------------------------------------------------------------------------

    def begin(self, cursor: Mapping[str, str], watched: Sequence[str]) -> PollContext:
        """Begin a poll now, and note what it starts from where that cannot be known from the tape."""
        if len(self._noted) >= _NOTED:
            # From the next poll on it makes no difference: what is known of the resource then is on the tape.
            self._noted.clear()
        known, self._cursor = self._cursor, dict(cursor)
        named, self._watched = self._watched, list(watched)

        def begun_with() -> Line:
            start: Line = {}
            opaque = self._redactor.opaque
            if known != self._cursor:
                start["cursor"] = {opaque(name): opaque(value) for name, value in cursor.items()}
            if named != self._watched:
                start["watched"] = [opaque(name) for name in watched]
            if known is None and self._own:
                start["own"] = self._own
            return start

        return PollContext(self, self._begin("poll", begun_with))

    async def step(self) -> None:
        """Note that the next page is asked for."""
        self._write(lambda: {"line": "step"})

    def page(self, page: Page) -> None:
        """Follow the cursor, which is not written down as long as the pages tell it."""
        cursor = self._cursor = self._cursor or {}
        for name, value in page.cursor.items():
            if value is None:
                cursor.pop(name, None)
            else:
                cursor[name] = value

    def ended(self, error: Exception | None) -> None:
        """Note the end of a poll's pages, unless they break off."""
        if not isinstance(error, LeaseLost):
            self._write(lambda: {"line": "ended", "at": stamp(self._real.now()), "error": self._error_name(error)})

    def completing(self) -> PollContext:
        """Note that details are looked up from now on."""
        return PollContext(self, self._begin("completing", dict))

    def completed(self) -> None:
        """Note that details were looked up."""
        self._write(lambda: {"line": "completed", "at": stamp(self._real.now())})

    def _begin(self, what: str, more: Callable[[], Line]) -> FrozenTime:
        """Begin a piece of work now."""
        seed = secrets.randbelow(_SEED_BITS)
        frozen = FrozenTime(self._real.now(), self._real.monotonic(), Random(seed))
        begun = {"line": what, "at": stamp(frozen.now), "monotonic": frozen.monotonic, "seed": seed}
        self._write(lambda: {**begun, **more()})
        return frozen

    # --- the ledger ---------------------------------------------------------------------------------------------------

    def own(self, entries: Mapping[str, str]) -> None:
        """Hear which entries of the cursor are the intake's own."""
        self._own = dict(entries)

    def seen(self, keys: Sequence[Key], histories: Sequence[str | None]) -> None:
        """Note what the ledger knows of resources that this tape has not met yet."""
        new: dict[str, dict[str, str]] = {}
        for key, history in zip(keys, histories, strict=True):
            if (sign := hash(key)) in self._noted:
                continue
            self._noted.add(sign)
            if history is not None and (kept := self._redactor.history(history)) is not None:
                name = self._redactor.name(key.name, StatusHistory.parse(history).occurrence_ids)
                new.setdefault(key.scope, {})[name] = kept
        for scope, known in new.items():
            line = {"line": "seen", "scope": self._redactor.scope(scope), "trails": known}
            self._write(partial(dict, line))

    # --- the wire -----------------------------------------------------------------------------------------------------

    async def send(
        self, request: HttpRequest, ask: Callable[[], Awaitable[Response | RequestFailure]]
    ) -> Response | RequestFailure:
        """Ask the provider, and write down what came."""
        outcome: Response | RequestFailure
        try:
            with real_time():
                outcome = await ask()
        except LeaseLost:
            raise  # another process polls now: the provider said nothing, and the poll breaks off
        except BridgeError as error:
            self._arrived(request, RequestFailure(error))
            raise
        self._arrived(request, outcome)
        return outcome

    def _arrived(self, request: HttpRequest, outcome: Response | RequestFailure) -> None:
        with real_time():
            at = outcome.at if isinstance(outcome, Response) else self._real.now()
            monotonic = self._real.monotonic()
        advance_to(at, monotonic)

        def line() -> Line:
            asked = outcome.asked if isinstance(outcome, Response) else at
            return {
                "line": "answer", "asked": stamp(asked), "at": stamp(at), "monotonic": monotonic,
                "method": request.method, "path": self._redactor.request(request), **self._outcome(request, outcome),
            }  # fmt: skip

        self._write(line)

    def _outcome(self, request: HttpRequest, outcome: Response | RequestFailure) -> dict[str, Any]:
        if isinstance(outcome, RequestFailure):
            return {"failure": self._failure(request, outcome)}
        # What has not changed is written down again: the tape need not have the answer that it is equal to.
        answer = request.known if request.known is not None and outcome.status == _NOT_MODIFIED_STATUS else outcome
        return {
            "status": answer.status,
            "unchanged": answer is not outcome,
            "headers": self._redactor.headers(answer, request.origin),
            **self._redactor.body(answer, request.method),
        }

    def _failure(self, request: HttpRequest, failure: RequestFailure) -> dict[str, Any]:
        error = failure.error
        return {
            "error": ERROR_NAMES.get(type(error), type(error).__name__),
            "text": self._redactor.opaque(str(error).replace(request.what, REQUEST)),
            "retry_after": getattr(error, "retry_after", None),
            "timed_out": isinstance(error, ProviderError) and error.timed_out,
            "again": failure.again,
        }

    def _error_name(self, error: Exception | None) -> str | None:
        if error is None:
            return None
        return self._redactor.opaque(str(error)) if isinstance(error, BridgeError) else describe_unexpected(error)


class _Overheard:
    """A store of which the recorder hears what it knew; everything else goes to the store itself."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def cursor(self, source: str) -> dict[str, str]:
        """Return all entries of the source's cursor."""
        cursor = await self._store.cursor(source)
        self._recorder.own(source, {name: value for name, value in cursor.items() if name.startswith(INTERNAL_PREFIX)})
        return cursor

    async def last_seen(self, source: str, keys: Sequence[Key], retention: float) -> Sequence[str | None]:
        """Return the history of each key in order; see `Ledger.last_seen`."""
        statuses = await self._store.last_seen(source, keys, retention)
        self._recorder.seen(source, keys, statuses)
        return statuses


class _Recorded(Assembly):
    """An assembly whose sources are on tape."""

    def __init__(self, config: Config, recorder: Recorder) -> None:
        super().__init__(config, recorder.clock)
        self._recorder = recorder

    def store(self, *, read_only: bool = False) -> Store:
        """Return the store, not yet opened; what it knew before is noted."""
        return cast("Store", _Overheard(super().store(read_only=read_only), self._recorder))

    def source(self, name: str) -> Source:
        """Return one source, on tape; raises `ConfigError` where its plugin refuses the settings after all."""
        return self._recorder.record(name, self.config.sources[name].type, super().source(name))
