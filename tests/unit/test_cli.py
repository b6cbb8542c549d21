from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
import structlog
import yaml
from catalogue import CATALOGUE

from bridge import __version__
from bridge.cli import COMMANDS, cli, main
from bridge.cli.commands.tail import mask_phones, readable
from bridge.cli.support.errors import report_error
from bridge.cli.support.options import Exit, parse_moment
from bridge.cli.support.output import ago, print_table
from bridge.config.loading import load
from bridge.domain import topics
from bridge.domain.errors import ConfigError, ConfigProblem, Permanent, Unavailable
from bridge.domain.event import Event, JournalEntry, Position, Transition, WireEvent, event_id
from bridge.domain.event_view import EventView
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed, RecipientSending, RecipientSent
from bridge.protocols.deliveries import Attempt, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.runtime.assembly import Assembly
from bridge.testing.servers import RedisServer, wait_for

PLUGINS = '''
from pydantic import Field, model_validator
from bridge.domain.errors import Permanent, Transient, Unauthorized
from bridge.domain.settings import Secret
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import Probe, SourcePlugin, SourceSettings

ERRORS = {"away": Transient("lamp.example is away"), "wrong": Unauthorized("the token was refused"),
          "never": Permanent("no such account"), "defect": KeyError("secret"), "": None}


class LampSettings(SourceSettings):
    """A lamp."""

    token: Secret
    """Opens the lamp."""
    fault: str = ""
    channels: int = 1


class Lamp:
    retention = 60.0

    def __init__(self, fault, channels=1):
        self.fault = ERRORS[fault]
        self.channels = channels
        self.problems = []

    def resource(self, text):
        if text.isdigit() and self.channels > 1:
            raise ValueError(f"{text!r} may be of several channels; give its path")
        if text.isdigit():
            return f"/messages/voice/{text}"
        if text.startswith("/messages/"):
            return text
        raise ValueError(f"{text!r} is no message; write an id or a path")

    async def probe(self):
        if self.fault:
            raise self.fault
        return Probe("shines", 2880.0)

    async def close(self):
        pass


class Bell:
    def __init__(self, fault):
        self.fault = ERRORS[fault]

    async def open(self):
        pass

    async def probe(self):
        if self.fault:
            raise self.fault
        return "rings"

    async def close(self):
        pass


class BellSettings(SinkSettings):
    """A bell."""

    fault: str = ""


class TorchSettings(SourceSettings):
    """A torch, opened by one of two secrets."""

    url: str = Field(examples=["https://torch.example"])
    place: str
    shade: LampSettings | None = None
    token: Secret | None = None
    key: Secret | None = None

    @model_validator(mode="after")
    def _one_secret(self):
        if not (self.token or self.key):
            raise ValueError("give token or key")
        return self


torch = SourcePlugin(TorchSettings, lambda name, settings, clock: Lamp(""))
lamp = SourcePlugin(LampSettings, lambda name, settings, clock: Lamp(settings.fault, settings.channels))
bell = SinkPlugin(BellSettings, lambda name, settings, clock: Bell(settings.fault))
'''
POINTS = "[bridge.sources]\nlamp = acme_cli:lamp\ntorch = acme_cli:torch\n[bridge.sinks]\nbell = acme_cli:bell\n"
CONFIG = """
sources: {lamps: {type: lamp, token: canary}}
sinks:
  crm: {type: bell, topics: ["voice.#"]}
  ops: {type: bell, topics: ["*.recipient.failed.#"], ordered: true}
"""
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch) -> Iterator[None]:
    """Undo what a command sets for its whole process."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "site"
    info = folder / "acme_lamps-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lamps\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    (folder / "acme_cli.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("acme_cli", None)
    return folder


@pytest.fixture
def file(tmp_path, site) -> Path:
    path = tmp_path / "bridge.yaml"
    path.write_text(f"{CONFIG}\nstate: {tmp_path / 'state'}\n")
    return path


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def bridge(capsys):
    def call(*arguments) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Done(int(ended.value.code), said.out, said.err)

    return call


# --- help ---------------------------------------------------------------------------------------------------------


def pages(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from pages(inner, (*path, name))


def test_every_help_page_ends_with_examples_of_its_own() -> None:
    help_pages = dict(pages(cli))
    assert {path[0] for path in help_pages if path} == set(COMMANDS)
    for path, command in help_pages.items():
        name = " ".join(("bridge", *path))
        page = command.get_help(click.Context(command, info_name=name))
        examples = page.rpartition("\nExamples:\n")[2]
        assert examples != page, f"{name} --help has no examples"
        assert name in examples
        assert not examples.startswith("\n"), name


def test_help_and_version_need_none_of_the_heavy_libraries() -> None:
    heavy = ["pydantic", "aiohttp", "kombu", "redis", "structlog", "rich", "yaml", "asyncio", "importlib.metadata"]
    code = f"import sys\nfrom bridge.cli import main\ntry: main(['{{}}'])\nexcept SystemExit as e: assert e.code == 0\nprint([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"


def test_help_names_every_command_and_every_exit_code(bridge) -> None:
    page = bridge("--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w", page, re.MULTILINE)
    for code in Exit:
        assert re.search(rf"^    {code.value} +\w", page, re.MULTILINE)


def test_the_version_is_the_packages(bridge) -> None:
    assert bridge("--version").out == f"bridge {__version__}\n"


def test_the_shell_completes_commands_without_importing_them() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from bridge.cli import main; main([])"],
        env={**os.environ, "_BRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": "bridge re", "COMP_CWORD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,reconcile", "plain,replay", "plain,replay-tape"]
    assert "pydantic" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("nothing",), ("check",), ("check", "--nope"), ("replay", "crm", "-c", "x"), ("tail", "a.#.b", "-c", "x"),
     ("tail", "Voice.x", "-c", "x"),
     ("demo", "--seconds", "nan"), ("demo", "--seconds", "inf"), ("simulate", "--speed", "nan"), ("demo", "--seconds", "0"),
     ("events", "schema", "Nope"), ("plugins", "schema", "nope")],
)  # fmt: skip
def test_wrong_usage_is_told_and_ends_with_2(bridge, arguments) -> None:
    done = bridge(*arguments)
    assert done.code == Exit.USAGE
    assert done.out == ""
    assert "Error: " in done.err


# --- errors -------------------------------------------------------------------------------------------------------

PROBLEM = ConfigError([ConfigProblem("f", 1, "a", "no"), ConfigProblem("f", 2, "b", "neither")])


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (PROBLEM, Exit.CONFIG, ["f:1: a: no", "f:2: b: neither"]),
        (Unavailable("redis is\naway"), Exit.UNREACHABLE, ["bridge: redis is away"]),
        (Permanent("no"), Exit.FAILED, ["bridge: no"]),
        (PermissionError(13, "Permission denied", "/x"), Exit.FAILED, ["bridge: Permission denied: /x"]),
        (KeyError("canary"), Exit.FAILED, ["bridge: sorry, .* unexpected KeyError; BRIDGE_DEBUG=1 .*"]),
        (ExceptionGroup("", [Permanent("a"), ExceptionGroup("", [Unavailable("b")])]), Exit.UNREACHABLE, ["bridge: a", "bridge: b"]),
    ],
)  # fmt: skip
def test_every_error_is_a_line_and_an_exit_code(capsys, error, code, lines) -> None:
    assert report_error(error) is code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == len(lines)
    for line, wanted in zip(said.err.splitlines(), lines, strict=True):
        assert re.fullmatch(wanted, line)


def test_a_traceback_is_to_be_had_on_request(capsys, monkeypatch) -> None:
    monkeypatch.setenv("BRIDGE_DEBUG", "1")
    report_error(KeyError("x").with_traceback(None))
    assert capsys.readouterr().err.startswith("KeyError: 'x'\n")


def test_an_interrupt_before_the_end_has_its_own_exit_code(bridge, monkeypatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridge.cli.commands.plugins.plugins.callback", interrupted)
    done = bridge("plugins")
    assert (done.code, done.out) == (Exit.INTERRUPTED, "")
    assert "bridge: interrupted" in done.err


def test_a_reader_that_has_seen_enough_gets_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from bridge.cli import main; main(['events', 'schema'])"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


# --- what is printed ----------------------------------------------------------------------------------------------


def test_a_table_for_a_pipe_is_aligned_text(capsys) -> None:
    print_table(["name", "n"], [("a", 1), ("long", None), ("x\ny", "")])
    assert capsys.readouterr().out == "NAME  N\na     1\nlong  -\nx y   -\n"


@pytest.mark.parametrize("color", [True, False])
def test_terminal_table_is_ruled_and_coloured_only_when_wanted(monkeypatch, color) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    print_table(["name", "state"], [("a", "ok"), ("[b]", "dead")])
    text = sys.stdout.getvalue()
    assert "─" in text
    assert "[b]" in text
    assert ("\x1b[32m" in text) is color


@pytest.mark.parametrize(
    ("text", "moment"),
    [("2h", NOW - timedelta(hours=2)), ("500ms", NOW - timedelta(milliseconds=500)),
     ("2026-03-15T21:00:00Z", datetime(2026, 3, 15, 21, tzinfo=UTC)),
     ("2026-03-15T21:00:00.5-06:00", datetime(2026, 3, 16, 3, 0, 0, 500000, tzinfo=UTC))],
)  # fmt: skip
def test_time_option_accepts_rfc_3339_and_age(text, moment) -> None:
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "is not a time"),
        ("2026-03-15T21:00:00", "no offset"),
        ("2", "is not a time"),
        ("99999999h", "before"),
    ],
)
def test_a_time_that_cannot_be_read_says_what_is_meant(text, said) -> None:
    with pytest.raises(ValueError, match=said):
        parse_moment(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s ago"), (59.9, "59s ago"), (61, "1m ago"), (7200, "2h ago"), (200000, "2d ago"), (-90, "in 1m")],
)
def test_how_long_ago_is_said_in_one_unit(seconds, text) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_phones_in_texts_lose_all_but_four_digits() -> None:
    assert mask_phones("call to +1 (651) 555-1000 failed: 486") == "call to …1000 failed: 486"


# --- describing ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("event", CATALOGUE, ids=lambda event: event.__name__)
def test_the_schema_of_an_event_is_named_by_its_dataschema(bridge, event) -> None:
    schemas = bridge("events", "schema").json
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
    assert "no source 'nope' is installed; installed: " in done.err


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


# --- check --------------------------------------------------------------------------------------------------------


def test_a_check_asks_every_part_and_tells_what_polling_costs(bridge, file) -> None:
    done = bridge("check", "-c", file)
    assert (done.code, done.err) == (Exit.DONE, "")
    assert re.search(r"^store +ok +- +- +sqlite:", done.out, re.MULTILINE)
    assert re.search(r"^broker +ok +- +- +embedded$", done.out, re.MULTILINE)
    assert re.search(r"^source lamps +ok +2,880 +1,051,200 +shines$", done.out, re.MULTILINE)
    assert re.search(r"^sink crm +ok +- +- +rings$", done.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("fault", "code", "state", "said"),
    [("away", Exit.UNREACHABLE, "unreachable", "lamp.example is away"), ("wrong", Exit.FAILED, "refused", "the token was refused"),
     ("never", Exit.FAILED, "refused", "no such account"), ("defect", Exit.FAILED, "refused", "a defect: unexpected KeyError")],
)  # fmt: skip
@pytest.mark.parametrize("part", ["lamps: {type: lamp", "crm: {type: bell"])
def test_a_check_says_which_part_fails_and_why(bridge, file, part, fault, code, state, said) -> None:
    file.write_text(file.read_text().replace(part, f"{part}, fault: {fault}"))
    done = bridge("check", "-c", file, "--json")
    assert done.code == code
    assert not done.json["ok"]
    name = "source lamps" if "lamp" in part else "sink crm"
    assert {row["part"]: (row["state"], row["said"]) for row in done.json["parts"]}[name] == (state, said)
    assert sum(row["state"] == "ok" for row in done.json["parts"]) == 4


def test_unavailable_store_is_reported_without_its_password(bridge, file) -> None:
    file.write_text(f"{file.read_text()}store: redis://:canary@127.0.0.1:1/0\nbroker: redis://:canary@127.0.0.1:1/1\n")
    done = bridge("check", "-c", file)
    assert done.code == Exit.UNREACHABLE
    assert re.search(r"^store +unreachable .* cannot be reached: connection refused", done.out, re.MULTILINE)
    assert re.search(r"^broker +unreachable .* connection refused", done.out, re.MULTILINE)
    assert "canary" not in done.out + done.err


@pytest.mark.parametrize("key", ["store", "broker"])
def test_address_unreadable_by_its_library_is_a_file_problem(bridge, file, key) -> None:
    url = {"store": "redis://h/0?socket_timeout=x", "broker": "amqp://h//?ssl_cert_reqs=canary"}[key]
    file.write_text(f"{file.read_text()}{key}: {url}\n")
    done = bridge("tail" if key == "broker" else "sources", "-c", file)
    assert done.code == Exit.CONFIG
    assert re.match(rf".*bridge\.yaml:\d+: {key}: ", done.err)
    assert "canary" not in done.err


def test_refused_password_is_not_reported_as_unreachable(bridge, file) -> None:
    with RedisServer() as server:
        url = server.url.replace("//", "//nobody:canary@")
        file.write_text(f"{file.read_text()}store: {url}\nbroker: {url}\n")
        done = bridge("check", "-c", file)
    assert done.code == Exit.FAILED
    assert re.search(r"^store +refused .* refuses the credentials", done.out, re.MULTILINE)
    assert re.search(r"^broker +refused .* credentials were refused", done.out, re.MULTILINE)
    assert "canary" not in done.out + done.err


def test_command_without_its_store_ends_with_4(bridge, file) -> None:
    file.write_text(f"{file.read_text()}store: redis://:canary@127.0.0.1:1/0\n")
    done = bridge("sources", "-c", file)
    assert done.code == Exit.UNREACHABLE
    assert len(done.err.splitlines()) == 1
    assert "canary" not in done.err


def test_a_check_without_connections_makes_none(bridge, file, tmp_path) -> None:
    assert bridge("check", "--offline", "-c", file).out.endswith("ok: sources lamps; sinks crm, ops\n")
    assert not (tmp_path / "state").exists()


def test_plugin_settings_refusal_is_reported_as_json(bridge, file) -> None:
    file.write_text("sources: {}\n")
    done = bridge("check", "-c", file, "--json")
    assert done.code == Exit.CONFIG
    assert done.json["problems"][0]["line"] == 1


# --- the store ----------------------------------------------------------------------------------------------------

ONE, TWO = "/messages/voice/10507/recipients/1", "/messages/voice/10507/recipients/2"


def event(cls: type[Event], subject: str, minutes_ago: float, *, previous: str | None = None, **more) -> Event:
    at = NOW - timedelta(minutes=minutes_ago)
    transition = Transition.ADVANCE if previous else Transition.FIRST
    data = RecipientData(
        channel="voice", status=cls.status, previous=previous, transition=transition, message="/messages/voice/10507",
        observed={"after": at - timedelta(seconds=30), "by": at}, phone="+16515551000", **more,
    )  # fmt: skip
    number = event_id("/lamp/lamps", subject, cls.status, 0)
    return cls.of(id=number, source="/lamp/lamps", subject=subject, time=at, recordedtime=at, data=data)


EVENTS = [
    event(RecipientSending, ONE, 90),
    event(RecipientSending, TWO, 80),
    event(RecipientFailed, ONE, 60, previous="sending", detail="busy", error="line +1 651 555 1000 busy"),
    event(RecipientSent, TWO, 30, previous="sending", detail="human"),
    event(RecipientFailed, ONE + "0", 20, detail="no_answer"),
    event(RecipientFailed, ONE + "1", 10, detail="no_answer"),
]


def at(seq: int) -> Position:
    return Position("lamps", seq)


@pytest.fixture
def seeded(file) -> Path:
    """Give a configuration whose store has six events, five of them confirmed, and deliveries in every state."""

    async def seed() -> None:
        async with Assembly(load(file)).opened_store() as store:
            store._begin = 0  # plain numbers
            lease = await store.acquire("source/lamps", "host-1", 60.0)
            cursor = {"page": "7", "~started": "2026-01-01T00:00:00Z"}
            await store.commit(lease, Commit("lamps", events=[event.to_wire() for event in EVENTS], cursor=cursor))
            relay = await store.acquire("relay/lamps", "host-1", 60.0)
            await store.confirm(relay, "lamps", 5)
            now = datetime.now(UTC)
            times = {"last_poll": now, "last_ok": now, "next_poll": now + timedelta(minutes=5)}
            notes = {name: value.isoformat() for name, value in times.items()}
            await store.set_status(
                "source/lamps", {**notes, "state": "failing", "failures": "3", "error": "lamp is away"}
            )
            await store.accept("crm", [NewDelivery(at(1)), NewDelivery(at(2)), NewDelivery(at(3))], NOW.timestamp())
            await store.settle("crm", [at(1)])
            try_ = Attempt(NOW.timestamp(), "HTTP 503")
            await store.postpone("crm", at(2), NOW.timestamp() + 600, try_)
            await store.dead_letter("crm", at(3), "permanent", Attempt(NOW.timestamp(), "HTTP 400", "permanent"))
            await store.raise_low_watermark("ops", "lamps", 4)
            await store.accept("gone", [NewDelivery(at(1))], NOW.timestamp())

    asyncio.run(seed())
    return file


def test_sources_are_shown_with_what_the_service_told(bridge, seeded) -> None:
    (row,) = bridge("sources", "-c", seeded, "--json").json
    assert (row["state"], row["failures"], row["error"]) == ("failing", 3, "lamp is away")
    assert (row["committed"], row["confirmed"], row["lag"], row["kept"], row["cursor"]) == (6, 5, 1, 6, 1)
    assert row["holder"] == "host-1"
    out = bridge("sources", "-c", seeded).out
    assert re.search(
        r"^lamps +lamp +failing \(3\) +\d+[sm] ago +in [45]m +1 +6 +1 +host-1 +lamp is away$", out, re.MULTILINE
    )


def test_a_source_that_was_never_polled_says_so(bridge, file) -> None:
    assert re.search(r"^lamps +lamp +never polled +- ", bridge("sources", "-c", file).out, re.MULTILINE)


def test_watched_messages_are_added_by_id_or_path(bridge, file) -> None:
    assert bridge("watch", "add", "lamps", "10507", "/messages/sms/2", "-c", file).code == Exit.DONE
    assert "was followed already" in bridge("watch", "add", "lamps", "/messages/voice/10507", "-c", file).out
    wanted = [{"source": "lamps", "resource": path} for path in ("/messages/sms/2", "/messages/voice/10507")]
    assert bridge("watch", "list", "-c", file, "--json").json == wanted
    assert "/messages/sms/2" in bridge("watch", "list", "lamps", "-c", file).out
    assert bridge("watch", "remove", "lamps", "10507", "-c", file).code == Exit.DONE
    done = bridge("watch", "remove", "lamps", "10507", "-c", file)
    assert (done.code, done.out) == (Exit.FAILED, "/messages/voice/10507: was not followed\n")


@pytest.fixture
def channels(file) -> Path:
    """Give a configuration whose source has resources of two channels, so that an id alone does not name one."""
    file.write_text(file.read_text().replace("token: canary", "token: canary, channels: 2"))
    return file


def test_watched_message_is_removed_by_id_over_several_channels(bridge, channels) -> None:
    done = bridge("watch", "add", "lamps", "99999", "-c", channels)
    assert done.code == Exit.USAGE
    assert "'99999' may be of several channels" in done.err
    bridge("watch", "add", "lamps", "/messages/voice/99999", "/messages/voice/7", "/messages/sms/7", "-c", channels)
    done = bridge("watch", "remove", "lamps", "99999", "-c", channels)
    assert (done.code, done.out) == (Exit.DONE, "/messages/voice/99999: is followed no longer\n")
    done = bridge("watch", "remove", "lamps", "7", "-c", channels)
    assert done.code == Exit.USAGE
    assert "'7' may be /messages/sms/7 or /messages/voice/7; give the path" in done.err
    assert bridge("watch", "remove", "lamps", "99999", "-c", channels).code == Exit.USAGE


def test_ambiguous_id_is_traced_to_every_resource(bridge, seeded) -> None:
    seeded.write_text(seeded.read_text().replace("token: canary", "token: canary, channels: 2"))
    events = bridge("trace", "1", "-c", seeded, "--json").json
    assert [(event["subject"], event["topic"]) for event in events] == [
        (ONE, "voice.recipient.sending"), (ONE, "voice.recipient.failed.busy"),
    ]  # fmt: skip


@pytest.mark.parametrize("resource", ["nope nope", "99999"])
def test_reconcile_of_an_unnameable_resource_is_wrong_usage(bridge, channels, resource) -> None:
    done = bridge("reconcile", "lamps", "--resource", resource, "-c", channels)
    assert done.code == Exit.USAGE
    assert "--resource: " in done.err


@pytest.mark.parametrize(
    "arguments", [("add", "nope", "1"), ("add", "lamps", "a b"), ("remove", "nope", "1"), ("list", "nope")]
)
def test_what_cannot_be_followed_is_wrong_usage(bridge, file, arguments) -> None:
    done = bridge("watch", *arguments, "-c", file)
    assert done.code == Exit.USAGE
    assert "there is no source 'nope'" in done.err or "'a b' is no message" in done.err


def test_deliveries_are_listed_with_their_event_and_last_error(bridge, seeded) -> None:
    rows = {row["position"]: row for row in bridge("deliveries", "list", "-c", seeded, "--json").json}
    assert set(rows) == {"lamps:2", "lamps:3"}
    assert rows["lamps:2"]["state"] == "waiting"
    assert rows["lamps:3"]["reason"] == "permanent"
    assert rows["lamps:3"]["subject"] == ONE
    assert rows["lamps:3"]["attempts"][0]["error"] == "HTTP 400"
    out = bridge("deliveries", "list", "crm", "--dead", "-c", seeded).out
    assert re.search(
        rf"^crm +lamps:3 +voice.recipient.failed.busy +{ONE} +dead: permanent +1 +- +HTTP 400$", out, re.MULTILINE
    )
    assert "lamps:2" not in out
    assert "gone" in bridge("deliveries", "list", "gone", "-c", seeded).out


@pytest.mark.parametrize("name", [str(at(3)), EVENTS[2].id])
def test_a_delivery_is_shown_by_position_or_event_id(bridge, seeded, name) -> None:
    shown = bridge("deliveries", "show", "crm", name, "-c", seeded, "--json").json
    assert (shown["state"], shown["id"], shown["event"]["subject"]) == ("dead", EVENTS[2].id, ONE)
    assert "permanent: HTTP 400" in bridge("deliveries", "show", "crm", name, "-c", seeded).out


def test_delivery_is_shown_with_event_and_without_phone(bridge, seeded) -> None:
    done = bridge("deliveries", "show", "crm", "lamps:3", "-c", seeded)
    shown = json.loads(done.out.partition("\nevent:     ")[2])
    assert (shown["id"], shown["data"]["status"], shown["data"]["phone"]) == (EVENTS[2].id, "failed", "…1000")
    assert "555" not in done.out


@pytest.mark.parametrize("command", ["show", "redrive", "discard"])
def test_missing_delivery_is_reported_and_changes_nothing(bridge, seeded, command) -> None:
    done = bridge("deliveries", command, "crm", "lamps:99", "-c", seeded)
    assert done.code == Exit.FAILED
    assert "has no event 'lamps:99'" in done.err or "crm: lamps:99 neither waits nor is a dead letter" in done.err


def test_of_several_deliveries_those_that_are_there_are_redriven(bridge, seeded) -> None:
    done = bridge("deliveries", "redrive", "crm", "lamps:1", "lamps:3", "-c", seeded)
    assert (done.code, done.out) == (Exit.FAILED, "crm: 1 due again\n")
    assert done.err == "bridge: crm: lamps:1 neither waits nor is a dead letter\n"


@pytest.mark.parametrize(("name", "state"), [("lamps:1", "delivered, or discarded"), ("lamps:5", "never offered")])
def test_settled_or_future_delivery_is_reported_as_such(bridge, seeded, name, state) -> None:
    assert state in bridge("deliveries", "show", "crm", name, "-c", seeded).out


def test_event_missing_from_journal_is_reported(bridge, seeded) -> None:
    done = bridge("deliveries", "show", "crm", "0" * 32, "-c", seeded)
    assert done.code == Exit.FAILED
    assert "the journal has no event" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("list", "nope"), ("show", "nope", "lamps:1"), ("redrive", "crm"), ("redrive", "crm", "lamps:3", "--all"), ("redrive",),
     ("discard", "--dead", "--all"), ("redrive", "nope", "lamps:1")],
)  # fmt: skip
def test_deliveries_have_to_be_named(bridge, seeded, arguments) -> None:
    assert bridge("deliveries", *arguments, "-c", seeded).code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments", [("trace", TWO), ("deliveries", "list"), ("deliveries", "show", "crm", "lamps:2")]
)
def test_deliveries_of_disabled_sink_show_reason_and_remedy(bridge, seeded, arguments) -> None:
    async def disable() -> None:
        async with Assembly(load(seeded)).opened_store() as store:
            await store.set_status(
                "sink/crm", {"disabled": "https://crm.example: 410", "disabled_at": "2026-03-15T21:00:00Z"}
            )

    asyncio.run(disable())
    said = "the sink is disabled since 2026-03-15T21:00:00Z: https://crm.example: 410; `bridge deliveries redrive crm --all`"
    assert said in bridge(*arguments, "-c", seeded).out
    if arguments[0] == "deliveries":
        shown = bridge(*arguments, "-c", seeded, "--json").json
        delivery = (
            shown if isinstance(shown, dict) else next(entry for entry in shown if entry["position"] == "lamps:2")
        )
        assert delivery["disabled"] == {"answered": "https://crm.example: 410", "since": "2026-03-15T21:00:00Z"}
    bridge("deliveries", "redrive", "crm", "--all", "-c", seeded)
    assert "disabled" not in bridge(*arguments, "-c", seeded).out


def test_dead_letters_are_redriven_and_the_sink_is_enabled_again(bridge, seeded) -> None:
    async def disable() -> None:
        async with Assembly(load(seeded)).opened_store() as store:
            await store.set_status("sink/crm", {"disabled": "410 Gone"})

    async def state() -> tuple[str, str]:
        async with Assembly(load(seeded)).opened_store() as store:
            return (await store.statuses("sink/"))["sink/crm"]["disabled"], (await store.delivery("crm", at(3))).state

    asyncio.run(disable())
    assert bridge("deliveries", "redrive", "crm", "--dead", "-c", seeded).out == (
        "crm: 1 due again; the sink is enabled again\n"
    )
    assert asyncio.run(state()) == ("", "waiting")
    assert bridge("deliveries", "redrive", "crm", EVENTS[2].id, "-c", seeded).out == "crm: 1 due again\n"
    assert bridge("deliveries", "redrive", "--all", "-c", seeded).out == "crm: 2 due again\nops: 0 due again\n"


def test_discarding_asks_first(bridge, seeded, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = bridge("deliveries", "discard", "crm", "--dead", "-c", seeded)
    assert (done.code, done.out) == (Exit.FAILED, "nothing was discarded\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert bridge("deliveries", "discard", "crm", "--dead", "-c", seeded).code == Exit.FAILED
    assert bridge("deliveries", "discard", "crm", "--dead", "--yes", "-c", seeded).out == "crm: 1 discarded\n"
    assert bridge("deliveries", "discard", "crm", "lamps:2", "-y", "-c", seeded).out == "crm: 1 discarded\n"
    assert bridge("deliveries", "list", "crm", "-c", seeded, "--json").json == []
    assert bridge("deliveries", "discard", "--all", "-c", seeded).out == "crm: 0 discarded\nops: 0 discarded\n"


@pytest.mark.parametrize(
    ("arguments", "selected", "replayed"),
    [
        (("crm", "--since", "24h"), 6, 4),  # one waits, one is dead
        (("crm", "--since", "65m"), 4, 3),
        (("crm", "--since", "24h", "--until", "65m"), 2, 1),
        (("crm", "--since", "24h", "--topic", "voice.*.sent.#"), 1, 1),
        (("crm", "--since", "24h", "--topic", "voice.*.sent.#", "--topic", "*.*.failed.busy"), 2, 1),
        (("ops", "--since", "24h"), 3, 3),
        (("crm", "--since", "1m"), 0, 0),
    ],
)
def test_journalled_events_are_due_again_for_one_sink(bridge, seeded, arguments, selected, replayed) -> None:
    assert bridge("replay", *arguments, "-c", seeded, "--json").json == {
        "sink": arguments[0], "selected": selected, "replayed": replayed,
    }  # fmt: skip


def test_a_replay_says_what_it_left_alone(bridge, seeded) -> None:
    done = bridge("replay", "crm", "--since", "24h", "-c", seeded)
    assert done.out == "crm: 4 of 6 events are due again; 2 still wait or are dead letters, and were left alone\n"
    assert bridge("replay", "nope", "--since", "24h", "-c", seeded).code == Exit.USAGE
    assert bridge("replay", "crm", "--since", "24h", "--topic", "#.a", "-c", seeded).code == Exit.USAGE
    assert bridge("replay", "crm", "--since", "noon", "-c", seeded).code == Exit.USAGE
    done = bridge("replay", "crm", "--since", "1h", "--until", "2h", "-c", seeded)
    assert done.code == Exit.USAGE
    assert re.search(r"--since \S+ is not before --until \S+", done.err)


def test_a_trace_tells_each_change_and_what_each_sink_did(bridge, seeded) -> None:
    first, second = bridge("trace", ONE, "-c", seeded, "--json").json
    assert [first["topic"], second["topic"]] == ["voice.recipient.sending", "voice.recipient.failed.busy"]
    assert (second["previous"], second["transition"], second["confirmed"]) == ("sending", "advance", True)
    after, by = (datetime.fromisoformat(second["observed"][edge]) for edge in ("after", "by"))
    assert after < by
    assert {sink["sink"]: sink["state"] for sink in first["sinks"]} == {"crm": "taken", "ops": "filtered"}
    assert {sink["sink"]: sink["state"] for sink in second["sinks"]} == {"crm": "dead", "ops": "before"}
    out = bridge("trace", ONE, "-c", seeded).out
    assert "-> crm: dead letter, permanent, after 1 try\n" in out
    assert "permanent: HTTP 400" in out
    assert "line …1000 busy" in out
    assert "-> ops: not sent: its topics are *.recipient.failed.#" in out


def test_trace_says_delivered_unless_an_operator_may_have_discarded(bridge, seeded) -> None:
    def crm() -> tuple[str, str]:
        sinks = bridge("trace", ONE, "-c", seeded, "--json").json[0]["sinks"]
        return next((sink["state"], sink["said"]) for sink in sinks if sink["sink"] == "crm")

    assert crm() == ("taken", "taken")
    bridge("deliveries", "discard", "crm", "lamps:2", "--yes", "-c", seeded)
    assert crm() == ("settled", "delivered, or discarded by an operator")


@pytest.mark.parametrize(
    ("resource", "states"),
    [
        (TWO, ["waiting", "queued"]),
        (EVENTS[3].id, ["waiting", "queued"]),
        (ONE + "0", ["queued"]),
        (ONE + "1", ["unpublished"]),
    ],
)
def test_trace_says_why_a_sink_still_waits(bridge, seeded, resource, states) -> None:
    events = bridge("trace", resource, "-c", seeded, "--json").json
    assert [event["sinks"][0]["state"] for event in events] == states
    assert bridge("trace", resource, "-c", seeded).code == Exit.DONE


@pytest.mark.parametrize("resource", ["/messages/voice/1", "10507", "0" * 32, "lamps:77"])
def test_a_trace_of_nothing_says_what_that_means(bridge, seeded, resource) -> None:
    done = bridge("trace", resource, "-c", seeded)
    assert done.code == Exit.FAILED
    assert "168h ago (journal.keep)" in done.err


def test_a_long_journal_is_replayed_in_batches(bridge, file) -> None:
    events = [
        event(RecipientSent, f"/messages/voice/1/recipients/{number}", 5, detail="human") for number in range(2001)
    ]

    async def seed() -> None:
        async with Assembly(load(file)).opened_store() as store:
            await store.commit(None, Commit("lamps", events=[event.to_wire() for event in events]))

    asyncio.run(seed())
    assert bridge("replay", "crm", "--since", "1h", "-c", file).out == "crm: 2001 of 2001 events are due again\n"
    assert "recipients/2000" in bridge("trace", events[-1].id, "-c", file).out


# --- journal ---


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"data": 5, "recordedtime": "noon"}'])
def test_body_that_is_no_event_prints_without_content(body) -> None:
    line = EventView(at(1), WireEvent("id-1", "a.b.c", 0, body))
    assert (line.data, line.subject, line.recorded, line.partition) == ({}, "", None, "id-1")
    assert line.within(None, None)
    assert not line.within(NOW, None)


# --- tail ---------------------------------------------------------------------------------------------------------


def test_tail_starts_with_the_journal_on_request(bridge, seeded) -> None:
    done = bridge("tail", "*.recipient.failed.#", "--since", "70m", "--count", 2, "-c", seeded)
    assert done.code == Exit.DONE
    first, second = done.out.splitlines()
    assert first.endswith(f"  voice.recipient.failed.busy  {ONE}  …1000  line …1000 busy")
    assert "no_answer" in second
    whole = bridge("tail", "--json", "--since", "24h", "-n", 6, "-c", seeded).out.splitlines()
    assert [json.loads(line)["id"] for line in whole] == [event.id for event in EVENTS]


def test_a_tail_prints_what_is_published(bridge, file) -> None:
    printed = threading.Event()

    async def publish() -> None:
        async with Assembly(load(file)).opened_broker() as broker:
            while not printed.is_set():
                await broker.publish(
                    [JournalEntry(at(number), event.to_wire()) for number, event in enumerate(EVENTS, 1)]
                )
                await asyncio.sleep(0.05)

    publisher = threading.Thread(target=lambda: asyncio.run(publish()))
    publisher.start()
    try:
        done = bridge("tail", "voice.recipient.sent.*", "-n", 1, "-c", file)
    finally:
        printed.set()
        publisher.join()
    assert done.code == Exit.DONE
    assert done.out.endswith(f"  voice.recipient.sent.human  {TWO}  …1000\n")


def test_out_of_order_change_shows_its_origin() -> None:
    moved = event(RecipientSending, ONE, 1, previous="failed")
    data = moved.data.model_copy(update={"transition": Transition.REOPEN})
    line = EventView(at(1), moved.model_copy(update={"data": data}).to_wire())
    assert "  reopen from failed  …1000" in readable(line)


def test_a_tail_without_a_broker_ends_with_4(bridge, file) -> None:
    file.write_text(f"{file.read_text()}broker: redis://127.0.0.1:1/0\n")
    assert bridge("tail", "-c", file).code == Exit.UNREACHABLE


@pytest.mark.faults
def test_tail_survives_a_broker_outage_and_an_interrupt(file, site, tmp_path) -> None:
    with RedisServer() as server:
        file.write_text(f"{file.read_text()}broker: {server.url}\n")
        out, err = tmp_path / "out", tmp_path / "err"
        with out.open("w") as stdout, err.open("w") as stderr:
            tail = subprocess.Popen(
                [sys.executable, "-m", "bridge", "tail", "--json", "-c", str(file)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "PYTHONUNBUFFERED": "1"},
                stdout=stdout, stderr=stderr,
            )  # fmt: skip
        try:
            published(file, out, 0)
            server.kill()
            wait_for(lambda: "trying again" in err.read_text(), "the note that the broker is gone", within=60)
            server.start()
            published(file, out, 1)
            assert "the broker is back" in err.read_text()
            tail.send_signal(signal.SIGINT)
            assert tail.wait(timeout=60) == 0
            assert "Traceback" not in err.read_text()
        finally:
            tail.kill()
            tail.wait()


def published(file: Path, out: Path, number: int) -> None:
    """Publish one event until it is seen: a subscription begins when it begins."""

    def seen() -> bool:
        return EVENTS[number].id in out.read_text()

    async def publish() -> None:
        async with asyncio.timeout(60), Assembly(load(file)).opened_broker() as broker:
            while not seen():
                await broker.publish([JournalEntry(at(number + 1), EVENTS[number].to_wire())])
                await asyncio.sleep(0.05)

    asyncio.run(publish())
