"""Texts with expressions: what they compute, and what is refused with a suggestion."""

from __future__ import annotations

import pytest

from bridge.domain.errors import PlacedError
from bridge.forms.escaping import TABLES, escaped
from bridge.forms.expressions import Scope, compile_text
from bridge.forms.json_template import JsonTemplate

EVENT = {
    "id": "e1", "subject": "/r/1", "topic": "sms.recipient.failed",
    "data": {"status": "not_sent", "code": 45, "flag": True, "error": "a <b> *c* @all\nnew", "counts": {"sent": 2}},
}  # fmt: skip


def value(text: str, escape: str = "none"):
    return compile_text(text)(Scope(EVENT, {"channel": "<ops>", "empty": None}, TABLES[escape]))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{data.code}", 45),
        ("{data.flag}", True),
        ("{data.counts}", {"sent": 2}),
        ("{data.counts.sent}", 2),
        ("{data.absent}", None),
        ("{setting.empty}", None),
        ("{ data.code | text }", "45"),
        ("{data.status|words|upper}", "NOT SENT"),
        ("{data.status|upper|lower}", "not_sent"),
        ("{data.absent|or('it\\'s {none}')}", "it's {none}"),
        ("code {data.code}, {data.absent}{data.flag} {data.counts}", 'code 45, true {"sent":2}'),
        ("{{literal}} {id}", "{literal} e1"),
        ("{subject|cut(3)}", "/r…"),
        ("{data.code|cut(1)}", "…"),
        ("{data.absent|cut(3)}", None),
        ("{subject|key(80)}", "/r/1"),
        ("{data.absent|key(9)}", ""),
        ("{setting.channel}", "<ops>"),
    ],
)
def test_an_expression_has_the_value_of_its_path(text, wanted) -> None:
    assert value(text) == wanted
    assert type(value(text)) is type(wanted)


def test_texts_of_events_alone_are_escaped() -> None:
    assert value("<b> {data.error}", "html") == "<b> a &lt;b&gt; *c* @all new"
    assert value("{data.error}", "lines") == "a <b> *c* @all new"
    assert value("{data.error}", "mentions") == "a <b> *c* @\u200ball new"
    assert value("{data.error}", "markdown") == "a \\<b\\> \\*c\\* @\u200ball new"
    assert value("{data.error|plain}", "markdown") == EVENT["data"]["error"]
    assert value("{setting.channel}{data.absent|or('<i>')}", "html") == "<ops><i>"


@pytest.mark.parametrize("escape", TABLES)
@pytest.mark.parametrize("limit", [1, 2, 7, 50])
def test_a_cut_text_never_ends_within_an_escape(escape, limit) -> None:
    text = "*<&@\n" * 1000
    cut = escaped(text, TABLES[escape], limit)
    assert len(cut) <= limit
    assert cut.endswith("…")
    whole = text.translate(TABLES[escape])
    assert whole.startswith(cut[:-1])
    assert not cut[:-1].endswith("\\") or cut[:-1].endswith("\\\\")
    assert escaped("ab", TABLES[escape], 2) == "ab"


def test_long_keys_stay_different_keys() -> None:
    def key(subject: str) -> str:
        return compile_text("{subject|key(64)}")(Scope({"subject": subject}))

    keys = {key("/r/" + "1" * length) for length in (100, 101, 5000)}
    assert len(keys) == 3
    assert {len(item) for item in keys} == {64}
    assert len(compile_text("{subject|key(5)}")(Scope({"subject": "123456"}))) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{data.status", "cannot be read at ''"),
        ("{}", "has no path behind '{'"),
        ("}", "has a '}' without a '{'"),
        ("{status}", "did you mean {data.status}?"),
        ("{dta.status}", "did you mean {data.status}?"),
        ("{data.status|uper}", "did you mean 'upper'?"),
        ("{data.status|zzz}", "there is or, cut"),
        ("{data.status|cut}", "write cut(80)"),
        ("{data.status|upper(3)}", "upper takes nothing; write upper"),
        ("{data.status|or(3)}", "write or('none')"),
        ("{data.status|cut(0)}", "a number from 1 to"),
        ("{data.status||}", "cannot be read at '||}'"),
        ("{setting}", "names no setting"),
    ],
)
def test_a_wrong_expression_is_refused_with_a_suggestion(text, said) -> None:
    with pytest.raises(PlacedError) as raised:
        JsonTemplate({"body": [text]})
    assert said in str(raised.value)
    assert raised.value.place == ("body", 0)


def build(raw, **event):
    return JsonTemplate(raw).build(Scope({"data": event}))


def test_a_structure_leaves_out_what_an_event_does_not_have() -> None:
    raw = {"a": "{data.a}", "b": ["{data.a}", 1, None, True, {"c": "{data.c}"}], "d": "x{data.a}", "$schema": "s"}
    assert build(raw) == {"b": [1, None, True, {}], "d": "x", "$schema": "s"}
    assert build(raw, a=2, c="t") == {"a": 2, "b": [2, 1, None, True, {"c": "t"}], "d": "x2", "$schema": "s"}
    assert build("{data.a}") is None


def test_choices_are_made_by_a_text_or_by_a_filter() -> None:
    choice = {"$map": "{data.status}", "failed": {"to": "{data.status}"}, "1": "number", "else": "other"}
    assert [build(choice, status=status) for status in ("failed", 1, "sent")] == [{"to": "failed"}, "number", "other"]
    assert build({"$map": "{data.status}", "x": 1}, status="y") is None
    when = {"$when": {"gt": {"data.n": 3}}, "then": ["{data.n}"]}
    assert (build(when, n=4), build(when, n=3), build({**when, "else": 0}, n=3)) == ([4], None, 0)
    assert build([when, {"a": when}], n=1) == [{}]


@pytest.mark.parametrize(
    ("raw", "place", "said"),
    [
        ({"a": {"$when": {"exakt": {}}, "then": 1}}, ("a", "$when", "exakt"), "did you mean 'exact'?"),
        ({"$when": {"exists": {"id": True}}}, (), "add `then:`"),
        ({"$when": {"exists": {"id": True}}, "then": 1, "than": 2}, ("than",), "remove it"),
        ({"$map": ["x"]}, ("$map",), "takes a text to choose by"),
        ({"$map": "{id", "x": 1}, ("$map",), "cannot be read"),
        ({"$if": 1}, ("$if",), "did you mean '$map' or '$when'?"),
    ],
)
def test_a_wrong_choice_is_refused(raw, place, said) -> None:
    with pytest.raises(PlacedError) as raised:
        JsonTemplate(raw)
    assert (raised.value.place, said in str(raised.value)) == (place, True)


def test_a_structure_may_not_be_nested_without_end() -> None:
    raw: object = "x"
    for _ in range(40):
        raw = [raw]
    with pytest.raises(PlacedError, match="32 levels"):
        JsonTemplate(raw)
    assert JsonTemplate(["a"]) == JsonTemplate(["a"]) != JsonTemplate(["b"])
    assert repr(JsonTemplate(["a"])) == "JsonTemplate(['a'])"
