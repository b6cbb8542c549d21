"""The counters behind the figures, on small samples: each sees what it is there for, and nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from house import figures
from house.figures import GOALS, Module


def module(text: str, path: str = "bridge/sample.py") -> Module:
    return Module(path, dedent(text))


def function(text: str) -> figures.Function:
    return next(node for node in ast.walk(ast.parse(dedent(text))) if isinstance(node, figures.FUNCTIONS))


def test_flat_modules_are_files_directly_in_the_package() -> None:
    paths = ["bridge/__init__.py", "bridge/plugin.py", "bridge/domain/event.py", "plugins/x/bridge_x/sink.py"]
    assert figures.flat_modules(Module(path, "") for path in paths) == paths[:2]


def test_long_file_begins_behind_the_limit() -> None:
    assert figures.long_files([module("a = 1\n" * 3)], limit=3) == []
    assert figures.long_files([module("a = 1\n" * 4)], limit=3) == ["bridge/sample.py: 4 lines"]


def test_long_class_is_counted_with_its_first_and_last_line() -> None:
    sample = module("class A:\n    x = 1\n    y = 2\n")
    assert figures.long_classes([sample], limit=3) == []
    assert figures.long_classes([sample], limit=2) == ["bridge/sample.py:1: A, 3 lines"]


def test_class_name_in_two_modules_is_ambiguous() -> None:
    first = module("class Store: ...\nclass _Inner: ...\nclass Alone: ...", "bridge/a.py")
    second = module("class _Inner: ...\nclass Store(Protocol): ...", "bridge/b.py")
    assert figures.ambiguous_class_names([first, second]) == ["Store: bridge/a.py:1, bridge/b.py:2"]


def test_class_defined_twice_in_one_module_has_one_place() -> None:
    twice = module("if x:\n    class Store: ...\nelse:\n    class Store: ...")
    assert figures.ambiguous_class_names([twice]) == []


BINDINGS = {
    "assignment": "one = 1",
    "unpacking": "first, (one, *rest) = value",
    "annotated assignment": "one: int = 1",
    "annotated field": "class A:\n    one: int",
    "augmented assignment": "one += 1",
    "parameter": "def f(one): ...",
    "position-only parameter": "def f(one, /): ...",
    "keyword parameter": "def f(*, one=1): ...",
    "variable parameters": "def f(*one): ...",
    "lambda parameter": "f = lambda one: 1",
    "for target": "for one in values: ...",
    "comprehension target": "[1 for one in values]",
    "with target": "with a as one: ...",
    "caught error": "try: ...\nexcept ValueError as one: ...",
    "walrus": "if (one := f()): ...",
    "match capture": "match x:\n    case one: ...",
    "match alias": "match x:\n    case int() as one: ...",
    "match star": "match x:\n    case [1, *one]: ...",
    "match rest": "match x:\n    case {1: 2, **one}: ...",
    "attribute": "self.one = 1",
    "private attribute": "self._one = 1",
    "import": "import module as one",
    "name import": "from module import one",
}


@pytest.mark.parametrize("form", BINDINGS)
def test_pronoun_binding_is_counted_once(form: str) -> None:
    assert len(figures.pronoun_bindings([module(BINDINGS[form])])) == 1


@pytest.mark.parametrize("pronoun", sorted(figures.PRONOUNS))
def test_every_pronoun_is_counted(pronoun: str) -> None:
    assert figures.pronoun_bindings([module(f"\n{pronoun} = 1")]) == [f"bridge/sample.py:2: {pronoun}"]


@pytest.mark.parametrize("text", ["f(one)", "def one(): ...", "f(one=1)", "x.one", "someone = 1", "a = 'one'"])
def test_use_of_a_pronoun_is_no_binding(text: str) -> None:
    assert figures.pronoun_bindings([module(text)]) == []


def constants(text: str) -> list[tuple[str, int, bool]]:
    return list(figures.numeric_constants(module(text)))


@pytest.mark.parametrize("value", ["5", "5.0", "-1", "64 * 1024", "30 * 86400.0", "1 << 20", "0x42", "10**6 - 1"])
def test_number_and_arithmetic_on_numbers_are_constants(value: str) -> None:
    assert constants(f"_LIMIT = {value}") == [("_LIMIT", 1, False)]
    assert constants(f"LIMIT: Final = {value}") == [("LIMIT", 1, False)]


@pytest.mark.parametrize("line", ["A = True", "A = 'x'", "a = 1", "A = f(1)", "A = B * 2", "A = (1, 2)", "x.A = 1"])
def test_other_values_are_no_numeric_constants(line: str) -> None:
    assert constants(line) == []


def test_constants_of_functions_and_enumerations_are_left_out() -> None:
    assert constants("def f():\n    LIMIT = 1\n") == []
    assert constants("class Code(enum.IntEnum):\n    DONE = 0\n") == []
    assert constants("class Bit(IntFlag):\n    DONE = 1\n") == []
    assert constants("class Limits:\n    DONE = 0\n") == [("DONE", 2, False)]


@pytest.mark.parametrize(
    "text",
    [
        "TIMEOUT_SECONDS = 5",
        "_BODY_BYTES = 5",
        "MAX_BYTES_PER_PAGE = 5",
        "RATE_PER_SECOND = 5",
        "TIMEOUT = 5\n'''Seconds for a connection.'''",
        "TIMEOUT = 5  # seconds for a connection",
        "TIMEOUT = (\n    5\n)  # seconds for a connection",
    ],
)
def test_unit_docstring_or_comment_explains_a_constant(text: str) -> None:
    assert [explained for _, _, explained in constants(text)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "TIMEOUT = 5",
        "TIMEOUT = 5  # type: int",
        f"TIMEOUT = 5  #{' noqa'}: PLR2004",
        "TIMEOUT = 5  # 5",
        "# seconds\nTIMEOUT = 5",
        "SECONDSTIMEOUT = 5",
        "TIMEOUT = 5\nf('seconds')",
        "TIMEOUT = 5\nx = 1\n'''Seconds.'''",
        "RATE_PER = 5",
    ],
)
def test_constant_without_unit_docstring_or_comment_is_unexplained(text: str) -> None:
    assert [explained for _, _, explained in constants(text)] == [False]


def test_docstring_explains_the_constant_before_it_alone() -> None:
    assert constants("A = 1\nB = 2\n'''Seconds.'''") == [("A", 1, False), ("B", 2, True)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def f():\n    return 1", 1),
        ("def f(\n    a,\n):\n    '''Doc.\n\n    More.\n    '''\n    a = 1\n\n    # why\n    return a", 4),
        ("async def f():\n    x = 1\n    await x", 2),
        ("def f(): return 1", 1),
        ("def f():\n    return (\n        1\n    )", 3),
    ],
)
def test_body_is_counted_after_the_docstring(text: str, lines: int) -> None:
    assert figures.body_lines(function(text)) == lines


@pytest.mark.parametrize("body", ["...", "pass", "'''Doc.'''", "'''Doc.'''\n    ...", "'''Doc.'''\n    pass"])
def test_declaration_is_no_function_to_count(body: str) -> None:
    text = f"def f():\n    {body}"
    assert figures.body_lines(function(text)) is None
    assert figures.functions([module(text)]) == []


def test_methods_and_inner_functions_are_counted() -> None:
    text = "class A:\n    def f(self):\n        def g():\n            return 1\n        return g"
    assert [lines for lines, _ in figures.functions([module(text)])] == [3, 1]


@pytest.mark.parametrize(
    ("values", "expected"), [([], 0), ([7], 7), (list(range(1, 101)), 95), (list(range(20, 0, -1)), 19)]
)
def test_percentile_is_a_value_that_the_share_does_not_exceed(values: list[int], expected: int) -> None:
    assert figures.percentile(values, 0.95) == expected


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("return 1", 0),
        ("if a:\n        return 1", 1),
        ("if a:\n        pass\n    elif b:\n        pass\n    elif c:\n        pass", 1),
        ("if a:\n        pass\n    else:\n        for x in y:\n            pass", 2),
        ("with a:\n        for x in y:\n            if x:\n                pass", 3),
        ("try:\n        pass\n    except E:\n        while x:\n            pass", 2),
        ("match a:\n        case 1:\n            if b:\n                pass", 2),
        ("def g():\n        if a:\n            pass", 0),
    ],
)
def test_nesting_counts_compound_statements_in_each_other(body: str, depth: int) -> None:
    assert figures.nesting(function(f"def f():\n    {body}")) == depth


def test_folders_are_read_from_paths() -> None:
    paths = {
        "bridge/__init__.py": "__init__",
        "bridge/event.py": "event",
        "bridge/domain/__init__.py": "domain",
        "bridge/domain/event.py": "domain",
        "bridge/sources/govdelivery/api.py": "sources/govdelivery",
    }
    assert {path: Module(path, "").folder for path in paths} == paths


def test_arrows_follow_every_form_of_import() -> None:
    modules = [
        module("", "bridge/__init__.py"),
        module("", "bridge/a/__init__.py"),
        module("X = 1", "bridge/a/one_module.py"),
        module("", "bridge/b/__init__.py"),
        module("import bridge.a.one_module", "bridge/b/absolute.py"),
        module("from bridge.a.one_module import X", "bridge/c/names.py"),
        module("from bridge.a import one_module", "bridge/d/modules.py"),
        module("def f():\n    from ..a import one_module", "bridge/e/relative.py"),
        module("if TYPE_CHECKING:\n    from bridge.a.one_module import X", "bridge/f/types_alone.py"),
        module("from . import absolute\nimport json, asyncio\nfrom bridgehead import a", "bridge/b/inside.py"),
    ]
    assert figures.folder_graph(modules) == {
        "__init__": set(),
        "a": set(),
        "b": {"a"},
        "c": {"a"},
        "d": {"a"},
        "e": {"a"},
        "f": {"a"},
    }


def test_circle_over_several_folders_is_named() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert figures.circles(graph) == ["a <-> b <-> c", "f <-> g"]
    assert figures.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_long_test_name_begins_behind_the_limit() -> None:
    sample = module("def test_a_b(): ...\nasync def test_a_b_c(): ...\ndef helper_with_many_words(): ...", "tests/t.py")
    assert figures.long_test_names([sample], limit=2) == ["tests/t.py:2: test_a_b_c"]


def test_test_name_repeated_in_another_file_is_named() -> None:
    first = module("def test_a(): ...\ndef test_b(): ...\ndef helper(): ...", "tests/a.py")
    second = module("class TestX:\n    def test_a(self): ...\ndef helper(): ...", "tests/b.py")
    assert figures.repeated_test_names([first, second]) == ["test_a: tests/a.py, tests/b.py"]
    assert figures.repeated_test_names([first]) == []


@pytest.mark.parametrize(
    ("markdown", "counts"),
    [
        ("One two three. Four five.", [3, 2]),
        ("One two\nthree four.\n\nFive six", [4, 2]),
        ("# A heading\n\nOne two.", [2]),
        ("One two.\n\n```sh\nbridge run and much more\n```\n\nThree four.", [2, 2]),
        ("| a b c | d |\n| --- | --- |\n\nOne two.", [2]),
        ("- One two\n- Three four five", [2, 3]),
        ("Run `bridge run -c FILE` now.", [3]),
        ("See [the long page](docs/page.md) here.", [5]),
        ("It takes 1.5 s, e.g. here. **Then** it ends.", [6, 3]),
        ("```\nno prose\n```", []),
    ],
)
def test_sentences_are_prose_alone(markdown: str, counts: list[int]) -> None:
    assert figures.sentences(markdown) == counts


def sample_checkout(root: Path) -> None:
    files = {
        "bridge/__init__.py": "",
        "bridge/flat.py": "LIMIT = 1\nfor one in ():\n    pass\n",
        "bridge/domain/event.py": "class Event:\n    def f(self):\n        return 1\n",
        "bridge/testing/suite.py": "x = 1\n" * 500,
        "plugins/bridge-slack/bridge_slack/sink.py": "class Event: ...\n",
        "plugins/bridge-slack/other/sink.py": "class Event: ...\nfor each in (): ...\n",
        "tests/unit/test_a.py": "def test_a():\n    told = 1\n",
        "README.md": "One two three.\n",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_checkout_of_any_layout_is_measured(tmp_path: Path) -> None:
    sample_checkout(tmp_path)
    measured = {name: figure.value for name, figure in figures.measure(tmp_path).items()}
    assert measured["flat modules"] == 2
    assert measured["long files"] == 0
    assert measured["ambiguous class names"] == 1
    assert measured["pronoun bindings"] == 1
    assert measured["pronoun bindings in tests"] == 1
    assert measured["unexplained constants"] == 1
    assert measured["functions"] == 1
    assert measured["words per sentence"] == 3
    assert GOALS.keys() <= measured.keys()


def test_script_prints_a_table_or_json(tmp_path: Path) -> None:
    sample_checkout(tmp_path)

    def run(*options: str) -> str:
        command = [sys.executable, figures.__file__, str(tmp_path), *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "    bridge/flat.py:1: LIMIT\n" in run()
    assert "bridge/flat.py" not in run("--brief")
    assert json.loads(run("--json"))["flat modules"]["value"] == 2


def test_script_refuses_what_is_no_checkout(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, figures.__file__, str(tmp_path)], capture_output=True, check=False)
    assert result.returncode == 2
