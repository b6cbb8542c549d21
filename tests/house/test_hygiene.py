"""What no file of this repository may hold: paths of one machine, registries, promises for later, bare exceptions."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = {"build", "dist", "htmlcov", "node_modules", "__pycache__"}
BINARY = {".db", ".gif", ".ico", ".jpg", ".png", ".sqlite", ".svg", ".webp"}

# One letter stands in brackets, so that this file passes its own test.
FORBIDDEN = {
    "the path of somebody's machine": re.compile(r"(?<![\w.<>{}$-])/(?:w[o]rk|r[o]ot|h[o]me|U[s]ers)/\w"),
    "the host of a package registry": re.compile(
        r"p[y]pi\.org|p[y]thonhosted|n[p]mjs\.|d[e]b\.debian\.org|p[r]oxy\.golang|d[o]cker\.io/|g[h]cr\.io"
    ),
    "a promise for later": re.compile(r"(?:#|//|<!--|--)\s*(?:T[O]DO|F[I]XME|X[X]X)\b|\b(?:T[O]DO|F[I]XME):"),
    "an unresolved merge": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
UNRUN = re.compile(r"pytest\.(?:s[k]ip|x[f]ail|i[m]portorskip)|mark\.(?:s[k]ip|x[f]ail)|unittest\.s[k]ip")
NOQA = re.compile(r"#\s*n[o]qa(?P<codes>:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*)?(?P<reason>.*)$")
IGNORE = re.compile(r"#\s*type:\s*i[g]nore(?P<codes>\[[\w, -]+\])?(?P<reason>.*)$")
UNCOVERED = re.compile(r"#\s*pragma:\s*n[o] (?:cover|branch)(?P<reason>.*)$")
A_REASON = re.compile(r"[A-Za-z]{2,}")


@cache
def committed() -> dict[Path, str]:
    """Return the text of each file of the repository, without what was made from them.

    `.git` is a file in a further work tree of git: it has the path of the first one.
    """
    texts = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in MADE and (name[0] != "." or name in {".ci", ".github"})]
        for path in (Path(folder, name) for name in files if name != ".git" and not name.startswith(".coverage")):
            if path.suffix not in BINARY and path.is_file():
                texts[path] = path.read_text(errors="replace")
    return dict(sorted(texts.items()))


def python_files() -> dict[Path, str]:
    return {path: text for path, text in committed().items() if path.suffix == ".py"}


def places(pattern: re.Pattern[str], *suffixes: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0].strip()}"
        for path, text in committed().items()
        if not suffixes or path.suffix in suffixes
        for match in pattern.finditer(text)
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    assert places(FORBIDDEN[what]) == []


def test_no_test_is_set_aside() -> None:
    assert places(UNRUN, ".py") == []


def unexplained(pattern: re.Pattern[str], *, codes: bool) -> str:
    """Return the lines with an exception whose reason stands neither behind it nor in a comment above it."""
    bare = []
    for path, text in python_files().items():
        above = ""
        for number, line in enumerate(text.splitlines(), start=1):
            for match in pattern.finditer(line):
                explained = A_REASON.search(match["reason"]) or above.lstrip().startswith("# ")
                if not explained or (codes and not match["codes"]):
                    bare.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
            above = line
    return "\n".join(bare)


def test_every_linter_exception_names_rule_and_reason() -> None:
    assert unexplained(NOQA, codes=True) == ""


def test_every_type_checker_exception_names_code_and_reason() -> None:
    assert unexplained(IGNORE, codes=True) == ""


def test_every_line_taken_out_of_the_coverage_says_why() -> None:
    assert unexplained(UNCOVERED, codes=False) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (": S105 - it opens a simulation", True),
        (": S105, E501 - two rules, one reason", True),
        (": S105", False),
        ("", False),
    ],
)
def test_a_reason_is_told_from_none(text: str, expected: bool) -> None:
    match = NOQA.search(f"x = 1  #{' noqa'}{text}")
    assert match
    assert bool(match["codes"] and A_REASON.search(match["reason"])) is expected


def test_every_module_states_its_purpose_in_line_one() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path, text in python_files().items()
        if path.relative_to(ROOT).parts[0] in {"bridge", "plugins"} and not re.match(r'r?"""[A-Z`][^\n]{15,}', text)
    ]
    assert silent == []


def test_locks_pin_every_file_by_its_hash() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 3
    for lock in locks:
        pins = re.split(r"\n(?=[a-z0-9])", lock.read_text())[1:]
        assert pins
        for pin in pins:
            assert "==" in pin.splitlines()[0], pin.splitlines()[0]
            assert "--hash=sha256:" in pin, pin.splitlines()[0]
        assert "://" not in lock.read_text()


def test_tests_run_with_the_versions_that_production_has() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+==[^ \n]+)", (ROOT / name).read_text(), re.MULTILINE))

    production = pins("requirements.lock") | pins("requirements-build.lock")
    assert production
    assert production <= pins("requirements-dev.lock")
