"""Masks hit phones, and leave what an operator needs: hosts, ports, times, and the numbers of resources."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.commands.tail import mask_phones
from bridge.delivery.masking import apply
from bridge.domain.event import WireEvent

# A text that a mask once hit, and in which nothing is a phone: one more line for each that is found.
NEEDED = [
    "http://127.0.0.1:19001 answered 500",
    "http://192.168.100.12:8080/hooks answered 500",
    "192.168.100.12 did not answer",
    "redis:6379 127.0.0.1:26379 10.20.30.40 refused",
    "no answer from db-12.example.com:15432 in time",
    "redis://10.100.200.250:63790/0: no answer in time",
    "[2001:db8::1]:5672 refused",
    "/messages/voice/10509031 answered 404",
    "/messages/voice/1050903112345: not found",
    "/messages/sms/8359001/recipients/36489812: passed over",
    "https://api.example.com/v1/voicemail_drop_records/123456789?page=2 answered 500",
    "GET /campaigns/12345678/jobs/87654321, 404",
    "since 2026-03-01T12:00:00.123Z",
    "since 2026-03-01 12:00:00 it failed",
    "between 2026-03-01 and 2026-03-02",
    "at 2026-11-28 21:55",
    "event 5f0c6d1be2a94d2c8f6a312345678907b6a0",
    "event 0f3c6d1b-12a9-4d2c-8f6a-123456789012 refused",
]
PHONES = [
    "+1 (202) 555-0143", "+12025550143", "202-555-0143", "202.555.0143", "(202) 555 0143", "2025550143", "555-0143",
    "+49 170 1234567", "0170/1234567", "00491701234567", "1-202-555-0143", "12025550143", "202\u2011555\u20110143",
]  # fmt: skip
AROUND = [
    "{}", "the number {} is not in service", "to={}&x=1", "sip:{}", "tel:{}", "phone:{}", "<{}>", '"{}"', "({})",
    "call to {}: busy", "http://127.0.0.1:19001 refused {}", "{} at 10.0.0.1:80", "/messages/voice/10509031 to {}",
    "https://sms.example.com/send?to={}", "https://sms.example.com/{}/status",
]  # fmt: skip


def seen_by_sink(text: str, **data: str) -> str:
    """Return an error's text as a sink with `privacy: last4` sees it."""
    values = {"channel": "sms", "status": "failed", "transition": "first", "error": text, **data}
    wire = WireEvent("1", "sms.recipient.failed", 0, json.dumps({"data": values}).encode())
    return json.loads(apply("last4", wire, b"").body)["data"]["error"]


@pytest.mark.parametrize("text", NEEDED)
def test_what_an_operator_needs_stays(text: str) -> None:
    assert mask_phones(text) == text
    assert seen_by_sink(text) == text
    assert seen_by_sink(text, phone="+12025550143") == text


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("phone", PHONES)
def test_phones_are_masked_wherever_they_stand(phone: str, around: str) -> None:
    text = around.format(phone)
    digits = "".join(filter(str.isdigit, phone))
    for masked in (mask_phones(text), seen_by_sink(text)):
        left = masked.replace("127.0.0.1:19001", "").replace("10.0.0.1:80", "").replace("10509031", "")
        assert digits[:-4] not in "".join(filter(str.isdigit, left))
        assert phone not in masked
        assert "…" in masked


@pytest.mark.parametrize("text", ["/contacts/12345678 is unknown", "number:45678 refused", "http://x/a/12345678"])
def test_numbers_of_the_event_itself_are_masked_in_paths(text: str) -> None:
    assert "45678" not in seen_by_sink(text, contact_key="12345678")


@given(st.integers(0, 2**32 - 1), st.integers(1, 65_535))
def test_no_address_counts_as_a_phone(address: int, port: int) -> None:
    host = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    text = f"http://{host}:{port} answered 500"
    assert mask_phones(text) == text
    assert seen_by_sink(text) == text
