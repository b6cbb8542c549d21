"""Pydantic's findings as problems that an operator can act on: which line, which key, what is wrong, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.config.yaml_document import Document, Place
from bridge.domain.errors import ConfigProblem, PlacedError
from bridge.domain.settings import MASK, Secret, Settings

M = TypeVar("M", bound=Settings)
_PLACEHOLDER = Secret(MASK)
"""Stands for a secret whose file cannot be used; what else is wrong with it follows from that."""
_MAX_CHARACTERS = 400
_MIN_HIDDEN_CHARACTERS = 4
_FILE_KEY = re.compile(r"(\w+_file)\b|(\w+) and (\w+_file) are both given")


def validate(model: type[M], values: Any, place: Place, document: Document) -> M | list[ConfigProblem]:
    """Return the settings, or all that is wrong with them.

    A secret's file that cannot be read ends the model's own validation before it begins; it is set aside here, so that
    the other problems are found too.
    """
    problems: list[ConfigProblem] = []
    values = dict(values) if isinstance(values, dict) else values
    while True:
        try:
            settings = model.model_validate(values)
        except ValidationError as error:
            problems += _problems(error, model, values, place, document)
            if _replace_unreadable_secret(error, model, values):
                continue
        else:
            if not problems:
                return settings
        return list(dict.fromkeys(problems))


def _replace_unreadable_secret(error: ValidationError, model: type[Settings], values: Any) -> bool:
    text = str(error.errors(include_url=False)[0].get("ctx", {}).get("error", ""))
    named = _FILE_KEY.match(text)
    if error.error_count() != 1 or error.errors()[0]["loc"] or named is None:
        return False
    key = named[1] or named[3]
    secret = key.removesuffix("_file")
    if secret not in model.secret_fields() or values.pop(key, None) is None:
        return False
    values[secret] = _PLACEHOLDER
    return True


def _problems(
    error: ValidationError, model: type[Settings], values: Any, place: Place, document: Document
) -> list[ConfigProblem]:
    problems = []
    for item in _one_per_place(error.errors(include_url=False), values):
        if any(given is _PLACEHOLDER for given in (_at(values, item["loc"][:1]), item["input"])):
            continue
        inner, text = _explain(item, model, values)
        at = (*place, *inner)
        if item["type"] == "default_factory_not_called":
            continue  # follows from another problem, which is told
        if any(at[: len(broken)] == broken for broken in document.broken):
            continue
        text = _one_line(_hide(text, model, values, place, document))
        missing = item["type"] == "missing"
        line = document.line(at[:-1] if missing else at)
        problem = document.problem(at, text)
        problems.append(ConfigProblem(problem.file, line, problem.key, text))
    return problems


def _one_per_place(items: Iterable[ErrorDetails], values: Any) -> list[ErrorDetails]:
    # Of a union, pydantic tells what is wrong with every branch: the one that got furthest is the one that was meant.
    best: dict[Place, tuple[int, ErrorDetails]] = {}
    kept: list[tuple[Place, ErrorDetails]] = []
    for item in items:
        loc = item["loc"]
        real = _resolved(loc, values)
        depth = len(real)
        branch = next((i for i in range(len(loc)) if not _is_at(loc[: i + 1], values)), None)
        if branch is None or item["type"] == "missing":
            kept.append((real, item))
            continue
        union = _resolved(loc[:branch], values)
        if union not in best or depth > best[union][0]:
            best[union] = (depth, item)
    kept += [(union, item) for union, (_, item) in best.items()]
    return list({(place, item["type"] == "missing" and item["loc"]): item for place, item in reversed(kept)}.values())[
        ::-1
    ]


_NOWHERE = object()


def _step(values: Any, part: int | str) -> Any:
    if isinstance(values, Mapping):
        return values.get(part, _NOWHERE)
    is_item = isinstance(values, list) and isinstance(part, int) and part < len(values)
    return values[part] if is_item else _NOWHERE


def _at(values: Any, place: Place) -> Any:
    for part in place:
        values = _step(values, part)
    return values


def _is_at(loc: tuple[int | str, ...], values: Any) -> bool:
    return len(_resolved(loc, values)) == len(loc)


def _resolved(loc: tuple[int | str, ...], values: Any) -> Place:
    """Leave out of a location what is no key of the file: the names of a union's branches."""
    place: list[int | str] = []
    for part in loc:
        inner = _step(values, part)
        if inner is not _NOWHERE:
            values = inner
            place.append(part)
    return tuple(place)


def _explain(item: ErrorDetails, model: type[Settings], values: Any) -> tuple[Place, str]:
    loc = item["loc"]
    place = _resolved(loc, values)
    if item["type"] == "missing":
        name = str(loc[-1])
        return (*place, name), f"is missing; {_how_to_set(name, _model_at(model, place))}"
    if item["type"] == "extra_forbidden":
        return place, _unknown(str(loc[-1]), _model_at(model, place[:-1]))
    given = _at(values, place)
    if isinstance(error := item.get("ctx", {}).get("error"), PlacedError):
        return (*place, *error.place), str(error)
    if isinstance(given, Mapping):
        text = str(item.get("ctx", {}).get("error", item["msg"]))
        named = re.match(r"(\w+)\b:? ?", text)
        if named and named[1] in given:
            return (*place, named[1]), text.removeprefix(f"{named[1]}: ")
    return place, _pydantic_message(item)


def _how_to_set(name: str, model: type[BaseModel] | None) -> str:
    if model is not None and issubclass(model, Settings) and name in model.secret_fields():
        return f"add `{name}: ${{VARIABLE}}` or `{name}_file: PATH`"
    return f"add `{name}:` and its value"


def _unknown(key: str, model: type[BaseModel] | None) -> str:
    known = list(model.model_fields) if model is not None else []
    if model is not None and issubclass(model, Settings):
        known += [f"{name}_file" for name in model.secret_fields()]
    near = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"remove it; known here: {', '.join(known)}"
    return f"is not a known key; {meant}"


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in place:
        field = current.model_fields.get(str(part)) if current is not None and isinstance(part, str) else None
        if field is not None:
            current = _model_in(field.annotation)
        elif not isinstance(part, int):
            current = None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _model_in(part))), None)


_PLAIN = {
    "string_type": "must be text; put quotes around it",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number, such as 16",
    "int_from_float": "must be a whole number, without a fraction",
    "float_type": "must be a number",
    "float_parsing": "must be a number, such as 1.5",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list, such as [one, two]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "path_type": "must be a path, as text",
    "string_too_short": "is empty; give it a value",
    "too_short": "is too short; add to it",
}


_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def _pydantic_message(item: ErrorDetails) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if item["input"] is None:
        return "is empty; give it a value or remove the line (an unquoted # begins a comment)"
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {_number(context[key])}"
    if kind == "literal_error":
        return f"must be {context['expected']}{_nearest(item['input'], str(context['expected']))}"
    if "error" in context:
        return str(context["error"])
    return re.sub(r"^(Input|Value|String|List) should ", "must ", item["msg"])


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nearest(given: Any, expected: str) -> str:
    near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _hide(text: str, model: type[Settings], values: Any, place: Place, document: Document) -> str:
    """Take secrets, and what came out of the environment, out of a message that quotes its input."""
    hidden = [(value, raw) for at, (raw, value) in document.expanded.items() if at[: len(place)] == place]
    if isinstance(values, Mapping):
        hidden += [(text, MASK) for name in model.secret_fields() for text in _texts(values.get(name))]
    shown = {form: shown for value, shown in hidden for form in (value, repr(value)) if _is_specific(form)}
    if not shown:
        return text
    longest_first = sorted(shown, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda match: shown[match[0]], text)


def _is_specific(form: str) -> bool:
    # Shorter ones are hidden where they stand in quotes: as they are, they would be found in any word.
    return len(form) >= _MIN_HIDDEN_CHARACTERS or form[:1] in ("'", '"')


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [] if value is None or isinstance(value, Secret) else [str(value)]


def _one_line(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
