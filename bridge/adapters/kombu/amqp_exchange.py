"""The exchange in RabbitMQ: made as it has to be, or used as it is if it is right."""

from __future__ import annotations

import re
from typing import Any

import amqp
import structlog

from bridge.domain.errors import Unavailable

log = structlog.get_logger()

_INEQUIVALENT = re.compile(r"inequivalent arg '([^']+)' for exchange [^:]*: (.*)", re.DOTALL)
_HARMLESS = "alternate-exchange"
"""The one difference that changes nothing for us: RabbitMQ compares it last, so all else is as it has to be."""


def use_exchange(channel: Any, exchange: str, differing: set[str]) -> None:
    """Make the durable topic exchange; one that is there is used if events can be published to it as to ours.

    An alternate exchange is an operator's own business. Raises `Unavailable` for an exchange of another type, or one
    that does not last. A user that may not compare, because another one made it, uses it as it is.
    """
    try:
        channel.exchange_declare(exchange=exchange, type="topic", durable=True, auto_delete=False)
    except amqp.exceptions.PreconditionFailed as error:  # RabbitMQ closed the channel; py-amqp has opened it again
        match = _INEQUIVALENT.search(str(error.reply_text))
        if match is None or match[1] != _HARMLESS:
            raise Unavailable(_wrong(exchange, match)) from error
        _note(exchange, differing, "it has an alternate exchange")
    except amqp.exceptions.AccessRefused as error:
        if not exists(channel, exchange):
            raise
        _note(exchange, differing, str(error.reply_text))


def exists(channel: Any, exchange: str) -> bool:
    """Say whether the exchange is there; needs no right."""
    try:
        channel.exchange_declare(exchange=exchange, type="topic", durable=True, passive=True)
    except amqp.exceptions.NotFound:
        return False
    return True


def _wrong(exchange: str, match: re.Match[str] | None) -> str:
    why = f"its {match[1]} is another one ({match[2]})" if match else "it was made in another way"
    return (
        f"the exchange {exchange!r} is there, and {why}; the bridge needs a durable topic exchange that is not "
        "internal: delete that one, or set `exchange:` to another name"
    )


def _note(exchange: str, differing: set[str], reason: str) -> None:
    if f"exchange {exchange}" not in differing:
        differing.add(f"exchange {exchange}")
        log.info("broker.exchange_differs", exchange=exchange, reason=reason, consequence="used as it is")
