"""The typer application, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ragzip.cli import compress, evaluate, expand, index, inspect, models, query, train, tune
from ragzip.cli.console import complain, writes_unicode
from ragzip.errors import RagzipError

# typer carries its own copy of click from 0.2x on; these are its errors, whichever copy it is.
_ClickUsageError, _ClickException = typer.BadParameter.__mro__[1:3]

_WORKS = {"index", "eval", "sweep", "recommend", "train"}  # commands that leave something behind, perhaps half of it
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

app = typer.Typer(
    name="ragzip",
    help="Retrieve, compress, answer: the same answers from a fraction of the tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(index.app, name="index")
app.command("query")(query.query)
app.command("compress")(compress.compress)
app.command("expand")(expand.expand)
app.command("eval")(evaluate.evaluate)
app.command("compare")(evaluate.compare)
app.command("sweep")(tune.sweep)
app.command("recommend")(tune.recommend)
app.command("train")(train.train)
app.command("sets")(evaluate.sets)
app.command("check")(inspect.check)
app.command("list")(inspect.list_)
app.command("show")(inspect.show)
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        from ragzip import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
    threads: int | None = typer.Option(None, "--threads", min=1, help="CPU threads for models.", show_default=False),
) -> None:
    # How long idle OpenMP threads spin. The default is long: with one other busy process on two cores, generation was
    # 7 to 20 times slower. This much is as fast on an idle machine and bears company; a value that is set stays.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if threads is not None:
        os.environ["RAGZIP_THREADS"] = str(threads)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 fine, 1 failure, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and gives the exit code. Failures are one message on standard error."""
    _write_what_can_be_written()
    try:
        code = app(args=list(arguments), standalone_mode=False)
        sys.stdout.flush()
    except RagzipError as error:
        complain(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted", "")
        return 130
    except BrokenPipeError:
        return _reader_gone(arguments)
    except SystemExit as stop:  # typer has met it before us
        if not isinstance(stop.__context__, OSError) or stop.__context__.errno != errno.EPIPE:
            raise
        return _reader_gone(arguments)
    except Exception as error:  # noqa: BLE001 - the last resort: never a traceback at a user
        if isinstance(error, _ClickException):
            return _wrong_call(error)
        return _unexpected(error)
    if code == 130:  # typer answers Ctrl-C by itself, and says nothing
        complain("interrupted", "")
    return code if isinstance(code, int) else 0


def _write_what_can_be_written() -> None:
    """Where the terminal's encoding lacks a letter, its number is written: no answer is lost for a dash.

    Streams that the caller closed are empty ones.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if not writes_unicode(stream) and isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _reader_gone(arguments: Sequence[str]) -> int:
    """The exit code where the reader went away, as in ``ragzip list | head``: what only shows has done its work."""
    _abandon_stdout()
    return int(any(argument in _WORKS for argument in arguments[:3]))


def _abandon_stdout() -> None:
    """Points standard output nowhere, so that what is left in its buffer does not fail once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wrong_call(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        typer.echo(context.get_help(), err=True)
    else:
        usage = context.get_usage() if isinstance(error, _ClickUsageError) and context is not None else ""
        complain(error.format_message(), usage)
    return int(error.exit_code)


def _unexpected(error: Exception) -> int:
    if os.environ.get("RAGZIP_DEBUG"):
        raise error
    if isinstance(error, OSError) and error.errno in _FULL:
        _abandon_stdout()
        complain(f"the disk is full{f' at {error.filename}' if error.filename else ''}", "Free space and run it again.")
    elif isinstance(error, MemoryError):
        complain("out of memory", "Close other programs, or use fewer passages at a time.")
    elif isinstance(error, OSError):
        complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", "")
    else:
        first = str(error).strip().split("\n")[0][:300]
        complain(
            f"unexpected {type(error).__name__}: {first}",
            "This is a defect of ragzip; set RAGZIP_DEBUG=1 for the traceback and report it.",
        )
    return 1
