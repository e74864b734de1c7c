"""The outermost part of the command line: finds the command, and turns every end into an exit code and a line."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from visionkit import __version__
from visionkit.cli.commands import COMMANDS
from visionkit.cli.text import examples, silence_stdout, stdout_failures, tell
from visionkit.errors import VisionkitError
from visionkit.opencv_check import explained

__all__ = ["cli", "main", "run"]

EXIT_BUG, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_STDOUT_CLOSED = 1, 2, 130, 143, 141


class LazyGroup(click.Group):
    """The commands of the table, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run one command line and leave with its exit code (click's own entry, so `CliRunner` meets our codes)."""
        if "_VISIONKIT_COMPLETE" in os.environ:  # a shell asks for completions: click's own business
            super().main(args=args, prog_name="visionkit")
        sys.exit(run(sys.argv[1:] if args is None else args))


@click.group(
    cls=LazyGroup,
    epilog=examples("visionkit demo", "visionkit inspect clip.mp4", "visionkit models list", "visionkit doctor"),
)
@click.version_option(__version__, prog_name="visionkit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. May stand anywhere.")
def cli(debug: bool) -> None:
    """Keras vision networks in video and image pipelines: results as rows with true times, and as a video."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `argv` (default: the process's own) and leave with its exit code."""
    cli.main(args=argv)


def run(argv: Sequence[str]) -> int:
    """Exit code of one command line, every error already told on stderr in one line."""
    args, debug = _split_debug(list(argv))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings are not ours to show
    try:
        with _sigterm_exits(), explained():
            code = _invoke(args)
            if sys.stdout is not None:
                with stdout_failures():  # meet a full stdout here, where it has an exit code
                    sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return EXIT_STDOUT_CLOSED
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        code = _report(error, args)
    return code


def _invoke(args: list[str]) -> int:
    """Parse and run; `Context.exit` and an integer returned by a command are exit codes."""
    try:
        with cli.make_context("visionkit", args) as ctx:
            result = cli.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    except NoArgsIsHelpError as error:  # `visionkit` alone: the help page is what was wanted
        click.echo(error.ctx.get_help() if error.ctx else cli.get_help(click.Context(cli)))
        return 0
    return result if isinstance(result, int) else 0


def _report(error: BaseException, args: list[str]) -> int:
    """Tell `error` on stderr in one line and return its exit code."""
    if isinstance(error, VisionkitError):
        return tell(error.slug, error.message, error.exit_code)
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return tell("interrupted", "Stopped by Ctrl-C.", EXIT_INTERRUPTED)
    if isinstance(error, click.ClickException):
        return tell("usage", _usage_message(error, args), EXIT_USAGE)
    if isinstance(error, SystemExit):
        if error.code == EXIT_TERMINATED:
            return tell("terminated", "Stopped by SIGTERM.", EXIT_TERMINATED)
        return error.code if isinstance(error.code, int) else EXIT_BUG
    text = f"{type(error).__name__}: {error}"
    return tell("bug", f"{text} (a fault of visionkit, not yours; --debug for the traceback)", EXIT_BUG)


def _usage_message(error: click.ClickException, args: list[str]) -> str:
    """Click's message, with the remedy: `--` before a name that begins with a dash, else the page to read."""
    message = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption) and (name := _dashed_file(args)) is not None:
        return f"{message} If you mean the file {name!r}, put `--` before it: `visionkit … -- {name}`."
    ctx = getattr(error, "ctx", None)
    page = ctx.command_path if ctx else "visionkit"
    return f"{message} See `{page} --help`."


def _dashed_file(args: list[str]) -> str | None:
    options = args[: args.index("--")] if "--" in args else args
    return next((arg for arg in options if arg.startswith("-") and os.path.lexists(arg)), None)


def _split_debug(args: list[str]) -> tuple[list[str], bool]:
    """The arguments without `--debug`, wherever it stood before a `--`, and whether it stood there."""
    end = args.index("--") if "--" in args else len(args)
    kept = [arg for arg in args[:end] if arg != "--debug"]
    return kept + args[end:], len(kept) < end


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit in the main thread, so that `finally` parts clean up as for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_exit(signum: int, frame: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)
