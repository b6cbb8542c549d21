"""A provider that a definition describes, as an HTTP server shows it: its sign-in, lists, pages and look-ups."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from bridge.domain.clock import Clock
from bridge.http import parsing
from bridge.providers.models import Definition, SettingSpec
from bridge.providers.requests import LoginAuth, SettingRef, expander, filled, subject_parts
from bridge.simulator.defined_items import DefinedItem, DefinedItems
from bridge.simulator.defined_pages import DefinedPages
from bridge.simulator.defined_world import DefinedResource, DefinedWorld
from bridge.simulator.ground_truth import ShownStatus
from bridge.simulator.provider_api import SimRequest, SimResponse, answer_json

_TOKEN_PATH = "/_token"  # noqa: S105 - a path
_TOKEN_SECONDS = 3600
_BEARER = "Bearer "


def simulated_values(definition: Definition) -> dict[str, Any]:
    """Return a value for each setting that a definition requires; secrets open nothing but the simulation."""
    return {name: _simulated(name, spec) for name, spec in definition.settings.items()}


def _simulated(name: str, spec: SettingSpec) -> Any:
    if spec.example is not None:
        return spec.example
    if spec.default is not None:
        return spec.default
    if spec.type == "choice":
        return spec.choices[0]
    return 1 if spec.type == "number" else f"simulated-{name}"


class DefinedVendor:
    """Answers as the definition says that the provider does; refuses a question that the definition would not ask."""

    def __init__(self, definition: Definition, world: DefinedWorld, clock: Clock, values: Mapping[str, Any]) -> None:
        self.provider = definition.events.provider
        self.values = values
        self.world = world
        self._definition = definition
        self._clock = clock
        self._items = DefinedItems(definition, world)
        self._pages = DefinedPages(definition)
        self._list_path = filled(definition.listing.path, values)
        lookup = self._lookup = definition.lookup
        pattern = None if lookup is None else re.escape(filled(lookup.path, values)).replace(r"\{id\}", "([^/]+?)")
        self._lookup_path = None if pattern is None else re.compile(pattern)
        before, after = subject_parts(definition.identity.subject, definition.listing.path, values)
        self._before, self._after = before, after
        self._tokens: dict[str, float] = {}
        login = definition.auth.login
        self._login_path = None if login is None else filled(login.path, values)

    def subject(self, item: DefinedItem) -> str:
        """Return the path that events have of what an item shows."""
        return f"{self._before}{'/'.join(quote(part, safe='') for part in item.key.split('/'))}{self._after}"

    def subject_of(self, resource: DefinedResource) -> str:
        """Return the path that events have of a resource."""
        return self.subject(self._items.of(resource))

    # --- answering ----------------------------------------------------------------------------------------------------

    def view(self, path: str) -> str | None:
        """Return `records`, `record` or `token`."""
        if path.endswith(_TOKEN_PATH) or path == self._login_path:
            return "token"
        if path == self._list_path:
            return "records"
        return "record" if self._lookup_path is not None and self._lookup_path.fullmatch(path) else "records"

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer."""
        if ask.view == "token":
            return self._token(ask)
        if not self._is_signed(ask):
            return answer_json({"code": 20003, "message": "Authenticate"}, 401)
        lookup = self._lookup
        if lookup is not None and lookup.ids is not None and lookup.ids.param in ask.query:
            return self._answer_many(ask, lookup.ids.param, lookup.ids.separator)
        if ask.view == "record":
            return self._answer_single(ask)
        if ask.path != self._list_path:
            return answer_json({"code": 20404, "message": "Not Found"}, 404)
        return self._list(ask)

    def _list(self, ask: SimRequest) -> SimResponse:
        try:
            items = self._items.asked_for(ask.query)
        except ValueError:
            return answer_json({"code": 20001, "message": "Bad Request"}, 400)
        shown, envelope, headers = self._pages.page(ask, items)
        payload = self._definition.listing.items.write(envelope, [self._items.listed(item) for item in shown])
        answer = answer_json(payload, shown_statuses=[self._shown(item) for item in shown])
        answer.headers |= headers
        return answer

    def _answer_single(self, ask: SimRequest) -> SimResponse:
        match = self._lookup_path.fullmatch(ask.path) if self._lookup_path is not None else None
        item = self._items.present(unquote(match[1])) if match is not None else None
        if item is None or self._lookup is None:
            return answer_json({"code": 20404, "message": "Not Found"}, 404)
        payload = self._lookup.items.write({}, item.body)
        return answer_json(payload, shown_statuses=[self._shown(item)])

    def _answer_many(self, ask: SimRequest, param: str, separator: str) -> SimResponse:
        items = [item for key in ask.query[param].split(separator) if (item := self._items.present(key)) is not None]
        assert self._lookup is not None  # noqa: S101 - the caller has looked
        payload = self._lookup.items.write({}, [item.body for item in items])
        return answer_json(payload, shown_statuses=[self._shown(item) for item in items])

    def _shown(self, item: DefinedItem) -> ShownStatus:
        return ShownStatus(self.subject(item), item.raw, None, item.mark)

    def shown_statuses(self, ask: SimRequest, payload: Any) -> list[ShownStatus]:
        """Return the statuses in a body, also in one that was tampered with."""
        lookup = self._lookup
        path = lookup.items if ask.view == "record" and lookup is not None else self._definition.listing.items
        items = path.reader()(payload)
        if ask.view == "records" and self._definition.listing.expand is not None and isinstance(items, list):
            items = expander(self._definition.listing.expand)(items)
        return [
            ShownStatus(f"{self._before}{key}{self._after}", raw, None, mark)
            for item in (items if isinstance(items, list) else [items])
            for key, raw, mark in [self._items.read(item)]
            if key is not None and raw is not None
        ]

    # --- sign-in ------------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Let every token that was given out be good for nothing from now on."""
        self._tokens.clear()

    def _is_signed(self, ask: SimRequest) -> bool:
        auth, given = self._definition.auth, ask.headers.get("Authorization", "")
        if auth.basic is not None:
            return given == f"Basic {self._pair(auth.basic.user, auth.basic.password)}"
        if auth.bearer is not None:
            return given == f"{_BEARER}{self.values[auth.bearer]}"
        if auth.header is not None:
            return bool(ask.headers.get(auth.header.name) == f"{auth.header.prefix}{self.values[auth.header.value]}")
        if auth.query is not None:
            return bool(ask.query.get(auth.query.name) == self.values[auth.query.value])
        if auth.login is not None:
            given = ask.headers.get(auth.login.header, "").removeprefix(auth.login.prefix)
        token = given.removeprefix(_BEARER)
        if auth.jwt is not None:
            return len(token.split(".")) == 3 and given.startswith(_BEARER)  # noqa: PLR2004 - header, claims, signature
        return self._tokens.get(token, 0.0) > self._clock.monotonic()

    def _pair(self, user: str, password: str) -> str:
        return base64.b64encode(f"{self.values[user]}:{self.values[password]}".encode()).decode()

    def _token(self, ask: SimRequest) -> SimResponse:
        if self._definition.auth.login is not None:
            return self._signed_in(ask, self._definition.auth.login)
        spec = self._definition.auth.oauth2
        if spec is None:
            return answer_json({"error": "not_found"}, 404)
        if spec.style == "basic":
            known = ask.headers.get("Authorization") == f"Basic {self._pair(spec.client_id, spec.client_secret)}"
        else:
            known = self._has_client(ask, str(self.values[spec.client_id]), str(self.values[spec.client_secret]))
        if not known:
            return answer_json({"error": "invalid_client"}, 401)
        return answer_json({"access_token": self._new_token(), "token_type": "Bearer", "expires_in": _TOKEN_SECONDS})

    def _new_token(self) -> str:
        token = f"simulated-access-{len(self._tokens) + 1}"
        self._tokens[token] = self._clock.monotonic() + _TOKEN_SECONDS
        return token

    def _signed_in(self, ask: SimRequest, spec: LoginAuth) -> SimResponse:
        wanted = {
            name: str(self.values[value.setting] if isinstance(value, SettingRef) else value)
            for name, value in spec.body.items()
        }
        if {name: str(value) for name, value in self._fields(ask).items()} != wanted:
            return answer_json({"error": "invalid_login"}, 401)
        payload = spec.token.write({}, self._new_token())
        return answer_json(payload if spec.expires is None else spec.expires.write(payload, _TOKEN_SECONDS))

    @staticmethod
    def _fields(ask: SimRequest) -> dict[str, Any]:
        try:
            return parsing.mapping(json.loads(ask.body))
        except ValueError:
            pairs = (part.partition("=") for part in ask.body.decode("utf-8", "replace").split("&"))
            return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}

    def _has_client(self, ask: SimRequest, client: str, secret: str) -> bool:
        fields = self._fields(ask)
        return (fields.get("client_id"), fields.get("client_secret")) == (client, secret)

    # --- books --------------------------------------------------------------------------------------------------------

    def word(self, raw: str) -> str:
        """Return the word that the topics have for a provider's value."""
        return self._items.word(raw)

    def present_statuses(self) -> dict[str, str]:
        """Return the present value of each resource, by its path."""
        return {self.subject(item): item.raw for item in self._items.all_present()}
