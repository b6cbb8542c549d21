"""What the three provider APIs share: a question, an answer, and what the answer shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.simulator.ground_truth import ShownStatus

JSON = "application/json; charset=utf-8"


@dataclass(slots=True)
class SimRequest:
    """One request, read."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    view: str
    """The kind of question: one word for all paths of a kind, such as `recipients`."""
    origin: str
    """Scheme, host and port under which the client asked."""
    shift: int = 0
    """By how many items a page of a listing has slipped."""

    @property
    def target(self) -> str:
        """Return path and query for a filter to look at."""
        return self.path + "?" + "&".join(f"{key}={value}" for key, value in self.query.items())


@dataclass(slots=True)
class SimResponse:
    """What is to be sent, and what it shows once it is sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    shown_statuses: Sequence[ShownStatus] = ()


class ProviderApi(Protocol):
    """One provider as it looks from outside."""

    provider: str

    def view(self, path: str) -> str | None:
        """Return the kind of question that a path asks, or None when it is not this provider's."""
        ...

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer."""
        ...

    def shown_statuses(self, ask: SimRequest, payload: Any) -> list[ShownStatus]:
        """Return what a client reads from a body, also from one that was tampered with."""
        ...


def encode(payload: Any) -> bytes:
    """Return a payload as the JSON that goes out."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def answer_json(payload: Any, status: int = 200, shown_statuses: Sequence[ShownStatus] = ()) -> SimResponse:
    """Return an answer with a JSON body."""
    return SimResponse(status, encode(payload), {"Content-Type": JSON}, shown_statuses)


def path_of(link: Any) -> str | None:
    """Return the path of a link that may be absolute; None where there is none."""
    if not isinstance(link, str) or not link:
        return None
    rest = link.partition("://")[2]
    return "/" + rest.partition("/")[2] if rest else link
