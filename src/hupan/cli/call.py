"""`hupan login`, `hupan logout` and `hupan call …`: the SDK on the command line.

The commands below `call` are made by walking the table: their options are the fields of the row's
request. The token is never an argument, since arguments can be read in the list of processes.
"""

from __future__ import annotations

import inspect
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

app = typer.Typer(help="Call any endpoint; the token is that of `hupan login`.")

#: Fields that are asked for instead of being options.
SECRETS = ("password",)
DEFAULT_URL = "http://127.0.0.1:8790"
DEFAULT_WEB_URL = "http://127.0.0.1:8791"

Url = Annotated[str, typer.Option("--server", envvar="HUPAN_SERVER", help="The API host.")]
WebUrl = Annotated[
    str, typer.Option("--web-server", envvar="HUPAN_WEB_SERVER", help="The web host.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _client(url: str, web_url: str = "") -> Iterator[Client]:
    """A client with the stored token; what can go wrong ends with one line."""
    import httpx2

    from hupan.client import Client, Refused, TokenFile, Unreadable

    token = os.environ.get("HUPAN_TOKEN", "")
    try:
        with Client(url, web_url=web_url, store=TokenFile()) as client:
            if token:
                # Lent by the environment for this one run, so it is not stored.
                client.store, client.token = None, token
            yield client
    except Refused as refused:
        wait = f" (retry after {refused.retry_after} s)" if refused.retry_after else ""
        fail(f"refused, code {refused.code}: {refused.msg}{wait}")
    except httpx2.HTTPStatusError as error:
        fail(f"{error.request.url} answered HTTP {error.response.status_code}")
    except httpx2.TransportError as error:
        fail(f"{url} cannot be reached: {type(error).__name__} {error}".rstrip())
    except (Unreadable, httpx2.InvalidURL, ValueError) as error:
        fail(str(error))


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
        print(f"logged in at {server} as {client.info().name}")


def _ask(question: Question) -> str:
    if question.kind == "code":
        return str(typer.prompt(f"Code sent to {question.to}"))
    with tempfile.TemporaryDirectory(prefix="hupan-captcha-") as folder:
        picture = Path(folder) / "captcha.png"
        picture.write_bytes(question.picture)
        return str(typer.prompt(f"The four characters in {picture}"))


def logout(server: Url = DEFAULT_URL) -> None:
    """End the session of `hupan login` and forget its token."""
    with _client(server) as client:
        if client.token:
            client.logout()
        client.token = ""
    print(f"logged out at {server}")


def _takes(row: Row[..., Any, Any], name: str) -> bool:
    return any(field.name == name for field in fields(row.request))


def _secret(name: str) -> str:
    """Ask for what must not stand in the list of processes; a pipe may bring it too."""
    if sys.stdin.isatty():
        return str(typer.prompt(name.capitalize(), hide_input=True))
    return sys.stdin.readline().rstrip("\n")


def _command(row: Row[..., Any, Any]) -> Callable[..., None]:
    def run(url: str, web_url: str, as_json: bool, **values: Any) -> None:
        import msgspec

        secret = {name: _secret(name) for name in SECRETS if _takes(row, name)}
        with _client(url, web_url) as client:
            answer = client.call(row, row.make(**values, **secret))
        if isinstance(answer, Nothing):
            say({"code": 1, "msg": "success"}, as_json=as_json)
        else:
            say(msgspec.to_builtins(answer), as_json=as_json)

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
