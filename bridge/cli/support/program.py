"""The name by which this program was started: what it says about itself can be typed as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePath

NAME = "bridgectl"
"""The name in all texts of the code: iproute2 has a `bridge` of its own."""
NAMES = (NAME, "bridge")
_WORD = re.compile(rf"(?<![\w/.-]){NAME}(?![\w/.-])")


def command_name(typed: Sequence[str], which: Callable[[str], str | None] = shutil.which) -> str:
    """Return what starts this program once more, for a command line that began with these words.

    That is the program's name where PATH leads to this very file, and the file's path where it does not.
    """
    program = typed[0] if typed else NAME
    name = PurePath(program).name
    if PurePath(program).parts[-2:] == ("bridge", "__main__.py"):
        return f"{shlex.quote(typed[-1])} -m bridge"
    if name not in NAMES:
        return NAME
    return name if _is_same(which(name), program) else shlex.quote(program)


def _is_same(path: str | None, program: str) -> bool:
    if path is None:
        return "/" not in program
    return "/" not in program or (Path(program).exists() and Path(path).samefile(program))


@cache
def typed_name() -> str:
    """Return what starts this process's program once more."""
    return command_name((sys.argv[0], sys.orig_argv[0]))


def in_typed_name(text: str) -> str:
    """Return a text in which the program has the name that was typed."""
    name = typed_name()
    return text if name == NAME else _WORD.sub(lambda _: name, text)
