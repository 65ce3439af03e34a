"""What users may write: each checker has to agree with every type that is claimed here."""

from typing import assert_type

import hupan
from hupan import AsyncClient, Client, Refused, TokenFile
from hupan.protocol.message import Nothing
from hupan.protocol.user import CoinRecord, Group, Groups, Me, Person, Profile
from hupan.protocol.web import Homepage


def plain() -> None:
    with Client("http://127.0.0.1:8790", web_url="http://127.0.0.1:8791", timeout=5) as client:
        assert_type(client, Client)
        assert_type(client.login_with_password("user1@example.com", "password-1"), str)
        assert_type(client.info(), Me)
        assert_type(client.info().name, str)
        assert_type(client.info().coin, float)
        assert_type(client.edit_nickname(name="新名"), Nothing)
        assert_type(client.recommend_list(page=2, size=10), Groups)
        assert_type(client.recommend_list().group_list, list[Group])
        assert_type(client.recommend_list().group_list[0].headcount, int)
        assert_type(client.homepage(user_id="7000001").user, Homepage)
        for record in client.iter_coin_records():
            assert_type(record, CoinRecord)
        for group in client.iter_groups(category="游戏"):
            assert_type(group.chat_id, str)


def optional_part(person: Person) -> None:
    if isinstance(person.profile_info, Profile):
        assert_type(person.profile_info.city, str)


async def awaited() -> None:
    async with AsyncClient("http://127.0.0.1:8790", token="t", proxy=None, retries=0) as client:
        assert_type(client, AsyncClient)
        assert_type(await client.login_with_password("user1@example.com", "password-1"), str)
        assert_type(await client.info(), Me)
        assert_type((await client.get_user(id="7000002")).name, str)
        assert_type(await client.edit_nickname(name="新名"), Nothing)
        async for record in client.iter_coin_records(size=10):
            assert_type(record, CoinRecord)
        async for group in client.iter_groups():
            assert_type(group, Group)


def refused(client: hupan.Client) -> int:
    try:
        client.edit_nickname(name="")
    except Refused as refusal:
        assert_type(refusal.msg, str)
        assert_type(refusal.retry_after, int | None)
        return refusal.code
    return 1


def kept() -> None:
    client = Client("http://127.0.0.1:8790", store=TokenFile("tokens.json"))
    assert_type(client.token, str)
    client.token = ""
