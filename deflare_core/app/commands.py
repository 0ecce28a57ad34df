"""The command line: a table of every command, and the program that runs one of them.

To add a command, write its function in a file of this folder and give it a row here and a line in the README. Its
arguments follow from the function's parameters, as `arguments.py` says.
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from deflare_core import __version__
from deflare_core.system.errors import MOST_SAID, DeflareError, make_plain, quote, shorten
from deflare_core.system.signals import Terminated, raise_termination, resend_dropped


class Command(NamedTuple):
    """A command: its name, what it does, and the file of this folder that holds its function."""

    name: str
    about: str
    file: str

    def load(self) -> Callable[..., int | None]:
        """The function that runs the command; only its file is imported."""
        return getattr(import_module(f"deflare_core.app.{self.file}"), self.name.replace("-", "_"))


OF_INPUT = (MemoryError, OverflowError, RecursionError)
"""What input too large, too far or too deep raises where nothing has measured it."""
COMMANDS = (
    Command("simulate", "Make a folder of simulated pairs.", "recordings"),
    Command("verify", "Report what two folders of recordings hold; 1 if something is wrong with them.", "recordings"),
    Command("info", "Say what a recording is, what is odd about it, and what would mend it.", "recordings"),
    Command("encode", "Write a recording's windows as a voxel file.", "recordings"),
    Command("decode", "Write a recording drawn from a voxel file.", "recordings"),
    Command("convert", "Write a recording of any format as HDF5, npz, npy or csv.", "recordings"),
    Command("train", "Train a network; 130 if a signal stopped it before its last step.", "runs"),
    Command("curves", "Draw the training curves of a run.", "runs"),
    Command("evaluate", "Score a checkpoint or other methods, the untouched input first.", "score"),
    Command(
        "roc", "Draw how well a checkpoint tells flare's events from all others; --set-level makes use of it.", "score"
    ),
    Command("compare", "Score a checkpoint, every baseline and the oracle into a report of its own.", "score"),
    Command("ablate", "Train and score variants of a training configuration, and write one table of them.", "runs"),
    Command("combine", "Make a checkpoint of two networks that judge every event together.", "runs"),
    Command("import-weights", "Make a checkpoint from published weights.", "runs"),
    Command("infer", "Deflare a recording, or every recording of a folder.", "infer"),
    Command("view", "Show a recording in a browser, before and after, through all of its time.", "view"),
    Command("video", "Film a recording, or two side by side: before and after.", "pictures"),
    Command("sheet", "Picture a recording, or two, from its start to its end: before and after.", "pictures"),
    Command("pictures", "Picture a window of a recording, or of two, in 3-D, as a series and as bins.", "pictures"),
    Command("benchmark", "Measure this machine's speed: network, training step, whole windows.", "machine"),
    Command("notebook", "Run a notebook with parameters, or show it as an app.", "machine"),
    Command("completion", "Print what completes commands and options in bash.", "completion"),
    Command("doctor", "Check the installation; 1 if a part of it does not work.", "machine"),
)
"""Every command, in the order in which `deflare --help` lists them."""


def main(words: list[str] | None = None) -> int:
    """Run one command, and return its exit status: 0 if it did what was asked, 1 after an error.

    The user can mend a DeflareError or an OSError, and reads it in one line; a programming error keeps its traceback.
    """
    prepare_output()
    # It warns twice where its folder of settings cannot be written, and takes a temporary one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    words = sys.argv[1:] if words is None else words
    command = find_command(words)
    try:
        with raise_termination(), resend_dropped():
            # Help on all commands needs none of the libraries that the arguments of one are made with.
            from deflare_core.app.arguments import read_arguments

            function = command.load()
            return function(**read_arguments(function, command.name, command.about, words[1:])) or 0
    except (DeflareError, OSError, *OF_INPUT) as error:
        message, status = f"error: {describe_error(error).removeprefix(f'deflare {command.name}: ')}", 1
    except (KeyboardInterrupt, Terminated) as stop:
        message = "interrupted; nothing half-written was left. Run it again to go on."
        status = stop.code if isinstance(stop, Terminated) else 130
    print(f"deflare {command.name}: {message}", file=sys.stderr)
    return status


class PlainFormatter(logging.Formatter):
    """Warnings in one line each, whatever the names of files and what is in them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return make_plain(super().format(record))


def prepare_output() -> None:
    """Let warnings be lines of plain text, and what a terminal's code lacks be written as escapes."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def find_command(words: list[str]) -> Command:
    """The command that the first word names; help and version end the program, as does any other word."""
    parser = argparse.ArgumentParser("deflare", description="Remove lens flare from event-camera recordings.")
    parser.add_argument("--version", action="version", version=f"deflare {__version__}")
    rows = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        rows.add_parser(command.name, help=command.about, add_help=False)
    check_command(words, parser)
    name = parser.parse_args(words[:1]).command
    return next(command for command in COMMANDS if command.name == name)


def check_command(words: list[str], parser: argparse.ArgumentParser) -> None:
    """End the program if the first word is no command or option, with the nearest that there is."""
    word = words[0] if words else "--help"
    kind, names = "command", [command.name for command in COMMANDS]
    if word.startswith("-"):
        kind, names = "option", ["--help", "--version", "-h"]
    if word not in names:
        near = difflib.get_close_matches(word, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
        parser.error(f"there is no {kind} {quote(word)}; {hint}")


def describe_error(error: Exception) -> str:
    """What an error says in one line; of one of the operating system its words and its file, without its number."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({make_plain(shorten(error))}); close other programs, or ask for less."
    if isinstance(error, OSError) and error.strerror:
        return make_plain(f"{error.filename}: {error.strerror}." if error.filename else error.strerror)
    return make_plain(shorten(error, MOST_SAID))
