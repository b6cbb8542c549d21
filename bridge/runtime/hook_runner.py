"""Serves the address to which providers push, and keeps what they push as hints for the process that polls."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.domain.pushes import PushReader
from bridge.ingest.hints import MAX_HINTS
from bridge.protocols.hints import TakesPushes
from bridge.runtime.process import Process
from bridge.runtime.supervisor import Supervisor
from bridge.web.hook_server import PushServer

log = structlog.get_logger()

_LISTEN_AGAIN_SECONDS = 2.0


class HookRunner:
    """The server for pushes of one process, where the configuration has `hooks` and a source has `push`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.parts.store
        self.server: PushServer | None = None
        """What listens now."""

    def readers(self) -> Mapping[str, PushReader]:
        """Return what reads the pushes of each source that has any."""
        sources = {name: part.source for name, part in self._process.parts.sources.items()}
        return {
            name: source.pushes
            for name, source in sources.items()
            if isinstance(source, TakesPushes) and source.pushes is not None
        }

    def start(self, supervisor: Supervisor) -> None:
        """Start to serve, if there is anything to serve."""
        if self._process.parts.hooks is not None and self.readers():
            supervisor.start("pushes", self._serve)

    async def _serve(self) -> None:
        """Serve until the process stops; the last push before that is kept for the next start."""
        hooks, process = self._process.parts.hooks, self._process
        if hooks is None:
            return
        server = PushServer(hooks.url, self.readers(), self._keep, epoch=process.clock.epoch, report=self._count)
        try:
            await self._listen(server, hooks.listen.host, hooks.listen.port)
            self.server = server
            await process.stop.wait()
        finally:
            self.server = None
            await server.stop()

    async def _listen(self, server: PushServer, host: str, port: int) -> None:
        """Listen as soon as the address is free: another replica on this machine may have it."""
        process, reported = self._process, False
        while not process.stop.is_set():
            try:
                await server.start(host, port)
            except OSError as error:
                if not reported:
                    log.warning(
                        "push.cannot_listen", address=f"{host}:{port}", reason=error.strerror or "it is refused",
                        consequence="no pushes until it is free; the polls go on. See hooks.listen",
                    )  # fmt: skip
                reported = True
                await wait_for_stop(process.stop, process.clock, _LISTEN_AGAIN_SECONDS)
            else:
                log.info("push.listens", address=f"{host}:{server.port}", sources=sorted(self.readers()))
                return

    async def _keep(self, source: str, things: Collection[str]) -> bool:
        # The crash before this line costs nothing: the provider has had no answer. After it, the hint is in the store.
        kept = await self._store.add_hints(source, things, MAX_HINTS)
        if kept:
            self._process.pushed[source].set()
        return kept

    def _count(self, source: str, result: str) -> None:
        self._process.metrics.pushes.labels(source, result).inc()
