"""Reading a configuration for commands that need no secret: variables and files of secrets may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import create_model

from bridge.config.validation import validate
from bridge.config.yaml_document import Document, Place, format_path
from bridge.domain.errors import ConfigProblem
from bridge.domain.settings import Settings
from bridge.protocols.source import SourceSettings

S = TypeVar("S", bound=Settings)

UNSET = "unset"
"""What stands for a secret that was not read, and for a variable that is not set."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PARTS = ("sources", "sinks", "privacy_key")
"""Keys of the file whose values a reading command can do without."""


def environment(path: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with a value for each variable of a file that is not set and has no default."""
    with suppress(OSError, UnicodeDecodeError):
        return dict.fromkeys(_VARIABLE.findall(path.read_text(encoding="utf-8")), UNSET) | dict(environ)
    return environ


def note_unset(document: Document, environ: Mapping[str, str]) -> None:
    """Note a problem for each value outside sources and sinks that was filled in without a variable that it names."""
    for place, (raw, _) in document.expanded.items():
        names = [name for name in _VARIABLE.findall(raw) if name not in environ]
        if names and place[0] not in _PARTS:
            what = f"the environment variable {names[0]} is not set; set it, or write ${{{names[0]}:-default}}"
            document.problems.append(document.problem(place, what))
            document.broken.add(place)


def unfilled(model: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a part with a placeholder for each secret whose file would have to be read."""
    plain = dict(values)
    for name in model.secret_fields():
        if f"{name}_file" in plain and name not in plain:
            del plain[f"{name}_file"]
            plain[name] = UNSET
    return plain


def reduced(
    base: type[S], model: type[Settings], values: Mapping[str, Any], problems: list[ConfigProblem],
    place: Place, document: Document,
) -> S | list[ConfigProblem]:  # fmt: skip
    """Return what every part has in common, if nothing is wrong with a part but what was not read.

    `values` are those that did not fit the plugin's `model`, whose defaults are kept. Other problems are returned as
    they are.
    """
    unset = {key for key, value in values.items() if _is_unset(value)}
    left_open = {format_path((*place, key)) for key in unset}
    own = format_path(place)
    if not unset or not all(problem.key == own or _is_below(problem.key, left_open) for problem in problems):
        return problems
    given = {key: value for key, value in values.items() if key in base.model_fields and key not in unset}
    return validate(_common(base, model), _defaults(base, model) | given, place, document)


def _common(base: type[S], model: type[Settings]) -> type[S]:
    """Return the model of what every part has in common; a source keeps the events that its own `model` names."""
    if not issubclass(base, SourceSettings) or not issubclass(model, SourceSettings) or not model.own_events:
        return base
    common = create_model(base.__name__, __base__=base, __doc__=base.__doc__)
    common.own_events = model.own_events
    return common


def _defaults(base: type[Settings], model: type[Settings]) -> dict[str, Any]:
    fields = ((key, model.model_fields[key]) for key in base.model_fields)
    return {key: info.get_default(call_default_factory=True) for key, info in fields if not info.is_required()}


def _is_unset(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_unset, value.values()))
    if isinstance(value, list):
        return any(map(_is_unset, value))
    return isinstance(value, str) and UNSET in value


def _is_below(key: str, paths: set[str]) -> bool:
    return any(key == path or key.startswith((f"{path}.", f"{path}[")) for path in paths)
