"""How configuration is shown: URLs and secrets are masked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bridge.config.yaml_document import Place
from bridge.domain.settings import MASK, Secret, Settings


def mask_url(url: str, *, path: bool = False) -> str:
    """Return a URL without its password and the values of its query, and with `path` without its path."""
    head, mark, query = url.partition("?")
    head = re.sub(r"^([A-Za-z0-9+.-]+://)(?:([^:/@]*):)?.*@", _masked_login, head)
    if path:
        head = re.sub(r"^([A-Za-z0-9+.-]+://[^/]+/).+$", rf"\g<1>{MASK}", head)
    return head + mark + re.sub(r"(^|&)([^=&]*)=[^&]*", rf"\1\2={MASK}", query)


def _masked_login(match: re.Match[str]) -> str:
    user = "" if match[2] is None else f"{match[2]}:"
    return f"{match[1]}{user}{MASK}@"


# --- showing ------------------------------------------------------------------------------------------------------

_SECRET_KEY = re.compile(r"token|secret|passw|api_?key|authorization|credential", re.IGNORECASE)


def shown_settings(settings: Settings, place: Place) -> dict[str, Any]:
    """Return the settings below `place` as plain values, with secrets masked."""
    plain = settings.model_dump(mode="json")
    shown: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Secret) and value.path:
            shown[f"{name}_file"] = str(value.path)
        else:
            shown[name] = _masked(value, plain[name], (*place, name))
    return shown


def _masked(value: Any, plain: Any, place: Place) -> Any:
    if isinstance(value, Settings):
        return shown_settings(value, place)
    if isinstance(plain, dict):
        inner = value if isinstance(value, Mapping) else {}
        return {key: _masked(inner.get(key), part, (*place, key)) for key, part in plain.items()}
    if isinstance(plain, list):
        inner_list = value if isinstance(value, list | tuple) and len(value) == len(plain) else plain
        return [_masked(item, shown, place) for item, shown in zip(inner_list, plain, strict=True)]
    if not isinstance(plain, str) or isinstance(value, Secret):
        return plain
    key = str(place[-1])
    if "://" in plain:
        # The address of a webhook often is its own secret.
        return mask_url(plain, path=place[0] == "sinks")
    return MASK if plain and _SECRET_KEY.search(key) else plain
