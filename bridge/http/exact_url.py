"""URLs that are asked byte for byte as they were written: a signature may cover each byte."""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin

from yarl import URL

_PARTS = re.compile(r"[^:/?#]+://[^/?#]*([^?#]*)(\??)([^#]*)", re.DOTALL)
_KEPT = "".join(map(chr, range(0x21, 0x7F)))
"""All characters that can stand in a request line."""


def exact_url(text: str) -> URL:
    """Return a URL with a host, whose path and query stand as in `text`; raises `ValueError`.

    Only what no request line can hold is percent-encoded: blanks, control characters, and all beyond ASCII. A fragment
    is left out, as it is never sent.
    """
    read = URL(text)
    parts = _PARTS.match(text)
    if parts is None or not read.raw_authority:
        raise ValueError("is not a URL with a host")
    path, mark, query = parts.groups()
    if not query:  # the library drops a bare question mark, unless it is a part of the path
        path += mark
    if not path.startswith("/"):
        path = f"/{path}"
    return URL.build(
        scheme=read.scheme,
        authority=read.raw_authority,
        path=quote(path, safe=_KEPT),
        query_string=quote(query, safe=_KEPT),
        encoded=True,
    )


def exact_join(base: URL, target: str) -> URL:
    """Return the URL that a link of the document at `base` leads to, byte for byte; raises `ValueError`."""
    target = target.partition("#")[0]
    joined = urljoin(str(base), target) if target else str(base)
    if target.endswith("?") and not joined.endswith("?"):
        joined += "?"
    return exact_url(joined)
