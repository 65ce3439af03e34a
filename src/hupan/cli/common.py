"""What the commands share: opening the world as an operator, and saying things."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from hupan.accounts.context import Context
    from hupan.accounts.people import Account
    from hupan.settings import Settings

__all__ = ["fail", "find", "moment", "operator", "read_moment", "read_settings", "say"]

_SPAN = re.compile(r"^(\d+)([smhdwy])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def fail(reason: str) -> NoReturn:
    """End with one line on standard error."""
    print(f"hupan: {reason}", file=sys.stderr)
    raise SystemExit(1)


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
