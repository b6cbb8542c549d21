"""What has to change at a provider so that it pushes to us: compared with what it has, decided from values alone."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.protocols.hints import PushSubscription

State = Literal["registered", "outdated", "extra", "other"]
"""`registered` as it should be, `outdated` at an address of ours that is not used any more, `extra` because there is
another one like it, `other` for what somebody else made."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a provider has, and what it lacks."""

    present: Sequence[tuple[PushSubscription, State]]
    missing: Sequence[str]
    """The events that nothing of ours is registered for."""

    @property
    def surplus(self) -> Sequence[PushSubscription]:
        """What we made and need no more."""
        return [subscription for subscription, state in self.present if state in ("outdated", "extra")]

    @property
    def ours(self) -> Sequence[PushSubscription]:
        """All that we made."""
        return [subscription for subscription, state in self.present if state != "other"]

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to change."""
        return not self.missing and not self.surplus


def compare(present: Sequence[PushSubscription], events: Sequence[str], base: str, url: str) -> Registration:
    """Compare what a provider has with what it should have: a call of `url` for each of `events`.

    `base` is what all our addresses for this source begin with: what calls another address is not ours.
    """
    states: list[tuple[PushSubscription, State]] = []
    registered: set[str] = set()
    for subscription in present:
        state: State = "other"
        if subscription.url == base or subscription.url.startswith(f"{base}/"):
            is_right = hmac.compare_digest(subscription.url.encode(), url.encode()) and subscription.event in events
            state = "outdated" if not is_right else "extra" if subscription.event in registered else "registered"
            if is_right:
                registered.add(subscription.event)
        states.append((subscription, state))
    return Registration(states, [event for event in events if event not in registered])
