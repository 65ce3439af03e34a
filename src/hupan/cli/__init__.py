"""The command line. Each command imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hupan.cli import audit, call, coins, protocol, run, server, user
from hupan.cli.common import Parser, fail
from hupan.version import __version__

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The command line, down to its last option."""
    made = Parser(
        prog="hupan",
        description="Hupan (湖畔): an account server for Yunhu clients, its SDK's companion "
        "and its tools.",
        fill=_commands,
    )
    made.add_argument(
        "--version", action="version", version=f"hupan {__version__}", help="Show the version."
    )
    return made


def _commands(hupan: Parser) -> None:
    for module in (server, run, protocol, call, user, coins, audit):
        module.register(hupan)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; what a person can mend is one line, not a traceback.

    Args:
        words: the arguments; those of the process unless given.

    Raises:
        SystemExit: always, with the exit code.
    """
    values = vars(parser().parse_args(words))
    command, extra = values.pop("_run"), values.pop("_extra")
    try:
        code = command(**values)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("hupan", "") or not extra:
            raise
        fail(f"this command needs {name}: pip install 'hupan[{extra}]'", code=2)
    except EOFError:
        fail("nobody answers")
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Who reads has read enough. What is left must not be flushed into the pipe at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
