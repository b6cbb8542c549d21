"""Which source or sink an operator means by a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from bridge.cli.support.suggestions import no_such
from bridge.protocols.roster import PartKind

if TYPE_CHECKING:
    from bridge.config.model import Config


def parts_of(config: Config, kinds: Sequence[PartKind] = ("source", "sink")) -> list[str]:
    """Return the parts of a configuration, as `source/NAME` and `sink/NAME`."""
    names = {"source": tuple(config.sources), "sink": tuple(config.sinks)}
    return [f"{kind}/{name}" for kind in kinds for name in names[kind]]


def named_part(text: str, known: Iterable[str], what: str = "source or sink") -> str:
    """Return the part that `text` names: `NAME`, or `source/NAME` or `sink/NAME` where both have that name.

    Raises `click.UsageError` that says which name may have been meant.
    """
    parts = list(dict.fromkeys(known))
    if text in parts:
        return text
    matches = [part for part in parts if part.partition("/")[2] == text]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise click.UsageError(f"{text!r} is a source and a sink; say {' or '.join(matches)}")
    names = sorted({part.partition("/")[2] for part in parts})
    raise no_such(what, text.rpartition("/")[2], names)
