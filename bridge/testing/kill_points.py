"""The kill switch: ends the process at one named point of an event's way, as a power cut would, and says what it costs.

`python -m bridge.testing.kill_points` prints the points and their prices as a table.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

MARK: Final = "crash.point"
"""The event of the line that the dying process writes on standard error; `point` and `count` are with it."""
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Point:
    """One place at which a process may die, and what comes twice because of it; nothing is ever lost."""

    name: str
    step: str
    """`intake`, `relay`, `delivery` or `audit`."""
    to_consumers: str = NOTHING
    """What a consumer of the broker sees twice, always with the same id and the same bytes."""
    to_sink: str = NOTHING
    """What the sink's endpoint gets twice, likewise."""
    holds: bool = False
    """Whether nothing is sent before the process dies, so that nothing else is on its way."""
    by_endpoint: bool = False
    """Whether only the sink's endpoint knows when to kill."""


POINTS: Final = (
    Point("page read, not decided", "intake", holds=True),
    Point("decided, not committed", "intake", holds=True),
    Point("committed", "intake", holds=True),
    Point("read from the journal, not published", "relay", holds=True),
    Point("half of a batch published", "relay", to_consumers="that half", holds=True),
    Point("published, not marked", "relay", to_consumers="that batch", holds=True),
    Point("marked as published", "relay", holds=True),
    Point("received from the queue, not accepted", "delivery", holds=True),
    Point("accepted, not acknowledged", "delivery", holds=True),
    Point("acknowledged, not sent", "delivery", holds=True),
    Point("sent, not answered", "delivery", to_sink="what was being sent", by_endpoint=True),
    Point("answered, not settled", "delivery", to_sink="what was answered and not settled"),
    Point("settled", "delivery", to_sink="what else was being sent"),
    Point("refused for now, not postponed", "delivery"),
    Point("postponed", "delivery"),
    Point("due again and claimed, not sent", "delivery"),
    Point("refused for good, not dead-lettered", "delivery", to_sink="what else was being sent"),
    Point("dead-lettered", "delivery", to_sink="what else was being sent"),
    Point("found lost by the broker, not offered", "audit", holds=True),
    Point("offered again from the journal", "audit", holds=True),
)


@dataclass(frozen=True, slots=True)
class _Hook:
    part: str
    method: str
    after: bool
    count: Callable[[Sequence[Any], Any], int]
    """How many events a call carries, from its arguments and its result; of those with none it is not the moment."""


def _events(arguments: Sequence[Any], _: Any) -> int:
    return len(arguments[1].events)


def _first(arguments: Sequence[Any], _: Any) -> int:
    return len(arguments[0])


def _second(arguments: Sequence[Any], _: Any) -> int:
    return len(arguments[1])


def _result(_: Sequence[Any], result: Any) -> int:
    return len(result)


def _one(_: Sequence[Any], __: Any) -> int:
    return 1


def _tried(arguments: Sequence[Any], _: Any) -> int:
    return int(arguments[3] is not None)


_HOOKS: Final = {
    "decided, not committed": _Hook("store", "commit", False, _events),
    "committed": _Hook("store", "commit", True, _events),
    "read from the journal, not published": _Hook("broker", "publish", False, _first),
    "published, not marked": _Hook("broker", "publish", True, _first),
    "marked as published": _Hook("store", "confirm", True, _one),
    "received from the queue, not accepted": _Hook("inbox", "get", True, _result),
    "accepted, not acknowledged": _Hook("inbox", "ack", False, _first),
    "acknowledged, not sent": _Hook("inbox", "ack", True, _first),
    "answered, not settled": _Hook("store", "settle", False, _second),
    "settled": _Hook("store", "settle", True, _second),
    "refused for now, not postponed": _Hook("store", "postpone", False, _tried),
    "postponed": _Hook("store", "postpone", True, _tried),
    "due again and claimed, not sent": _Hook("store", "claim", True, _result),
    "refused for good, not dead-lettered": _Hook("store", "dead_letter", False, _one),
    "dead-lettered": _Hook("store", "dead_letter", True, _one),
    "found lost by the broker, not offered": _Hook("store", "enqueue", False, _second),
    "offered again from the journal": _Hook("store", "enqueue", True, _second),
}


def point(name: str) -> Point:
    """Return the point of a name; raises `KeyError`."""
    return {point.name: point for point in POINTS}[name]


class KillSwitch:
    """Makes the parts of one process mortal: at the `nth` time that it comes to the point, it dies by SIGKILL.

    What `arm` is given keeps its behaviour up to that moment; no production code knows of it.
    """

    def __init__(self, name: str, nth: int = 1) -> None:
        self.point = point(name)
        self._left = nth
        self._hook = _HOOKS.get(name)

    def arm(self, part: str, made: Any) -> Any:
        """Return `made`, a `source`, `store`, `broker` or `sink`, with the point of death in its methods."""
        if part == "source" and self.point.name == "page read, not decided":
            self._replace(made, "pages", self._dying_pages)
        elif part == "broker" and self.point.name == "half of a batch published":
            self._replace(made, "publish", self._half_publishing)
        elif part == "broker" and self._hook is not None and self._hook.part == "inbox":
            self._replace(made, "inbox", self._mortal_inbox)
        elif self._hook is not None and self._hook.part == part:
            self._replace(made, self._hook.method, self._mortal)
        if part == "sink" and self.point.holds:
            self._replace(made, "send", self._never)
        return made

    def _replace(self, owner: Any, method: str, wrap: Callable[[Callable[..., Any]], Any]) -> None:
        setattr(owner, method, wrap(getattr(owner, method)))

    def _mortal(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        hook = self._hook
        assert hook is not None

        async def mortal(*arguments: Any) -> Any:
            if not hook.after:
                self._kill(hook.count(arguments, None))
            result = await call(*arguments)
            if hook.after:
                self._kill(hook.count(arguments, result))
            return result

        return mortal

    def _dying_pages(self, pages: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def dying(*arguments: Any) -> AsyncIterator[Any]:
            async for page in pages(*arguments):
                self._kill(len(page.observations))
                yield page

        return dying

    def _half_publishing(self, publish: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        async def half(entries: Sequence[Any]) -> int:
            if self._left == 1:
                entries = entries[: max(1, len(entries) // 2)]
            published = await publish(entries)
            self._kill(len(entries))
            return published

        return half

    def _mortal_inbox(self, inbox: Callable[..., Any]) -> Callable[..., Any]:
        @asynccontextmanager
        async def mortal(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            async with inbox(*arguments, **options) as opened:
                assert self._hook is not None
                self._replace(opened, self._hook.method, self._mortal)
                yield opened

        return mortal

    @staticmethod
    def _never(_: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
        async def never(_: Any) -> None:
            await asyncio.get_running_loop().create_future()

        return never

    def _kill(self, count: int) -> None:
        if not count:
            return
        self._left -= 1
        if not self._left:
            line = {"event": MARK, "point": self.point.name, "count": count}
            os.write(2, f"{json.dumps(line)}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def table(points: Sequence[Point] = POINTS) -> str:
    """Return the points as Markdown: what is lost, and what comes twice."""
    lines = [
        "| killed when an event was | lost | a consumer gets twice | the sink's endpoint gets twice |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {point.name} | nothing | {point.to_consumers} | {point.to_sink} |" for point in points]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201 - that is what it is run for
