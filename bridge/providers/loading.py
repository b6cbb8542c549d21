"""Reads a definition from its file, or by the name under which it is installed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from bridge.config import yaml_document
from bridge.config.validation import validate
from bridge.config.yaml_document import Document, Place
from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.providers.checks import contradictions
from bridge.providers.models import Definition

GROUP = "bridge.providers"
_STARTER = "bridgectl providers new"
_TUTORIAL = "write a source for it, see docs/tutorial/first-source.md"
_TEMPLATE = re.compile(r"\{\{|\{%|\$\{")
_NO_TEMPLATES = "templates are not read here; name a setting instead, or a path such as $.id"
_NOT_SAID: Mapping[tuple[str, ...], str] = {
    ("drain",): f"a queue that is emptied by reading it has no definition; {_TUTORIAL}",
    ("listing", "ack"): f"a read that is itself the acknowledgement loses what a crash cuts off; {_TUTORIAL}",
    ("listing", "read_once"): f"a read that is itself the acknowledgement loses what a crash cuts off; {_TUTORIAL}",
    ("listing", "method"): f"every list is asked with GET, which may be repeated; {_TUTORIAL}",
    ("listing", "body"): f"every list is asked with GET, which has no body; {_TUTORIAL}",
    ("identity", "scope"): "the bridge chooses the scope itself, so that none can lose events; remove it",
    ("identity", "id"): "the bridge computes the ids of events itself; remove it, and give `key` and maybe `mark`",
    ("cursor",): "the bridge keeps the cursor itself; remove it",
    ("auth", "script"): f"no code is run; {_TUTORIAL}",
    ("transform",): f"no code is run; {_TUTORIAL}",
}
"""What cannot be said, and the remedy, by its place in the file."""


def installed() -> dict[str, tuple[str, str]]:
    """Return the installed definitions in alphabetical order: the package that holds each, and its distribution."""
    points = entry_points(group=GROUP)
    return {point.name: (point.value, point.dist.name if point.dist else "") for point in sorted(points)}


def find(provider: str, folder: Path) -> Path:
    """Return the file that a configuration in `folder` means by `provider`: a path, or an installed definition.

    Raises `ValueError` that says which ones are installed.
    """
    if "/" in provider or provider.endswith((".yaml", ".yml")):
        return folder / Path(provider).expanduser()
    known = installed()
    if provider not in known:
        near = difflib.get_close_matches(provider, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no definition {provider!r} is installed; {meant}installed: {', '.join(known) or 'none'}; a file has a "
            "path, such as ./mine.yaml"
        )
    with as_file(files(known[provider][0]) / f"{provider}.yaml") as path:
        return path


def load(path: Path) -> Definition:
    """Read and check a definition; raises `ConfigError` with everything that is wrong with it.

    A file that has not changed is not read again, so that all its sources share their classes of events.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        stamp = (0, 0)
    else:
        stamp = (status.st_mtime_ns, status.st_size)
    return _load(path, stamp)


@lru_cache(maxsize=128)
def _load(path: Path, stamp: tuple[int, int]) -> Definition:
    del stamp
    return check(yaml_document.read(path, {}, _STARTER))


def check(document: Document) -> Definition:
    """Return the definition that a document holds; raises `ConfigError` with everything that is wrong with it."""
    problems = [*_templates(document), *_unsayable(document)]
    said = {(problem.line, problem.key) for problem in problems}
    problems += [problem for problem in document.problems if (problem.line, problem.key) not in said]
    checked = validate(Definition, document.values, (), document)
    if isinstance(checked, Definition):
        problems += [document.problem(place, text) for place, text in contradictions(checked)]
    else:
        problems += [problem for problem in checked if (problem.line, problem.key) not in said]
    if problems or not isinstance(checked, Definition):
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return checked


def _unsayable(document: Document) -> Iterator[ConfigProblem]:
    for place, text in _NOT_SAID.items():
        value: Any = document.values
        for key in place:
            value = value.get(key, document) if isinstance(value, dict) else document
        if value is not document:
            yield document.problem(place, text)


def _templates(document: Document) -> Iterator[ConfigProblem]:
    for place in document.expanded:
        yield document.problem(place, _NO_TEMPLATES)
    for place, text in _texts(document.values, ()):
        if place[0] != "samples" and place not in document.expanded and _TEMPLATE.search(text):
            yield document.problem(place, _NO_TEMPLATES)


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str) and place:
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*place, index))
