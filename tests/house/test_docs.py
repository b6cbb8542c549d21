"""What can be typed, set, received or read is explained, and documented exactly once."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest
from catalogue import CATALOGUE
from house.figures import sentences
from house.test_imports import SEES

from bridge import plugin
from bridge.cli import cli
from bridge.cli.support.options import Exit
from bridge.config import registry
from bridge.config.model import Config
from bridge.delivery.sending import RESULTS
from bridge.domain.event import Transition
from bridge.domain.settings import Settings
from bridge.observability.metrics import Metrics
from bridge.testing.kill_points import POINTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LEVELS = {"debug", "info", "warning", "error"}
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LOG_EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]


def table(text: str) -> list[list[str]]:
    """Return the cells of all table rows of a text, without the heads."""
    lines = [line for line in FENCE.sub("", text).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    heads = {index - 1 for index, row in enumerate(cells) if set("".join(row)) <= set("-| ")}
    return [row for index, row in enumerate(cells) if index not in heads and index - 1 not in heads]


def rows(page: str, heading: str = "") -> list[list[str]]:
    """Return the rows of a page, or only those below one of its headings, up to the next one of its level."""
    text = (DOCS / page).read_text()
    if heading:
        level = heading.partition(" ")[0]
        assert f"\n{heading}\n" in text
        text = re.split(rf"^{level} ", text.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]
    return table(text)


def first_cells(page: str, heading: str = "") -> list[str]:
    return [row[0].strip("`") for row in rows(page, heading)]


@cache
def documented() -> Counter[str]:
    """Count how often a name in code heads a row, over all pages."""
    return Counter(row[0].strip("`") for page in pages() for row in table(page.read_text()) if row[0].startswith("`"))


# --- commands, settings, events: generated pages ----------------------------------------------------------------------


def test_generated_pages_match_the_code() -> None:
    made = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, f"{made.stdout}{made.stderr}; run `python docs/generate.py`"


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{path} {name} is listed and cannot be had"
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(cli, "bridgectl"))


@pytest.mark.parametrize("path", COMMANDS)
def test_command_helps_with_examples_of_itself(path: str) -> None:
    context = click.Context(COMMANDS[path], info_name=path, max_content_width=100)
    help_page = COMMANDS[path].get_help(context)
    examples = help_page.partition("Examples")[2]
    assert path in examples


def inner(model: type[Settings]) -> Iterator[type[Settings]]:
    yield model
    for field in model.model_fields.values():
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, Settings):
                yield from inner(annotation)


def models() -> dict[str, type[Settings]]:
    by_name = {model.__name__: model for model in inner(Config)}
    for kind in registry.KINDS:
        for name in registry.installed(kind):
            by_name |= {f"{kind} {name}": model for model in inner(registry.load(kind, name).settings)}
    return by_name


@pytest.mark.parametrize("name", models())
def test_every_setting_is_explained(name: str) -> None:
    assert [key for key, field in models()[name].model_fields.items() if not field.description] == []


def test_setting_is_documented_once_in_its_part() -> None:
    parts = re.split(r"^##+ ", (DOCS / "reference" / "configuration.md").read_text(), flags=re.MULTILINE)
    for part in parts:
        keys = Counter(row[0] for row in table(part))
        assert [key for key, count in keys.items() if count > 1] == [], part.partition("\n")[0]


def test_our_own_sources_and_sinks_are_installed() -> None:
    assert {"govdelivery", "marketingcloud", "spacivox"} <= set(registry.installed("source"))
    assert {"archive", "email", "slack", "stdout", "webhook"} <= set(registry.installed("sink"))


EVENTS = dict.fromkeys(
    [*CATALOGUE, *(event for name in registry.installed("source") for event in registry.load_source(name).events)]
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_is_explained_once(event: type) -> None:
    assert event.__doc__
    assert documented()[event.__name__] == 1


def test_every_name_for_plugins_is_explained_once() -> None:
    names = [row[0].partition("]")[0].strip("[`") for row in rows("reference/plugin-names.md") if row[1]]
    assert sorted(names) == sorted(plugin.__all__)


# --- metrics, log events, states, exit codes: pages that are compared with the code -----------------------------------


def test_metrics_page_has_every_metric_once() -> None:
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family for family in Metrics().registry.collect()
    }
    written = {row[0].strip("`"): row[1] for row in rows("reference/metrics.md") if row[0].startswith("`")}
    assert written == {name: family.type for name, family in families.items()}
    assert {name: documented()[name] for name in families} == dict.fromkeys(families, 1)


def test_metrics_page_has_every_label() -> None:
    metrics = [metric for metric in vars(Metrics()).values() if hasattr(metric, "_labelnames")]
    labels = {metric._name: metric._labelnames for metric in metrics}
    written = {
        row[0].strip("`").removesuffix("_total"): tuple(filter(None, row[2].split(", ")))
        for row in rows("reference/metrics.md")
        if row[0].startswith("`bridge_")
    }
    assert written == labels


def log_calls(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each log event of a module: its name and its level; of `log.log(level, …)`, the name alone.

    If a name is handed down to the call, every literal of the module that looks like one counts.
    """
    tree = ast.parse(path.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        if owner not in {"log", "structlog.get_logger()"} or node.func.attr not in LEVELS | {"log"}:
            continue
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        for name in words[:1] or filter(LOG_EVENT.fullmatch, texts):
            yield name, node.func.attr


@cache
def log_events() -> dict[str, set[str]]:
    """Return the levels of each log event of the bridge and of its plugins."""
    levels: dict[str, set[str]] = {}
    for top in ("bridge", "plugins"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if "testing" in path.parts:
                continue
            for name, level in log_calls(path):
                levels.setdefault(name, set()).add(level)
    return levels


def test_log_events_page_has_every_event_once() -> None:
    written = first_cells("reference/log-events.md")
    assert set(log_events()) - set(written) == set(), "logged, and not documented"
    assert set(written) - set(log_events()) == set(), "documented, and logged nowhere"
    assert {name: documented()[name] for name in written if documented()[name] != 1} == {}


def test_log_events_page_has_each_level() -> None:
    written = {row[0].strip("`"): row[1] for row in rows("reference/log-events.md")}
    calls = {name: levels - {"log"} for name, levels in log_events().items()}
    assert {name: levels for name, levels in calls.items() if levels and written.get(name) not in levels} == {}


def test_exit_codes_page_has_every_code() -> None:
    written = [(row[0].strip("`"), row[1]) for row in rows("reference/exit-codes.md") if row[0].strip("`").isdecimal()]
    assert written == [(str(code.value), code.name.lower()) for code in Exit]
    assert {name: documented()[name] for name, _ in written} == {str(code.value): 1 for code in Exit}


def test_help_has_every_exit_code() -> None:
    help_page = cli.get_help(click.Context(cli, info_name="bridgectl")).partition("Exit codes:")[2]
    codes = re.findall(r"^ +(\d+) {2,}", help_page, re.MULTILINE)
    assert codes == [str(code.value) for code in Exit]


def literals(*folders: str) -> set[str]:
    """Return all texts in the code of some folders of the bridge."""
    return {
        node.value
        for folder in folders
        for path in (ROOT / "bridge" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def tuples_with(word: str, *folders: str) -> set[str]:
    """Return the texts of every tuple that has a word, in the code of some folders."""
    return {
        element.value
        for folder in folders
        for path in (ROOT / "bridge" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Tuple) and word in {getattr(element, "value", None) for element in node.elts}
        for element in node.elts
        if isinstance(element, ast.Constant)
    }


def test_states_page_has_every_state_of_a_source() -> None:
    shown = {"never polled", "not polled", "late", "unknown"}  # by commands, and reported by no process
    assert shown <= literals("runtime")
    assert set(first_cells("reference/states.md", "## States of a source")) == shown | tuples_with("stalled", "runtime")


def test_states_page_has_every_state_of_a_sink() -> None:
    written = set(first_cells("reference/states.md", "## States of a sink"))
    assert written == {"ok", "paused", "quiet", "circuit open", "disabled", "not delivering", "unknown"}
    assert written <= literals("runtime")
    assert set(first_cells("reference/states.md", "## States of a process")) == {"ok", "not ready", "gone"}


def test_states_page_has_every_problem_of_status() -> None:
    text = (ROOT / "bridge" / "runtime" / "overview.py").read_text()
    codes = set(re.findall(r'StatusFinding\(\s*"([a-z-]+)"', text))
    codes |= {"source-stalled", "source-held"}  # made from the state
    remarks = {"source-failing", "generations-differ", "earlier-version", "sink-quiet", "sink-muted"}
    cells = " ".join(row[0] for row in rows("reference/states.md", "## Problems that status finds"))
    assert set(re.findall(r"`([a-z-]+)`", cells)) == codes - remarks
    page = (ROOT / "docs" / "reference" / "states.md").read_text()
    assert all(f"`{remark}`" in page for remark in remarks)


def test_states_page_has_every_result_and_transition() -> None:
    assert first_cells("reference/states.md", "## Results of an attempt") == list(RESULTS)
    assert first_cells("reference/states.md", "## Transitions") == [transition.value for transition in Transition]
    assert set(first_cells("reference/states.md", "## Results of a poll")) == {"ok", "partial", "failed"}


def test_states_page_has_every_reason_of_a_dead_letter() -> None:
    given_up = set()
    for folder in ("domain", "delivery"):
        for path in (ROOT / "bridge" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("GiveUp", "dead_letter")):
                    given_up |= {word.value for word in node.args if isinstance(word, ast.Constant) and word.value}
    of_the_relay = "refused"
    assert of_the_relay in literals("relay")
    assert set(first_cells("reference/states.md", "## Reasons of a dead letter")) == given_up | {of_the_relay}


def test_states_page_has_every_difference() -> None:
    words = set(first_cells("reference/states.md", "## Differences that reconcile finds"))
    assert words <= literals("reconciliation")
    assert words == {"missing", "status", "gone", "withheld", "event", "unconfirmed", "undelivered"}


# --- explanation ------------------------------------------------------------------------------------------------------


def test_delivery_page_has_the_price_of_every_crash() -> None:
    written = [(row[1], row[3], row[4]) for row in rows("explanation/delivery.md", "## Where a crash can come")]
    assert written == [(point.name, point.to_consumers, point.to_sink) for point in POINTS]


def rooms() -> dict[str, str]:
    """Return what each folder of the bridge may import, in the words of the page."""
    return {row[0].strip("`/"): row[2] for row in rows("explanation/architecture.md", "## Rooms")}


def test_architecture_page_has_every_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "bridge").glob("*/__init__.py")}
    assert set(rooms()) == folders


def test_architecture_page_says_what_a_foundation_may_import() -> None:
    written = {name: set(rooms()[name].split(", ")) - {"nothing of the bridge"} for name in SEES}
    assert written == SEES


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    named = re.findall(r"`((?:bridge|tests|benchmarks|docs|config|plugins)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


# --- glossary and index -----------------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", FENCE.sub("", page.read_text())).lower()


def test_pages_with_glossary_words_link_the_glossary() -> None:
    nouns = first_cells("glossary.md")
    assert 18 <= len(nouns) <= 28
    words = re.compile(rf"\b(?:{'|'.join(nouns)})s?\b")
    pages_with_words = [page for page in DOCS.rglob("*.md") if page.name != "glossary.md" and words.search(prose(page))]
    assert [page for page in pages_with_words if "glossary.md)" not in page.read_text()] == []


def test_index_links_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    targets = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#:]+)", index)}
    assert sorted({*DOCS.rglob("*.md")} - targets - {DOCS / "README.md"}) == []


# --- plain English ----------------------------------------------------------------------------------------------------

MEAN_WORDS, LONGEST_WORDS = 15, 30


def test_sentences_are_short() -> None:
    words = {page: sentences(page.read_text()) for page in pages()}
    everything = [count for counts in words.values() for count in counts]
    assert statistics.mean(everything) <= MEAN_WORDS
    assert {page.name: max(counts) for page, counts in words.items() if counts and max(counts) > LONGEST_WORDS} == {}
