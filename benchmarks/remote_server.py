"""The other end of every benchmark, a process of its own: a provider of prebuilt answers, and a receiver that counts.

Nothing is computed while it is asked: a request is one lookup in a dictionary and one write. So neither end of a
comparison waits for it. Requests below `/_/` say what it shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

PAGE = 50
"""Recipients in a page, as the vendor has it."""
STATUSES = ("new", "sending", "inconclusive", "final")
"""What all recipients of a message go through; in the end one in ten has failed, and the others were sent to."""
_ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def _status_of(number: int, phase: str) -> str:
    if phase != "final":
        return phase
    return "failed" if number % 10 == 0 else "sent"


def recipient(message: str, number: int, phase: str, created: str) -> dict[str, Any]:
    """Return a recipient as the vendor shows it."""
    phone = f"651{number % 10_000_000:07d}"
    shown = {
        "phone": phone,
        "formatted_phone": f"+1{phone}",
        "status": _status_of(number, phase),
        "error_message": "The carrier refused the message" if _status_of(number, phase) == "failed" else None,
        "created_at": created,
        "_links": {"self": f"{message}/recipients/{number}", "sms_message": message},
    }
    return shown | ({"completed_at": created} if phase == "final" else {})


class Provider:
    """GovDelivery's messages and recipients as ready bytes, by path."""

    def __init__(self) -> None:
        self.answers: dict[bytes, bytes] = {}
        self._restless: dict[bytes, Iterator[bytes]] = {}
        self._hours: dict[bytes, bytes] = {}
        """Spacivox records, by the hour in which a question for them ends."""

    def make(
        self, *, messages: int, recipients: int, phase: str, first: int = 1000, restless: bool = False, stirred: int = 0
    ) -> None:
        """Show `messages` messages of `recipients` recipients each, all in one phase of `STATUSES`.

        A restless message's counts move at every request though no recipient does, so that all are read each time. Of
        each page, the first `stirred` recipients are failed.
        """
        self.answers.clear()
        self._restless.clear()
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for number in range(first, first + messages):
            self._message(number, recipients, phase, created, restless=restless, stirred=stirred)

    def _message(self, number: int, recipients: int, phase: str, created: str, *, restless: bool, stirred: int) -> None:
        path = f"/messages/sms/{number}"
        done = phase == "final"
        seen = {"total": recipients, phase if not done else "sent": recipients}
        date = f"Date: {formatdate(usegmt=True)}"

        def page_at(tick: int) -> bytes:
            counts = seen | ({"blacklisted": tick} if restless else {})
            shown = {
                "status": "sending", "created_at": created, "body": "Closed tomorrow", "recipient_counts": counts,
                "_links": {"self": path, "recipients": f"{path}/recipients"},
            }  # fmt: skip
            return answer(json.dumps(shown).encode(), "200 OK", date)

        if restless:
            self._restless[path.encode()] = (page_at(tick % 1000) for tick in iter(range(10**9)))
        else:
            self.answers[path.encode()] = page_at(0)
        pages = -(-recipients // PAGE)
        offset = number * 1_000_000
        for page in range(pages):
            numbers = range(offset + page * PAGE, offset + min((page + 1) * PAGE, recipients))
            shown = [
                recipient(path, number, "final" if place < stirred else phase, created)
                for place, number in enumerate(numbers)
            ]
            body = json.dumps(shown).encode()
            more = [f'Link: <{path}/recipients/page/{page + 2}>; rel="next"'] if page + 1 < pages else []
            name = f"{path}/recipients/page/{page + 1}" if page else f"{path}/recipients"
            self.answers[name.encode()] = answer(body, "200 OK", date, *more)

    def make_records(self, *, hours: int, records: int, stirred: int) -> None:
        """Show Spacivox records, so many in each of the last hours, of which the first `stirred` were delivered."""
        self._hours.clear()
        now = datetime.now(UTC)
        for hour in range(-1, hours):
            end = (now - timedelta(hours=hour)).strftime("%Y-%m-%dT%H")
            born = now - timedelta(hours=hour + 1, minutes=-1)
            first = int(born.timestamp()) // 3600 * 100_000
            shown = [
                {
                    "campaign": 1, "id": first + number, "job": 7, "number": f"+3361{number:07d}", "reference": "12345",
                    "state": int(number < stirred), "team": 1,
                    "timestamp": (born + timedelta(milliseconds=number)).isoformat(timespec="milliseconds"),
                }
                for number in range(records)
            ]  # fmt: skip
            self._hours[quote(end).encode()] = answer(json.dumps(shown).encode())

    def show(self, path: bytes) -> bytes | None:
        """Return the answer at a path."""
        if path.startswith(b"/j/"):
            at = path.index(b"end=") + 4
            return self._hours.get(path[at : at + 13])
        if (ticking := self._restless.get(path)) is not None:
            return next(ticking)
        return self.answers.get(path)


class Receiver:
    """Counts what is posted, and how long after its commit it came."""

    def __init__(self) -> None:
        self.posts = 0
        self.timed = False
        self.delays: list[float] = []

    def take(self, body: bytes) -> None:
        """Count one request; timed, it is an event of ours that says when it was recorded."""
        self.posts += 1
        if self.timed:
            start = body.index(b'"recordedtime":"') + 16
            recorded = datetime.fromisoformat(body[start : body.index(b'"', start)].decode())
            self.delays.append(time.time() - recorded.timestamp())


class RemoteServer:
    """Both servers' state, and the commands that change it."""

    def __init__(self) -> None:
        self.provider = Provider()
        self.receiver = Receiver()

    def command(self, path: str) -> bytes:
        """Do what a request below `/_/` says; return the answer."""
        parts = urlsplit(path)
        values = dict(parse_qsl(parts.query))
        result: Any = None
        match parts.path:
            case "/_/make":
                self.provider.make(
                    messages=int(values["messages"]), recipients=int(values["recipients"]), phase=values["phase"],
                    restless=values.get("restless") == "True", stirred=int(values.get("stirred", 0)),
                )  # fmt: skip
            case "/_/records":
                self.provider.make_records(**{name: int(value) for name, value in values.items()})
            case "/_/posts":
                result = self.receiver.posts
            case "/_/time":
                self.receiver.timed = values["on"] == "True"
                result, self.receiver.delays = self.receiver.delays, []
        return answer(json.dumps(result).encode())


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: requests one after the other, a body only where its length was given before."""

    def __init__(self, side: RemoteServer) -> None:
        self._side = side
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            if head.startswith(b"POST"):
                lower = head.lower()
                at = lower.index(b"content-length:") + 15
                length = int(lower[at : (lower + b"\r\n").index(b"\r\n", at)])
                if len(self._buffer) < end + 4 + length:
                    return
                self._side.receiver.take(self._buffer[end + 4 : end + 4 + length])
                self._transport.write(_ACCEPTED)
                end += length
            else:
                self._transport.write(self._get(head.split(b" ", 2)[1]))
            self._buffer = self._buffer[end + 4 :]

    def _get(self, path: bytes) -> bytes:
        if path.startswith(b"/_/"):
            return self._side.command(path.decode())
        return self._side.provider.show(path) or answer(b"{}", "404 Not Found")


async def serve() -> None:
    """Serve on a free port until standard input ends; the port is printed."""
    side = RemoteServer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(side), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


class Remote:
    """The far side as a benchmark sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def _command(self, what: str, **values: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", f"/_/{what}?{urlencode(values)}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def make(
        self, *, messages: int, recipients: int, phase: str, restless: bool = False, stirred: int = 0
    ) -> list[str]:
        """Show messages as `Provider.make` does; return their paths."""
        self._command("make", messages=messages, recipients=recipients, phase=phase, restless=restless, stirred=stirred)
        return [f"/messages/sms/{number}" for number in range(1000, 1000 + messages)]

    def make_records(self, *, hours: int, records: int, stirred: int) -> None:
        """Show records as `Provider.make_records` does."""
        self._command("records", hours=hours, records=records, stirred=stirred)

    def posts(self) -> int:
        """Return how many requests the receiver took so far."""
        return int(self._command("posts"))

    def time(self, *, on: bool) -> list[float]:
        """Time what comes from now on, or no longer; return the delays so far, in seconds."""
        return [float(delay) for delay in self._command("time", on=on)]


@contextmanager
def remote_server() -> Iterator[Remote]:
    """Run the far side for as long as the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.remote_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Remote(int(process.stdout.readline()))
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait(10)


if __name__ == "__main__":
    asyncio.run(serve())
