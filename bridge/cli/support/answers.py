"""How an endpoint's answer is shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.delivery.masking import last4
from bridge.domain.personal_data import mask_phones


def shown_answer(answer: Mapping[str, Any]) -> str:
    """Return status and text in one line, in which only the last four digits of phones are left."""
    text = mask_phones(" ".join(str(answer["body"]).split()), last4)
    return f"{answer['status']} {text or '(an empty body)'}"
