"""The systemd unit: systemd's own checker accepts it, and rates what it may do as safe."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from bridge.config.model import Config
from bridge.testing.servers import MissingServerError

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "bridge.service"
MAX_EXPOSURE = 1.5
"""Of 10, by systemd's own scale."""


def analyze(*arguments: str | Path) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise MissingServerError("systemd-analyze is not installed (Debian package: systemd; Linux only)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_systemd_accepts_the_unit(tmp_path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/bridge/bin/bridgectl", sys.executable))
    assert analyze("verify", unit) == ""


def test_systemd_rates_the_unit_as_safe() -> None:
    said = analyze("security", "--offline=yes", f"--threshold={MAX_EXPOSURE * 10:g}", UNIT)
    exposure = re.search(r"Overall exposure level for bridge\.service: ([\d.]+)", said)
    assert exposure
    assert float(exposure[1]) <= MAX_EXPOSURE


def test_systemd_waits_longer_than_the_drain() -> None:
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert stop
    assert int(stop[1]) > Config.model_fields["drain_timeout"].default
