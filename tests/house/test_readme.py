"""What a reader copies from the documentation works: shell lines, make goals, Python, and the links between pages."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from bridge.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
SHELLS = {"bash", "sh", "shell"}
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)?[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!\w+:)(?P<page>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
GOALS = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["text"])
        for page in PAGES
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
        if found["language"] in languages
    ]


def script(block: Block) -> str:
    """Return the lines to be typed; of a session with prompts, those behind a prompt."""
    lines = block.text.splitlines()
    if any(line.lstrip().startswith("$ ") for line in lines):
        lines = [line.lstrip()[2:] for line in lines if line.lstrip().startswith("$ ")]
    return "\n".join(lines)


def calls(block: Block, program: str) -> list[list[str]]:
    """Return the arguments of every call of a program in a block: also in a pipe, and behind `VAR=value`."""
    found = []
    for line in script(block).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>()"):
                while words and re.fullmatch(r"\w+=.*|\d", words[0]):
                    words.pop(0)
                if words and words[0].rpartition("/")[2] == program:
                    found.append(words[1:])
                # What stands behind > or < is a file, and no program.
                words = ["file"] if set(word) <= set("<>") else []
            else:
                words.append(word)
    return found


@pytest.mark.parametrize("block", blocks(*SHELLS, "console"), ids=str)
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
                for each in value if isinstance(value, list | tuple) else [value]:
                    param.type.convert(each, param, context)
        if not isinstance(command, click.Group) or not rest:
            if rest:
                raise click.UsageError(f"{command.name}: {rest[0]!r} is one argument too many")
            return
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"{command.name} has no command {rest[0]!r}")
        words, command, context = rest[1:], found, click.Context(found, parent=context, info_name=rest[0])


@pytest.mark.parametrize("block", [each for each in blocks(*SHELLS, "console") if calls(each, "bridge")], ids=str)
def test_commands_of_the_bridge_are_spelled_right(block: Block) -> None:
    for words in calls(block, "bridge"):
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"bridge {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "words", [["run", "--wonce"], ["walk"], ["run", "--role", "poet"], ["replay"], ["events", "list", "more"]]
)
def test_a_wrong_command_would_be_found(words: list[str]) -> None:
    with pytest.raises(click.ClickException):
        parse(words)


def test_calls_are_found_wherever_they_stand() -> None:
    text = "A=1 bridge tail 'a.#' | jq . > bridge\nmake run && .venv/bin/bridge demo \\\n  --json  # bridge not this\n"
    assert calls(Block(ROOT, 1, "sh", text), "bridge") == [["tail", "a.#"], ["demo", "--json"]]


@pytest.mark.parametrize("block", [each for each in blocks(*SHELLS, "console") if calls(each, "make")], ids=str)
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
    for found in LINK.finditer(text):
        target = (page.parent / found["page"]).resolve() if found["page"] else page
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" else []
        if not target.exists() or (found["anchor"] and found["anchor"] not in map(slug, headings)):
            lost.append(found[0])
    assert lost == []
