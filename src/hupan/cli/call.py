"""`hupan login`, `hupan logout` and `hupan call …`: the SDK on the command line.

The commands below `call` are made by walking the table: their options are the fields of the row's
request. Neither the token nor a password is ever an argument, since arguments can be read in the
list of processes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hupan.cli.common import Parser, ask, fail, json_option, say, secret

if TYPE_CHECKING:
    from hupan.client import Client, Question
    from hupan.protocol.row import Row

__all__ = ["register"]

#: Fields that are asked for instead of being options.
SECRETS = ("password",)
DEFAULT_URL = "http://127.0.0.1:8790"
DEFAULT_WEB_URL = "http://127.0.0.1:8791"
#: The code of a refusal because of the token.
NOT_LOGGED_IN = -101


def register(hupan: Parser) -> None:
    """Add the commands and the group."""
    command = hupan.command(login)
    command.add_argument("--email", help="Log in with a password.")
    command.add_argument("--phone", help="Log in with a code by short message.")
    _server(command)
    _server(hupan.command(logout))
    hupan.group(
        "call", "Call any endpoint; the token is HUPAN_TOKEN, or that of `hupan login`.", _rows
    )


def _rows(call: Parser) -> None:
    """Add a command for every row of the table."""
    from hupan.protocol.message import fields
    from hupan.protocol.row import Host
    from hupan.protocol.table import rows

    for row in rows():
        command = call.command(_call(row), row.name.replace("_", "-"), summary=row.summary)
        for field in fields(row.request):
            if field.name not in SECRETS:
                command.add_argument(
                    "--" + field.name.replace("_", "-"), type=field.type, default=field.default
                )
        _server(command)
        if row.host is Host.WEB:
            _address(command, "--web-server", "web", "HUPAN_WEB_SERVER", DEFAULT_WEB_URL)
        json_option(command)


def _server(command: Parser) -> None:
    _address(command, "--server", "API", "HUPAN_SERVER", DEFAULT_URL)


def _address(command: Parser, option: str, host: str, variable: str, default: str) -> None:
    command.add_argument(
        option,
        metavar="URL",
        default=os.environ.get(variable) or default,
        help=f"The {host} host; else that of {variable}, else {default}.",
    )


@contextmanager
def _client(url: str, web_url: str = "", *, token: str = "") -> Iterator[Client]:
    """A client with a lent token, or else the stored one; what goes wrong ends with one line."""
    import httpx2

    from hupan.client import Client, Refused, TokenFile

    try:
        # A lent token is for this one run: nothing is read for it, and it is not stored.
        store = None if token else TokenFile()
        with Client(url, web_url=web_url, token=token, store=store) as client:
            yield client
    except Refused as refused:
        reason = f"refused, code {refused.code}: {_plain(refused.msg)}"
        if refused.retry_after is not None:
            reason += f" (retry after {refused.retry_after} s)"
        if refused.code == NOT_LOGGED_IN:
            reason += " (log in with `hupan login`)"
        fail(reason)
    except httpx2.HTTPStatusError as error:
        fail(f"{error.request.url} answered HTTP {error.response.status_code}")
    except httpx2.TransportError as error:
        fail(_plain(f"{url} cannot be reached: {type(error).__name__} {error}".rstrip()))
    except (httpx2.RequestError, httpx2.InvalidURL, ValueError, OverflowError, OSError) as error:
        fail(_plain(str(error) or type(error).__name__))


def _plain(text: object) -> str:
    """One line without control characters: what a server says must not steer the terminal."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in str(text)
    )


def login(*, email: str | None, phone: str | None, server: str) -> None:
    """Log in and keep the token for `hupan call`."""
    if bool(email) == bool(phone):
        fail("give either --email or --phone")
    with _client(server) as client:
        if email:
            client.login_with_password(email, secret("Password"))
        elif phone:
            client.login_with_phone(phone, _ask)
        print(f"logged in at {server} as {_plain(client.info().name)}")


def _ask(question: Question) -> str:
    if question.reason:
        print(f"refused: {_plain(question.reason)}", file=sys.stderr)
    if question.kind == "code":
        return ask(f"Code sent to {question.to}")
    with tempfile.TemporaryDirectory(prefix="hupan-captcha-") as folder:
        picture = Path(folder) / "captcha.png"
        picture.write_bytes(question.picture)
        return ask(f"The four characters in {picture}")


def logout(*, server: str) -> None:
    """End the session of `hupan login` and forget its token."""
    from hupan.client import Refused

    with _client(server) as client:
        if not client.token:
            fail(f"not logged in at {server}")
        try:
            client.logout()
        except Refused as refused:
            # The session had ended by itself, and the client has forgotten the token.
            if refused.code != NOT_LOGGED_IN:
                raise
    print(f"logged out at {server}")


def _show(answer: Any) -> None:
    """An answer for people: a table, or names beside values."""
    # A wrapper with nothing but one thing in it tells nobody anything.
    while isinstance(answer, dict) and len(answer) == 1:
        (inside,) = answer.values()
        if not isinstance(inside, dict | list):
            break
        answer = inside
    if isinstance(answer, list):
        say([dict(enumerate(_cells(one))) for one in answer], as_json=False)
    else:
        say(dict(_flat(answer)), as_json=False)


def _cells(value: Any) -> list[str]:
    """One line of a table."""
    cells = value.values() if isinstance(value, dict) else [value]
    return [
        _plain(json.dumps(one, ensure_ascii=False) if isinstance(one, dict | list) else one)
        for one in cells
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The names and values of an answer; what is inside another has a dotted name."""
    for key, inside in value.items():
        name = prefix + _plain(key)
        if isinstance(inside, dict):
            yield from _flat(inside, f"{name}.")
        elif isinstance(inside, list):
            for number, one in enumerate(inside, start=1):
                yield f"{name}.{number}", "  ".join(_cells(one))
        else:
            yield name, _plain(inside)


def _call(row: Row[..., Any, Any]) -> Callable[..., None]:
    """What calls a row with the options that were given."""

    def run(*, server: str, web_server: str = "", as_json: bool, **values: Any) -> None:
        import msgspec

        from hupan.protocol.message import Nothing, fields

        names = [field.name for field in fields(row.request) if field.name in SECRETS]
        asked = {name: secret(name.capitalize()) for name in names}
        with _client(server, web_server, token=os.environ.get("HUPAN_TOKEN", "")) as client:
            answer = client.call(row, row.make(**values, **asked))
        told = {"code": 1, "msg": "success"}
        if not isinstance(answer, Nothing):
            told = msgspec.to_builtins(answer)
        if as_json:
            say(told, as_json=True)
        else:
            _show(told)

    return run
