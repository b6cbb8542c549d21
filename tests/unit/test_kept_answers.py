"""What a dead letter keeps of an endpoint's answer: the first 2 KiB, masked to the sink's privacy, without secrets."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from bridge.delivery.answers import kept_answer, secrets_of
from bridge.domain.errors import BridgeError, EndpointAnswer, Permanent
from bridge.domain.event import WireEvent
from bridge.domain.settings import MASK
from bridge.http.guarded import EndpointResponse
from bridge.protocols.deliveries import KeptAnswer
from bridge_slack import plugin as slack
from bridge_slack.api import classify_error
from bridge_webhook import WebhookSettings

PHONE = "+17165550143"
KEY = "contact-4711-key"
EVENT = WireEvent("id", "sms.message.not_sent", 1, json.dumps({
    "subject": "/x", "data": {"phone": PHONE, "contact_key": KEY, "status": "not_sent"},
}).encode())  # fmt: skip


def kept(body: str | bytes, level: Any = "full", secrets: set[str] | None = None) -> KeptAnswer:
    raw = body.encode() if isinstance(body, str) else body
    return kept_answer(EndpointAnswer(422, raw), EVENT, level=level, key=b"k" * 32, secrets=secrets or set())


def test_answer_is_kept_as_it_came_with_full_privacy() -> None:
    assert kept(f"no such customer: {PHONE}") == KeptAnswer(422, f"no such customer: {PHONE}")


@pytest.mark.parametrize("level", ["last4", "token"])
@pytest.mark.parametrize(
    "body",
    [
        f"no such customer: {PHONE}", f"{KEY} is unknown", f'{{"contact": {{"id": "{KEY}"}}, "to": "{PHONE}"}}',
        f'["{PHONE}"]', f'{{"error": "call (716) 555-0143 or ann@example.com", "torn": "{PHONE}',
    ],
)  # fmt: skip
def test_personal_data_in_an_answer_is_masked(level: str, body: str) -> None:
    text = kept(body, level).body
    for personal in (PHONE, "7165550143", KEY, "555-0143", "ann@example.com"):
        assert personal not in text


def test_phone_at_the_cut_leaves_no_half() -> None:
    text = kept("." * 2040 + PHONE, "last4").body
    assert len(text.encode()) <= 2048
    assert "71655" not in text


def test_long_answer_is_cut_between_characters() -> None:
    assert kept("é" * 3000).body == "é" * 1024
    assert kept(b"\xff\xfe binary").body.endswith(" binary")


def test_answer_to_an_unreadable_event_is_not_kept() -> None:
    answer = EndpointAnswer(400, PHONE.encode())
    text = kept_answer(answer, WireEvent("id", "t", 1, b"?"), level="last4", key=b"", secrets=()).body
    assert "not kept" in text
    assert PHONE not in text


def webhook(folder: Path) -> WebhookSettings:
    (folder / "secret").write_text("whsec_" + b64encode(b"s" * 32).decode() + "\n")
    return WebhookSettings.model_validate({
        "type": "webhook", "topics": ["#"], "url": "https://crm.example/hooks/TOPSECRETPATH?token=QUERYTOKEN",
        "secret": ["whsec_" + b64encode(b"a" * 32).decode()],
        "headers": {"Authorization": "Bearer HEADERTOKEN", "X-Long": "another secret-value"},
    })  # fmt: skip


def test_secrets_that_a_webhook_repeats_are_masked(tmp_path: Path) -> None:
    settings = webhook(tmp_path)
    echoed = json.dumps({
        "you sent": {"authorization": "Bearer HEADERTOKEN", "x-long": "another secret-value"},
        "to": "https://crm.example/hooks/TOPSECRETPATH?token=QUERYTOKEN", "path": "/hooks/TOPSECRETPATH",
        "quoted": "%2Fhooks%2FTOPSECRETPATH", "escaped": "REPLACED", "key": b64encode(b"a" * 32).decode(),
    }).replace("REPLACED", r"https:\/\/crm.example\/hooks\/TOPSECRETPATH")  # fmt: skip
    text = kept(echoed, secrets=secrets_of(settings)).body
    for secret in ("HEADERTOKEN", "secret-value", "TOPSECRETPATH", "QUERYTOKEN", b64encode(b"a" * 32).decode()):
        assert secret not in text
    assert MASK in text
    assert "you sent" in text


def test_secrets_of_slack_are_found() -> None:
    settings = slack.settings.model_validate({
        "type": "slack", "topics": ["#"], "webhook_url": "https://hooks.slack.com/services/T00000000/B0000000/SECRETPART",
    })  # fmt: skip
    text = kept(
        "invalid_token SECRETPART at /services/T00000000/B0000000/SECRETPART", secrets=secrets_of(settings)
    ).body
    assert "SECRETPART" not in text


def errors(status: int, body: bytes) -> list[BridgeError]:
    answer = EndpointResponse("https://crm.example", status, body, None)
    plain = answer.error()
    assert plain is not None
    return [plain, classify_error(answer, body.decode())]


@pytest.mark.parametrize(("status", "body"), [(400, b"invalid_payload"), (503, b"busy"), (410, b"channel_is_archived")])
def test_errors_of_both_sinks_carry_the_answer(status: int, body: bytes) -> None:
    for error in errors(status, body):
        assert error.answer == EndpointAnswer(status, body)
        assert body.decode() not in str(error) or "answered" in str(error)


def test_error_without_an_answer_carries_none() -> None:
    assert Permanent("not a URL").answer is None
