"""Which topics events can have, and what was meant by a pattern that selects none of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from bridge.domain import topics
from bridge.domain.event import Event

_MIN_LIKENESS = 0.6
"""The share of characters in common from which on a topic is suggested."""
_MAX_LISTED_TOPICS = 1


def event_topics(events: Iterable[type[Event]]) -> list[str]:
    """Return every topic that events of these classes may have, as far as the classes know their details.

    A class without an entity tells of any resource: it has a topic for each channel and entity of the other classes.
    """
    classes = list(events)
    resources = {(channel, event.entity): None for event in classes if event.entity for channel in event.channels}
    made: dict[str, None] = {}
    for event in classes:
        own = [(channel, event.entity) for channel in event.channels] if event.entity else list(resources)
        for channel, entity in own:
            stem = f"{channel}.{entity}.{event.status}"
            made |= dict.fromkeys([stem, *(f"{stem}.{detail}" for detail in event.details.get(channel, ()))])
    return list(made)


def selects_any(pattern: str, known: Iterable[str]) -> bool:
    """Say whether a pattern selects any of the known topics.

    A detail is a provider's own word, and there may be a new one tomorrow: behind a topic that has details, any word
    is possible.
    """
    listed = list(known)
    stem, _, detail = pattern.rpartition(".")
    if any(topics.matches([pattern], topic) for topic in listed):
        return True
    detailed = [topic.rpartition(".")[0] for topic in listed if topic.count(".") > stem.count(".") > 1]
    return detail not in {"#", ""} and any(topics.matches([stem], topic) for topic in detailed)


def meant(pattern: str, known: Collection[str]) -> str | None:
    """Return the pattern that was probably meant: the most similar topic, with the wildcards where they were."""
    if set(pattern.split(".")) == {"*"}:
        return "#"
    candidates = dict.fromkeys(_with_wildcards(pattern, topic) for topic in known)
    near = difflib.get_close_matches(pattern, candidates, n=_MAX_LISTED_TOPICS, cutoff=_MIN_LIKENESS)
    return near[0] if near else None


def _with_wildcards(pattern: str, topic: str) -> str:
    """Return a topic with the wildcards of a pattern, if they fit; `a.b.#` also fits a topic of two words."""
    words, own = pattern.split("."), topic.split(".")
    if words[-1] == "#" and len(words) <= len(own) + 1:
        stem = words[:-1]
        return ".".join([*(_merged(word, part) for word, part in zip(stem, own, strict=False)), "#"])
    if len(words) == len(own):
        return ".".join(_merged(word, part) for word, part in zip(words, own, strict=True))
    return topic


def _merged(word: str, part: str) -> str:
    return "*" if word == "*" else part
