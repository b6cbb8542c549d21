"""Wrong command lines: the exit code, one line that says what is wrong, and the name that was meant."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from bridge.cli.support.options import Exit

USAGE, CONFIG = Exit.USAGE, Exit.CONFIG
TYPED = [
    # --- commands ---
    ("chek", USAGE, "no such command 'chek'; did you mean 'check'?"),
    ("chekc -c F", USAGE, "no such command 'chekc'; did you mean 'check'?"),
    ("Tail", USAGE, "no such command 'Tail'; did you mean 'tail'?"),
    ("replay_tape DIR", USAGE, "no such command 'replay_tape'; did you mean 'replay-tape'?"),
    ("difftape", USAGE, "no such command 'difftape'; did you mean 'diff-tape'?"),
    ("source", USAGE, "no such command 'source'; did you mean 'sources'?"),
    ("delivery list", USAGE, "no such command 'delivery'; did you mean 'deliveries'?"),
    ("recon lamps", USAGE, "no such command 'recon'; did you mean 'reconcile'?"),
    ("plugin", USAGE, "no such command 'plugin'; did you mean 'plugins'?"),
    ("simulator", USAGE, "no such command 'simulator'; did you mean 'simulate'?"),
    ("start", USAGE, "no such command 'start'; did you mean 'run'?"),
    ("serve", USAGE, "no such command 'serve'; did you mean 'run'?"),
    ("validate", USAGE, "no such command 'validate'; did you mean 'check'?"),
    ("logs", USAGE, "no such command 'logs'; did you mean 'tail'?"),
    ("subscribe", USAGE, "no such command 'subscribe'; did you mean 'tail'?"),
    ("resend crm", USAGE, "no such command 'resend'; did you mean 'replay'?"),
    ("dlq", USAGE, "no such command 'dlq'; did you mean 'deliveries'?"),
    ("setup", USAGE, "no such command 'setup'; did you mean 'init'?"),
    ("frobnicate", USAGE, "no such command 'frobnicate'; `bridgectl help` lists the commands"),
    ("link show", USAGE, "no such command 'link'; `bridgectl help` lists the commands"),
    ("watch ad lamps 1", USAGE, "no such command 'ad'; did you mean 'add'?"),
    ("watch rm lamps 1", USAGE, "no such command 'rm'; did you mean 'remove'?"),
    ("watch ls", USAGE, "no such command 'ls'; did you mean 'list'?"),
    ("watch everything", USAGE, "no such command 'everything'; `bridgectl help watch` lists the commands"),
    ("deliveries retry", USAGE, "no such command 'retry'; did you mean 'redrive'?"),
    ("deliveries rm", USAGE, "no such command 'rm'; did you mean 'discard'?"),
    ("config shwo", USAGE, "no such command 'shwo'; did you mean 'show'?"),
    ("events shema", USAGE, "no such command 'shema'; did you mean 'schema'?"),
    ("sources rest lamps", USAGE, "no such command 'rest'; did you mean 'reset'?"),
    ("help chek", USAGE, "no such command 'chek'; did you mean 'check'?"),
    ("help watch ad", USAGE, "no such command 'ad'; did you mean 'add'?"),
    ("help tail more", USAGE, "bridgectl tail has no commands of its own"),
    # --- options ---
    ("tail --jsn", USAGE, "no such option '--jsn'; did you mean '--json'?"),
    ("check --off-line -c F", USAGE, "no such option '--off-line'; did you mean '--offline'?"),
    ("run --onc -c F", USAGE, "no such option '--onc'; did you mean '--once'?"),
    ("run --roles poll -c F", USAGE, "no such option '--roles'; did you mean '--role'?"),
    ("sources --josn", USAGE, "no such option '--josn'; did you mean '--json'?"),
    ("check --config-file F", USAGE, "no such option '--config-file'; did you mean '--config'?"),
    ("replay crm --sicne 2h", USAGE, "no such option '--sicne'; did you mean '--since'?"),
    ("backfill lamps --sinse 2h", USAGE, "no such option '--sinse'; did you mean '--since'?"),
    ("backfill lamps --untill 2h", USAGE, "no such option '--untill'; did you mean '--until'?"),
    ("version --verbose", USAGE, "no such option '--verbose'; it has --json, --help"),
    ("-c F tail", USAGE, "no such option '-c' before a command; options stand behind it: bridgectl COMMAND -c …"),
    ("--json sources", USAGE, "no such option '--json' before a command; options stand behind it: bridgectl COMMAND --json …"),
    # --- arguments and values ---
    ("replay", USAGE, "missing option '--since'"),
    ("replay --since 2h -c F", USAGE, "give either a sink or --queue NAME"),
    ("replay crm", USAGE, "missing option '--since'"),
    ("replay crm --since yesterday", USAGE, "invalid value for '--since': 'yesterday' is not a time; write one such as .* or .* 2h"),
    ("replay crm --since 2026-03-15T21:00:00", USAGE, "invalid value for '--since': .* says no offset from UTC; end it with Z, .*"),
    ("watch add lamps", USAGE, r"missing argument 'RESOURCE\.\.\.'"),
    ("tail --limit none", USAGE, "invalid value for '-n' / '--limit': 'none' is not a valid integer range"),
    ("tail --limit 0", USAGE, r"invalid value for '-n' / '--limit': 0 is not in the range x>=1"),
    ("tail -c", USAGE, "option '-c' requires an argument"),
    ("version now", USAGE, r"got unexpected extra argument \(now\)"),
    ("run --role pol -c F", USAGE, "invalid value for '--role': there is no 'pol'; did you mean 'poll'?"),
    ("run --role poet -c F", USAGE, "invalid value for '--role': there is no 'poet'; choose from poll, relay, sink"),
    ("completion bsh", USAGE, r"invalid value for '.*': there is no 'bsh'; did you mean 'bash'?"),
    ("plugins schema webhok", USAGE, "there is no source or sink 'webhok' installed; did you mean 'webhook'?"),
    ("plugins schema slack --kind sinc", USAGE, "invalid value for '--kind': there is no 'sinc'; did you mean 'sink'?"),
    ("config new --source govdelivry", USAGE, "there is no source 'govdelivry' installed; did you mean 'govdelivery'?"),
    ("config new --sink web-hook", USAGE, "there is no sink 'web-hook' installed; did you mean 'webhook'?"),
    ("events schema RecipientFaild", USAGE, "there is no event 'RecipientFaild' in the catalogue; did you mean 'RecipientFailed'?"),
    ("events schema recipient_failed", USAGE, "there is no event 'recipient_failed' in the catalogue; did you mean 'recipient-failed'?"),
    ("init --provider govdelivry", USAGE, "invalid value for '--provider': there is no 'govdelivry'; did you mean 'govdelivery'?"),
    ("init --sink webhok", USAGE, "invalid value for '--sink': there is no 'webhok'; did you mean 'webhook'?"),
    # --- names of the configuration ---
    ("backfill lamp --since 2h -c F", USAGE, "there is no source 'lamp' in the configuration; did you mean 'lamps'?"),
    ("reconcile Lamps -c F", USAGE, "there is no source 'Lamps' in the configuration; did you mean 'lamps'?"),
    ("watch add lapms 1 -c F", USAGE, "there is no source 'lapms' in the configuration; did you mean 'lamps'?"),
    ("watch list lmaps -c F", USAGE, "there is no source 'lmaps' in the configuration; did you mean 'lamps'?"),
    ("sources reset laps -c F", USAGE, "there is no source 'laps' in the configuration, nor in the store; did you mean 'lamps'?"),
    ("replay crn --since 2h -c F", USAGE, "there is no sink 'crn' in the configuration; did you mean 'crm'?"),
    ("replay nothing --since 2h -c F", USAGE, "there is no sink 'nothing' in the configuration; there is crm, ops"),
    # --- topics and ranges ---
    ("tail voice.#.sent -c F", USAGE, "topic 'voice.#.sent': '#' may only be the last word"),
    ("tail Voice.recipient -c F", USAGE, "topic 'Voice.recipient': 'Voice' is not a word; .*"),
    ("replay crm --since 1h --until 2h -c F", USAGE, "--since .* is not before --until .*"),
    ("backfill lamps --since 1h --until 2h -c F", USAGE, "--since .* is not before --until .*"),
    ("backfill lamps --since 1h --rate fast -c F", USAGE, "--rate: 'fast' is not a rate; .*"),
    # --- files ---
    ("check", CONFIG, "configuration: no file is named, and none is in a usual place; searched: .*; `bridgectl init` writes one"),
    ("check -c nowhere.yaml", CONFIG, "nowhere.yaml: there is no such file; .*"),
    ("check -c .", CONFIG, r"\.: is a directory; name the configuration file itself"),
    ("check --offline -c TOPICS", CONFIG, r".*topics.yaml:\d+: sinks.crm.topics\[1\]: no event can have the topic '\*.recipent.failed.#'; did you mean '\*.recipient.failed.#'?"),
    ("check --offline -c KEYS", CONFIG, r".*keys.yaml:\d+: sinks.crm.topic: is not a known key; did you mean 'topics'?"),
]  # fmt: skip


@pytest.fixture
def world(file, tmp_path, monkeypatch) -> dict[str, str]:
    """Give a folder without a configuration, and files by the names that the table uses."""
    monkeypatch.chdir(tmp_path / "site")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("bridge.config.places.SYSTEM", tmp_path / "etc")
    source = {"type": "spacivox", "url": "http://127.0.0.1:9", "token": "x"}
    for name, sink in {
        "topics": {"type": "stdout", "topics": ["voice.#", "*.recipent.failed.#"]},
        "keys": {"type": "stdout", "topics": ["#"], "topic": "#"},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"sources": {"drops": source}, "sinks": {"crm": sink}}))
    return {"F": str(file), "TOPICS": str(tmp_path / "topics.yaml"), "KEYS": str(tmp_path / "keys.yaml")}


@pytest.mark.parametrize(("line", "code", "says"), TYPED, ids=[line for line, _, _ in TYPED])
def test_wrong_command_line_is_one_line_with_a_remedy(bridge, world, line, code, says) -> None:
    done = bridge(*(world.get(word, word) for word in shlex.split(line)))
    first, *rest = done.err.splitlines()
    assert re.fullmatch(f"error: {says.replace('?', '[?]')}", first)
    assert (done.code, done.out) == (code, "")
    assert all(re.fullmatch(r"usage: bridgectl .+  \(more: bridgectl .*--help\)", hint) for hint in rest)
    assert len(rest) <= 1


def test_table_is_long_enough() -> None:
    assert len(TYPED) >= 60
