"""The operating system's own words for a failure, whatever a library made of it."""

from __future__ import annotations

import os
import re
import socket
import ssl

_NUMBER = re.compile(r"\[Errno (\d+)\]")


def os_error_reason(error: BaseException) -> str | None:
    """Return why the system failed, from the error itself or what was behind it; nothing of it came from a URL."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, socket.gaierror):
            return "its host name is not known"
        if isinstance(behind, OSError) and (told := _words(behind)):
            return told
        behind = behind.__cause__ or behind.__context__
    return None


def _words(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):  # its numbers are its own
        return error.strerror.lower() if error.strerror else None
    # asyncio puts the address into the text, and of several failures at once makes one without a number.
    several = _NUMBER.search(str(error))
    number = error.errno or (int(several[1]) if several else 0)
    return os.strerror(number).lower() if number > 0 else None
