"""The command line: a command's module is imported when that command is called, and not for `bridgectl --help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bridge import __version__
from bridge.cli.support.broken_pipe import end_output, has_reader
from bridge.cli.support.errors import report_error, report_usage
from bridge.cli.support.notes import print_error
from bridge.cli.support.options import Exit, Group
from bridge.cli.support.output import make_streams_lenient
from bridge.cli.support.program import NAME, NAMES, typed_name
from bridge.cli.support.running import guard_descriptors, guard_interpreter

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "Write a configuration, by a few questions.",
    "demo": "See the bridge at work with nothing to set up.",
    "run": "Run the service.",
    "check": "Check a configuration, then everything it names.",
    "tail": "Print events as they are published.",
    "status": "Say whether all is well.",
    "sources": "Show how each source is doing.",
    "sinks": "Show how each sink is doing.",
    "pause": "Have a source or a sink rest.",
    "resume": "Have a source or a sink work again.",
    "mute": "Have a sink not get events for a time.",
    "mutes": "List what is muted.",
    "unmute": "End a mute.",
    "poll": "Have a source polled now.",
    "watch": "Follow single messages.",
    "hooks": "Tell a provider where to push.",
    "backfill": "Fetch a past range of a source.",
    "reconcile": "Compare a provider's counts with our events.",
    "trace": "Tell one resource's life, from poll to delivery.",
    "replay": "Send journalled events to one sink again.",
    "replay-tape": "Make events of recorded answers, offline.",
    "diff-tape": "Compare what two configurations make of recorded answers.",
    "deliveries": "Work on what waits, and on dead letters.",
    "takeover": "Say that store and broker are this installation's.",
    "plugins": "List the installed sources and sinks.",
    "providers": "List, write and try definitions of providers.",
    "config": "Write, show and describe configurations.",
    "events": "List the events, and their schemas.",
    "simulate": "Serve the simulated providers.",
    "completion": "Print what makes a shell complete names.",
    "help": "Show the help of a command.",
    "version": "Print the version.",
}
"""Each command with its short help; `bridge.cli.commands.NAME` has a command `NAME`, with `_` for each dash."""


class _Lazy(Group):
    """Knows its commands by name, and imports one when it is called. A reader of the output may go at any time."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _until_reader_goes():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _until_reader_goes():
            return super().invoke(ctx)

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


@contextmanager
def _until_reader_goes() -> Iterator[None]:
    """End the command well when nobody reads its output any more, as `head` does when it has seen enough."""
    try:
        yield
    except BrokenPipeError:
        if has_reader(sys.stdout):
            raise
        raise click.exceptions.Exit(Exit.DONE) from None


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples="""
    bridgectl demo                                    see it work, now
    bridgectl init                                    write a configuration to start from
    bridgectl check -c bridge.yaml                    try everything it names, without sending anything
    bridgectl run -c bridge.yaml                      run it
    bridgectl help watch add                          the help page of a command
    BRIDGE_CONFIG=bridge.yaml bridgectl tail          the variable stands for -c everywhere
    eval "$(bridgectl completion bash)"               names are completed by the Tab key
    """,
)
@click.version_option(__version__, prog_name="bridge", message="%(prog)s %(version)s")
def cli() -> None:
    """Push the delivery statuses of messaging providers as typed events.

    Answers go to stdout, logs to stderr. Without -c, a command reads the file that BRIDGE_CONFIG names, else
    ./bridge.yaml, $XDG_CONFIG_HOME/bridge/bridge.yaml (~/.config), or /etc/bridge/bridge.yaml, and says which it is.

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
    make_streams_lenient()
    guard_interpreter()
    code = _run(args)
    _drain_logs()
    end_output()
    sys.exit(code)


def _drain_logs() -> None:
    if "bridge.observability.logging" in sys.modules:  # otherwise nothing was logged
        from bridge.observability.logging import drain_logs

        drain_logs()


def _run(args: Sequence[str] | None) -> int:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    try:
        result = cli.main(args, prog_name=_name(), standalone_mode=False, color=False if plain else None)
        sys.stdout.flush()
    except click.Abort as error:
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        print_error("interrupted" if interrupted else "no answer, so nothing was done")
        return Exit.INTERRUPTED if interrupted else Exit.FAILED
    except click.ClickException as error:
        report_usage(error)
        return error.exit_code
    except BrokenPipeError:
        return Exit.FAILED if has_reader(sys.stdout) else Exit.DONE
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a line and an exit code
        return report_error(error)
    return int(result) if isinstance(result, int) else Exit.DONE


def _name() -> str:
    """Return the name for usage lines, and for the variable by which a shell asks for completions."""
    name = PurePath(typed_name()).name
    return name if name in NAMES else typed_name() if typed_name().endswith(" bridge") else NAME
