"""What differs between two configurations, by what their settings mean: what may change at once, and what may not."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.config.model import Config
from bridge.config.types import EMBEDDED
from bridge.config.yaml_document import Place, format_path
from bridge.domain.errors import ConfigError
from bridge.domain.settings import Secret, Settings

LIVE = frozenset({
    "http.reload", "log.level", "journal.keep", "journal.max_bytes", "reconcile.every", "drain_timeout", "audit",
    "reload",
})  # fmt: skip
"""Settings of the process that change while it runs."""
RESTART = frozenset({
    "store", "broker", "namespace", "exchange", "http.listen", "log.format", "state", "privacy_key", "lease", "claim",
})  # fmt: skip
"""Settings that are read at the start only; so is any that is in neither list."""
PARTS = ("sources", "sinks")
_NEEDS_RESTART = "has changed and needs a restart; until then the whole file is left aside"
_KEY = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class PartsDifference:
    """The sources, or the sinks, by what becomes of them."""

    added: Collection[str] = ()
    changed: Collection[str] = ()
    removed: Collection[str] = ()
    unchanged: Collection[str] = ()

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """All that differs between the configuration that runs and another one that does not need a restart."""

    settings: Collection[str] = ()
    """The keys that differ of the process itself, such as `journal.keep`."""
    sources: PartsDifference = field(default_factory=PartsDifference)
    sinks: PartsDifference = field(default_factory=PartsDifference)

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.settings or self.sources or self.sinks)


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A configuration, and what it meant when it was read: the files of its secrets may hold something else by now."""

    config: Config
    meanings: Mapping[Place, Any] = field(repr=False)
    """For each key of the process, and for each source and sink: what is compared. Secrets are digests."""

    @classmethod
    def of(cls, config: Config) -> ReadConfig:
        """Return a configuration that was read just now."""
        meanings: dict[Place, Any] = {place: _meaning(value) for place, value in leaves(config)}
        meanings["store",] = _digest(config.store_url)
        meanings["broker",] = _digest(config.broker_url)
        if config.store is not None and config.broker_url != EMBEDDED:
            meanings["state",] = None  # nothing is kept there
        for section in PARTS:
            for name, settings in getattr(config, section).items():
                meanings[section, name] = _meaning(settings)
        return cls(config, meanings)

    def difference(self, after: ReadConfig) -> ConfigDifference:
        """Return what differs; raises `ConfigError` that names each key that needs a restart."""
        differing = [place for place in after.meanings if self.meanings.get(place, self) != after.meanings[place]]
        settings = {format_path(place): place for place in differing if place[0] not in PARTS}
        if fixed := {key: place for key, place in settings.items() if key not in LIVE}:
            problems = [problem for place in fixed.values() for problem in _problem(after.config, place)]
            raise ConfigError(problems)
        return ConfigDifference(sorted(settings), *(self._parts(after, section) for section in PARTS))

    def _parts(self, after: ReadConfig, section: str) -> PartsDifference:
        mine, theirs = ({place[1] for place in read.meanings if place[0] == section} for read in (self, after))
        both = {str(name) for name in mine & theirs}
        changed = {name for name in both if self.meanings[section, name] != after.meanings[section, name]}
        return PartsDifference(
            added=sorted(map(str, theirs - mine)),
            changed=sorted(changed),
            removed=sorted(map(str, mine - theirs)),
            unchanged=sorted(both - changed),
        )


def leaves(settings: Settings, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the settings of the process itself with their places, those of its sections one by one."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from leaves(value, (*place, name))
        elif (*place, name) not in {(section,) for section in PARTS}:
            yield (*place, name), value


def _problem(config: Config, place: Place) -> list[Any]:
    return config.problem(place, _NEEDS_RESTART).problems


def _meaning(value: Any) -> Any:
    """Return what is compared of a value: two are equal if nothing would work in another way."""
    match value:
        case Secret():
            return (value.path, _digest(_content(value)))
        case Settings():
            own = {name: _meaning(getattr(value, name)) for name in type(value).model_fields}
            return (type(value), own, value.__pydantic_private__)
        case dict():
            return {key: _meaning(part) for key, part in value.items()}
        case list() | tuple():
            return [_meaning(part) for part in value]
    return value


def _content(secret: Secret) -> str | None:
    try:
        return secret.read()
    except (OSError, ValueError):
        return None


def _digest(text: str | None) -> bytes | None:
    return None if text is None else hashlib.blake2b(text.encode(), key=_KEY).digest()
