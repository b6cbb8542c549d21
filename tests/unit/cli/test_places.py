"""The name that was typed, the file that is read without -c, and former names of options."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from bridge.cli.support import program
from bridge.cli.support.options import Exit
from bridge.config.places import choose, places
from bridge.domain.errors import ConfigError


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Give a home and a system folder without a configuration, and an empty folder to work in."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("bridge.config.places.SYSTEM", tmp_path / "etc")
    return tmp_path


def put(source: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(source.read_text())
    return place


def test_places_are_asked_in_order_and_named(bridge, file, home, monkeypatch) -> None:
    system = put(file, home / "etc" / "bridge.yaml")
    seen = []
    for place in (
        system, home / "home" / ".config" / "bridge" / "bridge.yaml", home / "xdg" / "bridge" / "bridge.yaml",
        home / "work" / "bridge.yaml",
    ):  # fmt: skip
        if place.is_relative_to(home / "xdg"):
            monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
        put(file, place)
        seen.append((place, bridge("sources").err))
    assert seen == [(place, f"note: the configuration is {place}\n") for place, _ in seen]


def test_file_of_the_variable_goes_before_the_places(bridge, file, home, monkeypatch) -> None:
    put(file, home / "work" / "bridge.yaml")
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))
    for arguments in (["sources"], ["watch", "list"], ["check", "--offline"]):
        assert bridge(*arguments).err == f"note: the configuration is {file} (by BRIDGE_CONFIG)\n"
    assert bridge("sources", "reset", "lamps").err == f"note: the configuration is {file} (by BRIDGE_CONFIG)\n"


def test_file_that_was_typed_is_not_announced(bridge, file, home) -> None:
    put(file, home / "work" / "bridge.yaml")
    assert bridge("sources", "-c", file).err == ""
    assert bridge("sources", "-c", file, "reset", "lamps").err == ""


def test_without_any_file_all_places_are_listed(bridge, home) -> None:
    done = bridge("sources")
    assert (done.code, done.out) == (Exit.CONFIG, "")
    for place in (
        "-c FILE",
        "BRIDGE_CONFIG",
        "./bridge.yaml",
        f"{home}/home/.config/bridge/bridge.yaml",
        f"{home}/etc/bridge.yaml",
    ):
        assert place in done.err
    assert len(done.err.splitlines()) == 1


def test_user_without_a_home_has_the_other_places() -> None:
    assert places({}) == [Path("bridge.yaml"), Path("/etc/bridge/bridge.yaml")]


def test_folder_that_may_not_be_searched_is_passed_over(home) -> None:
    with pytest.raises(ConfigError, match="no file is named"):
        choose({"HOME": f"{home}\0"})


# --- the name -----------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path) -> Path:
    path = tmp_path / "bin" / "bridge"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(stat.S_IRWXU)
    return path


def test_name_in_path_is_what_was_typed(installed) -> None:
    assert program.command_name((str(installed), "python3"), lambda _: str(installed)) == "bridge"


def test_program_hidden_by_another_one_is_named_by_its_path(installed) -> None:
    assert program.command_name((str(installed), "python3"), lambda _: sys.executable) == str(installed)
    assert program.command_name((str(installed), "python3"), lambda _: None) == str(installed)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (("/x/bridge/__main__.py", ".venv/bin/python"), ".venv/bin/python -m bridge"),
        (("/usr/bin/pytest", "python"), "bridgectl"),
        (("/x/pytest/__main__.py", "python"), "bridgectl"),
        (("-c", "python"), "bridgectl"),
        (("my place/bridgectl", "python"), "'my place/bridgectl'"),
    ],
)
def test_other_ways_of_starting_are_named_as_they_are_typed(typed, name) -> None:
    assert program.command_name(typed, lambda _: None) == name


@pytest.mark.parametrize("typed", ["bridge", "bridgectl", ".venv/bin/bridge"])
def test_help_and_errors_have_the_name_that_was_typed(bridge, monkeypatch, typed) -> None:
    monkeypatch.setattr(program, "typed_name", lambda: typed)
    monkeypatch.setattr("bridge.cli.typed_name", lambda: typed)
    short = typed.rpartition("/")[2]
    assert bridge("tail", "--help").out.startswith(f"Usage: {short} tail [OPTIONS]")
    assert f"`{typed} help` lists the commands" in bridge("frobnicate").err
    assert bridge("version").out.startswith("bridge ")


# --- options ------------------------------------------------------------------------------------------------------


def test_former_names_of_options_are_understood_and_not_shown(bridge, seeded) -> None:
    now = bridge("tail", "--since", "2h", "--limit", "2", "-c", seeded)
    assert bridge("tail", "--since", "2h", "--count=2", "-c", seeded) == now
    assert bridge("tail", "--since", "2h", "-n", "2", "-c", seeded) == now
    for command, former in (
        ("tail", "--count"),
        ("backfill", "--start"),
        ("backfill", "--end"),
        ("reconcile", "--patience"),
    ):
        assert former not in bridge(command, "--help").out


def test_what_stands_behind_two_dashes_keeps_its_name(bridge) -> None:
    assert "'--count'" in bridge("tail", "-c", "x", "--", "--count").err


def test_no_color_is_an_option_of_every_command(bridge, file, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for arguments in (["--no-color", "sources"], ["sources", "--no-color"], ["watch", "list", "--no-color"]):
        monkeypatch.setenv("NO_COLOR", "")
        assert bridge(*arguments, "-c", file).code == Exit.DONE
        assert os.environ["NO_COLOR"] == "1"
