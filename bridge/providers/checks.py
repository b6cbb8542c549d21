"""What a definition may not say although each of its keys is right: contradictions, with place and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from bridge.config.yaml_document import Place
from bridge.domain.event import INTERNAL_CHANNEL
from bridge.domain.lifecycle import UNKNOWN
from bridge.domain.personal_data import names_person
from bridge.domain.settings import format_duration
from bridge.providers.events import built_in, data_model
from bridge.providers.models import Definition, ErrorRule, SettingSpec, WindowSpec
from bridge.providers.paths import JsonPath
from bridge.providers.requests import Scalar, SettingRef, placeholders
from bridge.providers.times import grain

Finding = tuple[Place, str]
Rule = Callable[[Definition], Iterator[Finding]]

RESERVED = frozenset({
    "type", "provider", "url", "interval", "idle_slowdown", "rate", "stall_after", "first_sight", "account_label",
    "statuses", "ca_file", "lookback", "slice", "overlap", "reread_every", "catch_up", "give_up", "lookup_every",
    "start", "token_url", "push",
})  # fmt: skip
"""Keys of a source that a definition cannot use for settings of its own."""
DATA_FIELDS = frozenset({
    "channel", "status", "previous", "detail", "transition", "observed", "phone", "error", "error_code", "created_at",
    "changed_at", "provider",
})  # fmt: skip
"""Fields of an event's data that every definition has."""
_SECRET_KEYS = frozenset({"password", "value", "client_secret", "key", ""})
_DESTRUCTIVE = re.compile(r"^/[a-z-]+/\d/(?:reports|inbox/reports)/?$|/(?:ack|acknowledge|pop|drain)(?:/|$)")
_ACKNOWLEDGES = (
    "this read is itself the acknowledgement: what a crash cuts off is lost. Name the provider's log or list that can "
    "be read again, or write a source for it, see docs/tutorial/first-source.md"
)
_NO_CREATION = (
    "is missing; the statuses of a day are kept together. If ids are numbers given in order, write "
    "`identity.block: 1000` instead"
)
_LOWEST_STATUS, _HIGHEST_STATUS = 100, 599
_FAILED_STATUS = 500
_NEVER_EMPTY = frozenset({401, 403, 408, 429})


def contradictions(definition: Definition) -> Iterator[Finding]:
    """Yield the place and the text of everything that cannot be meant."""
    for rule in _RULES:
        yield from rule(definition)


def _settings(definition: Definition) -> Iterator[Finding]:
    used = {name for _, name in _used_settings(definition)}
    for name, spec in definition.settings.items():
        place: Place = ("settings", name)
        if name in RESERVED:
            yield place, "every source has a setting of this name; choose another one"
        elif name not in used:
            yield place, "nothing uses it; remove it, or use it in auth, listing.path or listing.params"
        yield from _setting(place, spec)


def _setting(place: Place, spec: SettingSpec) -> Iterator[Finding]:
    if (spec.type == "choice") != bool(spec.choices):
        yield (*place, "choices"), "belong to `type: choice`; give both or neither"
    if spec.type == "secret" and spec.default is not None:
        yield (*place, "default"), "a secret has no default; remove it"
    if spec.type == "secret" and spec.account:
        yield (*place, "account"), "a secret cannot tell the account, for it is replaced; mark another setting"
    if spec.type == "choice" and spec.default is not None and spec.default not in spec.choices:
        yield (*place, "default"), f"is none of the choices; write {' or '.join(spec.choices)}"
    if spec.type == "number" and (isinstance(spec.default, str | bool)):
        yield (*place, "default"), "must be a number"
    if spec.pattern is not None and not _compiles(spec.pattern):
        yield (*place, "pattern"), "is no regular expression; write one such as AC[0-9a-f]{32}"
    elif spec.pattern is not None and not re.fullmatch(spec.pattern, spec.example or ""):
        yield (*place, "example"), "is missing, or does not match `pattern`; give a value that looks right"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _used_settings(definition: Definition) -> Iterator[tuple[Place, str]]:
    for kind, key, name in definition.auth.setting_names:
        yield (("auth", kind, key) if key else ("auth", kind)), name
    params: list[tuple[Place, dict[str, Scalar | SettingRef]]] = [(("listing", "params"), definition.listing.params)]
    paths: list[tuple[Place, str]] = [(("listing", "path"), definition.listing.path)]
    if definition.follow is not None:
        params.append((("follow", "lookup", "params"), definition.follow.lookup.params))
        paths.append((("follow", "lookup", "path"), definition.follow.lookup.path))
    if definition.push is not None and definition.push.lookup is not None:
        params.append((("push", "lookup", "params"), definition.push.lookup.params))
        paths.append((("push", "lookup", "path"), definition.push.lookup.path))
    if definition.auth.jwt is not None:
        params.append((("auth", "jwt", "claims"), definition.auth.jwt.claims))
    if definition.auth.login is not None:
        params.append((("auth", "login", "body"), definition.auth.login.body))
        paths.append((("auth", "login", "path"), definition.auth.login.path))
    if definition.identity.subject is not None:
        paths.append((("identity", "subject"), definition.identity.subject))
    for place, values in params:
        yield from (((*place, key), value.setting) for key, value in values.items() if isinstance(value, SettingRef))
    for place, path in paths:
        yield from ((place, name) for name in placeholders(path) if name != "id")


def _references(definition: Definition) -> Iterator[Finding]:
    known = definition.settings
    for place, name in _used_settings(definition):
        if name not in known:
            yield place, f"there is no setting {name!r}; add it under `settings`, or name one of {_names(known)}"
        elif known[name].type == "secret" and place[-1] in {"path", "subject"}:
            yield place, f"the setting {name!r} is secret and cannot stand in a path; use a header"
    for kind, key, name in definition.auth.setting_names:
        if key in _SECRET_KEYS and name in known and known[name].type != "secret":
            yield ("settings", name, "type"), f"must be `secret`, for `auth.{kind}` sends it as a credential"


def _names(known: object) -> str:
    return ", ".join(known) if isinstance(known, dict) and known else "none"


def _shape(definition: Definition) -> Iterator[Finding]:
    window, feed, follow = definition.window, definition.feed, definition.follow
    if window is None and feed is None:
        yield (
            ("window",),
            "is missing; give `window` for a list of a stretch of time, or `feed` for one with a position",
        )
    if window is not None and feed is not None:
        yield ("feed",), "cannot stand with `window`; keep one of the two"
    if follow is not None and definition.status.always is not None:
        yield ("follow",), "looks for a final status, but `status.always` has only one; remove one of the two"
    if follow is not None and definition.identity.mark is not None:
        yield ("follow",), "looks at a present status, but `identity.mark` tells occurrences; remove one of the two"
    if "id" in placeholders(definition.listing.path):
        yield ("listing", "path"), "a list asks for no single {id}; that belongs to `follow.lookup.path`"
    if _DESTRUCTIVE.search(definition.listing.path):
        yield ("listing", "path"), _ACKNOWLEDGES


def _window(definition: Definition) -> Iterator[Finding]:
    window = definition.window
    if window is None:
        return
    coarse = max(grain(window.start.format), grain(window.end.format)).total_seconds()
    if window.slice < coarse:
        yield ("window", "slice"), f"is shorter than its format can say; write at least {format_duration(coarse)}"
    if window.retention is not None and window.lookback > window.retention:
        kept = format_duration(window.retention)
        yield ("window", "lookback"), f"is longer than the provider keeps records; write at most {kept}"
    if window.retention is not None and window.slice > window.retention:
        yield ("window", "slice"), f"is longer than `retention`; write at most {format_duration(window.retention)}"
    if window.start.param == window.end.param:
        yield ("window", "end", "param"), "is the parameter of `start` too; each needs its own"
    for side, param in (("start", window.start.param), ("end", window.end.param)):
        if param in definition.listing.params:
            yield ("listing", "params", param), f"`window.{side}` sets this parameter; remove it here"
    if window.undated is not None:
        yield from _undated(definition, window)


def _undated(definition: Definition, window: WindowSpec) -> Iterator[Finding]:
    if definition.listing.order != "newest":
        yield ("window", "undated"), "is read back from the newest record; it needs `listing.order: newest`"
    if definition.times.created is None:
        yield ("window", "undated"), "needs `times.created`, to know how far back a page goes"
    if window.by is None:
        yield ("window", "by"), "is missing; say which time of an item may still be absent, such as $.sent_at"


def _feed(definition: Definition) -> Iterator[Finding]:
    feed = definition.feed
    if feed is None:
        return
    if definition.identity.mark is None:
        yield ("identity", "mark"), "is missing; a feed is read again in parts, so each event needs an id of its own"
    if feed.format == "number":
        if feed.settle:
            yield ("feed", "settle"), "belongs to positions that are times; remove it"
    else:
        if not feed.settle:
            yield ("feed", "settle"), "is missing; say for how long events may still appear before others, such as 30s"
        if feed.retention is None:
            yield ("feed", "retention"), "is missing; say how long the provider keeps events, such as 3d"
        if feed.answer is not None:
            yield ("feed", "answer"), "belongs to positions that are numbers; remove it"
        if definition.listing.order == "newest":
            yield ("listing", "order"), "a feed goes forward; ask for the oldest events first, or use `window`"
    if feed.param in definition.listing.params:
        yield ("listing", "params", feed.param), "`feed.param` sets this parameter; remove it here"


def _push(definition: Definition) -> Iterator[Finding]:
    push = definition.push
    if push is None:
        return
    if push.lookup is not None and (definition.follow is not None or push.then == "poll"):
        reason = "`follow` has the request" if definition.follow is not None else "`then: poll` asks for no resource"
        yield ("push", "lookup"), f"{reason}; remove it here"
    if push.then == "poll":
        return
    if push.id is None:
        yield (
            ("push", "id"),
            "is missing; say where a push has the id, such as $.MessageSid, or write `then: poll`",
        )
    if definition.lookup is None:
        yield ("push", "lookup"), "is missing; give the request for one resource, or write `then: poll`"
    if definition.identity.mark is not None or definition.identity.within is not None:
        yield (
            ("push", "then"),
            "cannot look at a single resource, for `identity` has more than a key; write `poll`",
        )


def _identity(definition: Definition) -> Iterator[Finding]:
    identity, created = definition.identity, definition.times.created
    if identity.block is None and created is None:
        yield ("times", "created"), _NO_CREATION
    if identity.within is not None and definition.follow is not None:
        yield (
            ("identity", "within"),
            "tells parts of a resource apart, which `follow` cannot look at; remove one of the two",
        )
    if identity.subject is not None:
        if not identity.subject.startswith("/") or "?" in identity.subject:
            yield ("identity", "subject"), "is not a path; write one such as /messages/{id}"
        elif "id" not in placeholders(identity.subject):
            yield ("identity", "subject"), "is the same for all resources; put {id} into it"


def _status(definition: Definition) -> Iterator[Finding]:
    status = definition.status
    if (status.path is None) == (status.always is None):
        yield ("status",), "needs either `path`, where the status stands, or `always`"
    if status.path is not None and not status.map:
        yield ("status", "map"), "is missing; give each of the provider's values its word"
    if status.always is not None and status.map:
        yield ("status", "map"), "belongs to `path`; remove one of the two"
    words = set(status.map.values()) | ({status.always} if status.always else set())
    if UNKNOWN in words:
        yield ("status", "map"), f"{UNKNOWN!r} is the word of values that no table knows; choose another one"
    named: list[tuple[Place, str]] = [(("status", "finals", index), word) for index, word in enumerate(status.finals)]
    named += [(("status", "about", word), word) for word in status.about]
    named += [(("status", "follows", word), word) for word in status.follows]
    named += [
        (("status", "follows", word, index), after)
        for word, later in status.follows.items()
        for index, after in enumerate(later)
    ]
    for place, word in named:
        if word not in words:
            yield place, f"{word!r} is no status; write one of {', '.join(sorted(words))}"
    for word in sorted(words - set(status.finals)):
        if not status.follows.get(word):
            yield (
                ("status", "follows"),
                f"{word!r} is not final and nothing follows it; add what does, or make it final",
            )
    if status.ignore_case and len({value.lower() for value in status.map}) < len(status.map):
        yield ("status", "map"), "two values differ only in case; remove one, or `ignore_case`"


def _facts(definition: Definition) -> Iterator[Finding]:
    for name, spec in definition.facts.fields.items():
        place: Place = ("facts", "fields", name)
        if name in DATA_FIELDS:
            yield place, "every event has a field of this name; choose another one"
        if spec.privacy != "none" and not names_person(name):
            example = f"{name}_phone" if spec.privacy == "phone" else f"{name}_reference"
            yield place, f"a sink would not mask it, for its name does not say that it is personal; write {example}"


def _errors(definition: Definition) -> Iterator[Finding]:
    plain: set[int] = set()
    for index, rule in enumerate(definition.errors):
        place: Place = ("errors", index)
        statuses = rule.status if isinstance(rule.status, list) else [] if rule.status is None else [rule.status]
        if not statuses and not rule.body:
            yield place, "fits every answer; give it a `status` or a `body`"
        for status in statuses:
            if status in plain:
                yield (*place, "status"), f"an earlier rule takes every {status}; put this one before it"
            else:
                yield from _error_status(place, rule, status)
        yield from _error_rule(definition, place, rule)
        if not rule.body:
            plain |= set(statuses)


def _error_status(place: Place, rule: ErrorRule, status: int) -> Iterator[Finding]:
    if not _LOWEST_STATUS <= status <= _HIGHEST_STATUS:
        yield (*place, "status"), f"{status} is no HTTP status; write one such as 429"
    elif rule.then == "empty" and (status >= _FAILED_STATUS or status in _NEVER_EMPTY):
        yield (*place, "then"), f"{status} is a failure, and read as nothing it loses events; write `retry`"


def _error_rule(definition: Definition, place: Place, rule: ErrorRule) -> Iterator[Finding]:
    for path in rule.body:
        try:
            JsonPath.parse(path)
        except ValueError as error:
            yield (*place, "body", path), str(error)
    if rule.then in {"narrow", "too_old"} and definition.window is None:
        yield (*place, "then"), f"`{rule.then}` belongs to a window; write `retry`"
    if rule.pause is not None and rule.then != "retry":
        yield (*place, "pause"), "belongs to `then: retry`; remove it"


def _pages(definition: Definition) -> Iterator[Finding]:
    pages = definition.listing.pages
    if pages is None:
        return
    own = [("cursor", pages.cursor.param)] if pages.cursor else []
    for kind, counted in (("offset", pages.offset), ("number", pages.number)):
        if counted is not None:
            own += [(kind, name) for name in (counted.param, counted.size_param) if name]
    for kind, param in own:
        if param in definition.listing.params:
            yield ("listing", "params", param), f"`listing.pages.{kind}` sets this parameter; remove it here"
    if pages.cap is not None and definition.window is None:
        yield ("listing", "pages", "cap"), "needs a `window`, of which less can be asked"


def _events(definition: Definition) -> Iterator[Finding]:
    for key in ("channel", "provider"):
        if getattr(definition.events, key) == INTERNAL_CHANNEL:
            yield ("events", key), "is the bridge's own; choose another word"
    for index, link in enumerate(definition.docs):
        if not link.startswith(("https://", "http://")):
            yield ("docs", index), "is no address of a page; begin with https://"


def _expand(definition: Definition) -> Iterator[Finding]:
    expand, identity = definition.listing.expand, definition.identity
    if expand is None:
        return
    if (
        len(expand.options) != 1
        or not expand.options[0]
        or not all(isinstance(step, str) for step in expand.options[0])
    ):
        yield ("listing", "expand"), "is not the path of one list; write one such as $.recipients"
        return
    steps = expand.options[0]
    ids = [path for path in (identity.key, identity.within) if path is not None]
    if not any(option[: len(steps)] == steps for path in ids for option in path.options):
        yield (
            ("identity", "within"),
            f"is missing; all members of {expand.text} would have one id. Give a path below {expand.text}",
        )
    if definition.follow is not None:
        yield ("listing", "expand"), "makes several items of one, which `follow` cannot look at; remove one of the two"


def _built_in(definition: Definition) -> Iterator[Finding]:
    known = built_in(definition)
    if not known:
        return
    remedy = "the bridge itself has events of this provider; choose another word for `events.provider`"
    for word in {*definition.status.map.values(), definition.status.always} - {*known, None}:
        yield ("status", "map"), f"{word!r} is none of {', '.join(known)}: {remedy}"
    fields = data_model(definition).model_fields
    for name in definition.facts.fields:
        if name not in fields:
            yield ("facts", "fields", name), f"events do not have this field: {remedy}"


_RULES: tuple[Rule, ...] = (
    _settings, _references, _shape, _window, _feed, _push, _identity, _status, _facts, _errors, _pages, _expand,
    _events, _built_in,
)  # fmt: skip
