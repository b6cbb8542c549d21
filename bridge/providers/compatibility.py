"""Whether consumers of a definition's events notice a new version of it."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.providers.events import data_model, event_classes
from bridge.providers.models import Definition


def breaking(old: Definition, new: Definition) -> list[str]:
    """Return what consumers of `old` would notice, a line each; nothing if `events.version` was raised."""
    topics = list(_topics(old, new))
    return topics if new.events.version > old.events.version else [*topics, *_fields(old, new)]


def _topics(old: Definition, new: Definition) -> Iterator[str]:
    for key in ("provider", "channel", "entity"):
        before, after = getattr(old.events, key), getattr(new.events, key)
        if before != after:
            yield f"events.{key}: was {before!r}, which is in the topics and classes; keep it"
    now = event_classes(new)
    for word in event_classes(old):
        if word not in now:
            yield f"status.map: no value becomes {word!r} any more, to which consumers subscribe; keep it"
    for value, word in old.status.map.items():
        if new.status.map.get(value, word) != word:
            yield f"status.map.{value}: was {word!r}; a resource in it would be published anew; keep it"
    for key in ("key", "within", "subject", "block", "mark"):
        if getattr(old.identity, key) != getattr(new.identity, key):
            yield f"identity.{key}: is another one, so every resource would be published anew; keep it"


def _fields(old: Definition, new: Definition) -> Iterator[str]:
    before, after = data_model(old).model_fields, data_model(new).model_fields
    for name, info in before.items():
        if name not in after:
            yield f"facts: the field {name!r} is gone; keep it, or raise events.version"
        elif after[name].annotation != info.annotation:
            yield f"facts: the field {name!r} has another type; keep it, or raise events.version"
