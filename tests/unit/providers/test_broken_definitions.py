"""A definition that cannot work says so: exit code 3, file, line, key, what is wrong and what to do, in a line each."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from bridge import cli
from bridge.cli.support.options import Exit

BASE = """definition: 1
title: Texts of Acme
docs: [https://acme.example/docs]
url: https://api.acme.example
settings:
  account: {about: The account., account: true}
  token: {about: The token., type: secret}
auth: {bearer: token}
budget: {rate: 2/s}
listing:
  path: /v1/{account}/texts
  params: {limit: 50}
  items: $.data
  pages: {link: $.next}
  order: newest
window:
  start: {param: since, format: iso}
  end: {param: until, format: iso}
  lookback: 72h
  slice: 1h
  retention: 90d
identity: {key: $.id}
times:
  created: {path: $.created_at}
status:
  path: $.state
  map: {queued: queued, sent: sent, delivered: delivered, failed: failed}
  follows: {queued: [sent], sent: [delivered, failed]}
  finals: [delivered, failed]
facts:
  phone: $.to
  fields:
    price: {path: $.price, type: number, about: The price.}
errors:
  - {status: 429, then: retry}
events: {provider: acme, channel: sms}
"""
WINDOW = BASE[BASE.index("window:") : BASE.index("identity:")]
FOLLOW = "follow: {lookup: {path: '/v1/{account}/texts/{id}'}}\n"
FEED = "feed: {param: after, format: number, position: $.n}\n"


class Case(NamedTuple):
    old: str
    """What of the right definition is replaced."""
    new: str
    key: str
    words: str
    """A pattern of what is wrong and what to do."""


CASES = [
    # the file itself
    Case("definition: 1\n", "", "definition", "is missing"),
    Case("definition: 1", "definition: 2", "definition", "must be 1"),
    Case("title: Texts of Acme", "title:", "title", "is empty; give it a value"),
    Case("title: Texts of Acme", "title: {a: 1}", "title", "must be text"),
    Case("docs: [https://acme.example/docs]", "docs: []", "docs", "too short"),
    Case("docs: [https://acme.example/docs]", "docs: [the manual]", "docs[0]", "begin with https://"),
    Case("title: Texts", "titel: x\ntitle: Texts", "titel", "did you mean 'title'"),
    Case("url: https://api.acme.example", "url: api.acme.example", "url", "write https:// and a host"),
    Case("url: https://api.acme.example", "url: https://u:p@acme.example", "url", "neither a user nor a query"),
    Case("title: Texts of Acme", "title: '{{ name }}'", "title", "templates are not read here"),
    Case("title: Texts of Acme", "title: ${NAME}", "title", "templates are not read here"),
    Case("title: Texts of Acme", "title: ${NAME:-x}", "title", "templates are not read here"),
    Case("path: /v1/{account}/texts", "path: '/v1/{% if a %}'", "listing.path", "templates are not read here"),
    Case("url: https", "transform: [lower]\nurl: https", "transform", "no code is run"),
    Case("url: https", "cursor: $.updated\nurl: https", "cursor", "the bridge keeps the cursor itself"),
    # pushes
    Case("url: https", "push: {verify: hmac, id: $.id}\nurl: https", "push.verify", "must be 'path', 'basic'"),
    Case("url: https", "push: {verify: path, id: $.id}\nurl: https", "push.lookup", "give the request for one resource"),
    Case("url: https", "push: {verify: path, lookup: {path: '/v1/{id}'}}\nurl: https", "push.id", "such as \\$.MessageSid"),
    Case(
        "url: https", "push: {verify: path, id: $.id, lookup: {path: '/v1/{acount}/{id}'}}\nurl: https",
        "push.lookup.path", "no setting 'acount'",
    ),
    Case(
        "url: https", "push: {verify: path, then: poll, lookup: {path: '/v1/{id}'}}\nurl: https",
        "push.lookup", "`then: poll` asks for no resource",
    ),
    Case(
        "identity: {key: $.id", "push: {verify: path, then: look, id: $.id, lookup: {path: '/v1/{id}'}}\nidentity: {key: $.id, within: $.to",
        "push.then", "cannot look at a single resource",
    ),
    # settings
    Case("about: The account.", "about: ''", "settings.account.about", "is empty; give it a value"),
    Case("  token: {about", "  interval: {about: x}\n  token: {about", "settings.interval", "choose another one"),
    Case("  token: {about", "  spare: {about: x}\n  token: {about", "settings.spare", "nothing uses it"),
    Case("type: secret", "type: password", "settings.token.type", "must be 'text', 'secret'"),
    Case("type: secret", "type: secret, default: x", "settings.token.default", "a secret has no default"),
    Case("type: secret", "type: secret, account: true", "settings.token.account", "a secret cannot tell the account"),
    Case("account: true", "type: choice", "settings.account.choices", "belong to `type: choice`"),
    Case("account: true", "choices: [a]", "settings.account.choices", "belong to `type: choice`"),
    Case("account: true", "type: choice, choices: [a], default: b", "settings.account.default", "none of the choices"),
    Case("account: true", "type: number, default: x", "settings.account.default", "must be a number"),
    Case("account: true", "pattern: '('", "settings.account.pattern", "no regular expression"),
    Case("account: true", "pattern: AC.*", "settings.account.example", "give a value that looks right"),
    Case("  token: {about", "  Token: {about: x}\n  token: {about", "settings.Token", "lower-case letters"),
    # auth
    Case("auth: {bearer: token}\n", "", "auth", "is missing"),
    Case("auth: {bearer: token}", "auth: {}", "auth", "give one of basic, bearer"),
    Case("{bearer: token}", "{bearer: token, query: {name: k, value: token}}", "auth", "give one of basic"),
    Case("{bearer: token}", "{bearer: tokn}", "auth.bearer", "no setting 'tokn'"),
    Case("{bearer: token}", "{login: {path: /l, body: {a: b}, token: $.t}, bearer: token}", "auth", "gives bearer, login"),
    Case("{bearer: token}", "{basic: {user: account}}", "auth.basic.password", "is missing"),
    Case("{bearer: token}", "{header: {name: 'A B', value: token}}", "auth.header.name", "pattern"),
    Case("type: secret", "type: text", "settings.token.type", "must be `secret`"),
    Case(
        "{bearer: token}", "{oauth2: {token_url: x, client_id: account, client_secret: token}}",
        "auth.oauth2.token_url", "write https://",
    ),
    Case("{bearer: token}", "{jwt: {algorithm: none, key: token}}", "auth.jwt.algorithm", "must be 'HS256'"),
    # budget
    Case("rate: 2/s", "rate: 2", "budget.rate", "write a number and a unit of time"),
    Case("rate: 2/s", "concurrency: 0", "budget.concurrency", "at least 1"),
    Case("rate: 2/s", "cost: -1", "budget.cost", "more than 0"),
    # list and pages
    Case("path: /v1/{account}/texts", "path: v1/texts", "listing.path", "begin with /"),
    Case("path: /v1/{account}/texts", "path: /v1/texts?a=b", "listing.path", "write a query under `params`"),
    Case("path: /v1/{account}/texts", "path: /v1/{acount}/texts", "listing.path", "no setting 'acount'"),
    Case("path: /v1/{account}/texts", "path: /v1/{token}/texts", "listing.path", "is secret and cannot stand in a path"),
    Case("path: /v1/{account}/texts", "path: /v1/{account}/texts/{id}", "listing.path", "belongs to `follow"),
    Case("path: /v1/{account}/texts", "path: /sms/3/reports", "listing.path", "is itself the acknowledgement"),
    Case("  items: $.data", "  ack: {path: /a}\n  items: $.data", "listing.ack", "is itself the acknowledgement"),
    Case("  items: $.data", "  method: POST\n  items: $.data", "listing.method", "asked with GET"),
    Case("items: $.data", "items: data", "listing.items", "has to begin with \\$"),
    Case("items: $.data", "items: $.data[?(@.x)]", "listing.items", "cannot be read"),
    Case("items: $.data", "items: 7", "listing.items", "is not a path"),
    Case("{limit: 50}", "{limit: {setting: lmt}}", "listing.params.limit", "no setting 'lmt'"),
    Case("{limit: 50}", "{since: x}", "listing.params.since", "`window.start` sets this parameter"),
    Case("{link: $.next}", "{}", "listing.pages", "give one of link, header"),
    Case("{link: $.next}", "{link: $.next, header: next}", "listing.pages", "give one of link, header"),
    Case("{link: $.next}", "{link: $.next, end: short}", "listing.pages.end", "needs the size of a page"),
    Case("{link: $.next}", "{offset: {size: 0}}", "listing.pages.offset.size", "at least 1"),
    Case("{link: $.next}", "{number: {size: 50, size_param: limit}}", "listing.params.limit", "sets this parameter"),
    # window
    Case("param: since", "param: until", "window.end.param", "each needs its own"),
    Case("since, format: iso", "since, format: ISO", "window.start.format", "is no format of times"),
    Case("since, format: iso", "since, format: date", "window.slice", "write at least 24h"),
    Case("lookback: 72h", "lookback: 72", "window.lookback", "is not a duration"),
    Case("lookback: 72h", "lookback: 91d", "window.lookback", "longer than the provider keeps"),
    Case("slice: 1h", "slice: 1s", "window.slice", "at least 60"),
    Case("slice: 1h", "zone: Mars", "window.zone", "is no zone"),
    Case("slice: 1h", "undated: {since: 4h}", "window.by", "say which time of an item"),
    Case("order: newest", "order: upwards", "listing.order", "must be 'newest' or 'oldest'"),
    Case(WINDOW, "", "window", "give `window` for a list"),
    Case("identity:", f"{FEED}identity:", "feed", "keep one of the two"),
    # feed and follow
    Case(WINDOW, FEED, "identity.mark", "each event needs an id of its own"),
    Case(WINDOW, FEED.replace("number", "iso"), "feed.settle", "may still appear before others"),
    Case(WINDOW, FEED.replace("number", "number, settle: 5s"), "feed.settle", "belongs to positions that are times"),
    Case(WINDOW, FEED.replace("number", "iso, settle: 5s"), "feed.retention", "how long the provider keeps events"),
    Case(WINDOW, FEED.replace("number", "iso, settle: 5s, retention: 3d"), "listing.order", "a feed goes forward"),
    Case("identity:", f"{FOLLOW.replace('{id}', '')}identity:", "follow.lookup.path", "either for {id} in its path"),
    Case("identity: {", f"{FOLLOW}identity: {{within: $.to, ", "identity.within", "which `follow` cannot look at"),
    Case("identity: {", f"{FOLLOW}identity: {{mark: $.m, ", "follow", "tells occurrences"),
    Case("identity:", "drain: {ack: {path: /a}}\nidentity:", "drain", "has no definition"),
    # identity and times
    Case("{key: $.id}", "{key: $.id, scope: $.day}", "identity.scope", "the bridge chooses the scope itself"),
    Case("{key: $.id}", "{key: $.id, block: 1}", "identity.block", "at least 100"),
    Case("{key: $.id}", "{key: $.id, subject: /texts}", "identity.subject", "put {id} into it"),
    Case("{key: $.id}", "{key: $.id, subject: 'texts/{id}'}", "identity.subject", "write one such as /messages/{id}"),
    Case("created: {path: $.created_at}", "changed: {path: $.c}", "times.created", "`identity.block: 1000` instead"),
    Case("{path: $.created_at}", "{path: $.created_at, format: '%Q%'}", "times.created.format", "no pattern of a time"),
    # status
    Case("path: $.state\n", "always: sent\n", "status.map", "belongs to `path`"),
    Case("  path: $.state\n", "", "status", "needs either `path`"),
    Case("failed: failed}", "failed: Failed}", "status.map.failed", "cannot stand in a topic"),
    Case("failed: failed}", "failed: unknown}", "status.map", "choose another one"),
    Case("finals: [delivered, failed]", "finals: [delivered, faild]", "status.finals[1]", "'faild' is no status"),
    Case("finals: [delivered, failed]", "finals: [delivered]", "status.follows", "'failed' is not final and nothing"),
    Case("finals: [delivered, failed]", "finals: []", "status.finals", "too short"),
    Case("sent: [delivered, failed]}", "sent: [delivered, bounced]}", "status.follows.sent[1]", "is no status"),
    Case("  path: $.state", "  ignore_case: true\n  path: $.state\n  about: {gone: x}", "status.about.gone", "no status"),
    Case("failed: failed}", "failed: failed, FAILED: failed}\n  ignore_case: true", "status.map", "differ only in case"),
    # facts, errors, events
    Case("    price: {", "    status: {", "facts.fields.status", "every event has a field of this name"),
    Case("about: The price.", "about: x, privacy: key", "facts.fields.price", "write price_reference"),
    Case("order: newest", "expand: '$[0].to'", "listing.expand", "is not the path of one list"),
    Case("order: newest", "expand: $.to", "identity.within", "Give a path below"),
    Case("bearer: token", "login: {path: /in, body: {}, token: $.t}", "auth.login.body", "is too short"),
    Case("bearer: token", "login: {path: in, body: {a: b}, token: $.t}", "auth.login.path", "is not a path"),
    Case("bearer: token", "login: {path: /in, body: {a: {setting: pin}}, token: $.t}", "auth.login.body.a", "no setting"),
    Case("bearer: token", "login: {path: '/in/{token}', body: {a: b}, token: $.t}", "auth.login.path", "is secret"),
    Case("type: number", "type: money", "facts.fields.price.type", "must be 'text', 'number', 'code' or 'time'"),
    Case("status: 429", "status: 42", "errors[0].status", "is no HTTP status"),
    Case("{status: 429, then: retry}", "{then: retry}", "errors[0]", "fits every answer"),
    Case("then: retry", "then: ignore", "errors[0].then", "must be 'retry'"),
    Case("{status: 429, then: retry}", "{status: 503, then: empty}", "errors[0].then", "it loses events"),
    Case("then: retry}", "then: retry}\n  - {status: 429, then: gone}", "errors[1].status", "takes every 429"),
    Case("then: retry", "then: gone, pause: 5s", "errors[0].pause", "belongs to `then: retry`"),
    Case("status: 429", "body: {code: 1}", "errors[0].body.code", "has to begin with \\$"),
    Case("channel: sms", "channel: bridge", "events.channel", "is the bridge's own"),
    Case("channel: sms", "channel: SMS", "events.channel", "cannot stand in a topic"),
]  # fmt: skip


def checked(folder, text, capsys):
    file = folder / "acme.yaml"
    file.write_text(text)
    code = cli._run(["providers", "check", str(file)])
    return file, code, capsys.readouterr().err


def test_the_base_of_all_cases_is_right(tmp_path, capsys):
    assert checked(tmp_path, BASE, capsys)[1:] == (Exit.DONE, "")
    assert len(CASES) >= 80


@pytest.mark.parametrize("case", CASES, ids=[f"{case.key}: {case.new[:30]!r}" for case in CASES])
def test_broken_definition_names_file_line_key_and_remedy(tmp_path, capsys, case):
    assert BASE.count(case.old) >= 1
    text = BASE.replace(case.old, case.new, 1)
    file, code, err = checked(tmp_path, text, capsys)
    assert code == Exit.CONFIG, err
    assert "Traceback" not in err
    said = [
        re.fullmatch(rf"error: {re.escape(str(file))}:(\d+): (?:([^ ]+): )?(.+)", line) for line in err.splitlines()
    ]
    assert all(said), err
    ours = [line for line in said if line[2] == case.key]
    assert [line[3] for line in ours if re.search(case.words, line[3])], err
    lines = text.splitlines()
    named = re.sub(r"\[\d+\]", "", case.key).rpartition(".")[2]
    absent = any(re.search("is missing|needs either|belong to", line[3]) for line in ours)
    assert absent or any(named in lines[int(line[1]) - 1] or case.new in lines[int(line[1]) - 1] for line in ours), err


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\t", "definition: 1\n---\n", "? [a]\n: b\n", "!!x y"])
def test_file_that_is_no_definition_is_one_line(tmp_path, capsys, text):
    _, code, err = checked(tmp_path, text, capsys)
    assert code == Exit.CONFIG
    assert "Traceback" not in err
    assert "acme.yaml" in err


def test_configuration_names_the_place_of_a_broken_definition(tmp_path, capsys):
    (tmp_path / "acme.yaml").write_text(BASE.replace("finals: [delivered, failed]", "finals: [delivered, faild]"))
    file = tmp_path / "bridge.yaml"
    file.write_text("sources:\n  texts:\n    type: rest\n    provider: ./acme.yaml\n")
    assert cli._run(["check", "--offline", "-c", str(file)]) == Exit.CONFIG
    err = capsys.readouterr().err
    assert f"{tmp_path / 'acme.yaml'}:" in err
    assert "status.finals[1]: 'faild' is no status" in err


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ("", "provider", "must name a definition; installed: .*twilio-messages"),
        ("    provider: twilio-mesages\n", "provider", "did you mean 'twilio-messages'"),
        ("    provider: twilio-messages\n", "account", "is missing"),
        ("    provider: twilio-messages\n    account: AC1\n", "account", "has to match AC"),
        ("    provider: twilio-messages\n    lookback: 401d\n", "lookback", "must be at most"),
        ("    provider: twilio-messages\n    acount: x\n", "acount", "did you mean 'account'"),
        ("    provider: twilio-messages\n    statuses: {gone: lost}\n", "statuses", "is not one of accepted"),
    ],
)
def test_source_of_a_definition_names_what_is_wrong(tmp_path, capsys, given, key, words):
    file = tmp_path / "bridge.yaml"
    file.write_text(f"sources:\n  texts:\n    type: rest\n{given}")
    assert cli._run(["check", "--offline", "-c", str(file)]) == Exit.CONFIG
    err = capsys.readouterr().err
    assert re.search(rf"bridge.yaml:\d+: sources.texts.{key}: {words}", err) or re.search(
        rf"bridge.yaml:\d+: sources.texts.{key}[^:]*: .*{words}", err
    ), err
