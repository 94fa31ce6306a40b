"""`omg-seg`: one module per command. Nothing heavy is imported before a command runs, so `--help` answers at once."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from omg_transformers.cli import compare, convert, data, doctor, evaluate, heads, score, segment, video

USAGE_ERROR = 2
FAILURE = 1

COMMANDS = {
    "segment": segment,
    "video": video,
    "evaluate": evaluate,
    "compare": compare,
    "score": score,
    "data": data,
    "heads": heads,
    "doctor": doctor,
    "convert": convert,
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, then how to get help; the whole usage would hide the message."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"omg-seg: error: {message}\nSee: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="omg-seg", description="Segment pictures and videos, and look after OMG-Seg models.")
    parser.add_argument("--version", action="store_true", help="show the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.SUMMARY, description=module.__doc__)
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    _check_command(parser, arguments)
    options = parser.parse_args(arguments)
    if options.version:
        from omg_transformers import __version__

        print(f"omg-transformers {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return USAGE_ERROR
    try:
        return COMMANDS[options.command].run(options)
    except BrokenPipeError:  # who reads the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except KeyboardInterrupt:
        print("omg-seg: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(f"omg-seg: error: {describe(error)}", file=sys.stderr)
        return FAILURE


def describe(error: BaseException) -> str:
    """An error as one line of text."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, KeyError) and error.args:
        text = f"missing {error.args[0]!r}"
    else:
        text = str(error) or type(error).__name__
    notes = getattr(error, "__notes__", [])
    return " ".join(" ".join([text, *notes]).split())


def _check_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    if first is None or first in COMMANDS:
        return
    nearest = difflib.get_close_matches(first, COMMANDS, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    parser.error(f"there is no command {first!r}: commands are {', '.join(COMMANDS)}.{hint}")
