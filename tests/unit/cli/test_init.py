"""`bridgectl init`: a file that loads, a secret that its owner alone can read, and nothing replaced unasked."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bridge.cli.support.first_configuration import as_reference, is_private
from bridge.cli.support.options import Exit
from bridge.config.loading import load

WEBHOOK = ("--sink", "webhook", "--sink-url", "http://127.0.0.1:9/hook")
GOVDELIVERY = ("--provider", "govdelivery", "--secret-env", "GOV_TOKEN")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_file_loads_and_its_secret_is_private(bridge, folder) -> None:
    done = bridge("init", "new.yaml", *GOVDELIVERY, *WEBHOOK, "--no-check")
    assert (done.code, done.out) == (Exit.DONE, "")
    secret = folder / "new-webhook-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().startswith("whsec_")
    assert secret.read_text().strip() not in (folder / "new.yaml").read_text() + done.err
    config = load("new.yaml", environ={"GOV_TOKEN": "canary"})
    assert config.sources["govdelivery"].token.reveal() == "canary"
    assert config.sinks["webhook"].secret[0].reveal() == secret.read_text().strip()
    assert config.sinks["webhook"].allow_private is True
    assert config.sources["govdelivery"].first_sight == "emit"


def test_every_secret_is_made_anew(bridge, folder) -> None:
    for name in ("a", "b"):
        bridge("init", f"{name}.yaml", *GOVDELIVERY, *WEBHOOK, "--no-check")
    assert (folder / "a-webhook-secret").read_text() != (folder / "b-webhook-secret").read_text()


def test_file_has_a_comment_on_each_setting(bridge, folder) -> None:
    bridge("init", *GOVDELIVERY, *WEBHOOK, "--no-check")
    lines = (folder / "bridge.yaml").read_text().splitlines()
    settings = [
        index
        for index, line in enumerate(lines)
        if line.startswith("    ") and ": " in line and "#" not in line.split(":")[0]
    ]
    assert settings
    for index in settings:
        assert lines[index - 1].strip().startswith("#") or lines[index].strip().startswith("type:")


def test_files_that_are_there_are_kept(bridge, folder) -> None:
    (folder / "bridge.yaml").write_text("mine")
    done = bridge("init", *GOVDELIVERY, *WEBHOOK, "--no-check")
    assert (done.code, (folder / "bridge.yaml").read_text()) == (Exit.FAILED, "mine")
    assert done.err == "error: bridge.yaml is there already; name another file, or add --force to replace it\n"
    (folder / "bridge.yaml").unlink()
    (folder / "bridge-webhook-secret").write_text("mine")
    assert "bridge-webhook-secret is there already" in bridge("init", *GOVDELIVERY, *WEBHOOK, "--no-check").err
    assert not (folder / "bridge.yaml").exists()
    assert bridge("init", *GOVDELIVERY, *WEBHOOK, "--no-check", "--force").code == Exit.DONE
    assert (folder / "bridge-webhook-secret").read_text().startswith("whsec_")
    assert stat.S_IMODE((folder / "bridge-webhook-secret").stat().st_mode) == 0o600


def test_sink_for_people_begins_with_a_baseline_and_says_why(bridge, folder) -> None:
    done = bridge("init", *GOVDELIVERY, "--sink", "slack", "--sink-secret-env", "SLACK_URL", "--no-check")
    assert "first_sight: baseline is proposed, since slack is read by people" in done.err
    text = (folder / "bridge.yaml").read_text()
    assert "people who read the sink get news alone\n    first_sight: baseline" in text
    slack = "https://hooks.slack.com/services/T0/B0/x"
    assert (
        load("bridge.yaml", environ={"GOV_TOKEN": "x", "SLACK_URL": slack}).sources["govdelivery"].first_sight
        == "baseline"
    )
    bridge("init", *GOVDELIVERY, "--sink", "slack", "--first-sight", "emit", "--no-check", "--force")
    assert "first_sight" not in (folder / "bridge.yaml").read_text()


def test_simulated_provider_needs_no_answer(bridge, folder) -> None:
    assert bridge("init", "--provider", "simulated", "--no-check").code == Exit.DONE
    config = load("bridge.yaml", environ={})
    assert list(config.sources) == ["city", "drops", "journeys"]
    assert config.state == folder / "bridge-state"


def test_check_ends_it_and_decides_the_exit_code(bridge) -> None:
    done = bridge("init", "--provider", "simulated", "--url", "http://127.0.0.1:9")
    assert done.code == Exit.UNREACHABLE
    assert "source city" in done.out
    done = bridge("init", "other.yaml", *GOVDELIVERY)
    assert done.code == Exit.CONFIG
    assert "the environment variable GOV_TOKEN is not set" in done.err


def test_file_for_a_definition_has_its_settings(bridge, folder) -> None:
    given = ("--provider", "rest", "--set", "provider=mailgun-events", "--set", "domain=mg.example.com")
    done = bridge("init", *given, "--secret-env", "MAILGUN_KEY", "--sink", "none", "--no-check")
    assert done.code == Exit.DONE, done.err
    source = load("bridge.yaml", environ={"MAILGUN_KEY": "canary"}).sources["rest"]
    assert (source.provider, source.domain, source.key.reveal()) == ("mailgun-events", "mg.example.com", "canary")


def test_script_gets_the_files_as_json(bridge, folder) -> None:
    done = bridge("init", *GOVDELIVERY, *WEBHOOK, "--json")
    assert json.loads(done.out) == {"file": "bridge.yaml", "secret_files": [str(folder / "bridge-webhook-secret")]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*GOVDELIVERY, "--sink", "webhook"), "without a terminal nothing is asked; say it with --sink-url"),
        (("--provider", "marketingcloud"), "say it with --url"),
        (("--provider", "marketingcloud", "--url", "https://x.example"), "say it with --set client_id=…"),
        (("--provider", "rest"), "--set provider: must name a definition; installed: "),
        (
            ("--provider", "rest", "--set", "provider=mailgun-events", "--set", "key=canary"),
            "no secret is written down; say key='${NAME}'",
        ),
        (("--provider", "spacivox", "--set", "token=canary"), "no secret is written down; say token='${NAME}'"),
        ((*GOVDELIVERY, "--set", "channels"), "'channels' is not KEY=VALUE"),
        ((*GOVDELIVERY, "--sink", "slack", "--sink-url", "https://canary"), "slack has no such address"),
    ],
)
def test_missing_or_unsafe_answer_is_refused_with_the_flag(bridge, folder, arguments, says) -> None:
    done = bridge("init", *arguments, "--no-check")
    assert done.code == Exit.USAGE
    assert says in done.err
    assert "canary" not in done.err
    assert not (folder / "bridge.yaml").exists()


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("TOKEN", ("", "${TOKEN}")), ("${TOKEN}", ("", "${TOKEN}")), ("/run/secrets/x", ("_file", "/run/secrets/x")),
        ("./x", ("_file", "./x")), ("s3cret", None), ("", None),
    ],
)  # fmt: skip
def test_secret_is_a_variable_or_a_file(text, reference) -> None:
    assert as_reference(text) == reference


@pytest.mark.parametrize(
    ("url", "private"),
    [("http://127.0.0.1:1/x", True), ("http://localhost/", True), ("http://10.1.2.3/", True), ("http://[::1]/", True),
     ("https://crm.example.com/", False), ("https://8.8.8.8/", False), ("http://[::", False)],
)  # fmt: skip
def test_private_address_is_known_by_its_text(url, private) -> None:
    assert is_private(url) is private


def test_terminal_is_asked_question_after_question(folder) -> None:
    answers = [
        "spacivx",
        "spacivox",
        "https://spacivox.example.com",
        "plain",
        "MY_TOKEN",
        "webhook",
        "",
        "http://127.0.0.1:9/hook",
    ]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bridge", "init", "--no-check"]
    env = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=env)
    os.close(theirs)
    shown = b""
    waiting = iter(answers)
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end was closed: the command has ended
            break
        if shown.rstrip(b" ").endswith(b":") and shown.endswith(b" "):
            shown += b"\0"  # answered
            os.write(ours, f"{next(waiting)}\n".encode())
    os.close(ours)
    assert process.wait(60) == 0, shown
    assert b"did you mean 'spacivox'?" in shown
    assert b"neither a variable's name in capitals nor a path" in shown
    config = yaml.safe_load((folder / "bridge.yaml").read_text())
    assert config["sources"]["spacivox"] == {
        "type": "spacivox",
        "url": "https://spacivox.example.com",
        "token": "${MY_TOKEN}",
    }
    assert config["sinks"]["webhook"]["topics"] == ["#"]
