"""Distributions of strangers, installed by pip beside the bridge: a source and a sink that no line of ours knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from harness import ask

pytestmark = pytest.mark.acceptance

SPOOL = '''
"""A sink of bridge that appends each event to a file."""

from pathlib import Path

from pydantic import Field

from bridge.domain.errors import Permanent
from bridge.protocols.sink import SinkPlugin, SinkSettings


class SpoolSettings(SinkSettings):
    """What the spool can be told."""

    file: Path
    """The file that grows."""
    mark: str = Field(default="", max_length=3)
    """What each line begins with."""


class Spool:
    def __init__(self, name, settings, clock):
        self._settings = settings

    async def open(self):
        self._settings.file.touch()

    async def send(self, outgoing):
        if outgoing.event.data.status == "lost":
            raise Permanent("the spool does not keep what was lost")
        with self._settings.file.open("ab") as file:
            file.write(self._settings.mark.encode() + outgoing.wire.body + b"\\n")

    async def probe(self):
        return f"appends to {self._settings.file.name}"

    async def close(self):
        pass


plugin = SinkPlugin(settings=SpoolSettings, build=Spool, summary="appends to a file")
'''

PARCELS = '''
"""A source of bridge that follows parcels: one JSON file is the carrier's whole answer."""

import json
from pathlib import Path

from bridge.domain.errors import Transient
from bridge.domain.event import Data, Event
from bridge.domain.lifecycle import Lifecycle
from bridge.protocols.source import Facts, ResourceType, Observation, Page, Probe, SourcePlugin, SourceSettings


class ParcelSettings(SourceSettings):
    """One carrier."""

    listing: Path
    """The carrier's file."""


class ParcelData(Data):
    """One parcel."""

    weight: int
    phone: str | None = None


class ParcelEvent(Event):
    """One parcel moved."""

    channels = ("post",)
    entity = "parcel"
    provider = "carrier"
    data: ParcelData


class ParcelPosted(ParcelEvent):
    """The parcel was posted."""

    status = "posted"


class ParcelArrived(ParcelEvent):
    """The parcel has arrived."""

    status = "arrived"


class ParcelLost(ParcelEvent):
    """The parcel is lost."""

    status = "lost"


def describe(one):
    fields = {"weight": one.item["grams"], "phone": one.item.get("phone")}
    return Facts(subject=f"/parcels/{one.key}", time=None, fields=fields, model=ParcelData)


EVENTS = (ParcelPosted, ParcelArrived, ParcelLost)
PARCEL = ResourceType(
    "post",
    "parcel",
    Lifecycle(
        status_by_value={"P": "posted", "A": "arrived", "L": "lost"},
        follows={"posted": ("arrived", "lost")},
        finals=frozenset({"arrived", "lost"}),
    ),
    {event.status: event for event in EVENTS},
    describe,
)


class Parcels:
    retention = 86400.0

    def __init__(self, name, settings, clock):
        self.problems = []
        self.behind = False
        self._settings = settings
        self._clock = clock

    async def pages(self, cursor, watched):
        yield Page([Observation(PARCEL, "parcels", one["no"], one["state"], one) for one in self._read()],
                   by=self._clock.now(), cursor={"read": "yes"})

    async def backfill(self, start, end):
        return
        yield

    async def complete(self, observations):
        return observations

    def resource(self, text):
        return f"/parcels/{text}"

    async def probe(self):
        return Probe(f"{len(self._read())} parcels", requests_per_day=1440.0)

    async def close(self):
        pass

    def _read(self):
        try:
            return json.loads(self._settings.listing.read_text())
        except OSError:
            raise Transient("the carrier's file is not there") from None


plugin = SourcePlugin(settings=ParcelSettings, build=Parcels, events=EVENTS, summary="parcels")
'''

NOISY = """
import os
from pathlib import Path

Path(os.environ["MARKER"]).write_text("imported")
raise ImportError("libnoise.so.3 is missing")
"""


def distribution(folder: Path, name: str, module: str, code: str, kind: str, **points: str) -> Path:
    """Write the source tree of a distribution as its author would, and return it."""
    folder = folder / name
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code.lstrip())
    announced = "\n".join(f'{point} = "{value}"' for point, value in points.items())
    (folder / "pyproject.toml").write_text(
        dedent(
            f"""\
            [build-system]
            requires = ["hatchling>=1.27"]
            build-backend = "hatchling.build"

            [project]
            name = "{name}"
            version = "1.2.3"
            requires-python = ">=3.11"
            dependencies = ["bridge>=0.1,<0.2"]

            [project.entry-points."bridge.{kind}"]
            """
        )
        + announced
        + f'\n\n[tool.hatch.build.targets.wheel]\npackages = ["{module}"]\n'
    )
    return folder


def install(target: Path, *distributions: Path) -> str:
    """Install into a folder of its own, and return the PYTHONPATH that puts it beside everything else."""
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    paths = map(str, distributions)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *paths], check=True, timeout=110
    )
    return os.pathsep.join(filter(None, (str(target), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def undefined(tmp_path_factory) -> str:
    """Give a PYTHONPATH with a source, a sink, and a plugin that cannot even be imported."""
    folder = tmp_path_factory.mktemp("strangers")
    return install(
        folder / "site",
        distribution(folder, "bridge-spool", "bridge_spool", SPOOL, "sinks", spool="bridge_spool:plugin"),
        distribution(folder, "acme-parcels", "acme_parcels", PARCELS, "sources", parcels="acme_parcels:plugin"),
        distribution(folder, "noisy", "noisy", NOISY, "sinks", noisy="noisy:plugin", other="noisy:nothing"),
    )


@dataclass
class Setting:
    folder: Path
    path: str

    @property
    def marker(self) -> Path:
        return self.folder / "imported"

    @property
    def spool(self) -> Path:
        return self.folder / "spool.jsonl"

    def configure(self, **sinks: Any) -> None:
        values = {
            "state": str(self.folder / "state"),
            "http": {"listen": None},
            "sources": {"carrier": {"type": "parcels", "listing": str(self.folder / "parcels.json")}},
            "sinks": {"keep": {"type": "spool", "topics": ["post.#"], "file": str(self.spool)}, **sinks},
        }
        (self.folder / "bridge.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def set_states(self, **states: str) -> None:
        listing = [
            {"no": number.removeprefix("n"), "state": state, "grams": 500, "phone": "+16515551000"}
            for number, state in states.items()
        ]
        (self.folder / "parcels.json").write_text(json.dumps(listing))

    async def run(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        configured = () if arguments[0] in ("plugins", "events") else ("-c", "bridge.yaml")
        return await ask(self.folder, *arguments, *configured, PYTHONPATH=path or self.path, MARKER=str(self.marker))

    def line(self, text: str) -> int:
        """Return the number of the line of the configuration that says so."""
        return (self.folder / "bridge.yaml").read_text().splitlines().index(text) + 1

    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.spool.read_text().splitlines()]


@pytest.fixture
def setting(tmp_path, undefined) -> Setting:
    return Setting(tmp_path, undefined)


async def test_third_party_source_and_sink_work(setting):
    setting.configure()
    setting.set_states(n1="P", n2="P")
    checked = await setting.run("check", "--json")
    assert checked.returncode == 0, checked.stderr
    said = {part["part"]: part for part in json.loads(checked.stdout)["parts"]}
    assert said["source carrier"]["said"] == "2 parcels"
    assert said["source carrier"]["requests_per_year"] == 525600
    assert said["sink keep"]["said"] == "appends to spool.jsonl"
    for states in ({"n1": "P", "n2": "P"}, {"n1": "A", "n2": "X"}, {"n1": "A", "n2": "L"}):
        setting.set_states(**states)
        done = await setting.run("run", "--once", "--json")
        assert done.returncode == 0, done.stderr
    events = setting.kept()
    assert [(event["type"], event["subject"], event["data"]["transition"]) for event in events] == [
        ("bridge.post.parcel.posted", "/parcels/1", "first"),
        ("bridge.post.parcel.posted", "/parcels/2", "first"),
        ("bridge.post.parcel.arrived", "/parcels/1", "advance"),
        ("bridge.post.parcel.unknown", "/parcels/2", "unknown"),
    ]
    assert events[2]["source"] == "/parcels/carrier"
    assert events[2]["dataschema"] == "urn:bridge:schemas/parcel-arrived/1"
    assert (events[2]["data"]["weight"], events[2]["data"]["phone"]) == (500, "+16515551000")
    # What the sink refused for good is a dead letter like any other.
    assert json.loads(done.stdout)["sinks"] == {"keep": {"taken": 4, "waiting": 0, "dead": 1}}
    (dead,) = json.loads((await setting.run("deliveries", "list", "--json")).stdout)["deliveries"]
    assert (dead["topic"], dead["reason"]) == ("post.parcel.lost", "permanent")
    assert dead["attempts"][0]["error"] == "the spool does not keep what was lost"
    traced = json.loads((await setting.run("trace", "1", "--json")).stdout)
    assert [change["topic"] for change in traced] == ["post.parcel.posted", "post.parcel.arrived"]


async def test_third_party_plugins_are_listed_and_described(setting):
    listed = await setting.run("plugins", "--json")
    plugins = {(plugin["kind"], plugin["name"]): plugin for plugin in json.loads(listed.stdout)}
    assert plugins["sink", "spool"] == {
        "kind": "sink", "name": "spool", "distribution": "bridge-spool", "version": "1.2.3",
        "object": "bridge_spool:plugin", "conflicts_with": [],
    }  # fmt: skip
    assert plugins["source", "parcels"]["distribution"] == "acme-parcels"
    assert ("sink", "webhook") in plugins
    assert not setting.marker.exists()
    schema = json.loads((await setting.run("plugins", "schema", "spool")).stdout)
    assert schema["properties"]["file"]["description"] == "The file that grows."
    assert schema["properties"]["mark"]["maxLength"] == 3
    assert {"type", "topics", "file"} <= {*schema["required"]}
    assert "retry" in schema["properties"]
    table = (await setting.run("plugins")).stdout
    assert any(
        line.split() == ["source", "parcels", "acme-parcels", "1.2.3", "acme_parcels:plugin"]
        for line in table.splitlines()
    )


async def test_third_party_privacy_order_and_settings_are_kept(setting):
    masked = {"type": "spool", "topics": ["post.#"], "file": str(setting.folder / "masked.jsonl"), "privacy": "last4"}
    setting.configure(masked=masked)
    setting.set_states(n1="P")
    assert (await setting.run("run", "--once")).returncode == 0
    assert setting.kept()[0]["data"]["phone"] == "+16515551000"
    (line,) = (setting.folder / "masked.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["phone"] == "…1000"
    setting.configure(wrong={"type": "spool", "topics": ["#"], "mark": "four"})
    done = await setting.run("check", "--offline")
    assert done.returncode == 3
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["sinks.wrong.file", "sinks.wrong.mark"]


async def test_only_the_plugins_that_are_named_are_imported(setting):
    setting.configure()
    setting.set_states(n1="P")
    for command in (["check"], ["run", "--once"], ["sources"], ["deliveries", "list"], ["plugins"]):
        assert (await setting.run(*command)).returncode == 0
    assert not setting.marker.exists()
    setting.configure(loud={"type": "noisy", "topics": ["#"]})
    await setting.run("check", "--offline")
    assert setting.marker.read_text() == "imported"


async def test_broken_plugin_is_named_with_its_distribution(setting):
    setting.configure(loud={"type": "noisy", "topics": ["#"]})
    setting.set_states(n1="P")
    for command in (["check", "--offline"], ["run", "--once"]):
        done = await setting.run(*command)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == (
            f"error: bridge.yaml:{setting.line('    type: noisy')}: sinks.loud.type: the sink 'noisy' of noisy 1.2.3 "
            "cannot be imported from noisy:plugin: ImportError: libnoise.so.3 is missing; reinstall or upgrade noisy\n"
        )


async def test_duplicate_plugin_distributions_are_both_named(setting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rivals")
    duplicate = distribution(folder, "spool-too", "spool_too", SPOOL, "sinks", spool="spool_too:plugin")
    both = os.pathsep.join((install(folder / "site", duplicate), setting.path))
    setting.configure()
    setting.set_states(n1="P")
    done = await setting.run("run", "--once", path=both)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: bridge.yaml:{setting.line('    type: spool')}: sinks.keep.type: ")
    assert "bridge-spool 1.2.3 and spool-too 1.2.3" in line
    assert "uninstall all but one of them" in line
    assert not setting.spool.exists()
    listed = json.loads((await setting.run("plugins", "--json", path=both)).stdout)
    conflicts = {plugin["name"]: plugin["conflicts_with"] for plugin in listed if plugin["conflicts_with"]}
    assert conflicts == {"spool": ["spool-too 1.2.3"]}
    # Who does not name it is not troubled by it.
    values = yaml.safe_load((setting.folder / "bridge.yaml").read_text())
    values["sinks"] = {"screen": {"type": "stdout", "topics": ["#"]}}
    (setting.folder / "bridge.yaml").write_text(yaml.safe_dump(values))
    done = await setting.run("run", "--once", path=both)
    assert done.returncode == 0
    assert json.loads(done.stdout)["subject"] == "/parcels/1"
