"""Reads a form from its file, or by the name under which it ships."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

from bridge.config import yaml_document
from bridge.config.validation import validate
from bridge.domain.errors import ConfigError
from bridge.forms.models import RequestForm

_PACKAGE = "bridge.forms.shipped"
_STARTER = "bridgectl sinks form discord"


def shipped() -> list[str]:
    """Return the names of the forms that come with the bridge."""
    names = (entry.name for entry in files(_PACKAGE).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def find(preset: str, folder: Path) -> Path:
    """Return the file that a configuration in `folder` means by `preset`: a path, or a form that ships.

    Raises `ValueError` that says which ones there are.
    """
    if "/" in preset or preset.endswith((".yaml", ".yml")):
        return folder / Path(preset).expanduser()
    known = shipped()
    if preset not in known:
        near = difflib.get_close_matches(preset, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no form {preset!r} ships; {meant}there is {', '.join(known)}; a file has a path, such as ./mine.yaml"
        )
    with as_file(files(_PACKAGE) / f"{preset}.yaml") as path:
        return path


def load(path: Path) -> RequestForm:
    """Read and check a form; raises `ConfigError` with everything that is wrong with it."""
    try:
        stamp = path.stat().st_mtime_ns
    except (OSError, ValueError):
        stamp = 0
    return _load(path, stamp)


@lru_cache(maxsize=64)
def _load(path: Path, stamp: int) -> RequestForm:
    del stamp
    document = yaml_document.read(path, {}, _STARTER)
    checked = validate(RequestForm, document.values, (), document)
    problems = [*document.problems, *(checked if isinstance(checked, list) else [])]
    if problems or not isinstance(checked, RequestForm):
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return checked
