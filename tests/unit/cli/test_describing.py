"""Commands that describe: plugins, events, schemas, and starter files."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import entry_points

import yaml
from catalogue import CATALOGUE
from rigs.cli import POINTS

from bridge.cli.support.options import Exit
from bridge.config.loading import load
from bridge.domain import topics


def test_plugins_are_listed_without_being_imported(bridge, site) -> None:
    rows = {row["name"]: row for row in bridge("plugins", "--json").json}
    assert rows["lamp"] == {
        "kind": "source", "name": "lamp", "distribution": "acme-lamps", "version": "1.2", "object": "acme_cli:lamp",
        "conflicts_with": [],
    }  # fmt: skip
    assert re.search(r"^sink +bell +acme-lamps +1.2 +acme_cli:bell$", bridge("plugins").out, re.MULTILINE)
    assert "acme_cli" not in sys.modules


def test_a_conflict_between_plugins_is_listed(bridge, site) -> None:
    info = site / "zeta_lamps-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeta-lamps\nVersion: 3\n")
    (info / "entry_points.txt").write_text(POINTS)
    assert re.search(r"^source +lamp .* zeta-lamps 3$", bridge("plugins").out, re.MULTILINE)
    done = bridge("plugins", "schema", "lamp")
    assert done.code == Exit.CONFIG
    assert "acme-lamps 1.2 and zeta-lamps 3" in done.err


def test_plugin_schema_explains_every_setting(bridge, site) -> None:
    schema = bridge("plugins", "schema", "lamp").json
    assert schema["properties"]["token"]["description"] == "Opens the lamp."
    assert schema["properties"]["interval"]["default"] == "30s"
    assert "token_file" in schema["properties"]
    assert bridge("plugins", "schema", "lamp", "--kind", "sink").code == Exit.USAGE


def test_name_shared_by_source_and_sink_needs_the_kind(bridge, site) -> None:
    text = POINTS.replace("bell =", "lamp =")
    (site / "acme_lamps-1.2.dist-info" / "entry_points.txt").write_text(text)
    done = bridge("plugins", "schema", "lamp")
    assert done.code == Exit.USAGE
    assert "--kind" in done.err
    assert "fault" in bridge("plugins", "schema", "lamp", "--kind", "sink").json["properties"]


def test_the_catalogue_of_events_is_listed(bridge) -> None:
    rows = {row["class"]: row for row in bridge("events", "list", "--json").json}
    assert set(rows) >= {event.__name__ for event in CATALOGUE}
    assert rows["RecipientFailed"]["topic"] == "<sms|voice>.recipient.failed[.<detail>]"
    assert "voice.recipient.failed.no_answer" in rows["RecipientFailed"]["topics"]
    assert "sms.recipient.failed.no_answer" not in rows["RecipientFailed"]["topics"]
    assert rows["UnknownStatus"]["topic"] == "<channel>.<entity>.unknown"
    assert all(row["meaning"] for row in rows.values())
    assert re.search(r"^RecipientSent +<sms\|voice>\.recipient\.sent", bridge("events", "list").out, re.MULTILINE)


def test_every_topic_that_the_catalogue_shows_can_be_subscribed_to(bridge) -> None:
    shown = [topic for row in bridge("events", "list", "--json").json for topic in row["topics"]]
    assert [topics.check(topic) for topic in shown] == shown


def test_unsubscribable_plugin_event_is_reported_with_its_distribution(bridge, site) -> None:
    with (site / "acme_cli.py").open("a") as module:
        module.write(
            "from bridge.domain.event import Event\nclass LampOn(Event):\n    channels = ('Lamp',)\n    status = 'on'\n"
        )
    done = bridge("events", "list")
    assert done.code == Exit.DONE
    assert "left out: installed plugins: the source 'lamp' of acme-lamps 1.2" in done.err
    assert "LampOn: 'Lamp' cannot stand in a topic; use lower snake case" in done.err


def test_broken_source_does_not_hide_other_events(bridge, site) -> None:
    (site / "acme_cli.py").write_text("import not_there\n")
    done = bridge("events", "list")
    assert done.code == Exit.DONE
    assert "left out: installed plugins: the source 'lamp' of acme-lamps 1.2" in done.err
    assert "SourceStalled" in done.out
    done = bridge("config", "schema")
    assert "left out: " in done.err
    assert "source.lamp" not in done.json["$defs"]


def test_the_schema_of_an_event_is_named_by_its_dataschema(bridge) -> None:
    schemas = bridge("events", "schema").json
    assert schemas.keys() == {event.schema_name() for event in CATALOGUE}
    for event in CATALOGUE:
        schema = schemas[event.schema_name()]
        assert schema["$id"] == f"urn:bridge:schemas/{event.schema_name()}/1"
        assert schema["properties"]["status"]["const"] == event.status
        assert bridge("events", "schema", event.__name__).json == schema


def test_the_schema_of_the_file_knows_the_installed_plugins(bridge, site) -> None:
    schema = bridge("config", "schema").json
    assert schema["required"] == ["sources"]
    assert "lamp" in schema["properties"]["sources"]["additionalProperties"]["properties"]["type"]["enum"]
    lamp = schema["$defs"]["source.lamp"]
    assert lamp["properties"]["type"] == {"const": "lamp"}
    assert lamp["additionalProperties"] is False
    interval = lamp["properties"]["interval"]
    assert [
        re.search(choice["pattern"], text) is not None
        for choice, text in zip(interval["anyOf"], ("30s", "${X}"), strict=True)
    ]
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])


def test_the_effective_configuration_is_shown_without_secrets(bridge, file) -> None:
    done = bridge("config", "show", "-c", file)
    assert "canary" not in done.out
    shown = yaml.safe_load(done.out)
    assert shown["sources"]["lamps"]["interval"] == "30s"
    assert bridge("config", "show", "-c", file, "--json").json == shown


def test_a_starter_file_loads_once_its_variables_are_set(bridge, site, tmp_path) -> None:
    text = bridge("config", "new", "--source", "lamp", "--sink", "bell").out
    assert "#   LAMP_TOKEN\n" in text
    assert "    # Opens the lamp; or token_file: PATH\n    token: ${LAMP_TOKEN}\n" in text
    assert "    #interval: 30s\n" in text
    path = tmp_path / "new.yaml"
    path.write_text(text)
    config = load(path, environ={"LAMP_TOKEN": "x"})
    assert list(config.sources) == ["lamp"]
    every = re.sub(r"^( *)#(\w+: )", r"\1\2", text, flags=re.MULTILINE)
    path.write_text(every)
    assert load(path, environ={"LAMP_TOKEN": "x", "PRIVACY_KEY": "x"}).exchange == "bridge.events"
    assert "sinks: {}" in bridge("config", "new", "--source", "lamp").out
    done = bridge("config", "new", "--source", "nope")
    assert done.code == Exit.USAGE  # nothing is wrong with a configuration: there is none yet
    assert "there is no source 'nope' installed; there is govdelivery" in done.err


def test_starter_file_omits_broken_and_conflicting_plugins(bridge, site) -> None:
    (site / "acme_cli.py").write_text("import not_there\n")
    info = site / "zeta_lamps-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeta-lamps\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[bridge.sinks]\nbell = zeta:bell\n")
    done = bridge("config", "new")
    assert done.code == Exit.DONE
    assert "left out: installed plugins: the source 'lamp' of acme-lamps 1.2 cannot be imported" in done.err
    assert "left out: installed plugins: the sink 'bell' is announced by acme-lamps 1.2 and zeta-lamps 3" in done.err
    assert "type: govdelivery" in done.out
    assert "type: lamp" not in done.out
    assert bridge("config", "new", "--source", "lamp").code == Exit.CONFIG


def test_starter_file_has_examples_and_required_secrets_only(bridge, site, tmp_path) -> None:
    text = bridge("config", "new", "--source", "torch").out
    assert "    url: https://torch.example\n" in text
    assert "    place: ${TORCH_PLACE}\n" in text
    assert "    token: ${TORCH_TOKEN}\n" in text
    assert "    #key: ${TORCH_KEY}\n" in text
    path = tmp_path / "new.yaml"
    path.write_text(text)
    assert load(path, environ={"TORCH_TOKEN": "x", "TORCH_PLACE": "x"}).sources["torch"].url == "https://torch.example"


def test_starter_file_has_all_installed_plugins_by_default(bridge, monkeypatch, site) -> None:
    own = [point for point in entry_points(group="bridge.sources") if point.value.startswith("acme_cli:")]
    sinks = [point for point in entry_points(group="bridge.sinks") if point.value.startswith("acme_cli:")]
    groups = {"bridge.sources": own, "bridge.sinks": sinks}
    monkeypatch.setattr("bridge.config.registry.entry_points", lambda group: groups[group])
    shown = yaml.safe_load(bridge("config", "new").out)
    assert (list(shown["sources"]), list(shown["sinks"])) == (["lamp", "torch"], ["bell"])
