"""JSON Schemas: of the configuration file, for editors, and of the events' data, for those who consume them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.errors import ConfigError
from bridge.domain.event import SCHEMAS, Event
from bridge.domain.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{[^}]*\}"}


# --- events -------------------------------------------------------------------------------------------------------


def event_schema(event: type[Event]) -> dict[str, Any]:
    """Return the JSON Schema of an event's data; `$id` is what the event's `dataschema` says."""
    model = event.model_fields["data"].annotation
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise TypeError(f"{event.__name__}.data is no model")
    schema = narrow_data(model.model_json_schema(), event, event.channels)
    description = " ".join((event.__doc__ or "").split())
    return {
        "$schema": DIALECT, "$id": event.schema_uri(),
        **schema, "title": event.__name__, "description": description,
    }  # fmt: skip


def envelope_schema() -> dict[str, Any]:
    """Return the JSON Schema of the attributes that every event has, around data of any class."""
    schema = Event.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": f"{SCHEMAS}event/{Event.version}", **schema}


def narrow_data(schema: dict[str, Any], event: type[Event], channels: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an event's data with what its class says of status, channel and detail."""
    properties = {**schema["properties"], "status": {"const": event.status, "title": "Status"}}
    if channels and event.entity:
        properties["channel"] = {"enum": list(channels), "title": "Channel"}
    if event.details:
        # Examples and no `enum`: a provider may have a new word tomorrow.
        words = sorted({word for detail in event.details.values() for word in detail})
        properties["detail"] = {**properties["detail"], "examples": words}
    return {**schema, "properties": properties}


def event_topics(event: type[Event]) -> list[str]:
    """Return every topic that an event may have, as far as its class knows them."""
    topics = []
    for channel in event.channels:
        stem = f"{channel}.{event.entity or '*'}.{event.status}"
        topics += [stem, *(f"{stem}.{detail}" for detail in event.details.get(channel, ()))]
    return topics


# --- configuration ------------------------------------------------------------------------------------------------


def settings_schema(model: type[Settings], *, prefix: str = "") -> dict[str, Any]:
    """Return the JSON Schema of settings, as a file has them; `prefix` goes before the names under `$defs`."""
    schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    _write_defaults(schema, model)
    inner = schema.pop("$defs", {})
    for inner_model in _models(model):
        if inner_model.__name__ in inner:
            _write_defaults(inner[inner_model.__name__], inner_model)
    return schema | ({"$defs": {f"{prefix}{name}": definition for name, definition in inner.items()}} if inner else {})


def plain_default(model: type[Settings], key: str) -> Any:
    """Return a field's default as the file would have it: `30s` and not 30.0."""
    value = model.model_fields[key].get_default(call_default_factory=True, validated_data={})
    # Only this one key: the model itself may want others.
    made = model.model_construct(**{key: value})
    return made.model_dump(mode="json", include={key}, warnings=False).get(key)


def _write_defaults(schema: dict[str, Any], model: type[Settings]) -> None:
    for key, info in model.model_fields.items():
        if not info.is_required() and info.default_factory is None:
            schema["properties"][key]["default"] = plain_default(model, key)


def _models(model: type[Settings]) -> Iterator[type[Settings]]:
    for info in model.model_fields.values():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                yield part
                yield from _models(part)


def config_schema() -> tuple[dict[str, Any], list[str]]:
    """Return the JSON Schema of the file with the settings of all installed plugins, and who could not be asked.

    Where a number, a list or a word of a list is wanted, `${NAME}` is allowed as well: editors see the file before the
    environment is filled in.
    """
    schema = settings_schema(Config)
    shared = schema.setdefault("$defs", {})
    left_out: list[str] = []
    for kind in registry.KINDS:
        shared.pop(f"{kind.title()}Settings", None)
        parts = []
        for name in registry.installed(kind):
            try:
                plugin = registry.load(kind, name)
            except ConfigError as error:
                left_out.append(str(error))
                continue
            own = settings_schema(plugin.settings, prefix=f"{kind}.{name}.")
            if getattr(plugin, "settings_for", None) is not None:
                own["additionalProperties"] = True  # there are more, and they depend on what is given
            shared |= own.pop("$defs", {})
            own["properties"]["type"] = {"const": name}
            shared[f"{kind}.{name}"] = own
            parts.append(f"{kind}.{name}")
        schema["properties"][f"{kind}s"] |= {
            "additionalProperties": _by_type(parts),
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]{0,99}$"},
        }
    schema["required"] = [*schema.get("required", []), "sources"]
    schema["properties"].pop("type", None)
    opened = _open_to_variables(schema)
    return {"$schema": DIALECT, "$id": "urn:bridge:schemas/configuration/1", **opened, "title": "bridge"}, left_out


def _by_type(parts: list[str]) -> dict[str, Any]:
    # `if` and `then` instead of `oneOf`: an editor then complains about the one plugin that is meant.
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": [part.partition(".")[2] for part in parts]}},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": part.partition(".")[2]}}},
                "then": {"$ref": f"#/$defs/{part}"},
            }
            for part in parts
        ],
    }


_STRICT = {"integer", "number", "boolean"}


def _open_to_variables(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_open_to_variables(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _open_below(key, part) for key, part in schema.items()}
    narrow = inner.get("type") in _STRICT or (
        inner.get("type") == "string" and ("pattern" in inner or "enum" in inner or "const" in inner)
    )
    if not narrow:
        return inner
    annotations = {key: inner.pop(key) for key in ("title", "description", "default", "examples") if key in inner}
    return {**annotations, "anyOf": [inner, json.loads(json.dumps(_VARIABLE))]}


def _open_below(key: str, value: Any) -> Any:
    if key in _NAMED:
        return {name: _open_to_variables(part) for name, part in value.items()}
    return value if key in _VERBATIM else _open_to_variables(value)


_NAMED = frozenset({"properties", "$defs", "patternProperties"})
_VERBATIM = frozenset({"default", "examples", "enum", "const", "if", "propertyNames", "required"})
