"""Devices and what hangs on them: push registrations, hidden modules, VIP, and bans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hupan.accounts import people
from hupan.client import Client, Refused
from tests.house import DAY, NOON, HandClock, House

VIP_ONLY = (-1, "此功能仅限VIP用户使用")
DEAD = (-101, "未登录")


def refusal_of(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    """What a call is refused with."""
    with pytest.raises(Refused) as refused:
        call(**arguments)
    return refused.value.code, refused.value.msg


# ---------------------------------------------------------------- where one is logged in


def test_devices_are_listed_newest_first_and_once(house: House, clock: HandClock) -> None:
    """Wire §4.3: one line a device; the caller's own only; a new login moves it up."""
    mine, other = house.person(1), house.person(2)
    tokens = []
    for device in ("phone", "tablet", "phone"):
        tokens.append(house.token(mine, device))
        clock.advance(10)
    house.token(other, "theirs")
    me = house.client(tokens[0])
    listed = [(one.device_id, one.platform, one.login_timestamp) for one in me.clients().clients]
    assert listed == [("phone", "test", NOON + 20), ("tablet", "test", NOON + 10)]
    assert {one.user_id for one in me.clients().clients} == {str(mine)}
    # Logging out names a device and ends the presented session all the same.
    house.client(tokens[1]).logout(device_id="phone")
    assert [one.device_id for one in me.clients().clients] == ["phone"]


def test_a_device_goes_offline_with_all_its_sessions(house: House) -> None:
    """T5: after the answer no token of that device works, and all others do."""
    mine, other = house.person(1), house.person(2)
    old, new, here, theirs = (
        house.client(house.token(owner, device))
        for owner, device in ((mine, "lost"), (mine, "lost"), (mine, "here"), (other, "lost"))
    )
    here.device_offline(device_id="lost")
    for dead in (old, new):
        assert refusal_of(dead.info) == DEAD
    assert here.info().id == str(mine)
    assert theirs.info().id == str(other)
    assert refusal_of(here.device_offline, device_id="lost") == (-1, "该设备不存在或已下线")
    assert refusal_of(here.device_offline, device_id="") == (-1, "缺少设备标识")
    # One's own device may go too, with the session that asks.
    here.device_offline(device_id="here")
    assert refusal_of(here.info) == DEAD


# ---------------------------------------------------------------- push registrations


def status(client: Client, device: str = "device", registration: str = "r") -> dict[str, Any]:
    told = client.notification_status(device_id=device, registration_id=registration).notification
    return {
        "id": told.id,
        "open": told.is_open,
        "type": told.type,
        "created": told.create_time,
        "updated": told.update_time,
    }


NOTHING = {"id": 0, "open": 0, "type": 0, "created": 0, "updated": 0}


def test_info_stores_what_status_reads(house: House, clock: HandClock) -> None:
    """Wire: the names are crossed; one row by user, device and registration."""
    me, other = house.login(1), house.login(2)
    answer = house.post(
        "/v1/user/notification-status",
        '{"deviceId":"device","registrationId":"r"}',
        token=me.token,
    ).json()
    assert answer["data"]["notification"] == {
        "id": 0, "userId": me.info().id, "deviceId": "device", "registrationId": "r", "isOpen": 0,
        "type": 0, "delFlag": 0, "createTime": 0, "updateTime": 0,
    }  # fmt: skip
    me.notification_info(device_id="device", registration_id="r", is_open=1, type=2)
    first = status(me)
    assert first["id"] > 0
    assert first == {**first, "open": 1, "type": 2, "created": NOON, "updated": NOON}

    clock.advance(30)
    me.notification_info(device_id="device", registration_id="r", is_open=0, type=3)
    assert status(me) == {**first, "open": 0, "type": 3, "updated": NOON + 30}

    # Neither another registration nor another device nor another person shares the row.
    for device, registration in (("device", "s"), ("elsewhere", "r"), ("device", "")):
        assert status(me, device, registration) == NOTHING
        me.notification_info(device_id=device, registration_id=registration, is_open=1, type=1)
    assert status(other) == NOTHING
    other.notification_info(device_id="device", registration_id="r", is_open=1, type=9)
    rows = [status(me), status(me, "device", "s"), status(me, "elsewhere", "r"), status(other)]
    assert len({row["id"] for row in rows}) == 4
    assert [row["type"] for row in rows] == [3, 1, 1, 9]


def test_registrations_that_cannot_be_are_refused(house: House) -> None:
    """A switch is 0 or 1, a device has a name, and names have a length."""
    me = house.login()
    fine: dict[str, Any] = {"device_id": "d", "registration_id": "r", "is_open": 1, "type": 2}
    for change, text in (
        ({"is_open": 2}, "开关只能是 0 或 1"),
        ({"is_open": -1}, "开关只能是 0 或 1"),
        ({"device_id": ""}, "缺少设备标识"),
    ):
        assert refusal_of(me.notification_info, **{**fine, **change}) == (-1, text)
    assert refusal_of(me.notification_status, device_id="", registration_id="r")[0] == -1
    for body in ('{"deviceId":"d","isOpen":[1]}', '{"deviceId":"d","type":"x"}'):
        answer = house.post("/v1/user/notification-info", body, token=me.token).json()
        assert answer["code"] == 1002
    assert status(me, "d", "") == NOTHING
    # Whole user agents are names too; two long ones that begin alike are two.
    for length, is_open in ((255, 1), (2000, 0), (2001, 1)):
        names = {"device_id": "d" * length, "registration_id": "r" * length}
        me.notification_info(**{**fine, **names, "is_open": is_open})
    assert status(me, "d" * 255, "r" * 255)["open"] == 1
    assert status(me, "d" * 2000, "r" * 2000)["open"] == 0
    assert status(me, "d" * 2001, "r" * 2001)["open"] == 1
    house.post(
        "/v1/user/notification-info",
        '{"deviceId":1,"registrationId":2,"isOpen":"0","type":"7"}',
        token=me.token,
    )
    assert status(me, "1", "2")["type"] == 7


def test_registrations_go_with_the_device(house: House) -> None:
    """What a device was to be told goes with its last session, and not before."""
    mine = house.person()
    first, second = (house.client(house.token(mine, "phone")) for _ in range(2))
    here = house.client(house.token(mine, "here"))
    other = house.client(house.token(house.person(2), "phone"))
    for client, device in ((first, "phone"), (here, "here"), (other, "phone")):
        client.notification_info(device_id=device, registration_id="r", is_open=1, type=2)
    first.logout(device_id="phone")
    assert status(here, "phone")["open"] == 1
    second.logout(device_id="phone")
    assert status(here, "phone") == NOTHING
    assert status(here, "here")["open"] == 1
    assert status(other, "phone")["open"] == 1
    again = house.client(house.token(mine, "phone"))
    again.notification_info(device_id="phone", registration_id="r", is_open=1, type=2)
    here.device_offline(device_id="phone")
    assert status(here, "phone") == NOTHING


@pytest.mark.parametrize("way", ["reset", "ban", "eviction"])
def test_registrations_go_however_the_session_ends(build: Callable[..., House], way: str) -> None:
    """A thief's device that a reset, a ban or newer logins threw out is told nothing more."""
    house = build(max_sessions=1)
    mine = house.person()
    thief = house.client(house.token(mine, "thief"))
    thief.notification_info(device_id="thief", registration_id="r", is_open=1, type=2)
    if way == "reset":
        code = house.code_for("person1@example.org", "forget_password")
        house.client().forget_password(
            email="person1@example.org", captcha=code, password="a new and long one"
        )
    elif way == "ban":
        with house.rules() as ctx:
            people.ban(ctx, mine, ctx.now)
    owner = house.client(house.token(mine, "owner"))
    assert refusal_of(thief.info) == DEAD
    assert status(owner, "thief") == NOTHING


# ---------------------------------------------------------------- VIP


def make_vip(house: House, account_id: int, until: int) -> None:
    with house.rules() as ctx:
        people.make_vip(ctx, account_id, until)


def test_vip_lasts_to_the_second_everywhere(house: House, clock: HandClock) -> None:
    """`is_vip` and what VIPs may do end together, at the moment that is told."""
    me = house.login()
    mine = int(me.info().id)
    stranger = house.client("x")
    until = NOON + DAY
    make_vip(house, mine, until)

    def told() -> set[tuple[int, int]]:
        info, seen = me.info(), stranger.get_user(id=str(mine))
        return {
            (info.is_vip, info.vip_expired_time),
            (seen.is_vip, seen.vip_expired_time),
            (me.homepage(user_id=str(mine)).user.is_vip, until),
        }

    clock.time = until - 1
    assert told() == {(1, until)}
    me.module_ignore(device_id="d", ignore=",30")
    assert me.module_ignore_info(device_id="d").ignore.ignore == ",30"
    clock.time = until
    assert told() == {(0, until)}
    assert refusal_of(me.module_ignore, device_id="d", ignore="") == VIP_ONLY
    assert refusal_of(me.module_ignore_info, device_id="d") == VIP_ONLY
    # What was stored is there again with the next VIP, and an end is an end at once.
    make_vip(house, mine, until + 1)
    assert me.module_ignore_info(device_id="d").ignore.ignore == ",30"
    make_vip(house, mine, 0)
    assert refusal_of(me.module_ignore_info, device_id="d") == VIP_ONLY
    assert (me.info().is_vip, me.info().vip_expired_time) == (0, 0)


def test_a_device_hides_what_it_is_told_to(house: House, clock: HandClock) -> None:
    """Wire §4.6: stored by device, answered with all its keys, numbers in commas only."""
    me = house.login()
    mine = me.info().id
    assert refusal_of(me.module_ignore, device_id="", ignore="x") == VIP_ONLY
    make_vip(house, int(mine), NOON + DAY)

    def asked(device: str) -> Any:
        answer = house.post(
            "/v1/user/module-ignore-info", f'{{"deviceId":"{device}"}}', token=me.token
        )
        return answer.json()["data"]["ignore"]

    empty = {"id": 0, "userId": mine, "updateTime": 0, "deviceId": "a", "ignore": ""}
    assert asked("a") == empty
    me.module_ignore(device_id="a", ignore=",30,20,10")
    stored = asked("a")
    assert stored["id"] > 0
    assert stored == {**empty, "id": stored["id"], "updateTime": NOON, "ignore": ",30,20,10"}
    clock.advance(5)
    me.module_ignore(device_id="a", ignore="")
    assert asked("a") == {**stored, "updateTime": NOON + 5, "ignore": ""}
    assert asked("b")["id"] == 0
    for ignore in ("x", "10;20", " 10", "-1", "1" * 256, "１０"):
        assert refusal_of(me.module_ignore, device_id="a", ignore=ignore) == (
            -1,
            "忽略设置格式不正确",
        )
    assert refusal_of(me.module_ignore, device_id="", ignore="10") == (-1, "缺少设备标识")
    me.module_ignore(device_id="d" * 2000, ignore="10")
    assert asked("d" * 2000)["ignore"] == "10"
    assert asked("d" * 2001)["ignore"] == ""
    assert asked("a")["ignore"] == ""


# ---------------------------------------------------------------- bans


def test_a_ban_closes_sessions_and_ends_by_itself(house: House, clock: HandClock) -> None:
    """T5: no token lives on; the refusal names the end; at that second the login works."""
    mine = house.person(password="a password of mine")
    clients = [house.client(house.token(mine, device)) for device in ("a", "b")]
    house.client(house.token(house.person(2))).info()
    clock.advance(61)
    code = house.code_for("13900000001")
    until = clock.time + 250
    with house.rules() as ctx:
        people.ban(ctx, mine, until, "spam")
    stranger = house.client()
    refused = (-1, "账号已被封禁，解封时间：2026-03-02 12:05:11")

    def login() -> str:
        return stranger.email_login(
            email="person1@example.org", password="a password of mine", platform="test"
        ).token

    def check_banned() -> None:
        for client in clients:
            assert refusal_of(client.info) == DEAD
        assert refusal_of(login) == refused
        assert refusal_of(stranger.verification_login, mobile="13900000001", captcha=code) == (
            refused
        )
        # Who does not know the password learns nothing of the ban.
        assert refusal_of(
            stranger.email_login, email="person1@example.org", password="wrong"
        ) == (-1, "邮箱或密码错误")  # fmt: skip
        # The reason is for the operator.
        seen = house.client("x").get_user(id=str(mine))
        assert (seen.ban_time, seen.name) == (until, "人1")

    check_banned()
    clock.time = until - 1
    check_banned()
    clock.time = until
    me = house.client(login())
    assert me.info().id == str(mine)
    assert me.get_user(id=str(mine)).ban_time == 0
    # What the ban closed stays closed.
    for client in clients:
        assert refusal_of(client.info) == DEAD


def test_a_ban_for_good_is_lifted_by_hand_only(build: Callable[..., House]) -> None:
    """It has no moment to name; lifting it lets the person in at once."""
    house = build(language="en")
    mine = house.person(password="a password of mine")
    house.token(mine)
    with house.rules() as ctx:
        people.ban(ctx, mine, people.FOREVER)
    house.clock.advance(50 * 365 * DAY)
    stranger = house.client()
    proof = {"email": "person1@example.org", "password": "a password of mine"}
    assert refusal_of(stranger.email_login, **proof) == (-1, "This account is banned for good")
    assert house.client("x").get_user(id=str(mine)).ban_time == people.FOREVER
    with house.rules() as ctx:
        people.unban(ctx, mine)
    assert house.client(stranger.email_login(**proof).token).info().id == str(mine)
