"""What a provider's errors mean: the definition's own rules, before HTTP's meaning of their statuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.domain.errors import BridgeError, NotReady, Permanent, Unauthorized
from bridge.http import parsing
from bridge.http.errors import NotFound, ProviderError, Throttled, TooLarge
from bridge.http.response import Response
from bridge.http.status import OK_STATUS, TOO_MANY_REQUESTS_STATUS
from bridge.providers.models import ErrorRule
from bridge.providers.paths import JsonPath, Read


class NothingThere(Permanent):
    """The provider says with an error that there is nothing."""


class TooOld(Permanent):
    """The provider keeps nothing that is so old."""


class TooMuch(TooLarge):
    """The provider gives less at once."""


@dataclass(frozen=True, slots=True)
class _Rule:
    statuses: frozenset[int]
    body: tuple[tuple[Read, str], ...]
    spec: ErrorRule

    @classmethod
    def of(cls, spec: ErrorRule) -> _Rule:
        statuses = spec.status if isinstance(spec.status, list) else [] if spec.status is None else [spec.status]
        body = tuple((JsonPath.parse(path).reader(), _plain(value)) for path, value in spec.body.items())
        return cls(frozenset(statuses), body, spec)

    def fits(self, status: int, value: Any) -> bool:
        return (not self.statuses or status in self.statuses) and all(
            _plain(read(value)) == wanted for read, wanted in self.body
        )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else parsing.text(value) or ""


class ErrorRules:
    """The rules of a definition, in its order."""

    def __init__(self, rules: Sequence[ErrorRule]) -> None:
        self._rules = [_Rule.of(rule) for rule in rules]
        self.reads_answers = any(OK_STATUS in rule.statuses or not rule.statuses for rule in self._rules)
        """Whether an answer with status 200 may be an error."""

    def refusal(self, answer: Response, after: float | None) -> BridgeError | None:
        """Return what an answer that is no success means; None if no rule fits."""
        if not self._rules:
            return None
        try:
            value = parsing.json(answer.body)
        except ValueError:
            value = None
        return self.meaning(answer, value, after)

    def meaning(self, answer: Response, value: Any, after: float | None = None) -> BridgeError | None:
        """Return what an answer with a body's `value` means; None if no rule fits."""
        rule = next((rule for rule in self._rules if rule.fits(answer.status, value)), None)
        if rule is None:
            return None
        code = parsing.error_code(answer.body)
        outcome = f"{answer.what}: {answer.status}" + (f" (code {code})" if code else "")
        return _MEANINGS[rule.spec.then](outcome, answer.status, after, rule.spec)


def _retry(outcome: str, status: int, after: float | None, spec: ErrorRule) -> BridgeError:
    wait = spec.pause if after is None else after
    if status == TOO_MANY_REQUESTS_STATUS:
        return Throttled(f"{outcome}, the provider asks for fewer requests", retry_after=wait, status=status)
    return ProviderError(f"{outcome}, the provider could not answer now", retry_after=wait, status=status)


def _credentials(outcome: str, status: int, after: float | None, spec: ErrorRule) -> BridgeError:
    del status, spec
    text = f"{outcome}, the provider refuses the credentials: check them and their rights"
    return Unauthorized(text, retry_after=after)


def _not_ready(outcome: str, status: int, after: float | None, spec: ErrorRule) -> BridgeError:
    del status, spec
    return NotReady(f"{outcome}, the provider is still building the answer: asked again later", retry_after=after)


def _gone(outcome: str, status: int, after: float | None, spec: ErrorRule) -> BridgeError:
    del after, spec
    return NotFound(f"{outcome}, the provider does not know this resource (any more)", status=status)


def _simply(kind: type[Permanent], text: str) -> Callable[[str, int, float | None, ErrorRule], BridgeError]:
    return lambda outcome, _status, _after, _spec: kind(f"{outcome}, {text}")


_MEANINGS: dict[str, Callable[[str, int, float | None, ErrorRule], BridgeError]] = {
    "retry": _retry,
    "credentials": _credentials,
    "not_ready": _not_ready,
    "gone": _gone,
    "narrow": _simply(TooMuch, "the provider gives less at once"),
    "too_old": _simply(TooOld, "the provider keeps nothing so old"),
    "empty": _simply(NothingThere, "the provider says that there is nothing"),
}
