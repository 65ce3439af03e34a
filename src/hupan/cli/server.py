"""`serve`, `dev` and `migrate`."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from hupan.cli.common import Parser, fail, read_moment, read_settings

if TYPE_CHECKING:
    from hupan.settings import Settings

__all__ = ["register", "sandbox_options"]


def register(hupan: Parser) -> None:
    """Add the commands."""
    command = hupan.command(serve, extra="server")
    _listening(command)
    command.add_argument("--workers", type=int, help="Processes on the two ports.")
    command.add_argument("--data", type=Path, help="Folder of the database and the key.")

    command = hupan.command(dev, extra="server")
    _listening(command)
    sandbox_options(command)

    command = hupan.command(migrate, extra="server")
    command.add_argument(
        "--check", action="store_true", help="Only tell whether the schema is up to date."
    )
    command.add_argument("--data", type=Path, help="Folder of the database.")


def _listening(command: Parser) -> None:
    command.add_argument("--host", help="Address to listen on.")
    command.add_argument("--port", type=int, help="Port of the API host.")
    command.add_argument("--web-port", type=int, help="Port of the web host.")


def sandbox_options(command: Parser) -> None:
    """Add what every sandbox takes."""
    command.add_argument(
        "--data", type=Path, help="Keep the data here instead of in a temporary folder."
    )
    command.add_argument(
        "--limits", action="store_true", help="Bound sends and logins per source, as production."
    )
    command.add_argument(
        "--seed", default="", help="Make thirty more people, and everything random, from this."
    )
    command.add_argument("--freeze", help="Stop the clock at this moment: 2026-01-01 [08:00].")


@contextmanager
def _lightly() -> Iterator[None]:
    """Leave out, while a command runs, what only makes its start slower."""
    # Nothing that is loaded is garbage; once it serves, the collector is turned on again.
    gc.disable()
    # structlog loads rich where it is installed, for tracebacks that we never print its way.
    hides = "rich" not in sys.modules
    if hides:
        sys.modules["rich"] = cast(ModuleType, None)
    try:
        yield
    finally:
        gc.enable()
        if hides:
            del sys.modules["rich"]


@_lightly()
def serve(
    *,
    host: str | None,
    port: int | None,
    web_port: int | None,
    workers: int | None,
    data: Path | None,
) -> int:
    """Run the server. Settings come from flags, HUPAN_… variables and hupan.toml."""
    from hupan.server import logs
    from hupan.server.run import run
    from hupan.settings import SettingsError

    settings = read_settings(
        host=host, port=port, web_port=web_port, workers=workers, data_dir=data
    )
    logs.configure(settings)
    try:
        return run(settings)
    except SettingsError as error:
        fail(str(error))


@_lightly()
def dev(
    *,
    host: str | None,
    port: int | None,
    web_port: int | None,
    data: Path | None,
    limits: bool,
    seed: str,
    freeze: str | None,
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
    from hupan.sandbox import terminal
    from hupan.sandbox.clock import SandboxClock
    from hupan.sandbox.routes import routes
    from hupan.sandbox.stand import Stand
    from hupan.server import logs
    from hupan.server.loop import run_in_loop
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
    run_in_loop(serve(stand.hosts, stand.bell, ready=lambda: terminal.greet(settings)))
    stand.snapshots.close()


def migrate(*, check: bool, data: Path | None) -> None:
    """Bring the database to this version's schema."""
    from alembic.util import CommandError
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
    try:
        upgrade(settings.sqlalchemy_url)
    except CommandError:
        fail(
            f"the schema is {found}, which this version does not know: a newer version made it,"
            " or one from before the first release, whose data cannot be taken along"
        )
    print(f"the schema is {HEAD} (was {found or 'missing'})")
