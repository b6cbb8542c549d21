"""`bridgectl completion`: what makes a shell complete commands, options and names."""

from __future__ import annotations

from pathlib import PurePath

import click

from bridge.cli.support.options import Command, SuggestingChoice
from bridge.cli.support.output import print_text
from bridge.cli.support.program import NAME, NAMES, typed_name

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    examples="""
    eval "$(bridgectl completion bash)"                                     now, and in ~/.bashrc from then on
    bridgectl completion zsh > ~/.zfunc/_bridgectl                           zsh, with ~/.zfunc in $fpath
    bridgectl completion fish > ~/.config/fish/completions/bridgectl.fish    fish
    """,
)
@click.argument("shell", type=SuggestingChoice(SHELLS), metavar="[bash|zsh|fish]")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options, and the names of a configuration.

    Sources, sinks, topics, plugins and events are completed. Only the names in the configuration file are read: nothing
    is connected to, and no secret is needed. The file is that of -c, or the first in the usual places.
    """
    from click.shell_completion import get_completion_class

    name = PurePath(typed_name()).name
    name = name if name in NAMES else NAME
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"nothing is known of the shell {shell!r}")
    print_text(made(context.find_root().command, {}, name, f"_{name.upper()}_COMPLETE").source())
