"""Health: `/healthz` says the process lives, `/readyz` that it can do its work."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hupan.accounts import limits
from hupan.accounts.context import World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import Refusal, TooManyRequests
from hupan.migrations import HEAD, current
from hupan.outside.database import SqlDatabase

__all__ = ["problems", "routes"]


def problems(world: World) -> list[str]:
    """What keeps the server from working: the schema, or a database that cannot be written."""
    try:
        assert isinstance(world.database, SqlDatabase)
        revision = current(world.database.engine)
        if revision != HEAD:
            return [
                f"the schema is {revision or 'missing'}, this server needs {HEAD};"
                " run `hupan migrate`"
            ]
        with operation(world) as ctx:
            limits.take(ctx, "readyz", 2**62, 60, TooManyRequests)
    except (Refusal, OSError) as error:
        return [f"the database cannot be written: {error}"]
    except Exception as error:  # Whatever it is, the server is not ready.
        return [f"the database cannot be used: {type(error).__name__}"]
    return []


def routes(world: World) -> list[BaseRoute]:
    """The two routes."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        found = await asyncio.to_thread(problems, world)
        if found:
            return JSONResponse({"status": "unavailable", "problems": found}, status_code=503)
        return JSONResponse({"status": "ok"})

    return [Route("/healthz", live), Route("/readyz", ready)]
