"""What a message says: templates of the configuration, over the events of the message and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import ChainableUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.plugin import Event, Permanent

MAX_BODY_CHARACTERS = 500_000
"""Characters of a body that are sent; mail servers refuse messages of a few megabytes."""
MAX_SUBJECT_CHARACTERS = 200
"""Characters of a subject."""

SUBJECT = "{{ title }}{% if count == 1 %} · {{ event.subject }}{% endif %}"
TEXT = """\
{% for event in events[:100] -%}
{{ event.title }}
  resource   {{ event.subject }}
  time       {{ event.time }}
  source     {{ event.source }}
{%- if event.data.phone %}
  phone      {{ event.data.phone }}
{%- endif %}
{%- if event.data.error or event.data.reason %}
  reason     {{ event.data.error or event.data.reason }}
{%- endif %}
  id         {{ event.id }}

{% endfor -%}
{% if count > 100 %}and {{ count - 100 }} more
{% endif %}"""
_ENVIRONMENTS = {
    html: ImmutableSandboxedEnvironment(undefined=ChainableUndefined, autoescape=html, keep_trailing_newline=True)
    for html in (False, True)
}


def check(template: str, *, html: bool = False) -> str:
    """Return a template that can be compiled; raises `ValueError` that says where it cannot."""
    try:
        _ENVIRONMENTS[html].from_string(template)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"is no template: {error.message}" + (f" (line {line})" if line else "")) from None
    return template


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says, within its limits: a subject of one line, a text, and the same as HTML if that is set."""

    subject: str
    text: str
    html: str | None


class Templates:
    """The templates of one sink, compiled. Values are put in as text: none is read as a template or as markup."""

    def __init__(self, subject: str, text: str, html: str | None) -> None:
        self._subject = _ENVIRONMENTS[False].from_string(subject)
        self._text = _ENVIRONMENTS[False].from_string(text)
        self._html = None if html is None else _ENVIRONMENTS[True].from_string(html)

    def render(self, events: Sequence[Event]) -> Content:
        """Return what a message about these events says; raises `Permanent` if a template fails."""
        views = [_view(event) for event in events]
        names = {"events": views, "event": views[0], "count": len(views), "title": _title(views)}
        try:
            return Content(
                subject=one_line(self._subject.render(names), MAX_SUBJECT_CHARACTERS) or _title(views),
                text=_plain(self._text.render(names)),
                html=None if self._html is None else _plain(self._html.render(names)),
            )
        except Exception as error:  # noqa: BLE001 - a template can raise whatever Python raises; its text has the values
            raise Permanent(f"a template of the message fails with {type(error).__name__}; correct it") from None


def one_line(text: str, limit: int) -> str:
    """Return a text for a header: printable characters on one line, so that nothing in it begins another header.

    What looks like an encoded word (`=?…?=`) is broken up: the library would decode it, line ends and all.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in _plain(text)).split())
    line = line.replace("=?", "= ?")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _plain(text: str) -> str:
    """Return a text that can be encoded: lone surrogates are replaced, and what is too much is cut."""
    return text[:MAX_BODY_CHARACTERS].encode("utf-8", "replace").decode()


def _view(event: Event) -> dict[str, Any]:
    return {**event.model_dump(mode="json"), "topic": event.topic, "title": _words(event)}


def _words(event: Event) -> str:
    stem = event.type.removeprefix("bridge.").replace(".", " ").replace("_", " ")
    return f"{stem}: {event.data.detail.replace('_', ' ')}" if event.data.detail else stem


def _title(views: Sequence[dict[str, Any]]) -> str:
    if len(views) == 1:
        return str(views[0]["title"])
    ranking = Counter(str(view["title"]) for view in views).most_common(3)
    return f"{len(views)} events: " + ", ".join(f"{title} ({count})" for title, count in ranking)
