"""Heads of answers as irregular servers write them: a table that grows with each server that is met."""

from __future__ import annotations

BODY = b'[{"id": 1}]'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
OK = b"HTTP/1.1 200 OK\r\n"


def _many(count: int) -> bytes:
    return b"".join(b"X-Header-%d: value\r\n" % number for number in range(count))


READABLE: dict[str, bytes] = {
    # large heads
    "a header of 9 KiB": OK + b"X-Trace: " + b"a" * 9_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a header of 60 KiB": OK + b"X-Trace: " + b"a" * 60_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a header of 100 KiB": OK + b"X-Trace: " + b"a" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a cookie of 9 KiB": OK + b"Set-Cookie: a=" + b"a" * 9_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a name of 9 KiB": OK + b"X" * 9_000 + b": a\r\n" + LENGTH + b"\r\n" + BODY,
    "a reason of 9 KiB": b"HTTP/1.1 200 " + b"a" * 9_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a reason of 100 KiB": b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "150 headers": OK + _many(150) + LENGTH + b"\r\n" + BODY,
    "1500 headers": OK + LENGTH + _many(1_500) + b"\r\n" + BODY,
    "1500 headers before the length": OK + _many(1_500) + LENGTH + b"\r\n" + BODY,
    # where the body ends
    "a length beside chunked": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked beside a length": OK + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNKED,
    "a wrong length beside chunked": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked in capitals": OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + CHUNKED,
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked twice in a line": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "identity and a length": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "chunked with a blank before the colon": OK + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "the same length twice": OK + LENGTH + LENGTH + b"\r\n" + BODY,
    "the same length twice in a line": OK + b"Content-Length: 11, 11\r\n\r\n" + BODY,
    "a length with a blank before the colon": OK + b"Content-Length : 11\r\n\r\n" + BODY,
    "a length with a tab before the colon": OK + b"Content-Length\t: 11\r\n\r\n" + BODY,
    "a length with blanks behind it": OK + b"Content-Length: 11  \r\n\r\n" + BODY,
    "a length with zeros before it": OK + b"Content-Length: 00011\r\n\r\n" + BODY,
    "neither length nor chunks": OK + b"\r\n" + BODY,
    "no headers": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + BODY,
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "a chunk with an extension": OK + b"Transfer-Encoding: chunked\r\n\r\nb;a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks with trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n",
    "a length and Connection: upgrade": OK + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY,
    # lines of the head
    "a blank before a colon": OK + b"X-Served-By : a\r\n" + LENGTH + b"\r\n" + BODY,
    "a blank in a name": OK + b"X Served By: a\r\n" + LENGTH + b"\r\n" + BODY,
    "an umlaut in a name": OK + "X-Grüße: a\r\n".encode() + LENGTH + b"\r\n" + BODY,
    "a bracket in a name": OK + b"X-Served[0]: a\r\n" + LENGTH + b"\r\n" + BODY,
    "a name without a colon": OK + b"X-Served-By\r\n" + LENGTH + b"\r\n" + BODY,
    "a colon without a name": OK + b": a\r\n" + LENGTH + b"\r\n" + BODY,
    "a header without a value": OK + b"X-Served-By:\r\n" + LENGTH + b"\r\n" + BODY,
    "an umlaut in a value": OK + "X-Served-By: Grüße\r\n".encode("latin-1") + LENGTH + b"\r\n" + BODY,
    "NUL in a value": OK + b"X-Served-By: a\x00b\r\n" + LENGTH + b"\r\n" + BODY,
    "an escape in a value": OK + b"X-Served-By: a\x1b[1mb\r\n" + LENGTH + b"\r\n" + BODY,
    "CR in a value": OK + b"X-Served-By: a\rb\r\n" + LENGTH + b"\r\n" + BODY,
    "a value over two lines": OK + b"X-Served-By: a,\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    "a length over two lines": OK + b"Content-Length:\r\n 11\r\n\r\n" + BODY,
    "a blank before the first header": OK + b" X-Served-By: a\r\n" + LENGTH + b"\r\n" + BODY,
    "LF alone": (OK + LENGTH + b"\r\n").replace(b"\r", b"") + BODY,
    "LF alone behind a header": OK + b"X-Served-By: a\n" + LENGTH + b"\r\n" + BODY,
    "two dates": OK + b"Date: a\r\nDate: b\r\n" + LENGTH + b"\r\n" + BODY,
    "two types": OK + b"Content-Type: a/b\r\nContent-Type: c/d\r\n" + LENGTH + b"\r\n" + BODY,
    # status lines
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + BODY,
    "no reason behind a blank": b"HTTP/1.1 200 \r\n" + LENGTH + b"\r\n" + BODY,
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "a tab before the status": b"HTTP/1.1\t200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "small letters": b"http/1.1 200 ok\r\n" + LENGTH + b"\r\n" + BODY,
    "an umlaut in the reason": "HTTP/1.1 200 Schön\r\n".encode("latin-1") + LENGTH + b"\r\n" + BODY,
    "an escape in the reason": b"HTTP/1.1 200 \x1b[1mOK\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/2": b"HTTP/2 200\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "empty lines before the status": b"\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "an early hint before the status": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "an irregular hint before the status": b"HTTP/1.1 103 Hints\r\nA b : c\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "a hint before an irregular head": b"HTTP/1.1 100 Go on\r\n\r\n" + OK + b"A b: c\r\n" + LENGTH + b"\r\n" + BODY,
}
"""Answers with the status 200 whose body can be told to be `BODY`, each under what is irregular about it."""

UNREADABLE: dict[str, bytes] = {
    # where the body ends cannot be told
    "two lengths": OK + b"Content-Length: 11\r\nContent-Length: 12\r\n\r\n" + BODY,
    "two lengths in a line": OK + b"Content-Length: 11, 12\r\n\r\n" + BODY,
    "a length that is a word": OK + b"Content-Length: eleven\r\n\r\n" + BODY,
    "a length with a unit": OK + b"Content-Length: 11 bytes\r\n\r\n" + BODY,
    "a length below zero": OK + b"Content-Length: -11\r\n\r\n" + BODY,
    "a length of 30 digits": OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + BODY,
    "an empty length": OK + b"Content-Length:\r\n\r\n" + BODY,
    # the body is no such body
    "a body that is too short": OK + b"Content-Length: 50\r\n\r\n" + BODY,
    "a chunk without a size": OK + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "chunked without chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a chunk that is too short": OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\n" + BODY,
    "a chunk that is too long": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks without an end": OK + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + BODY + b"\r\n",
    "a length beside garbage chunks": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    # the head breaks off
    "a head of 300 KiB": OK + _many(15_000),
    "a head that breaks off in a name": OK + b"X-Serv",
    "a head that breaks off in a value": OK + b"X-Served-By: a",
    "a head that breaks off after a line": OK + b"X-Served-By: a\r\n",
    "a head that breaks off before its end": OK + LENGTH + b"\r",
    "a status line alone": OK,
    "a status line without its end": b"HTTP/1.1 200 OK",
    "a status without a reason or an end": b"HTTP/1.1 200 ",
    "an irregular head that breaks off": OK + b"A b : c\r\nX-Serv",
    "a hint, and a status line alone": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
}
"""Answers whose status line came as 200, and whose body cannot be told."""

NO_STATUS: dict[str, bytes] = {
    "nothing": b"",
    "a word": b"hello\r\n\r\n",
    "HTML": b"<html>HTTP/1.1 200 OK</html>",
    "half a status line": b"HTTP/1.1 ",
    "half a status": b"HTTP/1.1 20",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a word for a status": b"HTTP/1.1 OK\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n",
    "a hint alone": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x16",
}
"""Answers without a final status."""
