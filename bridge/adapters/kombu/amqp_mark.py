"""The mark of an installation in RabbitMQ: an exchange without messages, whose alternate exchange names the mark.

RabbitMQ keeps nothing but exchanges and queues. Declared once more with another alternate exchange, an exchange is
refused, and the refusal says which one it has: so a single declaration gives the mark, or tells whose it is.
"""

from __future__ import annotations

import re
from typing import Any

import amqp
import structlog

from bridge.adapters.kombu.amqp_rights import check_mark_rights
from bridge.domain.installation import UNKNOWN, Mark
from bridge.domain.namespace import Namespace

log = structlog.get_logger()

_NO_ID = "0" * 16
_ARGUMENT = "alternate-exchange"
_CURRENT = re.compile(r"current is .*?'(?:[a-z0-9_-]+\.)?([0-9a-f]+)'")
"""What of a refusal names the mark that is there; it is cut off at 255 bytes."""


class AmqpMark:
    """The mark in one virtual host, by one channel."""

    def __init__(self, channel: Any, namespace: Namespace) -> None:
        self._channel = channel
        self._namespace = namespace
        self._exchange = f"{namespace.stem}.installation"

    def read(self) -> Mark | None:
        """Return the mark; None if there is none, or if the user may not ask for it."""
        if not self._exists():
            return None
        try:
            self._declare({})
        except amqp.exceptions.PreconditionFailed as error:
            return self._named_by(error)
        except amqp.exceptions.AccessRefused:
            return None
        return Mark(UNKNOWN, self._namespace.name)  # somebody else's exchange, without any alternate one

    def give(self, mark: Mark) -> Mark:
        """Return the mark that the virtual host has; one without any gets `mark`, in one round trip.

        A user who may not make the exchange uses the broker all the same.
        """
        try:
            self._declare({_ARGUMENT: f"{self._namespace.stem}.{mark.id}"})
        except amqp.exceptions.PreconditionFailed as error:
            return self._named_by(error)
        except amqp.exceptions.AccessRefused:
            log.warning(
                "broker.cannot_be_marked",
                exchange=self._exchange,
                reason="the user may not configure it",
                consequence="another installation with the same names would not be noticed",
            )
        return mark

    def replace(self, mark: Mark) -> None:
        """Give the virtual host this mark instead of its own."""
        self._channel.exchange_delete(exchange=self._exchange)
        self._declare({_ARGUMENT: f"{self._namespace.stem}.{mark.id}"})

    def check_rights(self, label: str) -> None:
        """Raise `MissingRight` that names each right on the mark that the user lacks; makes nothing."""
        check_mark_rights(self._channel, label, self._exchange, f"{self._namespace.stem}.{_NO_ID}")

    def _exists(self) -> bool:
        try:
            self._channel.exchange_declare(exchange=self._exchange, type="fanout", durable=True, passive=True)
        except amqp.exceptions.NotFound:
            return False
        return True

    def _declare(self, arguments: dict[str, str]) -> None:
        self._channel.exchange_declare(
            exchange=self._exchange, type="fanout", durable=True, auto_delete=False, arguments=arguments
        )

    def _named_by(self, error: Exception) -> Mark:
        present = _CURRENT.search(str(error))
        return Mark(present[1] if present else UNKNOWN, self._namespace.name)
