"""Commands that only read need neither a secret nor a variable of a source or sink, and say what they do need."""

from __future__ import annotations

import pytest
import yaml
from rigs.cli import ONE

from bridge.cli.support.options import Exit
from bridge.config.loading import load
from bridge.domain.errors import ConfigError
from bridge.runtime.assembly import Assembly

READING = [
    ("sources",), ("trace", ONE), ("tail", "--since", "2h", "--limit", "2"), ("watch", "list"),
    ("deliveries", "list"), ("deliveries", "show", "crm", "lamps:3"), ("replay", "crm", "--since", "2h"),
]  # fmt: skip
SECRETS = {
    "a variable that is not set": {"token": "${NOBODY_SETS_THIS}"},
    "a file that is not there": {"token_file": "/nowhere/at/all"},
    "a setting of the source that is a variable": {"token": "x", "channels": "${NOBODY_SETS_THIS}"},
    "a shared setting that is a variable": {"token": "x", "interval": "${NOBODY_SETS_THIS}"},
}


def with_source(file, **settings) -> None:
    config = yaml.safe_load(file.read_text())
    config["sources"]["lamps"] = {"type": "lamp", **settings}
    config["sinks"]["crm"]["fault"] = "${NOBODY_SETS_THIS}"
    file.write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("settings", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments[:2]))
def test_reading_command_needs_no_secret(bridge, seeded, arguments, settings) -> None:
    with_source(seeded, **settings)
    done = bridge(*arguments, "-c", seeded)
    assert (done.code, done.err) == (Exit.DONE, "")
    assert done.out


@pytest.mark.parametrize(
    "arguments", [("check", "--offline"), ("reconcile", "lamps"), ("backfill", "lamps", "--since", "1h")]
)
def test_command_that_asks_a_provider_needs_the_secret(bridge, seeded, arguments) -> None:
    with_source(seeded, token="${NOBODY_SETS_THIS}")
    done = bridge(*arguments, "-c", seeded)
    assert done.code == Exit.CONFIG
    assert "sources.lamps.token: the environment variable NOBODY_SETS_THIS is not set; set it" in done.err


def test_variable_of_the_store_is_needed_by_every_command(bridge, file) -> None:
    file.write_text(f"{file.read_text()}store: redis://:${{NOBODY_SETS_THIS}}@localhost/0\n")
    done = bridge("sources", "-c", file)
    assert done.code == Exit.CONFIG
    assert "store: the environment variable NOBODY_SETS_THIS is not set" in done.err


def test_other_problems_are_found_without_secrets_too(file) -> None:
    with_source(file, token="${NOBODY_SETS_THIS}", chanels=2)
    with pytest.raises(ConfigError, match=r"sources\.lamps\.chanels: is not a known key; did you mean"):
        load(file, environ={}, with_secrets=False)


def test_source_that_is_incomplete_is_not_built(file) -> None:
    with_source(file, token="x", channels="${NOBODY_SETS_THIS}")
    parts = Assembly(load(file, environ={}, with_secrets=False))
    assert parts.complete_sources() == {}
    with pytest.raises(ConfigError, match=r"sources\.lamps: names a variable that is not set and is needed here"):
        parts.source("lamps")


def test_sink_without_its_secret_keeps_the_defaults_of_its_plugin(file) -> None:
    with_source(file, token="x")
    config = yaml.safe_load(file.read_text())
    config["sinks"] = {"ops": {"type": "slack", "topics": ["#"], "webhook_url": "${NOBODY_SETS_THIS}"}}
    file.write_text(yaml.safe_dump(config))
    sink = load(file, environ={}, with_secrets=False).sinks["ops"]
    assert (sink.privacy, sink.concurrency, sink.topics) == ("last4", 1000, ["#"])
