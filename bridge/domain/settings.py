"""The words of the configuration file: durations, rates, secrets and strict models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bridge.domain import topics
from bridge.domain.errors import Unauthorized
from bridge.domain.secret_text import read_secret, secret_text

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", re.ASCII)
_LONGEST = 3650 * 86400.0
"""Seconds that a setting may ask for: beyond any use, and short enough to be counted with dates."""
MASK = "********"


def parse_duration(value: Any) -> float:
    """Return the seconds of `500ms`, `30s`, `5m`, `72h` or `7d`; a bare number is refused, for its unit is a guess."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    raise ValueError(f"{value!r} is not a duration; write a number and a unit, such as 500ms, 30s, 5m, 72h")


def format_duration(seconds: float) -> str:
    """Return `seconds` in the largest unit that keeps it a whole number: 259200.0 is `72h`."""
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= size and (seconds / size).is_integer():
            return f"{int(seconds / size)}{unit}"
    return f"{round(seconds * 1000)}ms"


def _duration(value: Any) -> float:
    seconds = value if isinstance(value, float) else parse_duration(value)
    if seconds > _LONGEST:
        raise ValueError(f"is too long; the longest duration is {format_duration(_LONGEST)}, ten years")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$", "examples": ["500ms", "30s", "5m", "72h"]}
    ),
]


def _rate(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())) and float(match[1]) > 0:
        return float(match[1]) / _UNITS[match[2]]
    raise ValueError(f"{value!r} is not a rate; write a number and a unit of time, such as 4/s or 100/m")


def _format_rate(rate: float) -> str:
    for unit, size in (("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if float(rate * size).is_integer():
            return f"{int(rate * size)}/{unit}"
    return f"{rate}/s"


Rate = Annotated[
    float,
    BeforeValidator(_rate),
    PlainSerializer(_format_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*/\s*(s|m|h)$", "examples": ["4/s", "100/m"]}),
]

TopicPattern = Annotated[str, BeforeValidator(lambda value: topics.check(value) if isinstance(value, str) else value)]


class Secret:
    """A value that is shown to nobody: printed, dumped and logged it is a mask.

    Given as a file (`token_file: PATH`), it is read again whenever the file has changed, so that rotating it needs no
    restart. White space and a byte order mark around it are dropped. A character inside it that nobody sees is an
    error.
    """

    __slots__ = ("_cached", "_is_list", "_path", "_stamp", "_value")

    def __init__(self, value: str = "", *, path: Path | None = None, is_list: bool = False) -> None:
        """Keep a value, or the file that holds it; with `is_list`, the file has a secret on each line."""
        self._value = value
        self._path = path
        self._is_list = is_list
        self._stamp: tuple[int, int, int] | None = None
        self._cached = ""

    @property
    def path(self) -> Path | None:
        """Return the file that holds the value, or None where the value itself was given."""
        return self._path

    def reveal(self) -> str:
        """Return the value itself.

        Raises `OSError` when its file has gone and was never read, and `Unauthorized` when the file is empty or holds
        what cannot be a secret.
        """
        if self._path is None:
            return self._value
        try:
            return self.read()
        except ValueError as error:
            raise Unauthorized(f"the secret's file {self._path} {error}") from None

    def read(self) -> str:
        """Return the value as `reveal` does; what cannot be a secret raises `ValueError` without the file's name."""
        if self._path is None:
            return self._value
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._cached, self._stamp = read_secret(self._path, is_list=self._is_list), stamp
        except OSError:
            if self._stamp is None:
                raise
        return self._cached

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self._path) == (other._value, other._path)

    def __hash__(self) -> int:
        return hash((self._value, self._path))

    @classmethod
    def _validate(cls, value: Any) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            if not value.strip("\ufeff \t\r\n"):
                raise ValueError("is empty; give the secret itself, or its file with the key's name and _file")
            return cls(secret_text(value))
        raise ValueError("must be text; put quotes around a secret that looks like a number")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        return {"type": "string", "format": "password", "writeOnly": True}


def _is_secret(annotation: Any) -> bool:
    if get_origin(annotation) is dict:  # values of a mapping have keys of their own, and no file of theirs
        return False
    return annotation is Secret or any(_is_secret(part) for part in get_args(annotation))


def _has_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_has_list(part) for part in get_args(annotation))


def _read_from(alias: str, secret: Secret) -> Secret:
    """Return the secret once its file was read; raises `ValueError` that begins with the key."""
    try:
        secret.read()
    except OSError as error:
        raise ValueError(f"{alias}: cannot read {secret.path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{alias}: the file {secret.path} {error}") from None
    return secret


class Settings(BaseModel):
    """Settings of one part: unknown keys are errors, and any secret `x` may be given as `x_file`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def secret_fields(cls) -> list[str]:
        """Return the names of the fields that hold secrets."""
        return [name for name, field in cls.model_fields.items() if _is_secret(field.annotation)]

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name in cls.secret_fields():
            alias = f"{name}_file"
            if alias not in values:
                continue
            if name in values:
                raise ValueError(f"{name} and {alias} are both given; keep one")
            path = Path(str(values.pop(alias)))
            values[name] = _read_from(alias, Secret(path=path, is_list=_has_list(cls.model_fields[name].annotation)))
        return values

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        target = handler.resolve_ref_schema(result)
        for name in cls.secret_fields():
            target["properties"][f"{name}_file"] = {
                "type": "string",
                "description": f"A file that holds `{name}`; read again when it changes.",
            }
            if name in target.get("required", []):
                target["required"].remove(name)
        return result
