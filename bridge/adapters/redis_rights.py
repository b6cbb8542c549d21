"""The rights that Redis gives us, tried without any effect: commands that are queued in a transaction and thrown away.

Redis looks at a command's name, its keys and its own memory when it queues the command. Then `DISCARD` forgets all of
them, so nothing is read, written or left behind, whatever the keys hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from redis import exceptions as failures

from bridge.adapters.lua import Script
from bridge.adapters.redis_words import redis_code, redis_words

Command = tuple[str | int, ...]

_ARGUMENTS: dict[str, Command] = {
    "BLMOVE": ("{key}", "RIGHT", "LEFT", 1), "DEL": (), "EXISTS": (), "GET": (), "GETBIT": (0,), "HDEL": ("f",),
    "HGET": ("f",), "HGETALL": (), "HINCRBY": ("f", 1), "HKEYS": (), "HMGET": ("f",), "HSET": ("f", "v"),
    "HSETNX": ("f", "v"), "INCR": (), "LINDEX": (0,), "LLEN": (), "LPOP": (), "LPUSH": ("v",), "LRANGE": (0, -1),
    "LREM": (1, "v"), "LTRIM": (0, 1), "PEXPIRE": (1000,), "PTTL": (), "RPOP": (), "RPUSH": ("v",), "SADD": ("m",),
    "SET": ("v", "EX", 60), "SETBIT": (0, 0), "SETRANGE": (0, ""), "SISMEMBER": ("m",), "SMEMBERS": (),
    "SMISMEMBER": ("m",), "SREM": ("m",), "UNLINK": (), "WATCH": (), "XADD": ("*", "f", "v"), "XLEN": (),
    "XRANGE": ("-", "+"), "XTRIM": ("MINID", "0"), "ZADD": (1, "m"), "ZCARD": (), "ZCOUNT": ("-inf", "+inf"),
    "ZMSCORE": ("m",), "ZRANGE": (0, -1), "ZRANGEBYSCORE": ("-inf", "+inf"), "ZRANK": ("m",), "ZREM": ("m",),
    "ZSCAN": (0,), "ZSCORE": ("m",),
}  # fmt: skip
"""What follows the key of a command, for each command that the bridge sends or its scripts call."""
_KEYLESS: dict[str, Command] = {
    "CLIENT ID": (), "CLIENT UNBLOCK": (0,), "PING": (), "SCAN": (0,), "TIME": (), "UNWATCH": (),
}  # fmt: skip
_SCRIPTS: dict[str, Command] = {"EVAL": ("return 1", 1), "EVALSHA": ("0" * 40, 1)}
_CALLED = re.compile(r"redis\.p?call\('(\w+)'")


def commands_of(scripts: Iterable[Script]) -> set[str]:
    """Return the commands that Lua scripts call."""
    return {name for script in scripts for name in _CALLED.findall(script.text.decode())}


@dataclass(frozen=True, slots=True)
class Rights:
    """What has to be allowed: commands on keys, of which each stands for all that begin alike."""

    names: frozenset[str]
    """The commands; each is tried on each key."""
    keys: Sequence[str] = field(default_factory=tuple)

    def commands(self) -> list[Command]:
        """Return the commands to queue, in order."""
        keyless = [(*name.split(), *_KEYLESS[name]) for name in sorted(self.names & _KEYLESS.keys())]
        return [*keyless, *(self._on(name, key) for key in self.keys for name in sorted(self.names - _KEYLESS.keys()))]

    @staticmethod
    def _on(name: str, key: str) -> Command:
        if name in _SCRIPTS:
            return (name, *_SCRIPTS[name], key)
        return (name, key, *(key if word == "{key}" else word for word in _ARGUMENTS[name]))


def queued(commands: Sequence[Command]) -> list[Command]:
    """Return all that has to be sent to have these commands queued and thrown away.

    If the first of these is refused, nothing else may be sent: it would be executed.
    """
    return [("MULTI",), *commands, ("DISCARD",)]


def missing(commands: Sequence[Command], answers: Sequence[BaseException | None]) -> list[str]:
    """Return what the answers to commands say of missing rights, each once, in the server's words.

    Answers may be fewer than commands. Raises the first answer that is about something else, such as a server without
    memory.
    """
    said: dict[str, str] = {}
    for command, answer in zip(commands, answers, strict=False):
        if answer is None or _is_out_of_place(command, answer):
            continue
        if redis_code(answer) != "NOPERM":
            raise answer
        about_key = "run the " not in str(answer)
        what = f"keys like {command[_key_place(command)]}" if about_key else _name(command)
        said.setdefault(what, redis_words(answer))
    return [f"{what} ({words})" for what, words in said.items()]


def _name(command: Command) -> str:
    return " ".join(str(word) for word in command[: 2 if command[0] == "CLIENT" else 1])


def _key_place(command: Command) -> int:
    return -1 if command[0] in _SCRIPTS else 1


def _is_out_of_place(command: Command, answer: BaseException) -> bool:
    """Say whether a command may be sent, only not inside or outside a transaction: Redis looks at rights first."""
    return (
        command[0] in {"WATCH", "UNWATCH", "EXEC"}
        and isinstance(answer, failures.ResponseError)
        and "MULTI" in str(answer)
    )


_SHOWN_AT_MOST = 4
"""Missing rights that are named; there may be a hundred."""


def summary(said: Sequence[str], page: str) -> str:
    """Say in one line which rights are missing, and which page of the documentation has the lines to copy."""
    shown = said[:_SHOWN_AT_MOST]
    more = f", and {len(said) - len(shown)} more" if len(said) > len(shown) else ""
    return f"does not let this user do all that is needed: {', '.join(shown)}{more}; {page} has the smallest ACL"
