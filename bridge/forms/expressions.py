"""Texts with expressions in braces: paths into the event, and a few pure functions behind them.

`{data.error|cut(200)|or('no reason')}` is an expression; `{{` and `}}` are the braces themselves.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.domain.errors import PlacedError
from bridge.forms.escaping import Table, escaped

ROOTS = (
    "id", "source", "type", "subject", "time", "recordedtime", "partitionkey", "dataschema", "specversion",
    "datacontenttype", "data", "topic", "sink", "setting",
)  # fmt: skip
"""What a path may begin with: the event's attributes, its data, its topic, the sink's name, and the settings."""
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*")
_CALL = re.compile(r"\s*\|\s*([a-z]+)\s*(?:\(\s*(?:(\d+)|'((?:[^'\\]|\\.)*)')\s*\))?")
_HASH_DIGITS = 32
_MAX_LIMIT_CHARACTERS = 1_000_000


@dataclass(slots=True)
class Scope:
    """What the expressions of one request can see."""

    event: Mapping[str, Any]
    """The event's plain values, with `topic` and `sink` next to its attributes."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    escape: Table = field(default_factory=dict)


@dataclass(slots=True)
class _Value:
    """A value on its way through the functions of an expression."""

    value: Any
    trusted: bool
    """Whether the configuration wrote it: then it is not escaped."""
    limit: int | None = None


Compute = Callable[[Scope], Any]


def compile_text(text: str) -> Compute:
    """Return what computes a text; raises `PlacedError`.

    A text that is one expression has the type of its value, and is None where the event does not have it. In a longer
    text, what is missing is left out.
    """
    parts = list(_parts(text))
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    if all(isinstance(part, str) for part in parts):
        literal = "".join(part for part in parts if isinstance(part, str))
        return lambda _: literal
    return lambda scope: "".join(part if isinstance(part, str) else as_text(part(scope)) for part in parts)


def settings_in(text: str) -> Iterator[str]:
    """Yield the names of the settings that a text's expressions use."""
    for match in re.finditer(r"\{\s*setting\.([\w-]+)", text):
        yield match[1]


def as_text(value: Any) -> str:
    """Return a value as it stands in a text: JSON's words for booleans, and compact JSON for groups of fields."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- reading ------------------------------------------------------------------------------------------------------


def _parts(text: str) -> Iterator[str | Compute]:
    at, literal = 0, ""
    while at < len(text):
        char = text[at]
        if text.startswith(("{{", "}}"), at):
            literal, at = literal + char, at + 2
        elif char == "}":
            raise PlacedError((), "has a '}' without a '{'; write }} for the character itself")
        elif char == "{":
            if literal:
                yield literal
            compute, at = _expression(text, at + 1)
            yield compute
            literal = ""
        else:
            literal, at = literal + char, at + 1
    if literal or not text:
        yield literal


def _expression(text: str, at: int) -> tuple[Compute, int]:
    start = at
    while text[at : at + 1] == " ":
        at += 1
    path = _PATH.match(text, at)
    if path is None:
        raise PlacedError(
            (), f"has no path behind '{{'; write such as {{data.status}}, or {{{{ for {text[start - 1]!r}"
        )
    at = path.end()
    calls = []
    while (call := _CALL.match(text, at)) is not None:
        calls.append(_function(call))
        at = call.end()
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] != "}":
        rest = text[at : at + 12]
        raise PlacedError((), f"cannot be read at {rest!r}; write such as {{data.error|cut(80)|or('none')}}")
    return _computed(tuple(path[0].split(".")), calls), at + 1


def _function(call: re.Match[str]) -> Callable[[_Value], None]:
    name, number, word = call[1], call[2], call[3]
    if name not in FUNCTIONS:
        near = difflib.get_close_matches(name, FUNCTIONS, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(FUNCTIONS)}"
        raise PlacedError((), f"has no function {name!r}; {meant}")
    wanted, make = FUNCTIONS[name]
    given = "a number" if number else "a text" if word is not None else ""
    if given != wanted:
        example = {"a number": f"{name}(80)", "a text": f"{name}('none')"}.get(wanted, name)
        raise PlacedError((), f"{name} takes {wanted or 'nothing'}; write {example}")
    if number and not 0 < int(number) <= _MAX_LIMIT_CHARACTERS:
        raise PlacedError((), f"{name} takes a number from 1 to {_MAX_LIMIT_CHARACTERS}")
    argument = int(number) if number else re.sub(r"\\(.)", r"\1", word) if word is not None else None
    return lambda value: make(value, argument)


def _computed(path: tuple[str, ...], calls: list[Callable[[_Value], None]]) -> Compute:
    root = path[0]
    if root not in ROOTS:
        near = difflib.get_close_matches(root, ROOTS, n=1)
        meant = f"data.{'.'.join(path)}" if not near else ".".join((near[0], *path[1:]))
        raise PlacedError((), f"{'.'.join(path)!r} is no part of an event; did you mean {{{meant}}}?")
    is_setting = root == "setting"
    if is_setting and len(path) != 2:  # noqa: PLR2004 - the word and the setting's name
        raise PlacedError((), "names no setting; write such as {setting.channel}")

    def compute(scope: Scope) -> Any:
        read = scope.settings.get(path[1]) if is_setting else _lookup(scope.event, path)
        value = _Value(read, trusted=is_setting)
        for call in calls:
            call(value)
        if not isinstance(value.value, str):
            return value.value
        return escaped(value.value, {} if value.trusted else scope.escape, value.limit)

    return compute


def _lookup(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


# --- functions ----------------------------------------------------------------------------------------------------


def _or(value: _Value, argument: Any) -> None:
    if value.value is None or value.value == "":
        value.value, value.trusted = argument, True


def _changed(change: Callable[[str], str]) -> Callable[[_Value, Any], None]:
    def apply(value: _Value, _: Any) -> None:
        if value.value is not None:
            value.value = change(as_text(value.value))

    return apply


def _cut(value: _Value, argument: Any) -> None:
    value.value = None if value.value is None else as_text(value.value)
    value.limit = argument


def _plain(value: _Value, _: Any) -> None:
    value.trusted = True


def _key(value: _Value, argument: Any) -> None:
    """Shorten a key so that two keys stay two: the end of a long one is the digest of all of it."""
    text = as_text(value.value)
    if len(text) > argument:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_HASH_DIGITS]
        text = (text[: max(0, argument - _HASH_DIGITS - 1)] + "-" + digest)[-argument:]
    value.value, value.trusted = text, True


FUNCTIONS: Mapping[str, tuple[str, Callable[[_Value, Any], None]]] = {
    "or": ("a text", _or),
    "cut": ("a number", _cut),
    "key": ("a number", _key),
    "plain": ("", _plain),
    "text": ("", _changed(str)),
    "upper": ("", _changed(str.upper)),
    "lower": ("", _changed(str.lower)),
    "words": ("", _changed(lambda text: text.replace("_", " "))),
}
"""What each function takes, and what it does."""
