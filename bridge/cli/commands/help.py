"""`bridgectl help`: the help page of a command, by its name alone."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from bridge.cli.support.options import Command, Exit, Group
from bridge.cli.support.output import print_text


def _complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    command, inner = context.find_root().command, context.find_root()
    for word in context.params.get("command") or ():
        following = command.get_command(inner, word) if isinstance(command, Group) else None
        if following is None:
            return []
        command = following
    names = command.list_commands(inner) if isinstance(command, Group) else []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(
    cls=Command,
    examples="""
    bridgectl help            all commands
    bridgectl help tail       the same as `tail --help`
    bridgectl help watch add
    """,
)
@click.argument("command", nargs=-1, metavar="[COMMAND]...", shell_complete=_complete)
@click.pass_context
def help(context: click.Context, command: tuple[str, ...]) -> Exit:  # noqa: A001 - the command's own name
    """Show the help of a command, or of the whole program."""
    page = context.find_root()
    for word in command:
        if not isinstance(page.command, Group):
            raise click.UsageError(f"{page.command_path} has no commands of its own", page)
        _, chosen, _ = page.command.resolve_command(page, [word])
        if chosen is None:
            page.command.fail_unknown(page, word)
        page = click.Context(chosen, parent=page, info_name=word)
    print_text(page.command.get_help(page))
    return Exit.DONE
