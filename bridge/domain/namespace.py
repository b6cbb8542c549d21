"""How an installation calls what it owns on servers that it shares with others: each name begins with one stem."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,29}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """The names of one installation: `bridge` and what follows it, or `bridge-NAME` and what follows that.

    The stems of two namespaces never begin with each other up to the `.` or `:` that ends them, so that one pattern
    gives a user the rights of one installation and of no other.
    """

    name: str = ""

    @property
    def stem(self) -> str:
        """What all names begin with."""
        return f"bridge-{self.name}" if self.name else "bridge"

    @property
    def exchange(self) -> str:
        """The topic exchange, unless the configuration names another one."""
        return f"{self.stem}.events"

    @property
    def tap_prefix(self) -> str:
        """What the queues of taps begin with."""
        return f"{self.stem}.tap."

    def sink_queue(self, sink: str) -> str:
        """Return the name of a sink's queue."""
        return f"{self.stem}.sink.{sink}"


DEFAULT = Namespace()
"""The namespace without a name, which every installation has had from the first version on."""


def check_namespace(value: str) -> str:
    """Return the name of a namespace; raises `ValueError` that says which names are allowed."""
    if value and not _NAME.fullmatch(value):
        raise ValueError("must be up to 30 lower-case letters, digits, '-' and '_', and begin with a letter or digit")
    return value
