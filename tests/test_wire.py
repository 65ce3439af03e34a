"""The wire in bytes: what is accepted however it is dressed, and what every answer looks like.

The database cannot matter here, so that these run on SQLite only.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from structlog.testing import capture_logs

from hupan.accounts import coins, people
from tests.house import NOON, HandClock, House, Process
from tests.oracle import compiled, opened, read_json, same, sound
from tests.oracle.endpoints import ENDPOINTS

GET_USER = "/v1/user/get-user"
RENAME = "/v1/user/edit-nickname"
PICTURE = "/v1/user/edit-avatar"
INFO = "/v1/user/info"
GROUPS = "/v1/user/recommend-list"
COINS = "/v1/user/gold-coin-increase-decrease-record"
STORE = "/v1/user/notification-info"
READ = "/v1/user/notification-status"
CAPTCHA = "/v1/user/captcha"

NOT_LOGGED_IN = {"code": -101, "msg": "未登录"}
UNREADABLE = {"code": 1002, "msg": "请求参数错误"}
UNKNOWN_USER = {"code": -1, "msg": "该用户不存在"}
NO_GROUPS = {"code": 1, "data": {"groupList": []}, "msg": "success"}
KIB = 1024

#: What clients claim about a body, whatever it is.
CLAIMS = (
    None,
    "application/json",
    "application/json; charset=utf-8",
    "text/plain;charset=UTF-8",
    "application/x-protobuf",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "nonsense",
)


@pytest.fixture
def kind() -> str:
    """Bytes are the same on every database."""
    return "sqlite"


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The classes that protoc makes of the oracle."""
    return compiled(tmp_path_factory.mktemp("oracle"))


class Caller:
    """Somebody with a live token, who sends bytes."""

    def __init__(self, house: House, number: int = 1) -> None:
        self.house = house
        self.id = house.person(number)
        self.token = house.token(self.id)

    def post(self, path: str, body: bytes | str = b"", **headers: str | None) -> httpx2.Response:
        return self.ask("POST", path, body, **headers)

    def get(self, path: str, **headers: str | None) -> httpx2.Response:
        return self.ask("GET", path, **headers)

    def ask(
        self, method: str, path: str, body: bytes | str = b"", **headers: str | None
    ) -> httpx2.Response:
        sent = {"token": self.token}
        for name, value in headers.items():
            key = name.replace("_", "-")
            sent.pop(key, None)
            if value is not None:
                sent[key] = value
        content = body.encode() if isinstance(body, str) else body
        return self.house.api.request(method, path, content=content, headers=sent)

    def name(self, pb: ModuleType) -> str:
        return str(opened(pb.OwnAccount, self.get(INFO)).data.name)


@pytest.fixture
def caller(house: House) -> Caller:
    return Caller(house)


def status_of(pb: ModuleType, response: httpx2.Response) -> dict[str, Any]:
    """The status of an answer that carries nothing else, as the JSON envelope has it."""
    status = opened(pb.StatusOnly, response).status
    return {"code": status.code, "msg": status.msg}


# ---------------------------------------------------------------- 1. the envelope


def test_the_bytes_of_a_status(caller: Caller) -> None:
    """`code` is always written, and a negative one takes the ten bytes that readers expect."""
    success = caller.post(RENAME, b"\x1a\x01x").content
    refused = caller.post(RENAME, b"\x1a\x01x", token=None).content
    unreadable = caller.post(RENAME, b"\x1a\xff").content
    assert success.endswith(b"\x10\x01\x1a\x07success")
    assert refused.endswith(
        b"\x10\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x09" + "未登录".encode()
    )
    assert unreadable.endswith(b"\x10\xea\x07\x1a\x12" + "请求参数错误".encode())
    for content in (success, refused, unreadable):
        # Field 1 holds the status, begins with its number, and is all there is.
        assert content[0] == 0x0A
        assert content[1] == len(content) - 2
        assert content[2] == 0x08


def test_the_bytes_of_an_envelope(caller: Caller) -> None:
    """A failure has exactly two keys and a success without data has the same two."""
    same(read_json(caller.post(STORE, '{"deviceId":"a"}')), {"code": 1, "msg": "success"})
    same(read_json(caller.post(GROUPS, "{}")), NO_GROUPS)
    same(read_json(caller.post(GROUPS, "{")), UNREADABLE)
    same(read_json(caller.post(GROUPS, "{}", token=None)), NOT_LOGGED_IN)


def test_the_number_is_the_request_in_the_logs(caller: Caller, pb: ModuleType) -> None:
    numbers = []
    for body in (b"\x1a\x01x", b"\x1a\xff", b"", '{"name":"y"}'):
        with capture_logs() as logs:
            response = caller.post(RENAME, body)
        (line,) = [one for one in logs if one["event"] == "call"]
        numbers.append(line["number"])
        assert line["path"] == RENAME
        if response.headers["content-type"] == "application/x-protobuf":
            status = opened(pb.StatusOnly, response).status
            assert (status.number, status.code) == (line["number"], line["code"])
    assert len(set(numbers)) == 4
    # JavaScript clients read it too.
    assert all(0 < number < 2**53 for number in numbers)


def test_no_log_line_holds_what_was_said(caller: Caller) -> None:
    """T2, C8: neither a token nor anything of a body is in the line of a call."""
    with capture_logs() as logs:
        caller.post(RENAME, '{"name":"canary-1"}')
        caller.post(
            "/v1/user/email-login", '{"email":"canary-2@example.org","password":"canary-3"}'
        )
        caller.post("/v1/user/verification-login", '{"mobile":"13999999999","captcha":"987654"}')
        caller.get(INFO, authorization="Bearer canary-4", token=None)
    assert len(logs) == 4
    text = json.dumps(logs)
    for secret in ("canary", caller.token, "13999999999", "987654"):
        assert secret not in text


# ---------------------------------------------------------------- 2. the body decides


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_body_tells_its_format(caller: Caller, pb: ModuleType, claim: str | None) -> None:
    """Whatever `Content-Type` says; and the answer has the format of the request."""
    in_protobuf = opened(
        pb.AnyAccount, caller.post(GET_USER, b"\x12\x071000001", content_type=claim)
    )
    assert in_protobuf.data.id == "1000001"
    in_json = read_json(caller.post(GET_USER, '{"id":"1000001"}', content_type=claim))
    assert in_json["data"]["id"] == "1000001"
    same(read_json(caller.post(GROUPS, '{"page":1}', content_type=claim)), NO_GROUPS)
    same(read_json(caller.post(GROUPS, b"", content_type=claim)), NO_GROUPS)
    for path, body, text in (
        (RENAME, b"\x1a\x03two", '{"name":"three"}'),
        (PICTURE, b"\x12\x12https://a.example/", '{"url":"https://a.example/"}'),
    ):
        done = {"code": 1, "msg": "success"}
        assert status_of(pb, caller.post(path, body, content_type=claim)) == done
        same(read_json(caller.post(path, text, content_type=claim)), done)
        assert status_of(pb, caller.post(path, body, content_type=claim, token="x"))["code"] == -101
        same(read_json(caller.post(path, text, content_type=claim, token="x")), NOT_LOGGED_IN)
    assert caller.name(pb) == "three"


@pytest.mark.parametrize("before", ["\ufeff", " ", "\t", "\r\n", "\n  \n\t ", "\ufeff \r\n"])
def test_marks_and_white_space_before_json(caller: Caller, pb: ModuleType, before: str) -> None:
    """.NET writers put a byte-order mark first; some clients indent."""
    response = caller.post(GET_USER, f'{before}{{"id":"1000001"}}\r\n ')
    assert read_json(response)["data"]["name"] == "人1"
    same(read_json(caller.post(GROUPS, f'{before}{{ "page" : 1 }}\n')), NO_GROUPS)
    # Nothing but these is an empty body.
    same(read_json(caller.post(GROUPS, before)), NO_GROUPS)
    assert status_of(pb, caller.post(GET_USER, before)) == UNKNOWN_USER


def test_numbers_as_text_and_text_as_numbers(caller: Caller, pb: ModuleType) -> None:
    """Both spellings of a value are the same value."""
    stored = []
    for body in (
        '{"deviceId":"7","registrationId":"8","isOpen":1,"type":2}',
        '{"deviceId":7,"registrationId":8,"isOpen":"1","type":"2"}',
        '{"deviceId":"7","registrationId":8,"isOpen":1.0,"type":"2"}',
        # Script clients keep a switch as a truth value.
        '{"deviceId":"7","registrationId":"8","isOpen":true,"type":2}',
    ):
        same(read_json(caller.post(STORE, body)), {"code": 1, "msg": "success"})
        found = read_json(caller.post(READ, '{"deviceId":7,"registrationId":"8"}'))
        stored.append(found["data"]["notification"])
    assert all(one == stored[0] for one in stored)
    same(
        {key: stored[0][key] for key in ("deviceId", "registrationId", "isOpen", "type")},
        {"deviceId": "7", "registrationId": "8", "isOpen": 1, "type": 2},
    )
    assert read_json(caller.post(GET_USER, '{"id":1000001}'))["data"]["id"] == "1000001"
    read_json(caller.post(RENAME, '{"name":12345}'))
    assert caller.name(pb) == "12345"
    read_json(caller.post(RENAME, '{"name":-5}'))
    assert caller.name(pb) == "-5"
    same(read_json(caller.post(GROUPS, '{"size":"30","page":"1","keyword":0}')), NO_GROUPS)


@pytest.mark.parametrize(
    "body",
    [
        '{"deviceId":true}',
        '{"deviceId":false}',
        '{"deviceId":1.5}',
        '{"isOpen":"one","deviceId":"7"}',
        '{"isOpen":1.5,"deviceId":"7"}',
        '{"isOpen":"１","deviceId":"7"}',
        '{"isOpen":9223372036854775808,"deviceId":"7"}',
        '{"isOpen":-9223372036854775809,"deviceId":"7"}',
        '{"isOpen":1e400,"deviceId":"7"}',
        '{"isOpen":[1],"deviceId":"7"}',
        '{"isOpen":{},"deviceId":"7"}',
        '{"deviceId":{"a":1}}',
        '{"deviceId":["7"]}',
        f'{{"deviceId":{"1" * 5000}}}',
        f'{{"unknown":{"1" * 40_000}}}',
    ],
    ids=lambda body: body[:40],
)
def test_values_of_other_types(caller: Caller, body: str) -> None:
    """A truth value is no text, a list is nothing, and no number is too large to be refused."""
    same(read_json(caller.post(STORE, body)), UNREADABLE)


def test_null_stands_for_nothing(caller: Caller, pb: ModuleType) -> None:
    nulls = '{"category":null,"keyword":null,"size":null,"page":null}'
    same(read_json(caller.post(GROUPS, nulls)), NO_GROUPS)
    same(read_json(caller.post(GET_USER, '{"id":null}')), UNKNOWN_USER)
    # A key that is null does not hide the other spelling of the same key.
    same(
        read_json(caller.post("/v1/user/logout", '{"device-id":null,"deviceId":"a"}')),
        {"code": 1, "msg": "success"},
    )


def test_keys_and_fields_that_are_not_known(caller: Caller, pb: ModuleType) -> None:
    """They are ignored, of whatever type and depth, before and behind those that are known."""
    body = '{"x":{"page":"no"},"Page":"no","page":1,"y":[{}],"":0,"\\u0000":1,"z":"\\u0000"}'
    same(read_json(caller.post(GROUPS, body)), NO_GROUPS)
    known = b"\x12\x071000001"
    for unknown in (
        b"\x08\x01",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x1a\x03abc",
        b"\x22\x02\xff\xfe",
        b"\x29\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x35\x00\x00\x00\x00",
        b"\x3b\x08\x01\x3c",
        b"\xfa\xff\xff\xff\x0f\x00",
    ):
        for sent in (unknown + known, known + unknown, unknown + known + unknown):
            found = opened(pb.AnyAccount, caller.post(GET_USER, sent))
            assert found.data.id == "1000001", sent
    # A known number of an unexpected wire type is an unknown field as well.
    assert status_of(pb, caller.post(GET_USER, b"\x10\x05")) == UNKNOWN_USER
    # Of a field that occurs twice, the last counts.
    assert opened(pb.AnyAccount, caller.post(GET_USER, b"\x12\x01x" + known)).data.id == "1000001"
    read_json(caller.post(RENAME, '{"name":"first","name":"last"}'))
    assert caller.name(pb) == "last"


# ---------------------------------------------------------------- 2. bodies that are too much


def padded(size: int) -> bytes:
    """A JSON body of so many bytes, in which only one key is known."""
    frame = b'{"page":1,"pad":"%s"}'
    return frame % (b"a" * (size - len(frame) + 2))


def test_the_largest_body(caller: Caller, pb: ModuleType) -> None:
    """I1: 64 KiB and not a byte more."""
    same(read_json(caller.post(GROUPS, padded(64 * KIB))), NO_GROUPS)
    for size in (64 * KIB + 1, 70 * KIB, 2 * KIB * KIB):
        same(read_json(caller.post(GROUPS, padded(size))), UNREADABLE)
    # The padding is an unknown field whose length takes three bytes.
    known = b"\x12\x071000001"
    for size, fits in ((64 * KIB, True), (64 * KIB + 1, False), (70 * KIB, False)):
        length = size - len(known) - 4
        mark = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
        body = known + b"\x22" + mark + b"a" * length
        assert len(body) == size
        response = caller.post(GET_USER, body)
        if fits:
            assert opened(pb.AnyAccount, response).data.id == "1000001"
        else:
            assert status_of(pb, response) == UNREADABLE


def test_a_body_of_70_kib_to_every_row(caller: Caller, pb: ModuleType) -> None:
    """I1: a refusal in the row's own format, in 200."""
    for endpoint in ENDPOINTS:
        if endpoint.host != "api" or "POST" not in endpoint.methods:
            continue
        response = caller.post(endpoint.path, padded(70 * KIB))
        if endpoint.speaks == "protobuf":
            assert status_of(pb, response) == UNREADABLE
        else:
            same(read_json(response), UNREADABLE)
        if endpoint.speaks == "mirror":
            response = caller.post(endpoint.path, b"\x1a" * 70 * KIB)
            assert status_of(pb, response) == UNREADABLE


@pytest.mark.parametrize(
    ("opening", "closing"), [('{"a":', "}"), ('{"a":[', "]}")], ids=["objects", "lists"]
)
def test_the_deepest_json(caller: Caller, opening: str, closing: str) -> None:
    """I1: sixteen levels and not one more, the outermost object being the first."""
    each = len(closing)
    for depth in (16, 16 + each):
        times = depth // each
        body = opening * times + "1" + closing * times
        same(read_json(caller.post(GROUPS, body)), NO_GROUPS if depth == 16 else UNREADABLE)
    seventeen = '{"a":' + "[" * 16 + "]" * 16 + "}"
    same(read_json(caller.post(GROUPS, seventeen)), UNREADABLE)
    for depth in (1_000, 9_000):
        body = opening * (depth // each) + "1" + closing * (depth // each)
        same(read_json(caller.post(GROUPS, body)), UNREADABLE)
    same(read_json(caller.post(GROUPS, '{"a":' + "[" * 60_000)), UNREADABLE)
    # Wide is not deep.
    same(read_json(caller.post(GROUPS, '{"a":[' + ",".join(["[[]]"] * 9_000) + "]}")), NO_GROUPS)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"\xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\\ud800x",
        b"\\u0000",
        b"a\\u0000b",
        b"\x00",
        b"\x1f",
        b"\\x41",
        b"\n",
    ],
    ids=repr,
)
def test_text_that_is_no_text(caller: Caller, pb: ModuleType, text: bytes) -> None:
    """I1: strict UTF-8, no NUL, no half of a surrogate pair, no raw control in a JSON string."""
    same(read_json(caller.post(RENAME, b'{"name":"' + text + b'"}')), UNREADABLE)
    same(read_json(caller.post(GROUPS, b'{"keyword":"' + text + b'"}')), UNREADABLE)
    if b"\\" not in text and text not in (b"\x1f", b"\n"):
        in_protobuf = b"\x1a" + bytes([len(text)]) + text
        assert status_of(pb, caller.post(RENAME, in_protobuf)) == UNREADABLE
    assert caller.name(pb) == "人1"


def test_whole_surrogate_pairs_are_text(caller: Caller, pb: ModuleType) -> None:
    read_json(caller.post(RENAME, '{"name":"\\ud83d\\ude00\\u4e91"}'))
    assert caller.name(pb) == "😀云"
    caller.post(RENAME, b"\x1a\x07\xf0\x9f\x98\x80\xe4\xba\x91")
    assert caller.name(pb) == "😀云"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "gb18030"])
def test_other_encodings(caller: Caller, encoding: str) -> None:
    same(read_json(caller.post(GROUPS, '{"keyword":"云湖"}'.encode(encoding))), UNREADABLE)


def test_a_message_cut_anywhere(caller: Caller, pb: ModuleType) -> None:
    """Of a protobuf or a JSON body, every shorter beginning is refused or is another message."""
    name = "云湖云湖".encode()
    whole = b"\x1a" + bytes([len(name)]) + name
    for end in range(1, len(whole)):
        assert status_of(pb, caller.post(RENAME, whole[:end])) == UNREADABLE
    text = '{"name":"云湖云湖"}'.encode()
    for end in range(1, len(text)):
        same(read_json(caller.post(RENAME, text[:end])), UNREADABLE)
    assert caller.name(pb) == "人1"


def test_a_password_spliced_in_unescaped(house: House) -> None:
    """One client writes JSON by hand; whatever the password, an envelope comes back."""
    for password in ('"', "\\", '","x":"', "}", "{", "\n", "\0", '"}', "'"):
        body = f'{{"email":"a@example.org","password":"{password}","deviceId":"awa"}}'
        answer = read_json(house.post("/v1/user/email-login", body))
        assert answer["code"] in (1002, -1)
        if answer["code"] == 1002:
            same(answer, UNREADABLE)


# ---------------------------------------------------------------- 2. the token


def test_where_the_token_travels(caller: Caller, pb: ModuleType) -> None:
    """T2: in a header of any case, or as Bearer where that is absent; nowhere else."""
    token = caller.token

    def info(path: str = INFO, **headers: str) -> int:
        response = caller.house.api.get(path, headers=headers)
        return int(opened(pb.OwnAccount, response).status.code)

    for headers in (
        {"token": token},
        {"Token": token},
        {"TOKEN": token},
        {"token": f"  {token} "},
        {"authorization": f"Bearer {token}"},
        {"Authorization": f"bearer {token}"},
        {"AUTHORIZATION": f"BEARER   {token}"},
        {"token": "", "authorization": f"Bearer {token}"},
        {"token": token, "authorization": "Bearer x"},
        {"token": token, "authorization": "Basic eDp5"},
    ):
        assert info(**headers) == 1, headers
    for headers in (
        {},
        {"authorization": token},
        {"authorization": f"Basic {token}"},
        {"authorization": f"Token {token}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer{token}"},
        {"cookie": f"token={token}"},
        {"x-token": token},
        {"token": token.swapcase()},
        {"token": token[:-1]},
        {"token": token + "x"},
        # Where the header is there, it counts, dead as it may be.
        {"token": "dead", "authorization": f"Bearer {token}"},
    ):
        assert info(**headers) == -101, headers
    for query in (f"?token={token}", f"?Token={token}", f"?authorization=Bearer%20{token}"):
        assert info(INFO + query) == -101


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        (None, False),
        ("*/*", False),
        ("", False),
        ("application/x-protobuf", False),
        ("application/octet-stream", False),
        ("text/html", False),
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/json, text/plain", True),
        ("application/json, text/plain, */*", False),
        ("application/json, application/x-protobuf", False),
        ("application/x-protobuf, application/json;q=0.5", False),
    ],
)
def test_the_accept_rule_of_info(
    house: House, pb: ModuleType, accept: str | None, json_wanted: bool
) -> None:
    """JSON only for those who ask for it and for nothing wider, on failures too."""
    caller = Caller(house)
    house.api.headers.pop("accept")
    given = {} if accept is None else {"accept": accept}
    response = caller.get(INFO, **given)
    refused = caller.get(INFO, token=None, **given)
    if json_wanted:
        answer = read_json(response)
        assert answer["data"]["id"] == "1000001"
        same(read_json(refused), NOT_LOGGED_IN)
    else:
        assert opened(pb.OwnAccount, response).data.id == "1000001"
        assert status_of(pb, refused) == NOT_LOGGED_IN
    # No other row looks at it.
    same(read_json(caller.post(GROUPS, "{}", **given)), NO_GROUPS)
    opened(pb.AnyAccount, caller.post(GET_USER, b"\x12\x071000001", **given))
    opened(pb.DeviceList, caller.get("/v1/user/clients", **given))
    opened(pb.MedalList, caller.post("/v1/user/medal", **given))


def test_the_coin_record_by_query(caller: Caller) -> None:
    with caller.house.rules() as ctx:
        for number in range(1, 26):
            coins.post(ctx, caller.id, number, typ=8, reason="抽奖金币", key=str(number))

    def lines(query: str) -> list[float]:
        data = read_json(caller.get(COINS + query))["data"]
        assert data["total"] == 25
        return [round(one["changeAmount"] * 100) for one in data["goldCoinRecord"]]

    newest = list(range(25, 0, -1))
    assert lines("") == newest[:20]
    assert lines("?") == newest[:20]
    assert lines("?size=3&page=2") == newest[3:6]
    assert lines("?page=%32&size=%33") == newest[3:6]
    assert lines("?size=3&page=1&page=2") == newest[3:6]
    assert lines("?size=3&page=2&other=x&%FF=%FF") == newest[3:6]
    assert lines("?size=100") == newest
    assert lines("?size=3&page=99") == []
    for query in ("?page=x", "?page=-1", "?size=1.5", "?page=%00", "?page=" + "9" * 30):
        same(read_json(caller.get(COINS + query)), UNREADABLE)
    # The body of a GET is not looked at.
    response = caller.ask("GET", COINS + "?size=1", b'{"size":7')
    assert len(read_json(response)["data"]["goldCoinRecord"]) == 1
    # Nor is the query of a POST.
    response = caller.post(COINS + "?size=1", '{"size":7}')
    assert len(read_json(response)["data"]["goldCoinRecord"]) == 7


# ---------------------------------------------------------------- 1. paths, methods, pages


def test_other_methods(house: House) -> None:
    """405 with what is allowed, for every row; a failure there has no data either."""
    for endpoint in ENDPOINTS:
        face = house.api if endpoint.host == "api" else house.web
        allowed = endpoint.methods.split()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if method in allowed:
                continue
            response = face.request(method, endpoint.path, content=b"{}")
            assert response.status_code == 405, endpoint.key
            told = {one.strip() for one in response.headers["allow"].split(",")}
            assert told == {*allowed, "OPTIONS"}
            assert response.headers["content-type"] == "application/json"
            same(response.json(), {"code": 405, "msg": "请求方法不被允许"})


#: Not ours: other modules, other spellings, the other host's pages.
UNKNOWN_PATHS = (
    "/v1/msg/list-message",
    "/v1/conversation/list",
    "/v1/group/info",
    "/v1/user/no-such-row",
    "/v1/user/info/",
    "/v1/User/info",
    "/v1//user/info",
    "/v1/user/bind-phone",
    "/v1/user/homepage",
    "/v2/user/info",
    "/v1/user/",
    "/",
)


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_unknown_paths(caller: Caller, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        response = caller.ask(method, path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/json"
        same(response.json(), {"code": 404, "msg": "接口不存在"})
    # A page has to be able to see that.
    for method in ("POST", "OPTIONS"):
        response = caller.ask(method, path, origin="https://anything.example")
        assert response.status_code == (404 if method == "POST" else 204)
        assert response.headers["access-control-allow-origin"] == "*"


def test_no_answer_may_be_kept(caller: Caller) -> None:
    """A 404 and a 405 may be kept by caches unless they say otherwise."""
    assert caller.post(INFO).headers["cache-control"] == "no-store"
    for path in UNKNOWN_PATHS:
        assert caller.get(path).headers.get("cache-control") == "no-store"


def test_the_web_host_has_its_own_rows_only(house: House) -> None:
    pages = {endpoint.path for endpoint in ENDPOINTS if endpoint.host == "web"}
    for endpoint in ENDPOINTS:
        if endpoint.path not in pages:
            response = house.web.request(endpoint.methods.split()[0], endpoint.path)
            assert response.status_code == 404, endpoint.key
    response = house.web.get(INFO, headers={"accept": "application/x-protobuf"})
    same(read_json(response), NOT_LOGGED_IN)


def test_a_page_asks_before_it_calls(build: Callable[..., House]) -> None:
    """The preflight of a browser, for every row; no credentials beside the token are allowed."""
    house = build(cors_origins=["https://app.example.org", "https://b.example.org"])
    for endpoint in ENDPOINTS:
        face = house.api if endpoint.host == "api" else house.web
        ask = {
            "origin": "https://app.example.org",
            "access-control-request-method": endpoint.methods.split()[0],
            "access-control-request-headers": "content-type,token",
        }
        response = face.options(endpoint.path, headers=ask)
        assert response.status_code in (200, 204)
        assert response.content == b""
        assert response.headers["access-control-allow-origin"] == "https://app.example.org"
        assert "origin" in response.headers["vary"].lower()
        methods = response.headers["access-control-allow-methods"].split(", ")
        assert set(endpoint.methods.split()) <= set(methods)
        names = response.headers["access-control-allow-headers"].lower().split(", ")
        assert {"token", "content-type"} <= set(names)
        assert "access-control-allow-credentials" not in response.headers
        stranger = face.options(endpoint.path, headers={**ask, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


def test_a_page_may_read_every_answer(build: Callable[..., House]) -> None:
    house = build(cors_origins=["https://app.example.org"])
    caller = Caller(house)
    for path, body, token in (
        (GROUPS, "{}", caller.token),
        (GROUPS, "{", caller.token),
        (GROUPS, "{}", "dead"),
        (RENAME, "", caller.token),
    ):
        allowed = caller.post(path, body, token=token, origin="https://app.example.org")
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
        for origin in ("https://evil.example", "null", "https://app.example.org.evil.example"):
            stranger = caller.post(path, body, token=token, origin=origin)
            assert "access-control-allow-origin" not in stranger.headers
        plain = caller.post(path, body, token=token)
        assert "access-control-allow-origin" not in plain.headers


def test_any_page_by_default(caller: Caller) -> None:
    """No cookie is ever used, so that a page has only the token its user gave it."""
    response = caller.post(GROUPS, "{}", origin="https://anything.example")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in response.headers


# ---------------------------------------------------------------- 1. compression and language


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("deflate, gzip;q=0.8", True),
        ("identity", False),
        ("", False),
        ("br, zstd", False),
        # A weight of nothing is a client saying no.
        ("gzip;q=0, br", False),
        ("x-gzipped", False),
    ],
)
def test_gzip_only_when_asked(caller: Caller, asked: str, wanted: bool) -> None:
    with caller.house.api.stream("POST", CAPTCHA, headers={"accept-encoding": asked}) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers.get("content-encoding") == ("gzip" if wanted else None)
    assert response.headers["content-length"] == str(len(raw))
    answer = json.loads(gzip.decompress(raw) if wanted else raw)
    assert answer["data"]["b64s"].startswith("data:image/png;base64,")
    if wanted:
        assert "accept-encoding" in response.headers["vary"].lower()


def test_messages_in_english(build: Callable[..., House], pb: ModuleType) -> None:
    """The codes stay; only the words for people change."""
    house = build(language="en")
    caller = Caller(house)
    for response, code, msg in (
        (caller.post(GROUPS, "{}", token=None), -101, "Not logged in"),
        (caller.post(GROUPS, "{"), 1002, "The parameters cannot be read"),
        (caller.post(GET_USER, '{"id":"1"}'), -1, "There is no such user"),
        (
            caller.post("/v1/user/module-ignore-info", "{}"),
            -1,
            "This is for VIP users only",
        ),
        (caller.post(RENAME, "{}"), -1, "A nickname has 1 to 32 characters"),
    ):
        same(read_json(response), {"code": code, "msg": msg})
    assert status_of(pb, caller.post(GET_USER, b"\x12\x011"))["msg"] == "There is no such user"
    same(read_json(caller.post(STORE, '{"deviceId":"a"}')), {"code": 1, "msg": "success"})
    with house.rules() as ctx:
        people.ban(ctx, caller.id, NOON + 86_400)
    assert caller.get("/v1/nothing").json()["msg"] == "No such endpoint"
    assert caller.get(CAPTCHA).json()["msg"] == "Method not allowed"


# ---------------------------------------------------------------- a real server and a real socket


class Wire:
    """A connection that carries what it is given, and reads one answer after another."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
        self.file = self.socket.makefile("rb")

    def ask(self, head: str, body: bytes = b"", *, head_only: bool = False) -> Answer:
        """Send a request as it stands; `\\n` in its head becomes the line end of HTTP."""
        lines = [head.splitlines()[0], f"Host: {self.host}", *head.splitlines()[1:]]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.read(head_only=head_only)

    def read(self, *, head_only: bool = False) -> Answer:
        status = self.file.readline().decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self.file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Answer(status[0], int(status[1]), headers, self.file.read(length))


class Answer:
    """One answer, as it came."""

    def __init__(self, version: str, status: int, headers: dict[str, str], body: bytes) -> None:
        self.version = version
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        assert (self.status, self.headers["content-type"]) == (200, "application/json")
        return json.loads(self.body)


@contextmanager
def connected(url: str) -> Iterator[Wire]:
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.file.close()
        wire.socket.close()


# The helper that starts servers hands its log file on to them and never closes its own handle.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_connection_to_a_real_server(
    processes: Callable[..., list[Process]], house: House, clock: HandClock, pb: ModuleType
) -> None:
    """HTTP/1.1 keep-alive, untyped bodies, any case of names, chunks, and refusals between them.

    The server shares its database with `house`, and goes by the machine's clock.
    """
    (server,) = processes(1)
    clock.time = int(time.time())
    token = house.token(house.person())
    with connected(server.url) as wire:
        for name in ("token", "Token", "TOKEN", "tOKEN"):
            answer = wire.ask(f"GET {INFO} HTTP/1.1\n{name}: {token}")
            assert (answer.version, answer.status) == ("HTTP/1.1", 200)
            assert pb.OwnAccount.FromString(answer.body).data.phone == "13900000001"
        answer = wire.ask(f"GET {INFO} HTTP/1.1\nAUTHORIZATION: bearer {token}")
        assert pb.OwnAccount.FromString(answer.body).status.code == 1

        body = b'\xef\xbb\xbf{"id":1000001}'
        head = f"POST {GET_USER} HTTP/1.1\ntoken: {token}\ncontent-length: {len(body)}"
        assert wire.ask(head, body).json()["data"]["id"] == "1000001"
        # The same in chunks, one of them cutting the byte-order mark.
        head = f"POST {GET_USER} HTTP/1.1\ntoken: {token}\ntransfer-encoding: chunked"
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:2], body[2:], b""))
        assert wire.ask(head, chunks).json()["data"]["id"] == "1000001"

        # A refusal leaves the connection usable, whatever was sent.
        assert wire.ask(f"POST {GROUPS} HTTP/1.1\ncontent-length: 1", b"{").json() == UNREADABLE
        for size in (70 * KIB, 900 * KIB):
            head = f"POST {GROUPS} HTTP/1.1\ntoken: {token}\ncontent-length: {size}"
            assert wire.ask(head, padded(size)).json() == UNREADABLE
        assert wire.ask("GET /v1/msg/x HTTP/1.1").status == 404
        assert wire.ask(f"PUT {INFO} HTTP/1.1\ncontent-length: 2", b"{}").status == 405
        # An answer to HEAD has no body, however long it says it would be.
        assert wire.ask(f"HEAD {INFO} HTTP/1.1", head_only=True).status == 405
        assert wire.ask(f"OPTIONS {INFO} HTTP/1.1\norigin: null").status in (200, 204)
        # Two requests at once are answered in turn.
        twice = f"GET {INFO} HTTP/1.1\r\nHost: {wire.host}\r\ntoken: {token}\r\n\r\n" * 2
        wire.socket.sendall(twice.encode())
        numbers = [pb.OwnAccount.FromString(wire.read().body).status.number for _ in range(2)]
        assert numbers[0] != numbers[1]

        plain = wire.ask(f"POST {CAPTCHA} HTTP/1.1\ncontent-length: 0")
        assert "content-encoding" not in plain.headers
        packed = wire.ask(f"POST {CAPTCHA} HTTP/1.1\ncontent-length: 0\naccept-encoding: gzip")
        assert packed.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(packed.body))["code"] == 1
        for answer in (plain, packed):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers.get("connection", "keep-alive").lower() == "keep-alive"

    # A client of HTTP/1.0 is answered too, and a head that is no head does not stop the server.
    with connected(server.url) as wire:
        assert pb.OwnAccount.FromString(
            wire.ask(f"GET {INFO} HTTP/1.0\ntoken: {token}").body
        ).data.id
    with connected(server.url) as wire:
        wire.socket.sendall(b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n")
        wire.file.read()
    with connected(server.url) as wire:
        assert wire.ask(f"GET {INFO} HTTP/1.1\ntoken: {token}").status == 200


def test_the_judge_judges(caller: Caller) -> None:
    """The judge itself: it refuses what it must not let pass."""
    good = caller.post(GROUPS, "{}")
    sound(good, "application/json")
    for expected, found in ((1, True), (1, 1.0), (1, "1"), ({"a": 1}, {"a": 1, "b": 2})):
        with pytest.raises(AssertionError):
            same(found, expected)
    for body in (
        b'{"code":"1","msg":"success"}',
        b'{"code":1.0,"msg":"success"}',
        b'{"code":true,"msg":"success"}',
        b'{"code":1,"msg":null}',
        b'{"code":-1,"msg":"x","data":{}}',
        b'{"code":-1,"msg":"x","data":null}',
        b'{"code":0,"msg":"x"}',
        b'{"code":1,"msg":"success","code":1}',
        b'{"code":1,"msg":"success","data":NaN}',
        b"[]",
    ):
        with pytest.raises(AssertionError):
            read_json(httpx2.Response(200, headers=good.headers, content=body))
