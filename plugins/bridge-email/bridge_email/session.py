"""Sessions with a mail server: one at a time, as long as there is something to send; and what its answers mean."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage

import structlog
from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from bridge.plugin import (
    BridgeError,
    EndpointGone,
    EndpointResponse,
    Permanent,
    Secret,
    Tls,
    Transient,
    Unauthorized,
)
from bridge_email.settings import PORTS, EmailSettings

log = structlog.get_logger()

_STEP_TIMEOUT_SECONDS = 25.0
"""How long the server may take to answer one command."""
_QUIT_TIMEOUT_SECONDS = 1.0
_TOO_MUCH_CODE = 552
_REMEMBERED_MESSAGES = 1000
_ENHANCED = re.compile(r"\d\.\d{1,3}\.\d{1,3}", re.ASCII)


class MailServer:
    """Sends the messages of one sink, one after the other, in a session that ends when nothing waits.

    A session is never kept for later: a server that closes an idle one would make the next message uncertain.
    """

    def __init__(self, name: str, settings: EmailSettings) -> None:
        self._name = name
        self._settings = settings
        self._port = settings.port or PORTS[settings.security]
        self.endpoint = f"smtp://{settings.host}:{self._port}"
        """The server, fit for a log."""
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._client: SMTP | None = None
        self._accepted: OrderedDict[str, set[str]] = OrderedDict()
        """Of messages that a server accepted for some recipients only: for whom."""

    async def send(self, message: EmailMessage, recipients: Sequence[str], sender: str) -> None:
        """Return when the server is responsible for the message, for all recipients that it did not refuse for good."""
        self._waiting += 1
        try:
            async with self._turn:
                await self._send_in_session(message, recipients, sender)
        finally:
            self._waiting -= 1

    async def check(self) -> None:
        """Connect and log in, and send nothing; raises as `send` does."""
        async with self._turn:
            await self._drop()
            with _translated(self.endpoint):
                await self._connected()
            await self._quit()

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()

    async def _send_in_session(self, message: EmailMessage, recipients: Sequence[str], sender: str) -> None:
        key = str(message["Message-ID"])
        rest = [address for address in recipients if address not in self._accepted.get(key, ())]
        try:
            with _translated(self.endpoint):
                client = await self._connected()
                refused, _ = await client.sendmail(sender, rest, message.as_bytes())
        except BaseException as error:
            if not isinstance(error, Permanent):  # the session may be in any state
                await self._drop()
            raise
        if self._waiting <= 1:
            await self._quit()
        self._check_refused(key, rest, {address: answer.code for address, answer in refused.items()})

    def _check_refused(self, key: str, recipients: Sequence[str], refused: dict[str, int]) -> None:
        """Note who has the message; raise `Transient` if somebody is to get it later."""
        later = [code for code in refused.values() if _passes(code)]
        for_good = [code for code in refused.values() if not _passes(code)]
        if for_good:
            log.warning(
                "email.recipient_refused", sink=self._name, recipients=len(for_good), codes=sorted(set(for_good)),
                consequence="the others have the message; correct `to`",
            )  # fmt: skip
        if not later:
            self._accepted.pop(key, None)
            return
        has_it = {address for address in recipients if not _passes(refused.get(address, 0))}
        self._accepted.setdefault(key, set()).update(has_it)
        while len(self._accepted) > _REMEMBERED_MESSAGES:
            self._accepted.popitem(last=False)
        raise Transient(f"{self.endpoint} refuses {len(later)} of the recipients for now ({min(later)})")

    async def _connected(self) -> SMTP:
        if self._client is not None and self._client.is_connected:
            return self._client
        settings = self._settings
        tls = None if settings.security == "none" else await asyncio.to_thread(Tls(settings.ca_file).context)
        client = self._client = SMTP(
            hostname=settings.host,
            port=self._port,
            use_tls=settings.security == "tls",
            start_tls=False,  # it is begun below, and never left out
            tls_context=tls,
            timeout=_STEP_TIMEOUT_SECONDS,
        )
        await client.connect()
        await client.ehlo()
        if settings.security == "starttls":
            if not client.supports_extension("starttls"):
                raise Unauthorized(f"{self.endpoint} offers no STARTTLS, so nothing was sent; check host and security")
            await client.starttls(tls_context=tls)
            await client.ehlo()
        if settings.username is not None and settings.password is not None:
            if not client.supports_extension("auth"):
                raise Unauthorized(f"{self.endpoint} offers no login; check host, port and security")
            await client.login(settings.username, _revealed(settings.password))
        return client

    async def _quit(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(SMTPException, OSError):  # the message is with the server already
                await client.quit(timeout=_QUIT_TIMEOUT_SECONDS)
            client.close()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _revealed(password: Secret) -> str:
    try:
        return password.reveal()
    except OSError as error:
        raise Unauthorized(f"the password's file cannot be read: {error.strerror}") from None


# --- what the server's answers mean -----------------------------------------------------------------------------------


@contextmanager
def _translated(endpoint: str) -> Iterator[None]:
    try:
        yield
    except (SMTPException, OSError) as error:
        raise error_of(endpoint, error) from None


def error_of(endpoint: str, error: Exception) -> BridgeError:
    """Return the error that says what to do; its text has the codes of the server's answer, and none of its words."""
    match error:
        case SMTPRecipientsRefused():
            return _recipients_refused(endpoint, error)
        case SMTPResponseException():
            answer = EndpointResponse(endpoint, error.code, error.message.encode("utf-8", "replace"), None)
            return answer.attached_to(_refusal(f"{endpoint} answered {_codes(error)}", error))
        case TimeoutError():
            return Transient(f"{endpoint} did not answer in time")
    return Transient(f"{endpoint} cannot be reached: {_reason(error)}")


def _refusal(text: str, error: SMTPResponseException) -> BridgeError:
    is_final = not _passes(error.code)
    match error:
        case SMTPAuthenticationError() if is_final:
            return EndpointGone(f"{text}: it refuses the login; correct username and password, and enable the sink")
        case SMTPSenderRefused() if is_final and error.code != _TOO_MUCH_CODE:
            return EndpointGone(f"{text}: it refuses the sender; correct it, and enable the sink")
        case SMTPSenderRefused() | SMTPDataError() if error.code // 100 == 5:  # noqa: PLR2004 - a permanent answer
            return Permanent(f"{text} to this message")
    return Transient(text)  # also 554 at the beginning: it may be another server's hour


def _recipients_refused(endpoint: str, error: SMTPRecipientsRefused) -> BridgeError:
    codes = sorted({refused.code for refused in error.recipients})
    text = f"{endpoint} refuses all {len(error.recipients)} recipients ({', '.join(map(str, codes))})"
    if any(map(_passes, codes)):
        return Transient(text)
    return EndpointGone(f"{text}: correct `to`, and enable the sink")


def _passes(code: int) -> bool:
    """Say whether an answer may be another one later: 4xx, and a full mailbox."""
    return 400 <= code < 500 or code == _TOO_MUCH_CODE  # noqa: PLR2004 - the classes of answers


def _codes(error: SMTPResponseException) -> str:
    enhanced = _ENHANCED.match(error.message)
    return f"{error.code} {enhanced[0]}" if enhanced else str(error.code)


def _reason(error: BaseException) -> str:
    """Return why no session came about, in words that quote nothing of the server."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'})"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "it broke the session off" if isinstance(error, ConnectionError) else type(error).__name__
