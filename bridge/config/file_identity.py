"""Tells whether another file lies at a path, or the same file with another content."""

from __future__ import annotations

import os
from pathlib import Path

FileIdentity = tuple[str, int, int, int, int]
"""Where the path leads to in the end, device and number of that file, its size, and when it was written."""


def file_identity(path: Path) -> FileIdentity | None:
    """Return what tells the file at a path from others, through all links; None if there is none that can be seen.

    A mounted Kubernetes ConfigMap is a link to a link, `..data`, that is exchanged as a whole: another file then.
    """
    try:
        status = path.stat()
        return (os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError:
        return None
