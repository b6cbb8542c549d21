"""Reading ahead on a connection of py-amqp: one call to the socket brings many frames.

This is the one module that reaches into private attributes of py-amqp's transport (`_read_buffer` and `_quick_recv`, as
they are in py-amqp 5): the library has no public way, and asks the socket for each part of a frame by itself. Read this
module again before a new major version of py-amqp is used.
"""

from __future__ import annotations

from typing import Any

_READ_AHEAD_BYTES = 16_384
_READ_AT_ONCE_BYTES = 131_072


class ReadAheadBuffer:
    """The bytes that were read from the socket and that the library has not parsed yet."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        receive = transport._quick_recv  # noqa: SLF001 - there is no public way
        # The library keeps the bytes that it did not ask for. That saves most calls.
        transport._quick_recv = lambda wanted: receive(max(wanted, _READ_AHEAD_BYTES))  # noqa: SLF001 - likewise

    @property
    def data(self) -> bytes:
        """The bytes, in the order in which they came."""
        data: bytes = self._transport._read_buffer  # noqa: SLF001 - likewise
        return data

    def skip(self, length: int) -> None:
        """Remove the first `length` bytes, which somebody else parsed."""
        self._transport._read_buffer = self._transport._read_buffer[length:]  # noqa: SLF001 - likewise

    def extend(self, timeout: float) -> bool:
        """Read more if there is room; say whether anything came. False at the connection's end, too."""
        transport, data = self._transport, self.data
        if len(data) >= _READ_AT_ONCE_BYTES:
            return False
        with transport.having_timeout(timeout):
            more = transport._quick_recv(_READ_AT_ONCE_BYTES)  # noqa: SLF001 - likewise
        transport._read_buffer = data + more  # noqa: SLF001 - likewise
        return bool(more)
