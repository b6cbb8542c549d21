"""Ports of 127.0.0.1 for servers that tests start."""

from __future__ import annotations

import contextlib
import secrets
import socket

_PORTS = range(10_240, 32_768)
"""What Linux by default leaves alone when it chooses a port: for a listener on port 0, or a connection's near end."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, and that Linux by default does not give away."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
