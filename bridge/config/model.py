"""The model of the configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SerializeAsAny,
)

from bridge.config import yaml_document
from bridge.config.showing import mask_url, shown_settings
from bridge.config.types import EMBEDDED, Address, BrokerUrl, Listen, Size, StoreUrl, check_exchange
from bridge.config.yaml_document import Document, Place
from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.domain.namespace import Namespace, check_namespace
from bridge.domain.settings import Duration, Secret, Settings
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import SourceSettings


def default_state(environ: Mapping[str, str]) -> Path:
    """Return where state is kept unless the file says otherwise."""
    if environ.get("BRIDGE_STATE_DIR"):
        return Path(environ["BRIDGE_STATE_DIR"])
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "bridge"
    return Path(environ.get("HOME") or "~") / ".local/state/bridge"


def _expanded(path: Path) -> Path:
    """Return a path with its home directory, or as it is if nobody knows that directory: see `has_no_home`."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def has_no_home(path: Path) -> bool:
    """Return whether a path begins with a home directory that nobody knows."""
    return path.parts[:1] != () and path.parts[0].startswith("~")


# --- the model ----------------------------------------------------------------------------------------------------


class HttpSettings(Settings):
    """The server of /livez, /readyz and /metrics."""

    listen: Address | None = Listen("127.0.0.1", 8080)
    """HOST:PORT; port 0 is any free one, null is no server at all."""
    reload: bool = False
    """Whether `POST /-/reload` has this file read again, as SIGHUP does."""


class LogSettings(Settings):
    """What is written on stderr."""

    format: Literal["auto", "json", "console"] = "auto"
    """`json`: one object a line. `console`: lines for a person. `auto`: console on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""


class JournalSettings(Settings):
    """How long events are kept for replay and tracing; what was not relayed and settled is never given up."""

    keep: Duration = Field(default=168 * 3600.0, gt=0)
    """For how long."""
    max_bytes: Size = Field(default=10**9, gt=0)
    """How much, for each source."""


class ReconcileSettings(Settings):
    """How often each source's books are compared with its provider's own account, as `bridgectl reconcile` does."""

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
    namespace: Annotated[str, AfterValidator(check_namespace)] = ""
    """The name of this installation among those that share a server: it goes into keys, queues, files of the state
    directory, and the exchange's default."""
    exchange: Annotated[str, AfterValidator(check_exchange)] = Field(
        default_factory=lambda checked: Namespace(checked.get("namespace", "")).exchange
    )
    """The durable topic exchange; with a namespace, by default `bridge-NAMESPACE.events`."""
    http: HttpSettings = HttpSettings()
    """The server of /livez, /readyz and /metrics."""
    log: LogSettings = LogSettings()
    """What is written on stderr."""
    state: Annotated[Path, AfterValidator(_expanded)] = Field(default_factory=lambda: default_state(os.environ))
    """The directory of the embedded store and broker; by default $BRIDGE_STATE_DIR, $XDG_STATE_HOME/bridge, or
    ~/.local/state/bridge."""
    journal: JournalSettings = JournalSettings()
    """How long events are kept for replay and tracing."""
    reconcile: ReconcileSettings = ReconcileSettings()
    """How often each source's books are compared with its provider's own account."""
    privacy_key: Secret | None = None
    """The key of the tokens of `privacy: token`; by default a random key, made once and kept in the store."""
    drain_timeout: Duration = Field(default=25.0, gt=0)
    """How long work in flight may take to end when the service is told to stop."""
    lease: Duration = Field(default=15.0, ge=1)
    """How long a process holds a source without renewing its lease. After that, another process takes over."""
    claim: Duration = Field(default=15.0, ge=1)
    """How long a process holds a delivery without renewing; then what a killed process had in flight is sent again."""
    audit: Duration = Field(default=10.0, ge=0.1)
    """The time between two audits, which find events that the broker lost; longer than a message needs from broker to
    store."""
    reload: Literal["signal", "watch"] = "signal"
    """When this file is read again: on SIGHUP alone, or also (`watch`) within seconds of its change."""
    sources: dict[str, SerializeAsAny[SourceSettings]] = Field(default_factory=dict)
    """What is polled: a name, and the settings of an installed source."""
    sinks: dict[str, SerializeAsAny[SinkSettings]] = Field(default_factory=dict)
    """What gets the events: a name, and the settings of an installed sink."""

    _document: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> str:
        """The file that this was read from, as it was named."""
        return self._document.file if self._document else "<configuration>"

    @property
    def names(self) -> Namespace:
        """How this installation calls what it owns on shared servers."""
        return Namespace(self.namespace)

    @property
    def store_url(self) -> str:
        """The store's URL in the clear, also where it is the default."""
        return self.store.reveal() if self.store else f"sqlite:///{self.state / f'{self.names.stem}.db'}"

    @property
    def broker_file(self) -> Path:
        """The file of the embedded broker."""
        return self.state / (f"broker-{self.namespace}.db" if self.namespace else "broker.db")

    @property
    def broker_url(self) -> str:
        """The broker's URL in the clear; `embedded` for the one that needs no server."""
        return self.broker.reveal() if self.broker else EMBEDDED

    def problem(self, place: Place, text: str) -> ConfigError:
        """Return the error that something in this file cannot be used, for what shows itself only later."""
        if self._document:
            return ConfigError([self._document.problem(place, text)])
        return ConfigError([ConfigProblem(self.file, None, yaml_document.format_path(place), text)])

    def show(self) -> dict[str, Any]:
        """Return the effective configuration with all defaults, as plain values; secrets are masked."""
        shown = shown_settings(self, ())
        urls = {"store": mask_url(self.store_url), "broker": mask_url(self.broker_url)}
        return urls | {key: value for key, value in shown.items() if key.removesuffix("_file") not in urls}
