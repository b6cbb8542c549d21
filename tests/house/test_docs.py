"""What can be typed, set, received or read is written down: commands, settings, events, metrics and log lines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest
from catalogue import CATALOGUE

from bridge.cli import cli
from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.settings import Settings
from bridge.observability.metrics import Metrics
from bridge.testing.kill_points import POINTS

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error"}
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


@cache
def documentation() -> str:
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "plugins").glob("*/README.md")),
    ]
    assert len(pages) > 3
    return "\n".join(page.read_text() for page in pages)


def named(word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", documentation()) is not None


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{path} {name} is listed and cannot be had"
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(cli, "bridge"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_written_down(path: str) -> None:
    assert named(path)
    options = [option for param in COMMANDS[path].params if isinstance(param, click.Option) for option in param.opts]
    assert [option for option in options if not named(option)] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_helps_with_examples_of_itself(path: str) -> None:
    context = click.Context(COMMANDS[path], info_name=path, max_content_width=100)
    help_page = COMMANDS[path].get_help(context)
    examples = help_page.partition("Examples")[2]
    assert path in examples


def inner(model: type[Settings]) -> Iterator[type[Settings]]:
    yield model
    for field in model.model_fields.values():
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, Settings):
                yield from inner(each)


def models() -> dict[str, type[Settings]]:
    found = {each.__name__: each for each in inner(Config)}
    for kind in registry.KINDS:
        for name in registry.installed(kind):
            found |= {f"{kind} {name}": each for each in inner(registry.load(kind, name).settings)}
    return found


@pytest.mark.parametrize("name", models())
def test_every_setting_is_explained_and_written_down(name: str) -> None:
    model = models()[name]
    assert [key for key, field in model.model_fields.items() if not field.description] == []
    assert [key for key in model.model_fields if not named(key)] == []


def test_our_own_sources_and_sinks_are_installed() -> None:
    assert {"govdelivery", "marketingcloud", "spacivox"} <= set(registry.installed("source"))
    assert {"slack", "stdout", "webhook"} <= set(registry.installed("sink"))


EVENTS = dict.fromkeys(
    [*CATALOGUE, *(event for name in registry.installed("source") for event in registry.load_source(name).events)]
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_is_explained_and_written_down(event: type) -> None:
    assert event.__doc__
    assert named(event.__name__)


def test_the_reference_pages_say_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, f"{made.stdout}{made.stderr}; run `python docs/generate.py`"


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of all table rows below a heading, up to the next one of its level, without the heads."""
    text = (ROOT / "docs" / page).read_text()
    level = heading.partition(" ")[0]
    part = re.split(rf"^{level} ", text.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in FENCE.sub("", part).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    heads = {index - 1 for index, row in enumerate(cells) if set("".join(row)) <= set("-| ")}
    return [row for index, row in enumerate(cells) if index not in heads and index - 1 not in heads]


def test_every_metric_is_written_down_with_its_labels_and_none_beside_them() -> None:
    figures = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in Metrics().registry.collect()
    }
    written = {row[0].strip("`"): row[1] for row in rows("how-to/README.md", "## Metrics")}
    assert written == figures


NAME = re.compile(r"[a-z]+\.[a-z_]+")


def said(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each log line of a module: its name and its level; of `log.log(level, …)`, the name alone.

    Where a name is handed down to the line, every literal of the module that looks like one is taken for it.
    """
    tree = ast.parse(path.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        if owner not in {"log", "structlog.get_logger()"} or node.func.attr not in LEVELS | {"log"}:
            continue
        words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        for name in words[:1] or filter(NAME.fullmatch, texts):
            yield name, node.func.attr


def test_every_log_line_is_written_down_with_its_level_and_none_beside_them() -> None:
    modules = [
        path
        for top in ("bridge", "plugins")
        for path in sorted((ROOT / top).rglob("*.py"))
        if "testing" not in path.parts
    ]
    lines: dict[str, set[str]] = {}
    for name, level in (one for path in modules for one in said(path)):
        lines.setdefault(name, set()).add(level)
    written = {row[0].strip("`"): row[1] for row in rows("how-to/README.md", "## Log lines")}
    assert set(lines) - set(written) == set(), "not written down"
    assert set(written) - set(lines) == set(), "written down, and said nowhere"
    assert {name: levels for name, levels in lines.items() if not levels & {written[name], "log"}} == {}


def test_every_point_at_which_a_process_may_die_is_written_down_with_its_price() -> None:
    written = [(row[1], row[3], row[4]) for row in rows("explanation/delivery.md", "## Where a crash can come")]
    assert written == [(one.name, one.to_consumers, one.to_sink) for one in POINTS]


def test_the_rooms_are_drawn_as_they_are() -> None:
    drawn = {re.fullmatch(r"`(\w+)/`", row[0])[1] for row in rows("explanation/architecture.md", "## Rooms")}
    folders = {path.parent.name for path in (ROOT / "bridge").glob("*/__init__.py")}
    assert drawn == folders
