"""`hupan login`, `hupan logout` and `hupan call …`: the SDK on the command line.

The commands below `call` are made by walking the table: their options are the fields of the row's
request. Neither the token nor a password is ever an argument, since arguments can be read in the
list of processes.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hupan.cli.common import fail, say
from hupan.protocol.message import Nothing, fields
from hupan.protocol.row import Host, Row
from hupan.protocol.table import rows

if TYPE_CHECKING:
    from hupan.client import Client, Question

__all__ = ["app", "login", "logout"]

app = typer.Typer(
    help="Call any endpoint; the token is that of `hupan login`.", no_args_is_help=True
)

#: Fields that are asked for instead of being options.
SECRETS = ("password",)
DEFAULT_URL = "http://127.0.0.1:8790"
DEFAULT_WEB_URL = "http://127.0.0.1:8791"
#: The code of a refusal because of the token.
NOT_LOGGED_IN = -101

Url = Annotated[str, typer.Option("--server", envvar="HUPAN_SERVER", help="The API host.")]
WebUrl = Annotated[
    str, typer.Option("--web-server", envvar="HUPAN_WEB_SERVER", help="The web host.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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


def login(
    email: Annotated[str, typer.Option(help="Log in with a password.")] = "",
    phone: Annotated[str, typer.Option(help="Log in with a code by short message.")] = "",
    server: Url = DEFAULT_URL,
) -> None:
    """Log in and keep the token for `hupan call`."""
    if bool(email) == bool(phone):
        fail("give either --email or --phone")
    with _client(server) as client:
        if email:
            client.login_with_password(email, _secret("password"))
        else:
            client.login_with_phone(phone, _ask)
        print(f"logged in at {server} as {_plain(client.info().name)}")


def _ask(question: Question) -> str:
    if question.reason:
        print(f"refused: {_plain(question.reason)}", file=sys.stderr)
    if question.kind == "code":
        return str(typer.prompt(f"Code sent to {question.to}"))
    with tempfile.TemporaryDirectory(prefix="hupan-captcha-") as folder:
        picture = Path(folder) / "captcha.png"
        picture.write_bytes(question.picture)
        return str(typer.prompt(f"The four characters in {picture}"))


def logout(server: Url = DEFAULT_URL) -> None:
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


def _takes(row: Row[..., Any, Any], name: str) -> bool:
    return any(field.name == name for field in fields(row.request))


def _secret(name: str) -> str:
    """Ask for what must not stand in the list of processes; a pipe may bring it too."""
    if sys.stdin.isatty():
        return str(typer.prompt(name.capitalize(), hide_input=True))
    return sys.stdin.readline().rstrip("\n")


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


def _command(row: Row[..., Any, Any]) -> Callable[..., None]:
    def run(url: str, web_url: str, as_json: bool, **values: Any) -> None:
        import msgspec

        secret = {name: _secret(name) for name in SECRETS if _takes(row, name)}
        with _client(url, web_url, token=os.environ.get("HUPAN_TOKEN", "")) as client:
            answer = client.call(row, row.make(**values, **secret))
        told = {"code": 1, "msg": "success"}
        if not isinstance(answer, Nothing):
            told = msgspec.to_builtins(answer)
        if as_json:
            say(told, as_json=True)
        else:
            _show(told)

    def parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default
        )

    web = [parameter("web_server", WebUrl, DEFAULT_WEB_URL)] if row.host is Host.WEB else []
    signature = [
        *(
            parameter(
                field.name,
                Annotated[field.type, typer.Option("--" + field.name.replace("_", "-"))],
                field.default,
            )
            for field in fields(row.request)
            if field.name not in SECRETS
        ),
        parameter("server", Url, DEFAULT_URL),
        *web,
        parameter("as_json", Json, False),
    ]

    def command(**given: Any) -> None:
        run(given.pop("server"), given.pop("web_server", ""), given.pop("as_json"), **given)

    # Typer reads a command's options from the signature, which here is the row's request.
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]  # It is read.
    command.__annotations__ = {one.name: one.annotation for one in signature}
    command.__doc__ = row.summary
    return command


for _row in rows():
    app.command(_row.name.replace("_", "-"))(_command(_row))
