"""The operating system's own words for a failure, even if a library wrapped it."""

from __future__ import annotations

import os
import re
import socket
import ssl

_NUMBER = re.compile(r"\[Errno (\d+)\]")


def os_error_reason(error: BaseException) -> str | None:
    """Return why the system failed, from the error itself or from its causes; the text quotes no URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its host name is not known"
        if isinstance(cause, OSError) and (words := _words(cause)):
            return words
        cause = cause.__cause__ or cause.__context__
    return None


def _words(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):  # its numbers are OpenSSL's, not the system's
        return error.strerror.lower() if error.strerror else None
    # asyncio puts the address into the text, and joins several failures to one error without a number.
    match = _NUMBER.search(str(error))
    number = error.errno or (int(match[1]) if match else 0)
    return os.strerror(number).lower() if number > 0 else None
