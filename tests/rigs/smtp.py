"""A real mail server (aiosmtpd) in the test's own loop: it keeps what it accepts, and refuses what a test says."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

from aiosmtpd.smtp import SMTP, AuthResult

from bridge.testing.free_port import free_port

USER, PASSWORD = "bridge", "smtp-password-canary"


@cache
def certificate() -> tuple[Path, Path]:
    """Return a certificate for localhost, and its key."""
    folder = Path(mkdtemp(prefix="smtp-"))
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


class Postmaster:
    """Answers at each stage as the test says: `answers["DATA"]` is a list whose first answer comes next."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.tls: list[bool] = []
        self.answers: dict[str, list[str]] = {}
        self.refused: dict[str, str] = {}
        """What is answered to a recipient."""
        self.sessions = 0
        self.on_data: Callable[[SMTP], None] = lambda _: None

    def next(self, stage: str, usual: str) -> str:
        planned = self.answers.get(stage, [])
        return planned.pop(0) if planned else usual

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802 - the library's name
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, session, envelope, address, mail_options):  # noqa: N802 - as above
        status = self.next("MAIL", "250 OK")
        if status.startswith("250"):
            envelope.mail_from = address
        return status

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: N802 - as above
        status = self.refused.get(address, "250 OK")
        if status.startswith("250"):
            envelope.rcpt_tos.append(address)
        return status

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - as above
        self.on_data(server)
        status = self.next("DATA", "250 2.0.0 queued")
        if status.startswith("250"):
            self.raw.append(envelope.content)
            self.messages.append(message_from_bytes(envelope.content, policy=default))
            self.recipients.append(list(envelope.rcpt_tos))
            self.tls.append(server.transport.get_extra_info("ssl_object") is not None)
        return status

    def authenticate(self, server, session, envelope, mechanism, data):
        planned = self.answers.get("AUTH", [])
        if planned:
            return AuthResult(success=False, handled=False, message=planned.pop(0))
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False, message=None if good else "535 5.7.8 wrong, bridge@example.com")


class MailServerProcess:
    """The server; use it with `async with`. `security` is that of the sink's setting."""

    def __init__(self, security: str = "starttls", *, offers_tls: bool = True) -> None:
        self.security = security
        self.port = free_port()
        self.postmaster = Postmaster()
        self.connections = 0
        self._offers_tls = offers_tls
        self._server: asyncio.Server | None = None
        self._protocols: list[SMTP] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate())
        loop = asyncio.get_running_loop()

        def protocol() -> SMTP:
            self.connections += 1
            server = SMTP(
                self.postmaster, hostname="localhost", loop=loop,
                tls_context=context if self.security == "starttls" and self._offers_tls else None,
                authenticator=self.postmaster.authenticate, auth_require_tls=self.security == "starttls",
            )  # fmt: skip
            self._protocols.append(server)
            return server

        secure = context if self.security == "tls" else None
        self._server = await loop.create_server(protocol, "127.0.0.1", self.port, ssl=secure)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for protocol in self._protocols:
                # Python 3.11.2 has let go of a connection with TLS that was closed twice.
                with suppress(AttributeError):
                    protocol.transport.abort()
            self._protocols.clear()
            await self._server.wait_closed()
            self._server = None

    def settings(self, **values: object) -> dict[str, object]:
        """Return settings of a sink that writes here."""
        return {
            "type": "email",
            "topics": ["#"],
            "host": "localhost",
            "port": self.port,
            "security": self.security,
            "ca_file": str(certificate()[0]),
            "username": USER,
            "password": PASSWORD,
            "sender": "Bridge <bridge@example.com>",
            "to": ["ops@example.com"],
            **values,
        }
