"""A call whose answer nobody waits for: it would never be sent. ty has no such rule."""

from hupan import AsyncClient


async def lost(client: AsyncClient) -> None:
    client.edit_nickname(name="新名")  # wrong: lost
    client.logout()  # wrong: lost
    await client.logout()
