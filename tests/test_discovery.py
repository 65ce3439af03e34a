"""What people discover: sections, groups, bots, advertisement; and where the services are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, update

from hupan.accounts import discovery, people
from hupan.accounts.discovery import Advert
from hupan.accounts.tables import bot, category, group_chat
from hupan.client import Client, Refused
from tests.house import NOON, HandClock, House

UNREADABLE = (1002, "请求参数错误")


def put_groups(house: House, *groups: dict[str, Any]) -> None:
    plain = {"category": "精选", "name": "", "created_at": NOON, "introduction": "", "sort": 0}
    plain |= {"avatar_url": "", "headcount": 0, "banned": 0}
    with house.rules() as ctx:
        ctx.tx.run(insert(group_chat).values([plain | one for one in groups]))


def names(client: Client, **ask: Any) -> list[str]:
    return [one.nickname for one in client.recommend_list(**ask).group_list]


# ---------------------------------------------------------------- sections and groups


def test_sections_stand_in_their_order(house: House) -> None:
    """Wire: the body is `{"appChannel"}` or empty; without sections the list is empty."""
    me = house.login()
    path = "/v1/user/recommend-category-list"
    empty = {"code": 1, "data": {"categories": []}, "msg": "success"}
    assert house.post(path, token=me.token).json() == empty
    with house.rules() as ctx:
        for sort, name in ((2, "游戏"), (1, "地区"), (1, "玩机"), (0, "精选")):
            ctx.tx.run(category.insert().values(name=name, sort=sort))
    for body in ("", "{}", '{"appChannel":"default"}'):
        answer = house.post(path, body, token=me.token).json()
        assert answer["data"]["categories"] == ["精选", "地区", "玩机", "游戏"]
    assert house.post(path).json() == {"code": -101, "msg": "未登录"}


def test_a_group_is_told_with_all_its_keys(house: House) -> None:
    """Wire: `headcount` and `createTime` are numbers, ids are texts of seven digits and up."""
    me = house.login()
    put_groups(
        house,
        {"name": "群", "introduction": "介绍", "avatar_url": "https://i", "headcount": 7},
    )
    answer = house.post("/v1/user/recommend-list", "{}", token=me.token).json()
    (group,) = answer["data"]["groupList"]
    chat_id = group.pop("chatId")
    assert isinstance(chat_id, str)
    assert int(chat_id) >= 1_000_000
    assert group == {
        "banId": 0,
        "nickname": "群",
        "introduction": "介绍",
        "avatarUrl": "https://i",
        "headcount": 7,
        "createTime": NOON,
    }


def test_groups_are_filtered_and_what_is_banned_is_hidden(house: House) -> None:
    """Wire: an empty category is all; a banned group is found in no way."""
    me = house.login()
    put_groups(
        house,
        {"name": "甲", "sort": 1},
        {"name": "乙", "category": "游戏", "introduction": "一起玩 Go", "sort": 3},
        {"name": "丙", "category": "游戏", "sort": 2},
        {"name": "封", "category": "游戏", "introduction": "一起玩", "banned": 1, "sort": 9},
    )
    assert names(me) == ["乙", "丙", "甲"]
    assert names(me, category="") == ["乙", "丙", "甲"]
    assert names(me, category="游戏") == ["乙", "丙"]
    assert names(me, category="精选") == ["甲"]
    assert names(me, category="没有这个") == []
    assert names(me, keyword="一起玩") == ["乙"]
    assert names(me, keyword="  GO ") == ["乙"]
    assert names(me, keyword="丙") == ["丙"]
    assert names(me, category="精选", keyword="丙") == []
    assert names(me, keyword="封") == []
    answer = house.post("/v1/user/recommend-list", '{"category":null,"keyword":5}', token=me.token)
    assert answer.json()["data"] == {"groupList": []}


def test_a_keyword_is_literal(house: House) -> None:
    """What LIKE would take for a pattern, or SQL for its end, is only looked for."""
    me = house.login()
    odd = ["100%", "a_b", "c/d", "e\\f", "o'clock", 'say "hi"', "g*h?[i]", "; DROP TABLE x --"]
    put_groups(house, *({"name": name, "sort": -at} for at, name in enumerate([*odd, "axb 100"])))
    for name in odd:
        assert names(me, keyword=name) == [name]
    for mark, found in (("%", ["100%"]), ("_", ["a_b"]), ("/", ["c/d"]), ("\\", ["e\\f"])):
        assert names(me, keyword=mark) == found
    for keyword in ("%%", "1%0", "a%b", "__", "%' OR '1'='1", "字" * 4096):
        assert names(me, keyword=keyword) == []


def test_pages_cover_everything_once(house: House) -> None:
    """Wire: from 1, 30 by default; past the end is `[]`; sizes are clamped, nonsense refused."""
    me = house.login()
    everything = [f"群{number:03}" for number in range(130)]
    # The same order for all, so that only the tie-break keeps the pages apart.
    put_groups(house, *({"name": name} for name in everything))
    assert names(me) == everything[:30]
    assert names(me, page=2) == everything[30:60]
    assert names(me, page=5) == everything[120:]
    paged: list[str] = []
    for page in range(1, 20):
        paged += names(me, size=7, page=page)
        # A group that becomes popular between two pages does not move.
        with house.rules() as ctx:
            ctx.tx.run(
                update(group_chat)
                .where(group_chat.c.name == everything[-page])
                .values(headcount=1000 + page)
            )
    assert paged == everything
    for size, count in ((0, 30), (1, 1), (100, 100), (101, 100), (2**63 - 1, 100)):
        assert len(names(me, size=size)) == count
    for page in (6, 1000, 10**6):
        raw = house.post("/v1/user/recommend-list", f'{{"page":{page}}}', token=me.token).text
        assert raw == '{"code":1,"data":{"groupList":[]},"msg":"success"}'
    assert names(me, page=0) == names(me, page=1)
    for nonsense in ({"page": -1}, {"page": 10**12}, {"size": -1}, {"page": 2**63 - 1}):
        with pytest.raises(Refused) as refused:
            names(me, **nonsense)
        assert (refused.value.code, refused.value.msg) == UNREADABLE
    for body in ('{"page":"x"}', '{"page":1.5}', '{"size":9223372036854775808}', '{"page":[1]}'):
        answer = house.post("/v1/user/recommend-list", body, token=me.token).json()
        assert (answer["code"], answer["msg"]) == UNREADABLE
    text = house.post("/v1/user/recommend-list", '{"page":"2","size":"5"}', token=me.token).json()
    assert [one["nickname"] for one in text["data"]["groupList"]] == everything[5:10]


# ---------------------------------------------------------------- bots


def test_bots_carry_their_numbers_as_text(house: House) -> None:
    """Wire: `chatType` and `headcount` are strings here; both plurals are there."""
    me = house.login()
    empty = house.post("/v1/user/recommend", token=me.token).text
    assert empty == '{"code":1,"data":{"botList":[]},"msg":"success"}'
    plain = {"introduction": "", "avatar_url": "", "created_at": NOON, "banned": 0, "is_add": 1}
    plain |= {"headcount": 0, "is_apply": 0, "always_agree": 0}
    rows = [
        {"name": "后", "sort": 1, "is_add": 0, "is_apply": 1, "always_agree": 1},
        {
            "name": "先",
            "sort": 2,
            "headcount": 12,
            "introduction": "介绍",
            "avatar_url": "https://i",
        },
        {"name": "封", "sort": 3, "banned": 1},
    ]
    with house.rules() as ctx:
        ctx.tx.run(insert(bot).values([plain | row for row in rows]))
    first, second = house.post("/v1/user/recommend", token=me.token).json()["data"]["botList"]
    assert int(first.pop("chatId")) >= 1_000_000
    assert first == {
        "chatType": "3",
        "headcount": "12",
        "nickname": "先",
        "introduction": "介绍",
        "introductions": "",
        "instructions": "",
        "avatarUrl": "https://i",
        "isAdd": 1,
        "isApply": 0,
        "alwaysAgree": 0,
    }
    assert (second["nickname"], second["isAdd"], second["isApply"], second["alwaysAgree"]) == (
        "后", 0, 1, 1,
    )  # fmt: skip


# ---------------------------------------------------------------- advertisement


def test_vips_have_advertisement_settings_of_their_own(house: House, clock: HandClock) -> None:
    """Nothing is shown until somebody says so; VIP ends to the second here too."""
    me = house.login()
    nothing = {"androidCodeId": "", "bottomHeight": 0, "iosCodeId": "", "isShow": 0}

    def shown() -> dict[str, Any]:
        answer = house.post("/v1/user/get-user-show-adv", token=me.token).json()
        data: dict[str, Any] = answer["data"]
        return data

    assert shown() == nothing
    with house.rules() as ctx:
        discovery.save_advert(ctx, False, Advert("android", "ios", 50, 1))
        people.make_vip(ctx, int(me.info().id), NOON + 10)
    assert shown() == nothing
    clock.time = NOON + 9
    assert shown() == nothing
    clock.time = NOON + 10
    everybody = {"androidCodeId": "android", "bottomHeight": 50, "iosCodeId": "ios", "isShow": 1}
    assert shown() == everybody
    with house.rules() as ctx:
        discovery.save_advert(ctx, True, Advert("vip", "", 0, 1))
        people.make_vip(ctx, int(me.info().id), NOON + 20)
    assert shown() == {**nothing, "androidCodeId": "vip", "isShow": 1}
    answer = house.post("/v1/user/get-user-show-adv").json()
    assert answer == {"code": -101, "msg": "未登录"}


# ---------------------------------------------------------------- where the services are


def test_the_distribution_is_told_from_the_settings(build: Callable[..., House]) -> None:
    """Wire §4.10: without a token, all seven keys, empty where there is nothing."""
    answer = build().api.get("/v1/misc/configure-distribution").json()
    assert answer == {
        "code": 1,
        "data": {
            "audioUrl": "",
            "fileUrl": "",
            "imageUrl": "",
            "serverUrl": "http://127.0.0.1:8790",
            "shareUrl": "",
            "videoUrl": "",
            "websocketUrl": "",
        },
        "msg": "success",
    }
    told = {name: f"https://{name}.example.org" for name in ("audio", "file", "image", "share")}
    told |= {"video": "https://video.example.org", "websocket": "wss://ws.example.org"}
    house = build(
        api_url="https://api.example.org", **{f"{name}_url": url for name, url in told.items()}
    )
    answer = house.api.get("/v1/misc/configure-distribution", headers={"token": "stale"}).json()
    assert answer["data"] == {
        "serverUrl": "https://api.example.org",
        **{f"{name}Url": url for name, url in told.items()},
    }
    assert house.client().configure_distribution().websocket_url == "wss://ws.example.org"
