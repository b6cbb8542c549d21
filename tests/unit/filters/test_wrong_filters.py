"""A filter that could never do what was meant is refused when the file is read, with what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.config.loading import load
from bridge.domain.errors import ConfigError
from bridge.domain.filters.event_filter import EventFilter

CONFIG = """
sources:
  city: {{type: govdelivery, url: "https://tms.example.com", token: t}}
  journeys: {{type: marketingcloud, auth_url: "https://x.auth.marketingcloudapis.com", client_id: a,
    client_secret: b, account_id: "1"}}
sinks:
  out:
    type: stdout
    topics: ["{topics}"]
    where: {where}
"""
WRONG = [
    # fields that no event has
    ("exact: {status: failed}", "exact.status", "did you mean 'data.status'?"),
    ("exact: {data.stauts: failed}", "exact.data.stauts", "did you mean 'data.status'?"),
    ("prefix: {data.phnoe: '+1'}", "prefix.data.phnoe", "did you mean 'data.phone'?"),
    ("exists: {data.eror: true}", "exists.data.eror", "did you mean 'data.error'?"),
    ("exact: {tpye: bridge.sms.recipient.sent}", "exact.tpye", "did you mean 'type'?"),
    ("gt: {data.observed.form: '2026-03-15T21:00:00Z'}", "gt.data.observed.form", "'data.observed.after'"),
    ("exact: {data.observed: x}", "exact.data.observed", "did you mean 'data.observed.after'?"),
    ("gte: {data.recipient_counts: 5}", "gte.data.recipient_counts", "such as data.recipient_counts.NAME"),
    ("any: [{exact: {data.stat: failed}}]", "any[0].exact.data.stat", "did you mean 'data.status'?"),
    ("not: {not: {exact: {data.chanel: sms}}}", "not.not.exact.data.chanel", "did you mean 'data.channel'?"),
    ("exact: {error: x}", "exact.error", "did you mean 'data.error'?"),
    # values that an enumeration does not have
    ("exact: {data.status: faild}", "exact.data.status", "did you mean 'failed'?"),
    ("exact: {data.status: Failed}", "exact.data.status", "did you mean 'failed'?"),
    ("in: {data.status: [sent, cancelled]}", "in.data.status", "did you mean 'canceled'?"),
    ("exact: {data.channel: smss}", "exact.data.channel", "did you mean 'sms'?"),
    ("exact: {data.transition: frist}", "exact.data.transition", "did you mean 'first'?"),
    ("exact: {type: bridge.sms.recipient.failled}", "exact.type", "did you mean 'bridge.sms.recipient.failed'?"),
    ("exact: {source: /govdelivery/ctiy}", "exact.source", "did you mean '/govdelivery/city'?"),
    ("prefix: {type: bridge.vioce.}", "prefix.type", "no value of it begins"),
    ("suffix: {data.status: ent_}", "suffix.data.status", "no value of it ends"),
    ("exact: {specversion: '1'}", "exact.specversion", "there is 1.0"),
    # comparisons of the wrong type
    ("gt: {data.phone: 40}", "gt.data.phone", "use exact, in, prefix or suffix"),
    ("lt: {time: 40}", "lt.time", "a time such as"),
    ("gt: {data.recipient_counts.failed: '2026-03-15T21:00:00Z'}", "gt.data.recipient_counts.failed", "such as 40"),
    ("exact: {data.failures: '4'}", "exact.data.failures", "did you mean 4, without quotes?"),
    ("exact: {data.failures: true}", "exact.data.failures", "a number such as 40"),
    ("exact: {data.phone: 15551000}", "exact.data.phone", "did you mean '15551000', in quotes?"),
    ("in: {data.message: [true]}", "in.data.message", "did you mean 'true', in quotes?"),
    ("exact: {time: '2026-03-15T21:00:00Z'}", "exact.time", "use gte and lt"),
    ("prefix: {time: '2026'}", "prefix.time", "use gte and lt"),
    ("prefix: {data.failures: '4'}", "prefix.data.failures", "use gte and lt"),
    ("matches: {data.created_at: '^2026'}", "matches.data.created_at", "use gte and lt"),
    # what cannot be read
    ("equals: {data.status: failed}", "equals", "did you mean 'exact'?"),
    ("exakt: {data.status: failed}", "exakt", "did you mean 'exact'?"),
    ("all: {exact: {data.status: failed}}", "all", "did you mean all: ["),
    ("not: [{exact: {data.status: failed}}]", "not", "did you mean not: {any:"),
    ("exact: {data.status: [sent, failed]}", "exact.data.status", "did you mean in: {data.status:"),
    ("in: {data.status: failed}", "in.data.status", "did you mean exact: {data.status: failed}?"),
    ("exact: {data.detail: null}", "exact.data.detail", "did you mean exists: {data.detail: false}?"),
    ("exists: {data.detail: yes}", "exists.data.detail", "did you mean exists: {data.detail: true}?"),
    ("gt: {data.code: '40'}", "gt.data.code", "did you mean gt: {data.code: 40}?"),
    ("gt: {time: '2026-03-15'}", "gt.time", "did you mean gt: {time: 2026-03-15T00:00:00Z}?"),
    ("gt: {time: '2026-03-15T21:00:00'}", "gt.time", "did you mean gt: {time: 2026-03-15T21:00:00Z}?"),
    ("gt: {time: yesterday}", "gt.time", "a time such as"),
    ("prefix: {subject: ''}", "prefix.subject", "did you mean exists: {subject: true}?"),
    ("suffix: {data.phone: 99}", "suffix.data.phone", "did you mean suffix: {data.phone: '99'}, in quotes?"),
    ("matches: {data.error: '(?=busy)'}", "matches.data.error", "RE2 has no (?=…)"),
    ("matches: {data.error: '['}", "matches.data.error", "is no expression that RE2 knows"),
    ("exact: failed", "exact", "did you mean exact: {data.status: failed}?"),
    ("gte: [1]", "gte", "did you mean gte: {data.code: 40}?"),
    ("exact: {data.: failed}", "exact.data.", "did you mean 'data'?"),
    ("{}", "", "write such as exact: {data.status: failed}"),
    ("[]", "", "[{exact: {data.status: failed}}]"),
    ("failed", "", "write such as exact: {data.status: failed}"),
    ("in: {data.status: []}", "in.data.status", "did you mean in: {data.status: [failed, rejected]}?"),
    ("exact: {data.phone: {a: 1}}", "exact.data.phone", "takes a text, a number, true or false"),
    ("prefix: {data.phone: [a]}", "prefix.data.phone", "did you mean prefix: {subject: /messages/}?"),
]  # fmt: skip


def refusal(folder: Path, where: str, topics: str = "#") -> tuple[str, int | None, str]:
    path = folder / "bridge.yaml"
    where = where if where[:1] in "{[" or ":" not in where else f"{{{where}}}"
    path.write_text(CONFIG.format(where=where, topics=topics))
    with pytest.raises(ConfigError) as raised:
        load(path)
    (problem,) = raised.value.problems
    assert problem.file == str(path)
    return problem.key, problem.line, problem.text


@pytest.mark.parametrize(("where", "key", "remedy"), WRONG, ids=[where for where, _, _ in WRONG])
def test_a_wrong_filter_is_refused_with_a_suggestion(tmp_path, where, key, remedy) -> None:
    place, line, text = refusal(tmp_path, where)
    assert place == f"sinks.out.where{'' if not key or key.startswith('[') else '.'}{key}"
    assert line == 10
    assert remedy in text


def test_only_fields_of_the_sinks_topics_can_be_filtered(tmp_path) -> None:
    key, _, text = refusal(tmp_path, "exists: {data.recipient_counts.failed: true}", "sms.recipient.#")
    assert (key, text.partition(";")[0]) == (
        "sinks.out.where.exists.data.recipient_counts.failed", "no event of this sink's topics has this field"
    )  # fmt: skip
    assert "'sent'" in refusal(tmp_path, "exact: {data.status: sennt}", "sms.recipient.#")[2]


@pytest.mark.parametrize(
    "where",
    [
        "{exact: {data.status: failed, source: /govdelivery/city}}",
        "[{in: {data.code: [45, 'x']}}, {gte: {data.recipient_counts.failed: 3}}]",
        "{any: [{exact: {type: bridge.sms.recipient.unknown}}, {prefix: {data.provider.any.thing: a}}]}",
        "{not: {lt: {data.completed_at: '2026-03-15T21:00:00+01:00'}}, matches: {data.error: '^(?i)busy'}}",
        "{exact: {data.detail: a_word_of_tomorrow, data.provider.flag: true}, suffix: {data.status: iled}}",
        "{exact: {source: /bridge/sinks}, exists: {data.reason: false}}",
    ],
)
def test_a_filter_that_events_can_meet_is_accepted(tmp_path, where) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text(CONFIG.format(where=where, topics="#"))
    config = load(path)
    sink = config.sinks["out"]
    assert sink.where is not None
    assert config.show()["sinks"]["out"]["where"] == sink.where.raw
    assert load(path, with_secrets=False).sinks["out"].where == sink.where


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert "pip install 'bridge[regex]'" in refusal(tmp_path, "matches: {data.error: busy}")[2]


def test_a_filter_has_limits(tmp_path) -> None:
    assert "1000 characters" in refusal(tmp_path, f"matches: {{data.error: {'a' * 1001}}}")[2]
    deep = "not: {" * 40 + "exists: {id: true}" + "}" * 40
    assert "32 levels" in refusal(tmp_path, deep)[2]


def test_a_source_that_names_no_events_is_not_guessed_at() -> None:
    assert EventFilter({"exact": {"data.anything": "x"}}).matches({"data": {"anything": "x"}})
