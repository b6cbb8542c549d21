"""Figures of the repository's shape: sizes, names, constants, imports, tests and prose, read from the sources.

Usage: `python tests/house/figures.py [ROOT] [--json] [--all]`. ROOT is a checkout of any age; the code that is measured
is parsed and never imported. `CODE` means `bridge/` and the packages `plugins/*/bridge_*`.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import re
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

FILE_LINES = 400
CLASS_LINES = 300
FUNCTION_LINES = 50
TEST_FILE_LINES = 600
TEST_NAME_WORDS = 10

# The largest value that each figure may have for good; figures that are not listed here are printed and not held.
GOALS = {
    "flat modules": 4,
    "long files": 0,
    "long classes": 0,
    "ambiguous class names": 0,
    "pronoun bindings": 0,
    "pronoun bindings in tests": 0,
    "unexplained constants": 0,
    "import circles": 0,
    "long test files": 0,
    "long test names": 0,
    "repeated test names": 0,
}

PRONOUNS = {"one", "each", "found", "told", "some"}

# A constant whose name has one of these words needs no sentence: it says what is counted or measured.
UNITS = {
    *("SECONDS", "MINUTES", "HOURS", "DAYS", "MILLIS", "MS", "MICROS", "NANOS"),
    *("BYTES", "KIB", "MIB", "GIB", "BITS", "CHARS", "CHARACTERS", "DIGITS", "LINES", "WORDS", "COLUMNS"),
    *("RATIO", "SHARE", "FACTOR", "PERCENT", "STATUS", "CODE", "PORT", "VERSION"),
    *("ATTEMPTS", "RETRIES", "TRIES", "FAILURES", "PROBLEMS", "ROUNDS", "POLLS", "INTERVALS", "STEPS", "COUNT"),
    *("EVENTS", "MESSAGES", "DELIVERIES", "OBSERVATIONS", "OCCURRENCES", "RECIPIENTS", "RECORDS", "RESOURCES"),
    *("CALLS", "CONNECTIONS", "DECISIONS", "ENTRIES", "FIELDS", "GROUPS", "ITEMS", "KEYS", "PAGES", "POSITIONS"),
    *("REQUESTS", "ROWS", "SCOPES", "STATUSES", "TASKS", "THREADS", "TOPICS", "URLS", "VALUES", "WRITES"),
    *("BUCKETS", "COMMITS", "ENCODERS", "SWEEPS", "TURNS", "WALKS"),
}
_PER_UNIT = re.compile(r"(?:^|_)PER_(?:SECOND|MINUTE|HOUR|DAY|BYTE|EVENT|PAGE|REQUEST)(?:_|$)")
_DIRECTIVE = re.compile(r"#\s*(?:noqa|type:|pragma:|fmt:|pyright:|mypy:)")
_PROSE_WORD = re.compile(r"[A-Za-z]{2,}")

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


@dataclass(frozen=True)
class Figure:
    """One measured value, and the places that make it up."""

    name: str
    value: float
    meaning: str
    goal: int | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """One Python file: its path below the root, with slashes, and its text."""

    path: str
    text: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def line_count(self) -> int:
        return len(self.text.splitlines())

    @property
    def name(self) -> str:
        """The dotted name under which a module of `bridge/` is imported."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def folder(self) -> str:
        """The folder of a module; each module that lies directly in `bridge/` stands for itself."""
        parts = self.path.removesuffix(".py").split("/")
        return "/".join(parts[1:-1]) or parts[-1]


def read(root: Path, *patterns: str) -> list[Module]:
    """Read the Python files that match the patterns."""
    paths = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    return [Module(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def span(node: ast.AST, first: ast.AST | None = None) -> int:
    """Return how many lines a node takes, from `first` on if it is given."""
    start = node if first is None else first
    return node.end_lineno - start.lineno + 1


# --- sizes ---


def flat_modules(modules: Iterable[Module]) -> list[str]:
    return [module.path for module in modules if re.fullmatch(r"bridge/\w+\.py", module.path)]


def long_files(modules: Iterable[Module], limit: int = FILE_LINES) -> list[str]:
    return [f"{module.path}: {module.line_count} lines" for module in modules if module.line_count > limit]


def long_classes(modules: Iterable[Module], limit: int = CLASS_LINES) -> list[str]:
    return [
        f"{module.path}:{node.lineno}: {node.name}, {span(node)} lines"
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.ClassDef) and span(node) > limit
    ]


def is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def body_lines(function: Function) -> int | None:
    """Return the lines of a body from its first statement after the docstring on; None for a mere declaration."""
    statements = function.body[1:] if is_text(function.body[0]) else function.body
    if not statements:
        return None
    if len(statements) == 1 and (
        isinstance(statements[0], ast.Pass)
        or (isinstance(statements[0], ast.Expr) and isinstance(statements[0].value, ast.Constant))
    ):
        return None
    return span(function, first=statements[0])


def functions(modules: Iterable[Module]) -> list[tuple[int, str]]:
    """Return the size and the place of every function with a body, methods and inner functions included."""
    return [
        (lines, f"{module.path}:{node.lineno}: {node.name}, {lines} lines")
        for module in modules
        for node in module.nodes
        if isinstance(node, FUNCTIONS) and (lines := body_lines(node)) is not None
    ]


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] if values else 0


def nesting(node: ast.AST) -> int:
    """Return how deep compound statements lie in each other; `elif` adds nothing, an inner function begins anew."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            continue
        continues = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, COMPOUND) and not continues))
    return deepest


# --- names ---


def ambiguous_class_names(modules: Iterable[Module]) -> list[str]:
    """Return the public class names that two or more modules define, declarations of protocols included."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        names = {
            node.name: node.lineno
            for node in module.nodes
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        }
        for name, line in names.items():
            places[name].append(f"{module.path}:{line}")
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def bound_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield every name that is bound to a value, and its line.

    These are parameters, targets of assignments, loops, comprehensions, `with`, `:=` and `except`, captures of `match`,
    imports, fields of classes and attributes that are assigned. Functions and classes are definitions, not bindings.
    """
    for node in nodes:
        match node:
            case ast.Name(id=str(name), ctx=ast.Store()):
                yield name, node.lineno
            case ast.Attribute(attr=str(name), ctx=ast.Store()):
                yield name, node.end_lineno
            case ast.arg(arg=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name, node.lineno
            case ast.alias():
                yield (node.asname or node.name).partition(".")[0], node.lineno


def pronoun_bindings(modules: Iterable[Module]) -> list[str]:
    return [
        f"{module.path}:{line}: {name}"
        for module in modules
        for name, line in sorted(bound_names(module.nodes), key=lambda binding: binding[1])
        if name.strip("_") in PRONOUNS
    ]


# --- constants ---


def is_number(value: ast.expr) -> bool:
    """Whether an expression is a number, or arithmetic on numbers alone."""
    match value:
        case ast.Constant():
            return type(value.value) in {int, float}
        case ast.UnaryOp():
            return is_number(value.operand)
        case ast.BinOp():
            return is_number(value.left) and is_number(value.right)
    return False


def is_enumeration(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        re.search(r"(?:Enum|Flag)$", ast.unparse(base)) for base in node.bases
    )


def has_unit(name: str) -> bool:
    return not UNITS.isdisjoint(name.split("_")) or _PER_UNIT.search(name) is not None


def comment_lines(text: str) -> set[int]:
    """Return the numbers of the lines with a comment that says something to a reader."""
    return {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and _PROSE_WORD.search(token.string) and not _DIRECTIVE.match(token.string)
    }


def numeric_constants(module: Module) -> Iterator[tuple[str, int, bool]]:
    """Yield name, line and whether it is explained of each constant of a module or class that is a number.

    A constant is explained by a unit in its name, by a docstring right after it, or by a comment at the end of its line.
    """
    commented = comment_lines(module.text)
    scopes = [
        node for node in module.nodes if isinstance(node, (ast.Module, ast.ClassDef)) and not is_enumeration(node)
    ]
    for scope in scopes:
        for statement, following in zip(scope.body, [*scope.body[1:], None], strict=False):
            match statement:
                case ast.Assign(targets=targets, value=value):
                    pass
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    targets = [target]
                case _:
                    continue
            described = following is not None and is_text(following)
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper() and is_number(value):
                    explained = described or has_unit(target.id) or statement.end_lineno in commented
                    yield target.id, statement.lineno, explained


# --- imports ---


def imported_modules(module: Module, known: set[str]) -> Iterator[str]:
    """Yield which modules of `known` a module imports, also inside functions and for types alone."""
    package = module.name if module.path.endswith("/__init__.py") else module.name.rpartition(".")[0]
    for node in module.nodes:
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, (base if node.level else "", node.module)))
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        for target in targets:
            name = target
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name:
                yield name


def folder_graph(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Return which folders each folder of `bridge/` imports."""
    folders = {module.name: module.folder for module in modules}
    graph: dict[str, set[str]] = {folder: set() for folder in folders.values()}
    for module in modules:
        graph[module.folder].update(folders[name] for name in imported_modules(module, set(folders)))
    return {folder: targets - {folder} for folder, targets in graph.items()}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    pending = [start]
    while pending:
        new = graph[pending.pop()] - seen
        seen |= new
        pending.extend(new)
    return seen


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return the groups of folders which import each other, over others or directly."""
    closure = {folder: reachable(graph, folder) for folder in graph}
    groups = {
        tuple(sorted(other for other in closure[folder] if folder in closure[other]))
        for folder in graph
        if folder in closure[folder]
    }
    return [" <-> ".join(group) for group in sorted(groups)]


# --- tests ---


def test_names(modules: Iterable[Module]) -> list[tuple[str, str, int]]:
    """Return name, path and line of every test."""
    return [
        (node.name, module.path, node.lineno)
        for module in modules
        for node in module.nodes
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_")
    ]


test_names.__test__ = False  # a helper with the name of what it returns, no test of pytest's


def long_test_names(modules: Iterable[Module], limit: int = TEST_NAME_WORDS) -> list[str]:
    return [
        f"{path}:{line}: {name}"
        for name, path, line in test_names(modules)
        if len(name.removeprefix("test_").split("_")) > limit
    ]


def repeated_test_names(modules: Iterable[Module]) -> list[str]:
    """Return the test names which stand in two or more files."""
    paths: dict[str, set[str]] = defaultdict(set)
    for name, path, _ in test_names(modules):
        paths[name].add(path)
    return [f"{name}: {', '.join(sorted(where))}" for name, where in sorted(paths.items()) if len(where) > 1]


# --- prose ---

_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"^ *(?:\||#|<|\[[^\]]+\]:|!\[|[-*_=]{3,} *$|: *$).*$", re.MULTILINE)
_QUOTE = re.compile(r"^ *> ?", re.MULTILINE)
_ITEM = re.compile(r"^ *(?:[-*+]|\d+[.)]) +", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_CODE_SPAN = re.compile(r"`[^`]*`")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9])")
_WORD = re.compile(r"[^\W_](?:[\w'\u2019.,/-]*\w)?")


def sentences(markdown: str) -> list[int]:
    """Return the words of each sentence; code, tables and headings are no sentences, a span of code is one word."""
    text = _QUOTE.sub("", _FENCE.sub("\n", markdown))
    text = _CODE_SPAN.sub("Code", _LINK.sub(r"\1", _ITEM.sub("\n", _NOT_PROSE.sub("\n", text))))
    paragraphs = re.split(r"\n\s*\n", text)
    counts = (len(_WORD.findall(part)) for paragraph in paragraphs for part in _SENTENCE_END.split(paragraph))
    return [count for count in counts if count]


# --- all of it ---


def code_figures(code: Sequence[Module]) -> Iterator[Figure]:
    bridge = [module for module in code if module.path.startswith("bridge/")]
    flat = flat_modules(bridge)
    yield figure("flat modules", flat, "files *.py directly in bridge/")
    counted = [module for module in code if not module.path.startswith(("bridge/testing/", "bridge/simulator/"))]
    yield figure("long files", long_files(counted), f"over {FILE_LINES} lines, without bridge/testing and /simulator")
    yield figure("long classes", long_classes(code), f"over {CLASS_LINES} lines")
    yield figure("ambiguous class names", ambiguous_class_names(code), "public, defined in two or more modules")
    yield figure("pronoun bindings", pronoun_bindings(code), f"values called {', '.join(sorted(PRONOUNS))}")

    constants = [(module, *constant) for module in code for constant in numeric_constants(module)]
    yield Figure("numeric constants", len(constants), "of modules and classes, without enumerations")
    bare = [f"{module.path}:{line}: {name}" for module, name, line, explained in constants if not explained]
    yield figure("unexplained constants", bare, "no unit in the name, no docstring, no comment on the line")

    sizes = functions(code)
    lines = [size for size, _ in sizes]
    yield Figure("functions", len(sizes), "with a body; lines are counted after the docstring")
    yield Figure("function median", statistics.median(lines) if lines else 0, "lines")
    yield Figure("function p95", percentile(lines, 0.95), "lines")
    yield figure("long functions", [place for size, place in sizes if size > FUNCTION_LINES], "over 50 lines")
    nested = [nesting(node) for module in code for node in module.nodes if isinstance(node, FUNCTIONS)]
    yield Figure("deepest nesting", max(nested, default=0), "compound statements in each other in one function")

    graph = folder_graph(bridge)
    yield Figure("folders", len(graph), "with modules in bridge/; a flat module counts as one")
    yield Figure("arrows", sum(map(len, graph.values())), "imports from one folder to another")
    yield figure("import circles", circles(graph), "groups of folders that import each other")


def test_figures(tests: Sequence[Module]) -> Iterator[Figure]:
    yield Figure("tests", len(test_names(tests)), "functions in tests/")
    yield figure("long test files", long_files(tests, TEST_FILE_LINES), f"over {TEST_FILE_LINES} lines")
    yield figure("long test names", long_test_names(tests), f"over {TEST_NAME_WORDS} words after test_")
    yield figure("repeated test names", repeated_test_names(tests), "in two or more files")
    yield figure("pronoun bindings in tests", pronoun_bindings(tests), "as above, in tests/")


test_figures.__test__ = False  # a generator of figures about tests, no test of pytest's


def prose_figures(pages: dict[str, str]) -> Iterator[Figure]:
    counts = {path: sentences(text) for path, text in pages.items()}
    words = [count for page in counts.values() for count in page]
    means = tuple(f"{path}: {statistics.mean(page):.1f} words" for path, page in counts.items() if page)
    mean = round(statistics.mean(words), 1) if words else 0
    yield Figure("words per sentence", mean, "mean of README and docs, without code and tables", places=means)
    yield Figure("longest sentence", max(words, default=0), "words")


def figure(name: str, places: Sequence[str], meaning: str) -> Figure:
    return Figure(name, len(places), meaning, GOALS.get(name), tuple(places))


def measure(root: Path) -> dict[str, Figure]:
    """Measure a checkout."""
    code = read(root, "bridge/**/*.py", "plugins/*/bridge_*/**/*.py")
    tests = read(root, "tests/**/*.py")
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    pages = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.is_file()}
    figures = [*code_figures(code), *test_figures(tests), *prose_figures(pages)]
    return {measured.name: measured for measured in figures}


def table(figures: Iterable[Figure], shown: int | None) -> Iterator[str]:
    for measured in figures:
        goal = "" if measured.goal is None else f"goal {measured.goal}"
        yield f"{measured.name:<26}{measured.value:>8g}  {goal:<8}{measured.meaning}"
        yield from (f"    {place}" for place in measured.places[:shown])
        if shown is not None and len(measured.places) > shown > 0:
            yield f"    and {len(measured.places) - shown} more"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Print figures of a checkout's shape.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[2], metavar="ROOT")
    parser.add_argument("--json", action="store_true", help="print JSON, with all places")
    parser.add_argument("--all", action="store_true", help="list all places")
    parser.add_argument("--brief", action="store_true", help="list no places")
    options = parser.parse_args(arguments)
    if not (options.root / "bridge").is_dir():
        parser.error(f"{options.root} has no folder bridge/")
    figures = measure(options.root)
    if options.json:
        print(json.dumps({name: asdict(measured) for name, measured in figures.items()}, indent=2))
    else:
        shown = None if options.all else 0 if options.brief else 12
        print("\n".join(table(figures.values(), shown)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
