"""`serve`, `dev` and `migrate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hupan.cli.common import fail, read_settings

__all__ = ["dev", "migrate", "serve"]

Port = Annotated[int | None, typer.Option("--port", help="Port of the API host.")]
WebPort = Annotated[int | None, typer.Option("--web-port", help="Port of the web host.")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]


def serve(
    host: Host = None,
    port: Port = None,
    web_port: WebPort = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the two ports.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the database and the key.")] = None,
) -> None:
    """Run the server. Settings come from flags, HUPAN_… variables and hupan.toml."""
    from hupan.server import logs
    from hupan.server.run import run
    from hupan.settings import SettingsError

    settings = read_settings(
        host=host, port=port, web_port=web_port, workers=workers, data_dir=data
    )
    logs.configure(settings)
    try:
        code = run(settings)
    except SettingsError as error:
        fail(str(error))
    raise typer.Exit(code)


def dev(
    host: Host = None,
    port: Port = None,
    web_port: WebPort = None,
    data: Annotated[
        Path | None, typer.Option(help="Keep the data here instead of in a temporary folder.")
    ] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Bound sends and logins per source, as production.")
    ] = False,
) -> None:
    """Run a stand-in with fixed people, whose post and captchas can be looked up."""
    with tempfile.TemporaryDirectory(prefix="hupan-dev-") as folder:
        _dev(
            read_settings(
                host=host,
                port=port,
                web_port=web_port,
                data_dir=data or Path(folder),
                limit_sources=limits,
                log_format="console",
            )
        )


def _dev(settings: object) -> None:
    import asyncio

    from hupan.accounts.context import Actor
    from hupan.accounts.operation import operation
    from hupan.migrations import upgrade
    from hupan.sandbox import people, routes
    from hupan.server import logs
    from hupan.server.app import build_hosts, build_world
    from hupan.server.run import check_ports, serve
    from hupan.settings import Settings, SettingsError

    assert isinstance(settings, Settings)
    logs.configure(settings)
    try:
        check_ports(settings)
        world, bell = build_world(settings)
    except SettingsError as error:
        fail(str(error))
    upgrade(settings.sqlalchemy_url)
    with operation(world, Actor("sandbox")) as ctx:
        people.seed(ctx)

    def greet() -> None:
        api, web = (f"http://{settings.host}:{port}" for port in (settings.port, settings.web_port))
        print(f"\nHupan dev listens: API {api}  web {web}")
        print(f"  codes     {api}/__dev/outbox?to=13800000001")
        print(f"  captchas  {api}/__dev/captchas/ID\n")
        print("  id       phone        e-mail              password     token")
        for one in people.everybody():
            print(
                f"  {one.id}  {one.phone:<11}  {one.email:<18}  {one.password:<11}"
                f"  {one.token:<31}  {one.note}"
            )
        print("", flush=True)

    asyncio.run(serve(build_hosts(world, more_routes=routes.routes(world)), bell, ready=greet))


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether the schema is up to date.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of the database.")] = None,
) -> None:
    """Bring the database to this version's schema."""
    from sqlalchemy import create_engine

    from hupan.migrations import HEAD, current, upgrade

    settings = read_settings(data_dir=data)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_engine(settings.sqlalchemy_url)
    found = current(engine)
    engine.dispose()
    if check:
        if found != HEAD:
            fail(f"the schema is {found or 'missing'}, this version needs {HEAD}")
        print(f"the schema is {HEAD}, as needed")
        return
    upgrade(settings.sqlalchemy_url)
    print(f"the schema is {HEAD} (was {found or 'missing'})")
