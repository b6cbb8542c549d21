"""An event as the bytes that RabbitMQ is sent: method, properties and body, ready to be written with many others."""

from __future__ import annotations

from struct import Struct

from bridge.adapters import message
from bridge.event import Entry

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_FRONT = Struct(">BHI")
_BASIC_PUBLISH = Struct(">HHH").pack(60, 40, 0)
_MANDATORY = b"\x01"
_CONTENT = Struct(">HHQH")
# Which properties follow, the highest bit first: content type, content encoding, headers, delivery mode; then message
# id, timestamp and type.
_FLAGS = 0b1111_0000_1110_0000
_LENGTH = Struct(">I")
_TIME = Struct(">Q")
_FRAMING = 8
_TOPICS_KEPT = 4096


class Frames:
    """Turns entries into frames for one channel of one connection, as `basic_publish` of py-amqp would write them.

    The library makes an object of each message, serialises its properties one by one and calls the socket for each;
    that costs more than reading, deciding and committing an event together. These are the same bytes for a fifth of it,
    and a whole batch goes out in a few calls.
    """

    def __init__(self, channel: int, exchange: str, frame_max: int) -> None:
        self._channel = channel
        self._publish = _BASIC_PUBLISH + _short(exchange)
        self._piece = frame_max - _FRAMING
        self._topics: dict[str, tuple[bytes, bytes]] = {}
        self._front = _short(message.CONTENT_TYPE) + _short(message.ENCODING)
        self._position = _short(message.POSITION_HEADER) + b"S"
        self._persistent = bytes([message.PERSISTENT])

    def of(self, entry: Entry) -> bytes:
        """Return all frames of one entry; raises `ValueError` for a topic or an id of more than 255 bytes."""
        event = entry.event
        known = self._topics.get(event.topic)
        if known is None:
            known = self._learn(event.topic, event.type)
        method, kind = known
        position = str(entry.position).encode()
        table = self._position + _LENGTH.pack(len(position)) + position
        body = event.body
        header = b"".join((
            _CONTENT.pack(60, 0, len(body), _FLAGS), self._front, _LENGTH.pack(len(table)), table, self._persistent,
            _short(event.id), _TIME.pack(message.stamp(event)), kind,
        ))  # fmt: skip
        pieces = [method, self._frame(_HEADER, header)]
        if len(body) <= self._piece:
            pieces.append(self._frame(_BODY, body) if body else b"")
        else:
            pieces += [
                self._frame(_BODY, body[start : start + self._piece]) for start in range(0, len(body), self._piece)
            ]
        return b"".join(pieces)

    def _learn(self, topic: str, kind: str) -> tuple[bytes, bytes]:
        """Return what is the same for all events of a topic: there are few topics, and many events of each."""
        if len(self._topics) >= _TOPICS_KEPT:
            self._topics.clear()
        known = self._frame(_METHOD, self._publish + _short(topic) + _MANDATORY), _short(kind)
        self._topics[topic] = known
        return known

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRONT.pack(kind, self._channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data
