"""Which changes of a schema break those who rely on it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bridge.cli.support.schemas import event_schema
from bridge.domain.events import PROVIDER_EVENTS
from bridge.domain.events.govdelivery import RecipientFailed
from bridge.testing.schema_changes import breaking_changes

SCHEMA = event_schema(RecipientFailed)


def changed(**properties: Any) -> dict[str, Any]:
    """Return the schema with other fields; None removes one."""
    schema = copy.deepcopy(SCHEMA)
    for name, value in properties.items():
        if value is None:
            del schema["properties"][name]
        else:
            schema["properties"][name] = value
    return schema


def required(*names: str) -> dict[str, Any]:
    return {**copy.deepcopy(SCHEMA), "required": list(names)}


REQUIRED = SCHEMA["required"]


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        (changed(phone=None), "phone: field removed"),
        (changed(phone={"type": "string"}), "phone: type narrowed, no longer null"),
        (changed(message={"type": "integer"}), "message: type narrowed, no longer string"),
        (changed(message={"type": ["string", "null"]}), "message: type widened, now also null"),
        (changed(status={"const": "lost"}), "status: values no longer allowed: 'failed'"),
        (changed(channel={"enum": ["sms"]}), "channel: values no longer allowed: 'voice'"),
        (required(*REQUIRED, "phone"), "phone: now required"),
        (required(*(name for name in REQUIRED if name != "message")), "message: no longer required"),
    ],
)
def test_breaking_change_is_named(schema, line):
    assert line in breaking_changes(SCHEMA, schema)


def test_a_change_inside_a_shared_definition_is_found():
    schema = copy.deepcopy(SCHEMA)
    del schema["$defs"]["Observed"]["properties"]["after"]
    schema["$defs"]["Transition"]["enum"].remove("skip")
    assert set(breaking_changes(SCHEMA, schema)) == {
        "transition: values no longer allowed: 'skip'",
        "observed.after: field removed",
    }


def test_additions_and_words_break_nothing():
    schema = changed(
        carrier={"type": "string"},
        channel={"enum": ["sms", "voice", "fax"]},
        phone={**SCHEMA["properties"]["phone"], "description": "Another sentence."},
    )
    assert breaking_changes(SCHEMA, schema) == []


@pytest.mark.parametrize("event", PROVIDER_EVENTS, ids=lambda event: event.__name__)
def test_a_schema_does_not_break_itself(event):
    assert breaking_changes(event_schema(event), event_schema(event)) == []
