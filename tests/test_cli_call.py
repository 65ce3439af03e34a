"""`hupan login`, `hupan logout` and `hupan call …`, against a sandbox in another process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hupan.cli import call
from hupan.protocol import Host, rows
from hupan.protocol.message import fields
from hupan.sandbox.people import everybody
from tests.house import Process, arguments_of, commands, describe, free_ports
from tests.house import hupan as run_hupan
from tests.test_client import Fake, fake, said, sandbox, status

__all__ = ["fake"]

PEOPLE = everybody()


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as process:
        yield process


@pytest.fixture
def hupan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, with a configuration folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*arguments: str, typed: str = "", **environment: str) -> Done:
        with monkeypatch.context() as patch:
            for name, text in environment.items():
                patch.setenv(name, text)
            done = run_hupan(*arguments, given=typed)
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(stand_in: Process, hupan: Run) -> Run:
    """The same, speaking to the sandbox."""

    def run(*arguments: str, **more: str) -> Done:
        addresses = {"HUPAN_SERVER": stand_in.url, "HUPAN_WEB_SERVER": stand_in.web_url}
        return hupan(*arguments, **{**addresses, **more})

    return run


def tokens(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "hupan" / "tokens.json").read_text())
    return found


# ---------------------------------------------------------------- the way of a user


def test_log_in_call_log_out(here: Run, stand_in: Process, tmp_path: Path) -> None:
    done = here("login", "--email", "user5@example.com", typed="password-5\n")
    assert (done.code, done.out) == (0, f"logged in at {stand_in.url} as 测试用户5\n")
    assert list(tokens(tmp_path)) == [stand_in.url]
    done = here("call", "edit-nickname", "--name", "新名")
    assert (done.code, done.out, done.err) == (0, "code  1\nmsg   success\n", "")
    assert here("call", "edit-nickname", "--name", "新名", "--json").value == {
        "code": 1, "msg": "success",
    }  # fmt: skip
    me = here("call", "info", "--json").value
    assert (me["name"], me["email"]) == ("新名", "user5@example.com")
    assert "name              新名\n" in here("call", "info").out
    done = here("logout")
    assert (done.code, done.out) == (0, f"logged out at {stand_in.url}\n")
    assert tokens(tmp_path) == {}
    done = here("call", "info")
    assert (done.code, done.out) == (1, "")
    assert done.err == "hupan: refused, code -101: 未登录 (log in with `hupan login`)\n"
    done = here("logout")
    assert (done.code, done.err) == (1, f"hupan: not logged in at {stand_in.url}\n")


def test_log_in_by_phone(
    here: Run, stand_in: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A person looks at a file and at a phone; here the sandbox tells what they would see."""
    seen: list[str] = []

    def ask(text: str) -> str:
        seen.append(text)
        if picture := re.search(r"in (\S+\.png)$", text):
            assert Path(picture[1]).read_bytes().startswith(b"\x89PNG")
            ask = httpx2.get(f"{stand_in.url}/__dev/requests").json()["requests"]
            drawn = [one for one in ask if one["row"] == "User.captcha"]
            newest = max(drawn, key=lambda one: one["id"])["answer"]["decoded"]["data"]["id"]
            found = httpx2.get(f"{stand_in.url}/__dev/captchas/{newest}").json()["solution"]
            return str(found)
        if len(seen) == 2:
            return "000000"
        letters = httpx2.get(f"{stand_in.url}/__dev/outbox?to=13800004444").json()["messages"]
        return str(letters[0]["code"])

    monkeypatch.setattr(call, "ask", ask)
    done = here("login", "--phone", "13800004444")
    assert done.code == 0, done.err
    assert seen[1:] == ["Code sent to 13800004444"] * 2
    assert re.fullmatch(r"refused: .+\n", done.err)
    assert here("call", "info", "--json").value["phone"] == "13800004444"


def test_a_login_that_nobody_answers(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input is at its end, or somebody presses Ctrl-C."""
    done = here("login", "--phone", "13800004445")
    assert (done.code, done.err) == (1, "hupan: nobody answers\n")

    def ask(text: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(call, "ask", ask)
    done = here("login", "--phone", "13800004445")
    assert (done.code, done.out, done.err) == (130, "", "")


def test_a_refused_login_is_one_line(here: Run, tmp_path: Path) -> None:
    done = here("login", "--email", "user5@example.com", typed="wrong\n")
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"hupan: refused, code -1: .+\n", done.err)
    assert not (tmp_path / "hupan").exists()
    for arguments in ((), ("--email", "a@example.com", "--phone", "1")):
        done = here("login", *arguments)
        assert (done.code, done.err) == (1, "hupan: give either --email or --phone\n")


def test_a_lent_token_is_for_one_run(here: Run, tmp_path: Path) -> None:
    """HUPAN_TOKEN counts for `call` only: login and logout are about the kept one."""
    lent = PEOPLE[1].token
    assert here("call", "info", "--json", HUPAN_TOKEN=lent).value["id"] == "7000002"
    assert not (tmp_path / "hupan").exists()
    done = here("login", "--email", "user4@example.com", typed="password-4\n", HUPAN_TOKEN=lent)
    assert done.code == 0
    assert len(tokens(tmp_path)) == 1
    assert here("call", "info", "--json", HUPAN_TOKEN=lent).value["id"] == "7000002"
    assert here("call", "info", "--json", HUPAN_TOKEN="").value["id"] == "7000004"
    assert here("logout", HUPAN_TOKEN=lent).code == 0
    assert tokens(tmp_path) == {}
    assert here("call", "info", HUPAN_TOKEN=lent).code == 0
    # What is kept may be unreadable: a lent token needs none of it.
    (tmp_path / "hupan" / "tokens.json").write_text("{")
    assert here("call", "info", HUPAN_TOKEN=lent).code == 0
    done = here("call", "info")
    assert done.code == 1
    assert "tokens.json is no file of tokens" in done.err


def test_a_token_that_died_is_forgotten_at_the_logout(
    here: Run, stand_in: Process, tmp_path: Path
) -> None:
    (tmp_path / "hupan").mkdir()
    (tmp_path / "hupan" / "tokens.json").write_text(json.dumps({stand_in.url: "dead"}))
    done = here("logout")
    assert (done.code, done.out) == (0, f"logged out at {stand_in.url}\n")
    assert tokens(tmp_path) == {}


def test_the_server_may_be_an_option(hupan: Run, stand_in: Process) -> None:
    done = hupan("call", "configure-distribution", "--json", "--server", stand_in.url)
    assert set(done.value) == {
        "audioUrl", "fileUrl", "imageUrl", "serverUrl", "shareUrl", "videoUrl", "websocketUrl",
    }  # fmt: skip
    done = hupan(
        "call", "homepage", "--user-id", "7000001", "--server", stand_in.url,
        "--web-server", stand_in.web_url, "--json",
    )  # fmt: skip
    assert done.value["user"]["nickname"] == "测试用户1"


# ---------------------------------------------------------------- every row


@pytest.mark.parametrize("row", rows(), ids=describe)
def test_the_options_are_the_fields_of_the_row(row: Any) -> None:
    """Issue 3: options read from the row; secrets and the token are never arguments."""
    name = row.name.replace("_", "-")
    (command,) = [one for one in commands() if one.prog == f"hupan call {name}"]
    found = arguments_of(command)
    own = {"--" + one.name.replace("_", "-"): one for one in fields(row.request)}
    wanted = {option for option, one in own.items() if one.name not in call.SECRETS}
    common = {"--server", "--json"} | ({"--web-server"} if row.host is Host.WEB else set())
    assert set(found) == wanted | common
    assert not own.keys() & {"--server", "--web-server", "--json", "--help"}
    for option in wanted:
        assert found[option].default == own[option].default
    for word in ("--password", "--token"):
        assert word not in found


def test_every_row_of_a_read_can_be_called(here: Run) -> None:
    for row in rows():
        if not row.safe:
            continue
        name = row.name.replace("_", "-")
        given = [
            f"--{one.name.replace('_', '-')}=7000001"
            for one in fields(row.request)
            if one.type is str and one.name != "category"
        ]
        done = here("call", name, *given, HUPAN_TOKEN=PEOPLE[1].token)
        assert (done.code, done.err) == (0, ""), describe(row)


def test_passwords_come_from_a_pipe(here: Run) -> None:
    done = here("call", "email-login", "--email", "user6@example.com", "--json", typed="password-6")
    assert re.fullmatch(r"[\w-]{31}", done.value["token"])
    done = here("call", "email-login", "--email", "user6@example.com", typed="\n")
    assert done.code == 1
    for row in ("email-login", "forget-password"):
        done = here("call", row, "--password", "x")
        assert done.code == 2
        assert "--password" in done.err


def test_passwords_are_asked_for_without_being_shown(stand_in: Process, tmp_path: Path) -> None:
    """On a terminal: a real one, as far as the program can tell."""
    program = Path(sys.executable).parent / "hupan"
    ours, theirs = pty.openpty()
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "HUPAN_SERVER": stand_in.url}
    with subprocess.Popen(
        [program, "login", "--email", "user7@example.com"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            shown = _read_until(ours, b"Password: ")
            os.write(ours, b"password-7\n")
            shown += _read_until(ours, b"logged in at")
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(ours)
    assert b"password-7" not in shown
    assert list(tokens(tmp_path)) == [stand_in.url]


def _read_until(terminal: int, wanted: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 20
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, f"{wanted!r} never came, but {shown!r}"
        shown += os.read(terminal, 4096)
    return shown


# ---------------------------------------------------------------- what people see


def test_lists_are_tables(here: Run) -> None:
    lent = PEOPLE[0].token
    lines = here("call", "recommend-category-list", HUPAN_TOKEN=lent).out.splitlines()
    assert lines[:2] == ["精选", "粉丝群"]
    lines = here("call", "recommend-list", "--size", "2", HUPAN_TOKEN=lent).out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1000001  0  精选群 1  ")
    out = here("call", "gold-coin-increase-decrease-record", "--size", "2", HUPAN_TOKEN=lent).out
    assert re.fullmatch(
        r"goldCoinRecord\.1  \d+  7000001  .*\ngoldCoinRecord\.2  .*\ntotal +45\n", out
    )
    out = here("call", "get-user", "--id", "7000001", HUPAN_TOKEN=lent).out
    assert re.search(r"^medal\.1 +\d+  内测用户  10$", out, re.MULTILINE)
    assert re.search(r"^profile_info\.gender +3$", out, re.MULTILINE)
    assert here("call", "recommend-list", "--keyword", "nowhere", HUPAN_TOKEN=lent).out == ""
    empty = here("call", "recommend-list", "--keyword", "nowhere", "--json", HUPAN_TOKEN=lent)
    assert empty.value == {"groupList": []}


def test_a_server_does_not_steer_the_terminal(hupan: Run, fake: Fake) -> None:
    fake.says["/v1/user/recommend-category-list"] = [said(categories=["\x1b[2J\n\u202ea", "ok"])]
    done = hupan("call", "recommend-category-list", HUPAN_SERVER=fake.url)
    assert done.out == "\\x1b[2J\\n\\u202ea\nok\n"
    fake.says["/v1/user/info"] = [status(5, "no\nway\x1b[31m")]
    done = hupan("call", "info", HUPAN_SERVER=fake.url)
    assert done.err == "hupan: refused, code 5: no\\nway\\x1b[31m\n"


# ---------------------------------------------------------------- bad use and bad weather


def test_a_refusal_is_one_line_and_exit_code_1(here: Run, hupan: Run, fake: Fake) -> None:
    for as_json in ((), ("--json",)):
        done = here("call", "edit-nickname", "--name", "", *as_json, HUPAN_TOKEN=PEOPLE[2].token)
        assert (done.code, done.out) == (1, "")
        assert done.err == "hupan: refused, code -1: 昵称需要 1 到 32 个字符\n"
    later = (200, {"retry-after": "7"}, b'{"code":-1,"msg":"later"}')
    fake.says["/v1/user/recommend"] = [later]
    done = hupan("call", "recommend", HUPAN_SERVER=fake.url)
    assert done.err == "hupan: refused, code -1: later (retry after 7 s)\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((502, {}, b"<html></html>"), r".*/v1/user/recommend answered HTTP 502"),
        ((200, {"content-type": "text/html"}, b"<html>\n"), ".*was not answered as the protocol.*"),
        (b"", ".*nothing at all.*"),
        ((302, {"location": "/"}, b""), ".*/v1/user/recommend answered HTTP 302"),
        ((200, {"content-encoding": "gzip"}, b"no gzip"), ".*Error -3 while decompressing.*"),
    ],
)
def test_what_is_no_answer_is_one_line(hupan: Run, fake: Fake, answer: Any, words: str) -> None:
    fake.says["/v1/user/recommend"] = [answer]
    done = hupan("call", "recommend", HUPAN_SERVER=fake.url)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"hupan: {words}\n", done.err)


def test_an_address_that_is_none(hupan: Run) -> None:
    (port,) = free_ports(1)
    done = hupan("call", "edit-nickname", "--name", "x", HUPAN_SERVER=f"http://127.0.0.1:{port}")
    assert done.code == 1
    assert re.fullmatch(
        rf"hupan: http://127\.0\.0\.1:{port} cannot be reached: ConnectError .+\n", done.err
    )
    for url in ("127.0.0.1:8790", "ftp://127.0.0.1", "http://[::1", ""):
        done = hupan("call", "recommend", HUPAN_SERVER=url or "x")
        assert done.code == 1, url
        assert re.fullmatch(r"hupan: [^\n]+\n", done.err), url


def test_bad_use_is_told(here: Run) -> None:
    assert here("call", "recommend-list", "--page", "x").code == 2
    assert here("call", "recommend-list", "--pages", "1").code == 2
    assert here("call", "no-such-row").code == 2
    done = here("call", "recommend-list", "--page", "9" * 30, HUPAN_TOKEN=PEOPLE[2].token)
    assert done.code == 1
    assert re.fullmatch(r"hupan: [^\n]+\n", done.err)
    done = here("call")
    assert "edit-nickname" in done.out + done.err
