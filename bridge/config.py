"""The configuration file: its model, and how it is read, checked and shown."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SerializeAsAny,
    WithJsonSchema,
)

from bridge import document, plugins
from bridge.document import Document, Place
from bridge.errors import ConfigError, Problem
from bridge.settings import MASK, Duration, Secret, Settings
from bridge.sink import SinkSettings
from bridge.source import SourceSettings
from bridge.validation import validate

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(\d+)\s*([kKMGT]i?)?B", re.ASCII)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>\d{1,5})", re.ASCII)
_EXCHANGE = re.compile(r"[A-Za-z0-9._:-]{1,127}")
STORES = ("redis", "rediss", "unix", "sqlite")
BROKERS = (
    "amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel", "unix", "memory", "filesystem", "sqs", "sqlalchemy",
    "sqla", "mongodb", "kafka", "confluentkafka", "zookeeper", "consul", "etcd", "qpid", "pgmq", "gcpubsub",
    "azureservicebus", "azurestoragequeues", "librabbitmq", "slmq", "pyro",
)  # fmt: skip
EMBEDDED = "embedded"
S = TypeVar("S", bound=Settings)


# --- the words ----------------------------------------------------------------------------------------------------


class _Bytes(int):
    """A size that was read already."""


def _size(value: Any) -> _Bytes:
    if isinstance(value, _Bytes):
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a size; write a number and a unit, such as 500MB, 1GB or 2GiB")
    unit = found[2] or ""
    return _Bytes(int(found[1]) * _SIZES["k" if unit == "K" else unit])


def _format_size(size: int) -> str:
    units = sorted(_SIZES.items(), key=lambda each: -each[1])
    unit, factor = next(
        (unit, factor) for unit, factor in units if factor == 1 or (size >= factor and size % factor == 0)
    )
    return f"{size // factor}{unit}B"


Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(_format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*([kKMGT]i?)?B$", "examples": ["500MB", "1GB", "2GiB"]}),
]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens; an empty host is every address of the machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen(value: Any) -> Any:
    if isinstance(value, Listen) or value is None:
        return value
    found = _HOST.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or int(found["port"]) > 65535:  # noqa: PLR2004 - the highest port there is
        raise ValueError("is not HOST:PORT; write such as 127.0.0.1:8080, [::1]:8080, or :8080 for every address")
    return Listen(found["six"] or found["host"], int(found["port"]))


Address = Annotated[
    Listen,
    BeforeValidator(_listen),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8080"]}),
]


def mask_url(url: str, *, path: bool = False) -> str:
    """Return a URL without its password and the values of its query, and with `path` without its path."""
    head, mark, query = url.partition("?")
    head = re.sub(r"^([A-Za-z0-9+.-]+://)(?:([^:/@]*):)?.*@", _masked_login, head)
    if path:
        head = re.sub(r"^([A-Za-z0-9+.-]+://[^/]+/).+$", rf"\g<1>{MASK}", head)
    return head + mark + re.sub(r"(^|&)([^=&]*)=[^&]*", rf"\1\2={MASK}", query)


def _masked_login(found: re.Match[str]) -> str:
    user = "" if found[2] is None else f"{found[2]}:"
    return f"{found[1]}{user}{MASK}@"


def _shown_url(secret: Secret | None) -> str | None:
    return None if secret is None else MASK if secret.path else mask_url(secret.reveal())


def _url(known: tuple[str, ...], example: str) -> Callable[[Secret], Secret]:
    def check(secret: Secret) -> Secret:
        url = secret.reveal()
        scheme, mark, _ = url.partition("://")
        if not mark:
            raise ValueError(f"is not a URL; write one such as {example}")
        base = scheme.partition("+")[0].lower()
        if base not in known:
            near = difflib.get_close_matches(base, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"write one such as {example}"
            shown = f"the scheme {base!r}" if re.fullmatch(r"[a-z][a-z0-9.-]{0,19}", base) else "its scheme"
            raise ValueError(f"{shown} is not known; {meant}")
        try:
            _ = base != "sqlite" and not re.search("[;,]", url) and urlsplit(url).port
        except ValueError:
            raise ValueError(f"its host or port cannot be read; write one such as {example}") from None
        if base == "sqlite" and not sqlite_path(url):
            raise ValueError("names no file; write one after it, with four slashes where its path is absolute")
        if not all(map(_has_database, url.split(";"))):
            raise ValueError("names a database that is no number; Redis has numbers, such as redis://localhost:6379/0")
        return secret

    return check


_DATABASE = {
    r"(redis|rediss|sentinel)": r"/*\d*/*",
    r"rediss?\+sentinel": r"[^/]*(/\d*)?",
    r"rediss?\+cluster": r"0?",
}
"""What the path of a Redis URL may be, by scheme; its libraries take a word for database 0, or fail later."""


def _has_database(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    plain, _, query = rest.partition("?")
    path = plain.partition("/")[2]
    form = next((form for schemes, form in _DATABASE.items() if re.fullmatch(schemes, scheme.lower())), None)
    if form is not None and not re.fullmatch(form, path, re.ASCII):
        return False
    of_redis = form is not None or scheme.lower() == "unix"
    return not of_redis or all(number.isdecimal() for number in parse_qs(query).get("db", ()))


def sqlite_path(url: str) -> str:
    """Return the file of a `sqlite:///PATH` URL: as elsewhere in Python, a fourth slash makes the path absolute."""
    rest = url.partition("://")[2]
    return rest.removeprefix("/") if rest.startswith("/") else ""


StoreUrl = Annotated[
    Secret,
    AfterValidator(_url(STORES, "redis://localhost:6379/0 or sqlite:///bridge.db")),
    PlainSerializer(_shown_url, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["redis://localhost:6379/0", "sqlite:////var/lib/bridge/bridge.db"]}),
]
_check_broker = _url(BROKERS, "amqp://guest:guest@localhost:5672// or redis://localhost:6379/1")
BrokerUrl = Annotated[
    Secret,
    AfterValidator(lambda secret: secret if secret.reveal() == EMBEDDED else _check_broker(secret)),
    PlainSerializer(_shown_url, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["amqp://guest:guest@localhost:5672//", EMBEDDED]}),
]


def _exchange(value: str) -> str:
    if not _EXCHANGE.fullmatch(value) or value.startswith("amq."):
        raise ValueError("must be 1 to 127 letters, digits, '.', '_', ':' or '-', not beginning with amq.")
    return value


def default_state(environ: Mapping[str, str]) -> Path:
    """Return where state is kept unless the file says otherwise."""
    if environ.get("BRIDGE_STATE_DIR"):
        return Path(environ["BRIDGE_STATE_DIR"])
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "bridge"
    return Path(environ.get("HOME") or "~") / ".local/state/bridge"


# --- the model ----------------------------------------------------------------------------------------------------


class HttpSettings(Settings):
    """The server of /livez, /readyz and /metrics."""

    listen: Address | None = Listen("127.0.0.1", 8080)
    """HOST:PORT; port 0 is any free one, null is no server at all."""


class LogSettings(Settings):
    """What is written on stderr."""

    format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for a person."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""


class JournalSettings(Settings):
    """How long events are kept for replay and tracing; what was not relayed and settled is never given up."""

    keep: Duration = Field(default=168 * 3600.0, gt=0)
    """For how long."""
    max_bytes: Size = Field(default=10**9, gt=0)
    """How much, for each source."""


class ReconcileSettings(Settings):
    """How often each source's books are compared with its provider's own account, as `bridge reconcile` does."""

    every: Duration | None = Field(default=3600.0, gt=0)
    """How often; a difference that two checks in a row find is published once. Null is never."""


class Config(Settings):
    """The whole file, checked. `load` makes one."""

    store: StoreUrl | None = None
    """What the bridge remembers: redis://HOST:PORT/DB, or sqlite:///PATH (a fourth slash makes it absolute); by default
    sqlite, a file under the state directory."""
    broker: BrokerUrl | None = None
    """Where events are published: amqp://…, redis://… or any kombu URL; by default `embedded`, a file under the state
    directory."""
    exchange: Annotated[str, AfterValidator(_exchange)] = "bridge.events"
    """The durable topic exchange."""
    http: HttpSettings = HttpSettings()
    """The server of /livez, /readyz and /metrics."""
    log: LogSettings = LogSettings()
    """What is written on stderr."""
    state: Annotated[Path, AfterValidator(lambda path: path.expanduser())] = Field(
        default_factory=lambda: default_state(os.environ)
    )
    """The directory of the embedded store and broker; by default $BRIDGE_STATE_DIR, $XDG_STATE_HOME/bridge, or
    ~/.local/state/bridge."""
    journal: JournalSettings = JournalSettings()
    """How long events are kept for replay and tracing."""
    reconcile: ReconcileSettings = ReconcileSettings()
    """How often each source's books are compared with its provider's own account."""
    privacy_key: Secret | None = None
    """What the tokens of `privacy: token` are made with; by default a random key, made once and kept in the store."""
    drain_timeout: Duration = Field(default=25.0, gt=0)
    """How long work in hand may take to end when the service is told to stop."""
    lease: Duration = Field(default=15.0, ge=1)
    """How long a process holds a source without renewing; after that another one takes over."""
    claim: Duration = Field(default=15.0, ge=1)
    """How long a process holds a delivery without renewing; what a killed one had in hand is sent again after that."""
    audit: Duration = Field(default=10.0, ge=0.1)
    """Between two looks for events that the broker lost; longer than a message needs from broker to store."""
    sources: dict[str, SerializeAsAny[SourceSettings]] = Field(default_factory=dict)
    """What is polled: a name, and the settings of an installed source."""
    sinks: dict[str, SerializeAsAny[SinkSettings]] = Field(default_factory=dict)
    """Who is told: a name, and the settings of an installed sink."""

    _document: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> str:
        """The file that this was read from, as it was named."""
        return self._document.file if self._document else "<configuration>"

    @property
    def store_url(self) -> str:
        """The store's URL in the clear, also where it is the default."""
        return self.store.reveal() if self.store else f"sqlite:///{self.state / 'bridge.db'}"

    @property
    def broker_url(self) -> str:
        """The broker's URL in the clear; `embedded` for the one that needs no server."""
        return self.broker.reveal() if self.broker else EMBEDDED

    def problem(self, place: Place, text: str) -> ConfigError:
        """Return the error that something in this file cannot be used, for what shows itself only later."""
        if self._document:
            return ConfigError([self._document.problem(place, text)])
        return ConfigError([Problem(self.file, None, document.spell(place), text)])

    def show(self) -> dict[str, Any]:
        """Return the effective configuration with all defaults, as plain values; secrets are masked."""
        shown = _shown(self, ())
        urls = {"store": mask_url(self.store_url), "broker": mask_url(self.broker_url)}
        return urls | {key: value for key, value in shown.items() if key.removesuffix("_file") not in urls}


# --- reading ------------------------------------------------------------------------------------------------------


def load(path: Path | str, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file; raises `ConfigError` with everything that is wrong with it.

    Only the plugins that the file names are imported. Nothing else happens: no connection, no directory.
    """
    environ = os.environ if environ is None else environ
    text = document.read(Path(path), environ)
    problems = list(text.problems)
    sources = _parts("source", SourceSettings, text, problems)
    sinks = _parts("sink", SinkSettings, text, problems)
    if "sources" not in text.values or text.values["sources"] == {}:
        problems.append(
            text.problem(("sources",), "there is no source to poll; `bridge config new` writes one to start from")
        )
    values = {key: value for key, value in text.values.items() if key not in ("sources", "sinks")}
    values.setdefault("state", str(default_state(environ)))
    checked = validate(Config, {**values, "sources": sources, "sinks": sinks}, (), text)
    if not isinstance(checked, Config):
        problems += checked
    if problems or not isinstance(checked, Config):
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda each: each.line or 0))
    checked._document = text  # noqa: SLF001 - a private attribute of the very model that this function makes
    return checked


def _parts(kind: plugins.Kind, base: type[S], text: Document, problems: list[Problem]) -> dict[str, S]:
    section = f"{kind}s"
    values = text.values.get(section, {})
    if (section,) in text.broken:
        return {}
    if not isinstance(values, dict):
        what = "is empty" if values is None else "must be a mapping"
        problems.append(text.problem((section,), f"{what}; give each {kind} a name, and its settings below that"))
        return {}
    found = {}
    for name, part in values.items():
        checked = _part(kind, name, part, text)
        if isinstance(checked, base):
            found[name] = checked
        elif isinstance(checked, list):
            problems += checked
    return found


def _part(kind: plugins.Kind, name: str, values: Any, text: Document) -> Settings | list[Problem]:
    place: Place = (f"{kind}s", name)
    if place in text.broken:
        return []
    problems = []
    if not _NAME.fullmatch(name):
        what = "a name has up to 100 lower-case letters, digits, '-' and '_', and begins with a letter or digit"
        problems.append(text.problem(place, what))
    if not isinstance(values, dict):
        what = f"must be a mapping; give the {kind} a `type:` and its settings"
        return [*problems, text.problem(place, what)]
    try:
        settings = _settings(kind, place, values, text)
    except ConfigError as error:
        return problems + error.problems
    checked = validate(settings, values, place, text)
    return problems + checked if isinstance(checked, list) else problems or checked


def _settings(kind: plugins.Kind, place: Place, values: dict[str, Any], text: Document) -> type[Settings]:
    """Return the model of the plugin that `type:` names; raises `ConfigError`, empty where it was said already."""
    at = (*place, "type")
    if at in text.broken:
        raise ConfigError([])
    named = values.get("type")
    try:
        if isinstance(named, str) and named:
            return plugins.load(kind, named).settings
    except plugins.PluginError as error:
        raise ConfigError([text.problem(at, error.reason)]) from error
    known = ", ".join(plugins.installed(kind)) or "none"
    what = "must be the name of a plugin" if "type" in values else "is missing"
    raise ConfigError([text.problem(at, f"{what}; installed {kind}s: {known}")])


# --- showing ------------------------------------------------------------------------------------------------------

_SECRETIVE = re.compile(r"token|secret|passw|api_?key|authorization|credential", re.IGNORECASE)


def _shown(settings: Settings, place: Place) -> dict[str, Any]:
    plain = settings.model_dump(mode="json")
    shown: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Secret) and value.path:
            shown[f"{name}_file"] = str(value.path)
        else:
            shown[name] = _masked(value, plain[name], (*place, name))
    return shown


def _masked(value: Any, plain: Any, place: Place) -> Any:
    if isinstance(value, Settings):
        return _shown(value, place)
    if isinstance(plain, dict):
        inner = value if isinstance(value, Mapping) else {}
        return {key: _masked(inner.get(key), each, (*place, key)) for key, each in plain.items()}
    if isinstance(plain, list):
        inner_list = value if isinstance(value, list | tuple) and len(value) == len(plain) else plain
        return [_masked(one, each, place) for one, each in zip(inner_list, plain, strict=True)]
    if not isinstance(plain, str) or isinstance(value, Secret):
        return plain
    key = str(place[-1])
    if "://" in plain:
        # The address of a webhook often is its own secret.
        return mask_url(plain, path=place[0] == "sinks")
    return MASK if plain and _SECRETIVE.search(key) else plain
