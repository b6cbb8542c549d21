"""Commands on sources: what the service recorded, and what is watched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rigs.cli import ONE

from bridge.cli.support.options import Exit


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
    done = bridge("watch", "remove", "lamps", "99999", "-c", channels)
    assert (done.code, done.out) == (Exit.FAILED, "99999: was not followed\n")


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
