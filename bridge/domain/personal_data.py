"""How phones and e-mail addresses look inside a text, and what looks like a phone and is none."""

from __future__ import annotations

import re
from collections.abc import Callable

EMAIL = r"[^\s@<>\"'(),;:/]+@[^\s@<>\"'(),;:/]+"
PHONE = r"\+?\(?\d(?:[\s().\-\u2010-\u2015/]{0,3}\d){6,}"
"""Seven digits or more, with at most three separators between two of them."""

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ADDRESS = rf"(?<![\d.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\d.]*\d)(?::\d{{1,5}}(?!\d))?"
_HOST_AND_PORT = r"(?<![\w.+-])[A-Za-z](?:[\w-]|\.(?=\w))*:\d{2,5}(?![\d.\-])"
_CLOCK = r"\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?"
_TIME = rf"(?<!\d)\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]{_CLOCK}|[ T]\d{{2}})?(?![\d-]*\d)"
_HEX = (
    r"(?<!\w)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?!\w)"
    r"|(?<!\w)(?=[0-9]*[a-f])[0-9a-f]{16,}(?!\w)"
)
_COLLECTIONS = ("sms", "voice", "email", "recipients", "messages", "records", "campaigns", "jobs", "teams", "topics")
_BEHIND_COLLECTION = "|".join(rf"(?<=\b{name}/)" for name in _COLLECTIONS)
_SEGMENT_END = r"(?=[/?#:;,.)\]}\"'|\s…]|$)"
_PATH_NUMBER = rf"(?:(?:{_BEHIND_COLLECTION})\d{{1,18}}|(?<=[A-Za-z_]/)\d{{1,9}}){_SEGMENT_END}(?!\.\d)"
NOT_PERSONAL = rf"(?=\d)(?:{_ADDRESS}|{_TIME}|{_PATH_NUMBER})|(?=[A-Za-z]){_HOST_AND_PORT}|(?=[0-9a-f]{{8}})(?:{_HEX})"
"""Addresses and ports of hosts, times, hexadecimal ids, and the numbers of resources in a path: what an operator needs.

Numbers of ten digits or more in a path are ids only behind the name of one of the providers' collections; anywhere else
they may be phones.
"""

_PHONES = re.compile(rf"(?P<kept>{NOT_PERSONAL})|{PHONE}")

_PERSONAL_NAME = re.compile(
    r"phone|msisdn|mobile|email|contact|subscriber|recipient|address|caller|reference|messagekey|"
    r"(first|last|full|display|user)name"
)
_PERSONAL_NAMES = frozenset({"to", "from", "number", "fromnumber", "tonumber", "sender", "cc", "bcc", "name"})

PERSONAL_FIELDS = ("phone", "contact_key", "message_key", "reference")
"""Fields of an event's data that name a person, or are the customer's own key for a person."""


def names_person(name: str) -> bool:
    """Say whether a field of this name holds a phone, an address, a person or a key of a person."""
    plain = name.lower().replace("_", "").replace("-", "").replace(" ", "")
    return plain in _PERSONAL_NAMES or (_PERSONAL_NAME.search(plain) is not None and not plain.endswith("counts"))


def mask_phones(text: str, mask: Callable[[str], str]) -> str:
    """Return `text` with `mask` applied to each phone number in it."""
    return _PHONES.sub(lambda match: match[0] if match["kept"] is not None else mask(match[0]), text)
