"""The page of forms: the keys of their files, read from the models, and the functions of their expressions."""

# ruff: noqa: INP001 - a module next to the pages, and no package

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.domain.settings import Settings
from bridge.forms import loading
from bridge.forms.models import AnswerRule, AnswerRules, FormSetting, RequestForm, RequestTemplate

_INTRODUCTION = """What the file of a form may say. A sink of `type: http` names such a file, or a form that ships, by
its setting `preset`. [Your form in a page](../tutorial/your-form.md) writes one. [Send to any HTTP
endpoint](../how-to/send-to-any-http-endpoint.md) explains expressions and choices.

"""
_HEAD = """## Forms that ship

| preset | sends to | requests | escapes | own settings |
| --- | --- | --- | --- | --- |
"""
_PARTS: tuple[tuple[str, str, type[Settings]], ...] = (
    ("settings.NAME", "", FormSetting),
    ("requests[]", "A sink's own `request` has the same keys, without `when`.", RequestTemplate),
    ("answers", "A sink with a request of its own may have the same key.", AnswerRules),
    ("answers.rules[]", "", AnswerRule),
)


def forms(made: str, table: Callable[[type[Settings]], str]) -> str:
    """Return the page; `table` writes the settings of a model."""
    parts = ["# Forms of requests\n\n", made, _INTRODUCTION, "## The file of a form\n\n", table(RequestForm)]
    for place, note, model in _PARTS:
        about = " ".join(f"{model.__doc__ or ''} {note}".split())
        parts += [f"## `{place}`\n\n{about}\n\n", table(model)]
    parts += [_HEAD]
    for name in loading.shipped():
        form = loading.load(loading.find(name, Path()))
        rate = form.model_dump(mode="json")["throttle"]
        own = ", ".join(f"`{key}`" for key in form.settings) or "none"
        parts.append(f"| `{name}` | [{form.title}]({form.docs}) | {rate} | `{form.escape}` | {own} |\n")
    return "".join(parts).rstrip() + "\n"
