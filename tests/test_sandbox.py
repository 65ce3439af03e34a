"""`hupan dev` as a client's author meets it: a real process, its fixed people, its look-ups."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hupan.client import Client, Refused
from hupan.sandbox.stand import Stand
from hupan.settings import SettingsError, load
from tests.house import free_ports, shaped_like_token

HUPAN = str(Path(sys.executable).parent / "hupan")
DAY = 86_400
#: Seconds from the start to the first answer.
BUDGET = 2.0

DEAD = (-101, "未登录")

#: Imported by every Python that has it on its path: writes down whom the process connects to.
WATCH = """
import os, sys

def watch(event, arguments):
    if event == "socket.connect":
        told = repr(arguments[1])
    elif event == "socket.getaddrinfo":
        told = repr(arguments[:2])
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(told + "\\n")

sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Shown:
    """One of the people, as the terminal shows them."""

    id: str
    phone: str
    email: str
    password: str
    token: str


@dataclass
class Dev:
    """A running `hupan dev`."""

    process: subprocess.Popen[bytes]
    url: str
    web_url: str
    folder: Path
    work: float = 0.0

    @property
    def said(self) -> str:
        return (self.folder / "stdout").read_text("utf-8")

    @property
    def people(self) -> dict[int, Shown]:
        """The table of people in the terminal, by number."""
        row = re.compile(
            r"^ +(70000\d\d)  (\d{11}| {11})  (\S+@\S+|) +(password-\d+) +(\w{8}-\S{22})\b",
            re.MULTILINE,
        )
        return {
            int(found[1]) - 7_000_000: Shown(*(part.strip() for part in found.groups()))
            for found in row.finditer(self.said)
        }

    def client(self, token: str = "") -> Client:
        return Client(self.url, web_url=self.web_url, token=token)

    def get(self, path: str, **query: str) -> Any:
        answer = httpx2.get(self.url + path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def messages(self, to: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/__dev/outbox", to=to)["messages"]
        return found

    def ask_code(self, to: str) -> None:
        """Ask for a code, with the captcha looked up."""
        with self.client() as client:
            captcha = client.captcha().id
            looked_up = self.get(f"/__dev/captchas/{captcha}")
            assert looked_up["id"] == captcha
            solution = looked_up["solution"]
            if "@" in to:
                client.get_email_verification_code(email=to, id=captcha, code=solution)
            else:
                client.get_verification_code(mobile=to, id=captcha, code=solution)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def developing(folder: Path, *flags: str, **more: str) -> Iterator[Dev]:
    """A sandbox, and how long it took to its first answer."""
    for name in ("tmp", "watch"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    outside = {name: text for name, text in os.environ.items() if not name.startswith("HUPAN_")}
    watched = {"PYTHONPATH": str(folder / "watch"), "WATCHED": str(folder / "watched")}
    port, web_port = free_ports(2)
    addresses = ["--port", str(port), "--web-port", str(web_port)]
    started = time.monotonic()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [HUPAN, "dev", *addresses, *flags], cwd=folder, stdout=out, stderr=err,
            env=outside | watched | {"TMPDIR": str(folder / "tmp")} | more,
        )  # fmt: skip
    dev = Dev(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}", folder)
    try:
        while time.monotonic() < started + 30:
            assert process.poll() is None, (folder / "stderr").read_text()
            try:
                httpx2.get(dev.url + "/v1/misc/configure-distribution").raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.02)
        # Fields 14 and 15 are the processor's ticks, for the process and for the kernel.
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        dev.work = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        seconds = time.monotonic() - started
        print(f"hupan dev: {seconds:.2f} s to the first answer, {dev.work:.2f} s of them work")
        # The people are shown once both hosts listen.
        while len(dev.people) < 20 and time.monotonic() < started + 30:
            time.sleep(0.02)
        yield dev
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One sandbox for every test that leaves its people as they are."""
    with developing(tmp_path_factory.mktemp("dev")) as running:
        yield running


def refusal_of(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        call(**arguments)
    return refused.value.code, refused.value.msg


def login(dev: Dev, who: Shown) -> str:
    """Log in with the shown password."""
    with dev.client() as client:
        return client.email_login(email=who.email, password=who.password, platform="test").token


# ---------------------------------------------------------------- the fixed people


def test_it_answers_at_once(dev: Dev, tmp_path: Path) -> None:
    """Budget: two seconds to the first answer; its own work, since the machine may be busy.

    The same work takes twice as long at times on a machine that others share, so the best of three.
    """
    work = [dev.work]
    while min(work) >= BUDGET and len(work) < 3:
        (tmp_path / str(len(work))).mkdir()
        with developing(tmp_path / str(len(work))) as again:
            work.append(again.work)
    assert min(work) < BUDGET


def test_twenty_people_are_shown_with_all_one_needs(dev: Dev) -> None:
    """Ids, numbers, addresses and passwords are the same in every start."""
    shown = dev.people
    assert sorted(shown) == list(range(1, 21))
    for number, who in shown.items():
        assert who.id == str(7_000_000 + number)
        assert who.phone == ("" if number == 15 else f"138000000{number:02}")
        assert who.email == ("" if number == 14 else f"user{number}@example.com")
        assert who.password == f"password-{number}"
        assert shaped_like_token(who.token)
    assert len({who.token for who in shown.values()}) == 20
    for address in (dev.url, dev.web_url):
        assert address in dev.said


@pytest.mark.parametrize("number", [*range(1, 13), 14, 15, *range(17, 21)])
def test_a_person_is_who_they_are_shown_to_be(dev: Dev, number: int) -> None:
    """Over the wire, with the shown token and with a login of one's own."""
    who = dev.people[number]
    with dev.client(who.token) as me:
        info = me.info()
        assert (info.id, info.phone, info.email) == (who.id, who.phone, who.email)
        seen: Any = me.get_user(id=who.id)
        now = time.time()
        medals, records = me.medal().medal, me.gold_coin_increase_decrease_record(size=100)
        assert seen.ban_time == 0
        assert seen.register_time.startswith("2024-01-")
        if who.email:
            with dev.client(login(dev, who)) as again:
                assert again.info().id == who.id
        # Medals and coins are the first one's.
        assert bool(medals) == (number == 1)
        assert (records.total >= 40) == (number == 1)
        if number == 1:
            assert [one.sort for one in medals] == sorted(one.sort for one in medals)
            assert len({one.typ for one in records.gold_coin_record}) >= 3
            assert records.gold_coin_record[0].after_amount == info.coin > 0
        left = info.vip_expired_time - now
        assert info.is_vip == (number in (2, 12))
        if number == 2:
            assert left > 2 * 365 * DAY
        elif number == 11:
            assert -30 * DAY < left < 0
        elif number == 12:
            assert 0 < left <= 3600
        else:
            assert info.vip_expired_time == 0
        advert = me.get_user_show_adv()
        assert advert.is_show == (0 if info.is_vip else 1)
        if number < 17:
            assert len(info.name) < 17
            return
        assert 20 <= len(info.name) <= 32
        data = me.get_user_data().data
        assert all((data.introduction, data.gender, data.birthday, data.location_code))
        assert all((data.province, data.city, data.district, data.update_time))
        assert "\n" in data.introduction
        profile = seen.profile_info
        assert all((profile.introduction, profile.city, profile.district, profile.address))
        devices = me.clients().clients
        assert len({one.device_id for one in devices}) >= 5
        assert len({one.platform for one in devices}) >= 5
        for friend in {17, 18, 19, 20} - {number}:
            about: Any = me.get_user(id=str(7_000_000 + friend)).remark_info
            assert about.remark_name
            assert about.phone_number
            assert json.loads(about.extra_remark)


def test_who_has_no_address_logs_in_by_phone(dev: Dev) -> None:
    """14: the code stands in the outbox, the captcha's solution is looked up."""
    who = dev.people[14]
    dev.ask_code(who.phone)
    (message,) = dev.messages(who.phone)
    with dev.client() as client:
        token = client.verification_login(mobile=who.phone, captcha=message["code"]).token
    with dev.client(token) as me:
        assert (me.info().id, me.info().email) == (who.id, "")


def test_who_is_banned_or_gone_cannot_come_in(dev: Dev) -> None:
    """13 is banned for a week, 16 was deleted; both tokens are dead ones to have at hand."""
    banned, gone = dev.people[13], dev.people[16]
    with dev.client() as client:
        for who in (banned, gone):
            client.token = who.token
            assert refusal_of(client.info) == DEAD
        client.token = ""
        code, text = refusal_of(client.email_login, email=banned.email, password=banned.password)
        assert code == -1
        assert text.startswith("账号已被封禁，解封时间：20")
        assert refusal_of(client.email_login, email=gone.email, password=gone.password) == (
            -1, "邮箱或密码错误",
        )  # fmt: skip
        client.token = "anybody"
        left = client.get_user(id=banned.id).ban_time - time.time()
        assert 6 * DAY < left <= 7 * DAY
        assert refusal_of(client.get_user, id=gone.id) == (-1, "该用户不存在")


def test_discovery_has_something_of_everything(dev: Dev) -> None:
    """Groups in every category, one of them banned and so not to be found; bots."""
    with dev.client(dev.people[3].token) as me:
        categories = me.recommend_category_list().categories
        assert len(categories) == 7
        found = 0
        for name in categories:
            groups = me.recommend_list(category=name, size=100).group_list
            assert groups, name
            found += len(groups)
        assert len(me.recommend_list(size=100).group_list) == found
        assert me.recommend_list(keyword="封禁").group_list == []
        assert len(me.recommend().bot_list) >= 3


# ---------------------------------------------------------------- the look-ups


def test_the_outbox_shows_the_newest_first(dev: Dev) -> None:
    """By destination, however it is written; each message with its code and its text."""
    who = dev.people[10]
    dev.ask_code(who.phone)
    dev.ask_code("13800000090")
    (code,) = dev.messages(who.phone)
    (new,) = dev.messages("13800000090")
    assert set(code) >= {"id", "channel", "to", "purpose", "code", "text", "at"}
    assert (code["channel"], code["to"], code["purpose"]) == ("sms", who.phone, "code")
    assert re.fullmatch(r"\d{6}", code["code"])
    assert code["code"] in code["text"]
    assert abs(code["at"] - time.time()) < 60
    with dev.client(who.token) as me:
        me.change_phone(phone="13800000090", captcha=new["code"])
    told = dev.messages(who.phone)
    assert [message["purpose"] for message in told] == ["phone-changed", "code"]
    assert [message["id"] for message in told] == sorted(
        (message["id"] for message in told), reverse=True
    )
    assert told[0]["code"] == ""
    assert dev.messages("+86 138 0000 0010") == told
    everything = dev.get("/__dev/outbox")["messages"]
    assert [message for message in everything if message["to"] == who.phone] == told
    assert dev.messages("13800000091") == []
    dev.ask_code("User9@Example.com")
    assert [message["to"] for message in dev.messages("USER9@example.com")] == ["user9@example.com"]
    # The terminal shows them as well.
    assert code["text"] in dev.said


def test_a_captcha_of_nobody_is_not_found(dev: Dev) -> None:
    """A look-up that finds nothing says so."""
    for captcha in ("x", "0-0-0", "a" * 200):
        assert httpx2.get(f"{dev.url}/__dev/captchas/{captcha}").status_code == 404


def test_limits_per_source_are_off(dev: Dev) -> None:
    """Whoever tests a client asks for many codes in a minute."""
    for number in range(92, 99):
        dev.ask_code(f"138000000{number}")
    with dev.client() as client:
        for _ in range(3):
            assert refusal_of(client.email_login, email="user8@example.com", password="x")[0] == -1
        assert login(dev, dev.people[8])


def test_it_connects_to_nobody(dev: Dev) -> None:
    """A sandbox calls nobody outside this machine; this comes after the tests that use it."""
    watched = (dev.folder / "watched").read_text().splitlines()
    # It tries its own ports, so that an empty list would mean a watch that sleeps.
    assert watched
    for line in watched:
        assert re.search(r"'(127\.0\.0\.1|::1|localhost)'", line), line


# ---------------------------------------------------------------- how it is started


def test_limits_and_nothing_of_the_surroundings(tmp_path: Path) -> None:
    """`--limits` bounds a source as production does; production's own data stay untouched."""
    (tmp_path / "hupan.toml").write_text('smtp_host = "mail.example.org"\nworkers = 2\n')
    production = tmp_path / "production.db"
    surroundings = {
        "HUPAN_DATABASE_URL": f"sqlite:///{production}",
        "HUPAN_DELIVER_EMAIL": "smtp",
        "HUPAN_SMTP_FROM": "a@example.org",
    }
    with developing(tmp_path, "--limits", **surroundings) as dev:
        for number in range(92, 97):
            dev.ask_code(f"138000000{number}")
        code, text = refusal_of(dev.ask_code, to="13800000097")
        assert code == -1
        assert text.startswith("请求过于频繁")
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        assert not production.exists()
        # Ctrl-C is how it is stopped; what it kept for itself goes with it.
        assert dev.stop(signal.SIGINT) == 0
        assert list((tmp_path / "tmp").iterdir()) == []
        assert "Traceback" not in (tmp_path / "stderr").read_text()
        assert "mail.example.org" not in (tmp_path / "watched").read_text()
    assert not production.exists()


@pytest.mark.parametrize(
    "left",
    [
        "hupan.db",
        "secret.key",
    ],
)
def test_the_data_of_a_real_server_are_not_touched(tmp_path: Path, left: str) -> None:
    """A sandbox neither moves in there nor leaves the mark that would keep the server out."""
    (tmp_path / left).write_bytes(b"")

    def move_in() -> None:
        Stand(load(data_dir=tmp_path)).database.close()

    with pytest.raises(SettingsError, match="holds the data of a real server"):
        move_in()
    assert {path.name for path in tmp_path.iterdir()} == {left}


def test_data_that_is_kept_is_there_again(tmp_path: Path) -> None:
    """`--data`: the same people, what they did, and what they were told."""
    kept = tmp_path / "kept"
    with developing(tmp_path, "--data", str(kept)) as dev:
        who = dev.people[3]
        token = login(dev, who)
        with dev.client(token) as me:
            me.edit_nickname(name="留下")
            coin = me.info().coin
        dev.ask_code(who.phone)
        told = dev.messages(who.phone)
        assert dev.stop() == 0
    assert (kept / "hupan.db").is_file()
    with developing(tmp_path, "--data", str(kept)) as dev:
        assert dev.people[3] == who
        for live in (token, who.token):
            with dev.client(live) as me:
                assert (me.info().name, me.info().coin) == ("留下", coin)
        assert dev.messages(who.phone) == told
        with dev.client() as client:
            assert client.verification_login(mobile=who.phone, captcha=told[0]["code"]).token
        with dev.client(dev.people[16].token) as gone:
            assert refusal_of(gone.info) == DEAD
        assert dev.stop() == 0
    # No production server opens it, for its passwords are known to everybody.
    done = subprocess.run(
        [HUPAN, "serve", "--data", str(kept)], capture_output=True, text=True, check=False,
        cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "holds a sandbox" in done.stderr
