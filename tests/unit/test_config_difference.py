"""What differs between two configurations: by meaning, never by text, and every setting is accounted for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.config.difference import LIVE, PARTS, RESTART, ReadConfig, leaves
from bridge.config.file_identity import file_identity
from bridge.config.loading import load, load_servers
from bridge.config.model import Config
from bridge.domain.errors import ConfigError

ROOT = Path(__file__).parents[2]
CITY = """
  city: {type: govdelivery, url: https://tms.example.com, token: one, channels: [sms]}
"""
DROPS = """
  drops: {type: spacivox, url: https://spacivox.example.com, token_file: TOKEN, team: 1}
"""


def read(folder: Path, text: str) -> ReadConfig:
    (folder / "token").touch()
    path = folder / "bridge.yaml"
    path.write_text(text.replace("TOKEN", str(folder / "token")))
    return ReadConfig.of(load(path, environ={"HOME": str(folder)}))


def test_every_setting_of_the_process_is_live_or_needs_restart() -> None:
    keys = {".".join(map(str, place)) for place, _ in leaves(Config())}
    assert keys - LIVE - RESTART == set(), "say in bridge/config/difference.py what a reload does with it"
    assert (LIVE | RESTART) - keys == set()
    assert not LIVE & RESTART
    assert {*Config.model_fields} == {key.partition(".")[0] for key in keys} | {*PARTS}


def test_other_spelling_of_the_same_settings_is_no_difference(tmp_path: Path) -> None:
    before = read(tmp_path, f"audit: 60s\nsources:{CITY}")
    after = read(tmp_path, f"# a comment\nsources:{CITY}\njournal: {{keep: 7d}}\naudit: ${{AUDIT:-1m}}\n")
    assert not before.difference(after)


EVERY_KIND = """
sources:
  calls: {type: rest, provider: twilio-calls, account: AC00000000000000000000000000000000, key: SK1, secret: z}
  own: {type: rest, provider: ./own.yaml, account: AC00000000000000000000000000000000, key: SK1, secret: z}
  drops: {type: spacivox, url: https://spacivox.example.com, token: two}
sinks:
  out: {type: stdout, topics: ['#'], where: [{exact: {type: bridge.bridge.sink.disabled}}, {not: {prefix: {id: a}}}]}
  chat:
    type: http
    topics: ['#']
    url: https://chat.example.com
    throttle: 3/s
    request: {query: {a: '{id}'}, headers: {X-Id: '{id}'}, path: [v2], body: {text: '{data.status}'}}
    answers: {rules: [{when: {exact: {status: 200}}, then: accept, about: it is there}]}
  teams: {type: http, topics: ['#'], preset: teams, url: https://teams.example.com}
  mine: {type: http, topics: ['#'], preset: ./mine.yaml, url: https://teams.example.com}
  kept: {type: archive, topics: ['#'], path: /nowhere}
"""


def test_parts_made_of_other_files_differ_with_their_content(tmp_path: Path) -> None:
    files = {"own.yaml": "providers/shipped/twilio-calls.yaml", "mine.yaml": "forms/shipped/teams.yaml"}
    texts = {name: (ROOT / "bridge" / origin).read_text() for name, origin in files.items()}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    before = read(tmp_path, EVERY_KIND)
    for name in files:
        os.utime(tmp_path / name, (1, 1))  # as when Kubernetes writes a whole ConfigMap again
    assert not before.difference(read(tmp_path, EVERY_KIND))
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace("title: ", "title: Our ", 1))
    difference = before.difference(read(tmp_path, EVERY_KIND))
    assert (difference.sources.changed, difference.sinks.changed) == (["own"], ["mine"])
    filtered = EVERY_KIND.replace("not: {prefix: {id: a}}", "not: {prefix: {id: b}}").replace("3/s", "4/s")
    assert before.difference(read(tmp_path, filtered)).sinks.changed == ["chat", "mine", "out"]


def test_parts_are_told_apart_by_what_becomes_of_them(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    before = read(
        tmp_path,
        f"sources:{CITY}{DROPS}\nsinks: {{out: {{type: stdout, topics: ['#']}}, gone: {{type: stdout, topics: ['#']}}}}\n",
    )
    changed = CITY.replace("[sms]", "[voice]")
    after = read(
        tmp_path,
        f"sources:{changed}{DROPS}\nsinks: {{out: {{type: stdout, topics: ['#']}}, more: {{type: stdout, topics: ['#']}}}}\n",
    )
    difference = before.difference(after)
    assert (difference.sources.changed, difference.sources.unchanged) == (["city"], ["drops"])
    assert (difference.sinks.added, difference.sinks.removed) == (["more"], ["gone"])
    assert difference.sinks.unchanged == ["out"]
    assert not difference.settings


def test_changed_secret_makes_its_part_differ(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("former")
    before = read(tmp_path, f"sources:{CITY}{DROPS}")
    (tmp_path / "token").write_text("later")
    after = read(tmp_path, f"sources:{CITY.replace('one', 'two')}{DROPS}")
    assert before.difference(after).sources.changed == ["city", "drops"]
    assert "former" not in repr(before)
    (tmp_path / "token").unlink()
    gone = ReadConfig.of(after.config)  # what was read last still counts
    assert not after.difference(gone)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("store: redis://localhost/1", ["store"]),
        ("broker: redis://localhost/2\nhttp: {listen: 127.0.0.1:9}", ["broker", "http.listen"]),
        ("namespace: blue", ["exchange", "namespace", "store"]),
        ("lease: 9s\nclaim: 9s", ["claim", "lease"]),
        ("privacy_key: other\nlog: {format: json}\nstate: elsewhere", None),
    ],
)
def test_settings_that_need_a_restart_are_named(tmp_path: Path, text: str, keys: list[str] | None) -> None:
    before, after = read(tmp_path, f"sources:{CITY}"), read(tmp_path, f"{text}\nsources:{CITY}")
    with pytest.raises(ConfigError, match="needs a restart") as caught:
        before.difference(after)
    named = sorted(problem.key for problem in caught.value.problems)
    assert named == (keys or ["log.format", "privacy_key", "state", "store"])


def test_state_directory_that_nobody_uses_may_change(tmp_path: Path) -> None:
    servers = "store: redis://localhost/1\nbroker: redis://localhost/2\n"
    before = read(tmp_path, f"{servers}sources:{CITY}")
    assert not before.difference(read(tmp_path, f"{servers}state: elsewhere\nsources:{CITY}"))


def test_live_settings_differ_by_key(tmp_path: Path) -> None:
    live = "http: {reload: true}\nlog: {level: debug}\nreconcile: {every: null}\ndrain_timeout: 9s\nreload: watch"
    before, after = read(tmp_path, f"sources:{CITY}"), read(tmp_path, f"{live}\nsources:{CITY}")
    expected = ["drain_timeout", "http.reload", "log.level", "reconcile.every", "reload"]
    assert before.difference(after).settings == expected


def test_each_setting_of_a_part_makes_it_differ(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    before = read(tmp_path, f"sources:{CITY}{DROPS}\nsinks: {{out: {{type: stdout, topics: ['#']}}}}\n")
    for section in PARTS:
        for name, settings in getattr(before.config, section).items():
            for key in type(settings).model_fields:
                other = settings.model_copy(update={key: object()})
                parts = {**getattr(before.config, section), name: other}
                after = ReadConfig.of(before.config.model_copy(update={section: parts}))
                assert getattr(before.difference(after), section).changed == [name], key


def test_place_of_the_store_is_read_from_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text("state: here\nnamespace: blue\nunknown: 1\nsinks: {crm: {}}\n")
    config = load_servers(path, environ={"HOME": str(tmp_path)})
    assert (config.state, config.namespace) == (Path("here"), "blue")
    path.write_text("namespace: NO SUCH\n")
    with pytest.raises(ConfigError, match="namespace"):
        load_servers(path, environ={"HOME": str(tmp_path)})


def test_exchanged_link_is_another_file(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "bridge.yaml").write_text("same")
    data, path = tmp_path / "..data", tmp_path / "bridge.yaml"
    data.symlink_to("one")
    path.symlink_to("..data/bridge.yaml")
    before = file_identity(path)
    (tmp_path / "..data_tmp").symlink_to("two")
    (tmp_path / "..data_tmp").rename(data)
    assert before is not None
    assert file_identity(path) not in (None, before)
    data.unlink()
    assert file_identity(path) is None
