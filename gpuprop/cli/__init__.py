"""The command line: the typer application, and the one place where errors become one line and an exit status.

Each module of this package holds one command (or two that share their options) and registers it on the application.
A command imports its modules when it runs, so that ``gpuprop --help`` and wrong options are answered at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from gpuprop.cli.console import Stream, safe_streams, warn
from gpuprop.cli.processes import complain, started_by_mpirun
from gpuprop.errors import GpupropError, NonFiniteLossError, TrainingEnded

__all__ = ["application", "main"]

FAILED, WRONG_OPTIONS, INTERRUPTED = 1, 2, 130  # exit statuses; a shell reports 130 after Ctrl-C
SIGNALLED = 128  # plus the number of the signal: 143 after SIGTERM, 129 after SIGHUP

# The base class of typer's errors about a command line, which typer itself does not export.
_ClickError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])


def application() -> typer.Typer:
    """Return the application with all its commands."""
    from gpuprop.cli import (
        bench,
        diagram,
        evaluate,
        exercise,
        explain,
        export,
        gradcheck,
        info,
        play,
        predict,
        report,
        run_list,
        selfcheck,
        trace,
        train,
        warm,
        watch,
    )
    from gpuprop.cli.help_pages import HelpPage

    app = typer.Typer(
        name="gpuprop",
        help="Backpropagation, made fast and made visible: train, check and explain multilayer perceptrons.",
        add_completion=False,
        rich_markup_mode=None,  # plain help: readable in a pipe, and without boxes
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_root)
    of_runs = (train, watch, evaluate, predict, explain, run_list, report, export)
    modules = (*of_runs, trace, diagram, play, exercise, gradcheck, selfcheck, bench, warm, info)
    for module in modules:
        module.register(app)
    for command in app.registered_commands:
        if not issubclass(command.cls or object, HelpPage):
            command.cls = HelpPage
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from gpuprop.version import __version__

        print(f"gpuprop {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv`, print any error as one line on stderr, and return the exit status."""
    with safe_streams() as output:
        status = _answer(list(argv))
        output.flush()
        if output.fault is not None and status == 0:
            return _unprinted(output, output.fault)
    return status


def _unprinted(output: Stream, fault: OSError) -> int:
    """Return the exit status of a command that succeeded, but could not print all it had to say."""
    reason = f"standard output cannot be written: {fault.strerror or fault}"
    if output.results_are_saved:
        warn(f"{reason}; the results are saved, but not all was printed")
        return 0
    if isinstance(fault, BrokenPipeError):  # the reader has seen enough, as in `gpuprop info | head -1`
        return FAILED
    return _complain(reason, FAILED)


def _answer(argv: list[str]) -> int:
    try:
        command = typer.main.get_command(application())
        # command.main() would handle Ctrl-C and broken pipes in its own way.
        with command.make_context("gpuprop", argv) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except _ClickError as error:
        return _complain(error.format_message(), WRONG_OPTIONS)
    except (KeyboardInterrupt, typer.Abort) as interrupt:
        return _complain(str(interrupt) or "interrupted", INTERRUPTED, everywhere=True)
    except TrainingEnded as ended:
        return _end(ended)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        return _complain(f"{place}{error.strerror or error}", FAILED)
    except (GpupropError, ValueError) as error:
        return _complain(str(error), FAILED, everywhere=isinstance(error, NonFiniteLossError))
    except MemoryError as error:
        return _complain(str(error) or "not enough memory", FAILED)
    except Exception as error:  # the user gets one line for any error, not a traceback
        return _complain(f"unexpected {type(error).__name__}: {error}", FAILED)
    return 0


def _end(ended: TrainingEnded) -> int:
    """Say what a signal has ended; return what a shell reports of a process that ended by it.

    SIGUSR1 is the warning that a scheduler gives before it ends a job: to have saved all by then is a success.
    """
    if ended.signal == getattr(signal, "SIGUSR1", None):
        print(f"gpuprop: {' '.join(str(ended).split())}", file=sys.stderr)
        return 0
    return _complain(str(ended), SIGNALLED + ended.signal, everywhere=True)


def _complain(message: str, status: int, *, everywhere: bool = False) -> int:
    """Print an error; `everywhere` says that every process of a training ends by it."""
    line = f"gpuprop: error: {' '.join(message.split())}"
    if started_by_mpirun():
        complain(line, everywhere=everywhere)
    else:
        print(line, file=sys.stderr)
    return status
