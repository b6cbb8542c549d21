"""What RabbitMQ says when it refuses something: whose turn it is, and its own words.

RabbitMQ's texts name a user, a virtual host, a queue or an exchange, and never a password. The table grows: a new
refusal is a row.
"""

from __future__ import annotations

import re

import amqp

from bridge.domain.errors import AccessRefused, MissingRight, Unavailable

_CREDENTIALS = "the credentials were refused; see user and password in the broker's URL"
_RIGHT = "the user lacks a right; see its permissions with rabbitmqctl list_permissions"
_ROWS: tuple[tuple[str, type[Unavailable], str], ...] = (
    (r"login was refused|can only (?:connect|log in) via localhost", AccessRefused, _CREDENTIALS),
    (
        r"(?:connection|channel|node|vhost|queue)s? .*limit|limit .*reached",
        Unavailable,
        "a limit of RabbitMQ is reached",
    ),
    (r"vhost .*not found|vhost .*is down", Unavailable, "see the virtual host, which is the path of the broker's URL"),
    (r"refused for user|access refused", MissingRight, _RIGHT),
    (r"inequivalent arg", Unavailable, "it exists and was made in another way"),
    (r"no queue '", Unavailable, "it was deleted, or was never made"),
    (r"no exchange '", Unavailable, "it was deleted, or was never made"),
)
"""RabbitMQ's words, the class that says what the caller does next, and what an operator may do."""
_MAX_WORDS_CHARACTERS = 300


def amqp_refusal(error: amqp.exceptions.AMQPError) -> type[Unavailable]:
    """Return the class that says what the caller does next."""
    row = _row(error)
    return row[1] if row is not None else Unavailable


def amqp_reason(error: amqp.exceptions.AMQPError) -> str | None:
    """Say in one line what RabbitMQ refused, in its own words behind ours; None if it said nothing."""
    words = " ".join(str(error.reply_text or "").split())[:_MAX_WORDS_CHARACTERS]
    if not words:
        return _CREDENTIALS if isinstance(error, amqp.exceptions.AccessRefused) else None
    row = _row(error)
    return words if row is None else f"{row[2]} ({words})"


def _row(error: amqp.exceptions.AMQPError) -> tuple[str, type[Unavailable], str] | None:
    text = str(error.reply_text or "")
    return next((row for row in _ROWS if re.search(row[0], text, re.IGNORECASE)), None)
