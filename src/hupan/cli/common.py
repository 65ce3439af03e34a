"""What the commands share: their parser, opening the world as an operator, asking and saying."""

from __future__ import annotations

import argparse
import getpass
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from hupan.accounts.context import Context
    from hupan.accounts.people import Account
    from hupan.settings import Settings

__all__ = [
    "Parser",
    "ask",
    "between",
    "fail",
    "find",
    "json_option",
    "moment",
    "operator",
    "read_moment",
    "read_settings",
    "say",
    "secret",
]

_SPAN = re.compile(r"^(\d+)([smhdwy])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


class Parser(argparse.ArgumentParser):
    """A command or a group of commands, as argparse has it but for what follows.

    The commands of a group are made when they are first asked for, because the rows of `hupan call`
    take longer to load than all the rest. A slip is told by the command in which it was made, with
    what may have been meant. A group alone shows its help.

    Args:
        fill: adds the commands of a group; None for a command.
    """

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **more: Any) -> None:
        more["epilog"] = "`%(prog)s COMMAND --help` tells what a command takes." if fill else None
        super().__init__(**more, allow_abbrev=False, add_help=False)
        self.add_argument("-h", "--help", action="help", help="Show this message and exit.")
        # No option begins with a digit, so that `-2.50`, `-1e3` and `-1d` are values.
        self._negative_number_matcher = re.compile(r"-\.?\d")
        self._fill = fill

    @cached_property
    def commands(self) -> dict[str, Parser]:
        """The commands of a group by their names; none for a command."""
        if self._fill is None:
            return {}
        self._below = self.add_subparsers(title="commands", metavar="COMMAND")
        self._fill(self)
        return self._below.choices

    def group(self, name: str, summary: str, fill: Callable[[Parser], None]) -> None:
        """Add a group of commands to a group."""
        self._below.add_parser(name, fill=fill, help=summary, description=summary)

    def command(
        self,
        run: Callable[..., int | None],
        name: str = "",
        *,
        summary: str = "",
        extra: str = "",
    ) -> Parser:
        """Add a command to a group; returns it, to be given its arguments.

        Args:
            run: called with the arguments; returns the exit code, or None for 0.
            name: the name of `run` unless given.
            summary: the docstring of `run` unless given.
            extra: the extra of the distribution that the command needs.
        """
        summary = summary or inspect.getdoc(run) or ""
        made = self._below.add_parser(name or run.__name__, help=summary, description=summary)
        # No field of a row, whose options are among the arguments too, begins with an underscore.
        made.set_defaults(_run=run, _extra=extra)
        return made

    def parse_known_args(  # type: ignore[override]  # The overloads serve other namespaces.
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        if self.commands and not words:
            self.print_help(sys.stderr)
            self.exit(2)
        if self.commands and not words[0].startswith("-") and words[0] not in self.commands:
            self.error(f"no such command: {words[0]}{_meant(words[0], self.commands)}")
        found, unknown = super().parse_known_args(words, namespace)
        if unknown and unknown[0].startswith("-"):
            options = [option for one in self._actions for option in one.option_strings]
            self.error(f"no such option: {unknown[0]}{_meant(unknown[0], options)}")
        if unknown:
            self.error(f"one argument too many: {unknown[0]}")
        return found, unknown


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word.partition("=")[0], known)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def json_option(command: Parser, text: str = "Print JSON.") -> None:
    """Add `--json`, which for Python is `as_json`."""
    command.add_argument("--json", action="store_true", dest="as_json", help=text)


def between(least: int, most: int) -> Callable[[str], int]:
    """What reads an option's number and refuses one out of bounds."""

    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return int(text)

    return number


def fail(reason: str, code: int = 1) -> NoReturn:
    """End with one line on standard error."""
    print(f"hupan: {reason}", file=sys.stderr)
    raise SystemExit(code)


def ask(question: str, *, hidden: bool = False) -> str:
    """Ask on the terminal until something is said; `hidden` does not show it."""
    said = ""
    while not said:
        said = (getpass.getpass if hidden else input)(f"{question}: ")
    return said


def secret(question: str, *, twice: bool = False) -> str:
    """Ask for what must not stand in the list of processes; a pipe may bring it too."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    said = ask(question, hidden=True)
    while twice and said != ask("Once more", hidden=True):
        print("these are not the same", file=sys.stderr)
        said = ask(question, hidden=True)
    return said


def say(value: Any, *, as_json: bool) -> None:
    """Print a dict or a list of dicts, for people or for programs."""
    if as_json:
        print(json.dumps(value, ensure_ascii=False, indent=2))
        return
    for row in value if isinstance(value, list) else [value]:
        if isinstance(value, list):
            print("  ".join(str(cell) for cell in row.values()))
        else:
            width = max(map(len, row))
            for key, cell in row.items():
                print(f"{key:<{width}}  {cell}")


def read_settings(**flags: Any) -> Settings:
    """Load the settings, or end with the reason."""
    from hupan.settings import SettingsError, load

    try:
        return load(**flags)
    except SettingsError as error:
        fail(str(error))


@contextmanager
def operator() -> Iterator[Context]:
    """Work by the same rules as the wire, with the operator as the actor in the audit."""
    from sqlalchemy.exc import DBAPIError

    from hupan.accounts.context import Actor
    from hupan.accounts.operation import operation
    from hupan.accounts.refusals import Refusal
    from hupan.migrations import HEAD, current
    from hupan.outside.database import SqlDatabase
    from hupan.server.app import build_world
    from hupan.settings import SettingsError

    settings = read_settings()
    try:
        world, _ = build_world(settings)
    except SettingsError as error:
        fail(str(error))
    assert isinstance(world.database, SqlDatabase)
    try:
        if current(world.database.engine) != HEAD:
            fail("the schema is not up to date; run `hupan migrate`")
        with operation(world, Actor("operator", _name())) as ctx:
            yield ctx
    except Refusal as refusal:
        fail(refusal.text(settings.language))
    except DBAPIError as error:
        fail(f"the database cannot be used: {type(error.orig).__name__}")
    finally:
        world.database.close()


def _name() -> str:
    """Who types, for the audit; in a container the number may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def find(ctx: Context, text: str) -> Account:
    """The account that an id, a number or an address names."""
    from hupan.accounts import contact, people
    from hupan.accounts.refusals import Refusal, UnknownUser

    found = people.by_text(ctx, text)
    try:
        if found is None and "@" in text:
            found = people.by_email(ctx, contact.email(text))
        elif found is None:
            found = people.by_phone(ctx, contact.phone(text))
    except Refusal:
        found = None
    if found is None:
        raise UnknownUser()
    return found


def moment(ctx: Context, span: str | None, until: str | None) -> int | None:
    """Turn `7d` or `2027-01-01 08:00` into Unix seconds; None where neither was given."""
    if span and until:
        fail("give either --for or --until")
    if span:
        match = _SPAN.match(span)
        if not match:
            fail(f"{span!r} is no span of time; write 30m, 12h, 7d, 2w or 1y")
        return _bounded(ctx.now + int(match[1]) * _SECONDS[match[2]])
    return read_moment(until, ctx.settings) if until else None


def read_moment(text: str, settings: Settings) -> int:
    """Turn `2027-01-01 08:00`, in the configured time zone, into Unix seconds."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is no moment; write 2027-01-01 or 2027-01-01 08:00")
    if when.tzinfo is None:
        when = when.replace(tzinfo=settings.zone)
    return _bounded(int(when.timestamp()))


def _bounded(seconds: int) -> int:
    """Moments before 1970 and after the year 9999 cannot be shown by anybody."""
    if not 0 < seconds <= 253_402_128_000:
        fail("this moment is too far away")
    return seconds
