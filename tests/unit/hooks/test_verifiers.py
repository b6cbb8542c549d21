"""A push is the provider's or it is refused; the providers' own published signatures verify."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from bridge.domain.pushes import PushRefused, PushRequest
from bridge.hooks.verifiers import MAX_FIELDS, VERIFIERS, check_available, form_fields, marketing_cloud

NOW = 1_700_000_000.0
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
KEY = "the right key"
FORM = {"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
        "To": "+18005551212"}  # fmt: skip
TELNYX_KEY = SigningKey(bytes(range(32)))
ALL = {**VERIFIERS, "marketing_cloud": marketing_cloud}


def push(body: bytes = b"", *, url: str = URL, secret: str = "", **headers: str) -> PushRequest:
    return PushRequest(url, secret, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def verify(kind: str, request: PushRequest, *keys: str, now: float = NOW, tolerance: float = 300.0) -> str:
    """Return why a push is refused; empty if it is accepted."""
    try:
        ALL[kind](request, keys or (KEY,), now, tolerance)
    except PushRefused as refused:
        return refused.reason
    return ""


def signed(algorithm: str, key: str, text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return base64.b64encode(hmac.new(key.encode(), data, algorithm).digest()).decode()


def token(body: bytes, key: str = KEY, algorithm: str = "HS256", **claims: object) -> str:
    said = {"iat": NOW, "payload_hash": hashlib.sha256(body).hexdigest(), **claims}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": algorithm, "typ": "JWT"}, said)
    ]
    text = ".".join(parts)
    signature = base64.urlsafe_b64encode(hmac.new(key.encode(), text.encode(), "sha256").digest()).decode()
    return f"{text}.{signature.rstrip('=')}"


def telnyx(body: bytes, stamp: str = f"{NOW:.0f}") -> PushRequest:
    signature = TELNYX_KEY.sign(stamp.encode() + b"|" + body).signature
    return push(
        body, telnyx_timestamp=stamp, telnyx_signature_ed25519=base64.b64encode(signature).decode()
    )  # fmt: skip


# --- what the providers have published --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "body", "signature"),
    [
        (URL, urlencode(FORM), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (
            URL, urlencode([("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")]),
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        (
            f"{URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
            '{"property": "value", "boolean": true}', "a9nBmqA0ju/hNViExpshrM61xv4=",
        ),
        (URL.replace(".com", ".com:1234"), urlencode(FORM), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (URL, urlencode(FORM), "kvajT1Ptam85bY51eRf/AJRuM3w="),
    ],
    ids=["form", "repeated fields", "json", "without its port", "with the usual port"],
)  # fmt: skip
def test_twilio_published_signature_verifies(url: str, body: str, signature: str) -> None:
    request = push(body.encode(), url=url, x_twilio_signature=signature)
    assert verify("twilio", request, "12345") == ""
    assert verify("twilio", request, "54321") == "signature"
    changed = push(
        body.replace("1234", "1235").replace("value", "other").encode(), url=url, x_twilio_signature=signature
    )
    assert verify("twilio", changed, "12345") == "signature"


def test_plivo_published_signature_verifies() -> None:
    headers = {
        "x_plivo_signature_v2": "ehV3IKhLysWBxC1sy8INm0qGoQYdYsHwuoKjsX7FsXc=",
        "x_plivo_signature_v2_nonce": "12345",
    }
    for url in ("https://answer.url", "https://answer.url?with=query"):
        assert verify("plivo_v2", push(url=url, **headers), "my_auth_token") == ""
        assert verify("plivo_v2", push(url=url, **headers), "my_auth_tokens") == "signature"
    main = {"x_plivo_signature_ma_v2": headers["x_plivo_signature_v2"], "x_plivo_signature_v2_nonce": "12345"}
    assert verify("plivo_v2", push(url="https://answer.url", **main), "my_auth_token") == ""


# --- the others, signed as their pages say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "fields", "text"),
    [
        ("https://a.example/p?b=2&a=1", [("Status", "sent"), ("MessageUUID", "m1")], "https://a.example/p?a=1&b=2.MessageUUIDm1Statussent.n1"),
        ("https://a.example/p", [("Status", "sent")], "https://a.example/p?Statussent.n1"),
        ("https://a.example/p?a=2&a=1", [], "https://a.example/p?a=1&a=2.n1"),
        ("https://a.example/p", [], "https://a.example/p.n1"),
        ("https://a.example/p", [("b", "2"), ("b", "1")], "https://a.example/p?b1b2.n1"),
    ],
)  # fmt: skip
def test_plivo_signature_covers_address_form_and_nonce(url: str, fields: list[tuple[str, str]], text: str) -> None:
    listed = f"AAAA, {signed('sha256', KEY, text)}"
    request = push(urlencode(fields).encode(), url=url, x_plivo_signature_v3=listed, x_plivo_signature_v3_nonce="n1")
    assert verify("plivo_v3", request) == ""
    assert verify("plivo_v3", request, "other") == "signature"
    more = push(
        urlencode([*fields, ("x", "y")]).encode(), url=url, x_plivo_signature_v3=listed, x_plivo_signature_v3_nonce="n1"
    )
    assert verify("plivo_v3", more) == "signature"


def test_telnyx_signature_covers_time_and_body() -> None:
    key = base64.b64encode(TELNYX_KEY.verify_key.encode()).decode()
    request = telnyx(b'{"data": {}}')
    assert verify("telnyx", request, key) == ""
    assert verify("telnyx", PushRequest(URL, "", request.headers, b'{"data": 1}'), key) == "signature"
    assert verify("telnyx", request, base64.b64encode(bytes(32)).decode()) == "signature"
    assert verify("telnyx", request, "no key at all") == "signature"
    assert verify("telnyx", telnyx(b"", "soon"), key) == "time"


def test_vonage_token_covers_the_body() -> None:
    body = b'{"message_uuid": "m1"}'
    assert verify("vonage", push(body, authorization=f"Bearer {token(body)}")) == ""
    assert verify("vonage", push(b"{}", authorization=f"Bearer {token(body)}")) == "signature"
    assert verify("vonage", push(body, authorization=f"Bearer {token(body, 'other')}")) == "signature"
    assert verify("vonage", push(body, authorization=f"Bearer {token(body, algorithm='none')}")) == "signature"
    assert verify("vonage", push(body, authorization=f"Bearer {token(body, exp=NOW - 1)}")) == "time"
    assert verify("vonage", push(body, authorization=f"Bearer {token(body, iat=None)}")) == "time"
    unsigned = token(body).rpartition(".")[0]
    assert verify("vonage", push(body, authorization=f"Bearer {unsigned}.")) == "signature"


def test_marketing_cloud_signature_covers_the_body() -> None:
    body = b'[{"eventCategoryType": "TransactionalSendEvents.SmsSent"}]'
    request = push(body, x_sfmc_ens_signature=signed("sha256", KEY, body))
    assert verify("marketing_cloud", request) == ""
    assert verify("marketing_cloud", request, "other") == "signature"
    assert verify("marketing_cloud", PushRequest(URL, "", request.headers, body + b" ")) == "signature"


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "reason"),
    [
        ("path", push(secret=KEY), push(secret="the wrong key"), "secret"),
        ("basic", push(authorization="Basic " + base64.b64encode(KEY.encode()).decode()), push(authorization="Basic !"), "signature"),
        ("bearer", push(authorization=f"bearer {KEY}"), push(authorization=f"Basic {KEY}"), "signature"),
    ],
)  # fmt: skip
def test_simple_secret_is_compared(kind: str, right: PushRequest, wrong: PushRequest, reason: str) -> None:
    assert verify(kind, right) == ""
    assert verify(kind, wrong) == verify(kind, push()) == reason


# --- what holds for all -----------------------------------------------------------------------------------------------


def test_old_and_new_key_verify_during_rotation() -> None:
    key = base64.b64encode(TELNYX_KEY.verify_key.encode()).decode()
    body = b"a=1"
    requests = {
        "path": push(secret=KEY), "bearer": push(authorization=f"Bearer {KEY}"),
        "twilio": push(body, x_twilio_signature=signed("sha1", KEY, f"{URL}a1")),
        "vonage": push(body, authorization=f"Bearer {token(body)}"),
    }  # fmt: skip
    for kind, request in requests.items():
        assert verify(kind, request, "another", KEY) == verify(kind, request, KEY, "another") == ""
        assert verify(kind, request, "another") != ""
    assert verify("telnyx", telnyx(body), base64.b64encode(bytes(32)).decode(), key) == ""


@pytest.mark.parametrize(
    ("age", "refused"), [(0, False), (299, False), (301, True), (-59, False), (-61, True), (1e12, True)]
)
def test_replay_outside_the_time_window_is_refused(age: float, refused: bool) -> None:
    key = base64.b64encode(TELNYX_KEY.verify_key.encode()).decode()
    wanted = "time" if refused else ""
    assert verify("telnyx", telnyx(b"{}", f"{NOW - age:.0f}"), key) == wanted
    assert verify("vonage", push(authorization=f"Bearer {token(b'', iat=NOW - age)}")) == wanted


HEADERS = st.sampled_from(
    ["authorization", "x-twilio-signature", "x-plivo-signature-v2", "x-plivo-signature-v3", "x-plivo-signature-v3-nonce",
     "telnyx-timestamp", "telnyx-signature-ed25519", "x-sfmc-ens-signature"]
)  # fmt: skip
VALUES = st.text(max_size=40) | st.sampled_from(
    ["Bearer ..", "Bearer a.b.c", "Basic Og==", "Bearer W10.W10.", "1e999", "nan"]
)


@given(
    st.sampled_from(sorted(ALL)),
    st.builds(
        PushRequest,
        st.sampled_from(["https://a.example", URL, f"{URL}&bodySHA256=%00", "https://a.example:8443/%ff?%ff=%ff"]),
        st.text(max_size=20), st.dictionaries(HEADERS, VALUES, max_size=5), st.binary(max_size=200),
    ),
)  # fmt: skip
def test_garbage_is_refused(kind: str, request: PushRequest) -> None:
    assert verify(kind, request) in ("secret", "signature", "time", "content")


def test_form_with_too_many_fields_is_refused() -> None:
    assert len(form_fields(urlencode([("a", "b")] * MAX_FIELDS).encode())) == MAX_FIELDS
    for body in (urlencode([("a", "b")] * (MAX_FIELDS + 1)).encode(), b"\xff=1", b"a=%ff"):
        with pytest.raises(PushRefused, match="content"):
            form_fields(body)


def test_push_shows_nothing_of_itself() -> None:
    request = push(b"canary", secret="canary", url="https://a.example/canary", authorization="canary")
    assert "canary" not in repr(request) + str(PushRefused("secret"))


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_available("twilio")
    check_available("telnyx")
    monkeypatch.setattr("bridge.hooks.verifiers.import_module", _absent)
    with pytest.raises(ValueError, match=r"bridge\[jwt\]"):
        check_available("telnyx")


def _absent(name: str) -> None:
    raise ImportError(name)
