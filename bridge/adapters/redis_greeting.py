"""What Redis says by itself to a new connection, before it closes it: that it is full, or in protected mode.

A client that writes first may lose these words with the closed connection. So they are asked for by a second
connection, which only listens, once the first one was lost.
"""

from __future__ import annotations

import socket

_LISTEN_SECONDS = 0.3
_MAX_BYTES = 512


def greeting(host: str, port: int) -> str | None:
    """Return the error that Redis says by itself, without its mark; None if it says nothing. Blocks for a moment."""
    try:
        with socket.create_connection((host, port), timeout=_LISTEN_SECONDS) as listening:
            said = listening.recv(_MAX_BYTES)
    except OSError:
        return None
    if not said.startswith(b"-"):
        return None
    return said.decode(errors="replace").partition("\r\n")[0].removeprefix("-").removeprefix("ERR ")
