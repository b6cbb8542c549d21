"""What a reader copies from the documentation works: shell lines, make goals, Python, and the links between pages."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from catalogue import CATALOGUE
from house.pages import FENCE, PAGES, ROOT, SHELLS, Block, blocks, calls, script

from bridge.cli import cli
from bridge.cli.support.program import NAME, NAMES
from bridge.domain.catalogue import Catalogue

LINK = re.compile(r"\]\((?!\w+:)(?P<page>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
GOALS = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
SHELL_BLOCKS = blocks(*SHELLS)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_shell_lines_can_be_read_by_a_shell(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=script(block), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def parse(words: list[str]) -> None:
    """Read a command line as `bridge` does, without doing anything; raises `click.UsageError`."""
    command: click.Command = cli
    context = click.Context(cli, info_name="bridge")
    while True:
        options, rest, _ = command.make_parser(context).parse_args(list(words))
        for param in command.params:
            value = options.get(param.name)
            if isinstance(param, click.Argument) and param.required and param.value_is_missing(value):
                raise click.UsageError(f"{command.name}: {param.human_readable_name} is missing")
            if isinstance(param.type, click.Choice) and value:
                for choice in value if isinstance(value, list | tuple) else [value]:
                    param.type.convert(choice, param, context)
        if not isinstance(command, click.Group) or not rest:
            if rest:
                raise click.UsageError(f"{command.name}: {rest[0]!r} is one argument too many")
            return
        subcommand = command.get_command(context, rest[0])
        if subcommand is None:
            raise click.UsageError(f"{command.name} has no command {rest[0]!r}")
        context = click.Context(subcommand, parent=context, info_name=rest[0])
        words, command = rest[1:], subcommand


@pytest.mark.parametrize("block", [block for block in SHELL_BLOCKS if calls(block, *NAMES)], ids=str)
def test_commands_of_the_bridge_are_spelled_right(block: Block) -> None:
    for words in calls(block, *NAMES):
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"bridge {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "words", [["run", "--wonce"], ["walk"], ["run", "--role", "poet"], ["backfill"], ["events", "list", "more"]]
)
def test_a_wrong_command_would_be_found(words: list[str]) -> None:
    with pytest.raises(click.ClickException):
        parse(words)


def test_calls_are_found_wherever_they_stand() -> None:
    text = (
        "A=1 bridgectl tail 'a.#' | jq . > bridge\nmake run && .venv/bin/bridge demo \\\n  --json  # bridge not this\n"
    )
    assert calls(Block(ROOT, 1, "sh", text), *NAMES) == [["tail", "a.#"], ["demo", "--json"]]


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_program_is_called_by_the_name_that_no_other_has(block: Block) -> None:
    by_path = [line for line in script(block).splitlines() if re.search(r"[\w.]/bridge\b", line)]
    assert by_path or calls(block, *NAMES) == calls(block, NAME), "iproute2 has a `bridge`: write `bridgectl`"


@pytest.mark.parametrize("block", [block for block in SHELL_BLOCKS if calls(block, "make")], ids=str)
def test_goals_of_make_exist(block: Block) -> None:
    goals = set(GOALS.findall((ROOT / "Makefile").read_text()))
    named = {word for words in calls(block, "make") for word in words if "=" not in word}
    assert named <= goals


@pytest.mark.parametrize("block", blocks("python", "py"), ids=str)
def test_python_examples_are_python(block: Block) -> None:
    ast.parse(block.text)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    lost = []
    for link in LINK.finditer(text):
        target = (page.parent / link["page"]).resolve() if link["page"] else page
        exists = target.exists()
        headings = (
            re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if exists and target.suffix == ".md" else []
        )
        if not exists or (link["anchor"] and link["anchor"] not in map(slug, headings)):
            lost.append(link[0])
    assert lost == []


def test_readme_shows_a_whole_event() -> None:
    shown = [json.dumps(json.loads(block.text)) for block in blocks("json") if block.page.name == "README.md"]
    assert [type(Catalogue(CATALOGUE).read(event)).__name__ for event in shown] == ["RecipientFailed"]
