"""What a source is told of its provider's pushes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from bridge.domain.settings import Duration, Secret, Settings


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Secret) else value


_SECRET_SCHEMA = {"type": "string", "format": "password", "writeOnly": True}
Secrets = Annotated[
    list[Secret],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_SECRET_SCHEMA, {"type": "array", "items": _SECRET_SCHEMA}]}),
]


class PushSettings(Settings):
    """How the provider's pushes are verified; the address to give it is HOOKS_URL/SOURCE."""

    secret: Secrets = Field(min_length=1)
    """What proves that a push is the provider's: a signing key, a token, `USER:PASSWORD`, or the last part of the
    address. During rotation a list, or a file with one a line: each is accepted."""
    tolerance: Duration = Field(default=300.0, gt=0)
    """How far the time that a push is signed with may be from ours; an older one is refused as a replay."""

    def keys(self) -> Sequence[str]:
        """Return the secrets as they are now; raises as `Secret.reveal` does."""
        return [line.strip() for secret in self.secret for line in secret.reveal().splitlines() if line.strip()]
