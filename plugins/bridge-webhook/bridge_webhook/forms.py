"""A CloudEvent in the forms of its HTTP binding that are not structured: binary, and a batch."""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from bridge.plugin import Permanent, WireEvent

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
_JSON = "application/json"
_NAME = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_IS_JSON = re.compile(r"[^;]+[/+]json\s*(;.*)?", re.IGNORECASE)
_BODY = frozenset({"data", "data_base64", "datacontenttype"})


def binary(body: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers with an event's attributes, and its data; raises `Permanent` if they cannot be written so."""
    try:
        event = json.loads(body)
        media_type = str(event.get("datacontenttype") or _JSON)
        headers = {_header(name): encoded(value) for name, value in event.items() if name not in _BODY}
        return {"Content-Type": encoded(media_type, plain=" "), **headers}, _data(event, media_type)
    except (ValueError, AttributeError, TypeError, RecursionError, binascii.Error):
        raise Permanent("the event cannot be sent with mode: binary; its attributes are no headers") from None


def encoded(value: Any, *, plain: str = "") -> str:
    """Return an attribute as the value of a header: what is not printable ASCII, `"` and `%` are percent-encoded."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return "".join(
        char if ("!" <= char <= "~" and char not in '"%') or char in plain else _percent(char) for char in text
    )


def batch_body(events: Sequence[WireEvent]) -> bytes:
    """Return the events as one JSON array, each with its very bytes."""
    return b"[" + b",".join(event.body for event in events) + b"]"


def batch_id(events: Sequence[WireEvent]) -> str:
    """Return the id of a message with these events, the same for the same ones; that of an event alone is its own."""
    if len(events) == 1:
        return events[0].id
    return (
        "batch_" + hashlib.sha256("\0".join(event.id for event in events).encode("utf-8", "replace")).hexdigest()[:32]
    )


def _header(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("no name of an attribute")
    return f"ce-{name}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))


def _data(event: dict[str, Any], media_type: str) -> bytes:
    if "data_base64" in event:
        return b64decode(event["data_base64"], validate=True)
    data = event.get("data")
    if isinstance(data, str) and not _IS_JSON.fullmatch(media_type):
        return data.encode("utf-8", "replace")
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
