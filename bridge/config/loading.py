"""Reads and checks the configuration file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bridge.config import registry, yaml_document
from bridge.config.filters import filter_problems
from bridge.config.model import Config, default_state, has_no_home
from bridge.config.types import EMBEDDED
from bridge.config.validation import validate
from bridge.config.without_secrets import environment, note_unset, reduced, unfilled
from bridge.config.yaml_document import Document, Place
from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.domain.settings import Settings
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import SourcePlugin, SourceSettings

S = TypeVar("S", bound=Settings)

_NO_HOME = (
    "the home directory is not known: there is no HOME, and the user has no name; set `state` or BRIDGE_STATE_DIR to a "
    "directory"
)
_SERVERS = ("store", "broker", "namespace", "exchange", "state")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


# --- reading ------------------------------------------------------------------------------------------------------


def load(path: Path | str, *, environ: Mapping[str, str] | None = None, with_secrets: bool = True) -> Config:
    """Read and check a configuration file; raises `ConfigError` with everything that is wrong with it.

    Only the plugins that the file names are imported. Nothing else happens: no connection, no directory.

    Without secrets, the variables that sources and sinks name need not be set, and no file of a secret is read. A part
    that cannot be made without these has the settings alone that all sources or all sinks have, and their class.
    """
    environ = os.environ if environ is None else environ
    read = partial(_part, with_secrets=with_secrets)
    text = yaml_document.read(Path(path), environ if with_secrets else environment(Path(path), environ))
    if not with_secrets:
        note_unset(text, environ)
        for key in ("privacy_key", "privacy_key_file"):
            text.values.pop(key, None)
    problems = list(text.problems)
    sources = _parts("source", SourceSettings, text, problems, read)
    sinks = _parts("sink", SinkSettings, text, problems, read)
    if "sources" not in text.values or text.values["sources"] == {}:
        problems.append(
            text.problem(("sources",), "there is no source to poll; `bridgectl config new` writes one to start from")
        )
    values = {key: value for key, value in text.values.items() if key not in ("sources", "sinks")}
    values.setdefault("state", str(default_state(environ)))
    checked = validate(Config, {**values, "sources": sources, "sinks": sinks}, (), text)
    if not isinstance(checked, Config):
        problems += checked
    elif has_no_home(checked.state) and (
        "state" in text.values or checked.store is None or checked.broker_url == EMBEDDED
    ):
        problems.append(text.problem(("state",), _NO_HOME))
    if with_secrets and not problems and isinstance(checked, Config):
        problems += [text.problem(place, wrong) for place, wrong in filter_problems(checked)]
    if problems or not isinstance(checked, Config):
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda item: item.line or 0))
    checked._document = text  # noqa: SLF001 - a private attribute of the very model that this function makes
    return checked


def load_servers(path: Path | str, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read only where the state is kept and where events are published, of a file that is wrong elsewhere.

    Raises `ConfigError` if that cannot be read either.
    """
    environ = os.environ if environ is None else environ
    text = yaml_document.read(Path(path), environ)
    values = {key: value for key, value in text.values.items() if key.removesuffix("_file") in _SERVERS}
    values.setdefault("state", str(default_state(environ)))
    checked = validate(Config, values, (), text)
    if not isinstance(checked, Config):
        raise ConfigError(checked)
    return checked


def _parts(
    kind: registry.Kind, base: type[S], text: Document, problems: list[ConfigProblem],
    read: Callable[..., Settings | list[ConfigProblem]],
) -> dict[str, S]:  # fmt: skip
    section = f"{kind}s"
    values = text.values.get(section, {})
    if (section,) in text.broken:
        return {}
    if not isinstance(values, dict):
        what = "is empty" if values is None else "must be a mapping"
        problems.append(text.problem((section,), f"{what}; give each {kind} a name, and its settings below that"))
        return {}
    checked_parts: dict[str, S] = {}
    for name, part in values.items():
        checked = read(kind, base, name, part, text)
        if isinstance(checked, base):
            checked_parts[name] = checked
        elif isinstance(checked, list):
            problems += checked
    return checked_parts


def _part(
    kind: registry.Kind, base: type[Settings], name: str, values: Any, text: Document, *, with_secrets: bool
) -> Settings | list[ConfigProblem]:
    place: Place = (f"{kind}s", name)
    if place in text.broken:
        return []
    problems = []
    if not _NAME.fullmatch(name):
        what = "a name has up to 100 lower-case letters, digits, '-' and '_', and begins with a letter or digit"
        problems.append(text.problem(place, what))
    if not isinstance(values, dict):
        what = f"must be a mapping; give the {kind} a `type:` and its settings"
        return [*problems, text.problem(place, what)]
    try:
        settings = _settings(kind, place, values, text)
    except ConfigError as error:
        return problems + error.problems
    if with_secrets:
        checked = validate(settings, values, place, text)
    else:
        values = unfilled(settings, values)
        checked = validate(settings, values, place, text)
        if isinstance(checked, list):
            checked = reduced(base, settings, values, checked, place, text)
    return problems + checked if isinstance(checked, list) else problems or checked


def _settings(kind: registry.Kind, place: Place, values: dict[str, Any], text: Document) -> type[Settings]:
    """Return the model of the plugin that `type:` names; raises `ConfigError`, empty where it was said already."""
    at = (*place, "type")
    if at in text.broken:
        raise ConfigError([])
    named = values.get("type")
    try:
        if isinstance(named, str) and named:
            return _model(registry.load(kind, named), values, text)
    except registry.PluginError as error:
        raise ConfigError([text.problem(at, error.reason)]) from error
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise ConfigError([text.problem((*place, key), reason)]) from None
    known = ", ".join(registry.installed(kind)) or "none"
    what = "must be the name of a plugin" if "type" in values else "is missing"
    raise ConfigError([text.problem(at, f"{what}; installed {kind}s: {known}")])


def _model(plugin: SourcePlugin | SinkPlugin, values: dict[str, Any], text: Document) -> type[Settings]:
    """Return the model of a part's settings; raises as `SourcePlugin.settings_for` does."""
    if plugin.settings_for is not None:
        return plugin.settings_for(values, Path(text.file).parent)
    return plugin.settings
