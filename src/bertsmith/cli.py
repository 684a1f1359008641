"""The command line: one table, verb -> function.

Errors for people are one line on stderr and an exit code (1 failed, 2 wrong usage, 130 or 143 stopped by a signal after
saving); anything else is a defect of ours and shows its traceback. PyTorch takes a second or two to import, so what
needs it is imported by the verbs that do.
"""

import errno
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import typer

from bertsmith.commands import (
    ask,
    board,
    bring_in,
    compare,
    compress,
    corpus,
    data,
    diagnose,
    evaluate,
    examples,
    export,
    plan,
    predict,
    probe,
    recipes,
    report,
    search,
    serve,
    texts,
    tokenizer,
)
from bertsmith.commands.options import same_command
from bertsmith.errors import BertsmithError, Stopped
from bertsmith.openmp import wait_asleep

app = typer.Typer(
    name="bertsmith",
    help="Raw text in, a BERT of your own out: trained, understood, made small, and served.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run")(recipes.run)
app.command("pretrain")(recipes.pretrain)
app.command("finetune")(recipes.finetune)
app.command("search")(search.search)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("fill-mask")(texts.fill_mask)
app.command("generate")(texts.generate)
app.command("extract-features")(texts.extract_features)
app.command("report")(report.report)
app.command("diagnose")(diagnose.diagnose)
app.command("board")(board.board)
app.command("probe")(probe.probe)
app.command("plan")(plan.plan)
app.command("init")(data.init)
app.command("fetch")(recipes.fetch)
app.command("serve")(serve.serve)
app.add_typer(compress.app, name="compress")
app.command("index")(ask.index)
app.command("ask")(ask.ask)
app.command("card")(export.card)
app.command("push")(export.push)
app.add_typer(export.app, name="export")
app.add_typer(bring_in.app, name="import")
app.add_typer(data.app, name="data")
app.add_typer(corpus.app, name="corpus")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(examples.app, name="examples")


_DISK = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "make it writable"}
"""Errors of a disk, wherever they come, and what helps: no defect of ours, and what is whole on it stays whole."""


def main() -> None:
    """Entry point of the `bertsmith` command."""
    wait_asleep()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _stop)
    try:
        app()
    except Stopped as stopped:
        sys.stderr.write(f"bertsmith: {stopped}\n")
        _leave(stopped.exit_code)
    except BertsmithError as error:
        _complain(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains as it leaves
        sys.exit(1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"error: {where}{error.strerror}; {_DISK[error.errno]}, and give the same command again", 1)


def _stop(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """Outside training loops, which save first: unwind, so that half-written stages are removed."""
    raise Stopped(signal_number, same_command())


def _leave(exit_code: int) -> NoReturn:
    """End the process, without waiting for threads that still compile: what is worth keeping is saved."""
    threads = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def _complain(message: str, exit_code: int) -> NoReturn:
    sys.stderr.write(f"bertsmith: {message}\n")
    sys.exit(exit_code)
