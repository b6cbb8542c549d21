"""Reads answers whose head the library's parser refuses: it gets the head a second time, in plain form.

The library has no public way to this, so the connector and the protocol reach into their base classes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from bridge.http import plain_head
from bridge.http.plain_head import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, PlainHead

Message = tuple[RawResponseMessage, StreamReader]
ParserResult = tuple[Sequence[Message], bool, bytes]

_NOTHING: ParserResult = ((), False, b"")
_FIRST_FINAL_STATUS = 200
_SWITCHING_STATUS = 101
_STATUS_BYTES = 4096
"""Bytes in which the status is looked for while the head has not ended."""


def head_limits() -> dict[str, Any]:
    """Return the options of a session that say how much of a head the library's parser reads."""
    limits = {"max_line_size": MAX_FIELD_BYTES, "max_field_size": MAX_FIELD_BYTES, "max_headers": MAX_FIELDS}
    known = inspect.signature(aiohttp.ClientSession).parameters  # earlier versions do not count headers
    return {name: limit for name, limit in limits.items() if name in known}


class LenientParser:
    """Stands before the library's parser until the head of the answer is read, and gives it a plain head if need be.

    With `status_counts`, an answer is complete as soon as its status is known, whatever follows: `cut_off` returns it.
    """

    __slots__ = (
        "_error", "_handler", "_is_ignored", "_is_read", "_parser", "_raw", "_status_counts",
    )  # fmt: skip

    def __init__(self, handler: LenientHandler, parser: Any, *, status_counts: bool) -> None:
        """Prepare to read the next answer of a connection by `parser`, the library's."""
        self._handler = handler
        self._parser = parser
        self._status_counts = status_counts
        self._raw = bytearray()
        """The head as far as it came, if it did not come at once."""
        self._error: Exception | None = None
        """Why the library's parser refuses the head."""
        self._is_read = False
        """Whether the head is read, so that all else is the library's work."""
        self._is_ignored = False
        """Whether what follows the head cannot be read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> ParserResult:
        """Return the messages that begin in `data`; raises the error of the library's parser."""
        if self._is_read:
            return _NOTHING if self._is_ignored else self._parse(data)
        if self._error is None:
            try:
                result = self._parse(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the head may still be readable
                self._error = error
            else:
                if result[0] and _is_final(result[0][-1]):
                    self._end_head()
                else:
                    self._note_incomplete(data)
                return result
        self._raw += data
        return self._read_again(self._error)

    def feed_eof(self) -> Any:
        """Tell the library's parser that nothing follows; returns and raises as it does."""
        if self._is_ignored or (self._error is not None and not self._is_read):
            return None
        return self._parser.feed_eof()

    def cut_off(self) -> Message | None:
        """Return the answer without a body if its status is known and its head has not ended; else None."""
        if self._is_read or not self._status_counts:
            return None
        head = plain_head.plain(bytes(self._raw))
        return None if head is None else self._without_body(head)[0][-1]

    def _parse(self, data: bytes) -> ParserResult:
        result: ParserResult = self._parser.feed_data(data)
        return result

    def _read_again(self, error: Exception) -> ParserResult:
        parts = plain_head.split(bytes(self._raw))
        if parts is None:
            self._note_incomplete(b"")
            return _NOTHING
        head, rest = parts
        if head is None or not (head.is_framed or self._status_counts):
            raise error
        if len(self._raw) >= MAX_HEAD_BYTES and not head.is_framed:
            return self._without_body(head)
        self._parser = self._handler.new_parser()
        try:
            result = self._parse(head.data + rest)
        except Exception:
            if not self._status_counts:
                raise
            return self._without_body(head)
        self._end_head()
        return result

    def _without_body(self, head: PlainHead) -> ParserResult:
        self._is_ignored = True
        self._end_head()
        self._parser = self._handler.new_parser()
        return self._parse(head.bodiless)

    def _note_incomplete(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) > MAX_HEAD_BYTES:
            self._error = ValueError("the head of the answer has no end")
        if self._status_counts and plain_head.has_status(bytes(self._raw[:_STATUS_BYTES])):
            self._handler.start_head_timer()

    def _end_head(self) -> None:
        self._is_read = True
        self._raw.clear()
        if not self._is_ignored:
            self._handler.read_directly(self._parser)


def _is_final(message: Message) -> bool:
    return message[0].code >= _FIRST_FINAL_STATUS or message[0].code == _SWITCHING_STATUS


class LenientHandler(ResponseHandler):
    """One connection, on which answers with irregular heads are read."""

    def __init__(self, loop: asyncio.AbstractEventLoop, head_timeout: float | None) -> None:
        """Prepare; with `head_timeout` a status counts, and its head is waited for no longer than so many seconds."""
        super().__init__(loop)
        self._parser: Any
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._lenient: LenientParser | None = None
        self._options: dict[str, Any] = {}

    def set_response_params(self, **options: Any) -> None:
        """Prepare for the next answer."""
        if self._head_timer is not None:
            self._stop_head_timer()
        self._options = options
        super().set_response_params(**options)
        self._parser = self._lenient = LenientParser(self, self._parser, status_counts=self._head_timeout is not None)

    def new_parser(self) -> Any:
        """Return a parser of the library that has read nothing."""
        super().set_response_params(**self._options)
        parser, self._parser = self._parser, self._lenient
        return parser

    def read_directly(self, parser: Any) -> None:
        """Let the library's parser read what follows the head."""
        self._parser, self._lenient = parser, None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Deliver the status that came if its head did not end, and close."""
        self._stop_head_timer()
        self._cut_off()
        super().connection_lost(exc)

    def start_head_timer(self) -> None:
        """Wait no longer than the time-out for the rest of a head whose status came."""
        if self._head_timer is None and self._head_timeout is not None:
            self._head_timer = self._loop.call_later(self._head_timeout, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._cut_off() and self.transport is not None:
            self.transport.close()

    def _cut_off(self) -> bool:
        answer = None if self._lenient is None else self._lenient.cut_off()
        if answer is None:
            return False
        self.force_close()
        self.feed_data((answer[0], EMPTY_PAYLOAD))
        return True


class LenientConnector(aiohttp.TCPConnector):
    """Makes connections on which answers with irregular heads are read; its sessions use `head_limits`."""

    def __init__(self, *, head_timeout: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(LenientHandler, self._loop, head_timeout)
