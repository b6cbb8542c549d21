"""What each status of a receiver means: only what says that the event is wrong is permanent."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.domain.retry import GiveUp, RetryAfter, decide
from bridge.http.guarded import EndpointResponse
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.sink_suite import outgoing, sample
from bridge_webhook import WebhookSettings, plugin

EVENT_IS_WRONG = {400, 413, 415, 422}
CREDENTIALS = {401, 403, 407}


def settings_of(url, **values):
    return WebhookSettings.model_validate({"type": "webhook", "topics": ["#"], "url": url, **values})


def kind_of(status):
    if 200 <= status < 300:
        return type(None)
    if status in EVENT_IS_WRONG:
        return Permanent
    if status == 410:
        return EndpointGone
    return Unauthorized if status in CREDENTIALS else Transient


@pytest.mark.parametrize(
    "status", [101, *range(200, 209), *range(300, 309), *range(400, 452), *range(500, 512), 599, 999]
)
def test_a_status_says_what_to_do_next(status):
    error = EndpointResponse("https://crm.example.com", status, b"", None).error()
    assert type(error) is kind_of(status)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 407, 409, 421, 423, 503])
def test_a_refusal_that_may_pass_spends_the_whole_schedule(status):
    error = EndpointResponse("https://crm.example.com", status, b"", None).error()
    schedule = (5.0, 300.0)
    decisions = [decide(error, attempt, schedule, random.Random(1)) for attempt in (1, 2, 3)]
    assert [type(decision) for decision in decisions] == [RetryAfter, RetryAfter, GiveUp]
    assert decisions[-1] == GiveUp("exhausted")


def test_the_error_says_the_answer_of_the_endpoint():
    body = b'{"error": "invalid_recipient", "message": "Ada Lovelace, +14155550123"}'
    error = EndpointResponse("https://crm.example.com", 422, body, None).error()
    assert str(error) == "https://crm.example.com answered 422 (code invalid_recipient)"


@pytest.fixture
async def answers():
    """Give a function that returns the errors of a sink whose endpoint answers with these statuses."""

    async def answers(statuses, **values):
        errors = []
        async with FakeEndpoint() as far:
            sink = plugin.build("crm", settings_of(far.url, allow_private=True, **values), Clock())
            await sink.open()
            for number, status in enumerate(statuses, 1):
                far.answer(reply(status))
                try:
                    await sink.send(outgoing(sample(number)))
                except (Transient, Permanent) as error:
                    errors.append(error)
            await sink.close()
        return errors

    return answers


async def test_the_settings_say_which_statuses_are_permanent(answers):
    errors = await answers([400, 404, 410], permanent_statuses=[404])
    assert [type(error) for error in errors] == [Transient, Permanent, EndpointGone]


async def test_without_permanent_statuses_everything_is_tried_again(answers):
    errors = await answers(sorted(EVENT_IS_WRONG), permanent_statuses=[])
    assert [type(error) for error in errors] == [Transient] * 4


async def test_a_refusal_that_may_pass_counts_for_the_circuit(answers):
    circuit = CircuitBreaker(random.Random(1))
    errors = await answers([404] * 10)
    assert not any(isinstance(error, Permanent) for error in errors)
    opened = [circuit.on_failure(float(second)) for second, _ in enumerate(errors)]
    assert opened[-1]


@pytest.mark.parametrize("status", [200, 204, 99, 600, "gone"])
def test_only_a_refusal_can_be_called_permanent(status):
    with pytest.raises(ValidationError):
        settings_of("https://crm.example.com/", permanent_statuses=[status])
