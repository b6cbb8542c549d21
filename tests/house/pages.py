"""The pages that readers see, their fenced blocks, and the calls of programs in these."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
SHELLS = ("bash", "sh", "shell", "console")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)?[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)


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
        Block(page, text.count("\n", 0, fence.start()) + 1, fence["language"], fence["text"])
        for page in PAGES
        for text in [page.read_text()]
        for fence in FENCE.finditer(text)
        if fence["language"] in languages
    ]


def script(block: Block) -> str:
    """Return the lines to be typed; of a session with prompts, those behind a prompt."""
    lines = block.text.splitlines()
    if any(line.lstrip().startswith("$ ") for line in lines):
        lines = [line.lstrip()[2:] for line in lines if line.lstrip().startswith("$ ")]
    return "\n".join(lines)


def calls(block: Block, *programs: str) -> list[list[str]]:
    """Return the arguments of every call of one of the programs: also in a pipe, and behind `VAR=value`."""
    commands = []
    for line in script(block).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>()"):
                while words and re.fullmatch(r"\w+=.*|\d", words[0]):
                    words.pop(0)
                if words and words[0].rpartition("/")[2] in programs:
                    commands.append(words[1:])
                # What stands behind > or < is a file, and no program.
                words = ["file"] if set(word) <= set("<>") else []
            else:
                words.append(word)
    return commands
