"""What `hupan` offers to a test, and that no test sees anything of another."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

from hupan.client import Client, Refused
from hupan.protocol.user import User
from hupan.protocol.wire import Unreadable, decode_answer
from hupan.sandbox.faults import UnknownFault
from hupan.sandbox.people import everybody
from hupan.sandbox.snapshots import NoSnapshot

if TYPE_CHECKING:
    from hupan.pytest_plugin import Sandbox

pytest_plugins = ("hupan.pytest_plugin",)

API = "https://chat-go.jwzhd.com"


# ---------------------------------------------------------------- the example of the design


class MyDecodeError(Exception):
    pass


class MyExistingClient:
    """A client as people have them: written against production, long before the sandbox."""

    def __init__(self) -> None:
        self.http = requests.Session()
        self.token = ""
        self.ask_human = input

    def request_code(self, mobile: str) -> None:
        captcha = self.post("/v1/user/captcha", deviceId="d")["data"]
        solution = self.ask_human(captcha["id"])
        self.post(
            "/v1/verification/get-verification-code",
            mobile=mobile,
            id=captcha["id"],
            code=solution,
            platform="bot",
        )

    def login(self, mobile: str, code: str) -> Any:
        found = self.post(
            "/v1/user/verification-login",
            mobile=mobile,
            captcha=code,
            deviceId="d",
            platform="bot",
        )
        self.token = found["data"]["token"]
        return self

    def me(self) -> Any:
        answer = self.http.get(API + "/v1/user/info", headers={"token": self.token}, timeout=10)
        try:
            return decode_answer(User.info, answer.content)
        except Unreadable as error:
            raise MyDecodeError from error

    def post(self, path: str, **body: Any) -> Any:
        answer = self.http.post(API + path, json=body, timeout=10)
        return answer.json()


def test_login_with_sms(
    hupan: Sandbox, hupan_redirect: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of `sandbox.md`, with a VIP whose time is up before the sandbox's."""
    client = MyExistingClient()  # hard-coded https host
    client.ask_human = hupan.captcha
    client.request_code("13800000012")
    assert client.login("13800000012", hupan.outbox.wait_for(to="13800000012").code).token
    assert client.me().is_vip == 1
    hupan.clock.advance(days=400)  # VIP runs out
    assert client.me().is_vip == 0
    hupan.faults.add("/v1/user/info", "truncate", times=1)
    with pytest.raises(MyDecodeError):
        client.me()
    assert client.me().id == "7000012"
    assert hupan.requests.unimplemented == []
    client.http.close()


# ---------------------------------------------------------------- fresh for each test


@pytest.mark.parametrize("turn", range(3))
def test_no_test_sees_another(hupan: Sandbox, turn: int) -> None:
    """State isolation: each of these begins with what the first one began with."""
    client = hupan.client(user=3 + 7_000_000)
    assert client.info().name == "测试用户3"
    assert len(hupan.requests) == 1
    assert hupan.requests[0].entry.id == 1
    assert list(hupan.faults) == []
    assert hupan.outbox.messages() == []
    assert not hupan.clock.frozen
    assert abs(hupan.clock.now() - time.time()) < 60
    # And leaves as much behind as it can.
    client.edit_nickname(name=f"turn {turn}")
    client.logout(device_id="device-3")
    asked = hupan.client().captcha()
    hupan.client().get_verification_code(
        mobile="13800000003", id=asked.id, code=hupan.captcha(asked.id)
    )
    assert len(hupan.outbox.messages()) == 1
    hupan.clock.freeze()
    hupan.clock.advance(days=100)
    hupan.faults.add("*", "drop")


def test_the_same_calls_get_the_same_answers(hupan: Sandbox) -> None:
    """`sandbox.md`: everything random comes from the seed, from the first call of a test on."""
    seen = []
    for _ in range(3):
        hupan.reset()
        hupan.clock.freeze(1_772_424_000)
        person = hupan.users[0]
        token = hupan.client().login_with_password(person.email, person.password)
        asked = hupan.client().captcha()
        seen.append((token, asked.id, asked.b64s, hupan.requests[-1].entry.answer.hex))
    assert seen[0] == seen[1] == seen[2]


def test_a_fresh_state_takes_less_than_20_ms(hupan: Sandbox) -> None:
    """Budget: fresh state per test < 20 ms, on a machine that may be busy with other things."""
    took = []
    client = hupan.client(user=7_000_001)
    for turn in range(30):
        client.edit_nickname(name=f"turn {turn}")
        started = time.perf_counter()
        hupan.reset()
        took.append((time.perf_counter() - started) * 1000)
    print(f"reset: best {min(took):.1f} ms, median {statistics.median(took):.1f} ms")
    assert min(took) < 20
    assert statistics.median(took) < 60


def test_a_request_of_an_earlier_test_is_not_in_the_way(
    hupan: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gave up waiting leaves a request behind, which ends in a later test."""
    ended = threading.Event()
    journal = hupan._stand.journal
    add = journal.add

    def see(*entry: Any) -> bool:
        kept = add(*entry)
        ended.set()
        return kept

    monkeypatch.setattr(journal, "add", see)
    hupan.faults.add("/v1/user/info", "delay", seconds=0.3, times=1)
    with pytest.raises(requests.Timeout):
        requests.get(hupan.url + "/v1/user/info", timeout=0.05)
    hupan.reset()
    assert ended.wait(10)
    assert list(hupan.requests) == []


def test_importing_the_plugin_is_cheap() -> None:
    """pytest loads it in every run: it brings nothing of the server, and no event loop."""
    code = (
        "import sys, time, pytest\n"
        "before = set(sys.modules)\n"
        "started = time.perf_counter()\n"
        "import hupan.pytest_plugin\n"
        "print((time.perf_counter() - started) * 1000)\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    took, names = done.stdout.splitlines()
    print(f"import: {took} ms: {names}")
    assert {name for name in names.split() if name.startswith("hupan")} == {
        "hupan",
        "hupan.pytest_plugin",
    }
    assert not {"asyncio", "ssl", "sqlalchemy", "starlette", "granian", "httpx2"} & set(
        names.split()
    )
    assert float(took) < 500


# ---------------------------------------------------------------- people and clients


def test_people_by_place_and_by_id(hupan: Sandbox) -> None:
    assert list(hupan.users) == everybody()
    assert hupan.users[0].id == 7_000_001
    assert hupan.users[7_000_002].phone == "13800000002"
    assert hupan.users[-1].id == 7_000_020
    assert [one.id for one in hupan.users[1:3]] == [7_000_002, 7_000_003]
    with pytest.raises(LookupError, match="7000021 is nobody: there are 7000001 to 7000020"):
        hupan.users[7_000_021]
    with pytest.raises(IndexError):
        hupan.users[20]


def test_the_sdk_as_somebody(hupan: Sandbox) -> None:
    person = hupan.users[1]
    assert hupan.client(user=person).info().id == "7000002"
    assert hupan.client(user=7_000_002).info().is_vip == 1
    assert hupan.client(token=person.token).info().id == "7000002"
    assert hupan.client(user=7_000_002).homepage(user_id="7000001").user.user_id == "7000001"
    with pytest.raises(Refused, match="未登录"):
        hupan.client().info()
    with pytest.raises(ValueError, match="a token or a user, not both"):
        hupan.client(token=person.token, user=person)


def test_clients_are_closed_after_the_test(hupan: Sandbox) -> None:
    with hupan.clients_closed():
        client = hupan.client()
        client.captcha()
    with pytest.raises(RuntimeError, match="closed"):
        client.captcha()
    hupan.client().captcha()


def test_a_captcha_can_be_looked_up(hupan: Sandbox) -> None:
    made = hupan.client().captcha()
    assert len(hupan.captcha(made.id)) == 4
    with pytest.raises(LookupError, match="no captcha of this server has the id 'mine'"):
        hupan.captcha("mine")


# ---------------------------------------------------------------- outbox


def send(hupan: Sandbox, to: str) -> None:
    """Ask for a code as a client does."""
    client = hupan.client()
    asked = client.captcha()
    solution = hupan.captcha(asked.id)
    if "@" in to:
        client.get_email_verification_code(email=to, id=asked.id, code=solution)
    else:
        client.get_verification_code(mobile=to, id=asked.id, code=solution)


def test_letters_can_be_read(hupan: Sandbox) -> None:
    send(hupan, "13800000004")
    send(hupan, "user5@example.com")
    letter = hupan.outbox.wait_for(to="13800000004")
    assert len(letter.code) == 6
    assert letter.code in letter.text
    # A number may be written in any way.
    assert hupan.outbox.messages("+86 138 0000 0004") == [letter]
    assert hupan.outbox.wait_for(to="user5@example.com").code != letter.code
    assert [one.destination for one in hupan.outbox.messages()] == [
        "user5@example.com",
        "13800000004",
    ]
    with pytest.raises(Refused):
        # There is a wait between two codes to one number.
        send(hupan, "13800000004")


def test_each_letter_is_waited_for_once(hupan: Sandbox) -> None:
    """The second wait does not return the code of the first."""
    send(hupan, "13800000004")
    first = hupan.outbox.wait_for(to="13800000004")
    # However its address is written.
    for to in ("13800000004", "+86 138 0000 0004"):
        with pytest.raises(TimeoutError, match=r"nothing new was sent to .* within 0\.1 s"):
            hupan.outbox.wait_for(to=to, timeout=0.1)
    hupan.clock.advance(minutes=2)
    send(hupan, "13800000004")
    second = hupan.outbox.wait_for(to="13800000004")
    assert second.id > first.id
    hupan.reset()
    send(hupan, "13800000004")
    assert hupan.outbox.wait_for(to="13800000004").code == first.code


def test_waiting_for_what_comes_later(hupan: Sandbox) -> None:
    later = threading.Timer(0.1, send, (hupan, "13800000004"))
    later.start()
    assert hupan.outbox.wait_for(to="13800000004").code
    later.join()


def test_waiting_in_vain_says_what_there_is(hupan: Sandbox) -> None:
    with pytest.raises(TimeoutError, match=r"in the outbox: nothing$"):
        hupan.outbox.wait_for(to="13800000004", timeout=0)
    send(hupan, "user5@example.com")
    with pytest.raises(TimeoutError, match=r"in the outbox: email to user5@example\.com$"):
        hupan.outbox.wait_for(to="13800000004", timeout=0)


# ---------------------------------------------------------------- clock, faults, states


def test_the_clock_moves_everything(hupan: Sandbox) -> None:
    """One clock for VIP, bans, codes and sessions, which last ten years here."""
    soon = hupan.client(user=7_000_012)
    assert soon.info().is_vip == 1
    hupan.clock.advance(hours=1)
    assert soon.info().is_vip == 0
    banned = hupan.users[7_000_013]
    with pytest.raises(Refused):
        hupan.client().login_with_password(banned.email, banned.password)
    hupan.clock.advance(days=7, seconds=1)
    assert hupan.client().login_with_password(banned.email, banned.password)
    hupan.clock.freeze(hupan.clock.now() + 5)
    before = hupan.clock.now()
    hupan.clock.advance(days=3660)
    assert hupan.clock.now() == before + 3660 * 86_400
    with pytest.raises(Refused, match="未登录"):
        soon.info()


def test_faults_act_as_often_as_was_said(hupan: Sandbox) -> None:
    client = hupan.client(user=7_000_001)
    hupan.faults.add("info", "refusal", code=-5, msg="no", times=2)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            client.info()
        assert refused.value.code == -5
    assert client.info().id == "7000001"
    hupan.faults.add("*", "status", status=503)
    with pytest.raises(httpx2.HTTPStatusError):
        client.info()
    hupan.faults.clear()
    assert client.info().id == "7000001"
    assert [one.entry.fault for one in hupan.requests] == ["refusal", "refusal", "", "status", ""]


def test_an_unknown_fault_is_told(hupan: Sandbox) -> None:
    with pytest.raises(UnknownFault, match=r"there is no fault 'trunkate'.*truncate"):
        hupan.faults.add("/v1/user/info", "trunkate")
    with pytest.raises(UnknownFault, match="unknown field `time`"):
        hupan.faults.add("/v1/user/info", "truncate", time=1)


def test_states_can_be_kept_and_put_back(hupan: Sandbox) -> None:
    client = hupan.client(user=7_000_001)
    client.edit_nickname(name="kept")
    send(hupan, "13800000004")
    letter = hupan.outbox.wait_for(to="13800000004")
    hupan.snapshot("kept")
    client.edit_nickname(name="lost")
    hupan.clock.advance(days=3)
    hupan.restore("kept")
    assert client.info().name == "kept"
    assert abs(hupan.clock.now() - time.time()) < 60
    # The letter of that state can be waited for again.
    assert hupan.outbox.wait_for(to="13800000004") == letter
    with pytest.raises(NoSnapshot, match="'other'"):
        hupan.restore("other")
    for name in ("", "fresh"):
        with pytest.raises(ValueError, match="needs a name, other than 'fresh'"):
            hupan.snapshot(name)


@pytest.fixture(scope="module")
def prepared(hupan_server: Sandbox) -> Iterator[Client]:
    """A state that several tests begin with, made once."""
    hupan_server.reset()
    client = hupan_server.client(user=7_000_001)
    client.edit_nickname(name="prepared")
    hupan_server.snapshot("prepared")
    yield client
    client.http.close()


@pytest.mark.parametrize("turn", range(2))
def test_a_state_for_several_tests(hupan: Sandbox, prepared: Client, turn: int) -> None:
    """`hupan_server` is for fixtures of a wider scope; its clients and states outlast a test."""
    assert prepared.info().name == "测试用户1"
    hupan.restore("prepared")
    assert prepared.info().name == "prepared"
    hupan.client(user=7_000_001).edit_nickname(name=f"turn {turn}")


# ---------------------------------------------------------------- requests


def test_requests_are_decoded(hupan: Sandbox) -> None:
    client = hupan.client(user=7_000_001)
    client.edit_nickname(name="湖边人")
    requests.post(
        hupan.url + "/v1/user/email-login",
        json={"email": "user1@example.com", "password": "wrong", "deviceID": "d"},
        timeout=10,
    )
    requests.post(hupan.url + "/v1/msg/list-message", data=b"\x08\x01", timeout=10)
    requests.post(hupan.url + "/v1/msg/list-message", data=b"\x08\x01", timeout=10)
    first, second, third, _ = hupan.requests
    assert first.path == "/v1/user/edit-nickname"
    assert first.method == "POST"
    assert first.token == client.token
    assert first.decoded == {"name": "湖边人"}
    assert first.warnings == []
    assert first.code == 1
    assert first.answer["status"]["msg"] == "success"
    assert second.warnings
    assert "deviceID" in "".join(second.warnings)
    assert second.code not in (None, 1)
    assert second.msg == second.answer["msg"]
    assert third.code is None or third.code != 1
    assert hupan.requests.paths[2:] == ["/v1/msg/list-message"] * 2
    assert hupan.requests.unimplemented == ["/v1/msg/list-message"]
    assert len(hupan.requests) == 4
    assert [one.path for one in hupan.requests[:2]] == hupan.requests.paths[:2]
    assert hupan.requests[-1].path == "/v1/msg/list-message"
    assert '<POST /v1/user/edit-nickname {"name": "湖边人"} -> 1>' in repr(hupan.requests)


# ---------------------------------------------------------------- as an ASGI application


def test_the_asgi_application_is_the_same_server(hupan: Sandbox, hupan_asgi: Any) -> None:
    """`hupan_asgi` shares its state with what listens."""
    token = hupan.users[0].token

    async def rename(client: Any, name: str) -> Any:
        async with client:
            answer = await client.post(
                "/v1/user/edit-nickname", json={"name": name}, headers={"token": token}
            )
        return answer.json()

    old = httpx.AsyncClient(transport=httpx.ASGITransport(app=hupan_asgi), base_url=API)
    assert asyncio.run(rename(old, "by httpx"))["code"] == 1
    assert hupan.client(token=token).info().name == "by httpx"
    new = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=hupan_asgi), base_url=API)
    assert asyncio.run(rename(new, "by httpx2"))["code"] == 1
    assert hupan.client(token=token).info().name == "by httpx2"
    assert hupan.requests.paths[0] == "/v1/user/edit-nickname"


# ---------------------------------------------------------------- threads


def test_threads_share_one_server(hupan: Sandbox) -> None:
    """Writers and readers at once; every answer is of the one who asked."""
    seed = 20_260_302
    print(f"seed {seed}")
    numbers = list(range(1, 13)) * 2
    random.Random(seed).shuffle(numbers)
    wrong: list[Any] = []

    def run(number: int) -> None:
        try:
            client = hupan.client(user=7_000_000 + number)
            for turn in range(5):
                client.edit_nickname(name=f"{number} {turn}")
                found = client.info()
                if found.id != str(7_000_000 + number) or not found.name.startswith(f"{number} "):
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(hupan.requests) == len(numbers) * 10
    assert json.dumps([one.decoded for one in hupan.requests])
