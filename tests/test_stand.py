"""The sandbox, through the addresses and the wire that a client writer uses."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from hupan.accounts.operation import operation
from hupan.accounts.refusals import every_refusal
from hupan.accounts.tables import session
from hupan.client import Client, Refused, Unreadable
from hupan.protocol.user import Me, NewName
from hupan.protocol.wire import class_of
from hupan.sandbox import journal, magic, terminal
from hupan.sandbox import routes as routes_module
from hupan.sandbox.clock import SandboxClock, moment_of, seconds_of
from hupan.sandbox.faults import Fault, UnknownFault
from hupan.sandbox.people import everybody
from hupan.sandbox.routes import routes
from hupan.sandbox.snapshots import NoSnapshot
from hupan.sandbox.stand import FRESH, Stand
from hupan.server.run import MARK, run
from hupan.settings import Settings, SettingsError, load
from tests.house import NOON, Process, free_ports, hupan, png_of
from tests.house import _await_ready as await_ready

DAY = 86_400
ROOT = Path(__file__).parent.parent
INFO, RENAME = "/v1/user/info", "/v1/user/edit-nickname"
ONE = everybody()[0]
JSON = {"accept": "application/json"}


# ---------------------------------------------------------------- a sandbox in this process


@dataclass
class Box:
    """A sandbox with a frozen clock; `api` and `web` send real HTTP requests to its two faces."""

    stand: Stand
    api: TestClient
    web: TestClient

    def get(self, look_up: str, **query: Any) -> Any:
        """A look-up of `/__dev`."""
        answer = self.api.get(f"/__dev/{look_up}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """A switch of `/__dev`."""
        answer = self.api.post(f"/__dev/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refuse(self, method: str, path: str, body: Any = None) -> str:
        """The clear word about bad use."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.api.request(method, f"/__dev/{path}", content=content)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["error"])

    def call(self, path: str, body: Any = None, token: str = "", host: str = "api") -> Any:
        """A JSON call of the wire."""
        face = self.api if host == "api" else self.web
        headers = {"token": token} if token else {}
        return face.post(path, json=body, headers=headers).json()

    def captcha(self) -> dict[str, str]:
        """A captcha and its solution, as the rows that send codes want them."""
        made = self.call("/v1/user/captcha")["data"]["id"]
        return {"id": made, "code": self.get(f"captchas/{made}")["solution"]}

    def ask_code(self, to: str, typ: str = "") -> Any:
        """Ask for a code over the wire; the answer."""
        if "@" in to:
            path, said = "get-email-verification-code", {"email": to, "typ": typ}
        else:
            path, said = "get-verification-code", {"mobile": to}
        return self.call(f"/v1/verification/{path}", said | self.captcha())

    def code_for(self, to: str, typ: str = "") -> str:
        """A code, from the outbox."""
        assert self.ask_code(to, typ)["code"] == 1
        return str(self.get("outbox/wait", to=to)["messages"][0]["code"])

    def login(self, phone: str) -> Any:
        """The answer to a login by short message."""
        said = {"mobile": phone, "captcha": self.code_for(phone), "deviceId": "d", "platform": "p"}
        return self.call("/v1/user/verification-login", said)

    def info(self, token: str = ONE.token) -> Any:
        """The caller's own data as JSON."""
        return self.api.get(INFO, headers={"token": token, **JSON}).json()

    def entries(self, **query: Any) -> Any:
        return self.get("requests", **query)["requests"]

    def sdk(self, token: str = ONE.token) -> Client:
        return Client("http://api.test", web_url="http://web.test", token=token, http=_Faces(self))  # type: ignore[arg-type]


class _Faces:
    def __init__(self, box: Box) -> None:
        self.box = box

    def request(self, **request: Any) -> Any:
        face = self.box.web if "web.test" in request["url"] else self.box.api
        return face.request(**request)

    def close(self) -> None:
        pass


def make_stand(folder: Path, clock: SandboxClock | None = None, **settings: Any) -> Stand:
    settings = {
        "limit_sources": False,
        "deliver_sms": ["file"],
        "deliver_email": ["file"],
        "argon2_memory_kib": 8,
        "argon2_time": 1,
    } | settings
    seed = settings.pop("seed", "")
    made = Stand(Settings(data_dir=folder, **settings), seed=seed, clock=clock)
    made.open(routes(made))
    return made


def boxed(stand: Stand) -> Box:
    # A fault that cuts the connection is an exception in the server, and not one in the client.
    return Box(
        stand,
        TestClient(stand.hosts.api, base_url="http://api.test", raise_server_exceptions=False),
        TestClient(stand.hosts.web, base_url="http://web.test"),
    )


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("HUPAN_"):
                patch.delenv(name)
        clock = SandboxClock()
        clock.freeze(NOON)
        stand = make_stand(tmp_path_factory.mktemp("stand"), clock)
    yield stand
    stand.close()


@pytest.fixture
def box(one_stand: Stand) -> Box:
    """The sandbox of this file, as at its start."""
    one_stand.reset()
    one_stand.listeners.clear()
    for name in one_stand.snapshots.names:
        if name != FRESH:
            one_stand.forget(name)
    return boxed(one_stand)


@pytest.fixture
def stands(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Make sandboxes of one's own."""
    made: list[Stand] = []

    def make(folder: str = "own", **more: Any) -> Box:
        made.append(make_stand(tmp_path / folder, **more))
        return boxed(made[-1])

    yield make
    for stand in made:
        stand.close()


# ---------------------------------------------------------------- a sandbox as a process


@dataclass
class Dev:
    """`hupan dev` as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    web_url: str
    out: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def start_dev(folder: Path, *options: str, **environment: str) -> Dev:
    """Start one; it is not awaited."""
    port, web_port = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HUPAN_")}
    with out.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from hupan.cli import main; main()", "dev"),
                *("--port", str(port), "--web-port", str(web_port), *options),
            ],
            cwd=folder,
            env=clean | {"PYTHONUTF8": "1"} | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Dev(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}", out)


@contextlib.contextmanager
def running(*many: Dev) -> Iterator[None]:
    try:
        for one in many:
            await_ready(Process(one.process, one.url, one.web_url))
        yield
    finally:
        for one in many:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One process for the tests that need a real socket."""
    one = start_dev(tmp_path_factory.mktemp("dev"))
    with running(one):
        yield one


@pytest.fixture
def live(dev: Dev) -> Iterator[httpx2.Client]:
    """A client of the process, which was reset."""
    with httpx2.Client(base_url=dev.url, timeout=20) as client:
        client.post("/__dev/reset").raise_for_status()
        yield client


# ---------------------------------------------------------------- post and captchas


def test_the_outbox_finds_letters_however_the_address_is_written(box: Box) -> None:
    code = box.code_for("13800000002")
    for to in ("13800000002", "+86 138 0000 0002", "86 13800000002"):
        (letter,) = box.get("outbox", to=to)["messages"]
        assert letter["code"] == code
        assert letter["to"] == "13800000002"
        assert letter["channel"] == "sms"
        assert code in letter["text"]
        assert letter["at"] == NOON
        assert not letter["ended"]
    assert box.get("outbox", to="USER2@example.com")["messages"] == []
    mail = box.code_for("user2@example.com")
    assert [one["code"] for one in box.get("outbox")["messages"]] == [mail, code]
    box.post("clock", {"advance": 300})
    assert box.get("outbox", to="13800000002")["messages"][0]["ended"]


def test_a_letter_with_a_link_tells_it(box: Box) -> None:
    code = box.code_for("19912345678")
    done = box.call(
        "/v1/user/change-phone-check", {"phone": "19912345678", "captcha": code}, ONE.token
    )
    assert done["code"] == 1
    (letter,) = box.get("outbox", to=ONE.phone)["messages"]
    assert re.fullmatch(r"http://127\.0\.0\.1:8791/account/link#1-[0-9a-f]{40}", letter["link"])
    secret = letter["link"].partition("#")[2]
    assert box.web.post("/account/link", json={"secret": secret}).json()["code"] == 1
    assert ONE.phone


def test_a_long_poll_answers_when_there_is_something(box: Box) -> None:
    captcha = box.captcha()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        waiting = pool.submit(box.get, "outbox/wait", to="13800000003", timeout=20)
        # Asked for while the other call waits, as a client under test does.
        sent = box.call(
            "/v1/verification/get-verification-code", {"mobile": "13800000003"} | captcha
        )
        assert sent["code"] == 1
        (letter,) = waiting.result(20)["messages"]
        assert time.perf_counter() - began < 15
    # Without `after` the letter that is there already answers at once; with it, only a newer one.
    assert box.get("outbox/wait", to="13800000003")["messages"] == [letter]
    began = time.perf_counter()
    query = {"to": "13800000003", "after": letter["id"], "timeout": "0.2"}
    assert box.get("outbox/wait", **query)["messages"] == []
    assert 0.2 <= time.perf_counter() - began < 5


def test_bad_numbers_of_a_look_up_get_a_clear_word(box: Box) -> None:
    assert "after is a whole number" in box.refuse("GET", "outbox?after=x")
    for bad in ("x", "nan", "inf", "-1"):
        assert "timeout is a number" in box.refuse("GET", f"outbox/wait?timeout={bad}")
    assert "after is a whole number" in box.refuse("GET", "requests?after=1e400")


def test_captchas_are_looked_up_by_id_and_in_order(box: Box) -> None:
    assert box.get("captchas") == {"captchas": []}
    ids = [box.call("/v1/user/captcha")["data"]["id"] for _ in range(3)]
    told = box.get("captchas")["captchas"]
    assert [one["id"] for one in told] == ids[::-1]
    for one in told:
        assert one["solution"] == box.get(f"captchas/{one['id']}")["solution"]
    # Only the newer ones, and a wait for the next one.
    assert [one["id"] for one in box.get("captchas", after=told[1]["request"])["captchas"]] == [
        ids[2]
    ]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(box.get, "captchas", after=told[0]["request"], timeout=20)
        newest = box.call("/v1/user/captcha")["data"]["id"]
        assert [one["id"] for one in waiting.result(20)["captchas"]] == [newest]
    unknown = box.api.get("/__dev/captchas/not-ours")
    assert (unknown.status_code, "no captcha" in unknown.json()["error"]) == (404, True)


def test_fixed_codes_by_setting(stands: Callable[..., Box]) -> None:
    clock = SandboxClock()
    clock.freeze(NOON)
    box = stands(clock=clock, test_codes={"13800000001": "246810"}, test_codes_until="2026-03-09")
    assert box.code_for("13800000001") == "246810"
    assert box.code_for("13800000002") != "246810"
    assert box.login("13800000005")["code"] == 1
    # The sandbox's own clock says when the last day is over.
    box.post("clock", {"advance": "P8D"})
    assert box.code_for("13800000001") != "246810"


# ---------------------------------------------------------------- magic identities


def named(name: str) -> magic.Identity:
    return next(one for one in magic.IDENTITIES if one.name == name)


def msg(refusal: type[Any], **words: Any) -> str:
    return str(refusal(**words).text("zh"))


def test_there_are_five_magic_identities(box: Box) -> None:
    told = box.get("people")["magic"]
    assert [(one["phone"], one["email"]) for one in told] == [
        ("19900000002", "refused@example.com"),
        ("19900000003", "expired@example.com"),
        ("19900000004", "banned@example.com"),
        ("19900000005", "limited@example.com"),
        ("19900000006", "unregistered@example.com"),
    ]
    # None of them adds to the refusals that a real server has.
    assert magic.SendFailed not in every_refusal()


@pytest.mark.parametrize("to", ["19900000002", "+86 199 0000 0002", "refused@example.com"])
def test_magic_the_gateway_refuses(box: Box, to: str) -> None:
    answer = box.ask_code(to)
    assert answer == {"code": -1, "msg": "验证码发送失败，请稍后再试"}
    assert box.get("outbox", to=to)["messages"] == []
    assert box.entries()[-1]["identity"] == "refused"


@pytest.mark.parametrize("to", ["19900000003", "expired@example.com"])
def test_magic_the_code_has_expired(box: Box, to: str) -> None:
    code = box.code_for(to)
    assert box.get("outbox", to=to)["messages"][0]["ended"]
    if "@" in to:
        path, said = "forget-password", {"email": to, "captcha": code, "password": "a lake in May"}
    else:
        path, said = "verification-login", {"mobile": to, "captcha": code}
    answer = box.call(f"/v1/user/{path}", said)
    assert answer == {"code": -1, "msg": "验证码错误或已过期"}
    # Binding the number meets the same code.
    field, row = ("email", "bing-email") if "@" in to else ("phone", "bing-phone")
    bound = box.call(f"/v1/user/{row}", {field: to, "captcha": code}, ONE.token)
    assert bound["msg"] == "验证码错误或已过期"


@pytest.mark.parametrize("to", ["19900000004", "banned@example.com"])
def test_magic_the_account_is_banned(box: Box, to: str) -> None:
    # The code arrives, and the login then says so.
    code = box.code_for(to)
    if "@" in to:
        answer = box.call("/v1/user/email-login", {"email": to.upper(), "password": "anything"})
    else:
        answer = box.call("/v1/user/verification-login", {"mobile": to, "captcha": code})
    assert answer == {"code": -1, "msg": "账号已被永久封禁"}


@pytest.mark.parametrize("to", ["19900000005", "limited@example.com"])
def test_magic_too_often(box: Box, to: str) -> None:
    assert box.ask_code(to)["msg"] == "发送过于频繁，请 60 秒后再试"
    if "@" in to:
        path, said = "email-login", {"email": to, "password": "anything"}
    else:
        path, said = "verification-login", {"mobile": to, "captcha": "123456"}
    answer = box.api.post(f"/v1/user/{path}", json=said)
    assert answer.json() == {"code": -1, "msg": "错误次数过多，请 60 秒后再试"}
    assert answer.headers["retry-after"] == "60"
    with pytest.raises(Refused) as refused:
        box.sdk("").verification_login(mobile="19900000005", captcha="1")
    assert refused.value.retry_after == 60


@pytest.mark.parametrize("to", ["19900000006", "unregistered@example.com"])
def test_magic_nobody_has_it_and_nobody_may(box: Box, to: str) -> None:
    code = box.code_for(to)
    if "@" in to:
        answer = box.call("/v1/user/email-login", {"email": to, "password": "anything"})
        # By e-mail nobody is told whether there is an account.
        assert answer == {"code": -1, "msg": "邮箱或密码错误"}
    else:
        answer = box.call("/v1/user/verification-login", {"mobile": to, "captcha": code})
        assert answer == {"code": -1, "msg": "本站暂不开放注册"}


def test_magic_comes_after_the_captcha_as_everything_does(box: Box) -> None:
    captcha = box.captcha()
    said = {"mobile": "19900000002"} | captcha
    path = "/v1/verification/get-verification-code"
    assert box.call(path, said | {"code": "0000"})["msg"].startswith("图形验证码错误")
    # Used up by the wrong answer, as on every server.
    assert box.call(path, said)["msg"].startswith("图形验证码错误")


def test_magic_is_about_codes_and_logins_only(box: Box) -> None:
    """A magic number is an ordinary one to bind."""
    code = box.code_for("19900000004")
    bound = box.call(
        "/v1/user/change-phone-check", {"phone": "19900000004", "captcha": code}, ONE.token
    )
    assert bound["code"] == 1
    assert box.info()["data"]["phone"] == "19900000004"


# ---------------------------------------------------------------- one clock


def test_the_clock_is_read_and_moved(box: Box) -> None:
    told = box.get("clock")
    assert told["now"] == NOON
    assert told["text"] == "2026-03-02 12:00:00"
    assert told["zone"] == "Asia/Shanghai"
    assert told["frozen"]
    assert box.post("clock", {"advance": "P7D"})["now"] == NOON + 7 * DAY
    assert box.post("clock", {"advance": -60})["now"] == NOON + 7 * DAY - 60
    assert box.post("clock", {"set": NOON})["now"] == NOON
    assert box.post("clock", {"set": "2026-03-02 12:00:01"})["now"] == NOON + 1
    assert box.post("clock", {"freeze": "2026-01-01 08:00"})["text"] == "2026-01-01 08:00:00"
    assert box.post("clock", {"freeze": "2026-01-01T00:00:00+00:00"})["text"][11:] == "08:00:00"
    # Several words act in their order.
    moved = box.post("clock", {"set": NOON, "advance": "PT1H"})
    assert moved["now"] == NOON + 3600
    assert not box.post("clock", {"run": True})["frozen"]
    assert 0 <= box.get("clock")["now"] - NOON - 3600 < 60
    assert box.post("clock", {"freeze": True})["frozen"]
    assert not box.post("clock", {"freeze": False})["frozen"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "write freeze, advance, set or run"),
        ({"forward": 1}, "no word for the clock"),
        ({"advance": "7 days"}, "is no span of time: write seconds, P7D or PT90S"),
        ({"advance": "P1M"}, "is no span of time"),
        ({"advance": "P7DT"}, "is no span of time"),
        ({"advance": "P"}, "is no span of time"),
        ({"advance": True}, "is no span of time"),
        ({"advance": None}, "is no span of time"),
        ({"advance": 1e300}, "is no span of time"),
        ({"advance": "P" + "9" * 5000 + "D"}, "is no span of time"),
        ({"advance": "P9999999D"}, "from 1970 to 9998 only"),
        ({"advance": "-P9999999D"}, "from 1970 to 9998 only"),
        ({"set": "tomorrow"}, "is no moment: write 2026-01-01 08:00"),
        ({"set": True}, "is no moment"),
        ({"set": 0}, "from 1970 to 9998 only"),
        ({"set": 2**70}, "from 1970 to 9998 only"),
        ({"freeze": "9999-12-31"}, "from 1970 to 9998 only"),
        ({"freeze": [1]}, "is no moment"),
        ({"run": 1}, 'write {"run": true}'),
        ({"advance": 60, "set": "never"}, "is no moment"),
    ],
)
def test_bad_words_for_the_clock_move_nothing(box: Box, body: Any, word: str) -> None:
    assert word in box.refuse("POST", "clock", body)
    assert box.get("clock")["now"] == NOON
    assert box.get("clock")["frozen"]


def test_bodies_that_are_no_object_get_a_clear_word(box: Box) -> None:
    for path in ("clock", "faults", "snapshots"):
        assert "no JSON" in box.refuse("POST", path, b"{")
        assert "no JSON" in box.refuse("POST", path, b"\xff")
        assert "no JSON" in box.refuse("POST", path, b"[" * 60_000)
        assert "no JSON object" in box.refuse("POST", path, [])
        assert "too large" in box.refuse("POST", path, b" " * 70_000)


def test_spans_and_moments_in_python() -> None:
    assert seconds_of("P1W2DT3H4M5S") == 604_800 + 2 * DAY + 3 * 3600 + 4 * 60 + 5
    assert seconds_of("-PT90S") == -90
    assert seconds_of(1.9) == 1
    clock = SandboxClock()
    clock.freeze(NOON)
    clock.advance(days=400, hours=-1)
    clock.advance("PT1H")
    assert clock.now() == NOON + 400 * DAY
    with pytest.raises(ValueError, match="1970 to 9998"):
        clock.advance(days=10**7)
    zone = Settings().zone
    assert moment_of("2026-03-02 12:00", zone) == moment_of(NOON, zone) == NOON


def test_codes_follow_the_clock(box: Box) -> None:
    code = box.code_for("13800000003")
    box.post("clock", {"advance": "PT299S"})
    late = {"mobile": "13800000003", "captcha": code}
    assert box.call("/v1/user/verification-login", late)["code"] == 1
    code = box.code_for("13800000004")
    box.post("clock", {"advance": "PT300S"})
    late = {"mobile": "13800000004", "captcha": code}
    assert box.call("/v1/user/verification-login", late)["msg"] == "验证码错误或已过期"


def test_vip_and_bans_follow_the_clock(box: Box) -> None:
    def vip(number: int) -> int:
        return int(box.info(everybody()[number - 1].token)["data"]["is_vip"])

    assert [vip(number) for number in (1, 2, 11, 12)] == [0, 1, 0, 1]
    box.post("clock", {"advance": "PT1H"})
    assert vip(12) == 0
    thirteen = {"email": "user13@example.com", "password": "password-13"}
    assert "封禁" in box.call("/v1/user/email-login", thirteen)["msg"]
    box.post("clock", {"advance": "P7D"})
    assert box.call("/v1/user/email-login", thirteen)["code"] == 1
    # Ten years later nobody is a VIP any more.
    box.post("clock", {"advance": "P3650D"})
    token = box.login("13800000002")["data"]["token"]
    assert box.info(token)["data"]["is_vip"] == 0


def test_days_online_follow_the_clock(box: Box) -> None:
    def days() -> tuple[int, int]:
        box.info()
        told = box.web.get("/v1/user/homepage", params={"userId": "7000001"}).json()["data"]
        return told["user"]["onLineDay"], told["user"]["continuousOnLineDay"]

    first, _ = days()
    box.post("clock", {"advance": "P1D"})
    assert days() == (first + 1, 2)
    box.post("clock", {"advance": "P1D"})
    assert days() == (first + 2, 3)
    box.post("clock", {"advance": "P2D"})
    assert days() == (first + 3, 1)


def test_sessions_follow_the_clock(box: Box) -> None:
    box.post("clock", {"advance": "P29D"})
    assert box.info()["code"] == 1
    box.post("clock", {"advance": "P29D"})
    assert box.info()["code"] == 1
    box.post("clock", {"advance": "P30D"})
    assert box.info() == {"code": -101, "msg": "未登录"}


def test_to_the_next_expiry_one_after_the_other(box: Box) -> None:
    """Codes, then the VIP that ends within the hour, then sessions and the ban."""
    box.code_for("13800000001")
    ends = []
    for _ in range(3):
        expected = box.get("clock")["next_expiry"]
        moved = box.post("clock", {"advance": "next-expiry"})
        assert moved["now"] == expected
        ends.append(moved["now"] - NOON)
    assert ends == [300, 1800, 7 * DAY]
    # Whatever ends by itself has an end: the walk comes to the sessions and to VIP for years.
    for _ in range(100):
        if box.get("clock")["next_expiry"] is None:
            break
        box.post("clock", {"advance": "next-expiry"})
    assert box.refuse("POST", "clock", {"advance": "next-expiry"}).startswith("nothing ends")
    assert box.get("clock")["now"] - NOON >= 3650 * DAY


# ---------------------------------------------------------------- faults


def test_a_fault_that_nobody_knows_gets_a_clear_word(box: Box) -> None:
    told = box.refuse("POST", "faults", {"match": INFO, "fault": "truncat"})
    assert "there is no fault 'truncat'; did you mean truncate? there are delay, status" in told
    with pytest.raises(UnknownFault, match="there is no fault 'explode'; there are delay"):
        box.stand.faults.add(INFO, "explode")
    for body, word in (
        ({"match": INFO}, "a fault is"),
        ({"fault": "delay"}, "a fault is"),
        ({"match": "", "fault": "delay"}, "match is a path"),
        ({"match": INFO, "fault": "delay", "probability": 2}, "probability is 0 to 1"),
        ({"match": INFO, "fault": "delay", "times": 0}, "times is 1 or more"),
        ({"match": INFO, "fault": "delay", "times": "2"}, "this is no fault: Expected `int"),
        ({"match": INFO, "fault": "delay", "seconds": 601}, "seconds is 0 to 600"),
        ({"match": INFO, "fault": "status", "status": 100}, "status is 200 to 599"),
        ({"match": INFO, "fault": "refusal", "code": 1}, "other than 0 and 1"),
        ({"match": INFO, "fault": "delay", "second": 3}, "unknown field `second`"),
        ({"match": 7, "fault": "delay"}, "this is no fault"),
    ):
        assert word in box.refuse("POST", "faults", body), body
    assert box.get("faults")["faults"] == []
    assert box.get("faults")["kinds"] == Fault.KINDS
    assert "there is no fault 5" in box.refuse("DELETE", "faults?id=5")


def test_faults_are_listed_counted_and_taken_away(box: Box) -> None:
    one = box.post("faults", {"match": INFO, "fault": "status", "times": 2})
    two = box.post("faults", {"match": "edit_nickname", "fault": "dead-token"})
    assert (one["id"], two["id"]) == (1, 2)
    assert one["matches"] == ["User.info", "Web.web_info"]
    assert two["matches"] == ["User.edit_nickname"]
    assert box.post("faults", {"match": "User.clients", "fault": "delay"})["matches"] == [
        "User.clients"
    ]
    # A slip of the pen matches nothing, and says so.
    assert box.post("faults", {"match": "/v1/user/inof", "fault": "delay"})["matches"] == []
    assert box.api.get(INFO).status_code == 503
    assert box.get("faults")["faults"][0]["times"] == 1
    assert box.api.get(INFO).status_code == 503
    assert box.info()["code"] == 1
    # What was read can be written back, and what was added can be taken away.
    again = box.post("faults", box.get("faults")["faults"][0])
    assert again["fault"] == "dead-token"
    assert len(box.api.delete("/__dev/faults", params={"id": 2}).json()["faults"]) == 3
    assert box.api.delete("/__dev/faults").json()["faults"] == []
    assert box.call(RENAME, {"name": "湖"}, ONE.token)["code"] == 1


def test_the_first_fault_that_matches_acts(box: Box) -> None:
    box.stand.faults.add("/v1/user/*", "status", status=500, times=1)
    box.stand.faults.add("*", "status", status=501)
    assert [box.api.get(INFO).status_code for _ in range(3)] == [500, 501, 501]
    assert box.web.get("/v1/user/homepage").status_code == 501
    assert box.api.get("/v1/msg/list").status_code == 501
    # The sandbox's own addresses, health and what browsers ask first are not spoiled.
    assert box.api.get("/healthz").status_code == 200
    assert box.api.options(INFO).status_code == 204


@pytest.mark.parametrize(("kind", "code"), [("refusal", 7), ("dead-token", -101)])
def test_refusing_faults_do_nothing(box: Box, kind: str, code: int) -> None:
    box.stand.faults.add(RENAME, kind, times=1, code=7, msg="改日再来")
    with pytest.raises(Refused) as refused:
        box.sdk().edit_nickname(name="别名")
    assert refused.value.code == code
    assert refused.value.msg == ("未登录" if code == -101 else "改日再来")
    assert box.info()["data"]["name"] == "测试用户1"
    # JSON is answered in JSON, and a page may read it.
    box.stand.faults.add(RENAME, kind, code=7, msg="改日再来")
    answer = box.api.post(
        RENAME,
        json={"name": "别名"},
        headers={"token": ONE.token, "origin": "http://client.example"},
    )
    assert answer.json()["code"] == code
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_late_answer_is_late(box: Box) -> None:
    box.stand.faults.add(INFO, "delay", seconds=0.3, times=1)
    began = time.perf_counter()
    assert box.info()["code"] == 1
    assert time.perf_counter() - began >= 0.3
    assert box.entries()[-1]["ms"] >= 300


def test_spoiled_answers_are_spoiled_after_the_work_was_done(box: Box) -> None:
    for number, kind in enumerate(("truncate", "bad-protobuf")):
        box.stand.faults.add(RENAME, kind, times=2)
        with pytest.raises(Unreadable):
            box.sdk().edit_nickname(name=f"别名{number}")
        answer = box.api.post(RENAME, json={"name": f"别名{number}"}, headers={"token": ONE.token})
        assert answer.status_code == 200
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|decode|utf"):
            answer.json()
        assert box.info()["data"]["name"] == f"别名{number}"
    # A client that asked for gzip gets half an answer too, not a broken stream.
    box.stand.faults.add("/v1/user/recommend-list", "truncate")
    wants = {"accept-encoding": "gzip", "token": ONE.token}
    cut = box.api.post("/v1/user/recommend-list", json={}, headers=wants)
    assert "content-encoding" not in cut.headers
    assert cut.text.startswith('{"code":1,"data"')


def test_a_status_may_have_no_body(box: Box) -> None:
    for status in (204, 304, 502):
        box.stand.faults.add(INFO, "status", status=status, times=1)
        answer = box.api.get(INFO)
        assert answer.status_code == status
        assert answer.content == (b"sandbox\n" if status == 502 else b"")


def test_unknown_fields_are_what_a_future_server_might_send(box: Box) -> None:
    plain = box.api.get(INFO, headers={"token": ONE.token}).content
    box.stand.faults.add(INFO, "unknown-fields")
    more = box.api.get(INFO, headers={"token": ONE.token}).content
    assert len(more) > len(plain)
    # Readers that ignore what they do not know read the same.
    assert box.sdk().info().name == "测试用户1"
    assert class_of(Me).DESCRIPTOR.fields_by_number.get(999) is None
    told = box.api.get(INFO, headers={"token": ONE.token, **JSON}).json()
    assert told.pop("future") == {"a": [1]}
    assert told["data"]["name"] == "测试用户1"


def test_lots_are_drawn_from_the_seed(box: Box) -> None:
    def drawn() -> list[int]:
        box.stand.reset()
        box.stand.faults.add(INFO, "status", probability=0.5)
        return [box.api.get(INFO).status_code for _ in range(40)]

    first = drawn()
    assert {503, 200} == set(first)
    assert drawn() == first


def test_a_connection_is_lost_over_a_real_socket(live: httpx2.Client, dev: Dev) -> None:
    live.post("/__dev/faults", json={"match": RENAME, "fault": "drop", "times": 1})
    with pytest.raises(httpx2.RemoteProtocolError):
        live.post(RENAME, json={"name": "断线"}, headers={"token": ONE.token})
    # The work was done, and the next call is answered.
    told = live.get(INFO, headers={"token": ONE.token, **JSON}).json()
    assert told["data"]["name"] == "断线"
    # The SDK asks again where that is safe, and only there.
    with Client(dev.url, token=ONE.token) as client:
        live.post("/__dev/faults", json={"match": INFO, "fault": "drop", "times": 1})
        assert client.info().name == "断线"
        live.post("/__dev/faults", json={"match": RENAME, "fault": "drop", "times": 1})
        with pytest.raises(httpx2.TransportError):
            client.edit_nickname(name="再断")
    entries = live.get("/__dev/requests", params={"path": RENAME}).json()["requests"]
    assert [one["fault"] for one in entries] == ["drop", "drop"]


def test_every_other_fault_over_a_real_socket(live: httpx2.Client) -> None:
    for kind, check in (
        ("status", lambda answer: answer.status_code == 503),
        ("refusal", lambda answer: answer.json() == {"code": -1, "msg": "sandbox"}),
        ("dead-token", lambda answer: answer.json()["code"] == -101),
        ("truncate", lambda answer: not answer.text.endswith("}")),
        ("bad-protobuf", lambda answer: answer.content == b"\x0a\xff\xff\xff\x7f"),
        ("unknown-fields", lambda answer: "future" in answer.json()),
        ("delay", lambda answer: answer.elapsed.total_seconds() >= 0.05),
    ):
        fault = {"match": INFO, "fault": kind, "times": 1, "seconds": 0.05}
        live.post("/__dev/faults", json=fault).raise_for_status()
        answer = live.get(INFO, headers={"token": ONE.token, **JSON})
        assert check(answer), kind


# ---------------------------------------------------------------- the inspector


def test_protobuf_is_decoded_beside_its_bytes(box: Box) -> None:
    sent = class_of(NewName)(name="湖").SerializeToString()
    box.api.post(RENAME, content=sent, headers={"token": ONE.token})
    box.api.get(INFO, headers={"token": ONE.token})
    rename, info = box.entries()
    assert rename["row"] == "User.edit_nickname"
    assert rename["request"] == {
        "format": "application/x-protobuf",
        "hex": sent.hex(),
        "decoded": {"name": "湖"},
    }
    status = {"number": rename["answer"]["decoded"]["status"]["number"], "code": 1}
    assert rename["answer"]["decoded"] == {"status": status | {"msg": "success"}}
    assert rename["code"] == 1
    assert rename["token"] == ONE.token
    assert "update account" in rename["changed"]
    assert info["answer"]["decoded"]["data"]["name"] == "湖"
    assert "湖".encode().hex() in info["answer"]["hex"]
    assert info["changed"] == []


def test_json_is_decoded_beside_its_bytes(box: Box) -> None:
    body = b'{"mobile": "13800000001", "captcha": "000000"}'
    box.api.post("/v1/user/verification-login", content=body)
    (entry,) = box.entries()
    assert entry["request"]["decoded"] == json.loads(body)
    assert bytes.fromhex(entry["request"]["hex"]) == body
    assert entry["answer"]["decoded"] == {"code": -1, "msg": "验证码错误或已过期"}
    assert (entry["code"], entry["status"], entry["host"]) == (-1, 200, "api")
    box.web.get("/v1/user/homepage", params={"userId": "7000001"})
    entry = box.entries(after=entry["id"])[0]
    assert (entry["host"], entry["row"]) == ("web", "Web.homepage")
    assert entry["request"]["decoded"] == {"userId": "7000001"}


def test_answers_that_were_compressed_are_shown_as_they_mean(box: Box) -> None:
    wants = {"accept-encoding": "gzip", "token": ONE.token}
    answer = box.api.post("/v1/user/recommend-list", json={}, headers=wants)
    assert answer.headers["content-encoding"] == "gzip"
    (entry,) = box.entries()
    assert len(entry["answer"]["decoded"]["data"]["groupList"]) == 30
    assert bytes.fromhex(entry["answer"]["hex"]).startswith(b'{"code":1')


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "warnings"),
    [
        ("POST", RENAME, b"\x1a\x01x\x38\x01", True, ["unknown field 7"]),
        ("POST", RENAME, b"\x1a\x01x", False, ["the token is missing"]),
        ("POST", RENAME, b"\x1a\x01x", {"token": "old"}, ["the token is not alive"]),
        ("POST", RENAME, b"\xff", True, ["the body cannot be read: malformed protobuf"]),
        ("POST", RENAME, b'{"name": "x"}', True, ["JSON, where the document has protobuf"]),
        ("GET", RENAME, b"", True, ["GET is not POST"]),
        ("GET", INFO + "?token=x", b"", False,
         ["the token is missing", "a token belongs into the header `token`, neither into a query"
          " nor a cookie"]),
        ("POST", "/v1/user/email-login", b'{"emial": "a", "email": null}', False,
         ["unknown key 'emial'", "email was sent as null"]),
        ("POST", "/v1/user/email-login?email=a", b"", False,
         ["parameters in the query are not read here, only those in the body"]),
        ("POST", "/v1/user/recommend-list", b'{"page": "1", "category": 2}', True,
         ["category is text and was sent as a number", "page is a number and was sent as text"]),
        ("POST", "/v1/user/medal", b'{"a": 1}', True, ["this endpoint takes no body"]),
        ("POST", "/v1/user/medal", b"{}", True, []),
        ("POST", "/v1/user/logout", b'{"deviceId": "x"}', True, []),
        ("POST", RENAME, b"\x1a\x01x", {"token": ONE.token, "content-type": "application/json"},
         ["the Content-Type says application/json, the body is application/x-protobuf"]),
        ("GET", "/v1/user/gold-coin-increase-decrease-record?sise=1&page=1", b"", True,
         ["unknown key 'sise'"]),
        ("GET", "/v1/user/inof", b"", False, ["did you mean /v1/user/info?"]),
        ("GET", "/v1/user/homepage", b"", False,
         ["this endpoint is on the web host, not on the api host"]),
        ("POST", "/v1/msg/send-message", b"", False, ["this endpoint is not of the user module"]),
        ("OPTIONS", RENAME, b"", False, []),
    ],
)  # fmt: skip
def test_a_careful_reader_warns(
    box: Box, method: str, path: str, body: bytes, headers: Any, warnings: list[str]
) -> None:
    if isinstance(headers, bool):
        headers = {"token": ONE.token} if headers else {}
    box.api.request(method, path, content=body, headers=headers)
    assert box.entries()[-1]["warnings"] == warnings


def test_requests_of_the_sdk_are_beyond_reproach(box: Box) -> None:
    """Whatever the table writes, the careful reader has nothing to say about."""
    client = box.sdk()
    client.info()
    client.get_user(id="7000017")
    client.edit_nickname(name="湖边人")
    client.clients()
    client.medal()
    client.recommend_list(category="", page=1, size=5)
    client.homepage(user_id="7000001")
    client.gold_coin_increase_decrease_record(size=5, page=1)
    client.logout(device_id="device-1")
    assert [one["warnings"] for one in box.entries()] == [[]] * 9


def test_what_was_rolled_back_was_not_changed(box: Box) -> None:
    # A taken number: the code is used, the account written, and all of it undone.
    code = box.code_for("13800000005")
    taken = box.call(
        "/v1/user/change-phone-check", {"phone": "13800000005", "captcha": code}, ONE.token
    )
    assert taken["msg"] == "该手机号已被其他账号绑定"
    changed = box.entries()[-1]["changed"]
    assert not any(one.startswith("update") and "account" in one for one in changed)
    box.post("clock", {"advance": 60})
    box.login("13800000005")
    assert {"insert session", "update code"} <= set(box.entries()[-1]["changed"])


def test_hostile_requests_are_written_down_and_harm_nobody(
    box: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    box.stand.listeners.append(terminal.show)
    bodies = [
        b'{"mobile": "\\ud800"}',
        b'{"mobile": "\\u001b[2J\\u009b1m\\u202e"}',
        b'{"mobile": ' + b"9" * 5000 + b"}",
        b'{"mobile": NaN}',
        b'{"mobile": 1e999}',
        b'{"mobile": 18446744073709551616000}',
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"{",
        b"\x00\xff\xfe",
        b"\xef\xbb\xbf{}",
        '{"mobile": "湖"}'.encode("utf-16"),
    ]
    odd = {b"token": b"\x7f\xe9", b"accept": b"\xe9"}
    for body in bodies:
        for path in ("/v1/user/verification-login", RENAME, "/v1/elsewhere"):
            answer = box.api.post(path, content=body, headers=odd)
            assert answer.status_code in (200, 404)
    box.api.get("/v1/%1b%5b2J%ff%0a/")
    entries = box.entries()
    assert len(entries) == 3 * len(bodies) + 1
    lines = capsys.readouterr().out.split("\n")[:-1]
    # Lines that begin with a date are the server's log.
    said = "\n".join(line for line in lines if not re.match(r"(\x1b\[\d+m)?\d{4}-", line))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert len(said.splitlines()) == len(entries) + sum(len(one["warnings"]) for one in entries)


def test_a_terminal_of_another_encoding_is_enough(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    box.stand.listeners.append(terminal.show)
    assert box.call(RENAME, {"name": "湖"}, ONE.token)["code"] == 1
    assert rb'POST /v1/user/edit-nickname {"name": "\u6e56"} -> 1' in raw.getvalue()


def test_a_listener_that_breaks_keeps_no_answer_back(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError

    box.stand.listeners.append(broken)
    assert box.info()["code"] == 1
    assert "could not be written down" in caplog.text


def test_requests_are_filtered_and_waited_for(box: Box) -> None:
    box.info()
    box.call("/v1/user/captcha")
    assert [one["path"] for one in box.entries(path=INFO)] == [INFO]
    assert [one["path"] for one in box.entries(path="User.captcha")] == ["/v1/user/captcha"]
    assert len(box.entries(path="/v1/user/*")) == 2
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(box.entries, path="/v1/user/medal", timeout=20)
        box.sdk().medal()
        assert len(waiting.result(20)) == 1
    assert box.api.delete("/__dev/requests").json()["requests"] == []
    assert box.entries() == []


# ---------------------------------------------------------------- copies, which are run


def sample(api: Any, dev: Dev) -> list[dict[str, Any]]:
    """Requests of many kinds, as the journal has them."""
    token = {"token": ONE.token}
    api.get(INFO, headers=token | JSON)
    api.post(RENAME, content=class_of(NewName)(name="湖").SerializeToString(), headers=token)
    api.post(RENAME, json={"name": "it's 'quoted' $HOME `id` \\ \" 湖\n"}, headers=token)
    api.post("/v1/user/get-user", content=b"\x12\x077000017", headers={"token": "any"})
    api.post("/v1/user/logout", json={"deviceId": "x"}, headers={"authorization": "Bearer none"})
    api.get("/v1/user/gold-coin-increase-decrease-record?size=2&page=1", headers=token)
    api.post("/v1/user/recommend-list", json={"category": "", "page": "1", "x": {"[y]": 1}},
             headers=token)  # fmt: skip
    api.post("/v1/user/medal", headers=token)
    api.post(RENAME, content=b"\xff\x00", headers=token)
    api.get("/v1/other/{a}[1]?x={1}&y='")
    httpx2.get(f"{dev.web_url}/v1/user/homepage?userId=7000001").raise_for_status()
    entries: list[dict[str, Any]] = api.get("/__dev/requests").json()["requests"]
    assert len(entries) == 11
    return entries


def test_copies_as_curl_say_the_same_again(live: httpx2.Client, dev: Dev) -> None:
    for tool in ("bash", "curl", "xxd"):
        if shutil.which(tool) is None:
            pytest.skip(f"copies are command lines, and {tool} is not installed")
    for entry in sample(live, dev):
        live.delete("/__dev/requests").raise_for_status()
        subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", entry["copy"]["curl"]],
            check=True,
            capture_output=True,
            timeout=30,
        )
        (again,) = live.get("/__dev/requests").json()["requests"]
        for key in ("host", "method", "path", "query", "row", "token", "accept", "status", "code"):
            assert again[key] == entry[key], entry["copy"]["curl"]
        assert again["request"]["hex"] == entry["request"]["hex"]
        assert again["answer"]["format"] == entry["answer"]["format"]


def test_copies_as_sdk_call_say_the_same_again(live: httpx2.Client, dev: Dev) -> None:
    for entry in sample(live, dev):
        copy = entry["copy"]["sdk"]
        if copy.startswith("#"):
            assert not entry["row"] or entry["request"]["decoded"] is None
            continue
        live.delete("/__dev/requests").raise_for_status()
        with Client(dev.url, web_url=dev.web_url, token=entry["token"]) as client:
            if entry["code"] == 1:
                eval(copy, {"client": client})  # It is what a person would paste.
            else:
                with pytest.raises(Refused):
                    eval(copy, {"client": client})
        (again,) = live.get("/__dev/requests").json()["requests"]
        for key in ("host", "row", "token", "status", "code"):
            assert again[key] == entry[key], copy


class _Hupan:
    """What a copied test asks of the plugin's fixture."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.faults = box.stand.faults

    def client(self, token: str = "") -> Client:
        return self.box.sdk(token)


def run_copy(box: Box, copy: str) -> None:
    space: dict[str, Any] = {}
    exec(copy, space)  # It is what a person would paste.
    (test,) = (value for name, value in space.items() if name.startswith("test_"))
    box.stand.reset()
    test(_Hupan(box))


def test_copies_as_pytest_pass(box: Box) -> None:
    box.sdk().info()
    with pytest.raises(Refused):
        box.sdk("dead").info()
    with pytest.raises(Refused):
        box.sdk().edit_nickname(name="")
    box.sdk().homepage(user_id="7000001")
    box.call("/v1/user/email-login", {"email": "user1@example.com", "password": "no"})
    box.api.get("/v1/elsewhere")
    box.api.get(RENAME)
    copies = [entry["copy"]["pytest"] for entry in box.entries()]
    assert copies[0] == (
        "def test_info(hupan):\n"
        f"    client = hupan.client(token='{ONE.token}')\n"
        "    assert client.info()\n"
    )
    assert copies[2] == (
        "import pytest\n"
        "\n"
        "from hupan.client import Refused\n"
        "\n"
        "\n"
        "def test_edit_nickname(hupan):\n"
        f"    client = hupan.client(token='{ONE.token}')\n"
        "    with pytest.raises(Refused) as refused:\n"
        "        client.edit_nickname()\n"
        "    assert refused.value.code == -1\n"
    )
    for copy in copies[:5]:
        run_copy(box, copy)
    assert copies[5].startswith("# '/v1/elsewhere' is not an endpoint")
    assert copies[6] == "# the SDK does not send GET /v1/user/edit-nickname\n"


# A lost connection needs a socket, and a test of its own.
@pytest.mark.parametrize("kind", sorted(set(Fault.KINDS) - {"drop"}))
def test_copies_as_pytest_bring_their_fault(box: Box, kind: str) -> None:
    box.stand.faults.add(RENAME, kind, seconds=0.01, status=418, code=9, msg="no")
    with contextlib.suppress(Refused, Unreadable, httpx2.HTTPStatusError):
        box.sdk().edit_nickname(name="湖")
    (entry,) = box.entries()
    assert entry["fault"] == kind
    run_copy(box, entry["copy"]["pytest"])
    # Without its fault the same test fails, unless the fault is one to be borne.
    without = re.sub(r"\n    hupan\.faults\.add.*", "", entry["copy"]["pytest"])
    assert without != entry["copy"]["pytest"]
    if kind in ("delay", "unknown-fields"):
        run_copy(box, without)
    else:
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            run_copy(box, without)


def test_a_copy_of_a_lost_connection_passes_over_a_socket(live: httpx2.Client, dev: Dev) -> None:
    live.post("/__dev/faults", json={"match": INFO, "fault": "drop", "times": 1})
    with contextlib.suppress(httpx2.TransportError):
        live.get(INFO, headers={"token": ONE.token})
    copy = live.get("/__dev/requests").json()["requests"][0]["copy"]["pytest"]
    space: dict[str, Any] = {}
    exec(copy, space)  # It is what a person would paste.

    class Faults:
        def add(self, **fault: Any) -> None:
            live.post("/__dev/faults", json=fault).raise_for_status()

    class Hupan:
        faults = Faults()

        def client(self, token: str) -> Client:
            return Client(dev.url, token=token)

    space["test_info"](Hupan())


# ---------------------------------------------------------------- reset and snapshots


def test_reset_puts_everything_back(box: Box) -> None:
    before = box.info()
    box.call(RENAME, {"name": "别名"}, ONE.token)
    box.code_for("13800000001")
    box.post("clock", {"advance": "P40D", "run": True})
    box.post("faults", {"match": "*", "fault": "status"})
    assert "ms" in box.post("reset", {})
    assert box.info() == before
    assert box.get("outbox")["messages"] == []
    assert box.get("faults")["faults"] == []
    assert box.get("clock")["now"] == NOON
    assert box.get("clock")["frozen"]
    (entry,) = box.entries()
    # Requests and their ids are counted from the beginning.
    assert entry["id"] == 1


def test_the_same_calls_after_a_reset_have_the_same_answers(box: Box) -> None:
    def play() -> list[bytes]:
        return [content for _, _, content in script(box.api, box.web)]

    first = play()
    box.post("reset", {})
    assert play() == first


def test_snapshots_keep_data_clock_and_randomness(box: Box) -> None:
    box.call(RENAME, {"name": "甲"}, ONE.token)
    box.post("clock", {"set": NOON + 100})
    assert box.post("snapshots", {"save": "甲 one"})["snapshots"] == [FRESH, "甲 one"]
    first = box.call("/v1/user/captcha")
    box.call(RENAME, {"name": "乙"}, ONE.token)
    box.post("clock", {"set": NOON + 5000, "run": True})
    box.post("snapshots", {"restore": "甲 one"})
    assert box.info()["data"]["name"] == "甲"
    assert box.get("clock")["now"] == NOON + 100
    assert box.get("clock")["frozen"]
    assert box.call("/v1/user/captcha") == first
    # Saved again under its name, and forgotten.
    box.call(RENAME, {"name": "丙"}, ONE.token)
    box.post("snapshots", {"save": "甲 one"})
    box.post("snapshots", {"restore": FRESH})
    assert box.info()["data"]["name"] == "测试用户1"
    box.post("snapshots", {"restore": "甲 one"})
    assert box.info()["data"]["name"] == "丙"
    assert box.post("snapshots", {"forget": "甲 one"})["snapshots"] == [FRESH]


def test_bad_words_about_snapshots(box: Box) -> None:
    assert "there is no snapshot 'x'; there are fresh" in box.refuse(
        "POST", "snapshots", {"restore": "x"}
    )
    assert "there is no snapshot 'x'" in box.refuse("POST", "snapshots", {"forget": "x"})
    assert "another name" in box.refuse("POST", "snapshots", {"save": FRESH})
    assert "another name" in box.refuse("POST", "snapshots", {"forget": FRESH})
    for name in ("", " ", "x" * 65):
        assert "needs a name" in box.refuse("POST", "snapshots", {"save": name})
    for body in ({}, {"save": 1}, {"load": "x"}, {"save": "a", "restore": "b"}):
        assert 'write {"save": "name"}' in box.refuse("POST", "snapshots", body)
    with pytest.raises(NoSnapshot):
        box.stand.restore("x")


def test_a_sandbox_keeps_only_so_many_snapshots(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hupan.sandbox.snapshots.MOST", 2)
    box.stand.save("one")
    assert "there are 2 snapshots already" in box.refuse("POST", "snapshots", {"save": "two"})
    box.stand.save("one")


def test_reset_snapshot_and_restore_take_milliseconds(box: Box) -> None:
    """The budget is 20 ms for a reset; measured alone, and the median told."""
    box.stand.save("one")
    for name, act in (
        ("reset", box.stand.reset),
        ("save", lambda: box.stand.save("one")),
        ("restore", lambda: box.stand.restore("one")),
    ):
        spent = []
        for _ in range(30):
            box.info()
            began = time.perf_counter()
            act()
            spent.append((time.perf_counter() - began) * 1000)
        print(f"{name}: median {statistics.median(spent):.2f} ms, worst {max(spent):.2f} ms")
        # Eight people share this machine's two cores: the promise is 20 ms, the test is patient.
        assert statistics.median(spent) < 100, name
    # A thousand tests do not fill the disk either.
    for _ in range(300):
        box.stand.reset()
    log = box.stand.settings.data_dir / "hupan.db-wal"
    assert log.stat().st_size < 8_000_000


def test_reset_while_requests_are_under_way(box: Box) -> None:
    """Every answer is one that the state before or the one after gives; nobody meets both."""
    problems: list[str] = []
    stop = threading.Event()

    def client(number: int) -> None:
        one = boxed(box.stand)
        phone = f"139{number:08d}"
        while not stop.is_set():
            answers = [one.info(), one.call(RENAME, {"name": f"人{number}"}, ONE.token)]
            if number % 2:
                captcha = one.call("/v1/user/captcha")["data"]["id"]
                solution = one.get(f"captchas/{captcha}")["solution"]
                said = {"mobile": phone, "id": captcha, "code": solution}
                answers.append(one.call("/v1/verification/get-verification-code", said))
                code = next(iter(one.get("outbox", to=phone)["messages"]), {"code": "0"})["code"]
                answers.append(
                    one.call("/v1/user/verification-login", {"mobile": phone, "captcha": code})
                )
                token = answers[-1].get("data", {}).get("token", "none")
                # The account of a first login is gone after a reset: then the token is dead.
                answers.append(one.call("/v1/user/save-user-data", {"introduction": "x"}, token))
                login = {"email": "user5@example.com", "password": "password-5"}
                answers.append(one.call("/v1/user/email-login", login))
            problems.extend(
                str(answer) for answer in answers if answer["code"] not in (1, -1, -101)
            )

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    spent = []
    try:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            began = time.perf_counter()
            box.stand.reset()
            spent.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not problems, problems[:3]
    assert len(spent) > 10
    print(f"{len(spent)} resets under load: median {statistics.median(spent):.1f} ms")
    assert statistics.median(spent) < 300
    box.stand.reset()
    assert box.info()["data"]["name"] == "测试用户1"
    with sqlite3.connect(box.stand.settings.data_dir / "hupan.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


def test_without_the_gate_a_reset_comes_between(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset in the middle of a call: with the gate it waits; without, the call is torn."""
    inside, go_on = threading.Event(), threading.Event()
    from hupan.accounts import profile

    rename = profile.rename

    def slow(*given: Any, **more: Any) -> None:
        inside.set()
        go_on.wait(10)
        rename(*given, **more)

    monkeypatch.setattr(profile, "rename", slow)

    def play() -> str:
        inside.clear()
        go_on.clear()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            call = pool.submit(box.call, RENAME, {"name": "别名"}, ONE.token)
            assert inside.wait(10)
            reset = pool.submit(box.stand.reset)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                reset.result(0.3)
            go_on.set()
            assert call.result(10)["code"] == 1
            reset.result(10)
        return str(box.info()["data"]["name"])

    assert play() == "测试用户1"
    # Nothing of a call that began before the reset is written down after it.
    assert [one["path"] for one in box.entries()] == [INFO]
    monkeypatch.setattr(type(box.stand._gate), "alone", lambda _: contextlib.nullcontext())
    assert play() == "别名"


def test_a_long_running_sandbox_resets_to_today(stands: Callable[..., Box]) -> None:
    """`ends within the hour` and `banned for a week` are true after every reset."""
    clock = SandboxClock()
    clock.set(NOON)
    box = stands(clock=clock)
    # As if the process had run for ten days: the clock that it goes back to is ten days later.
    kept = box.stand._kept[FRESH]
    offset, frozen = kept.clock
    box.stand._kept[FRESH] = type(kept)(kept.drawn, (offset + 10 * DAY, frozen), kept.now)
    box.post("reset", {})
    now = box.get("clock")["now"]
    assert abs(now - NOON - 10 * DAY) < 60
    twelve = box.info(everybody()[11].token)["data"]
    assert twelve["is_vip"] == 1
    assert 0 < twelve["vip_expired_time"] - now <= 3600
    assert box.info(everybody()[10].token)["data"]["is_vip"] == 0
    banned = box.call("/v1/user/email-login",
                      {"email": "user13@example.com", "password": "password-13"})  # fmt: skip
    assert "封禁" in banned["msg"]
    box.post("clock", {"advance": "P6D"})
    again = {"email": "user13@example.com", "password": "password-13"}
    assert "封禁" in box.call("/v1/user/email-login", again)["msg"]


# ---------------------------------------------------------------- what is not ours


def test_other_modules_are_counted_listed_and_never_forwarded(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[Any] = []
    connect = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda me, to: (reached.append(to), connect(me, to))
    )
    for _ in range(3):
        answer = box.api.post("/v1/msg/send-message", json={"text": "hi"})
        assert answer.status_code == 404
        assert answer.json() == {"code": 404, "msg": "接口不存在"}
    box.api.get("/v1/conversation/list")
    box.web.get("/v1/group/info")
    box.info()
    box.api.options("/v1/msg/send-message")
    told = box.get("requests")
    paths = ["/v1/msg/send-message", "/v1/conversation/list", "/v1/group/info"]
    assert told["unimplemented"] == paths
    assert told["counts"] == dict(zip(paths, (3, 1, 1), strict=True))
    assert box.stand.journal.unimplemented == paths
    assert reached == []
    # Older requests leave the journal; what was asked for in vain stays on the list.
    for _ in range(1100):
        box.stand.journal.add(box.stand.journal.entries()[-1])
    assert len(box.stand.journal.entries()) == 1000
    assert box.stand.journal.unimplemented == paths


# ---------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://api.test"}, 200),
        ({"host": "127.0.0.1:8790", "origin": "http://127.0.0.1:8790"}, 200),
        ({"host": "[::1]:8790"}, 200),
        ({"host": "localhost:8790"}, 200),
        ({"host": "hupan:8790"}, 200),
        ({"host": "chat-go.jwzhd.com"}, 200),
        ({"origin": "http://evil.example.com"}, 403),
        ({"origin": "http://127.0.0.1:9999", "host": "127.0.0.1:8790"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        # A stranger's name that points here makes a stranger's page look like ours.
        ({"host": "evil.com:8790", "origin": "http://evil.com:8790"}, 403),
        ({"host": "evil.com"}, 403),
    ],
)
def test_pages_of_strangers_are_refused(box: Box, headers: dict[str, str], status: int) -> None:
    for method, path in (("GET", "outbox"), ("POST", "reset"), ("DELETE", "faults")):
        answer = box.api.request(method, f"/__dev/{path}", headers=headers)
        assert answer.status_code == status, (method, answer.text)
        assert "access-control-allow-origin" not in answer.headers
        assert (status == 200) == ("error" not in answer.json())


def test_the_web_host_has_no_look_ups(box: Box) -> None:
    for path in ("/__dev/", "/__dev/outbox", "/__dev/reset"):
        assert box.web.get(path).status_code == 404


# ---------------------------------------------------------------- tokens that are printed


def test_printed_tokens_outlive_many_logins(box: Box) -> None:
    """Clients log in afresh at every start; the printed token is there for everybody else."""
    said = {"email": "user17@example.com", "password": "password-17", "deviceId": "same"}
    token = everybody()[16].token
    registered = {"deviceId": "device-17", "registrationId": "registration-17"}

    def notified() -> Any:
        return box.call("/v1/user/notification-status", registered, token)["data"]

    before = notified()
    assert before["notification"]["isOpen"] == 1
    for _ in range(30):
        assert box.call("/v1/user/email-login", said)["code"] == 1
    assert box.info(token)["code"] == 1
    assert notified() == before
    with operation(box.stand.world) as ctx:
        mine = select(session.c.id).where(session.c.account_id == 7_000_017)
        # One more than a server keeps, and not one for each login.
        assert len(ctx.tx.all(mine)) <= box.stand.settings.max_sessions + 1


def test_printed_tokens_die_as_all_tokens_do(box: Box) -> None:
    said = {"email": "user1@example.com", "password": "password-1"}
    assert box.call("/v1/user/logout", {}, ONE.token)["code"] == 1
    for _ in range(25):
        assert box.call("/v1/user/email-login", said)["code"] == 1
    assert box.info()["code"] == -101
    # A new password ends all sessions, the printed one too.
    token = everybody()[1].token
    code = box.code_for("user2@example.com", "forget_password")
    new = {"email": "user2@example.com", "captcha": code, "password": "a lake in spring"}
    assert box.call("/v1/user/forget-password", new)["code"] == 1
    assert box.info(token)["code"] == -101
    login = {"email": "user2@example.com", "password": "a lake in spring"}
    assert box.call("/v1/user/email-login", login)["code"] == 1
    assert box.info(token)["code"] == -101


# ---------------------------------------------------------------- the same again


def script(api: Any, web: Any) -> list[tuple[int, dict[str, str], bytes]]:
    """Calls of every kind, one after the other; what each was answered."""
    told: list[tuple[int, dict[str, str], bytes]] = []

    def keep(answer: Any) -> Any:
        headers = {
            name: value
            for name, value in answer.headers.items()
            # The date is HTTP's own, and the machine's.
            if name not in ("date", "server")
        }
        told.append((answer.status_code, headers, answer.content))
        return answer

    def post(path: str, body: Any = None, token: str = "", content: bytes | None = None) -> Any:
        headers = {"token": token, "accept-encoding": "gzip"}
        more = {"content": content} if content is not None else {"json": body}
        return keep(api.post(path, headers=headers, **more))

    keep(api.get(INFO, headers={"token": ONE.token}))
    keep(api.get(INFO, headers={"token": ONE.token, **JSON}))
    for _ in range(3):
        captcha = post("/v1/user/captcha").json()["data"]
    png_of(captcha["b64s"])
    solution = keep(api.get(f"/__dev/captchas/{captcha['id']}")).json()["solution"]
    said = {"mobile": "13912345678", "id": captcha["id"], "code": solution}
    post("/v1/verification/get-verification-code", said)
    letters = keep(api.get("/__dev/outbox/wait", params={"to": "13912345678"})).json()
    code = letters["messages"][0]["code"]
    login = {"mobile": "13912345678", "captcha": code, "deviceId": "d", "platform": "p"}
    token = post("/v1/user/verification-login", login).json()["data"]["token"]
    post("/v1/user/email-login", {"email": "user2@example.com", "password": "password-2"})
    post("/v1/user/email-login", {"email": "user2@example.com", "password": "wrong"})
    post(RENAME, content=b"\x1a\x04Lake", token=token)
    post(RENAME, {"name": "湖边人"}, token)
    keep(api.get(INFO, headers={"token": token}))
    keep(api.get("/v1/user/clients", headers={"token": token}))
    post("/v1/user/get-user", content=b"\x12\x077000017", token=token)
    post("/v1/user/gold-coin-increase-decrease-record", {"size": 30, "page": 1}, ONE.token)
    post("/v1/user/recommend-list", {"category": ""}, token)
    post("/v1/user/invite/invite-progress", None, token)
    keep(web.get("/v1/user/homepage", params={"userId": "7000001"}))
    keep(api.get("/__dev/clock"))
    keep(api.post("/__dev/clock", json={"advance": "P7D"}))
    fault = {"match": INFO, "fault": "status", "probability": 0.5}
    keep(api.post("/__dev/faults", json=fault))
    for _ in range(10):
        keep(api.get(INFO, headers={"token": token}))
    keep(api.delete("/__dev/faults"))
    post("/v1/user/logout", {}, token)
    keep(api.get(INFO, headers={"token": token}))
    keep(api.get("/v1/msg/list"))
    return told


def test_a_seed_and_a_frozen_clock_make_two_processes_the_same(tmp_path: Path) -> None:
    options = ("--seed", "7", "--freeze", "2026-01-01 08:00")
    both = [start_dev(tmp_path / name, *options) for name in ("one", "two")]
    told = []
    with running(*both):
        for one in both:
            with (
                httpx2.Client(base_url=one.url, timeout=30) as api,
                httpx2.Client(base_url=one.web_url, timeout=30) as web,
            ):
                told.append(script(api, web))
                # Thirty more people come with a seed, and are the same too.
                told[-1].append((0, {}, web.get("/v1/user/homepage?userId=7000033").content))
                kept = api.get("/__dev/requests").json()["requests"]
                # How long a request took is measured, and copies name the port.
                for entry in kept:
                    del entry["ms"], entry["copy"]
                told[-1].append((0, {}, json.dumps(kept).encode()))
        assert [one.stop() for one in both] == [0, 0]
    first, second = told
    assert len(first) == len(second) > 30
    for place, (here, there) in enumerate(zip(first, second, strict=True)):
        assert here == there, f"answer {place} differs"
    # The printed words are the same but for the ports and the measured times.
    plain = [
        re.sub(r"127\.0\.0\.1:\d+|\d+\.\d+ ms", "", one.out.read_text("utf-8")) for one in both
    ]
    assert sorted(plain[0].splitlines()) == sorted(plain[1].splitlines())


def test_another_seed_makes_other_answers(stands: Callable[..., Box]) -> None:
    answers = []
    for name, seed in (("one", "7"), ("two", "7"), ("three", "8"), ("four", "")):
        clock = SandboxClock()
        clock.freeze(NOON)
        box = stands(name, seed=seed, clock=clock)
        stranger = box.web.get("/v1/user/homepage", params={"userId": "7000033"}).json()
        answers.append((box.api.post("/v1/user/captcha").content, stranger["data"]["user"]))
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[2][0] != answers[3][0]
    assert answers[0][1] != answers[2][1]
    # Without a seed there are the twenty, and nobody else.
    assert answers[3][1]["nickname"] == ""


def test_a_kept_folder_never_hands_out_a_token_twice(stands: Callable[..., Box]) -> None:
    """The stream of randomness goes on where the last start did not read, at a frozen clock too."""
    tokens, phones = [], iter(range(13_900_000_000, 13_900_000_100))
    for _ in range(3):
        clock = SandboxClock()
        clock.freeze(NOON)
        box = stands(clock=clock)
        for _ in range(3):
            tokens.append(box.login(str(next(phones)))["data"]["token"])
        box.stand.close()
        # Closed here already, in the midst of the test.
        box.stand.hosts.lanes.close()
    assert len(set(tokens)) == 9
    box = stands()
    assert box.info(tokens[0])["code"] in (1, -101)
    assert int((box.stand.settings.data_dir / MARK).read_text()) == 4


# ---------------------------------------------------------------- never in production


def test_a_sandbox_takes_no_data_of_a_real_server(tmp_path: Path) -> None:
    (tmp_path / "hupan.db").touch()
    with pytest.raises(SettingsError, match="holds the data of a real server"):
        Stand(Settings(data_dir=tmp_path))
    assert not (tmp_path / MARK).exists()
    with pytest.raises(SettingsError, match="keeps its data in its own folder"):
        Stand(Settings(data_dir=tmp_path / "new", database_url="postgresql://localhost/real"))
    assert not (tmp_path / "new").exists()


def test_production_refuses_the_sandbox_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MARK).touch()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HUPAN_")}
    refused = subprocess.run(
        [
            *(sys.executable, "-c", "from hupan.cli import main; main()", "serve"),
            *("--data", str(tmp_path)),
        ],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert "holds a sandbox, whose passwords everybody knows" in refused.stderr
    fixed = Settings(
        data_dir=tmp_path / "real",
        test_codes={"13800000001": "246810"},
        test_codes_until="2099-01-01",  # type: ignore[arg-type]  # pydantic reads text.
    )
    with pytest.raises(SettingsError, match="test_codes are for `hupan dev` only"):
        run(fixed)
    for name in ("FREEZE", "SEED", "FAULTS"):
        with monkeypatch.context() as patch:
            patch.setenv(f"HUPAN_{name}", "1")
            with pytest.raises(SettingsError, match="unknown setting"):
                load()
    for option in ("--seed", "--freeze", "--limits"):
        told = hupan("serve", option, "1")
        assert told.exit_code == 2
        assert f"no such option: {option}" in told.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_real_server_has_nothing_of_it(processes: Callable[..., list[Process]]) -> None:
    (server,) = processes()
    for method, path in (
        ("GET", "/__dev"),
        ("GET", "/__dev/"),
        ("GET", "/__dev/outbox"),
        ("GET", "/__dev/people"),
        ("POST", "/__dev/reset"),
        ("POST", "/__dev/clock"),
    ):
        for base in (server.url, server.web_url):
            answer = httpx2.request(method, base + path)
            assert answer.status_code == 404, path
            assert answer.json() == {"code": 404, "msg": "接口不存在"}
    login = {"email": "user1@example.com", "password": "password-1"}
    assert httpx2.post(server.url + "/v1/user/email-login", json=login).json()["code"] == -1
    # Magic numbers are ordinary ones there.
    banned = {"mobile": "19900000004", "captcha": "1"}
    told = httpx2.post(server.url + "/v1/user/verification-login", json=banned).json()
    assert told["msg"] == "验证码错误或已过期"


def test_a_real_server_does_not_even_load_it() -> None:
    program = (
        "import sys, hupan.server.run, hupan.server.app;"
        "print([name for name in sys.modules if name.startswith('hupan.sandbox')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


# ---------------------------------------------------------------- the process


def test_dev_prints_what_one_needs(live: httpx2.Client, dev: Dev) -> None:
    live.get(INFO, headers={"token": ONE.token})
    live.post(RENAME, content=b"\x1a\x04Lake\x38\x01", headers={"token": ONE.token})
    live.post("/v1/msg/send-message")
    said = dev.out.read_text("utf-8")
    assert f"API {dev.url}  web {dev.web_url}" in said
    for one in everybody():
        assert f"{one.id}  {one.phone:<11}  {one.email:<18}  {one.password}" in said
        assert one.token in said
    for identity in magic.IDENTITIES:
        assert identity.phone in said
    assert re.search(r"^GET /v1/user/info -> 1  [\d.]+ ms$", said, re.MULTILINE)
    assert re.search(
        r'^POST /v1/user/edit-nickname \{"name": "Lake"\} -> 1  [\d.]+ ms\n    ! unknown field 7$',
        said,
        re.MULTILINE,
    )
    assert re.search(r"^POST /v1/msg/send-message -> 404 接口不存在", said, re.MULTILINE)
    # The command that it prints is the first call, and works.
    command = re.search(r"^  (curl -H .*)$", said, re.MULTILINE)
    assert command
    if shutil.which("curl"):
        done = subprocess.run(
            ["sh", "-c", command[1] + " -sS"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["data"]["id"] == "7000001"


def test_dev_keeps_to_itself_whatever_the_surroundings_configure(tmp_path: Path) -> None:
    """Its own data, nobody called, fixed codes where they are asked for; it stops when told to."""
    one = start_dev(
        tmp_path,
        "--data",
        "kept",
        HUPAN_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        HUPAN_DELIVER_EMAIL="smtp",
        HUPAN_WORKERS="3",
        HUPAN_TEST_CODES='{"13800000001": "246810"}',
        HUPAN_TEST_CODES_UNTIL="2099-12-31",
    )
    began = time.monotonic()
    with running(one), httpx2.Client(base_url=one.url, timeout=30) as api:
        print(f"dev was ready after {time.monotonic() - began:.1f} s")
        assert (tmp_path / "kept" / MARK).exists()
        captcha = api.post("/v1/user/captcha").json()["data"]["id"]
        solution = api.get(f"/__dev/captchas/{captcha}").json()["solution"]
        said = {"mobile": "13800000001", "id": captcha, "code": solution}
        assert api.post("/v1/verification/get-verification-code", json=said).json()["code"] == 1
        login = {"mobile": "13800000001", "captcha": "246810"}
        assert api.post("/v1/user/verification-login", json=login).json()["code"] == 1
        assert one.stop() == 0


def test_a_bad_moment_for_freeze_is_one_line(tmp_path: Path) -> None:
    one = start_dev(tmp_path, "--freeze", "tomorrow")
    assert one.process.wait(30) == 1
    assert one.out.read_text("utf-8") == (
        "hupan: 'tomorrow' is no moment; write 2027-01-01 or 2027-01-01 08:00\n"
    )


# ---------------------------------------------------------------- the page about it


PAGE = ROOT / "docs" / "sandbox.md"


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def localised(block: str, dev: Dev) -> str:
    text = block.replace("http://127.0.0.1:8790", dev.url)
    return text.replace("http://127.0.0.1:8791", dev.web_url)


def test_the_commands_of_the_page_do_what_it_says(live: httpx2.Client, dev: Dev) -> None:
    for tool in ("bash", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"the blocks of the page need {tool}")
    done = subprocess.run(
        ["bash", "-eu", "-c", localised("\necho ---\n".join(blocks("bash")), dev)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, people, post, branches, clock, faults, entries, copy, foreign, states = [
        part.strip() for part in done.stdout.split("---\n")
    ]
    assert json.loads(people)["data"]["id"] == "7000001"
    assert re.search(r'"code":"\d{6}"', post)
    assert re.search(r'\{"code":1,"data":\{"token":"[\w-]{31}"', post)
    assert branches == (
        '{"code":-1,"msg":"验证码发送失败，请稍后再试"}{"code":-1,"msg":"账号已被永久封禁"}'
    )
    moments = [json.loads(one) for one in re.findall(r"\{[^}]*\}", clock)]
    assert "ms" in moments.pop()
    assert [one["frozen"] for one in moments] == [False, True, True, True, True, False]
    assert moments[2]["now"] - moments[1]["now"] == 7 * DAY
    assert moments[3]["now"] == moments[2]["next_expiry"]
    assert moments[4]["text"] == "2027-01-01 08:00:00"
    # Half an answer, then a refusal.
    assert re.search(r'^.*\}\{"code":1,"data":\{"id":"7000001"[^}]*$', faults, re.MULTILINE)
    assert '{"code":-1,"msg":"昵称审核中"}' in faults
    assert "unknown field 7" in entries
    assert copy == "client.info()"
    assert foreign.endswith('"unimplemented":["/v1/msg/send-message"]')
    assert '"snapshots":["fresh","before"]' in states
    assert re.search(r'\{"ms":[\d.]+\}$', states)


def test_the_python_of_the_page_does_what_it_says(live: httpx2.Client, dev: Dev) -> None:
    (block,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", localised(block, dev)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-101 未登录", str([INFO] * 3)]


def test_the_page_names_everything_there_is(box: Box) -> None:
    text = PAGE.read_text("utf-8")
    for name, meaning in Fault.KINDS.items():
        assert f"| `{name}` | {meaning} |" in text
    for field in ("match", "fault", "probability", "times", "seconds", "status", "code", "msg"):
        assert f"`{field}`" in text
    for one in magic.IDENTITIES:
        assert f"| `{one.phone}` | `{one.email}` |" in text
    for route in routes(box.stand):
        path = str(getattr(route, "path", ""))
        assert path in text or path.endswith((".js", ".css", ".svg")), path
    letter = {"id", "channel", "to", "purpose", "code", "link", "text", "at", "ended"}
    box.code_for("13800000001")
    assert set(box.get("outbox")["messages"][0]) == letter
    for key in (*letter, *box.get("clock"), *box.get("requests")["requests"][0]):
        assert f"`{key}`" in text or key in ("accept", "rule"), key
    # Sentences with numbers say the numbers of the code.
    assert f"for the last {journal.KEPT} requests" in text
    assert f"at most {routes_module.LONGEST:.0f}" in text
    assert f"only\n{box.stand.settings.max_sessions} sessions" in text


def test_the_people_are_as_the_page_says(box: Box) -> None:
    def whole(number: int) -> Any:
        return box.sdk(everybody()[number - 1].token)

    assert len(whole(1).medal().medal) == 3
    assert len(list(whole(1).iter_coin_records())) == 45
    now = box.get("clock")["now"]
    assert whole(2).info().vip_expired_time == now + 3650 * DAY
    assert whole(11).info().vip_expired_time == now - 3 * DAY
    assert whole(12).info().vip_expired_time == now + 1800
    for number in range(17, 21):
        assert len(whole(number).clients().clients) == 6
        assert whole(number).get_user_data().data.introduction
    assert whole(17).get_user(id="7000018").remark_info.remark_name == "备注 7000018"
    groups = list(whole(1).iter_groups())
    assert len(groups) == 7 * 12
    assert not any("封禁" in one.nickname for one in groups)
