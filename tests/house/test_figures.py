"""The shape of the repository holds for good: sizes, names, constants, imports and tests stay within their goals."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from house.figures import GOALS, Figure, measure

ROOT = Path(__file__).parents[2]

# Lines of a function's body after its docstring, over all functions: what they were before the code was put into
# folders. Splitting long files must not be paid for with longer functions.
FUNCTION_MEDIAN_LINES = 5
FUNCTION_P95_LINES = 18

REMEDIES = {
    "flat modules": "move modules into the folder of their stage; bridge/ has __init__, __main__ and plugin",
    "long files": "split them where their parts know little of each other",
    "long classes": "move a part with a state of its own into a class of its own",
    "ambiguous class names": "give each class a name that no other class has",
    "pronoun bindings": "name what the value is: event, match, sink",
    "pronoun bindings in tests": "name what the value is: event, match, sink",
    "unexplained constants": "put the unit into the name, or into a docstring after the constant",
    "import circles": "pass a value or a callable down instead of importing up",
    "long test files": "split them by the module that they test",
    "long test names": "say subject, verb and outcome in at most ten words",
    "repeated test names": "name what differs between the files",
}


@cache
def figures() -> dict[str, Figure]:
    return measure(ROOT)


@pytest.mark.parametrize("name", GOALS)
def test_figure_stays_within_its_goal(name: str) -> None:
    figure = figures()[name]
    places = "\n".join(figure.places)
    assert figure.value <= GOALS[name], (
        f"{name}: {figure.value} instead of at most {GOALS[name]} ({figure.meaning}): {REMEDIES[name]}\n{places}"
    )


@pytest.mark.parametrize(
    ("name", "limit"), [("function median", FUNCTION_MEDIAN_LINES), ("function p95", FUNCTION_P95_LINES)]
)
def test_functions_stay_short(name: str, limit: int) -> None:
    figure = figures()[name]
    assert figure.value <= limit, f"{name}: {figure.value:g} {figure.meaning} instead of at most {limit}"


def test_figures_are_taken_from_real_code() -> None:
    measured = figures()
    assert measured["functions"].value > 1000
    assert measured["numeric constants"].value > 100
    assert measured["folders"].value > 10
    assert measured["tests"].value > 500
    assert measured["words per sentence"].value > 5
