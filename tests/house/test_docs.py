"""What can be typed, set or received is written down: commands, settings and events are all in the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest

from bridge import plugins
from bridge.cli import cli
from bridge.config import Config
from bridge.event import CATALOGUE
from bridge.settings import Settings

ROOT = Path(__file__).parents[2]


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
    for kind in plugins.KINDS:
        for name in plugins.installed(kind):
            found |= {f"{kind} {name}": each for each in inner(plugins.load(kind, name).settings)}
    return found


@pytest.mark.parametrize("name", models())
def test_every_setting_is_explained_and_written_down(name: str) -> None:
    model = models()[name]
    assert [key for key, field in model.model_fields.items() if not field.description] == []
    assert [key for key in model.model_fields if not named(key)] == []


def test_our_own_sources_and_sinks_are_installed() -> None:
    assert {"govdelivery", "marketingcloud", "spacivox"} <= set(plugins.installed("source"))
    assert {"slack", "stdout", "webhook"} <= set(plugins.installed("sink"))


@pytest.mark.parametrize("event", CATALOGUE, ids=lambda event: event.__name__)
def test_every_event_is_explained_and_written_down(event: type) -> None:
    assert event.__doc__
    assert named(event.__name__)


def test_the_reference_pages_say_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, f"{made.stdout}{made.stderr}; run `python docs/generate.py`"
