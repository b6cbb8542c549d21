"""The command line: a command's module is imported when that command is called, and not for `bridge --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from bridge import __version__
from bridge.cli.support.errors import report_error
from bridge.cli.support.options import Exit, Group
from bridge.cli.support.running import guard_descriptors, guard_interpreter

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "demo": "See the bridge at work with nothing to set up.",
    "run": "Run the service.",
    "check": "Check a configuration, then everything it names.",
    "tail": "Print events as they are published.",
    "sources": "Show how each source is doing.",
    "watch": "Follow single messages.",
    "backfill": "Fetch a past range of a source.",
    "reconcile": "Compare a provider's counts with our events.",
    "trace": "Tell one resource's life, from poll to delivery.",
    "replay": "Send journalled events to one sink again.",
    "replay-tape": "Make events of recorded answers, offline.",
    "diff-tape": "Compare what two configurations make of recorded answers.",
    "deliveries": "Work on what waits, and on dead letters.",
    "plugins": "List the installed sources and sinks.",
    "providers": "List, write and try definitions of providers.",
    "config": "Write, show and describe configurations.",
    "events": "List the events, and their schemas.",
    "simulate": "Serve the simulated providers.",
}
"""Each command with its short help; `bridge.cli.commands.NAME` has a command `NAME`, with `_` for each dash."""


class _Lazy(Group):
    """Knows its commands by name, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"bridge.cli.commands.{name}"), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples="""
    bridge demo                                    see it work, now
    bridge config new > bridge.yaml                write a configuration to start from
    bridge check -c bridge.yaml                    try everything it names, without sending anything
    bridge run -c bridge.yaml                      run it
    BRIDGE_CONFIG=bridge.yaml bridge tail          the variable stands for -c everywhere
    eval "$(_BRIDGE_COMPLETE=bash_source bridge)"  completion for bash; also zsh_source, fish_source
    """,
)
@click.version_option(__version__, prog_name="bridge", message="%(prog)s %(version)s")
def cli() -> None:
    """Push the delivery statuses of messaging providers as typed events.

    Answers go to stdout, logs to stderr.

    \b
    Exit codes:
      0    done; also after Ctrl-C where a command runs until then
      1    a failure at run time, or a check that found something
      2    wrong usage
      3    bad configuration; a line for each problem is on stderr
      4    something it needs is unreachable
      130  interrupted before it was done
    """  # noqa: D301 - click's mark for lines to be kept is the control character itself


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with one of the documented exit codes."""
    guard_descriptors()
    guard_interpreter()
    code = _run(args)
    _drain_logs()
    sys.exit(code)


def _drain_logs() -> None:
    if "bridge.observability.logging" in sys.modules:  # otherwise nothing was logged
        from bridge.observability.logging import drain_logs

        drain_logs()


def _run(args: Sequence[str] | None) -> int:
    try:
        result = cli.main(args, prog_name="bridge", standalone_mode=False)
    except click.Abort as error:
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        click.echo("bridge: interrupted" if interrupted else "bridge: no answer, so nothing was done", err=True)
        return Exit.INTERRUPTED if interrupted else Exit.FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a line and an exit code
        return report_error(error)
    return int(result) if isinstance(result, int) else Exit.DONE
