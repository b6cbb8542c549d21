"""The addresses to which a configuration's sources are pushed, and whether their providers know them."""

from __future__ import annotations

from urllib.parse import quote

from bridge.hooks.registration import Registration, compare
from bridge.protocols.hints import RegistersPushes, TakesPushes
from bridge.protocols.source import Source
from bridge.runtime.assembly import Assembly


def takes_pushes(source: Source) -> bool:
    """Say whether the configuration has a source pushed to."""
    return isinstance(source, TakesPushes) and source.pushes is not None


async def compared(parts: Assembly, name: str, source: Source) -> tuple[Registration, str]:
    """Return what the provider has compared with what it should have, and the address that it should call.

    The source is one that `RegistersPushes`. Raises `ConfigError` if the configuration does not say where and how it is
    pushed to, and what asking the provider raises.
    """
    if parts.config.hooks is None:
        raise parts.config.problem(("hooks",), "is missing; say where providers push, with `url:`")
    settings = getattr(parts.config.sources[name], "push", None)
    if settings is None or not isinstance(source, TakesPushes) or source.pushes is None:
        raise parts.config.problem(("sources", name, "push"), "is missing; add `push:` with a `secret:`")
    assert isinstance(source, RegistersPushes)  # noqa: S101 - the caller has looked
    base = f"{parts.config.hooks.url}/{name}"
    url = f"{base}/{quote(settings.keys()[0], safe='')}" if source.pushes.secret_in_path else base
    return compare(await source.subscriptions(), source.push_events, base, url), url
