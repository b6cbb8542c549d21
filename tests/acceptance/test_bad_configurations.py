"""A configuration that cannot work says so through the real command line: file, line, key, what is wrong, what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from rigs.forked_commands import ForkServer

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[2]
PROJECTS = (ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml")))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> str:
    """Give a PYTHONPATH on which our own distributions are announced, whether they are installed or not."""
    folder = tmp_path_factory.mktemp("site")
    for project in PROJECTS:
        about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        info = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
        groups = about["entry-points"].items()
        points = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in entries.items()) for group, entries in groups]
        (info / "entry_points.txt").write_text("".join(points))
    return os.pathsep.join(map(str, (folder, *PROJECTS)))


@pytest.fixture(scope="module")
def commands(installed) -> Iterator[ForkServer]:
    with closing(ForkServer({**plain_environ(), "PYTHONPATH": installed})) as commands:
        yield commands


def plain_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}


@dataclass
class Bridge:
    folder: Path
    path: str
    commands: ForkServer

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": self.path, "HOME": str(self.folder), "TOKEN": "canary-0123456789", **environ}
        return self.commands.run(self.folder, *arguments, environ={**plain_environ(), **own})


@pytest.fixture
def bridge(tmp_path, installed, commands) -> Bridge:
    return Bridge(tmp_path, installed, commands)


DROPS = "  drops:\n    type: spacivox\n    url: https://spacivox.example.com\n    token: ${TOKEN}\n"
SOURCES = f"sources:\n{DROPS}"
"""Five lines that are right; the cases below add what is wrong, from line 6 on."""
SINK = f"{SOURCES}sinks:\n  crm:\n    type: webhook\n    url: https://crm.example.com/hooks\n    topics: ['#']\n"
"""Ten lines that are right."""

CITY = "sources:\n  city:\n    type: govdelivery\n    token: ${TOKEN}\n"
"""Four lines that are right."""

# What it is, the file, the line and key that have to be named, and words of what is wrong and what to do.
CASES = [
    ("unknown key", f"{SOURCES}brokr: redis://h/0\n", 6, "brokr", "did you mean 'broker'"),
    ("unknown key of a source", f"{SOURCES}    intervall: 30s\n", 6, "sources.drops.intervall", "did you mean 'interval'"),
    ("unknown key of a section", f"{SOURCES}http: {{port: 80}}\n", 6, "http.port", "known here: listen"),
    ("missing key", "sources:\n  drops:\n    type: spacivox\n    token: x\n", 2, "sources.drops.url", "add `url:`"),
    (
        "missing secret", "sources:\n  drops:\n    type: spacivox\n    url: https://a.example\n",
        2, "sources.drops.token", "or `token_file: PATH`",
    ),
    ("no type", "sources:\n  drops:\n    token: x\n", 2, "sources.drops.type", "installed sources: .*spacivox"),
    ("unknown type", "sources:\n  a:\n    type: spacifox\n", 3, "sources.a.type", "did you mean 'spacivox'"),
    ("type of another kind", f"{SOURCES}sinks:\n  a:\n    type: [slack]\n", 8, "sinks.a.type", "installed sinks: .*slack"),
    ("bare number for a duration", f"{SOURCES}    interval: 30\n", 6, "sources.drops.interval", "a number and a unit"),
    ("wrong duration", f"{SOURCES}drain_timeout: soon\n", 6, "drain_timeout", "such as 500ms"),
    ("no time at all", f"{SOURCES}    interval: 0s\n", 6, "sources.drops.interval", "must be more than 0"),
    ("duration beyond all clocks", f"{SOURCES}    interval: 9999999999h\n", 6, "sources.drops.interval", "the longest duration is 87600h"),
    ("wrong rate", f"{SOURCES}    rate: 4 per second\n", 6, "sources.drops.rate", "such as 4/s"),
    ("wrong size", f"{SOURCES}journal: {{max_bytes: 1 gig}}\n", 6, "journal.max_bytes", "such as 500MB"),
    ("wrong word", f"{SOURCES}log: {{level: warn}}\n", 6, "log.level", "did you mean 'warning'"),
    ("text for a number", f"{SINK}    concurrency: many\n", 11, "sinks.crm.concurrency", "must be a whole number"),
    ("number out of range", f"{SINK}    concurrency: 0\n", 11, "sinks.crm.concurrency", "must be at least 1"),
    ("text for a flag", f"{SINK}    ordered: maybe\n", 11, "sinks.crm.ordered", "true or false"),
    ("number for a secret", SOURCES.replace("${TOKEN}", "123456"), 5, "sources.drops.token", "put quotes around"),
    ("empty secret", SOURCES.replace("${TOKEN}", "''"), 5, "sources.drops.token", "is empty; give"),
    ("unseen character in a secret", SOURCES.replace("${TOKEN}", r'"se\u200bcret"'), 5, "sources.drops.token", r"has ZERO WIDTH SPACE \(U\+200B\) in it"),
    ("control character in the file", SOURCES.replace("${TOKEN}", "se\x1bcret"), 5, "token", r"ESCAPE \(U\+001B\)"),
    ("line break in a secret", SOURCES.replace("${TOKEN}", '"se\n      cret"'), 5, "sources.drops.token", r"LINE FEED \(U\+000A\)"),
    ("unset variable", SOURCES.replace("${TOKEN}", "${NOPE}"), 5, "sources.drops.token", "NOPE is not set; set it"),
    ("half a variable", SOURCES.replace("${TOKEN}", "'${TOKEN'"), 5, "sources.drops.token", r"write \$\$\{"),
    (
        "secret's file that is not there", SOURCES.replace("token: ${TOKEN}", "token_file: /nowhere/token"),
        5, "sources.drops.token_file", "cannot read /nowhere/token",
    ),
    ("secret given twice", f"{SOURCES}    token_file: /x\n", 5, "sources.drops.token", "keep one"),
    ("key given twice", f"{SOURCES}    token: y\n", 6, "sources.drops.token", "first in line 5; keep one"),
    (
        "message of a channel that there is not",
        f"{CITY}    messages:\n      - /messages/sms/1\n      - /messages/fax/1\n", 7, "sources.city.messages[1]", "is not of the channels sms, voice",
    ),
    (
        "message of a channel that is not read", f"{CITY}    channels: [sms, sms]\n    messages: [/messages/voice/1]\n",
        6, "sources.city.messages[0]", "is not of the channels sms$",
    ),
    ("no sources", "sinks: {}\n", 1, "sources", "config new`"),
    ("sources left empty", "sources:\n", 1, "sources", "give each source a name"),
    ("a source that is only a name", "sources:\n  drops:\n", 2, "sources.drops", "give the source a `type:`"),
    ("list of sources", "sources:\n  - type: spacivox\n", 1, "sources", "must be a mapping"),
    ("name in capitals", SOURCES.replace("drops", "Drops"), 2, "sources.Drops", "lower-case letters"),
    ("name without end", SOURCES.replace("drops", "a" * 101), 2, f"sources.{'a' * 101}", "up to 100"),
    ("topic with # inside", SINK.replace("'#'", "'#.failed'"), 10, "sinks.crm.topics[0]", "'#' may only be the last"),
    ("topic that never was", SINK.replace("'#'", "'Voice.#'"), 10, "sinks.crm.topics[0]", "lower-case letters"),
    ("no topics", SINK.replace("['#']", "[]"), 10, "sinks.crm.topics", "add to it"),
    ("topics without quotes", SINK.replace("['#']", "#"), 10, "sinks.crm.topics", "unquoted # begins a comment"),
    ("star without quotes", SINK.replace("['#']", "[*.recipient.failed]"), 10, "", "needs quotes"),
    ("store that is no URL", f"{SOURCES}store: localhost:6379\n", 6, "store", "write one such as redis://"),
    ("store of an unknown sort", f"{SOURCES}store: mysql://h/db\n", 6, "store", "write one such as redis://"),
    ("store without a file", f"{SOURCES}store: sqlite://\n", 6, "store", "four slashes"),
    ("store with a word for a database", f"{SOURCES}store: redis://h/orders\n", 6, "store", "database that is no number"),
    ("broker with a word for a database", f"{SOURCES}broker: redis://h/x\n", 6, "broker", "database that is no number"),
    ("broker with a typing error", f"{SOURCES}broker: ampq://h//\n", 6, "broker", "did you mean 'amqp'"),
    ("broker with a bad port", f"{SOURCES}broker: amqp://u:p@h:port//\n", 6, "broker", "port cannot be read"),
    ("webhook secret that is easy to guess", f"{SINK}    secret: changeme\n", 11, "sinks.crm.secret", "24 to 64 random bytes"),
    ("webhook secret that is a prefix", f"{SINK}    secret: whsec_\n", 11, "sinks.crm.secret", "prefix without a key"),
    ("no webhook secrets", f"{SINK}    secret: []\n", 11, "sinks.crm.secret", "leave the key out to send unsigned"),
    ("webhook with a login", SINK.replace("crm.ex", "u:canary@crm.ex"), 9, "sinks.crm.url", "Authorization"),
    ("exchange of the broker's own", f"{SOURCES}exchange: amq.topic\n", 6, "exchange", "not beginning with amq."),
    ("listen without a port", f"{SOURCES}http: {{listen: localhost}}\n", 6, "http.listen", "write such as 127.0.0.1:8080"),
    ("tab", "sources:\n\tdrops: {}\n", 2, "", "a tab is used for indentation; use spaces"),
    ("two colons", "sources: drops: type\n", 1, "", "put quotes around"),
    ("bracket left open", "sources: {drops: {type: spacivox}\n", 2, "", "not valid YAML"),
    ("variable in braces", f"{SOURCES}http: {{listen: ${{ADDRESS}}}}\n", 6, "", "needs quotes"),
    ("control character", "sources: \x07\n", 1, "", "control character"),
    ("two documents", f"{SOURCES}---\na: b\n", 6, "", "keep one in a file"),
    ("no mapping", "- sources\n", 1, "", "has to be a mapping"),
    ("empty file", "", 1, "", "is empty; `.*config new`"),
    ("only comments", "# to be done\n", 1, "", "is empty; `.*config new`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "key", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_problem_is_one_line_with_place_key_and_remedy(bridge, text, line, key, words) -> None:
    (bridge.folder / "bridge.yaml").write_text(text)
    done = bridge("check", "--offline", "-c", "bridge.yaml")
    assert done.returncode == 3
    assert done.stdout == ""
    problems = done.stderr.splitlines()
    assert len(problems) == 1, done.stderr
    place = f"bridge.yaml:{line}: {key}: " if key else f"bridge.yaml:{line}: "
    assert problems[0].startswith(f"error: {place}")
    assert re.search(words, problems[0]), problems[0]
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr


def _absent(folder: Path) -> str:
    return "nowhere.yaml"


def _directory(folder: Path) -> str:
    (folder / "a.yaml").mkdir()
    return "a.yaml"


def _not_text(folder: Path) -> str:
    (folder / "a.yaml").write_bytes(b"sources: \xff\xfe")
    return "a.yaml"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (_absent, "there is no such file; name another one"),
        (_directory, "is a directory; name the configuration file itself"),
        (_not_text, r"is not UTF-8 text \(byte 10\); save it as UTF-8"),
    ],
    ids=["absent", "directory", "not text"],
)
def test_unreadable_file_is_named_with_the_reason(bridge, file, words) -> None:
    name = file(bridge.folder)
    done = bridge("check", "--offline", "-c", name)
    assert done.returncode == 3
    assert re.fullmatch(rf"error: {name}: .*{words}.*\n", done.stderr)


def test_all_problems_are_reported_in_file_order(bridge) -> None:
    (bridge.folder / "bridge.yaml").write_text(
        f"exchange: ''\n{SOURCES}    rate: fast\n    tokn: x\n  other: {{type: nothing}}\nsinks:\n  a: {{type: webhook}}\n"
    )
    done = bridge("check", "--offline", "--json", "-c", "bridge.yaml")
    assert done.returncode == 3
    lines = [int(line.split(":")[2]) for line in done.stderr.splitlines()]
    assert lines == [1, 7, 8, 9, 11, 11]
    problems = json.loads(done.stdout)
    assert not problems["ok"]
    assert [problem["key"] for problem in problems["problems"]] == [
        "exchange", "sources.drops.rate", "sources.drops.tokn", "sources.other.type", "sinks.a.topics", "sinks.a.url",
    ]  # fmt: skip


def test_a_good_file_is_said_to_be_good(bridge) -> None:
    (bridge.folder / "bridge.yaml").write_text(SINK)
    done = bridge("check", "--offline", "-c", "bridge.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "bridge.yaml: ok: sources drops; sinks crm\n"


def test_unseen_characters_of_the_environment_are_dropped_or_named(bridge) -> None:
    (bridge.folder / "bridge.yaml").write_text(SINK)
    dropped = bridge("check", "--offline", "-c", "bridge.yaml", TOKEN="\ufeffcanary\r\n")
    assert (dropped.returncode, dropped.stderr) == (0, "")
    named = bridge("check", "--offline", "-c", "bridge.yaml", TOKEN="can\u200bary")
    assert named.returncode == 3
    assert named.stderr.startswith("error: bridge.yaml:5: sources.drops.token: has ZERO WIDTH SPACE (U+200B) in it")
    assert "ary" not in named.stderr


def test_the_variable_stands_for_the_option(bridge) -> None:
    (bridge.folder / "bridge.yaml").write_text(SINK)
    assert bridge("check", "--offline", BRIDGE_CONFIG="bridge.yaml").returncode == 0
    assert bridge("check", "--offline").returncode == 0  # ./bridge.yaml is one of the usual places
    (bridge.folder / "bridge.yaml").unlink()
    assert bridge("check", "--offline").returncode == 3


def test_starter_file_is_valid_once_variables_are_set(bridge) -> None:
    made = bridge("config", "new")
    assert (made.returncode, made.stderr) == (0, "")
    (bridge.folder / "bridge.yaml").write_text(made.stdout)
    names = re.findall(r"^#   ([A-Z0-9_]+)$", made.stdout, re.MULTILINE)
    assert names
    unset = bridge("check", "--offline", "-c", "bridge.yaml")
    assert unset.returncode == 3
    assert len(unset.stderr.splitlines()) == len(names)
    values = {name: "https://hooks.example.com/T0/B0/x" if name.endswith("URL") else "secret" for name in names}
    checked = bridge("check", "--offline", "-c", "bridge.yaml", **values)
    assert (checked.returncode, checked.stderr) == (0, "")
    plugins = json.loads(bridge("plugins", "--json").stdout)
    for plugin in plugins:
        assert f"type: {plugin['name']}\n" in made.stdout
