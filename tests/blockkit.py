"""Slack's own rules for messages in Block Kit, which a message is held against as Slack would."""

from __future__ import annotations

import json
import re

TOKEN = re.compile(r"<!date\^-?\d+\^[^|<>]+\|[^<>]+>")


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def check_text(text: str, limit: int, *, marked: bool) -> None:
    assert text.strip()
    assert units(text) <= limit
    if marked:
        rest = TOKEN.sub("", text)
        assert "<" not in rest
        assert ">" not in rest
        assert not re.search(r"&(?!amp;|lt;|gt;)", rest)


def check_object(text: dict, limit: int, kinds: set[str]) -> None:
    assert text["type"] in kinds
    allowed = {"type", "text", "emoji"} if text["type"] == "plain_text" else {"type", "text", "verbatim"}
    assert set(text) <= allowed
    check_text(text["text"], limit, marked=text["type"] == "mrkdwn")


def check_block(block: dict) -> None:
    both = {"plain_text", "mrkdwn"}
    match block["type"]:
        case "header":
            assert set(block) == {"type", "text"}
            check_object(block["text"], 150, {"plain_text"})
        case "section":
            assert set(block) <= {"type", "text", "fields"}
            assert "text" in block or "fields" in block
            if "text" in block:
                check_object(block["text"], 3000, both)
            if "fields" in block:
                assert 1 <= len(block["fields"]) <= 10
                for field in block["fields"]:
                    check_object(field, 2000, both)
        case "context":
            assert set(block) == {"type", "elements"}
            assert 1 <= len(block["elements"]) <= 10
            for element in block["elements"]:
                check_object(element, 3000, both)
        case other:
            raise AssertionError(f"unexpected block {other}")


def check_message(message: dict) -> dict:
    """Hold a message against Slack's documented limits."""
    assert set(message) == {"text", "blocks", "unfurl_links", "unfurl_media"}
    check_text(message["text"], 4000, marked=True)
    assert 1 <= len(message["blocks"]) <= 50
    for block in message["blocks"]:
        check_block(block)
    json.dumps(message, ensure_ascii=False).encode()
    return message
