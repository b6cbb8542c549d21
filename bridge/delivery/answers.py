"""What a dead letter keeps of its endpoint's answer: the status and the first bytes, without secrets, masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from bridge.delivery.masking import mask_text
from bridge.domain.errors import EndpointAnswer, Permanent
from bridge.domain.event import WireEvent
from bridge.domain.settings import MASK, Secret, Settings
from bridge.protocols.deliveries import MAX_ANSWER_BYTES, KeptAnswer
from bridge.protocols.sink import Privacy

_MIN_SECRET_CHARACTERS = 6
"""Parts of a secret that are shorter are common words: they stay."""
_NOT_KEPT = "(not kept: the event cannot be read, so its personal data cannot be masked)"


def kept_answer(
    answer: EndpointAnswer, wire: WireEvent, *, level: Privacy, key: bytes, secrets: Iterable[str]
) -> KeptAnswer:
    """Return an answer as a sink of this privacy level may have it, with its secrets masked, and cut to size.

    It is masked before it is cut, so that no half of a phone or a secret stays.
    """
    text = answer.body.decode("utf-8", "replace")
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    try:
        text = mask_text(level, text, wire, key)
    except Permanent:
        text = _NOT_KEPT
    return KeptAnswer(answer.status, text.encode()[:MAX_ANSWER_BYTES].decode("utf-8", "ignore"))


def secrets_of(settings: Settings) -> set[str]:
    """Return the secrets of a sink as an endpoint may repeat them: whole, by word, the parts of a URL, and quoted."""
    spellings: set[str] = set()
    plain = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        for secret in _values(getattr(settings, name), plain[name]):
            spellings.update(part for part in _parts(secret) if len(part) >= _MIN_SECRET_CHARACTERS)
    return spellings | {quote(part, safe="") for part in spellings} | {part.replace("/", "\\/") for part in spellings}


def _values(value: Any, plain: Any) -> Iterator[str]:
    """Yield the secrets in a setting: those of the type, and texts that are masked when they are shown."""
    match value:
        case Secret():
            with suppress(OSError):  # its file has gone: nothing was sent that could come back
                yield value.reveal()
        case str() if value != plain and MASK in str(plain):
            yield value
        case list() | tuple():
            for item, shown in zip(value, plain, strict=True):
                yield from _values(item, shown)
        case dict():
            for key, item in value.items():
                yield from _values(item, plain[key])


def _parts(secret: str) -> Iterator[str]:
    for word in secret.split():
        if "://" not in word:
            yield word
            yield word.partition("_")[2] if word.startswith("whsec_") else word
            continue
        address = urlsplit(word)
        yield from (word, address.path, address.query)
        yield from (*address.path.split("/"), *address.query.replace("=", "&").split("&"))
