"""The AsyncAPI document: valid to its makers' own parser, its examples valid by its schemas, and no more than can be."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from catalogue import CATALOGUE

pytestmark = pytest.mark.acceptance

NODE = Path(__file__).parents[1] / "node"
CONFIG = """
broker: amqp://user:hidden@rabbit.example.com:5673//
exchange: team.events
sources:
  city: {type: govdelivery, url: "https://tms.example.com", token: t, channels: [sms]}
  drops: {type: spacivox, url: "https://spacivox.example.com", token: t}
"""


def asyncapi(*arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-m", "bridge", "events", "asyncapi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, timeout=60).stdout


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(asyncapi())
    return whole


def parsed(document: dict[str, Any], node_modules: Path) -> dict[str, Any]:
    """Return what @asyncapi/parser says of a document: errors and warnings."""
    answer = subprocess.run(
        ["node", NODE / "asyncapi.js"],
        input=json.dumps(document),
        env={**os.environ, "NODE_PATH": str(node_modules)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def test_asyncapis_own_parser_accepts_the_catalogue(document, node_modules):
    report = parsed(document, node_modules)
    assert report["problems"] == []
    assert report["valid"]
    assert {event.__name__ for event in CATALOGUE} <= set(report["messages"])
    assert {"voice.recipient.failed.busy", "voicemail.drop.delivered", "{channel}.{entity}.unknown"} <= {
        *report["channels"]
    }


def test_asyncapis_own_parser_refuses_a_broken_document(document, node_modules):
    topic = "voice.recipient.sent"
    broken = {**document, "operations": {}, "channels": {topic: copy.deepcopy(document["channels"][topic])}}
    broken["channels"][topic]["messages"]["RecipientSent"]["$ref"] = "#/components/messages/Nothing"
    assert parsed(broken, node_modules)["problems"]


def payload_schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


@pytest.mark.parametrize("name", [event.__name__ for event in CATALOGUE if event.entity])
def test_examples_fit_their_schemas(document, name):
    validator = jsonschema.Draft202012Validator(payload_schema(document, name))
    (example,) = document["components"]["messages"][name]["examples"]
    assert list(validator.iter_errors(example["payload"])) == []
    without = {key: value for key, value in example["payload"].items() if key != "id"}
    assert list(validator.iter_errors(without))
    other = {**example["payload"], "data": {**example["payload"]["data"], "status": "another"}}
    assert list(validator.iter_errors(other))


def test_a_configurations_document_has_what_it_can_publish(tmp_path, node_modules):
    (tmp_path / "bridge.yaml").write_text(CONFIG)
    text = asyncapi("-c", "bridge.yaml", "--yaml", cwd=tmp_path)
    assert "hidden" not in text
    document = yaml.safe_load(text)
    assert parsed(document, node_modules)["problems"] == []
    assert document["servers"] == {"broker": {"host": "rabbit.example.com:5673", "protocol": "amqp"}}
    topics = set(document["channels"]) - {"webhook"}
    assert {"sms.recipient.sent", "voicemail.drop.sent", "bridge.source.stalled"} <= topics
    assert not {topic for topic in topics if topic.startswith(("voice.", "email.", "sms.text."))}
    assert "SMSNotSent" not in document["components"]["messages"]
    channel = document["channels"]["sms.recipient.sent"]
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "team.events"
