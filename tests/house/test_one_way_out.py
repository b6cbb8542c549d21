"""Only one module of the command line writes on a terminal, and it escapes what a terminal would obey."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "bridge/cli/support/output.py"
WRITES = {
    "print", "click.echo", "click.secho", "click.echo_via_pager", "click.style", "sys.stdout.write",
    "sys.stderr.write", "sys.stdout.buffer.write", "sys.stderr.buffer.write", "Console", "rich.print", "pprint",
    "traceback.print_exception", "traceback.print_exc",
}  # fmt: skip
ALLOWED = {
    ("bridge/cli/support/errors.py", "traceback.print_exception"): "BRIDGE_DEBUG asks for the traceback as it is",
    ("bridge/testing/kill_points.py", "print"): "a test reads it from its own process",
}


def calls(text: str) -> list[str]:
    """Return every call that writes on a terminal, by its dotted name."""
    called = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [name for func in called if (name := ast.unparse(func)) in WRITES]


def modules() -> list[Path]:
    return [path for folder in ("bridge", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_one_module_writes_on_the_terminal():
    direct = [
        f"{path.relative_to(ROOT)}: {name}" for path in modules() if path != OUTPUT
        for name in calls(path.read_text()) if (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]  # fmt: skip
    assert direct == []


@pytest.mark.parametrize("line", ["click.echo('x')", "print(1)", "sys.stderr.write('x')", "f(lambda: print(1))"])
def test_direct_write_is_found(line):
    assert calls(line)
