"""The events of a definition are known to every command that is given the configuration, without any secret."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bridge.cli.support.known_topics import check_topics, known_topics, topic_notes, unknown_topic
from bridge.cli.support.names import complete_events, complete_topics
from bridge.config.loading import load
from bridge.domain.errors import ConfigError

CALL = "voice.call.no_answer"
FILE = """
sources:
  calls: {type: rest, provider: twilio-calls, account: "${ACCOUNT}", key: "${KEY}", secret_file: ./not-here}
sinks:
  screen: {type: stdout, topics: ["TOPIC"]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bridge.yaml"
    path.write_text(FILE.replace("TOPIC", CALL))
    return path


def test_events_of_a_definition_are_known_without_secrets(file):
    config = load(file, environ={}, with_secrets=False)
    assert unknown_topic(CALL, known_topics()) is not None
    assert unknown_topic(CALL, known_topics(config)) is None
    check_topics(config)
    assert topic_notes(config) == []


def test_topic_that_no_definition_has_is_refused(file):
    file.write_text(FILE.replace("TOPIC", "voice.call.no_anwser"))
    with pytest.raises(ConfigError, match=r"did you mean 'voice\.call\.no_answer'"):
        check_topics(load(file, environ={}, with_secrets=False))


def test_commands_on_events_show_those_of_a_definition(bridge, file):
    listed = bridge("events", "list", "-c", file, "--json").json
    assert CALL in {topic for row in listed for topic in row["topics"]}
    name = next(row["class"] for row in listed if CALL in row["topics"])
    assert bridge("events", "schema", name, "-c", file).json["title"] == name
    assert bridge("events", "schema", name).code == 2  # the installed sources alone have none of this name


def test_asyncapi_document_has_the_events_of_a_definition(bridge, file, monkeypatch):
    monkeypatch.setenv("ACCOUNT", f"AC{'0' * 32}")
    monkeypatch.setenv("KEY", "key")
    (file.parent / "not-here").write_text("secret")
    monkeypatch.chdir(file.parent)
    document = bridge("events", "asyncapi", "-c", file).json
    topics = {str(channel["address"]) for channel in document["channels"].values()}
    assert CALL in topics
    assert not any(topic.startswith("voicemail.") for topic in topics)


@pytest.mark.parametrize("nodes", ["one:5672,two:5673", "one:5672,[::1]:5673"])
def test_asyncapi_document_names_the_first_node_of_a_cluster(bridge, file, nodes):
    file.write_text(
        f"broker: amqp://user:hidden@{nodes}/team\n"
        "sources: {city: {type: govdelivery, url: https://tms.example.com, token: t, channels: [sms]}}\n"
    )
    done = bridge("events", "asyncapi", "-c", file)
    assert done.json["servers"] == {"broker": {"host": "one:5672", "protocol": "amqp"}}
    assert "hidden" not in done.out + done.err


def test_events_of_a_definition_are_completed(file):
    context = SimpleNamespace(params={"config_file": file}, parent=None)
    assert [item.value for item in complete_topics(context, None, "voice.call.no")] == [CALL]
    assert any("call" in item.value.lower() for item in complete_events(context, None, "Twilio"))
