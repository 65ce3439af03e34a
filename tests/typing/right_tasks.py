"""An awaitable call is a coroutine, so that it can be run, or made a task of."""

import asyncio
from typing import assert_type

from hupan import AsyncClient
from hupan.protocol.user import Me, Medals


async def together(client: AsyncClient) -> None:
    task = asyncio.create_task(client.info())
    assert_type(await task, Me)
    both = await asyncio.gather(client.info(), client.medal())
    assert_type(both, tuple[Me, Medals])
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(client.medal()), asyncio.Task[Medals])


def once(client: AsyncClient) -> None:
    assert_type(asyncio.run(client.info()), Me)
