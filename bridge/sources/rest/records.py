"""How one item of an answer is read: compiled once from the definition into plain functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

from bridge.http import parsing
from bridge.protocols.source import Facts, Observation, ResourceType
from bridge.providers.events import event_classes, lifecycle, overdue_class
from bridge.providers.models import Definition
from bridge.providers.paths import JsonPath, Read
from bridge.providers.requests import subject_parts
from bridge.sources.rest.facts import FactsReader, moment_reader, nothing

_MAX_STATE_CHARS = 100
_MAX_KEY_CHARS = 300
_SCOPES_KEPT = 65536
_SCALARS = (str, int, float)
_PLAIN_BELOW = 10**18
"""Numbers below it are written as they are; longer ones are looked at first."""


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """Why an item cannot be observed, in words that follow "records"."""

    reason: str


NO_KEY = UnreadableItem("without an id")
NO_MARK = UnreadableItem("without an id of the occurrence")

Observe = Callable[[Any], Observation | UnreadableItem]
ScopeOf = Callable[[Any, str], str]


def _value_reader(path: JsonPath | None) -> Read:
    return nothing if path is None else path.reader()


class ItemReader:
    """Reads the items of a definition for one source, whose settings are `values`.

    A source that reads several lists puts the name of each before its scopes.
    """

    def __init__(
        self, definition: Definition, values: Mapping[str, Any], statuses: Mapping[str, str], scopes: str = ""
    ) -> None:
        self._definition = definition
        spec = definition.identity
        table = lifecycle(definition)
        self._lowered = definition.status.ignore_case
        self._scopes = scopes
        known = {(value.lower() if self._lowered else value): word for value, word in statuses.items()}
        events = event_classes(definition)
        self.kind = ResourceType(
            definition.events.channel, definition.events.entity, table.with_names(known), events, self.describe,
            overdue_class(definition),
        )  # fmt: skip
        self.created = moment_reader(definition.times.created)
        self.changed = moment_reader(definition.times.changed)
        self._before, self._after = subject_parts(spec.subject, definition.listing.path, values)
        self.scope_of = self._scope_reader()
        self.observe = self._observer()
        self._facts = FactsReader(definition, self.created, self.changed)

    @property
    def separates_occurrences(self) -> bool:
        """Say whether items are occurrences, each an event of its own, and not resources with a status."""
        return self._definition.identity.mark is not None

    @property
    def created_path(self) -> JsonPath | None:
        """Return where items have the time of their creation."""
        created = self._definition.times.created
        return None if created is None else created.path

    @property
    def path(self) -> str:
        """Return what all subjects begin with."""
        return self._before

    def scope_at(self, key: str, created: datetime | None) -> str:
        """Return the scope of a resource that was created at a time."""
        return self._scope_of_number(key) or self._scope_of_day(created)

    def key_of(self, subject: str) -> str | None:
        """Return the key of a resource by its path in events; None for a path of something else."""
        inner = subject.removeprefix(self._before).removesuffix(self._after)
        return unquote(inner) if subject == f"{self._before}{inner}{self._after}" and inner else None

    def field_of(self, path: JsonPath | None) -> str | None:
        """Return the field of events that holds the value at a path; None if there is none."""
        return self._facts.field_of(path)

    def is_final(self, observation: Observation) -> bool:
        """Say whether nothing is expected after the status."""
        table = self.kind.lifecycle
        return table.status_by_value.get(observation.status) in table.finals

    def _observer(self) -> Observe:
        key, status = self._definition.identity, self._definition.status
        key_name = None if key.within is not None or key.mark is not None else _plain_key(key.key)
        state_name = None if self._lowered or status.path is None else _plain_key(status.path)
        if key_name is None or state_name is None:
            return self._any_observer()
        return self._plain_observer(key_name, state_name)

    def _plain_observer(self, key_name: str, state_name: str) -> Observe:
        """Return the function for items that have id and status at their top, as nearly all have."""
        kind, scope_of, text, no_status = self.kind, self.scope_of, parsing.text, self._no_status()

        def observe(item: Any) -> Observation | UnreadableItem:
            # Most of what a poll reads is no news, so there is no call here that a plain value does not need.
            if not isinstance(item, dict):
                return NO_KEY
            value = item.get(key_name)
            key = str(value) if type(value) is int and 0 <= value < _PLAIN_BELOW else text(value)
            if key is None:
                return NO_KEY
            state = item.get(state_name)
            if type(state) is int and -_PLAIN_BELOW < state < _PLAIN_BELOW:
                return Observation(kind, scope_of(item, key), key[:_MAX_KEY_CHARS], str(state), item)
            status = (state if type(state) is str else _state_text(state)).strip()[:_MAX_STATE_CHARS]
            return Observation(kind, scope_of(item, key), key[:_MAX_KEY_CHARS], status, item) if status else no_status

        return observe

    def _any_observer(self) -> Observe:
        spec, kind, scope_of, no_status = self._definition.identity, self.kind, self.scope_of, self._no_status()
        key_of, status_of, mark_of = self._key_reader(), self._status_reader(), _value_reader(spec.mark)
        has_mark = spec.mark is not None
        text = parsing.text

        def observe(item: Any) -> Observation | UnreadableItem:
            if not isinstance(item, dict):
                return NO_KEY
            key = text(key_of(item))
            if key is None:
                return NO_KEY
            status = _state_text(status_of(item)).strip()[:_MAX_STATE_CHARS]
            if not status:
                return no_status
            mark = text(mark_of(item)) if has_mark else None
            if has_mark and mark is None:
                return NO_MARK
            return Observation(kind, scope_of(item, key), key[:_MAX_KEY_CHARS], status, item, occurrence_id=mark)

        return observe

    def _no_status(self) -> UnreadableItem:
        path = self._definition.status.path
        last = (
            None if path is None else next((step for step in reversed(path.options[0]) if isinstance(step, str)), None)
        )
        return UnreadableItem(f"without a {last or 'status'} that can be read")

    def _key_reader(self) -> Read:
        spec, text = self._definition.identity, parsing.text
        read, within = spec.key.reader(), _value_reader(spec.within)
        if spec.within is None:
            return read

        def composite_key(item: Any) -> str | None:
            key = text(read(item))
            return None if key is None else f"{key}/{text(within(item)) or ''}"

        return composite_key

    def _status_reader(self) -> Read:
        spec = self._definition.status
        if spec.path is None:
            return lambda _: spec.always
        read = spec.path.reader()
        return (lambda item: _state_text(read(item)).lower()) if self._lowered else read

    def _scope_reader(self) -> ScopeOf:
        """Return what names the ledger's scope of an item: a block of ids, or the day of its creation.

        Neither changes while the resource lives, which no other part of an item promises.
        """
        day_of, of_number = self._day_reader(), self._scope_of_number
        if self._definition.identity.block is None:
            return day_of
        return lambda item, key: of_number(key) or day_of(item, key)

    def _scope_of_number(self, key: str) -> str | None:
        block = self._definition.identity.block
        if block is None or len(key) > parsing.MAX_NUMBER_DIGITS or not key.isascii() or not key.isdecimal():
            return None
        return f"{self._scopes}{int(key) // block}"

    def _scope_of_day(self, created: datetime | None) -> str:
        return f"{self._scopes}{'undated' if created is None else created.date().isoformat()}"

    def _day_reader(self) -> ScopeOf:
        created, undated = self._definition.times.created, self._scope_of_day(None)
        if created is None:
            return lambda _, __: undated
        find, read, name = created.path.reader(), self.created, self._scope_of_day
        scopes: dict[Any, str] = {}

        def scope(item: Any, _: str) -> str:
            value = find(item)
            known = scopes.get(value) if isinstance(value, _SCALARS) else undated
            if known is None:
                if len(scopes) >= _SCOPES_KEPT:
                    scopes.clear()
                known = scopes[value] = name(read(item))
            return known

        return scope

    def subject(self, key: str) -> str:
        """Return the path of a resource in events."""
        parts = key.split("/", 1) if self._definition.identity.within is not None else [key]
        return f"{self._before}{'/'.join(quote(part, safe='') for part in parts)}{self._after}"

    def describe(self, observation: Observation) -> Facts:
        """Read the facts of an item."""
        item: Mapping[str, Any] = observation.item
        facts = self._facts
        fields = facts.fields(item)
        return Facts(
            subject=self.subject(observation.key),
            time=self.changed(item),
            first_time=self.created(item),
            fields=fields,
            model=facts.model,
            raw_status=None if facts.status_field is None else fields[facts.status_field],
        )


def _plain_key(path: JsonPath) -> str | None:
    """Return the key that a path reads at the top of an item; None if it reads anything else."""
    steps = path.options[0]
    return steps[0] if len(path.options) == len(steps) == 1 and isinstance(steps[0], str) else None


def _state_text(value: Any) -> str:
    """Return a status of any JSON type as text; empty if there is none."""
    if isinstance(value, str):
        return value
    return "" if value is None else parsing.text(value) or json.dumps(value)
