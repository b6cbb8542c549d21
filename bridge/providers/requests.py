"""The vocabulary of requests: how they are signed, where they go, and how an answer leads to the next page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from bridge.domain.settings import Duration, Settings
from bridge.http.client import Origin
from bridge.providers.paths import JsonPath
from bridge.providers.times import TimeFormat

Scalar = bool | int | float | str
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def placeholders(path: str) -> Iterator[str]:
    """Yield the names in a path's braces."""
    yield from (match[1] for match in _PLACEHOLDER.finditer(path))


def filled(path: str, values: Mapping[str, Any]) -> str:
    """Return a path with the values of settings for their names; `{id}` stays."""
    for name in placeholders(path):
        if name != "id":
            path = path.replace(f"{{{name}}}", quote(str(values[name]), safe=""))
    return path


def subject_parts(subject: str | None, path: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return what stands before and behind the id in the paths of resources; by default the list's `path` is before."""
    before, _, after = filled(subject or f"{path.rstrip('/')}/{{id}}", values).partition("{id}")
    return before, after


def expander(path: JsonPath) -> Callable[[list[Any]], list[Any]]:
    """Return the function that makes an item of each member of the list that an item has at a path."""
    read = path.reader()

    def expand(items: list[Any]) -> list[Any]:
        expanded: list[Any] = []
        for item in items:
            members = read(item)
            # An item without such a list is passed on, to be reported as what cannot be read.
            expanded += [path.write(item, member) for member in members] if isinstance(members, list) else [item]
        return expanded

    return expand


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value or "#" in value:
        raise ValueError(f"{value!r} is not a path; begin with /, and write a query under `params`")
    rest = _PLACEHOLDER.sub("", value)
    if "{" in rest or "}" in rest or not all(_NAME.fullmatch(name) for name in placeholders(value)):
        raise ValueError(f"{value!r}: braces hold the name of a setting, or id, and nothing else, such as {{account}}")
    return value


RequestPath = Annotated[str, AfterValidator(_path)]


class SettingRef(Settings):
    """A value that the configuration gives."""

    setting: str
    """The setting's name."""


class BasicAuth(Settings):
    """HTTP Basic; the values are names of settings."""

    user: str
    """The setting with the user's name."""
    password: str
    """The setting with the password."""


class HeaderAuth(Settings):
    """A header of its own."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    """The header's name."""
    value: str
    """The setting with its value."""
    prefix: str = ""
    """What stands before the value, such as `App `."""


class QueryAuth(Settings):
    """A parameter of each request; avoid it where the provider offers a header."""

    name: str
    """The parameter's name."""
    value: str
    """The setting with its value."""


class OAuth2(Settings):
    """OAuth 2 client credentials: a token is fetched, renewed early, and dropped when it is refused."""

    token_url: Origin
    """Where tokens are fetched."""
    client_id: str
    """The setting with the client's id."""
    client_secret: str
    """The setting with the client's secret."""
    scope: str | None = None
    """The scope to ask for."""
    style: Literal["basic", "form", "json"] = "basic"
    """Where the credentials stand: in a Basic header, in a form, or in JSON."""


class JwtAuth(Settings):
    """A signed token for each few minutes, sent as Bearer. It needs the extra `bridge[jwt]`."""

    algorithm: Literal["HS256", "HS512", "RS256", "RS512", "ES256", "ES512"]
    """How it is signed."""
    key: str
    """The setting with the key: a secret, or a private key in PEM."""
    claims: dict[str, Scalar | SettingRef] = Field(default_factory=dict)
    """Claims in addition to `iat`, `exp` and `jti`."""
    ttl: Duration = Field(default=900.0, ge=60, le=86400)
    """How long a token is good."""


class LoginAuth(Settings):
    """A request that signs in: its answer has a token, which is renewed early, and dropped when it is refused."""

    path: RequestPath
    """Where to sign in, by POST; `{NAME}` stands for a setting."""
    body: dict[str, Scalar | SettingRef] = Field(min_length=1)
    """What is sent: a value, or `{setting: NAME}`."""
    style: Literal["json", "form"] = "json"
    """How it is sent."""
    token: JsonPath
    """Where the answer has the token."""
    expires: JsonPath | None = None
    """Where the answer says for how many seconds the token is good, if it does."""
    ttl: Duration = Field(default=600.0, ge=60, le=86400)
    """How long a token is used if the answer does not say."""
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$")
    """The header that carries it."""
    prefix: str = "Bearer "
    """What stands before it."""


class AuthSpec(Settings):
    """How requests prove who asks: one of these."""

    basic: BasicAuth | None = None
    """HTTP Basic."""
    bearer: str | None = None
    """`Authorization: Bearer`, with the setting that has the token."""
    header: HeaderAuth | None = None
    """A header of its own."""
    query: QueryAuth | None = None
    """A parameter of each request."""
    oauth2: OAuth2 | None = None
    """OAuth 2 client credentials."""
    jwt: JwtAuth | None = None
    """A signed token."""
    login: LoginAuth | None = None
    """A request that signs in."""

    @model_validator(mode="after")
    def _single(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"gives {', '.join(given) or 'nothing'}; give one of {known}")
        return self

    @property
    def setting_names(self) -> list[tuple[str, str, str]]:
        """Return the settings that it uses: kind, key and the setting's name."""
        names: list[tuple[str, str, str]] = []
        for kind in type(self).model_fields:
            block = getattr(self, kind)
            if isinstance(block, str):
                names.append((kind, "", block))
            keys = ("user", "password", "value", "client_id", "client_secret", "key")
            names += [(kind, key, value) for key in keys if isinstance(value := getattr(block, key, None), str)]
        return names


class TokenPages(Settings):
    """A token in the answer is a parameter of the next request."""

    token: JsonPath
    """Where an answer has it; without one, the page is the last."""
    param: str
    """The parameter that takes it."""


class OffsetPages(Settings):
    """A number of items to skip."""

    param: str = "offset"
    """The parameter with the number of items to skip."""
    size: int = Field(ge=1, le=10_000)
    """How many items a page has."""
    size_param: str | None = None
    """The parameter with the size, if the provider has one."""


class NumberPages(Settings):
    """Pages with numbers."""

    param: str = "page"
    """The parameter with the page's number."""
    first: int = Field(default=1, ge=0, le=1)
    """The number of the first page."""
    size: int = Field(ge=1, le=10_000)
    """How many items a page has."""
    size_param: str | None = None
    """The parameter with the size, if the provider has one."""


class PagesSpec(Settings):
    """How one page leads to the next: one of these, and when it ends."""

    link: JsonPath | None = None
    """Where an answer has the address of the next page."""
    header: str | None = None
    """The relation of a `Link` header that leads to the next page, usually `next`."""
    cursor: TokenPages | None = None
    """A token in the answer."""
    offset: OffsetPages | None = None
    """A number of items to skip."""
    number: NumberPages | None = None
    """Pages with numbers."""
    end: Literal["no_next", "empty", "short"] | None = None
    """When a listing ends: without a next page, at an empty page, or at one that is not full. The default is `no_next`
    for links and tokens, and `short` for offsets and numbers."""
    total: JsonPath | None = None
    """Where an answer says how many items there are."""
    cap: int | None = Field(default=None, ge=1)
    """How many items one question gives at most: if so many come, a shorter stretch of time is asked for."""

    @model_validator(mode="after")
    def _single(self) -> Self:
        kinds = ("link", "header", "cursor", "offset", "number")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"gives {', '.join(given) or 'nothing'}; give one of {', '.join(kinds)}")
        if self.end == "short" and self.offset is None and self.number is None:
            raise ValueError("end: `short` needs the size of a page, which only offset and number give; write `empty`")
        if self.end == "no_next" and self.link is None and self.header is None and self.cursor is None:
            raise ValueError("end: `no_next` needs a link or a cursor; write `short` or `empty`")
        return self

    @property
    def counted(self) -> OffsetPages | NumberPages | None:
        """Return the kind of pages that have a size."""
        return self.offset or self.number


class TimeParameter(Settings):
    """A parameter that holds a time."""

    param: str = Field(min_length=1)
    """Its name."""
    format: TimeFormat = "iso"
    """How it is written: iso, iso_ms, date, rfc2822, epoch_s, epoch_ms, or a pattern."""


class ListSpec(Settings):
    """The request that lists resources."""

    path: RequestPath
    """Its path; `{NAME}` stands for a setting."""
    params: dict[str, Scalar | SettingRef] = Field(default_factory=dict)
    """Parameters of each request: a value, or `{setting: NAME}`."""
    items: JsonPath
    """Where an answer has its list of items; `$` if it is one."""
    pages: PagesSpec | None = None
    """How one page leads to the next; without it, an answer is all there is."""
    expand: JsonPath | None = None
    """Where an item has a list of which each member is an item of its own, with all else of the item around it: a path
    to the list is then a path to the member."""
    order: Literal["newest", "oldest"] | None = None
    """Which items come first, by their creation, if the provider promises that."""


class IdsParam(Settings):
    """A parameter that takes several ids."""

    param: str
    """Its name."""
    batch: int = Field(ge=1, le=1000)
    """How many ids it takes."""
    separator: str = Field(default=",", min_length=1, max_length=3)
    """What stands between two ids."""


class LookupSpec(Settings):
    """The request for known resources."""

    path: RequestPath
    """Its path; with `{id}`, it asks for one resource."""
    params: dict[str, Scalar | SettingRef] = Field(default_factory=dict)
    """Parameters of each request."""
    ids: IdsParam | None = None
    """The parameter that takes several ids; without it, the path has `{id}`."""
    items: JsonPath = JsonPath.parse("$")
    """Where an answer has the resource, or with `ids` the list of them."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if ("id" in placeholders(self.path)) == (self.ids is not None):
            raise ValueError("path: asks either for {id} in its path, or for several by `ids`; give one of the two")
        return self
