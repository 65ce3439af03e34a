"""What people say about themselves, what others see of it, and what it earns them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import ANY
from zoneinfo import ZoneInfo

import pytest

from hupan.accounts import coins, profile
from hupan.accounts.texts import clean
from hupan.client import Client, Refused
from hupan.protocol.user import PersonalData
from tests.house import DAY, NOON, HandClock, House

UNREADABLE = (1002, "请求参数错误")
STRANGER = (-1, "该用户不存在")


def refusal_of(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    """What a call is refused with."""
    with pytest.raises(Refused) as refused:
        call(**arguments)
    return refused.value.code, refused.value.msg


def seen(client: Client, account_id: str) -> Any:
    """Another account as a client sees it; parts of it may be unset."""
    return client.get_user(id=account_id)


def number_of(client: Client) -> str:
    return client.info().id


# ---------------------------------------------------------------- name and picture


def test_a_nickname_is_cleaned_counted_and_numbered(house: House) -> None:
    """I1: 1 to 32 code points, without what is invisible; `name_id` tells that it changed."""
    me = house.login()
    mine = number_of(me)
    numbers = [seen(me, mine).name_id]
    for given, stored in (
        ("新名", "新名"),
        ("  两边有空格\t", "两边有空格"),
        ("a b", "a b"),
        ("湖" * 32, "湖" * 32),
        ("😀" * 32, "😀" * 32),
        ("👨‍👩‍👧一家", "👨‍👩‍👧一家"),
        ("左\u202e右", "左右"),
        ("零\u200b宽\ufeff度\u2060", "零宽度"),
        ("换\n行\r\x07\x1b", "换行"),
        ("\u200b" * 40 + "短", "短"),
        ("é", "é"),
        ("<b>&amp;'\"", "<b>&amp;'\""),
    ):
        me.edit_nickname(name=given)
        assert me.info().name == stored
        other = seen(me, mine)
        assert other.name == stored
        numbers.append(other.name_id)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    for given in ("", " ", "\t\n", "\u200b\u200e", "\u200d\ufe0f", "湖" * 33, "a" * 4096):
        code, text = refusal_of(me.edit_nickname, name=given)
        assert (code, text) == (-1, "昵称需要 1 到 32 个字符")
    for given in ("nul\0", "a" * 4097):
        assert refusal_of(me.edit_nickname, name=given) == UNREADABLE
    path, token = "/v1/user/edit-nickname", me.token
    for body in (b"", b"{}", b'{"name":null}', b'{"name":""}'):
        # Protobuf or JSON, an answer that did something says so in these letters.
        assert b"success" not in house.post(path, body, token=token).content
    for body in (b"\x1a\x02\xff\xfe", b'{"name":"\\ud800"}', b'{"name":["a"]}', b"\x1a\x7fa"):
        assert "请求参数错误".encode() in house.post(path, body, token=token).content
    assert me.info().name == "<b>&amp;'\""
    assert seen(me, mine).name_id == numbers[-1]


def test_a_sequence_of_emoji_stays_whole() -> None:
    """I1 takes out what is invisible, but what holds a sequence together is seen."""
    for text in (
        "\u2764\ufe0f小明",
        # Without its selector this heart would be a plain glyph.
        "小明\u2764\ufe0f",
        "👩\u200d💻",
        "🏳\ufe0f\u200d🌈",
        "👍🏽",
    ):
        assert clean(text) == text
    assert clean(" \u200d\ufe0f ") == ""


def test_a_keycap_stays_whole() -> None:
    """The comment in `texts` promises keycaps; their selector stands between digit and cap."""
    assert clean("1\ufe0f\u20e3") == "1\ufe0f\u20e3"


def test_a_joiner_between_letters_goes() -> None:
    """I1: display text loses zero-width characters; two people must not look the same."""
    assert clean("ad\u200dmin") == "admin"


def test_a_picture_is_an_address_that_is_never_fetched(house: House) -> None:
    """I1: http and https only; `avatar_id` tells that it changed."""
    me = house.login()
    mine = number_of(me)
    assert (me.info().avatar_url, me.info().avatar_id) == ("", 0)
    longest = "https://img.example.com/" + "a" * (2048 - 24)
    good = (
        "https://img.example.com/1.png",
        "http://img.example.com/1.png?x=1#y",
        "HTTPS://IMG.example.com/图.png",
        # Nobody answers there; that nothing is fetched is why it is accepted at once.
        "http://127.0.0.1:1/never",
        longest,
    )
    for count, url in enumerate(good, start=1):
        me.edit_avatar(url=url)
        assert (me.info().avatar_url, me.info().avatar_id) == (url, count)
        other = seen(me, mine)
        assert (other.avatar_url, other.avatar_id) == (url, count)
    for url in (
        "",
        "   ",
        "img.example.com/1.png",
        "//img.example.com/1.png",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "ftp://img.example.com/1.png",
        "file:///etc/passwd",
        "https://",
        "https:///1.png",
        "http://[::1/1.png",
        "https://img.example.com/a b",
        "https://img.example.com/a\nb",
        "https://img.example.com/\u202egnp",
        longest + "a",
    ):
        code, text = refusal_of(me.edit_avatar, url=url)
        assert code == -1, url
        assert text.startswith("头像地址必须是 http 或 https 链接"), url
    assert b"success" not in house.post("/v1/user/edit-avatar", b"", token=me.token).content
    assert (me.info().avatar_url, me.info().avatar_id) == (longest, len(good))


# ---------------------------------------------------------------- rewards


def book(client: Client) -> list[tuple[int, float, float]]:
    """The coin book, oldest first: type, change, amount after it."""
    records = client.gold_coin_increase_decrease_record(size=100, page=1).gold_coin_record
    return [(one.typ, one.change_amount, one.after_amount) for one in reversed(records)]


def test_the_first_name_and_the_first_picture_are_rewarded_once(
    build: Callable[..., House],
) -> None:
    """Wire: type 4 is the first change of picture and name; amounts are settings."""
    house = build(reward_first_name=150, reward_first_avatar=25)
    me = house.login()
    assert me.info().coin == 0
    refusal_of(me.edit_nickname, name="")
    assert book(me) == []
    for name in ("一", "二", "三"):
        me.edit_nickname(name=name)
    for picture in ("https://a.example.com", "https://b.example.com"):
        me.edit_avatar(url=picture)
    assert book(me) == [(4, 1.5, 1.5), (4, 0.25, 1.75)]
    assert me.info().coin == 1.75


def test_a_reward_of_zero_is_none(build: Callable[..., House]) -> None:
    """A setting of 0 pays nothing and writes no line, nor does a second change later."""
    me = build(reward_first_name=0, reward_first_avatar=0).login()
    me.edit_nickname(name="一")
    me.edit_avatar(url="https://a.example.com")
    assert book(me) == []
    again = build().client(me.token)
    again.edit_nickname(name="二")
    again.edit_avatar(url="https://b.example.com")
    assert book(again) == []


def test_a_key_that_an_operator_used_refuses_no_name(house: House) -> None:
    """Whatever stands under the reward's key, people may take a name."""
    me = house.login()
    mine = int(me.info().id)
    with house.rules() as ctx:
        coins.post(ctx, mine, 7, typ=1, reason="补偿", key=f"first-name:{mine}")
    me.edit_nickname(name="一")
    assert me.info().name == "一"
    assert book(me) == [(1, 0.07, 0.07)]


def test_a_changed_reward_is_no_second_one(build: Callable[..., House]) -> None:
    """Who has had the reward keeps it and may rename when the operator changes the amount."""
    first = build(reward_first_name=100)
    me = first.login()
    me.edit_nickname(name="一")
    again = build(reward_first_name=250).client(me.token)
    again.edit_nickname(name="二")
    assert again.info().name == "二"
    assert book(again) == [(4, 1.0, 1.0)]


def racing_renames(house: House, racers: int = 6) -> int:
    """Rename at once from several threads; returns how many rewards were paid."""
    mine = house.person()
    together = threading.Barrier(racers)

    def rename(number: int) -> None:
        together.wait()
        with house.rules() as ctx:
            profile.rename(ctx, mine, f"名{number}")

    with ThreadPoolExecutor(racers) as pool:
        list(pool.map(rename, range(racers)))
    with house.rules() as ctx:
        assert coins.verify(ctx) == []
    return len(book(house.client(house.token(mine))))


def test_racing_first_names_are_rewarded_once(house: House) -> None:
    """Coins: one first change, one posting, however many come at once."""
    assert racing_renames(house) == 1


def test_the_race_finds_a_reward_for_every_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: each change is the first, and its key is new every time."""

    def careless(ctx: Any, account_id: int, amount: int, typ: int, key: str, reason: str) -> None:
        key = ctx.world.random.bytes(8).hex()
        coins.post(ctx, account_id, amount, typ=typ, reason=reason, key=key)

    monkeypatch.setattr(profile, "_FIRST_NAME", ANY)
    monkeypatch.setattr(coins, "reward", careless)
    assert racing_renames(house) == 6


# ---------------------------------------------------------------- personal data

FULL: dict[str, Any] = {
    "introduction": "第一行\n第二行",
    "gender": 1,
    "birthday": 946_684_800,
    "province": "北京市",
    "city": "北京城区",
    "district": "东城区",
    "location_code": "110101",
}


def told(data: PersonalData) -> dict[str, Any]:
    return {name: getattr(data, name) for name in FULL}


def test_personal_data_are_replaced_as_a_whole(house: House, clock: HandClock) -> None:
    """All eleven keys are always there; saving replaces seven of them."""
    me = house.login()
    mine = number_of(me)
    fresh = me.get_user_data().data
    assert (fresh.user_id, fresh.id, fresh.update_time) == (mine, 0, 0)
    assert fresh.last_login_time == NOON
    assert told(fresh) == {
        **dict.fromkeys(FULL, ""),
        "gender": 3,
        "birthday": 0,
    }
    answer = house.post("/v1/user/get-user-data", token=me.token).json()
    assert set(answer["data"]["data"]) == {
        "id", "userId", "lastLoginTime", "update_time", "introduction", "gender", "birthday",
        "province", "city", "district", "locationCode",
    }  # fmt: skip

    clock.advance(60)
    me.save_user_data(**FULL)
    saved = me.get_user_data().data
    assert told(saved) == FULL
    assert saved.id > 0
    assert saved.update_time == NOON + 60

    shown = seen(me, mine).profile_info
    assert shown.introduction == FULL["introduction"]
    assert (shown.gender, shown.birthday_timestamp) == (1, 946_684_800)
    assert (shown.city, shown.district) == ("北京城区", "东城区")
    assert shown.last_active_time == "2026-03-02 12:00:00"

    clock.advance(60)
    me.save_user_data(introduction="只有这个")
    replaced = me.get_user_data().data
    assert told(replaced) == {**told(fresh), "introduction": "只有这个"}
    assert (replaced.id, replaced.update_time) == (saved.id, NOON + 120)


def test_personal_data_that_cannot_be_are_refused(house: House) -> None:
    """Each refusal says what is wrong, and nothing of the call is stored."""
    me = house.login()
    me.save_user_data(**FULL)
    for change, text in (
        ({"gender": 0}, "性别只能是"),
        ({"gender": 4}, "性别只能是"),
        ({"gender": -(2**63)}, "性别只能是"),
        ({"birthday": 4_102_444_801}, "生日不正确"),
        ({"birthday": -2_208_988_801}, "生日不正确"),
        ({"introduction": "简" * 501}, "简介过长，最多 500 个字符"),
        ({"province": "省" * 65}, "省份过长"),
        ({"city": "市" * 65}, "城市过长"),
        ({"district": "区" * 65}, "地区过长"),
        ({"location_code": "1" * 17}, "地区代码过长"),
    ):
        code, msg = refusal_of(me.save_user_data, **{**FULL, **change})
        assert code == -1
        assert msg.startswith(text)
    for body in (b'{"gender":"x"}', b'{"birthday":1e400}', b'{"birthday":9223372036854775808}'):
        answer = house.post("/v1/user/save-user-data", body, token=me.token).json()
        assert answer == {"code": 1002, "msg": "请求参数错误"}
    assert told(me.get_user_data().data) == FULL
    for change in (
        {"introduction": "简" * 500, "province": "省" * 64, "location_code": "1" * 16},
        {"birthday": 4_102_444_800, "gender": 2},
        # Before 1970, which the unsigned field of `get-user` cannot show.
        {"birthday": -2_208_988_800},
    ):
        me.save_user_data(**{**FULL, **change})
        assert told(me.get_user_data().data) == {**FULL, **change}
    assert seen(me, number_of(me)).profile_info.birthday_timestamp == 0
    body = b'{"gender":"2","birthday":"86400","introduction":5,"locationCode":100000,"phone":"1"}'
    assert house.post("/v1/user/save-user-data", body, token=me.token).json()["code"] == 1
    saved = me.get_user_data().data
    assert (saved.gender, saved.birthday, saved.introduction) == (2, 86_400, "5")
    assert saved.location_code == "100000"


# ---------------------------------------------------------------- remarks


def pairs(*written: tuple[str, str]) -> str:
    return json.dumps([{"key": key, "value": value} for key, value in written], ensure_ascii=False)


def test_a_remark_is_seen_by_its_writer_only(house: House) -> None:
    """Wire: `remark_info` is the caller's own; I2: nobody else's."""
    me, friend, other = (house.login(number) for number in (1, 2, 3))
    name = number_of(friend)
    note = pairs(("他是", "我的朋友"), ("职业", "打工人"))
    me.save_user_remarks(friend_id=name, name="老王", phone="139 0000", others=note)

    remark = seen(me, name).remark_info
    assert (remark.remark_name, remark.phone_number) == ("老王", "139 0000")
    assert json.loads(remark.extra_remark) == json.loads(note)
    for stranger in (friend, other, house.client("anything"), house.client("0" * 31)):
        answer = seen(stranger, name)
        assert not answer.remark_info, stranger.token
        assert answer.name == "人2"
    # Nor does it show up at its writer's.
    assert not seen(friend, number_of(me)).remark_info
    raw = house.post("/v1/user/get-user", json.dumps({"id": name}), token=other.token)
    assert "老王" not in raw.text

    other.save_user_remarks(friend_id=name, name="小王", phone="", others="")
    assert seen(other, name).remark_info.remark_name == "小王"
    assert seen(me, name).remark_info.remark_name == "老王"
    me.save_user_remarks(friend_id=name, name="王", phone="", others="[]")
    remark = seen(me, name).remark_info
    assert (remark.remark_name, remark.phone_number, remark.extra_remark) == ("王", "", "[]")


def test_remarks_that_cannot_be_are_refused(house: House) -> None:
    """`others` is a JSON list as text, because clients parse it again."""
    me, friend = house.login(1), house.login(2)
    name = number_of(friend)
    me.save_user_remarks(friend_id=name, name="老王", phone="1", others="")
    for nobody in ("", "0", "1", "9" * 30, "x", "-1", f"0{name}", f"{name} ", "１００００００"):
        assert (
            refusal_of(me.save_user_remarks, friend_id=nobody, name="", phone="", others="")
            == STRANGER
        )
    for others in (
        "text",
        "{}",
        "null",
        "[1]",
        '[{"key":"a"}]',
        '[{"key":1,"value":"b"}]',
        "[" * 2000,
        '[{"key":"a","value":"b"}',
    ):
        assert refusal_of(
            me.save_user_remarks, friend_id=name, name="x", phone="", others=others
        ) == (-1, "备注格式不正确")
    for field in ("name", "phone"):
        arguments = {"friend_id": name, "name": "", "phone": "", "others": "", field: "字" * 65}
        code, text = refusal_of(me.save_user_remarks, **arguments)
        assert (code, "最多 64 个字符" in text) == (-1, True)
    remark = seen(me, name).remark_info
    assert (remark.remark_name, remark.phone_number) == ("老王", "1")

    # What survives is tidy: other keys and invisible characters are gone, text is UTF-8.
    hidden = '[{"key":"\\u202ea\\u0000","value":"\\ud800b","more":1}]'
    me.save_user_remarks(friend_id=name, name="", phone="", others=hidden)
    assert json.loads(seen(me, name).remark_info.extra_remark) == [{"key": "a", "value": "b"}]
    longest = pairs(("k", "值" * (4096 - len(pairs(("k", ""))))))
    me.save_user_remarks(friend_id=name, name="", phone="", others=longest)
    assert seen(me, name).remark_info.extra_remark == longest


# ---------------------------------------------------------------- days


def days(client: Client, account_id: int) -> tuple[int, int]:
    person = seen(client, str(account_id))
    page = client.homepage(user_id=str(account_id)).user
    assert (page.on_line_day, page.continuous_on_line_day) == (
        person.online_day,
        person.continuous_online_day,
    )
    return person.online_day, person.continuous_online_day


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "Pacific/Chatham"])
def test_days_are_counted_from_midnight_to_midnight(
    build: Callable[..., House], clock: HandClock, zone: str
) -> None:
    """One day for however many calls; a day missed ends the row; midnight is the zone's."""
    house = build(time_zone=zone)
    local = ZoneInfo(zone)
    mine = house.person()
    stranger = house.client("x")
    assert days(stranger, mine) == (0, 0)

    def move(day: int, hour: int, minute: int = 0, second: int = 0) -> None:
        """To a moment of March 2026 on that zone's clocks; New York's skip an hour on the 8th."""
        at = datetime(2026, 3, 1, hour, minute, second, tzinfo=local) + timedelta(days=day - 1)
        clock.time = int(at.timestamp())

    move(6, 23, 59, 58)
    me = house.client(house.token(mine))
    assert days(stranger, mine) == (1, 1)
    clock.advance(1)
    me.info()
    assert days(stranger, mine) == (1, 1)
    # The day changes at the second, although last-seen is written only every five minutes.
    clock.advance(1)
    me.info()
    assert days(stranger, mine) == (2, 2)
    move(7, 12)
    me.info()
    me.medal()
    house.token(mine, "another device")
    assert days(stranger, mine) == (2, 2)
    move(8, 23, 30)
    me.info()
    assert days(stranger, mine) == (3, 3)
    move(9, 0, 15)
    me.info()
    assert days(stranger, mine) == (4, 4)
    # Not here on the 10th: until its end the row still stands, after it there is none.
    move(10, 23, 59, 59)
    assert days(stranger, mine) == (4, 4)
    clock.advance(1)
    assert days(stranger, mine) == (4, 0)
    move(11, 8)
    me.info()
    assert days(stranger, mine) == (5, 1)
    move(12, 0)
    me.info()
    assert days(stranger, mine) == (6, 2)


def test_a_public_call_with_a_live_token_counts_the_day_too(house: House, clock: HandClock) -> None:
    """Who reads somebody else's page is here; who is only read is not."""
    me, other = house.login(1), house.login(2)
    clock.advance(DAY)
    seen(me, number_of(other))
    stranger = house.client("x")
    clock.advance(1)
    assert days(stranger, 1_000_001)[0] == 2
    assert days(stranger, 1_000_002)[0] == 2  # `number_of` asked `info` for it.
    clock.advance(DAY)
    seen(me, "1000002")
    assert days(stranger, 1_000_001)[0] == 3
    assert days(stranger, 1_000_002)[0] == 2


# ---------------------------------------------------------------- the web host


def test_the_web_host_tells_the_same_in_its_own_keys(house: House) -> None:
    """Wire §4.9: `info` for the owner, `homepage` for everybody."""
    me = house.login()
    mine = number_of(me)
    me.edit_nickname(name="网页")
    me.edit_avatar(url="https://img.example.com/1.png")
    answer = house.web.get("/v1/user/info", headers={"token": me.token}).json()
    assert answer == {
        "code": 1,
        "data": {
            "user": {
                "userId": mine,
                "nickname": "网页",
                "phone": "13900000001",
                "avatarId": "1",
                "avatarUrl": "https://img.example.com/1.png",
                "goldCoinAmount": 2.0,
            }
        },
        "msg": "success",
    }
    dead = house.web.get("/v1/user/info", headers={"token": "x"}).json()
    assert dead == {"code": -101, "msg": "未登录"}

    page = house.web.get("/v1/user/homepage", params={"userId": mine}).json()
    assert page["data"]["user"] == {
        "userId": mine,
        "nickname": "网页",
        "avatarUrl": "https://img.example.com/1.png",
        "registerTime": NOON,
        "registerTimeText": "2026-03-02 12:00:00",
        "onLineDay": 1,
        "continuousOnLineDay": 1,
        "medals": [],
        "isVip": 0,
    }
    for nobody in ("", "7999999", "x", "0" + mine):
        page = house.web.get("/v1/user/homepage", params={"userId": nobody}).json()
        assert page["code"] == 1
        user = page["data"]["user"]
        assert user.pop("medals") == []
        assert set(user.values()) == {"", 0}
    assert house.web.get("/v1/user/homepage").json()["code"] == 1
    # Each host answers its own rows only.
    assert house.web.post("/v1/user/medal").status_code == 404
    assert house.api.get("/v1/user/homepage").status_code == 404


def test_medals_stand_in_their_order_everywhere(house: House) -> None:
    """Wire: ordered by `sort`; none is a status only."""
    from hupan.accounts import medals

    me = house.login()
    mine = number_of(me)
    bare = house.post("/v1/user/medal", token=me.token).content
    assert me.medal().medal == []
    with house.rules() as ctx:
        for name, sort in (("后", 30), ("先", 10), ("中", 20)):
            medals.define(ctx, name, f"{name}描述", f"https://img.example.com/{sort}.png", sort)
            medals.grant(ctx, int(mine), name)
            medals.grant(ctx, int(mine), name)
    expected = [("先", 10), ("中", 20), ("后", 30)]
    assert [(one.name, one.sort) for one in me.medal().medal] == expected
    assert [(one.name, one.sort) for one in seen(me, mine).medal] == expected
    page = me.homepage(user_id=mine).user.medals
    assert [(one.name, one.desc, one.image_url) for one in page] == [
        (name, f"{name}描述", f"https://img.example.com/{sort}.png") for name, sort in expected
    ]
    assert len(house.post("/v1/user/medal", token=me.token).content) > len(bare)
    with house.rules() as ctx:
        medals.take(ctx, int(mine), "中")
    assert [one.name for one in me.medal().medal] == ["先", "后"]
