"""`serve`, `dev` and `migrate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hupan.cli.common import fail, read_moment, read_settings

if TYPE_CHECKING:
    from hupan.settings import Settings

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
    seed: Annotated[
        str, typer.Option(help="Make thirty more people, and everything random, from this.")
    ] = "",
    freeze: Annotated[
        str | None, typer.Option(help="Stop the clock at this moment: 2026-01-01 [08:00].")
    ] = None,
) -> None:
    """Run a sandbox: fixed people, readable post, a clock to move, faults, a journal."""
    with tempfile.TemporaryDirectory(prefix="hupan-dev-") as folder:
        settings = read_settings(
            host=host,
            port=port,
            web_port=web_port,
            data_dir=data or Path(folder),
            limit_sources=limits,
            log_format="console",
            log_level="warning",
            # Whatever the surroundings configure, a sandbox keeps its own data and calls nobody.
            database_url="",
            deliver_sms=["console", "file"],
            deliver_email=["console", "file"],
            workers=1,
        )
        _dev(settings, seed, freeze)


def _dev(settings: Settings, seed: str, freeze: str | None) -> None:
    import asyncio

    from hupan.sandbox import terminal
    from hupan.sandbox.clock import SandboxClock
    from hupan.sandbox.routes import routes
    from hupan.sandbox.stand import Stand
    from hupan.server import logs
    from hupan.server.run import check_ports, serve
    from hupan.settings import SettingsError

    logs.configure(settings)
    clock = SandboxClock()
    if freeze is not None:
        clock.freeze(read_moment(freeze, settings))
    try:
        check_ports(settings)
        stand = Stand(settings, seed=seed, clock=clock)
    except SettingsError as error:
        fail(str(error))
    stand.open(routes(stand))
    stand.listeners.append(terminal.show)
    asyncio.run(serve(stand.hosts, stand.bell, ready=lambda: terminal.greet(settings)))
    stand.snapshots.close()


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether the schema is up to date.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of the database.")] = None,
) -> None:
    """Bring the database to this version's schema."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError

    from hupan.migrations import HEAD, current, upgrade
    from hupan.server.app import make_folder
    from hupan.settings import SettingsError

    settings = read_settings(data_dir=data)
    try:
        make_folder(settings)
        engine = create_engine(settings.sqlalchemy_url)
        found = current(engine)
        engine.dispose()
    except SettingsError as error:
        fail(str(error))
    except DBAPIError as error:
        fail(f"the database cannot be used: {type(error.orig).__name__}")
    if check:
        if found != HEAD:
            fail(f"the schema is {found or 'missing'}, this version needs {HEAD}")
        print(f"the schema is {HEAD}, as needed")
        return
    upgrade(settings.sqlalchemy_url)
    print(f"the schema is {HEAD} (was {found or 'missing'})")
