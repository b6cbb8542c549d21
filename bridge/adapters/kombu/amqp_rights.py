"""The rights that RabbitMQ gives us, tried without any effect.

RabbitMQ looks at the rights before it looks at what is asked for. So each try asks for something that RabbitMQ never
does, of the exchange and the queues by their own names: with an argument that is not valid, or to remove a binding that
is not there. `ACCESS_REFUSED` then says that the right is missing, and every other answer that it is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import amqp

from bridge.adapters.kombu.amqp_exchange import exists, use_exchange
from bridge.domain.errors import MissingRight

PAGE = "docs/how-to/set-up-rabbitmq.md"
_DEFAULT_EXCHANGE = ""
_INVALID = {"x-queue-type": "none", "x-expires": -1, "alternate-exchange": 0, "x-priority": "none"}


@dataclass(frozen=True, slots=True)
class _Try:
    """One question, whose answer says whether a right is there."""

    right: str
    place: str
    """What the right is about, as RabbitMQ calls it: `queue` or `exchange`."""
    ask: Callable[[], object]

    def refusal(self) -> str | None:
        """Return RabbitMQ's words if it refuses; it closes the channel then, and py-amqp opens it again."""
        try:
            self.ask()
        except amqp.exceptions.AccessRefused as error:
            words = str(error.reply_text)
            return words if f"access to {self.place} " in words else None
        except (amqp.exceptions.PreconditionFailed, amqp.exceptions.NotFound, amqp.exceptions.ResourceLocked):
            return None
        return None


def check_rights(channel: Any, label: str, exchange: str, queues: Sequence[str], differing: set[str]) -> None:
    """Raise `MissingRight` that names each right that the user lacks; `Unavailable` for an exchange of another kind."""
    made = exists(channel, exchange)
    tries = [
        *_tries_on_exchange(channel, exchange),
        *(attempt for queue in queues for attempt in _tries_on_queue(channel, exchange, queue)),
    ]
    if made:  # its owner may keep the right to change it
        del tries[0]
    said = {attempt.right: words for attempt in tries if (words := attempt.refusal())}
    if said:
        shown = ", ".join(f"{right} ({words})" for right, words in said.items())
        raise MissingRight(f"{label}: the user lacks {shown}; {PAGE} has the smallest permissions")
    if made:
        use_exchange(channel, exchange, differing)


def _tries_on_exchange(channel: Any, exchange: str) -> list[_Try]:
    return [
        _Try(
            f"configure on the exchange {exchange}",
            "exchange",
            lambda: channel.exchange_declare(exchange, "topic", durable=True, auto_delete=True, arguments=_INVALID),
        ),
        # The default exchange cannot be bound: RabbitMQ says so once it has looked at the right to write to ours.
        _Try(
            f"write on the exchange {exchange}",
            "exchange",
            lambda: channel.exchange_unbind(exchange, _DEFAULT_EXCHANGE, _no_topic()),
        ),
    ]


def _tries_on_queue(channel: Any, exchange: str, queue: str) -> list[_Try]:
    return [
        _Try(
            f"configure on the queue {queue}",
            "queue",
            lambda: channel.queue_declare(queue, durable=True, auto_delete=True, arguments=_INVALID),
        ),
        _Try(
            f"write on the queue {queue}",
            "queue",
            lambda: channel.queue_unbind(queue, _DEFAULT_EXCHANGE, _no_topic()),
        ),
        _Try(
            f"read on the exchange {exchange}",
            "exchange",
            lambda: channel.queue_unbind(queue, exchange, _no_topic()),
        ),
        _Try(f"read on the queue {queue}", "queue", lambda: channel.basic_consume(queue, arguments=_INVALID)),
    ]


def _no_topic() -> str:
    return f"bridge.check.{uuid.uuid4().hex}"
