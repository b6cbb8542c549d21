"""Reconciliation: what is printed."""

from __future__ import annotations

import json

import pytest
from rigs.reconcile import GROUP, subject

from bridge.cli.commands.reconcile import _print, _reporter, mask_path, plain
from bridge.testing.fakes import observe


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/messages/voice/16096001/recipients/3219200011", "/messages/voice/16096001/recipients/3219200011"),
        ("/j/voicemail_drop_records/1234567890", "/j/voicemail_drop_records/1234567890"),
        ("/messaging/v1/sms/messages/15551234567", "/messaging/v1/sms/messages/…4567"),
        ("/messaging/v1/sms/messages/%2B15551234567", "/messaging/v1/sms/messages/…4567"),
        ("/messaging/v1/email/messages/ann%40example.com", "/messaging/v1/email/messages/….com"),
        ("/messaging/v1/sms/messages/ef0b62d8-47cc", "/messaging/v1/sms/messages/ef0b62d8-47cc"),
    ],
)
def test_a_path_is_printed_without_phones_and_addresses(path, shown) -> None:
    assert mask_path(path) == shown


async def test_the_report_as_json_has_everything_and_no_phone(books) -> None:
    await books.saw(r1="sent")
    books.source.has = {"1": "failed"}
    books.source.facts = {"shown": [observe("2", "sent", phone="+15551234567")]}
    report = await books.settle(crm=["#"])
    text = json.dumps(plain(report))
    assert "5551234567" not in text
    assert json.loads(text)["differences"][0]["resource"] == subject("2")


async def test_table_shows_totals_differences_sinks_and_skipped_parts(books, capsys) -> None:
    await books.saw(r1="sent", r2="sent")
    books.source.has = {"1": "failed"} | {str(number): "new" for number in range(10, 80)}
    books.source.facts = {"contradictions": ["counts 2 and 3"], "remarks": ["it keeps no times"]}
    report = await books.settle(crm=["#"])
    report.failures["/messages/sms/2"] = "HTTP 500"
    _print(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["OF", "STATUS", "PROVIDER", "LEDGER", "EVENTS"]
    assert any(line.split() == ["all:", "sms", "recipient", "new", "70", "0", "0"] for line in lines)
    assert any(line.split()[:4] == [subject("1"), "failed", "sent", "sent"] for line in lines)
    assert "… and 24 more; --json names them all" in lines
    assert "2 events made, 0 confirmed by the broker" in lines
    assert f"the provider contradicts itself: {GROUP}: counts 2 and 3" in lines
    assert f"not compared: {GROUP}: it keeps no times" in lines
    assert lines[-1] == "city: 72 resources differ, 1 could not be asked for; 1 compared"


async def test_books_that_balance_are_said_to(books, capsys) -> None:
    _print(await books.compare())
    assert capsys.readouterr().out.splitlines()[-1] == "city: the books balance; 1 compared"


def test_a_terminal_hears_which_group_is_read(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _reporter()("/messages/sms/1")
    assert "/messages/sms/1 …" in capsys.readouterr().err
