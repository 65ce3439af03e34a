"""Running: two listeners in one loop, several processes where they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import structlog
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from hupan.accounts import captchas, codes, limits, links, outbox, passwords, sessions
from hupan.accounts.context import Actor, World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import Refusal
from hupan.outside.post import Bell, Post
from hupan.server import logs
from hupan.server.app import App, Hosts, build_hosts, build_world
from hupan.server.face import Face
from hupan.server.health import problems
from hupan.server.loop import run_in_loop
from hupan.settings import Settings, SettingsError

__all__ = ["MARK", "check_ports", "run", "serve"]

log = structlog.get_logger("hupan.run")

#: A file in the data folder of a sandbox, which no production server opens.
MARK = "SANDBOX"
#: How often what is over is swept away, in seconds.
SWEEP = 600
#: So many workers may die in a minute before the server gives up.
MOST_DEATHS = 20


def check_ports(settings: Settings) -> None:
    """Refuse to start where somebody listens already.

    The listeners share their ports among our own processes, and a second server would otherwise
    quietly share them too.
    """
    if settings.port == settings.web_port:
        raise SettingsError("port and web_port are the same")
    for name, port in (("port", settings.port), ("web_port", settings.web_port)):
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise SettingsError(
                    f"{settings.host}:{port} cannot be listened on ({error.strerror});"
                    f" choose another {name}"
                ) from error


def run(settings: Settings) -> int:
    """Run a production server until it is told to stop. Returns the exit code."""
    if settings.test_codes:
        raise SettingsError("test_codes are for `hupan dev` only; remove them")
    if (settings.data_dir / MARK).exists():
        raise SettingsError(
            f"{settings.data_dir} holds a sandbox, whose passwords everybody knows;"
            " choose another data_dir"
        )
    if "smtp" in settings.deliver_email and not (settings.smtp_host and settings.smtp_from):
        raise SettingsError("deliver_email has smtp: set smtp_host and smtp_from")
    check_ports(settings)
    world, bell = build_world(settings)
    found = problems(world)
    if found:
        raise SettingsError(found[0])
    if settings.workers == 1:
        run_in_loop(serve(build_hosts(world), bell, ready=_announce(settings)))
        return 0
    _close(world)
    return _run_workers(settings)


def _announce(settings: Settings) -> Callable[[], None]:
    def say() -> None:
        print(  # noqa: T201  # The one line a person starting a server waits for.
            f"Hupan listens: API http://{settings.host}:{settings.port}"
            f"  web http://{settings.host}:{settings.web_port}",
            flush=True,
        )

    return say


async def serve(hosts: Hosts, bell: Bell, *, ready: Callable[[], None] | None = None) -> None:
    """Serve both hosts until SIGTERM or SIGINT; open requests come to their end."""
    settings = hosts.world.settings
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sender = Post(hosts.world, bell)
    post = asyncio.create_task(sender.run())
    sweeper = asyncio.create_task(_sweep(hosts.world))
    warmer = loop.run_in_executor(hosts.lanes.hashes, _warm, settings)
    servers = [_listener(hosts.api, settings, settings.port)]
    servers.append(_listener(hosts.web, settings, settings.web_port))
    running = [asyncio.create_task(server.serve()) for server in servers]
    ended = [asyncio.create_task(stop.wait()), *running, post]
    begun = asyncio.create_task(_listening(settings))
    await asyncio.wait([begun, *ended], return_when=asyncio.FIRST_COMPLETED)
    # What was loaded stays; the collector need not look at it again and again.
    gc.freeze()
    gc.enable()
    if ready is not None and begun.done():
        ready()
    done, _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    begun.cancel()
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]  # granian annotates no methods here.
    _, late = await asyncio.wait(running, timeout=settings.drain_seconds)
    await sender.drain()
    for task in (*late, *ended, sweeper):
        task.cancel()
        # Cancelled on purpose, or failed and told below.
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
    await warmer
    hosts.lanes.close()
    _close(hosts.world)
    for task in done:
        failed = None if task.cancelled() else task.exception()
        if failed is not None:
            raise failed


def _warm(settings: Settings) -> None:
    """Make, and load, what the first login would otherwise have to wait for."""
    try:
        passwords.warm(settings)
        from hupan.outside import picture  # noqa: F401  # Loading it is all.
    except Exception:
        # Whoever needs it will be told; the others are served.
        log.exception("bug", task="warm")


def _listener(app: App, settings: Settings, port: int) -> Server:
    # What keeps answers gives them by granian's own interface. A stand-in is asked for everything.
    hurries = app.door.memory is not None
    return Server(
        Face(app) if hurries else app,
        address=settings.host,
        port=port,
        interface=Interfaces.RSGI if hurries else Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        backlog=1024,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
    )


async def _listening(settings: Settings) -> None:
    """Until both ports take connections."""
    for port in (settings.port, settings.web_port):
        while True:
            try:
                _, writer = await asyncio.open_connection(settings.host, port)
            except OSError:
                await asyncio.sleep(0.005)
                continue
            writer.close()
            break


async def _sweep(world: World) -> None:
    def once() -> None:
        try:
            with operation(world, Actor("sweeper")) as ctx:
                captchas.sweep(ctx)
                limits.sweep(ctx)
                sessions.sweep(ctx)
                outbox.sweep(ctx)
                codes.sweep(ctx)
                links.sweep(ctx)
                ctx.tx.trim_changes()
        except Refusal:
            # The database is busy; the next time will do.
            pass
        except Exception:
            log.exception("bug", task="sweep")

    while True:
        await asyncio.sleep(SWEEP)
        await asyncio.to_thread(once)


def _close(world: World) -> None:
    close = getattr(world.database, "close", None)
    if close is not None:
        close()


# ---------------------------------------------------------------- several processes


def _run_workers(settings: Settings) -> int:
    """Keep so many processes on the two ports; one that dies is replaced."""
    spawn = multiprocessing.get_context("spawn")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def start() -> multiprocessing.process.BaseProcess:
        process = spawn.Process(target=_worker, args=(settings, os.getpid()))
        process.start()
        return process

    workers = [start() for _ in range(settings.workers)]
    asyncio.run(_listening(settings))
    _announce(settings)()
    # A worker that dies is replaced; workers that only die are a fault that no restart mends.
    deaths, since = 0, time.monotonic()
    while not stopping.wait(0.5):
        for index, process in enumerate(workers):
            if not process.is_alive():
                deaths += 1
                workers[index] = start()
        if time.monotonic() - since > 60:
            deaths, since = 0, time.monotonic()
        if deaths > MOST_DEATHS:
            break
    for process in workers:
        process.terminate()
    for process in workers:
        process.join(settings.drain_seconds + 5)
        if process.is_alive():
            process.kill()
    return 1 if deaths > MOST_DEATHS else 0


def _worker(settings: Settings, parent: int) -> None:
    """One of several processes. It does not outlive the one that started it."""
    logs.configure(settings)
    world, bell = build_world(settings)

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    run_in_loop(serve(build_hosts(world), bell))
    sys.exit(0)
