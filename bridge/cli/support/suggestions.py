"""What somebody may have meant who typed a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable

import click

_MAX_NAMES_SHOWN = 12
"""Names that a message lists."""
_COMMAND_LIKENESS = 0.7
"""The share of characters that a command has in common with a misspelled one: commands are few, and not alike."""
_HABITS = {
    "add": ("watch",),
    "begin": ("run",),
    "delete": ("remove", "discard"),
    "dead-letters": ("deliveries",),
    "dlq": ("deliveries",),
    "doctor": ("check",),
    "follow": ("watch", "tail"),
    "import": ("backfill",),
    "lint": ("check",),
    "listen": ("tail",),
    "log": ("tail",),
    "logs": ("tail",),
    "ls": ("list",),
    "new": ("init",),
    "ps": ("status", "sources"),
    "requeue": ("redrive",),
    "resend": ("replay",),
    "retry": ("redrive",),
    "rm": ("remove", "discard"),
    "serve": ("run",),
    "setup": ("init",),
    "start": ("run",),
    "status": ("sources",),
    "subscribe": ("tail",),
    "test": ("check",),
    "unwatch": ("remove",),
    "up": ("run",),
    "validate": ("check",),
    "verify": ("check",),
}
"""Commands of other programs, and what does the same here."""


def nearest(given: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the name that is most like the given one, upper and lower case and `_` and `-` aside.

    `likeness` is the share of characters that it must have in common, from 0 to 1.
    """
    import difflib

    by_form = {_form(name): name for name in known}
    near = difflib.get_close_matches(_form(given), by_form, n=1, cutoff=likeness)
    if near:
        return by_form[near[0]]
    begun = [name for form, name in by_form.items() if form.startswith(_form(given))]
    return begun[0] if len(begun) == 1 else None


def _form(name: str) -> str:
    return name.lower().replace("_", "-")


def nearest_command(given: str, known: Iterable[str]) -> str | None:
    """Return the command that was meant: the most similar one, or what another program calls so."""
    names = list(known)
    habits = [name for name in _HABITS.get(_form(given), ()) if name in names]
    return habits[0] if habits else nearest(given, names, _COMMAND_LIKENESS)


def remedy(given: str, known: Iterable[str], otherwise: str = "there is none") -> str:
    """Return `did you mean 'x'?`, or what there is to choose from."""
    names = list(known)
    near = nearest(given, names)
    if near is not None:
        return f"did you mean {near!r}?"
    if not names:
        return otherwise
    more = f" and {len(names) - _MAX_NAMES_SHOWN} more" if len(names) > _MAX_NAMES_SHOWN else ""
    return f"there is {', '.join(names[:_MAX_NAMES_SHOWN])}{more}"


def no_such(kind: str, given: str, known: Iterable[str], place: str = "in the configuration") -> click.UsageError:
    """Return the error that there is no such source, sink or other part, with the name that was meant."""
    return click.UsageError(f"there is no {kind} {given!r} {place}; {remedy(given, known)}")
