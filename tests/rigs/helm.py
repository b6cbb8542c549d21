"""Prints what Helm makes of a chart, as one YAML stream: `python helm.py TOOLS CHART RELEASE [VALUES]`.

It runs in a process of its own: Helm's library is a Go program, and shall not live in the tests' process.
"""

from __future__ import annotations

import sys
from pathlib import Path

tools, chart, release, *values = sys.argv[1:]
sys.path.insert(0, tools)

import helm_python  # noqa: E402 - from the folder of the tools
import yaml  # noqa: E402 - likewise

with helm_python.Chart.load(chart) as loaded:
    overrides = yaml.safe_load(Path(values[0]).read_text()) if values else {}
    for name, text in loaded.render(overrides, name=release, namespace="bridge").items():
        if name.endswith(".yaml") and text.strip():
            print("---\n" + text)
