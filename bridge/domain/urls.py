"""What is wrong with a URL before anybody reads it: a password with a character that means something else there."""

from __future__ import annotations

import re

_AUTHORITY = re.compile(r"[^/?#]*")
_ENCODED = {"#": "%23", "/": "%2F", "?": "%3F"}
PERCENT_ENCODE = "percent-encode what is special in the password: # is %23, / is %2F, ? is %3F, @ is %40, ; is %3B"


def password_problem(url: str) -> str | None:
    """Say whether a character of the password seems to end the host, and which; the text quotes nothing else.

    Of `scheme://user:pa/ss@host`, every library reads `user` as the host, and some of them `ss@host` as the path.
    """
    _, mark, rest = url.partition(";")[0].partition("://")  # behind it may be a second address
    authority = _AUTHORITY.match(rest)
    if not mark or authority is None or not authority[0] or "@" in authority[0]:
        return None
    after = rest[authority.end() :]
    # An option may hold an @ as it is: `?sentinel_password=p@ss`.
    if re.match(r"[/?#][^&=]*@", after) is None:
        return None
    return (
        f"has {after[0]!r} where its host should end, as if it were in the password: write {_ENCODED[after[0]]} there"
    )
