"""What Redis says when it refuses something: what it means, whose turn it is, and its own words if they are harmless.

The tables grow: a new refusal is a row. What no row knows is told by its first word alone, because a text of Redis may
quote a command with its values.
"""

from __future__ import annotations

import re

from redis import exceptions as failures

from bridge.adapters.os_errors import os_error_reason
from bridge.domain.errors import AccessRefused, MissingRight, Unavailable

_CODE = re.compile(
    r"-?\b(OOM|READONLY|LOADING|CLUSTERDOWN|MASTERDOWN|MISCONF|NOREPLICAS|BUSY|NOPERM|NOAUTH|WRONGPASS|WRONGTYPE)\b"
)
_MEANING = {
    "OOM": "is out of memory and takes no writes; raise its maxmemory",
    "READONLY": "is a read-only replica; nothing is written until a primary answers",
    "LOADING": "is still loading its data",
    "CLUSTERDOWN": "is a cluster with hash slots that no node serves",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "cannot persist its data and takes no writes; look at its disk",
    "NOREPLICAS": "has too few replicas and takes no writes",
    "BUSY": "is busy with a script of somebody else",
    "NOPERM": "refuses the command to this user; look at its ACL",
    "NOAUTH": "wants a password",
    "WRONGTYPE": "holds another program's data under our keys; use a database or a prefix of its own",
    "WRONGPASS": "refuses the credentials; look at the user and the password in its URL",
    "MAXCLIENTS": "takes no more connections; raise its maxclients, or close some",
    "DENIED": "takes connections of its own machine only; give it a password, or set protected-mode no",
    "DATABASE": "does not have the database of its URL; look at its setting databases",
    "UNKNOWN": "does not know a command that the bridge needs; it has to be Redis 6.2 or later",
    "NONODE": "has no node that serves the whole cluster",
    "TIMEOUT": "did not answer within {timeout:g} s",
    "CONNECTION": "cannot be reached",
}
_PHRASES = {
    r"has no permissions? |no permissions to access": "NOPERM",
    r"the user executing the script can't": "NOPERM",
    r"invalid username-password|invalid password": "WRONGPASS",
    r"max number of clients": "MAXCLIENTS",
    r"protected mode": "DENIED",
    r"DB index is out of range|invalid DB index|SELECT is not allowed": "DATABASE",
    r"unknown (?:redis )?(?:sub)?command": "UNKNOWN",
}
"""What Redis says without a code, or with a code that the library takes off."""
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (failures.OutOfMemoryError, "OOM"),
    (failures.ReadOnlyError, "READONLY"),
    (failures.BusyLoadingError, "LOADING"),
    (failures.NoPermissionError, "NOPERM"),
    (failures.AuthenticationError, "WRONGPASS"),
    (failures.ClusterDownError, "CLUSTERDOWN"),
    (failures.ClusterError, "NONODE"),
    (failures.RedisClusterException, "NONODE"),
    (failures.TimeoutError, "TIMEOUT"),
    (TimeoutError, "TIMEOUT"),
    (failures.ConnectionError, "CONNECTION"),
    (OSError, "CONNECTION"),
)
"""The library takes the code off the text of the errors that it knows; the first that fits counts."""
_OWN_WORDS = frozenset(_MEANING) - {"NONODE", "TIMEOUT", "CONNECTION"}
"""Codes that a server sends: its text says more than ours, and quotes no values."""
_REFUSALS = {"NOPERM": MissingRight, "NOAUTH": AccessRefused, "WRONGPASS": AccessRefused}
_VALUES = re.compile(r",? with args beginning with.*|,? called from script.*| script: [0-9a-f]{40}.*", re.DOTALL)
"""Where a text of Redis begins to quote what it was sent."""
_PIPELINED = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
_MAX_WORDS_CHARACTERS = 200


def redis_code(error: BaseException) -> str:
    """Return what went wrong as a code, which is Redis's own where it has one; empty for what no table knows.

    The library covers up why a node did not tell of its cluster: then the node's own error is read.
    """
    error = _said(error)
    text = _bare(error)
    if (match := _CODE.search(text)) is not None:
        return match[1]
    for phrase, code in _PHRASES.items():
        if re.search(phrase, text, re.IGNORECASE):
            return code
    return next((name for kind, name in _KINDS if isinstance(error, kind)), "")


def redis_refusal(error: BaseException) -> type[Unavailable]:
    """Return the class that says what the caller does next."""
    return _REFUSALS.get(redis_code(error), Unavailable)


def redis_reason(error: Exception, timeout: float) -> str:
    """Say in one line, as what follows its name, why Redis did not do it.

    `timeout` is how long an answer was waited for, in seconds. The text quotes no value and no URL.
    """
    code = redis_code(error)
    if not code:
        return f"answered with an error ({_bare(error).partition(' ')[0]})"
    meaning = _MEANING[code].format(timeout=timeout)
    if code in _OWN_WORDS:
        return f"{meaning} ({redis_words(error)})"
    why = os_error_reason(error) if code == "CONNECTION" else None
    return f"{meaning}: {why}" if why else meaning


def _said(error: BaseException) -> BaseException:
    """Return the error that the server sent, where the library raised another one because of it."""
    inner: BaseException | None = error
    while isinstance(inner, failures.RedisClusterException):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, failures.ResponseError) else error


def _bare(error: BaseException) -> str:
    """Return the server's text: of a command in a pipeline, the library quotes the command in front of it."""
    return _PIPELINED.sub("", str(error))


def redis_words(error: BaseException) -> str:
    """Return the server's own words for a refusal that the tables know, with its code, without what it quotes."""
    error = _said(error)
    code = redis_code(error)
    said = " ".join(_VALUES.sub("", _bare(error)).split()).lstrip("-")
    if _CODE.match(said) is None and _CODE.fullmatch(code):
        said = f"{code} {said}"
    return said[:_MAX_WORDS_CHARACTERS].rstrip(" .:")
