"""An event as the bytes that RabbitMQ gets and sends: method, properties and body, many at once."""

from __future__ import annotations

import struct
from struct import Struct

from bridge.adapters import message
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Received

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_END_BYTE = _END[0]
_FRONT = Struct(">BHI")
_BASIC_PUBLISH = Struct(">HHH").pack(60, 40, 0)
_BASIC_DELIVER = Struct(">HH").pack(60, 60)
_MANDATORY = b"\x01"
_CONTENT = Struct(">HHQH")
# Which properties follow, the highest bit first.
_FLAGS = 0b1111_0000_1110_0000  # content type, encoding, headers, delivery mode; id, timestamp, type
_LENGTH = Struct(">I")
_TIME = Struct(">Q")
_FRAME_OVERHEAD_BYTES = 8
_MAX_TOPICS = 4096


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


_FORM = _short(message.CONTENT_TYPE) + _short(message.ENCODING)
_POSITION = _short(message.POSITION_HEADER) + b"S"


class PublishEncoder:
    """Turns entries into frames for one channel of one connection, as `basic_publish` of py-amqp would write them.

    The library makes an object of each message, serialises its properties one by one and calls the socket for each;
    that costs more than reading, deciding and committing an event together. These are the same bytes for a fifth of it,
    and a whole batch goes out in a few calls.
    """

    def __init__(self, channel: int, exchange: str, frame_max: int, routing_key: str | None = None) -> None:
        """Prepare; without a `routing_key`, each entry's topic is the key."""
        self._channel = channel
        self._frame_max = frame_max
        self._routing_key = routing_key
        self._publish = _BASIC_PUBLISH + _short(exchange)
        self._piece = frame_max - _FRAME_OVERHEAD_BYTES
        self._topics: dict[str, tuple[bytes, bytes]] = {}
        self._persistent = bytes([message.PERSISTENT])

    def to_queue(self, queue: str) -> PublishEncoder:
        """Return an encoder whose messages go to one queue, by RabbitMQ's default exchange."""
        return PublishEncoder(self._channel, "", self._frame_max, queue)

    def encode(self, entry: JournalEntry) -> bytes:
        """Return all frames of one entry; raises `ValueError` for a topic or an id of more than 255 bytes."""
        event = entry.event
        known = self._topics.get(event.topic)
        if known is None:
            known = self._learn(event.topic, event.type)
        method, kind = known
        position = str(entry.position).encode()
        table = _POSITION + _LENGTH.pack(len(position)) + position
        body = event.body
        header = b"".join((
            _CONTENT.pack(60, 0, len(body), _FLAGS), _FORM, _LENGTH.pack(len(table)), table, self._persistent,
            _short(event.id), _TIME.pack(message.amqp_timestamp(event)), kind,
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
        if len(self._topics) >= _MAX_TOPICS:
            self._topics.clear()
        known = self._frame(_METHOD, self._publish + _short(self._routing_key or topic) + _MANDATORY), _short(kind)
        self._topics[topic] = known
        return known

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRONT.pack(kind, self._channel, len(payload)) + payload + _END


class DeliverDecoder:
    """Decodes the messages of one consumer, as long as they have the form that `PublishEncoder` writes.

    Anything else is left to the library, from its first byte on: other methods, other properties, a message that is
    incomplete or large. The library needs as long for a message as a webhook does.
    """

    def __init__(self, channel: int, consumer: str, serial: int) -> None:
        """Prepare; the tags of the messages begin with `serial`, the number of the connection."""
        self._channel = channel
        self._serial = serial
        self._method = _BASIC_DELIVER + _short(consumer)

    def decode(self, data: bytes, limit: int) -> tuple[list[Received], int]:
        """Return up to `limit` messages from the front of `data`, and how many bytes they have."""
        messages: list[Received] = []
        end = 0
        while len(messages) < limit:
            try:
                received, end = self._message(data, end)
            except (IndexError, ValueError, struct.error):
                break
            messages.append(received)
        return messages, end

    def _message(self, data: bytes, start: int) -> tuple[Received, int]:
        """Return the message that begins at `start`, and where it ends; raises if it has another form."""
        method, method_end = self._frame(data, start, _METHOD)
        if not data.startswith(self._method, method):
            raise ValueError("another message")
        header, header_end = self._frame(data, method_end + 1, _HEADER)
        body, body_end = self._frame(data, header_end + 1, _BODY)
        at = method + len(self._method)
        (tag,) = _TIME.unpack_from(data, at)
        at += 9  # behind it, whether it is brought again
        _, at = _word(data, at)
        topic, at = _word(data, at)
        _, _, size, flags = _CONTENT.unpack_from(data, header)
        header += _CONTENT.size
        if at != method_end or flags != _FLAGS or size != body_end - body or not data.startswith(_FORM, header):
            raise ValueError("another message")
        header += len(_FORM)
        (table,) = _LENGTH.unpack_from(data, header)
        header += 4
        at = header + len(_POSITION)
        (length,) = _LENGTH.unpack_from(data, at)
        after = at + 4 + length
        if not data.startswith(_POSITION, header) or after != header + table:
            raise ValueError("another message")
        identity, at_time = _word(data, after + 1)  # behind the delivery mode
        (timestamp,) = _TIME.unpack_from(data, at_time)
        _, last = _word(data, at_time + 8)
        if last != header_end:
            raise ValueError("another message")
        position = data[at + 4 : after].decode()
        properties = {"message_id": identity.decode(), "timestamp": timestamp}
        headers = {message.POSITION_HEADER: position}
        tags = (self._serial, tag)
        return message.received(topic.decode(), data[body:body_end], properties, headers, tags), body_end + 1

    def _frame(self, data: bytes, start: int, wanted: int) -> tuple[int, int]:
        """Return where the payload of a frame begins and ends; raises `ValueError` if there is no such frame."""
        kind, channel, size = _FRONT.unpack_from(data, start)
        begin = start + _FRONT.size
        end: int = begin + size
        if kind != wanted or channel != self._channel or data[end] != _END_BYTE:
            raise ValueError("another frame")
        return begin, end


def _word(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the short string at a place, and where it ends."""
    begin = at + 1
    end = begin + data[at]
    return data[begin:end], end
