from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bridge.config import registry
from bridge.config.registry import PluginError, find, installed, load, load_sink, load_source
from bridge.domain.errors import ConfigError

GOOD = """
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import SourcePlugin, SourceSettings

source = SourcePlugin(SourceSettings, build=lambda *_: None)
sink = SinkPlugin(SinkSettings, build=lambda *_: None)
"""


class Site:
    """A folder on `sys.path` into which distributions are put as an installer would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def distribution(self, name: str, version: str, points: str) -> None:
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(points)

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


def test_installed_plugin_is_listed_without_import(site) -> None:
    site.distribution(
        "acme-lamps", "1.2", "[bridge.sources]\nlamp = acme_lamp:source\n[bridge.sinks]\nbell = acme_lamp:sink\n"
    )
    site.module("acme_lamp", "raise RuntimeError('imported')\n")
    plugin = installed("source")["lamp"]
    assert (plugin.kind, plugin.distribution, plugin.version, plugin.value) == (
        "source",
        "acme-lamps",
        "1.2",
        "acme_lamp:source",
    )
    assert list(installed("sink")) == sorted(installed("sink"))
    assert "bell" in installed("sink")
    assert "bell" not in installed("source")
    assert "acme_lamp" not in sys.modules


def test_only_the_plugin_that_is_named_is_imported(site) -> None:
    site.distribution("acme-lamps", "1.2", "[bridge.sources]\nlamp = acme_lamp:source\nother = acme_other:source\n")
    site.module("acme_lamp", GOOD)
    site.module("acme_other", GOOD)
    assert load_source("lamp").summary == ""
    assert "acme_other" not in sys.modules


def test_sources_and_sinks_may_share_a_name(site) -> None:
    site.distribution(
        "acme-lamps", "1.2", "[bridge.sources]\nacme = acme_lamp:source\n[bridge.sinks]\nacme = acme_lamp:sink\n"
    )
    site.module("acme_lamp", GOOD)
    assert load_source("acme") is sys.modules["acme_lamp"].source
    assert load_sink("acme") is sys.modules["acme_lamp"].sink


def test_plugin_name_conflict_names_both_distributions(site) -> None:
    site.distribution("acme-lamps", "1.2", "[bridge.sources]\nlamp = acme_lamp:source\n")
    site.distribution("zeta-lamps", "3.0", "[bridge.sources]\nlamp = acme_lamp:source\n")
    site.module("acme_lamp", GOOD)
    with pytest.raises(ConfigError, match=r"announced by acme-lamps 1.2 and zeta-lamps 3.0; uninstall all but one"):
        load_source("lamp")
    assert installed("source")["lamp"].conflicts == ("zeta-lamps 3.0",)
    assert "acme_lamp" not in sys.modules


def test_editable_install_next_to_its_build_is_no_conflict(site, tmp_path_factory, monkeypatch) -> None:
    points = "[bridge.sources]\nlamp = acme_lamp:source\n"
    site.distribution("acme-lamps", "1.2", points)
    site.module("acme_lamp", GOOD)
    neighbour = Site(tmp_path_factory.mktemp("neighbour"))
    neighbour.distribution("Acme_Lamps", "1.1", points)
    monkeypatch.syspath_prepend(str(neighbour.folder))
    assert not find("source", "lamp").conflicts
    assert load_source("lamp")


def test_the_same_distribution_listed_twice_counts_once() -> None:
    points = [EntryPoint("lamp", "acme_lamp:source", "bridge.sources")] * 2
    plugin = installed("source", points)["lamp"]
    assert (plugin.distribution, plugin.version, plugin.conflicts) == ("an unnamed distribution", "?", ())


@pytest.mark.parametrize(("name", "said"), [("lmap", "did you mean 'lamp'"), ("xyzzy", "; installed: .*lamp")])
def test_missing_plugin_is_reported_with_the_installed_ones(site, name, said) -> None:
    site.distribution("acme-lamps", "1.2", "[bridge.sources]\nlamp = acme_lamp:source\n")
    with pytest.raises(PluginError, match=f"no source '{name}' is installed; .*{said}|{said}"):
        load_source(name)


def test_a_bare_system_says_that_nothing_is_installed(monkeypatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [])
    with pytest.raises(PluginError, match="none is installed at all"):
        load_sink("webhook")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there\n", "ModuleNotFoundError: No module named 'not_there'"),
        ("raise RuntimeError('line one\\nline two')\n", "RuntimeError: line one; reinstall"),
        ("raise RuntimeError\n", "RuntimeError: no further reason given; reinstall"),
        ("", "AttributeError: .*; reinstall or upgrade acme-lamps"),
    ],
)
def test_unimportable_plugin_is_reported_with_its_distribution(site, text, said) -> None:
    site.distribution("acme-lamps", "1.2", "[bridge.sources]\nlamp = acme_lamp:source\n")
    site.module("acme_lamp", text)
    with pytest.raises(PluginError, match=f"the source 'lamp' of acme-lamps 1.2 cannot be imported .*{said}"):
        load_source("lamp")


@pytest.mark.parametrize(
    ("kind", "point"), [("source", "acme_lamp:sink"), ("sink", "acme_lamp:source"), ("sink", "acme_lamp")]
)
def test_object_that_is_no_plugin_is_reported_with_expectation(site, kind, point) -> None:
    site.distribution("acme-lamps", "1.2", f"[bridge.{kind}s]\nlamp = {point}\n")
    site.module("acme_lamp", GOOD)
    with pytest.raises(PluginError, match=f"not a {kind.title()}Plugin; {point} has to name a bridge.{kind}"):
        load(kind, "lamp")
