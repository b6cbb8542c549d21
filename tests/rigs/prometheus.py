"""A real Prometheus on a port of its own, and the rules of config/prometheus with shorter times."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from bridge.testing.free_port import free_port
from bridge.testing.servers import MissingServerError

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus" / "bridge.rules.yaml"
WINDOW = re.compile(r"\[(\d+)([mh])\]")
SECONDS = {"m": 60, "h": 3600}
THRESHOLDS = ("> 3600", "> 120", "> 600 +")
"""The bounds of the rules that are times."""
MIN_WINDOW_SECONDS = 10
MIN_RESTARTS_SECONDS = 120
"""A process cannot be started three times in less, if the machine has other work."""
SHORT = "short"
"""The label `times` of alerts with shorter times."""


def alerts() -> list[dict[str, Any]]:
    """Return all alerts of the rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shortened(factor: float, *, longest: float) -> str:
    """Return the rules with all times divided by `factor`; no alert waits for longer than `longest` seconds."""
    document = yaml.safe_load(RULES.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            rule["labels"]["times"] = SHORT
            rule["expr"] = _expression(rule["expr"], factor, longest)
            if wait := rule.get("for"):
                seconds = min(int(wait[:-1]) * SECONDS[wait[-1]] / factor, longest)
                rule["for"] = f"{round(seconds * 1000)}ms"
    return yaml.safe_dump(document)


def _expression(text: str, factor: float, longest: float) -> str:
    shortest = MIN_RESTARTS_SECONDS if text.startswith("changes(") else MIN_WINDOW_SECONDS

    def window(match: re.Match[str]) -> str:
        return f"[{round(max(int(match[1]) * SECONDS[match[2]] / factor, shortest))}s]"

    text = WINDOW.sub(window, text)
    for bound in THRESHOLDS:
        number = re.sub(r"\D", "", bound)
        text = re.sub(
            rf"{re.escape(bound)}(?!\d)", bound.replace(number, f"{min(int(number) / factor, longest):g}"), text
        )
    return text


def promtool() -> str:
    """Return the program; raises `MissingServerError`."""
    program = shutil.which("promtool")
    if program is None:
        raise MissingServerError("promtool is not installed (Debian package: prometheus)")
    return program


class Prometheus:
    """Scrapes jobs of targets every two seconds, and evaluates twice a second short rules, and those that ship."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[int]], rules: str) -> None:
        """Prepare; `jobs` has the ports of each job."""
        program = shutil.which("prometheus")
        if program is None:
            raise MissingServerError("prometheus is not installed (Debian package: prometheus)")
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        (folder / "short.yaml").write_text(rules)
        configs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for job, ports in jobs.items()
        ]
        often = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "500ms"}
        config = {"global": often, "rule_files": ["short.yaml", str(RULES)], "scrape_configs": configs}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "prometheus.log").open("wb") as log:
            return subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def __aenter__(self) -> Self:
        self._process = self._start()
        self._session = aiohttp.ClientSession(base_url=f"http://127.0.0.1:{self.port}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    async def is_up(self) -> bool:
        with suppress(aiohttp.ClientError):
            async with self._session.get("/-/ready") as answer:
                return answer.status == 200
        return False

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query; raises `AssertionError` with Prometheus' words about a wrong one."""
        async with self._session.get("/api/v1/query", params={"query": expression}) as answer:
            body = await answer.json()
        assert body["status"] == "success", (expression, body)
        samples: list[dict[str, Any]] = body["data"]["result"]
        return samples

    async def alerts(self) -> list[dict[str, Any]]:
        """Return all alerts, pending and firing."""
        async with self._session.get("/api/v1/alerts") as answer:
            body = await answer.json()
        alerts: list[dict[str, Any]] = body["data"]["alerts"]
        return alerts
