"""The e-mail sink against a real mail server: encryption, answers, headers, digests."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

import pytest
import structlog
from pydantic import ValidationError
from rigs.slack import Time, failed
from rigs.smtp import PASSWORD, MailServerProcess

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.testing.sink_suite import EMAIL, PHONE, outgoing, sample
from bridge_email import EmailSettings, plugin
from bridge_email.message import Letterhead
from bridge_email.session import error_of
from bridge_email.settings import address_of
from bridge_email.templates import Templates

SECURITIES = ("starttls", "tls")


@asynccontextmanager
async def opened(server: MailServerProcess, *, clock: Clock | None = None, without: tuple[str, ...] = (), **values):
    settings = {key: value for key, value in server.settings(**values).items() if key not in without}
    sink = plugin.build("ops-mail", EmailSettings.model_validate(settings), clock or Clock())
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def refusal(sink, event=None) -> Exception:
    with pytest.raises((Transient, Permanent)) as caught:
        await sink.send(outgoing(event or sample()))
    text = f"{caught.value!r} {caught.value}"
    assert [secret for secret in (PASSWORD, PHONE, EMAIL, "example.com") if secret in text] == []
    return caught.value


# --- the connection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", SECURITIES)
async def test_message_travels_encrypted_with_a_login(security):
    async with MailServerProcess(security) as server, opened(server) as sink:
        assert await sink.probe() == (
            f"writes to 1 by smtp://localhost:{server.port}, encrypted by {'TLS' if security == 'tls' else 'STARTTLS'}"
        )
        await sink.send(outgoing(sample()))
    [message] = server.postmaster.messages
    assert server.postmaster.tls == [True]
    assert message["Subject"] == f"voice recipient failed: busy · {sample().subject}"
    assert PHONE in message.get_content()
    assert server.postmaster.recipients == [["ops@example.com"]]


@pytest.mark.parametrize("security", SECURITIES)
async def test_untrusted_mail_server_gets_nothing(security):
    async with MailServerProcess(security) as server, opened(server, without=("ca_file",)) as sink:
        error = await refusal(sink)
        with pytest.raises(Transient, match="not trusted"):
            await sink.probe()
    assert isinstance(error, Transient)
    assert "certificate is not trusted" in str(error)
    assert server.postmaster.messages == []


async def test_certificate_of_another_host_gets_nothing():
    async with MailServerProcess("tls") as server, opened(server, host="127.0.0.1") as sink:
        assert "not trusted" in str(await refusal(sink))
    assert server.postmaster.messages == []


async def test_server_that_offers_no_encryption_gets_nothing():
    async with MailServerProcess(offers_tls=False) as server, opened(server) as sink:
        error = await refusal(sink)
    assert isinstance(error, Unauthorized)
    assert "offers no STARTTLS" in str(error)
    assert server.postmaster.messages == []


async def test_server_on_this_machine_needs_no_encryption():
    async with MailServerProcess("none") as server, opened(server, without=("username", "password")) as sink:
        assert "not encrypted" in await sink.probe()
        await sink.send(outgoing(sample()))
    assert server.postmaster.tls == [False]


async def test_password_file_that_has_gone_is_reported(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    async with MailServerProcess() as server, opened(server, without=("password",), password_file=str(path)) as sink:
        path.unlink()
        await sink.send(outgoing(sample()))  # it was read when the configuration was
    assert len(server.postmaster.messages) == 1


async def test_waiting_messages_share_one_session():
    async with MailServerProcess() as server, opened(server) as sink:
        await asyncio.gather(*(sink.send(outgoing(sample(number))) for number in range(1, 11)))
        assert server.connections == 1
        await sink.send(outgoing(sample(11)))
        assert server.connections == 2
    assert len(server.postmaster.messages) == 11


async def test_connection_that_breaks_is_made_anew():
    async with MailServerProcess() as server, opened(server) as sink:
        server.postmaster.on_data = lambda protocol: protocol.transport.abort()
        assert "broke" in str(await refusal(sink))
        server.postmaster.on_data = lambda _: None
        await sink.send(outgoing(sample()))
        await server.stop()
        assert "cannot be reached" in str(await refusal(sink))
        await server.start()
        await sink.send(outgoing(sample(2)))
    ids = [message["Message-ID"] for message in server.postmaster.messages]
    assert ids[-1] != ids[0]


# --- the server's answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "answer", "kind", "text"),
    [
        ("DATA", "451 4.3.0 try later", Transient, "answered 451 4.3.0"),
        ("DATA", "554 5.6.0 jane.roe@example.com is wrong", Permanent, "answered 554 5.6.0 to this message"),
        ("DATA", "552 5.3.4 too large", Permanent, "552 5.3.4"),
        ("MAIL", "450 4.7.1 greylisted", Transient, "450 4.7.1"),
        ("MAIL", "553 5.7.1 not your address", EndpointGone, "refuses the sender"),
        ("MAIL", "552 5.3.4 too large", Permanent, "552 5.3.4 to this message"),
        ("AUTH", "454 4.7.0 temporary", Transient, "454 4.7.0"),
        ("AUTH", "535 5.7.8 wrong", EndpointGone, "refuses the login"),
    ],
)
async def test_answer_decides_what_becomes_of_an_event(stage, answer, kind, text):
    async with MailServerProcess() as server, opened(server) as sink:
        server.postmaster.answers[stage] = [answer, answer, answer] if stage == "AUTH" else [answer]
        error = await refusal(sink)
        assert type(error) is kind
        assert text in str(error)
        assert error.answer is not None
        server.postmaster.answers.clear()
        await sink.send(outgoing(sample()))
    assert len(server.postmaster.messages) == 1


async def test_wrong_password_disables_the_sink():
    async with MailServerProcess() as server, opened(server, password="wrong") as sink:
        assert isinstance(await refusal(sink), EndpointGone)
        with pytest.raises(EndpointGone):
            await sink.probe()


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (("550 5.1.1 no such user", "550 5.1.1 no such user"), EndpointGone),
        (("550 5.1.1 no such user", "450 4.2.0 busy"), Transient),
        (("552 5.2.2 full", "552 5.2.2 full"), Transient),
    ],
)
async def test_recipients_that_are_all_refused_decide(answers, kind):
    recipients = ["a@example.com", "b@example.com"]
    async with MailServerProcess() as server, opened(server, to=recipients) as sink:
        server.postmaster.refused = dict(zip(recipients, answers, strict=True))
        assert type(await refusal(sink)) is kind


async def test_recipient_refused_for_good_keeps_nobody_else_waiting():
    async with MailServerProcess() as server, opened(server, to=["a@example.com", "b@example.com"]) as sink:
        server.postmaster.refused = {"b@example.com": "550 5.1.1 no such user"}
        with structlog.testing.capture_logs() as logs:
            await sink.send(outgoing(sample()))
    assert server.postmaster.recipients == [["a@example.com"]]
    assert [(line["event"], line["recipients"], line["codes"]) for line in logs] == [
        ("email.recipient_refused", 1, [550])
    ]


async def test_recipient_refused_for_now_gets_the_message_later_alone():
    async with MailServerProcess() as server, opened(server, to=["a@example.com", "b@example.com"]) as sink:
        server.postmaster.refused = {"b@example.com": "450 4.2.0 greylisted"}
        with pytest.raises(Transient, match="1 of the recipients"):
            await sink.send(outgoing(sample()))
        server.postmaster.refused = {}
        await sink.send(outgoing(sample()))
    assert server.postmaster.recipients == [["a@example.com"], ["b@example.com"]]
    assert len({message["Message-ID"] for message in server.postmaster.messages}) == 1


def test_error_of_no_known_kind_is_tried_again():
    assert str(error_of("smtp://h:25", TimeoutError())) == "smtp://h:25 did not answer in time"
    assert "ConnectionError" not in str(error_of("smtp://h:25", ConnectionError()))
    assert isinstance(error_of("smtp://h:25", OSError(111, "Connection refused")), Transient)


# --- what a message says ----------------------------------------------------------------------------------------------


async def test_repetition_has_the_same_id_and_mail_needs_no_answer():
    async with MailServerProcess() as server, opened(server) as sink:
        for event in (sample(1), sample(1), sample(2)):
            await sink.send(outgoing(event))
    first, again, other = server.postmaster.messages
    assert first["Message-ID"] == again["Message-ID"] == f"<{sample(1).id}.ops-mail@example.com>"
    assert other["Message-ID"] != first["Message-ID"]
    assert first["List-Id"] == "<ops-mail.bridge.example.com>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["From"] == "Bridge <bridge@example.com>"
    assert parsedate_to_datetime(first["Date"]).tzinfo is not None


HOSTILE = (
    "x\r\nBcc: thief@example.com\r\n\r\n<script>",
    "\u2028Bcc: thief@example.com\x00\x85\x0b",
    "=?utf-8?q?=0ABcc:_thief=40example.com?=",
    "{{ 7*7 }}{% for x in y %}",
    "ü" * 3000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_of_an_event_becomes_a_header_or_markup(text):
    templates = {
        "subject": "{{ event.data.error }}",
        "text": "{{ event.data.error }}",
        "html": "<p>{{ event.data.error }}</p>",
    }
    async with MailServerProcess() as server, opened(server, **templates) as sink:
        await sink.send(outgoing(failed(error=text)))
    [message] = server.postmaster.messages
    assert set(message.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "List-Id", "Auto-Submitted", "X-Auto-Response-Suppress",
        "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert "Bcc" not in message
    assert server.postmaster.recipients == [["ops@example.com"]]
    assert len(message["Subject"]) <= 200
    html = message.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "{{ 7*7 }}" in html or "7*7" not in text
    assert max(map(len, server.postmaster.raw[0].split(b"\r\n"))) <= 998


async def test_large_text_is_cut_and_arrives():
    async with MailServerProcess() as server, opened(server, text="{{ event.data.error }}") as sink:
        await sink.send(outgoing(failed(error="é" * 1_000_000)))
    assert len(server.postmaster.messages[0].get_content()) == 500_000 + len("\r\n")


async def test_message_is_plain_text_and_html_where_asked():
    values = {"html": "<b>{{ event.data.nothing.at.all }}{{ title }}</b>", "text": "T {{ event.topic }}"}
    async with MailServerProcess() as server, opened(server, **values) as sink:
        await sink.send(outgoing(sample()))
    [message] = server.postmaster.messages
    assert message.get_content_type() == "multipart/alternative"
    assert message.get_body(("plain",)).get_content() == "T voice.recipient.failed.busy\r\n"
    assert message.get_body(("html",)).get_content() == "<b>voice recipient failed: busy</b>\r\n"


def test_id_that_is_no_plain_word_is_hashed():
    letterhead = Letterhead("öps mail", address_of("b@example.com"), [address_of("a@example.com")])
    odd = letterhead.message_id(["a b>\r\nBcc: x"])
    assert re.fullmatch(r"<[0-9a-f]{32}\.ps-mail@example\.com>", odd)
    assert letterhead.message_id(["1", "2"]) == letterhead.message_id(["2", "1"]) != letterhead.message_id(["1"])
    assert Letterhead("…", address_of("b@e.com"), []).message_id(["x"]) == "<x.sink@e.com>"


def test_template_that_fails_makes_a_dead_letter_without_values():
    templates = Templates("{{ event.data.phone / 2 }}", "", None)
    with pytest.raises(Permanent, match="TypeError") as caught:
        templates.render([failed()])
    assert "1000" not in str(caught.value)
    lone = Templates("{{ event.data.error }}", "", None).render([failed(error="a \ud800 b")])
    assert lone.subject == "a ? b"
    assert Templates("{{ '' }}", "", None).render([failed()]).subject == "voice recipient failed: busy"


# --- digests ----------------------------------------------------------------------------------------------------------


async def test_burst_is_a_message_and_digests():
    time = Time()
    async with MailServerProcess() as server, opened(server, window="30s", clock=time.clock()) as sink:
        sends = [asyncio.ensure_future(sink.send(outgoing(failed(number)))) for number in range(1, 121)]
        await sends[0]
        await time.move(5)  # the length of the first window
        await asyncio.gather(*sends)
    first, digest = server.postmaster.messages
    assert first["Subject"].startswith("voice recipient failed: busy ·")
    assert digest["Subject"] == "119 events: voice recipient failed: busy (119)"
    assert "and 19 more" in digest.get_content()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"to": []}, "at least 1 item"),
        ({"to": ["nobody"]}, "USER@HOST"),
        ({"to": ["a@b.c\r\nBcc: x@y.z"]}, "USER@HOST"),
        ({"sender": "ü@example.com"}, "in ASCII"),
        ({"host": "mail example"}, "pattern"),
        ({"subject": "{{ event"}, "is no template"),
        ({"html": "{% if %}"}, "is no template"),
        ({"text": "{{ x | nothing }}"}, "nothing"),
        ({"window": "2m"}, "send_timeout has to be at least 30s more"),
        ({"security": "none"}, "in the clear"),
        ({"password": None}, "username and password"),
    ],
)
def test_wrong_setting_is_refused_with_what_to_do(values, text):
    settings = MailServerProcess().settings(**values)
    settings = {key: value for key, value in settings.items() if value is not None}
    with pytest.raises(ValidationError, match=text):
        EmailSettings.model_validate(settings)
