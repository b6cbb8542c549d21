from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from bridge.config import registry, yaml_document
from bridge.config.loading import load
from bridge.config.model import Config, default_state
from bridge.config.showing import mask_url
from bridge.config.types import Listen, sqlite_path
from bridge.config.validation import validate
from bridge.config.yaml_document import expand, format_path, read
from bridge.domain.errors import ConfigError
from bridge.domain.settings import Duration, Secret, Settings
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import SourcePlugin, SourceSettings

CANARY = "canary-c4n4ry"


class Login(Settings):
    user: str
    password: Secret


class LampSettings(SourceSettings):
    """A source for these tests."""

    url: str = "https://lamp.example.com"
    token: Secret
    team: int | list[int] | None = None
    login: Login | None = None
    api_key: str = ""


class AlarmSettings(SinkSettings):
    """A sink for these tests."""

    url: str = ""
    secret: Secret | list[Secret] | None = None
    headers: dict[str, Secret] = Field(default_factory=dict)


@pytest.fixture(autouse=True)
def lamp_and_alarm(monkeypatch) -> None:
    """Install a source and a sink without a distribution; discovery has its own tests."""
    offered = {
        ("source", "lamp"): SourcePlugin(LampSettings, build=lambda *_: None),
        ("sink", "bell"): SinkPlugin(AlarmSettings, build=lambda *_: None),
    }

    def load_one(kind: registry.Kind, name: str) -> SourcePlugin | SinkPlugin:
        if (kind, name) not in offered:
            raise registry.PluginError(f"no {kind} {name!r} is installed")
        return offered[kind, name]

    monkeypatch.setattr(registry, "load", load_one)


def write(folder: Path, text: str) -> Path:
    path = folder / "bridge.yaml"
    path.write_text(text)
    return path


def refused(path: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


LAMP = "sources: {a: {type: lamp, token: t}}\n"


# --- the environment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${B:-two}", "two"),
        ("${B:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-two}", "two"),
        ("${A:-two}", "1"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $ {A} $", "$A $ {A} $"),
        ("${B:-a:-b}", "a:-b"),
    ],
)
def test_variables_are_filled_in_as_a_shell_does(text, value) -> None:
    assert expand(text, {"A": "1", "EMPTY": ""}) == value


@pytest.mark.parametrize("text", ["${", "${A", "${1A}", "${A-b}", "${}", "${A B}"])
def test_malformed_variable_is_an_error_not_a_literal(text) -> None:
    with pytest.raises(ValueError, match="write"):
        expand(text, {"A": "1"})


@given(st.text().filter(lambda text: "${" not in text), st.text(), st.text().filter(lambda text: "}" not in text))
def test_a_value_is_filled_in_once_and_as_it_is(text, value, default) -> None:
    environ = {"NAME": value}
    assert expand(text, environ) == text
    assert expand(f"{text}|${{NAME}}|", environ) == f"{text}|{value}|"
    assert expand(f"|${{NAME:-{default}}}|", environ) == f"|{value or default}|"
    assert expand(f"|$${{NAME}}{text}", environ) == f"|${{NAME}}{text}"


@given(value=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_what_comes_from_the_environment_stays_text(tmp_path_factory, value) -> None:
    path = write(tmp_path_factory.mktemp("x"), "a: ${X}\nb: '${X}'\nc: [\"${X}\"]\n${X}: d\n")
    assert read(path, {"X": value}).values == {"a": value, "b": value, "c": [value], "${X}": "d"}


def test_numbers_and_flags_may_come_from_the_environment(tmp_path) -> None:
    text = (
        "sources: {a: {type: lamp, token: t, team: '${T}'}}\nsinks: {b: {type: bell, topics: ['#'], ordered: '${O}'}}"
    )
    config = load(write(tmp_path, text), environ={"T": "7", "O": "yes"})
    assert config.sources["a"].team == 7
    assert config.sinks["b"].ordered is True


# --- the text -----------------------------------------------------------------------------------------------------


def test_scalars_are_read_without_surprises(tmp_path) -> None:
    text = "a: [no, on, 12:30, 2024-01-01, 0x10, 007, 1.5, 1e3, true, ~, null, '1', 12345678901234567890, '', .5, -3]"
    assert read(write(tmp_path, text)).values["a"] == [
        "no", "on", "12:30", "2024-01-01", "0x10", 7, 1.5, 1000.0, True, None, None, "1", "12345678901234567890", "", 0.5,
        -3,
    ]  # fmt: skip


def test_anchors_repeat_a_part_and_own_keys_win(tmp_path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {z: 3}\nc: {<<: *a, y: 9}\nd: {y: 9, <<: [*a, *b]}\ne: *a\n"
    document = read(write(tmp_path, text))
    assert document.values["c"] == {"x": 1, "y": 9}
    assert document.values["d"] == {"x": 1, "y": 9, "z": 3}
    assert document.values["e"] == {"x": 1, "y": 2}
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "1: a[0]: refers to itself"),
        ("a: &a {b: *a}", "1: a.b: refers to itself"),
        ("a: &a {<<: *a}", "1: a: `<<` merges a mapping into itself"),
        ("a: {<<: [1]}", "1: a: `<<` merges mappings only"),
        ("a: !secret x", "1: a: has a tag"),
        ("a: !!int x", "1: a: is not of the type that its tag says"),
        ("a: !!bool x", "1: a: is not of the type that its tag says"),
        ("? [a]\n: b", "1: a key has to be a plain word"),
        ("x:\n  a: 1\n  a: 2\n", "3: x.a: is given twice, first in line 2"),
    ],
)
def test_what_yaml_allows_and_nobody_means_is_a_problem(tmp_path, text, said) -> None:
    path = write(tmp_path, text)
    assert str(read(path).problems[0]).removeprefix(f"{path}:").startswith(said)


def test_aliases_that_unfold_without_end_are_refused_in_time(tmp_path) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    document = read(write(tmp_path, "\n".join(lines)))
    assert [problem.text for problem in document.problems] == [
        "more than 100000 values, counting what aliases repeat; use fewer"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: *nowhere", "a value that begins with * or & needs quotes"),
        ("a: @b", "needs quotes"),
        ("a: 'b", "look at this line"),
        ("a: {b: ${C}}", "inside { } or [ ] a value with ${…} needs quotes"),
        ("a: [" * 3000, "not valid YAML"),
    ],
)
def test_broken_yaml_is_explained_without_quoting_the_file(tmp_path, text, said) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path, f"secret: {CANARY}\n{text}  # {CANARY}\n"))
    assert said in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes("\ufeffa: 1".encode())
    assert read(path).values == {"a": 1}


def test_a_file_that_may_not_be_read_says_so() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*; check its name"):
        read(Path("/proc/self/mem"))
    with pytest.raises(ConfigError, match="null character"):
        read(Path("a\0b"))


def test_a_place_is_spelled_as_it_is_written() -> None:
    assert format_path(("sinks", "crm", "topics", 0)) == "sinks.crm.topics[0]"


# --- problems -----------------------------------------------------------------------------------------------------


def test_an_unset_variable_is_told_once_with_all_other_problems(tmp_path) -> None:
    path = write(tmp_path, "sources:\n  a:\n    type: lamp\n    token: t\n    interval: ${X}\n    rate: ${Y:-fast}\n")
    first, second = refused(path)
    assert first == "5: sources.a.interval: the environment variable X is not set; set it, or write ${X:-default}"
    assert second.startswith("6: sources.a.rate: ${Y:-fast} is not a rate")


def test_a_section_that_cannot_be_made_out_is_told_once(tmp_path) -> None:
    assert len(refused(write(tmp_path, "sources: !x {}\nsinks: {a: {type: bell}, a: {}}\n"))) == 2


@pytest.mark.parametrize("text", ["type: ${X}", "type: lamp\n    token: ${X}", "type: !x lamp"])
def test_what_follows_from_a_broken_value_is_not_told(tmp_path, text) -> None:
    assert len(refused(write(tmp_path, f"sources:\n  a:\n    {text}\n"))) == 1


def test_a_broken_part_is_told_once(tmp_path) -> None:
    assert len(refused(write(tmp_path, LAMP + "sinks:\n  b: !x y\n"))) == 1


def test_secrets_and_the_environment_are_never_quoted(tmp_path) -> None:
    text = """
store: ${CANARY}
broker: canary-c4n4ry://user:canary-c4n4ry@h/
drain_timeout: ${CANARY}
exchange: ${CANARY}
http: {listen: canary-c4n4ry}
sources:
  a: {type: lamp, token: [canary-c4n4ry], interval: "${CANARY}", rate: "${SHORT}", login: {password: {x: canary-c4n4ry}}}
sinks:
  b: {type: bell, topics: ["${CANARY} x"], secret: {x: canary-c4n4ry}, privacy: "${CANARY}", url: 5, retry: ["${CANARY}"]}
"""
    said = refused(write(tmp_path, text), CANARY=CANARY, SHORT="c4n")
    assert len(said) == 14
    assert "c4n" not in "\n".join(said).replace("'canary-c4n4ry' is not known", "")
    assert "5: drain_timeout" in " ".join(said) or "4: drain_timeout" in " ".join(said)


def test_of_a_union_the_branch_that_was_meant_is_told(tmp_path) -> None:
    text = (
        "sources: {a: {type: lamp, token: t, team: [1, x]}}\nsinks: {b: {type: bell, topics: ['#'], secret: [a, 5]}}\n"
    )
    first, second = refused(write(tmp_path, text))
    assert first == "1: sources.a.team[1]: must be a whole number, such as 16"
    assert second.startswith("2: sinks.b.secret[1]: must be text; put quotes around a secret")


def test_plugin_section_problem_is_reported_with_its_line(tmp_path) -> None:
    text = "sources:\n  a:\n    type: lamp\n    token: t\n    login:\n      user: u\n      passwort: x\n"
    missing, unknown = refused(write(tmp_path, text))
    assert missing == "5: sources.a.login.password: is missing; add `password: ${VARIABLE}` or `password_file: PATH`"
    assert unknown == "7: sources.a.login.passwort: is not a known key; did you mean 'password'?"


def test_unreadable_secret_file_within_a_mapping_has_its_own_key(tmp_path) -> None:
    text = "sources:\n  a:\n    type: lamp\n    token: t\n    login:\n      user: u\n      password_file: /nowhere\n"
    said = refused(write(tmp_path, text))
    assert said == ["7: sources.a.login.password_file: cannot read /nowhere: No such file or directory"]


def test_unreadable_secret_file_hides_no_other_problem(tmp_path) -> None:
    text = "sources:\n  a:\n    type: lamp\n    token_file: /nowhere\n    rate: fast\n"
    first, second = refused(write(tmp_path, text))
    assert first == "4: sources.a.token_file: cannot read /nowhere: No such file or directory"
    assert second.startswith("5: sources.a.rate: 'fast' is not a rate")


def test_a_models_own_objection_is_told_at_the_model() -> None:
    class Odd(Settings):
        wait: Duration = 1.0

        def model_post_init(self, _) -> None:
            raise ValueError("wait is\nnot good " + 500 * "x")

    (problem,) = validate(Odd, {"wait": "5s"}, ("odd",), yaml_document.Document("f", {}, {("odd", "wait"): 7}))
    assert str(problem).startswith("f:7: odd.wait: wait is not good xxx")
    assert len(str(problem)) < 450


def test_a_problem_that_shows_itself_later_still_knows_its_line(tmp_path) -> None:
    config = load(write(tmp_path, "\n\n" + LAMP), environ={})
    assert str(config.problem(("sources", "a"), "no")) == f"{config.file}:3: sources.a: no"
    assert str(Config().problem(("sources", "a"), "no")) == "<configuration>: sources.a: no"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: the file is empty; `bridgectl config new`"),
        ("[a]", "1: the file has to be a mapping"),
        ("sources: \x07", "1: sources: a control character, CONTROL CHARACTER (U+0007), which YAML does not allow; remove it"),
        ("sources:\n\ta: {}", "2: not valid YAML: a tab is used for indentation; use spaces"),
        ("{}", "1: sources: there is no source to poll"),
        ("sources: ", "1: sources: is empty; give each source a name"),
        ("sources: [a]", "1: sources: must be a mapping; give each source a name"),
        ("sources:\n  a: {type: lamp, token: t}\n  b:\n", "3: sources.b: must be a mapping; give the source a `type:`"),
        ("sources:\n  A: {type: lamp, token: t}\n", "2: sources.A: a name has up to 100 lower-case letters"),
        ("sources:\n  a: {token: t}\n", "2: sources.a.type: is missing; installed sources: "),
        ("sources:\n  a:\n    type: 5\n", "3: sources.a.type: must be the name of a plugin; installed sources: "),
        ("sources:\n  a:\n    type: lmap\n", "3: sources.a.type: no source 'lmap' is installed"),
        ("sources:\n  a:\n    type: lamp\n", "2: sources.a.token: is missing; add `token: ${VARIABLE}` or `token_file:"),
        (f"{LAMP}log: {{level: warn}}", "2: log.level: must be 'debug', 'info', 'warning' or 'error'; did you mean 'warning'?"),
        (f"{LAMP}log: loud", "2: log: must be a mapping of keys to values"),
        (f"{LAMP}log:", "2: log: is empty; give it a value or remove the line"),
        (f"{LAMP}journal: {{max_bytes: lots}}", "2: journal.max_bytes: 'lots' is not a size; write a number and a unit"),
        (f"{LAMP}journal: {{max_bytes: 0B}}", "2: journal.max_bytes: must be more than 0"),
        (f"{LAMP}drain_timeout: 0s", "2: drain_timeout: must be more than 0"),
        (f"{LAMP}exchange: a b", "2: exchange: must be 1 to 127 letters"),
        (f"{LAMP}store: sqlite://", "2: store: names no file; write one after it"),
        (f"{LAMP}store: mysql://h", "2: store: the scheme 'mysql' is not known; write one such as redis://"),
        (f"{LAMP}broker: ampq://h", "2: broker: the scheme 'ampq' is not known; did you mean 'amqp'?"),
        (f"{LAMP}broker: '?x://h'", "2: broker: its scheme is not known; write one such as amqp://"),
        (f"{LAMP}nothing: 1", "2: nothing: is not a known key; remove it; known here: store, broker"),
        (f"{LAMP}sinks: {{a: {{type: bell, topics: []}}}}", "2: sinks.a.topics: is too short; add to it"),
        (f"{LAMP}sinks: {{a: {{type: bell, topics: ['#'], concurrency: 1.5}}}}", "2: sinks.a.concurrency: must be a whole number"),
        (f"{LAMP}state: 5", "2: state: must be a path, as text"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_in_plain_words(tmp_path, text, said) -> None:
    (problem,) = refused(write(tmp_path, text))
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere.yaml", "there is no such file"), (".", "is a directory"), ("bytes", "is not UTF-8 text")],
)
def test_a_file_that_cannot_be_used_at_all_is_told(tmp_path, name, said) -> None:
    (tmp_path / "bytes").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / name)


# --- the words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["9999999999h", "87601h", "3651d", f"{'9' * 400}s"])
def test_a_duration_that_no_clock_can_count_is_refused(tmp_path, text) -> None:
    (said,) = refused(write(tmp_path, f"{LAMP}lease: {text}\n"))
    assert said == "2: lease: is too long; the longest duration is 87600h, ten years"
    assert load(write(tmp_path, f"{LAMP}lease: 3650d\n"), environ={}).lease == 3650 * 86400.0


@pytest.mark.parametrize(
    ("line", "said"),
    [("lease: ３0s", "is not a duration"), ("journal: {max_bytes: ３GB}", "is not a size"),  # noqa: RUF001 - full-width
     ("http: {listen: 'h:８０'}", "is not HOST:PORT")],  # noqa: RUF001 - full-width
)  # fmt: skip
def test_digits_of_another_script_are_no_number(tmp_path, line, said) -> None:
    (problem,) = refused(write(tmp_path, f"{LAMP}{line}\n"))
    assert said in problem


@pytest.mark.parametrize("name", ["a" * 101, "Drops", "-a", "a b"])
@pytest.mark.parametrize(
    "text", ["sources: {%s: {type: lamp, token: t}}\n", LAMP + "sinks: {%s: {type: bell, topics: ['#']}}\n"]
)
def test_a_name_that_cannot_name_a_queue_is_refused(tmp_path, name, text) -> None:
    (said,) = refused(write(tmp_path, text % name))
    assert "a name has up to 100 lower-case letters" in said
    assert load(write(tmp_path, text % ("a" * 100)), environ={}).sources


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [("5B", 5, "5B"), ("1kB", 1000, "1kB"), ("1 KB", 1000, "1kB"), ("1024MB", 1024 * 10**6, "1024MB"),
     ("2GiB", 2 * 2**30, "2GiB"), ("1KiB", 1024, "1KiB"), ("1500MB", 1_500_000_000, "1500MB"), ("1TB", 10**12, "1TB")],
)  # fmt: skip
def test_size_needs_a_unit_and_is_shown_as_given(tmp_path, text, size, shown) -> None:
    config = load(write(tmp_path, f"{LAMP}journal: {{max_bytes: {text}}}\n"), environ={})
    assert config.journal.max_bytes == size
    assert config.show()["journal"]["max_bytes"] == shown


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        ("':0'", "", 0, ":0"),
        ("'[::1]:8080'", "::1", 8080, "[::1]:8080"),
    ],
)
def test_a_server_listens_where_it_is_told(tmp_path, text, host, port, shown) -> None:
    config = load(write(tmp_path, f"{LAMP}http: {{listen: {text}}}\n"), environ={})
    assert config.http.listen == Listen(host, port)
    assert str(config.http.listen) == shown


def test_no_server_at_all_can_be_had(tmp_path) -> None:
    assert load(write(tmp_path, f"{LAMP}http: {{listen: null}}\n"), environ={}).http.listen is None


@pytest.mark.parametrize("text", ["localhost", "h:99999", "h:", "8080", "[::1:80", "a b:80"])
def test_what_is_no_address_is_refused(tmp_path, text) -> None:
    (said,) = refused(write(tmp_path, f"{LAMP}http: {{listen: '{text}'}}\n"))
    assert "is not HOST:PORT" in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://:p@h:6380/1",
        "redis+sentinel://h:1,i:2/primary",
        "unix:///run/redis.sock",
        "sqlite:///a.db",
    ],
)
def test_stores_are_known_by_their_scheme(tmp_path, url) -> None:
    assert load(write(tmp_path, f"{LAMP}store: {url}\n"), environ={}).store_url == url


@pytest.mark.parametrize(
    "url",
    ["embedded", "amqp://guest:guest@h:5672//", "amqps://h", "redis://h/1", "sentinel://h:1;sentinel://i:2",
     "redis://h//", "redis+socket:///run/redis.sock", "sqla+sqlite:///a.db", "memory://"],
)  # fmt: skip
def test_brokers_are_known_by_their_scheme(tmp_path, url) -> None:
    assert load(write(tmp_path, f"{LAMP}broker: {url}\n"), environ={}).broker_url == url


@pytest.mark.parametrize("url", ["redis://[::1", "redis://h:port", "redis://h:99999"])
def test_a_url_with_a_broken_host_is_refused(tmp_path, url) -> None:
    (said,) = refused(write(tmp_path, f"{LAMP}store: '{url}'\n"))
    assert "host or port cannot be read" in said


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://h/0", "rediss://u:p@h:1/15", "redis://h?db=3", "unix:///run/redis.sock?db=1",
     "redis+sentinel://h:1,i:2/primary/3", "redis+cluster://h:1,i:2", "redis+cluster://h/0"],
)  # fmt: skip
def test_a_redis_database_is_named_by_its_number(tmp_path, url) -> None:
    assert load(write(tmp_path, f"{LAMP}store: {url}\n"), environ={}).store_url == url


@pytest.mark.parametrize("key", ["store", "broker"])
@pytest.mark.parametrize(
    "url", ["redis://h/x", "rediss://u:p@h:1/orders", "redis://h/0/1", "redis://h/-1", "redis://h?db=x"]
)
def test_non_numeric_redis_database_is_refused(tmp_path, key, url) -> None:
    (said,) = refused(write(tmp_path, f"{LAMP}{key}: {url}\n"))
    assert said.startswith(f"2: {key}: names a database that is no number; Redis has numbers, such as redis://")


@pytest.mark.parametrize(
    "url", ["redis+sentinel://h:1,i:2/primary/x", "redis+cluster://h:1/1", "unix:///run/redis.sock?db=x"]
)
def test_no_redis_transport_accepts_a_word_as_database(tmp_path, url) -> None:
    (said,) = refused(write(tmp_path, f"{LAMP}store: {url}\n"))
    assert said.startswith("2: store: names a database that is no number")


def test_the_path_of_sqlite_is_absolute_with_a_fourth_slash() -> None:
    assert sqlite_path("sqlite:////var/a.db") == "/var/a.db"
    assert sqlite_path("sqlite:///a.db") == "a.db"
    assert sqlite_path("sqlite://a.db") == ""


@pytest.mark.parametrize(
    ("environ", "place"),
    [({"BRIDGE_STATE_DIR": "/a", "XDG_STATE_HOME": "/b"}, "/a"), ({"XDG_STATE_HOME": "/b"}, "/b/bridge"),
     ({"HOME": "/c"}, "/c/.local/state/bridge")],
)  # fmt: skip
def test_state_lies_where_the_system_keeps_state(tmp_path, environ, place) -> None:
    assert str(default_state(environ)) == place
    config = load(write(tmp_path, LAMP), environ=environ)
    assert str(config.state) == place
    assert config.store_url == f"sqlite:///{place}/bridge.db"
    assert config.broker_url == "embedded"


def test_a_state_directory_may_begin_at_home(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home-of-mine")
    assert str(load(write(tmp_path, f"{LAMP}state: ~/x\n"), environ={}).state) == "/home-of-mine/x"
    assert str(Config().state).endswith("bridge") == (not os.environ.get("BRIDGE_STATE_DIR"))


# --- showing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h/0", "redis://:********@h/0"),
        ("redis://u:p@ss/w@h/0", "redis://u:********@h/0"),
        ("amqp://guest:guest@h:5672//", "amqp://guest:********@h:5672//"),
        ("https://token@h/x", "https://********@h/x"),
        ("https://h/x?a=1&token=2", "https://h/x?a=********&token=********"),
        ("sentinel://:a@h;sentinel://:b@i", "sentinel://:********@i"),
        ("https://h/x", "https://h/x"),
    ],
)
def test_the_password_of_a_url_is_masked(url, shown) -> None:
    assert mask_url(url) == shown


def test_the_effective_configuration_has_every_default_and_no_secret(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    text = f"""
store: redis://:{CANARY}@localhost:6379/0
broker_file: {tmp_path / "broker"}
privacy_key: {CANARY}
sources:
  a: {{type: lamp, token: {CANARY}, url: "https://u:{CANARY}@h/x?key={CANARY}", api_key: {CANARY},
      login: {{user: u, password_file: {secret}}}}}
  b: {{type: lamp, token_file: {secret}}}
sinks:
  c: {{type: bell, topics: ["#"], url: "https://h.example/{CANARY}", secret: [{CANARY}, {CANARY}], headers: {{X: {CANARY}}}}}
  d: {{type: bell, topics: [a.*], secret: {CANARY}}}
"""
    (tmp_path / "broker").write_text(f"amqp://u:{CANARY}@h//")
    config = load(write(tmp_path, text), environ={})
    shown = config.show()
    assert CANARY not in json.dumps(shown)
    assert CANARY not in repr((config.store, config.broker, config.privacy_key))
    assert CANARY not in config.model_dump_json(include={"store", "broker", "privacy_key"})
    assert yaml.safe_load(yaml.safe_dump(shown)) == shown
    assert shown["store"] == "redis://:********@localhost:6379/0"
    assert shown["broker"] == "amqp://u:********@h//"
    assert "broker_file" not in shown
    assert shown["sources"]["b"]["token_file"] == str(secret)
    assert shown["sources"]["a"]["login"] == {"user": "u", "password_file": str(secret)}
    assert shown["sinks"]["c"]["url"] == "https://h.example/********"
    assert shown["sinks"]["c"]["retry"][0] == "5s"
    assert shown["exchange"] == "bridge.events"
    assert config.broker_url == f"amqp://u:{CANARY}@h//"
