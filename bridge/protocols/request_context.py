"""What a task knows about the requests that it makes: its lease, its quota, its transport and its request slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bridge.domain.errors import LeaseLost


@dataclass(slots=True)
class LeaseDeadline:
    """Until when this process certainly holds a lease: work under the lease sends no request after that.

    A paused process may wake while another process does its work. The fencing token stops what the first one would
    write. Nothing stops what it would ask a provider, and that would be one request too many.
    """

    name: str
    until: float
    """By the monotonic clock: the time of the last request for the lease plus its ttl. The store counts from later."""
    within: LeaseDeadline | None = None
    """The outer lease; if it ends, this one ends too."""

    def check(self, now: float) -> None:
        """Raise `LeaseLost` when this lease or the outer one has ended."""
        if self.within is not None:
            self.within.check(now)
        if now >= self.until:
            raise LeaseLost(f"the lease {self.name} was not renewed in time: nothing is done under it any more")


class QuotaShare(Protocol):
    """How much of an account's budget of requests this process may use, while others may use the account as well."""

    async def current_rate(self) -> float:
        """Return the highest rate in requests a second; infinite means the whole budget."""
        ...


@dataclass(slots=True)
class RequestCounter:
    """Counts the requests of a task and of those that it starts."""

    requests: int = 0


class Slot(Protocol):
    """The slot of one request in the budget of its account."""

    def sent(self) -> None:
        """Note that the request leaves now."""
        ...


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What holds for all requests of a task; tasks that it starts inherit it."""

    lease: LeaseDeadline | None = None
    """The lease under which the task works; None is no lease."""
    share: QuotaShare | None = None
    """How much of the account's budget the task may use; None is all of it."""
    transport: Any = None
    """The `bridge.http.client.Transport` between the clients and the network; None is the network alone."""
    slot: Slot | None = None
    """The slot of the request that the task makes now; None before its first request."""
    on_answer: Callable[[str], None] | None = None
    """Called for each request with the class of its answer, one of `bridge.domain.answers.PROVIDER_ANSWERS`."""
    counter: RequestCounter | None = None
    """What counts the task's requests; None counts nothing."""


_CONTEXT: ContextVar[RequestContext] = ContextVar("_CONTEXT", default=RequestContext())  # noqa: B039 - it is frozen


def current() -> RequestContext:
    """Return the context of this task."""
    return _CONTEXT.get()


def bind(**changes: Any) -> Token[RequestContext]:
    """Change fields of this task's context for the rest of the task; `reset` takes the change back."""
    return _CONTEXT.set(replace(_CONTEXT.get(), **changes))


def bind_slot(slot: Slot) -> None:
    """Set the slot of the request that the task makes now. It is set for each request, so it is done the fast way."""
    context = _CONTEXT.get()
    if context.counter is not None:
        context.counter.requests += 1
    _CONTEXT.set(
        RequestContext(context.lease, context.share, context.transport, slot, context.on_answer, context.counter)
    )


def reset(token: Token[RequestContext]) -> None:
    """Restore the context as it was before the `bind` that returned `token`."""
    _CONTEXT.reset(token)


@contextmanager
def bound(**changes: Any) -> Iterator[None]:
    """Change fields of this task's context inside a `with` block."""
    token = bind(**changes)
    try:
        yield
    finally:
        reset(token)
