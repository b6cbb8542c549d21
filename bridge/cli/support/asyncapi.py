"""The events as an AsyncAPI 3 document: a channel for each topic, a message for each class, and how each travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from bridge.cli.support.event_examples import event_example
from bridge.cli.support.schemas import narrow_data
from bridge.domain.event import CONTENT_TYPE, Event
from bridge.domain.urls import node_urls

_BINDING = "0.3.0"
"""The version of the AMQP and HTTP bindings."""
_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_WEBHOOK = "webhook"
_PARAMETERS = ("channel", "entity")
_DESCRIPTION = (
    "Status transitions of messages, recipients and calls, as CloudEvents 1.0 in structured JSON. "
    "Deduplicate by `id`; accept unknown fields and unknown topics."
)


@dataclass(frozen=True, slots=True)
class Published:
    """A class of events, and the channels in which it is published."""

    event: type[Event]
    channels: tuple[str, ...]

    def topics(self) -> list[str]:
        """Return the topics; of a class without an entity, a template."""
        if not self.event.entity:
            return [f"{{channel}}.{{entity}}.{self.event.status}"]
        stems = {channel: f"{channel}.{self.event.entity}.{self.event.status}" for channel in self.channels}
        details = self.event.details
        return [
            topic
            for channel, stem in stems.items()
            for topic in (stem, *(f"{stem}.{detail}" for detail in details.get(channel, ())))
        ]


def asyncapi(published: Sequence[Published], *, exchange: str, broker: str = "") -> dict[str, Any]:
    """Return the document; `broker` is the URL of the configuration's broker, of which no credentials are shown."""
    channels = _channels(published, exchange)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bridge",
            "version": version("bridge"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        **({"servers": server} if (server := _servers(broker)) else {}),
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": {item.event.__name__: _message(item) for item in published},
            "schemas": _schemas(published),
        },
    }


def _servers(broker: str) -> dict[str, Any]:
    parts = urlsplit(node_urls(broker.partition(";")[0])[0])
    if not parts.hostname:
        return {}
    host = parts.hostname + (f":{parts.port}" if parts.port else "")
    return {"broker": {"host": host, "protocol": parts.scheme.partition("+")[0]}}


# --- channels and operations ------------------------------------------------------------------------------------------


def _channels(published: Sequence[Published], exchange: str) -> dict[str, Any]:
    names: dict[str, list[str]] = {}
    for item in published:
        for topic in item.topics():
            names.setdefault(topic, []).append(item.event.__name__)
    channels = {_channel_id(topic): _channel(topic, classes, exchange) for topic, classes in sorted(names.items())}
    channels[_WEBHOOK] = {
        "address": None,
        "title": "A webhook sink's URL",
        "description": "Each event is posted to the URL of a sink of type webhook, signed as Standard Webhooks asks.",
        "messages": {item.event.__name__: {"$ref": f"{_MESSAGES}{item.event.__name__}"} for item in published},
    }
    return channels


def _channel_id(topic: str) -> str:
    return topic.replace("{", "").replace("}", "")


def _channel(topic: str, classes: Sequence[str], exchange: str) -> dict[str, Any]:
    exchange_binding = {"name": exchange, "type": "topic", "durable": True, "autoDelete": False, "vhost": "/"}
    names = [name for name in _PARAMETERS if f"{{{name}}}" in topic]
    parameters = {name: {"description": f"The {name} of the resource."} for name in names}
    return {
        "address": topic,
        **({"parameters": parameters} if parameters else {}),
        "messages": {name: {"$ref": f"{_MESSAGES}{name}"} for name in classes},
        "bindings": {
            "amqp": {"is": "routingKey", "exchange": exchange_binding, "bindingVersion": _BINDING},
            "redis": {},
        },
    }


def _operations(channels: dict[str, Any]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for name in channels:
        operation: dict[str, Any] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
        if name == _WEBHOOK:
            operation["bindings"] = {"http": {"method": "POST", "bindingVersion": _BINDING}}
        else:
            operation["bindings"] = {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": _BINDING}}
        operations[f"send.{name}"] = operation
    return operations


# --- messages and schemas ---------------------------------------------------------------------------------------------


def _message(item: Published) -> dict[str, Any]:
    cls = item.event
    example = event_example(cls, item.channels[0])
    return {
        "name": cls.__name__,
        "title": cls.__name__,
        "summary": " ".join((cls.__doc__ or "").split()),
        "contentType": CONTENT_TYPE,
        "headers": _BROKER_HEADERS,
        "payload": {"$ref": f"{_SCHEMAS}{cls.__name__}"},
        **({"examples": [{"name": cls.schema_name(), "payload": example}]} if example is not None else {}),
        "bindings": {
            "amqp": {"contentEncoding": "utf-8", "bindingVersion": _BINDING},
            "http": {"headers": _WEBHOOK_HEADERS, "bindingVersion": _BINDING},
            "redis": {},
        },
    }


_BROKER_HEADERS = {
    "type": "object",
    "properties": {
        "bridge-position": {"type": "string", "description": "Where the event stands in the journal: SOURCE:NUMBER."}
    },
}
_WEBHOOK_HEADERS = {
    "type": "object",
    "required": ["content-type", "webhook-id", "webhook-timestamp"],
    "properties": {
        "content-type": {"type": "string", "const": CONTENT_TYPE},
        "webhook-id": {"type": "string", "description": "The event's id."},
        "webhook-timestamp": {"type": "string", "description": "When it was sent, in seconds since 1970."},
        "webhook-signature": {"type": "string", "description": "`v1,` and a signature for each of the sink's secrets."},
    },
}


def _schemas(published: Sequence[Published]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for item in published:
        cls = item.event
        schema = cls.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}", mode="serialization")
        definitions = schema.pop("$defs", {})
        model = cls.model_fields["data"].annotation
        assert isinstance(model, type)  # noqa: S101 - event_schema has refused all others
        data = definitions.pop(model.__name__) if issubclass(model, BaseModel) else {}
        name = f"{cls.__name__}Data"
        schemas |= definitions
        schemas[name] = narrow_data(data, cls, item.channels) | {"title": name}
        schema["properties"] |= {
            "data": {"$ref": f"{_SCHEMAS}{name}"},
            "dataschema": {"const": cls.schema_uri()},
            **({"type": {"enum": [cls.type_on(channel) for channel in item.channels]}} if cls.entity else {}),
        }
        schemas[cls.__name__] = schema | {"description": " ".join((cls.__doc__ or "").split())}
    return schemas
