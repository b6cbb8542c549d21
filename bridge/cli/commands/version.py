"""`bridgectl version`: which version this is, and of what it consists."""

from __future__ import annotations

import platform

import click

from bridge import __version__
from bridge.cli.support.options import Command, json_option
from bridge.cli.support.output import print_json, print_line


@click.command(
    cls=Command,
    examples="""
    bridgectl version
    bridgectl version --json
    """,
)
@json_option
def version(*, as_json: bool) -> None:
    """Print the version of the bridge; --json adds that of Python, and the platform."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        print_line(f"bridge {__version__}")
