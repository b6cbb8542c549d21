"""Characters that nobody sees, in and around every secret of every part: dropped, or named with file and key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bridge.config import registry
from bridge.config.loading import load
from bridge.config.model import Config
from bridge.domain.errors import ConfigError, Unauthorized
from bridge.domain.secret_text import read_secret, secret_text
from bridge.domain.settings import Secret, Settings
from bridge.plugin import SecretUrl

TRIMMED = {
    "BYTE ORDER MARK (U+FEFF)": "\ufeff",
    "LINE FEED (U+000A)": "\n",
    "CARRIAGE RETURN (U+000D)": "\r",
    "TAB (U+0009)": "\t",
    "NO-BREAK SPACE (U+00A0)": "\u00a0",
    "LINE SEPARATOR (U+2028)": "\u2028",
}
"""What is dropped around a secret, and named inside it."""
NAMED = {
    "ZERO WIDTH SPACE (U+200B)": "\u200b",
    "WORD JOINER (U+2060)": "\u2060",
    "RIGHT-TO-LEFT MARK (U+200F)": "\u200f",
    "SOFT HYPHEN (U+00AD)": "\u00ad",
    "NULL (U+0000)": "\0",
    "ESCAPE (U+001B)": "\x1b",
    "DELETE (U+007F)": "\x7f",
    "REPLACEMENT CHARACTER (U+FFFD)": "\ufffd",
    "a byte that is not UTF-8 (0xE9)": "\udce9",
}
"""What is named wherever it stands."""
VALUES = (
    "https://hooks.example.com/services/T0/B0/canary0c4n4ry", "redis://user:canary0c4n4ry@db.example.com:6379/0",
    "amqp://user:canary0c4n4ry@mq.example.com:5672/vhost", "whsec_canary0c4n4rycanary0c4n4rycanary00", "x", 1,
)  # fmt: skip
"""What a setting may look like; the first that a setting takes is used."""
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "sinks.my-email.password": {
        "host": "smtp.example.com", "sender": "bridge@example.com", "to": ["ops@example.com"], "username": "bridge",
    },
    "sinks.my-http.url": {"request": {"body": {"text": "{id}"}}},
    "sinks.my-http.headers": {"request": {"body": {"text": "{id}"}}},
    "sinks.my-webhook.client_secret": {"token_url": "https://auth.example.com/token", "client_id": "bridge"},
}  # fmt: skip
"""What a secret is never given without."""
SOURCE = {"type": "spacivox", "url": "https://spacivox.example.com", "token": "t0ken"}


@dataclass(frozen=True)
class SecretPlace:
    """Where a configuration has a secret: the part, the field, and how it is written there."""

    part: tuple[str, ...]
    model: type[Settings]
    field: str
    shape: str
    """`one`, `list` or `dict`."""
    has_file: bool

    def __str__(self) -> str:
        return ".".join((*self.part, self.field))


def is_secret_url(annotation: Any, metadata: tuple[Any, ...] = ()) -> bool:
    return get_args(SecretUrl)[1] in metadata or any(is_secret_url(part) for part in get_args(annotation))


def has_type(annotation: Any, wanted: Any) -> bool:
    return annotation is wanted or get_origin(annotation) is wanted or any(
        has_type(part, wanted) for part in get_args(annotation)
    )  # fmt: skip


def places_of(part: tuple[str, ...], model: type[Settings]) -> Iterator[SecretPlace]:
    for name, info in model.model_fields.items():
        if has_type(info.annotation, Secret) or is_secret_url(info.annotation, tuple(info.metadata)):
            shape = next((word.__name__ for word in (dict, list) if has_type(info.annotation, word)), "one")
            yield SecretPlace(part, model, name, shape, name in model.secret_fields())
        elif nested := nested_model(info):
            yield from places_of((*part, name), nested)


def nested_model(info: FieldInfo) -> type[Settings] | None:
    kinds = (info.annotation, *get_args(info.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), None)


def all_places() -> list[SecretPlace]:
    """Return every secret of the configuration and of every installed plugin, told by its type."""
    places = [*places_of((), Config)]
    for kind in ("source", "sink"):
        for name in registry.installed(kind):
            places += places_of((f"{kind}s", f"my-{name}"), registry.load(kind, name).settings)
    return places


PLACES = all_places()


def wrong(model: type[Settings], values: Mapping[str, Any]) -> list[Any] | None:
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        return error.errors()
    return None


def valid_settings(place: SecretPlace) -> dict[str, Any]:
    """Return settings of a part that are valid and hold the secret, with no other optional key than they need."""
    names = [name for name, info in place.model.model_fields.items() if info.is_required()]
    base = {"type": place.part[1].removeprefix("my-"), "topics": ["#"]} if len(place.part) > 1 else {}
    base = {name: value for name, value in base.items() if name in place.model.model_fields} | NEEDED.get(
        str(place), {}
    )
    needed = [name for name in dict.fromkeys([*names, place.field]) if name not in base]
    optional = [name for name in place.model.model_fields if name not in base and name not in needed]
    for extra in ([], *([name] for name in optional)):
        values = dict(base)
        for name in [*needed, *extra]:
            shape = place.shape if name == place.field else "one"
            for candidate in VALUES:
                values[name] = shaped(shape, candidate)
                errors = wrong(place.model, values) or []
                if not [error for error in errors if error["loc"][:1] == (name,)]:
                    break
        if wrong(place.model, values) is None:
            return values
    raise AssertionError(f"no value that this test knows is valid for {place}: add one to VALUES")


def shaped(shape: str, secret: Any) -> Any:
    return {"one": secret, "list": [secret], "dict": {"X-Key": secret}}[shape]


def secret_of(place: SecretPlace, settings: Any) -> str:
    value = settings[place.field] if isinstance(settings, dict) else getattr(settings, place.field)
    value = next(iter(value.values())) if isinstance(value, dict) else value
    value = value[0] if isinstance(value, list) else value
    return value.reveal() if isinstance(value, Secret) else str(value)


def spoiled(secret: str, character: str) -> dict[str, str]:
    """Return a secret with a character before, inside and behind; of a URL, inside is in its password."""
    at = secret.find("canary") + 3 if "canary" in secret else max(1, len(secret) - 1)
    return {
        "before": character + secret, "inside": secret[:at] + character + secret[at:], "behind": secret + character,
    }  # fmt: skip


def document(place: SecretPlace, values: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {"sources": {"s": SOURCE}}
    outer = next((other for other in PLACES if other.part == place.part[:2] != place.part), None)
    inner = whole
    for depth, step in enumerate(place.part, 1):
        inner = inner.setdefault(step, {})
        if outer is not None and depth == len(outer.part):
            inner.update(valid_settings(outer))
    inner.update(values)
    return whole


WAYS = ("inline", "environment", "file")


def written(folder: Path, way: str, place: SecretPlace, text: str) -> tuple[Path, dict[str, str], str]:
    """Write a configuration with such a secret; return it, its environment, and the key that holds the secret."""
    values, environ, key = valid_settings(place), {}, place.field
    if way == "inline":
        values[place.field] = shaped(place.shape, text)
    elif way == "environment":
        values[place.field], environ = shaped(place.shape, "${SECRET}"), {"SECRET": text}
    else:
        del values[place.field]
        key = f"{place.field}_file"
        values[key] = str(folder / "secret")
        (folder / "secret").write_bytes(os.fsencode(text) if "\udce9" in text else text.encode())
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(document(place, values)))
    return path, environ, ".".join((*place.part, key))


def can_be_written(way: str, place: SecretPlace, name: str, where: str) -> bool:
    """Return whether there is such a case: the environment has no NULL, YAML no stray byte, a list has lines."""
    if way == "file" and not place.has_file:
        return False
    if where == "inside" and place.shape == "list" and "LINE FEED" in name:
        return False
    return not (way == "environment" and "NULL" in name) and not (way == "inline" and "not UTF-8" in name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_secret_survives_or_names_unseen_characters(tmp_path, place, way):
    secret = secret_of(place, valid_settings(place))
    for name, character in (TRIMMED | NAMED).items():
        for where, text in spoiled(secret, character).items():
            if not can_be_written(way, place, name, where):
                continue
            path, environ, key = written(tmp_path, way, place, text)
            case = f"{name} {where}"
            if where != "inside" and name in TRIMMED:
                settings: Any = load(path, environ=environ)
                for step in place.part:
                    settings = settings[step] if isinstance(settings, dict) else getattr(settings, step)
                assert secret_of(place, settings) == secret, case
                continue
            with pytest.raises(ConfigError) as caught:
                load(path, environ=environ)
            [problem] = caught.value.problems
            named = "not UTF-8" if way == "file" and "not UTF-8" in name else name
            assert named in problem.text, (case, str(problem))
            assert re.fullmatch(rf"{re.escape(key)}(\[0\]|\.X-Key)?", problem.key), (case, str(problem))
            assert problem.line, case
            assert not [part for part in (secret, "canary", "c4n4ry") if len(part) > 1 and part in str(problem)], case


def test_all_parts_with_secrets_are_in_the_table():
    assert {str(place) for place in PLACES} >= {
        "store", "broker", "privacy_key", "http.token", "sources.my-govdelivery.token", "sources.my-spacivox.token",
        "sources.my-marketingcloud.client_secret", "sinks.my-slack.webhook_url", "sinks.my-slack.bot_token",
        "sinks.my-webhook.secret", "sinks.my-webhook.headers", "sinks.my-webhook.url",
    }  # fmt: skip


SPACIVOX = "sources:\n  drops:\n    type: spacivox\n    url: https://spacivox.example.com\n"


@pytest.mark.parametrize(
    ("written_line", "said"),
    [
        ("    token: abc\x00def\n", "5: token: a control character, NULL (U+0000)"),
        ("    token: abc\x1bdef\n", "5: token: a control character, ESCAPE (U+001B)"),
        ("    token: abc\u200bdef\n", "5: sources.drops.token: has ZERO WIDTH SPACE (U+200B)"),
        ("    token: abc\ufeffdef\n", "5: sources.drops.token: has BYTE ORDER MARK (U+FEFF)"),
        ("    token: abc\u2028def\n", "5: token: LINE SEPARATOR (U+2028) ends a line here"),
        ("    token: abc\x85def\n    team: 1\n", "5: token: NEXT LINE (U+0085) ends a line here"),
        ("    token: abc\rdef\n    team: 1\n", "5: token: CARRIAGE RETURN (U+000D) ends a line here"),
        ('    token: "abc\rdef"\n', "5: sources.drops.token: has LINE FEED (U+000A)"),
        ('    token: "abc\n      def"\n', "5: sources.drops.token: has LINE FEED (U+000A)"),
        ("    token: abc\n      def\n", "5: sources.drops.token: has LINE FEED (U+000A)"),
    ],
)
def test_character_written_raw_in_the_file_is_named(tmp_path, written_line, said):
    path = tmp_path / "bridge.yaml"
    path.write_bytes((SPACIVOX + written_line).encode())
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    problem = str(caught.value).removeprefix(f"{path}:")
    assert problem.startswith(said)
    assert "abc" not in problem


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_line_ends_of_any_editor_are_read(tmp_path, newline):
    path = tmp_path / "bridge.yaml"
    path.write_bytes((SPACIVOX + "    token: |\n      abc\n").replace("\n", newline).encode("utf-8-sig"))
    assert load(path, environ={}).sources["drops"].token.reveal() == "abc"


def test_percent_encoded_line_break_of_a_password_is_named(tmp_path):
    path = tmp_path / "bridge.yaml"
    path.write_text(f"store: redis://bridge:pass%0A@db.example.com/0\n{SPACIVOX}    token: t\n")
    with pytest.raises(ConfigError, match=r"1: store: has LINE FEED \(U\+000A\) in it, percent-encoded"):
        load(path, environ={})


def test_file_that_turns_bad_is_named_while_it_is_used(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    secret = Secret(path=path)
    assert secret.reveal() == "first"
    for content, said in (
        ("se\u200bcond".encode(), "has ZERO WIDTH SPACE (U+200B) in it"),
        ("second".encode("utf-16"), "is UTF-16 text"),
        (b"\xff", "is not UTF-8 text"),
        (b"\n", "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(Unauthorized, match=re.escape(f"the secret's file {path} {said}")):
            secret.reveal()
    path.write_text("\ufeffsecond\r\n")
    assert secret.reveal() == "second"


def test_list_file_is_cleaned_line_by_line(tmp_path):
    path = tmp_path / "secrets"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n\r\nsecond\r\n")
    assert read_secret(path, is_list=True) == "first\nsecond"


def test_secret_of_a_blank_and_other_letters_is_kept():
    assert secret_text("päss wörd-密码") == "päss wörd-密码"


def test_client_id_that_names_an_account_is_cleaned_too(tmp_path):
    path = tmp_path / "bridge.yaml"
    source = {"type": "marketingcloud", "auth_url": "https://a.example.com", "client_secret": "s", "client_id": "${ID}"}
    path.write_text(yaml.safe_dump({"sources": {"journeys": source}}))
    assert load(path, environ={"ID": "\ufeffabc\r\n"}).sources["journeys"].client_id == "abc"
    with pytest.raises(ConfigError, match=r"sources.journeys.client_id: has ZERO WIDTH SPACE"):
        load(path, environ={"ID": "ab\u200bc"})
