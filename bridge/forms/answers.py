"""What an endpoint's answer means, by a form's rules and else by its status."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bridge.domain.errors import BridgeError, EndpointGone, Permanent, Transient
from bridge.domain.retry import RETRY_AFTER_CAP
from bridge.forms.models import AnswerRule, AnswerRules
from bridge.http import parsing
from bridge.http.guarded import EndpointResponse
from bridge.http.status import is_success


def error_of(answer: EndpointResponse, rules: AnswerRules, permanent: Collection[int]) -> BridgeError | None:
    """Return None if the endpoint accepted the event, else the error that says what to do.

    Texts name the endpoint, the status and the rule; nothing that the endpoint wrote is repeated.
    """
    if not rules.rules and rules.accepted is None and rules.retry_after is None:
        return answer.error(permanent)
    values = _values(answer)
    wait = _wait(answer, rules, values)
    rule = next((rule for rule in rules.rules if rule.when.matches(values)), None)
    if rule is not None:
        error = _by_rule(answer, rule, wait)
        return None if error is None else answer.attached_to(error)
    if is_success(answer.status):
        if rules.accepted is None or rules.accepted.matches(values):
            return None
        text = f"{answer.endpoint} answered {answer.status} without saying that it accepted the event"
        return answer.attached_to(Transient(text, retry_after=wait))
    error = answer.error(permanent)
    if isinstance(error, Transient):
        error.retry_after = wait
    return error


def _by_rule(answer: EndpointResponse, rule: AnswerRule, wait: float | None) -> BridgeError | None:
    text = f"{answer.endpoint} answered {answer.status}: {rule.about}"
    match rule.then:
        case "accept":
            return None
        case "permanent":
            return Permanent(text)
        case "disable":
            return EndpointGone(f"{text}; nothing more is sent to it until it is enabled again")
        case _:
            return Transient(text, retry_after=wait)


def _values(answer: EndpointResponse) -> dict[str, Any]:
    try:
        body = parsing.json(answer.body)
    except ValueError:
        body = None
    return {"status": answer.status, "body": body, "text": answer.body.decode("utf-8", "replace").strip()}


def _wait(answer: EndpointResponse, rules: AnswerRules, values: Mapping[str, Any]) -> float | None:
    if answer.retry_after is not None or rules.retry_after is None or is_success(answer.status):
        return answer.retry_after
    value = values["body"]
    for name in rules.retry_after.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= RETRY_AFTER_CAP:
        return None
    return float(value)
