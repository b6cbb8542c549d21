"""The first configuration: one provider, one sink, the settings that they need, and a comment on each."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.cli.support.config_template import SHOWN, comment_lines, flow, secrets_needed
from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.settings import Settings

_SHARED = ("store", "broker", "http", "log")
_ADDRESSES = ("url", "auth_url")


@dataclass(frozen=True, slots=True)
class Part:
    """A source or a sink as it is written: its name, its plugin and what is set."""

    kind: registry.Kind
    name: str
    plugin: str
    values: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is said of a key instead of its description."""

    @property
    def model(self) -> type[Settings]:
        """The settings of the plugin, or of the definition that the values name.

        Raises `ConfigError` where one cannot be used, and `ValueError` that begins with the key that names none.
        """
        plugin = registry.load(self.kind, self.plugin)
        if plugin.settings_for is not None:
            return plugin.settings_for(self.values, Path())
        return plugin.settings

    def lines(self) -> Iterator[str]:
        """Yield the part as it stands in the file."""
        yield f"  {self.name}:"
        yield f"    type: {self.plugin}"
        for key, value in self.values.items():
            info = self.model.model_fields.get(key.removesuffix("_file")) or self.model.model_fields.get(key)
            yield from (f"    {line}" for line in comment_lines(self.notes.get(key) or (info and info.description)))
            yield f"    {key}: {flow(value)}"


def keys_to_ask(model: type[Settings]) -> list[str]:
    """Return the settings without which a part cannot begin, and its address, in the model's order."""
    needed = secrets_needed(model)
    return [
        key
        for key, info in model.model_fields.items()
        if key not in ("type", "topics") and (info.is_required() or key in needed or key in _ADDRESSES)
    ]


def address_key(model: type[Settings]) -> str | None:
    """Return the setting that is a part's address, if it is no secret."""
    secret = model.secret_fields()
    return next((key for key in _ADDRESSES if key in model.model_fields and key not in secret), None)


def secret_key(model: type[Settings]) -> str | None:
    """Return the first secret without which a part cannot begin."""
    return next((key for key in keys_to_ask(model) if key in model.secret_fields()), None)


def is_private(url: str) -> bool:
    """Say whether a URL leads to this machine or into a private network, as far as its text says so."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def as_reference(text: str) -> tuple[str, str] | None:
    """Return suffix and value for a secret that is in a variable or a file: `("_file", PATH)` or `("", "${NAME}")`.

    None is what is neither, such as the secret itself.
    """
    name = re.fullmatch(r"\$?\{?([A-Z_][A-Z0-9_]*)\}?", text)
    if name:
        return "", f"${{{name[1]}}}"
    if "/" in text or text.startswith("."):
        return "_file", text
    return None


def written(parts: Sequence[Part], state: Path | None) -> str:
    """Return the text of the file."""
    lines = [
        "# Written by `bridgectl init`. `bridgectl check -c FILE` says what is wrong with it: file, line and key.",
        "# `bridgectl config new` shows every setting. ${NAME} is filled in from the environment.",
        "",
    ]
    if state is not None:
        lines += [*comment_lines(Config.model_fields["state"].description), f"state: {flow(str(state))}"]
    for key in _SHARED:
        lines += comment_lines(Config.model_fields[key].description)
        lines.append(f"#{key}: {SHOWN.get(key) or flow(Config.model_fields[key].default.model_dump(mode='json'))}")
    for kind in registry.KINDS:
        own = [part for part in parts if part.kind == kind]
        lines += ["", f"{kind}s:" if own else f"{kind}s: {{}}", *(line for part in own for line in part.lines())]
    return "\n".join([*lines, ""])


def write_new(path: Path, text: str, *, mode: int, replace: bool) -> None:
    """Write a file with these rights; raises `FileExistsError` if it is there and must not be replaced."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    descriptor = os.open(path, flags, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
