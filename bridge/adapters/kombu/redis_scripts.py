"""Steps on Redis that need several commands: a script, and what is only added if it is missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import redis

from bridge.adapters.lua import Script


def run_script(client: redis.Redis, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
    """Run a script; its text travels only to a server that does not know it yet."""
    try:
        return client.evalsha(script.sha, len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return client.eval(script.text.decode(), len(keys), *keys, *args)


def add_missing(client: redis.Redis, members: Collection[str], *sets: str) -> None:
    """Add members to sets that lack any. Looked for first: a server without memory refuses to add even what is there.

    It refuses transactions, too; if only one of the sets was added to, the next call adds to the other.
    """
    if not members:
        return
    with client.pipeline(transaction=False) as pipe:
        for key in sets:
            pipe.smismember(key, list(members))
        for key, present in zip(sets, pipe.execute(), strict=True):
            if not all(present):
                pipe.sadd(key, *members)
        pipe.execute()
