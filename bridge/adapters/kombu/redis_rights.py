"""The rights that Redis has to give us as a broker, tried without leaving anything behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from bridge.adapters import lua
from bridge.adapters.redis_rights import Command, Rights, commands_of, missing, queued, summary
from bridge.domain.errors import MissingRight

PAGE = "docs/how-to/set-up-redis.md"
_PUBLISHING = frozenset(
    {
        "DEL", "EXISTS", "LLEN", "LPUSH", "LTRIM", "PEXPIRE", "PING", "SADD", "SMEMBERS", "SMISMEMBER", "SREM",
        "UNWATCH", "WATCH",
    }
)  # fmt: skip
_CONSUMING = frozenset({"BLMOVE", "CLIENT ID", "CLIENT UNBLOCK", "EVAL", "EVALSHA", "HDEL", "LLEN", "LPUSH"})


def needed() -> frozenset[str]:
    """Return all commands that the broker needs."""
    return _PUBLISHING | _CONSUMING | commands_of(lua.load_all("bridge.adapters.kombu"))


def check_rights(client: redis.Redis, label: str, bindings: Sequence[str], queues: Sequence[str]) -> None:
    """Raise `MissingRight` that names what the user may not do with the keys of bindings and queues."""
    consuming = _CONSUMING | commands_of(lua.load_all("bridge.adapters.kombu"))
    commands = [
        *Rights(_PUBLISHING, bindings).commands(),
        *Rights(consuming if queues else frozenset(), queues).commands(),
    ]
    said = [
        line
        for sent in ([("EXEC",)], queued([*dict.fromkeys(commands)]))
        for line in missing(sent, _answers(client, sent))
    ]
    if said:
        raise MissingRight(f"{label}: Redis {summary(said, PAGE)}")


def _answers(client: redis.Redis, commands: Sequence[Command]) -> list[BaseException | None]:
    """Send the first command, and the others only if it is allowed."""
    answers: list[BaseException | None] = []
    connection: Any = client.connection_pool.get_connection()
    try:
        for part in (commands[:1], commands[1:]):
            for command in part:
                connection.send_command(*command)
            answers += [_refusal(connection) for _ in part]
            if answers[0] is not None:
                break
    finally:
        connection.disconnect()  # whatever was queued goes with it
        client.connection_pool.release(connection)
    return answers


def _refusal(connection: Any) -> BaseException | None:
    try:
        connection.read_response()
    except redis.ResponseError as error:
        return error
    return None
