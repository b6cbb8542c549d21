"""What an HTTP sink can be told, and what is refused when the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.loading import load
from bridge.domain.errors import ConfigError
from bridge.domain.settings import Secret

CONFIG = """
sources: {{city: {{type: govdelivery, url: "https://tms.example.com", token: t}}}}
sinks:
  out:
    type: http
    topics: ["#"]
    {sink}
"""
OWN = "url: https://x.example/h\n    request: "
FORM = """
form: 1
title: A pager
url: https://pager.example/v1
settings:
  key: {type: secret, about: The key.}
  team: {about: The team., default: ""}
  level: {type: choice, choices: [low, high], default: low, about: How loud.}
throttle: 2/s
requests:
  - headers: {Authorization: "Key {setting.key}"}
    body: {team: "{setting.team}", level: "{setting.level}", text: "{data.status}"}
"""


def written(folder: Path, sink: str, form: str = FORM) -> Path:
    (folder / "pager.yaml").write_text(form)
    path = folder / "bridge.yaml"
    path.write_text(CONFIG.format(sink=sink))
    return path


def refusal(folder: Path, sink: str, form: str = FORM) -> str:
    with pytest.raises(ConfigError) as raised:
        load(written(folder, sink, form))
    return "\n".join(f"{problem.key}: {problem.text}" for problem in raised.value.problems)


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ("url: https://x.example/h", "sinks.out.request: is missing; write a request, or name a preset"),
        ("preset: discrod\n    url: https://x.example", "sinks.out.preset: no form 'discrod' ships; did you mean 'discord'?"),
        ("preset: discord", "sinks.out.url: is missing"),
        ("preset: pagerduty", "sinks.out.routing_key: is missing; add `routing_key: ${VARIABLE}` or `routing_key_file: PATH`"),
        ("preset: discord\n    url: https://x.example\n    request: {}", "sinks.out.request: is given in addition to a preset"),
        (OWN + "{body: {a: '{data.status|uper}'}}", "sinks.out.request.body.a: has no function 'uper'; did you mean 'upper'?"),
        (OWN + "{headers: {Host: x}}", "sinks.out.request.headers.Host: Host is set by the sink itself"),
        (OWN + "{headers: {'a b': x}}", "sinks.out.request.headers.a b: 'a b' is not the name of a header"),
        (OWN + "{headers: {a: x, A: y}}", "sinks.out.request.headers: has one header twice"),
        (OWN + "{headers: [a]}", "sinks.out.request.headers: must be a mapping"),
        (OWN + "{path: v1}", "sinks.out.request.path: must be a list"),
        (OWN + "{body: '{setting.key}'}", "sinks.out.request.body: uses the setting 'key'"),
        (OWN + "{when: {exists: {id: true}}}", "sinks.out.request.when: chooses events"),
        ("url: https://u:p@x.example/h\n    request: {}", "sinks.out.url: has a login in it"),
        (OWN + '{}\n    headers: {a: "x\\ny"}', "sinks.out.headers.a: has LINE FEED"),
        (OWN + "{}\n    key_file: /etc/hostname", "sinks.out.key_file: key_file is given without cert_file"),
        ("preset: ./pager.yaml\n    key: k\n    level: loud", "sinks.out.level: must be 'low' or 'high'"),
    ],
)  # fmt: skip
def test_a_wrong_sink_is_refused(tmp_path, sink, said) -> None:
    assert said in refusal(tmp_path, sink)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("form: 1", "form: 2", "form: must be 1"),
        ("requests:", "request:", "did you mean 'requests'?"),
        ("{setting.team}", "{setting.tame}", "requests[0].body: uses the setting 'tame'"),
        ("  - headers", "  - when: {exists: {id: true}}\n    headers", "requests[0].when: the last request is for all other events"),
        ("  - headers", "  - body: x\n  - headers", "requests[0]: is for all events, so none behind it is used"),
        ("choices: [low, high], ", "", "choices are for a setting of the type choice"),
        ("default: low", "default: loud", "default must be one of low, high"),
        ("about: The key.", "about: The key., default: x", "a secret has no default"),
        ("  key: {", "  Key-1: {", "settings.Key-1: is no name"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused(tmp_path, was, becomes, said) -> None:
    assert said in refusal(tmp_path, "preset: ./pager.yaml\n    key: k", FORM.replace(was, becomes))


def test_a_form_of_ones_own_brings_settings(tmp_path) -> None:
    (tmp_path / "key").write_text("canary\n")
    path = written(tmp_path, f"preset: ./pager.yaml\n    key_file: {tmp_path / 'key'}\n    level: high")
    config = load(path)
    sink = config.sinks["out"]
    assert sink.form_values() == {"key": "canary", "team": None, "level": "high"}
    assert (sink.throttle, sink.privacy, sink.url) == (2.0, "full", "https://pager.example/v1")
    assert isinstance(sink.key, Secret)
    assert "canary" not in str(config.show())
    assert load(path, with_secrets=False).sinks["out"].preset == "./pager.yaml"
