"""Golden exchanges: for every row, the bytes that real clients send and the answer they need.

Requests are written out by hand, protobuf as bytes and JSON as text, in the ways of several kinds
of clients. Answers are opened by protoc's classes of `tests/oracle/yunhu.proto`, or read as JSON
that must have exactly the expected keys and types. Nothing here is made by our own codecs.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import httpx2
import pytest
from sqlalchemy import insert

from hupan.accounts import coins, discovery, medals, people
from hupan.accounts.tables import bot, category, group_chat
from hupan.protocol import rows
from tests.house import DAY, NOON, House, png_of, shaped_like_token
from tests.oracle import compiled, in_shape, opened, read_json, same
from tests.oracle.endpoints import ENDPOINTS, Endpoint

DONE = {"code": 1, "msg": "success"}
NOT_LOGGED_IN = (-101, "未登录")
UNREADABLE = (1002, "请求参数错误")
VIP_ONLY = (-1, "此功能仅限VIP用户使用")
UNKNOWN_USER = (-1, "该用户不存在")
WRONG_CODE = (-1, "验证码错误或已过期")

#: A token that was never given out: once with a checksum that could be ours, and once without.
NEVER_GIVEN = "00000000-0000-0000-000000000000"
JUNK_TOKENS = ("瞎写的".encode(), b"x", b"f87TJHF9-0000-0000-000000000000", b"A" * 9000, b"'; --")

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}

BY_KEY = {endpoint.key: endpoint for endpoint in ENDPOINTS}

T = TypeVar("T", bound=Callable[..., None])
_GOLDEN: dict[str, str] = {}


def golden(key: str) -> Callable[[T], T]:
    """Say which row a test is the golden exchange of."""
    assert key in BY_KEY, key

    def register(test: T) -> T:
        assert key not in _GOLDEN, f"{key} has two golden exchanges"
        _GOLDEN[key] = test.__name__
        return test

    return register


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The classes that protoc makes of the oracle."""
    return compiled(tmp_path_factory.mktemp("oracle"))


# ---------------------------------------------------------------- sending and reading


def send(
    house: House,
    key: str,
    body: bytes | str = b"",
    *,
    token: str | bytes = "",
    method: str = "",
    query: str = "",
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    """Send bytes as they are to the host of an endpoint, by its first method unless one is told."""
    endpoint = BY_KEY[key]
    sent: dict[str, Any] = dict(headers or {})
    if token:
        sent["token"] = token
    face = house.api if endpoint.host == "api" else house.web
    return face.request(
        method or endpoint.methods.split()[0],
        endpoint.path + query,
        content=body.encode() if isinstance(body, str) else body,
        headers=sent,
    )


def done(response: httpx2.Response) -> None:
    """A success in JSON that carries nothing."""
    same(read_json(response), DONE)


def data_of(response: httpx2.Response, key: str) -> Any:
    """The data of a success in JSON, in exactly the shape of the specification."""
    value = read_json(response)
    assert value["code"] == 1, value
    assert set(value) == {"code", "data", "msg"}
    in_shape(value["data"], BY_KEY[key].tells)
    return value["data"]


def refused(response: httpx2.Response, refusal: tuple[int, str]) -> None:
    """A failure in JSON: a code, a reason, and no `data` at all."""
    same(read_json(response), {"code": refusal[0], "msg": refusal[1]})


def accepted(pb: ModuleType, kind: Any, response: httpx2.Response) -> Any:
    """A success in protobuf, opened."""
    message = opened(kind, response)
    assert (message.status.code, message.status.msg) == (1, "success")
    return message


def denied(pb: ModuleType, response: httpx2.Response, refusal: tuple[int, str]) -> None:
    """A failure in protobuf: a status, and not even an empty submessage beside it."""
    message = opened(pb.StatusOnly, response)
    assert (message.status.code, message.status.msg) == refusal


def turned_away(
    house: House, pb: ModuleType, key: str, token: str | bytes, refusal: tuple[int, str]
) -> None:
    """The refusal of a call without parameters, in every format in which its row answers."""
    speaks = BY_KEY[key].speaks
    if speaks == "json":
        refused(send(house, key, token=token), refusal)
    else:
        denied(pb, send(house, key, token=token), refusal)
    if speaks == "mirror":
        refused(send(house, key, "{}", token=token), refusal)
    if speaks == "accept":
        refused(send(house, key, token=token, headers={"accept": "application/json"}), refusal)


def dead_token(house: House, account_id: int) -> str:
    """A token that was alive until its owner logged out."""
    token = house.token(account_id)
    done(send(house, "/v1/user/logout", token=token))
    return token


def own(house: House, pb: ModuleType, token: str) -> Any:
    """The caller's own account."""
    return accepted(pb, pb.OwnAccount, send(house, "/v1/user/info", token=token)).data


# ---------------------------------------------------------------- every row


def test_every_row_has_a_golden_exchange() -> None:
    for row in rows():
        key = row.path if row.host.value == "api" else f"{row.host.value}:{row.path}"
        assert key in _GOLDEN, f"{row} has no golden exchange"
    assert len(_GOLDEN) == len(rows())


def test_without_a_live_token(house: House, pb: ModuleType) -> None:
    """A missing, dead or unknown token is `-101` with the very text one client compares."""
    dead = dead_token(house, house.person())
    for endpoint in ENDPOINTS:
        if endpoint.token == "live":
            for token in ("", dead, NEVER_GIVEN, *JUNK_TOKENS):
                turned_away(house, pb, endpoint.key, token, NOT_LOGGED_IN)
        elif endpoint.token == "any":
            turned_away(house, pb, endpoint.key, "", NOT_LOGGED_IN)
            for token in (dead, NEVER_GIVEN, *JUNK_TOKENS):
                turned_away(house, pb, endpoint.key, token, UNKNOWN_USER)


def test_a_dead_token_where_none_is_needed(house: House) -> None:
    """A stale token on a public endpoint changes nothing: clients send the last one they had."""
    dead = dead_token(house, house.person())
    for endpoint in ENDPOINTS:
        if endpoint.token == "no":
            without = send(house, endpoint.key)
            for token in (dead, NEVER_GIVEN, *JUNK_TOKENS):
                again = send(house, endpoint.key, token=token)
                assert read_json(again)["code"] == read_json(without)["code"]
                assert read_json(again)["code"] != -101
                if endpoint.key != "/v1/user/captcha":
                    assert again.content == without.content


def json_junk(endpoint: Endpoint) -> list[bytes]:
    """Bodies from which no parameters can be read."""
    assert endpoint.asks is not None
    spoilt = [b"{", b'{"a"', b'{"a":1,}', b"{'a':1}", b'{"a":1}}', b"{} {}", b'{"a":\xff}']
    for name, kind in endpoint.asks.items():
        bad = ("1.5", '"x"', "1e400", str(2**64)) if kind is int else ("true", "1.5")
        for wrong in ("{}", "[]", *bad):
            spoilt.append(f'{{"{name}":{wrong}}}'.encode())
        if kind is str:
            spoilt.append(f'{{"{name}":"\\u0000"}}'.encode())
            spoilt.append(f'{{"{name}":"'.encode() + b'\xff"}')
            spoilt.append(f'{{"{name}":"\\ud800"}}'.encode())
    return spoilt


# What cannot be read never comes to a database.
@pytest.mark.parametrize("kind", ["sqlite"])
def test_bodies_that_cannot_be_read(house: House, pb: ModuleType) -> None:
    """I1: every row refuses junk with `1002`, in the format that its caller reads."""
    token = house.token(house.person())
    for endpoint in ENDPOINTS:
        if endpoint.asks is None or "POST" not in endpoint.methods:
            continue
        for body in json_junk(endpoint):
            refused(send(house, endpoint.key, body, token=token), UNREADABLE)
        if endpoint.speaks == "json":
            for body in (b"junk", b"[]", b'"text"', b"null", b"1", b"\xff\xfe\x00", b"\x12\x01a"):
                refused(send(house, endpoint.key, body, token=token), UNREADABLE)
        else:
            number = {"id": 2, "url": 2, "name": 3}[next(iter(endpoint.asks))]
            tag = bytes([number << 3 | 2])
            for body in (
                tag,
                tag + b"\x05ab",
                tag + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                tag + b"\x02\xff\xfe",
                tag + b"\x01\x00",
                b"junk",
                b"[]",
                b"\x00",
            ):
                denied(pb, send(house, endpoint.key, body, token=token), UNREADABLE)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_bodies_where_none_is_expected(house: House, pb: ModuleType) -> None:
    """Clients send fillers where there are no parameters; none of them can matter."""
    token = house.token(house.person())
    for endpoint in ENDPOINTS:
        if endpoint.asks is not None or endpoint.methods != "POST":
            continue
        for body in (b"", b"{}", b"null", b'{"size":30,"page":1}', b"\x12\x01a", b"a=1&b=2"):
            response = send(house, endpoint.key, body, token=token, headers=JSON)
            if endpoint.message is None:
                data_of(response, endpoint.key)
            else:
                accepted(pb, getattr(pb, endpoint.message[1]), response)


# ---------------------------------------------------------------- logging in and out


@golden("/v1/user/captcha")
def test_captcha(house: House) -> None:
    seen = set()
    for body in ("", "{}", '{"deviceId":"awa"}', '{"deviceId":""}'):
        found = data_of(send(house, "/v1/user/captcha", body, headers=JSON), "/v1/user/captcha")
        assert whole_png(png_of(found["b64s"]))
        assert found["id"]
        seen.add(found["id"])
    assert len(seen) == 4
    refused(send(house, "/v1/user/captcha", '{"deviceId":'), UNREADABLE)


def whole_png(data: bytes) -> bool:
    """Whether these are the chunks of one PNG, from IHDR to IEND, each with its right checksum."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    place, kinds = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunk = data[place + 4 : place + 8 + length]
        (check,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        if zlib.crc32(chunk) != check:
            return False
        kinds.append(chunk[:4])
        place += 12 + length
    return kinds[0] == b"IHDR" and b"IDAT" in kinds and kinds[-1] == b"IEND"


@golden("/v1/verification/get-verification-code")
def test_get_verification_code(house: House) -> None:
    key = "/v1/verification/get-verification-code"
    captcha, solution = house.captcha()
    body = f'{{"mobile":"13912345678","code":"{solution}","id":"{captcha}","platform":"android"}}'
    done(send(house, key, body, headers=JSON))
    (letter,) = house.letters("13912345678")
    assert letter.channel == "sms"
    assert len(letter.code) == 6
    assert letter.code.isdigit()
    assert letter.code in letter.text

    captcha, solution = house.captcha()
    again = f'{{"mobile":"13912345678","code":"{solution}","id":"{captcha}"}}'
    house.clock.advance(20)
    too_often = send(house, key, again)
    refused(too_often, (-1, "发送过于频繁，请 40 秒后再试"))
    assert too_often.headers["retry-after"] == "40"
    captcha, solution = house.captcha()
    refused(
        send(house, key, f'{{"mobile":"110","code":"{solution}","id":"{captcha}"}}'),
        (-1, "手机号格式不正确"),
    )
    assert len(house.letters()) == 1


def test_a_captcha_is_spent_once(house: House) -> None:
    """C9: by its use, and by a wrong answer too."""
    key = "/v1/verification/get-verification-code"
    spent = (-1, "图形验证码错误或已过期，请重新获取")
    captcha, solution = house.captcha()
    assert len(solution) == 4
    right = f'{{"mobile":"13912345678","code":"{solution}","id":"{captcha}"}}'
    done(send(house, key, right))
    house.clock.advance(60)
    refused(send(house, key, right), spent)

    captcha, solution = house.captcha()
    wrong = "2222" if solution != "2222" else "3333"
    for guess in (wrong, solution):
        body = f'{{"mobile":"13912345678","code":"{guess}","id":"{captcha}"}}'
        refused(send(house, key, body), spent)
    captcha, solution = house.captcha()
    house.clock.advance(120)
    late = f'{{"mobile":"13912345678","code":"{solution}","id":"{captcha}"}}'
    refused(send(house, key, late), spent)
    assert len(house.letters()) == 1


@golden("/v1/verification/get-email-verification-code")
def test_get_email_verification_code(house: House) -> None:
    key = "/v1/verification/get-email-verification-code"
    house.person(1)
    for count, typ in enumerate(("", ',"typ":""', ',"typ":"forget_password"'), start=1):
        captcha, solution = house.captcha()
        body = f'{{"email":"person1@example.org","code":"{solution}","id":"{captcha}"{typ}}}'
        done(send(house, key, body, headers={"content-type": "text/plain;charset=UTF-8"}))
        letters = house.letters("person1@example.org")
        assert len(letters) == count
        assert letters[0].channel == "email"
        house.clock.advance(60)
    captcha, solution = house.captcha()
    refused(
        send(house, key, f'{{"email":"@","code":"{solution}","id":"{captcha}"}}'),
        (-1, "邮箱格式不正确"),
    )
    refused(
        send(house, key, '{"email":"person1@example.org","code":"2345","id":"nobody-made-this"}'),
        (-1, "图形验证码错误或已过期，请重新获取"),
    )


@golden("/v1/user/verification-login")
def test_verification_login(house: House, pb: ModuleType) -> None:
    key = "/v1/user/verification-login"
    code = house.code_for("13912345678")
    body = f'{{"mobile":"13912345678","captcha":"{code}","deviceId":"awa","platform":"windows"}}'
    token = data_of(send(house, key, body, headers=JSON), key)["token"]
    assert shaped_like_token(token)
    assert own(house, pb, token).phone == "13912345678"

    refused(send(house, key, body), WRONG_CODE)
    house.clock.advance(60)
    code = house.code_for("13912345678")
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    refused(send(house, key, f'{{"mobile":"13912345678","captcha":"{wrong}"}}'), WRONG_CODE)
    # Without the optional keys, and with the number as an Android client writes it.
    spelt = f'{{"mobile":"+86 139-1234-5678","captcha":"{code}"}}'
    second = data_of(send(house, key, spelt), key)["token"]
    assert second != token
    assert own(house, pb, token).id == own(house, pb, second).id == "1000001"

    refused(send(house, key, '{"mobile":"110","captcha":"123456"}'), (-1, "手机号格式不正确"))
    house.clock.advance(60)
    code = house.code_for("13912345678")
    with house.rules() as ctx:
        people.ban(ctx, 1000001, NOON + 7 * DAY)
    refused(
        send(house, key, f'{{"mobile":"13912345678","captcha":"{code}"}}'),
        (-1, "账号已被封禁，解封时间：2026-03-09 12:00:00"),
    )


@golden("/v1/user/email-login")
def test_email_login(house: House, pb: ModuleType) -> None:
    key = "/v1/user/email-login"
    house.person(1, password="password-1")
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0"
    tokens = [
        data_of(send(house, key, body, headers=JSON), key)["token"]
        for body in (
            '{"email":"person1@example.org","password":"password-1","deviceId":"awa",'
            '"platform":"android"}',
            '{"email":"person1@example.org","password":"password-1","deviceId":"awa",'
            '"platform":"android"}',
            '{"email":"Person1@Example.org","password":"password-1"}',
            f'{{"email":"person1@example.org","password":"password-1","deviceId":"{agent}",'
            '"platform":"web","rememberMe":true}',
        )
    ]
    assert all(shaped_like_token(token) for token in tokens)
    # Sessions are parallel: a new login ends none, even with the same device.
    assert len(set(tokens)) == 4
    assert {own(house, pb, token).id for token in tokens} == {"1000001"}

    wrong = send(house, key, '{"email":"person1@example.org","password":"password-2"}')
    unknown = send(house, key, '{"email":"nobody@example.org","password":"password-1"}')
    refused(wrong, (-1, "邮箱或密码错误"))
    assert wrong.content == unknown.content
    refused(send(house, key, '{"email":"person1","password":"password-1"}'), (-1, "邮箱格式不正确"))
    # A password with a quotation mark, spliced in unescaped, as one client does.
    refused(
        send(house, key, '{"email":"person1@example.org","password":"pass"word","platform":"web"}'),
        UNREADABLE,
    )


@golden("/v1/user/logout")
def test_logout(house: House, pb: ModuleType) -> None:
    """T5: exactly the presented session ends, whatever device the body names."""
    key = "/v1/user/logout"
    mine = house.person(1)
    staying = house.token(mine, "123123123")
    for body in (
        '{"device-id":"123123123"}',
        '{"deviceId":"123123123"}',
        '{"device-id":"of no login"}',
        '{"device-id":null,"deviceId":7}',
        "{}",
        "",
    ):
        token = house.token(mine, "awa")
        done(send(house, key, body, token=token, headers=JSON))
        refused(send(house, key, body, token=token), NOT_LOGGED_IN)
        denied(pb, send(house, "/v1/user/info", token=token), NOT_LOGGED_IN)
        assert own(house, pb, staying).id == "1000001"


# ---------------------------------------------------------------- who one is


@golden("/v1/user/info")
def test_info(house: House, pb: ModuleType) -> None:
    """I2: one's own number is shown whole. What was never set stays at its default."""
    key = "/v1/user/info"
    mine = house.person(1)
    token = house.token(mine)
    done(send(house, "/v1/user/invite/change-user-invite-code", '{"code":"HUPAN1"}', token=token))
    plain = own(house, pb, token)
    assert plain == pb.OwnAccount.Data(
        id="1000001",
        name="人1",
        phone="13900000001",
        email="person1@example.org",
        invitation_code="HUPAN1",
    )
    with house.rules() as ctx:
        coins.post(ctx, mine, 12301, typ=8, reason="抽奖金币", key="golden")
        people.make_vip(ctx, mine, 1_772_427_600)
    send(house, "/v1/user/edit-avatar", b"\x12\x12https://a.example/", token=token)
    filled = own(house, pb, token)
    # Two changes of the picture's number and a reward for the first picture are ours.
    assert filled.avatar_id > 0
    filled.ClearField("avatar_id")
    assert filled == pb.OwnAccount.Data(
        id="1000001",
        name="人1",
        avatar_url="https://a.example/",
        phone="13900000001",
        email="person1@example.org",
        coin=124.01,
        is_vip=1,
        vip_expired_time=1_772_427_600,
        invitation_code="HUPAN1",
    )
    house.clock.advance(3600)
    assert own(house, pb, token).is_vip == 0

    in_json = read_json(send(house, key, token=token, headers={"accept": "application/json"}))
    same(
        {name: in_json["data"][name] for name in ("id", "name", "phone", "coin", "is_vip")},
        {"id": "1000001", "name": "人1", "phone": "13900000001", "coin": 124.01, "is_vip": 0},
    )
    assert set(in_json["data"]) == {field.name for field in pb.OwnAccount.Data.DESCRIPTOR.fields}


@golden("/v1/user/get-user")
def test_get_user(house: House, pb: ModuleType) -> None:
    """I2: nobody else sees a number or an address."""
    key = "/v1/user/get-user"
    asker = house.token(house.person(1))
    other = house.person(2)
    assert other == 1000002
    ask = b"\x12\x071000002"
    bare = accepted(pb, pb.AnyAccount, send(house, key, ask, token=asker, headers=PROTOBUF)).data
    assert bare.profile_info == pb.ProfileEntry(gender=3)
    bare.ClearField("name_id")
    bare.ClearField("profile_info")
    assert bare == pb.AnyAccount.Data(id="1000002", name="人2", register_time="2026-03-02 12:00:00")

    house.clock.advance(DAY)
    theirs = house.token(other)
    with house.rules() as ctx:
        people.make_vip(ctx, other, 1_772_600_000)
        medals.define(ctx, "创作者", sort=200)
        medals.define(ctx, "测试勋章", sort=100)
        medals.grant(ctx, other, "创作者")
        medals.grant(ctx, other, "测试勋章")
    done(
        send(
            house,
            "/v1/user/save-user-data",
            '{"introduction":"测试个人简介","gender":2,"birthday":946684800,"province":"北京市",'
            '"city":"北京城区","district":"东城区","locationCode":"110101"}',
            token=theirs,
        )
    )
    done(
        send(
            house,
            "/v1/user/save-user-remarks",
            '{"friendId":"1000002","name":"老王","phone":"10086",'
            '"others":"[{\\"key\\":\\"他是\\",\\"value\\":\\"我的朋友\\"}]"}',
            token=asker,
        )
    )
    response = send(house, key, ask, token=asker, headers={"content-type": "application/json"})
    assert b"13900000002" not in response.content
    assert b"person2" not in response.content
    full = accepted(pb, pb.AnyAccount, response).data
    assert json.loads(full.remark_info.extra_remark) == [{"key": "他是", "value": "我的朋友"}]
    full.remark_info.ClearField("extra_remark")
    full.ClearField("name_id")
    assert full == pb.AnyAccount.Data(
        id="1000002",
        name="人2",
        medal=[
            pb.MedalEntry(id=2, name="测试勋章", sort=100),
            pb.MedalEntry(id=1, name="创作者", sort=200),
        ],
        register_time="2026-03-02 12:00:00",
        online_day=1,
        continuous_online_day=1,
        is_vip=1,
        vip_expired_time=1_772_600_000,
        remark_info=pb.RemarkEntry(remark_name="老王", phone_number="10086"),
        profile_info=pb.ProfileEntry(
            last_active_time="2026-03-03 12:00:00",
            introduction="测试个人简介",
            gender=2,
            birthday_timestamp=946684800,
            city="北京城区",
            district="东城区",
            address="北京市北京城区东城区",
        ),
    )
    # Any token will do, and then there is no remark.
    for token in (theirs, "瞎写的".encode(), NEVER_GIVEN):
        shown = accepted(pb, pb.AnyAccount, send(house, key, ask, token=token)).data
        assert not shown.HasField("remark_info")
        assert shown.name == "人2"
    # The same in JSON, for those who ask in JSON.
    in_json = read_json(send(house, key, '{"id":"1000002"}', token=asker))["data"]
    assert set(in_json) <= {field.name for field in pb.AnyAccount.Data.DESCRIPTOR.fields}
    same(in_json["medal"][0], {"id": 2, "name": "测试勋章", "sort": 100})
    assert in_json["remark_info"]["remark_name"] == "老王"
    # A ban shows for as long as it runs.
    with house.rules() as ctx:
        people.ban(ctx, other, NOON + 2 * DAY)
    banned = accepted(pb, pb.AnyAccount, send(house, key, ask, token=asker)).data
    assert banned.ban_time == NOON + 2 * DAY

    for unknown in (b"\x12\x079999999", b"\x12\x0801000002", b"\x12\x01x", b"\x12\x00", b""):
        denied(pb, send(house, key, unknown, token=asker), UNKNOWN_USER)
    for unknown_json in ('{"id":"9999999"}', '{"id":"-1"}', '{"id":""}', "{}"):
        refused(send(house, key, unknown_json, token=asker), UNKNOWN_USER)
    denied(pb, send(house, key, ask), NOT_LOGGED_IN)
    denied(pb, send(house, key, ask[:-1], token=asker), UNREADABLE)


@golden("/v1/user/medal")
def test_medal(house: House, pb: ModuleType) -> None:
    key = "/v1/user/medal"
    mine = house.person(1)
    token = house.token(mine)
    # An empty list is a status and nothing else.
    nothing = accepted(pb, pb.StatusOnly, send(house, key, token=token))
    assert nothing.status.msg == "success"
    with house.rules() as ctx:
        for name, sort in (("三", 30), ("一", 10), ("二", 20)):
            medals.define(ctx, name, sort=sort)
            medals.grant(ctx, mine, name)
    shown = accepted(pb, pb.MedalList, send(house, key, token=token))
    assert list(shown.medal) == [
        pb.MedalEntry(id=2, name="一", sort=10),
        pb.MedalEntry(id=3, name="二", sort=20),
        pb.MedalEntry(id=1, name="三", sort=30),
    ]


@golden("/v1/user/edit-nickname")
def test_edit_nickname(house: House, pb: ModuleType) -> None:
    key = "/v1/user/edit-nickname"
    token = house.token(house.person(1))
    new = b"\x1a\x06\xe6\x96\xb0\xe5\x90\x8d"
    accepted(pb, pb.StatusOnly, send(house, key, new, token=token, headers=PROTOBUF))
    assert own(house, pb, token).name == "新名"
    done(send(house, key, '{"name":"又一个"}', token=token))
    assert own(house, pb, token).name == "又一个"

    # One client sends empty bodies; they are refused and change nothing.
    short = (-1, "昵称需要 1 到 32 个字符")
    for empty in (b"", b"\x1a\x00", b"\x1a\x03   ", b"\x12\x01a"):
        denied(pb, send(house, key, empty, token=token), short)
    for empty_json in ("{}", '{"name":""}', '{"name":null}', '{"name":" \\u200b "}'):
        refused(send(house, key, empty_json, token=token), short)
    denied(pb, send(house, key, b"\x1a\x21" + b"a" * 33, token=token), short)
    denied(pb, send(house, key, new), NOT_LOGGED_IN)
    refused(send(house, key, '{"name":"x"}'), NOT_LOGGED_IN)
    assert own(house, pb, token).name == "又一个"


@golden("/v1/user/edit-avatar")
def test_edit_avatar(house: House, pb: ModuleType) -> None:
    key = "/v1/user/edit-avatar"
    token = house.token(house.person(1))
    new = b"\x12\x1dhttps://img.example.org/a.png"
    accepted(pb, pb.StatusOnly, send(house, key, new, token=token, headers=PROTOBUF))
    assert own(house, pb, token).avatar_url == "https://img.example.org/a.png"
    done(send(house, key, '{"url":"http://img.example.org/b.png"}', token=token))
    assert own(house, pb, token).avatar_url == "http://img.example.org/b.png"

    bad = (-1, "头像地址必须是 http 或 https 链接，最长 2048 个字符")
    for wrong in (b"", b"\x12\x00", b"\x12\x13javascript:alert(1)", b"\x12\x07file://"):
        denied(pb, send(house, key, wrong, token=token), bad)
    for wrong_json in ("{}", '{"url":""}', '{"url":null}', '{"url":"//a/b"}'):
        refused(send(house, key, wrong_json, token=token), bad)
    assert own(house, pb, token).avatar_url == "http://img.example.org/b.png"


@golden("/v1/user/save-user-data")
def test_save_user_data(house: House) -> None:
    key = "/v1/user/save-user-data"
    token = house.token(house.person(1))
    done(
        send(
            house,
            key,
            '{"introduction":"111","gender":3,"birthday":1231231230,"province":"北京市",'
            '"city":"北京城区","district":"东城区","locationCode":"110101"}',
            token=token,
            headers=JSON,
        )
    )
    done(send(house, key, '{"introduction":"","gender":"1","birthday":"0"}', token=token))
    for wrong, reason in (
        ('{"gender":4}', "性别只能是 1（男）、2（女）或 3（其他）"),
        ('{"gender":0}', "性别只能是 1（男）、2（女）或 3（其他）"),
        ('{"birthday":99999999999}', "生日不正确"),
        (f'{{"introduction":"{"长" * 501}"}}', "简介过长，最多 500 个字符"),
    ):
        refused(send(house, key, wrong, token=token), (-1, reason))


@golden("/v1/user/get-user-data")
def test_get_user_data(house: House) -> None:
    key = "/v1/user/get-user-data"
    token = house.token(house.person(1))
    found = data_of(send(house, key, token=token), key)
    same(
        found,
        {
            "data": {
                "id": 0,
                "userId": "1000001",
                "lastLoginTime": 1_772_424_000,
                "update_time": 0,
                "introduction": "",
                "gender": 3,
                "birthday": 0,
                "province": "",
                "city": "",
                "district": "",
                "locationCode": "",
            }
        },
    )
    house.clock.advance(5)
    sent = (
        '{"introduction":"第一行\\n第二行","gender":1,"birthday":-86400,"province":"北京市",'
        '"city":"北京城区","district":"东城区","locationCode":"110101"}'
    )
    done(send(house, "/v1/user/save-user-data", sent, token=token))
    same(
        data_of(send(house, key, "{}", token=token, headers=JSON), key),
        {
            "data": {
                "id": 1,
                "userId": "1000001",
                "lastLoginTime": 1_772_424_000,
                "update_time": 1_772_424_005,
                "introduction": "第一行\n第二行",
                "gender": 1,
                "birthday": -86400,
                "province": "北京市",
                "city": "北京城区",
                "district": "东城区",
                "locationCode": "110101",
            }
        },
    )


@golden("/v1/user/save-user-remarks")
def test_save_user_remarks(house: House, pb: ModuleType) -> None:
    key = "/v1/user/save-user-remarks"
    token = house.token(house.person(1))
    stranger = house.token(house.person(2))
    done(
        send(
            house,
            key,
            '{"friendId":"1000002","name":"备注名","phone":"12312312300","others":'
            '"[{\\"key\\":\\"他是\\",\\"value\\":\\"我的朋友\\"},'
            '{\\"key\\":\\"职业\\",\\"value\\":\\"打工人\\"}]"}',
            token=token,
            headers=JSON,
        )
    )
    ask = b"\x12\x071000002"
    noted = accepted(pb, pb.AnyAccount, send(house, "/v1/user/get-user", ask, token=token)).data
    assert noted.remark_info.remark_name == "备注名"
    assert noted.remark_info.phone_number == "12312312300"
    assert json.loads(noted.remark_info.extra_remark) == [
        {"key": "他是", "value": "我的朋友"},
        {"key": "职业", "value": "打工人"},
    ]
    # Only the writer sees it.
    seen = accepted(pb, pb.AnyAccount, send(house, "/v1/user/get-user", ask, token=stranger)).data
    assert not seen.HasField("remark_info")
    done(send(house, key, '{"friendId":1000002,"name":"","phone":"","others":""}', token=token))
    refused(send(house, key, '{"friendId":"9999999","name":"x"}', token=token), UNKNOWN_USER)
    for others in ('"x"', '"{}"', '"[1]"', '"[{\\"key\\":1}]"', '"[{\\"key\\":\\"\\\\ud800\\"}]"'):
        refused(
            send(house, key, f'{{"friendId":"1000002","others":{others}}}', token=token),
            (-1, "备注格式不正确"),
        )


# ---------------------------------------------------------------- contacts


def contact_exchange(house: House, pb: ModuleType, key: str, name: str) -> None:
    """Bind or change a contact: the code was sent to the new one."""
    new, taken, bad = (
        ("13912345678", "13900000002", "110")
        if name == "phone"
        else ("new@example.org", "person2@example.org", "no address")
    )
    token = house.token(house.person(1))
    house.person(2)
    code = house.code_for(new)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    refused(send(house, key, f'{{"{name}":"{new}","captcha":"{wrong}"}}', token=token), WRONG_CODE)
    done(send(house, key, f'{{"{name}":"{new}","captcha":"{code}"}}', token=token, headers=JSON))
    assert getattr(own(house, pb, token), name) == new
    refused(
        send(house, key, f'{{"{name}":"{new}","captcha":"{code}"}}', token=token),
        (-1, "与当前绑定的相同"),
    )
    code = house.code_for(taken)
    reasons = {"phone": "该手机号已被其他账号绑定", "email": "该邮箱已被其他账号绑定"}
    refused(
        send(house, key, f'{{"{name}":"{taken}","captcha":"{code}"}}', token=token),
        (-1, reasons[name]),
    )
    formats = {"phone": "手机号格式不正确", "email": "邮箱格式不正确"}
    refused(
        send(house, key, f'{{"{name}":"{bad}","captcha":"123456"}}', token=token),
        (-1, formats[name]),
    )
    refused(send(house, key, f'{{"{name}":"{taken}","captcha":"{code}"}}'), NOT_LOGGED_IN)
    assert getattr(own(house, pb, token), name) == new


@golden("/v1/user/bing-phone")
def test_bind_phone(house: House, pb: ModuleType) -> None:
    contact_exchange(house, pb, "/v1/user/bing-phone", "phone")


@golden("/v1/user/bing-email")
def test_bind_email(house: House, pb: ModuleType) -> None:
    contact_exchange(house, pb, "/v1/user/bing-email", "email")


@golden("/v1/user/change-phone-check")
def test_change_phone(house: House, pb: ModuleType) -> None:
    contact_exchange(house, pb, "/v1/user/change-phone-check", "phone")


@golden("/v1/user/change-email-check")
def test_change_email(house: House, pb: ModuleType) -> None:
    contact_exchange(house, pb, "/v1/user/change-email-check", "email")


@golden("/v1/user/forget-password")
def test_forget_password(house: House, pb: ModuleType) -> None:
    """P6: the code alone authorises, every session ends, the new password logs in."""
    key = "/v1/user/forget-password"
    token = house.token(house.person(1, password="password-1"))
    code = house.code_for("person1@example.org", "forget_password")
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"

    def body(captcha: str, password: str) -> str:
        return f'{{"email":"person1@example.org","captcha":"{captcha}","password":"{password}"}}'

    refused(send(house, key, body(wrong, "测试登录密码一二三")), WRONG_CODE)
    refused(send(house, key, body(code, "1234567")), (-1, "密码至少需要 8 个字符"))
    refused(
        send(house, key, body(code, "password")),
        (-1, "密码过于常见，容易被猜到，请换一个"),
    )
    assert own(house, pb, token).id == "1000001"
    # A token may be there: a dead one, here.
    done(send(house, key, body(code, "测试登录密码一二三"), token=NEVER_GIVEN, headers=JSON))
    denied(pb, send(house, "/v1/user/info", token=token), NOT_LOGGED_IN)
    login = '{"email":"person1@example.org","password":"测试登录密码一二三"}'
    assert "token" in data_of(send(house, "/v1/user/email-login", login), "/v1/user/email-login")
    refused(
        send(
            house,
            "/v1/user/email-login",
            '{"email":"person1@example.org","password":"password-1"}',
        ),
        (-1, "邮箱或密码错误"),
    )
    refused(send(house, key, body(code, "测试登录密码一二三")), WRONG_CODE)


@golden("/v1/user/cancel-user")
def test_cancel_user(house: House, pb: ModuleType) -> None:
    """T5: with the account, its tokens end."""
    key = "/v1/user/cancel-user"
    for number, name, contact in (
        (1, "phone", "13900000001"),
        (2, "email", "person2@example.org"),
    ):
        mine = house.person(number)
        token = house.token(mine)
        code = house.code_for(contact)
        wrong = f"{(int(code) + 1) % 1_000_000:06d}"
        refused(
            send(house, key, f'{{"{name}":"{contact}","captcha":"{wrong}"}}', token=token),
            WRONG_CODE,
        )
        refused(
            send(house, key, '{"phone":"13900000009","captcha":"123456"}', token=token),
            (-1, "请使用当前账号绑定的手机号或邮箱"),
        )
        done(
            send(
                house,
                key,
                f'{{"{name}":"{contact}","captcha":"{code}"}}',
                token=token,
                headers=JSON,
            )
        )
        denied(pb, send(house, "/v1/user/info", token=token), NOT_LOGGED_IN)
        gone = b"\x12\x07%d" % mine
        denied(pb, send(house, "/v1/user/get-user", gone, token=NEVER_GIVEN), UNKNOWN_USER)


# ---------------------------------------------------------------- devices


@golden("/v1/user/clients")
def test_clients(house: House, pb: ModuleType) -> None:
    key = "/v1/user/clients"
    mine = house.person(1, password="password-1")

    def login(device: str, platform: str) -> str:
        body = (
            '{"email":"person1@example.org","password":"password-1",'
            f'"deviceId":"{device}","platform":"{platform}"}}'
        )
        token: str = data_of(send(house, "/v1/user/email-login", body), "/v1/user/email-login")[
            "token"
        ]
        return token

    login("awa", "windows")
    house.clock.advance(60)
    login("设备", "android")
    house.clock.advance(60)
    token = login("", "")
    house.token(house.person(2))
    shown = accepted(pb, pb.DeviceList, send(house, key, token=token))
    assert list(shown.devices) == [
        pb.DeviceEntry(user_id="1000001", login_timestamp=1_772_424_120),
        pb.DeviceEntry(
            user_id="1000001", platform="android", device_id="设备", login_timestamp=1_772_424_060
        ),
        pb.DeviceEntry(
            user_id="1000001", platform="windows", device_id="awa", login_timestamp=1_772_424_000
        ),
    ]
    assert mine == 1000001


@golden("/v1/user/device-offline")
def test_device_offline(house: House, pb: ModuleType) -> None:
    """T5: all sessions of the device end, and no others."""
    key = "/v1/user/device-offline"
    mine = house.person(1)
    here, there, there_too = (house.token(mine, one) for one in ("here", "there", "there"))
    others = house.token(house.person(2), "there")
    done(send(house, key, '{"deviceId":"there"}', token=here, headers=JSON))
    for token in (there, there_too):
        denied(pb, send(house, "/v1/user/info", token=token), NOT_LOGGED_IN)
    assert own(house, pb, here).id == "1000001"
    assert own(house, pb, others).id == "1000002"
    refused(send(house, key, '{"deviceId":"there"}', token=here), (-1, "该设备不存在或已下线"))
    refused(send(house, key, "{}", token=here), (-1, "缺少设备标识"))


@golden("/v1/user/notification-info")
def test_notification_info(house: House) -> None:
    """*info* stores, whatever its name says."""
    key = "/v1/user/notification-info"
    token = house.token(house.person(1))
    body = '{"deviceId":"114514","registrationId":"114514","isOpen":1,"type":2}'
    done(send(house, key, body, token=token, headers=JSON))
    done(send(house, key, body.replace("1,", '"0",'), token=token))
    refused(
        send(house, key, '{"deviceId":"1","registrationId":"1","isOpen":2}', token=token),
        (-1, "开关只能是 0 或 1"),
    )
    refused(send(house, key, '{"registrationId":"1"}', token=token), (-1, "缺少设备标识"))


@golden("/v1/user/notification-status")
def test_notification_status(house: House) -> None:
    """*status* reads what *info* stored, one row for each user, device and registration."""
    key, store = "/v1/user/notification-status", "/v1/user/notification-info"
    token = house.token(house.person(1))
    other = house.token(house.person(2))
    ask = '{"deviceId":"1114514","registrationId":"114514"}'
    nothing = {
        "id": 0,
        "userId": "1000001",
        "deviceId": "1114514",
        "registrationId": "114514",
        "isOpen": 0,
        "type": 0,
        "delFlag": 0,
        "createTime": 0,
        "updateTime": 0,
    }
    same(data_of(send(house, key, ask, token=token), key), {"notification": nothing})
    stored = '{"deviceId":"1114514","registrationId":"114514","isOpen":1,"type":2}'
    done(send(house, store, stored, token=token))
    first = {
        "id": 1,
        "userId": "1000001",
        "deviceId": "1114514",
        "registrationId": "114514",
        "isOpen": 1,
        "type": 2,
        "delFlag": 0,
        "createTime": 1_772_424_000,
        "updateTime": 1_772_424_000,
    }
    same(data_of(send(house, key, ask, token=token), key), {"notification": first})
    house.clock.advance(10)
    done(send(house, store, stored.replace('"isOpen":1', '"isOpen":0'), token=token))
    changed = {**first, "isOpen": 0, "updateTime": 1_772_424_010}
    same(data_of(send(house, key, ask, token=token, headers=JSON), key), {"notification": changed})
    theirs = {**nothing, "userId": "1000002"}
    same(data_of(send(house, key, ask, token=other), key), {"notification": theirs})


@golden("/v1/user/module-ignore")
def test_module_ignore(house: House) -> None:
    key = "/v1/user/module-ignore"
    mine = house.person(1)
    token = house.token(mine)
    body = '{"deviceId":"awa","ignore":",30,20,10"}'
    refused(send(house, key, body, token=token, headers=JSON), VIP_ONLY)
    with house.rules() as ctx:
        people.make_vip(ctx, mine, NOON + 60)
    done(send(house, key, body, token=token, headers=JSON))
    done(send(house, key, '{"deviceId":"awa","ignore":""}', token=token))
    refused(send(house, key, '{"ignore":"10"}', token=token), (-1, "缺少设备标识"))
    refused(
        send(house, key, '{"deviceId":"awa","ignore":"<b>"}', token=token),
        (-1, "忽略设置格式不正确"),
    )
    house.clock.advance(60)
    refused(send(house, key, body, token=token), VIP_ONLY)


@golden("/v1/user/module-ignore-info")
def test_module_ignore_info(house: House) -> None:
    key = "/v1/user/module-ignore-info"
    mine = house.person(1)
    token = house.token(mine)
    ask = '{"deviceId":"awa"}'
    refused(send(house, key, ask, token=token, headers=JSON), VIP_ONLY)
    refused(send(house, key, token=token), VIP_ONLY)
    with house.rules() as ctx:
        people.make_vip(ctx, mine, NOON + 60)
    nothing = {"id": 0, "userId": "1000001", "updateTime": 0, "deviceId": "awa", "ignore": ""}
    same(data_of(send(house, key, ask, token=token), key), {"ignore": nothing})
    body = '{"deviceId":"awa","ignore":",30,20,10"}'
    done(send(house, "/v1/user/module-ignore", body, token=token))
    same(
        data_of(send(house, key, ask, token=token, headers=JSON), key),
        {
            "ignore": {
                "id": 1,
                "userId": "1000001",
                "updateTime": 1_772_424_000,
                "deviceId": "awa",
                "ignore": ",30,20,10",
            }
        },
    )
    house.clock.advance(60)
    refused(send(house, key, ask, token=token), VIP_ONLY)


# ---------------------------------------------------------------- discovery


@golden("/v1/user/recommend-category-list")
def test_recommend_category_list(house: House) -> None:
    key = "/v1/user/recommend-category-list"
    token = house.token(house.person(1))
    same(data_of(send(house, key, "{}", token=token), key), {"categories": []})
    with house.rules() as ctx:
        ctx.tx.run(
            insert(category).values(
                [
                    {"name": "IT/互联网", "sort": 2},
                    {"name": "精选", "sort": 0},
                    {"name": "粉丝群", "sort": 1},
                ]
            )
        )
    for body in ('{"appChannel":"default"}', "{}", ""):
        same(
            data_of(send(house, key, body, token=token, headers=JSON), key),
            {"categories": ["精选", "粉丝群", "IT/互联网"]},
        )


@golden("/v1/user/recommend-list")
def test_recommend_list(house: House) -> None:
    key = "/v1/user/recommend-list"
    token = house.token(house.person(1))
    same(data_of(send(house, key, "{}", token=token), key), {"groupList": []})
    with house.rules() as ctx:
        for number in range(1, 35):
            values = {
                "category": "精选" if number < 34 else "游戏",
                "name": f"测试群聊{number}",
                "introduction": "测试群聊简介",
                "avatar_url": "https://img.example.org/g.png",
                "headcount": 120 + number,
                "created_at": 1_231_231_230,
                "sort": 100 - number,
                "banned": int(number == 2),
            }
            ctx.tx.run(insert(group_chat).values(values))

    def group(number: int) -> dict[str, Any]:
        return {
            "chatId": str(1_000_000 + number),
            "banId": 0,
            "nickname": f"测试群聊{number}",
            "introduction": "测试群聊简介",
            "avatarUrl": "https://img.example.org/g.png",
            "headcount": 120 + number,
            "createTime": 1_231_231_230,
        }

    def listed(body: str) -> Any:
        found = data_of(send(house, key, body, token=token, headers=JSON), key)
        assert set(found) == {"groupList"}
        return found["groupList"]

    shown = listed('{"category":"精选","keyword":"","size":30,"page":1}')
    same(shown, [group(number) for number in (1, *range(3, 32))])
    same(listed('{"category":"精选","keyword":"","size":30,"page":2}'), [group(32), group(33)])
    # Past the end there is an empty list, and never null.
    same(listed('{"category":"精选","keyword":"","size":30,"page":3}'), [])
    same(listed('{"category":"没有","keyword":"","size":30,"page":1}'), [])
    # An empty section is all of them; the default is thirty from page one.
    assert len(listed("{}")) == 30
    assert len(listed("")) == 30
    same(listed('{"category":"","keyword":"","size":"3","page":"11"}')[-1], group(34))
    same(listed('{"category":"","keyword":"群聊34"}'), [group(34)])
    # What people type is searched for as it is, and is no pattern.
    same(listed('{"keyword":"%"}'), [])
    same(listed('{"keyword":"_"}'), [])
    refused(send(house, key, '{"page":-1}', token=token), UNREADABLE)
    refused(send(house, key, '{"size":-1}', token=token), UNREADABLE)


@golden("/v1/user/recommend")
def test_recommend(house: House) -> None:
    """Here, and only here, the numbers are texts."""
    key = "/v1/user/recommend"
    token = house.token(house.person(1))
    same(data_of(send(house, key, token=token), key), {"botList": []})
    with house.rules() as ctx:
        ctx.tx.run(
            insert(bot).values(
                {
                    "name": "测试机器人名称",
                    "introduction": "测试机器人简介",
                    "avatar_url": "https://img.example.org/bot.png",
                    "headcount": 123,
                    "created_at": NOON,
                    "is_add": 1,
                    "is_apply": 0,
                    "always_agree": 1,
                }
            )
        )
    (shown,) = data_of(send(house, key, token=token), key)["botList"]
    assert isinstance(shown.pop("instructions"), str)
    same(
        shown,
        {
            "chatId": "1000001",
            "chatType": "3",
            "headcount": "123",
            "nickname": "测试机器人名称",
            "introduction": "测试机器人简介",
            "introductions": "",
            "avatarUrl": "https://img.example.org/bot.png",
            "isAdd": 1,
            "isApply": 0,
            "alwaysAgree": 1,
        },
    )


@golden("/v1/user/get-user-show-adv")
def test_get_user_show_adv(house: House) -> None:
    key = "/v1/user/get-user-show-adv"
    token = house.token(house.person(1))
    same(
        data_of(send(house, key, token=token), key),
        {"androidCodeId": "", "bottomHeight": 0, "iosCodeId": "", "isShow": 0},
    )
    with house.rules() as ctx:
        shown = discovery.Advert("android-1", "ios-1", bottom_height=123, is_show=1)
        discovery.save_advert(ctx, False, shown)
    same(
        data_of(send(house, key, "{}", token=token, headers=JSON), key),
        {"androidCodeId": "android-1", "bottomHeight": 123, "iosCodeId": "ios-1", "isShow": 1},
    )


# ---------------------------------------------------------------- coins and invitations


@golden("/v1/user/gold-coin-increase-decrease-record")
def test_gold_coin_records(house: House, pb: ModuleType) -> None:
    key = "/v1/user/gold-coin-increase-decrease-record"
    mine = house.person(1)
    token = house.token(mine)
    same(
        data_of(send(house, key, '{"size":20,"page":1}', token=token), key),
        {"goldCoinRecord": [], "total": 0},
    )
    with house.rules() as ctx:
        coins.post(ctx, mine, 5501, typ=7, reason="观看广告", key="1")
        coins.post(ctx, mine, 200, typ=8, reason="抽奖金币", key="2", remark="备注")
        coins.post(ctx, mine, -10, typ=2, reason="打赏", key="3")

    def line(typ: int, amounts: tuple[float, float, float], reason: str, remark: str) -> Any:
        before, after, change = amounts
        return {
            "userId": "1000001",
            "typ": typ,
            "beforeAmount": before,
            "afterAmount": after,
            "changeAmount": change,
            "reason": reason,
            "remark": remark,
            "createTime": 1_772_424_000,
        }

    newest_first = [
        line(2, (57.01, 56.91, -0.1), "打赏", ""),
        line(8, (55.01, 57.01, 2), "抽奖金币", "备注"),
        line(7, (0, 55.01, 55.01), "观看广告", ""),
    ]

    def listed(response: httpx2.Response) -> tuple[list[Any], int]:
        found = data_of(response, key)
        ids = [record.pop("id") for record in found["goldCoinRecord"]]
        assert ids == sorted(set(ids), reverse=True)
        return found["goldCoinRecord"], found["total"]

    def by_post(body: str) -> Any:
        return listed(send(house, key, body, token=token, headers=JSON))

    def by_get(query: str) -> Any:
        return listed(send(house, key, token=token, method="GET", query=query))

    for lines, total in (
        by_post('{"size":20,"page":1}'),
        by_post('{"size":"20","page":"1"}'),
        by_post("{}"),
        by_post(""),
        by_get("?size=20&page=1"),
        by_get(""),
    ):
        same(lines, newest_first)
        assert total == 3
    for lines, total in (by_post('{"size":1,"page":2}'), by_get("?size=1&page=2")):
        same(lines, newest_first[1:2])
        assert total == 3
    for lines, total in (by_post('{"size":20,"page":2}'), by_get("?page=9")):
        same(lines, [])
        assert total == 3
    # What `info` shows is the newest record's amount.
    assert own(house, pb, token).coin == 56.91
    refused(send(house, key, '{"page":-1}', token=token), UNREADABLE)
    refused(send(house, key, token=token, method="GET", query="?page=x"), UNREADABLE)
    refused(send(house, key, method="GET"), NOT_LOGGED_IN)


@golden("/v1/user/invite/invite-progress")
def test_invite_progress(build: Callable[..., House]) -> None:
    house = build(invite_target_day=5, invite_target_total=50)
    key, answer = "/v1/user/invite/invite-progress", "/v1/user/invite/change-user-invite-code"
    token = house.token(house.person(1))
    done(send(house, answer, '{"code":"HUPAN1"}', token=token))
    assert data_of(send(house, key, token=token), key)["currentNumberTotal"] == 0
    done(send(house, answer, '{"code":"HUPAN1"}', token=house.token(house.person(2))))
    house.clock.advance(DAY)
    done(send(house, answer, '{"code":"HUPAN1"}', token=house.token(house.person(3))))
    same(
        data_of(send(house, key, "{}", token=token, headers=JSON), key),
        {
            "currentNumberDay": 1,
            "currentNumberTotal": 2,
            "targetNumberDay": 5,
            "targetNumberTotal": 50,
        },
    )


@golden("/v1/user/invite/change-user-invite-code")
def test_change_user_invite_code(house: House, pb: ModuleType) -> None:
    key = "/v1/user/invite/change-user-invite-code"
    mine, other = house.token(house.person(1)), house.token(house.person(2))
    done(send(house, key, '{"code":"HUPAN1"}', token=mine, headers=JSON))
    assert own(house, pb, mine).invitation_code == "HUPAN1"
    done(send(house, key, '{"code":"HUPAN1"}', token=other))
    refused(send(house, key, '{"code":"HUPAN1"}', token=other), (-1, "已经使用过邀请码"))
    refused(send(house, key, '{"code":"HUPAN1"}', token=mine), (-1, "不能使用自己的邀请码"))
    for bad in ("{}", '{"code":""}', '{"code":"abc"}', '{"code":"邀请码邀请码"}'):
        refused(send(house, key, bad, token=mine), (-1, "邀请码需要 4 到 16 位字母或数字"))


# ---------------------------------------------------------------- start-up and the web host


@golden("/v1/misc/configure-distribution")
def test_configure_distribution(build: Callable[..., House]) -> None:
    key = "/v1/misc/configure-distribution"
    house = build(
        api_url="https://chat.example.org",
        image_url="https://img.example.org",
        websocket_url="wss://ws.example.org",
    )
    same(
        data_of(send(house, key), key),
        {
            "audioUrl": "",
            "fileUrl": "",
            "imageUrl": "https://img.example.org",
            "serverUrl": "https://chat.example.org",
            "shareUrl": "",
            "videoUrl": "",
            "websocketUrl": "wss://ws.example.org",
        },
    )


@golden("web:/v1/user/info")
def test_web_info(house: House, pb: ModuleType) -> None:
    key = "web:/v1/user/info"
    mine = house.person(1)
    token = house.token(mine)
    nobody = {
        "userId": "1000001",
        "nickname": "人1",
        "phone": "13900000001",
        "avatarId": "0",
        "avatarUrl": "",
        "goldCoinAmount": 0,
    }
    same(data_of(send(house, key, token=token), key), {"user": nobody})
    send(house, "/v1/user/edit-avatar", b"\x12\x12https://a.example/", token=token)
    with house.rules() as ctx:
        coins.post(ctx, mine, 1, typ=8, reason="抽奖金币", key="golden")
    # What the web host shows agrees with the other host.
    shown = own(house, pb, token)
    same(
        data_of(send(house, key, token=token, headers={"accept": "*/*"}), key),
        {
            "user": {
                **nobody,
                "avatarId": str(shown.avatar_id),
                "avatarUrl": "https://a.example/",
                "goldCoinAmount": shown.coin,
            }
        },
    )


@golden("web:/v1/user/homepage")
def test_homepage(house: House) -> None:
    """I2: a public page tells neither number nor address, and a stranger is an empty success."""
    key = "web:/v1/user/homepage"
    mine = house.person(1)
    house.token(mine)
    with house.rules() as ctx:
        people.make_vip(ctx, mine, NOON + 60)
        medals.define(ctx, "测试勋章", "发给测试的人", "https://img.example.org/m.png", sort=100)
        medals.grant(ctx, mine, "测试勋章")
    for token in ("", NEVER_GIVEN):
        response = send(house, key, query="?userId=1000001", token=token)
        assert b"13900000001" not in response.content
        assert b"person1" not in response.content
        same(
            data_of(response, key),
            {
                "user": {
                    "userId": "1000001",
                    "nickname": "人1",
                    "avatarUrl": "",
                    "registerTime": 1_772_424_000,
                    "registerTimeText": "2026-03-02 12:00:00",
                    "onLineDay": 1,
                    "continuousOnLineDay": 1,
                    "medals": [
                        {
                            "id": 1,
                            "name": "测试勋章",
                            "desc": "发给测试的人",
                            "imageUrl": "https://img.example.org/m.png",
                            "sort": 100,
                        }
                    ],
                    "isVip": 1,
                }
            },
        )
    empty = {
        "userId": "",
        "nickname": "",
        "avatarUrl": "",
        "registerTime": 0,
        "registerTimeText": "",
        "onLineDay": 0,
        "continuousOnLineDay": 0,
        "medals": [],
        "isVip": 0,
    }
    for query in ("?userId=9999999", "?userId=", "", "?userId=%FF", "?userId=x&other=1"):
        same(data_of(send(house, key, query=query), key), {"user": empty})
    refused(send(house, key, query="?userId=%00"), UNREADABLE)
