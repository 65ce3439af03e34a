"""The command line: every command, what it prints, and how it says that something is wrong."""

from __future__ import annotations

import getpass
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, text

from hupan import __version__
from hupan.accounts import people
from hupan.accounts.tables import account, audit
from hupan.cli import common
from hupan.client import Client, Refused
from hupan.migrations import HEAD
from hupan.protocol import rows
from tests.house import House, Process, commands, hupan

HUPAN = str(Path(sys.executable).parent / "hupan")
DAY = 86_400


class Cli:
    """`hupan`, run in this process."""

    def invoke(self, *arguments: object, given: str = "") -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        done = hupan(*arguments, given=given)
        return done.exit_code, done.stdout, done.stderr

    def __call__(self, *arguments: object, given: str = "") -> str:
        """What a command prints that must succeed."""
        code, out, err = self.invoke(*arguments, given=given)
        assert (code, err) == (0, ""), err
        return out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def fails(self, *arguments: object, given: str = "") -> str:
        """The one line of a command that must not succeed."""
        code, out, err = self.invoke(*arguments, given=given)
        assert code == 1, (out, err)
        assert err.startswith("hupan: "), err
        assert err.count("\n") == 1, err
        assert out == ""
        return err.removeprefix("hupan: ").strip()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line in an empty folder, with no settings but those of a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HUPAN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HUPAN_ARGON2_MEMORY_KIB", "8")
    monkeypatch.setenv("HUPAN_ARGON2_TIME", "1")
    return Cli()


@pytest.fixture
def cli(outside: Cli, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line on a migrated database, with the key that the houses of the tests have."""
    monkeypatch.setenv("HUPAN_DATABASE_URL", database_url)
    (tmp_path / "secret.key").write_text((b"k" * 32).hex())
    return outside


@pytest.fixture
def now(house: House) -> House:
    """A server in this process, whose clock shows what the command line's shows."""
    house.clock.time = int(time.time())
    return house


def notes(house: House, action: str) -> list[Any]:
    with house.rules() as ctx:
        rows_ = ctx.tx.all(select(audit).where(audit.c.action == action).order_by(audit.c.seq))
    return list(rows_)


# ---------------------------------------------------------------- about itself


def test_every_command_has_help(outside: Cli) -> None:
    """Each says what it does in a sentence, and each option what it means."""
    every = [tuple(one.prog.split()[1:]) for one in commands()]
    assert {path[0] for path in every if path} >= {
        "serve", "dev", "migrate", "protocol", "login", "logout", "call", "user", "coins", "audit",
    }  # fmt: skip
    assert len([path for path in every if path[:1] == ("call",)]) == 1 + len(rows())
    for path in every:
        out = outside(*path, "--help")
        assert "usage: " in out
        assert re.search(r"[.!]\s*\n", out), path
    # A group without a command shows the same instead of nothing.
    for group in ((), ("user",), ("coins",), ("audit",), ("call",)):
        code, out, err = outside.invoke(*group)
        assert code == 2
        assert "usage: " in out + err
    assert outside("--version") == f"hupan {__version__}\n"


def test_help_is_quick() -> None:
    """Sandbox: `hupan --help` under 0.3 s; processor time, since the machine may be busy."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([HUPAN, "--help"], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"hupan --help: {min(took):.2f} s of processor time")
    assert min(took) < 0.3


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("hupan", "srve", "no such command: srve; did you mean serve?"),
        ("hupan", "--nothing", "no such option: --nothing"),
        ("hupan user", "bann", "no such command: bann; did you mean ban or unban?"),
        ("hupan call", "infos", "no such command: infos; did you mean info or web-info?"),
        ("hupan user show", "", "the following arguments are required: WHO"),
        ("hupan user show", "1 2", "one argument too many: 2"),
        ("hupan user list", "--limi=3", "no such option: --limi=3; did you mean --limit?"),
        ("hupan user list", "--limit x", "argument --limit: invalid number value: 'x'"),
        ("hupan user list", "--limit 0", "argument --limit: 0 is not between 1 and 10000"),
    ],
)
def test_a_slip_is_told_where_it_was_made(
    outside: Cli, command: str, words: str, told: str
) -> None:
    """With the usage and with what may have been meant; options are not abbreviated."""
    code, out, err = outside.invoke(*command.split()[1:], *words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"usage: {command} ")
    assert err.endswith(f"\n{command}: error: {told}\n")


def test_who_reads_may_have_read_enough(outside: Cli) -> None:
    """As in `hupan protocol | head`: nothing is said of the pipe."""
    with subprocess.Popen(
        [HUPAN, "protocol", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_secret_may_be_asked_for_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is typed alike, for nobody sees it; what is empty is asked for again."""
    typed = iter(["one", "other", "", "two", "two"])
    asked: list[str] = []

    def getpass_(prompt: str) -> str:
        asked.append(prompt)
        return next(typed)

    monkeypatch.setattr(getpass, "getpass", getpass_)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert common.secret("New password", twice=True) == "two"
    assert asked == [
        "New password: ", "Once more: ", "New password: ", "New password: ", "Once more: "
    ]  # fmt: skip
    assert capsys.readouterr().err == "these are not the same\n"


# ---------------------------------------------------------------- people


def test_an_operator_opens_accounts(cli: Cli, now: House) -> None:
    """With an address comes a one-time link, which sets the first password on the web host."""
    plain = cli.json("user", "create", "--phone", "+86 139 1234 5678", "--name", " 名\u202e字 ")
    assert plain == {"id": "1000001"}
    both = cli.json("user", "create", "--phone", "13912345679", "--email", "Me@Example.ORG")
    assert set(both) == {"id", "setup_link"}
    text_of = cli("user", "create", "--email", "other@example.org")
    assert re.search(r"^id +1000003\nsetup_link  http://\S+/account/link#\S+\n$", text_of)
    assert cli.json("user", "show", "1000001")["name"] == "名字"

    secret = both["setup_link"].partition("#")[2]
    assert both["setup_link"].startswith("http://127.0.0.1:8791/account/link#")
    opened = now.web.post("/account/link", json={"secret": secret, "password": "a password of me"})
    assert opened.json()["code"] == 1
    token = now.client().email_login(email="me@example.org", password="a password of me").token
    assert now.client(token).info().id == both["id"]
    again = now.web.post("/account/link", json={"secret": secret, "password": "another password"})
    assert again.json()["code"] == -1

    assert cli.fails("user", "create") == "give --phone or --email"
    assert cli.fails("user", "create", "--phone", "12345") == "手机号格式不正确"
    assert cli.fails("user", "create", "--email", "nobody") == "邮箱格式不正确"
    assert cli.fails("user", "create", "--phone", "139-1234-5678") == "该手机号已被其他账号绑定"
    taken = cli.fails("user", "create", "--phone", "13900000009", "--email", "ME@example.org")
    assert taken == "该邮箱已被其他账号绑定"
    with now.rules() as ctx:
        assert people.by_phone(ctx, "13900000009") is None
    opened_by = {(note.actor, note.source) for note in notes(now, "account-opened")}
    assert opened_by == {(f"operator:{getpass.getuser()}", "")}


def test_an_account_is_shown_by_id_number_or_address(cli: Cli, now: House) -> None:
    """The same account whichever way it is named; nothing secret is shown."""
    mine = now.person(password="a password of mine")
    me = now.client(now.token(mine))
    me.edit_nickname(name="展示")
    shown = cli.json("user", "show", mine)
    local = now.world.local_text(now.clock.time)
    assert shown == {
        "id": str(mine), "name": "展示", "phone": "13900000001", "email": "person1@example.org",
        "has_password": True, "registered": local, "last_seen": local, "vip_until": "",
        "banned_until": "", "ban_reason": "", "coins": "1.00", "medals": "",
        "invite_code": me.info().invitation_code,
    }  # fmt: skip
    for name in ("13900000001", "+86 13900000001", "Person1@example.org"):
        assert cli.json("user", "show", name) == shown
    told = cli("user", "show", mine)
    assert re.search(r"^phone +13900000001$", told, re.MULTILINE)
    assert "argon2" not in told
    for nobody in ("1000009", "0", "x", "13900000009", "nobody@example.org", "", "@", "-1"):
        assert cli.fails("user", "show", "--", nobody) == "该用户不存在"


def test_accounts_are_listed_and_searched(cli: Cli, house: House) -> None:
    """In the order of their ids, page by page; a keyword is literal."""
    for number in range(1, 6):
        house.person(number, email=number % 2 == 1)
    with house.rules() as ctx:
        ctx.tx.run(account.update().where(account.c.id == 1_000_002).values(name="100%_x"))
    everybody = cli.json("user", "list")
    assert [one["id"] for one in everybody] == [str(1_000_000 + number) for number in range(1, 6)]
    assert everybody[0] == {
        "id": "1000001", "phone": "13900000001", "email": "person1@example.org", "name": "人1",
    }  # fmt: skip
    assert cli("user", "list", "--limit", 1) == ("1000001  13900000001  person1@example.org  人1\n")
    assert "1000002  13900000002  -  100%_x\n" in cli("user", "list")
    page = cli.json("user", "list", "--limit", 2, "--after", 1_000_002)
    assert [one["id"] for one in page] == ["1000003", "1000004"]
    for search, found in (("%", [2]), ("_", [2]), ("人", [1, 3, 4, 5]), ("person3@", [3]),
                          ("00000005", [5]), ("nobody", [])):  # fmt: skip
        ids = [int(one["id"]) - 1_000_000 for one in cli.json("user", "list", "--search", search)]
        assert ids == found
    assert cli("user", "list", "--search", "nobody") == ""
    assert cli.invoke("user", "list", "--limit", "0")[0] == 2


def test_a_search_does_not_tell_capitals_apart(cli: Cli, house: House) -> None:
    """An address is kept in small letters and pasted as its owner writes it, on either database."""
    house.person(3)
    assert [one["id"] for one in cli.json("user", "list", "--search", "Person3@Ex")] == ["1000001"]


def test_bans_end_when_they_are_told_to(cli: Cli, now: House) -> None:
    """For a span, until a moment in the zone, or for good; its sessions end at once."""
    mine = now.person(password="a password of mine")
    token = now.token(mine)

    def until() -> int:
        with now.rules() as ctx:
            return people.get(ctx, mine).banned_until

    assert cli("user", "ban", mine, "--for", "7d", "--reason", "垃圾信息") == f"banned {mine}\n"
    assert abs(until() - time.time() - 7 * DAY) < 60
    with pytest.raises(Refused):
        now.client(token).info()
    shown = cli.json("user", "show", mine)
    assert shown["ban_reason"] == "垃圾信息"
    assert shown["banned_until"] == now.world.local_text(until())
    for span, seconds in (("30s", 30), ("5m", 300), ("12h", 43_200), ("2w", 14 * DAY),
                          ("1y", 365 * DAY)):  # fmt: skip
        cli("user", "ban", mine, "--for", span)
        assert abs(until() - time.time() - seconds) < 60
    cli("user", "ban", mine, "--until", "2999-01-01 08:00")
    assert now.world.local_text(until()) == "2999-01-01 08:00:00"
    cli("user", "ban", mine, "--until", "2999-01-01T00:00:00+00:00")
    assert now.world.local_text(until()) == "2999-01-01 08:00:00"
    cli("user", "ban", "13900000001")
    assert until() == people.FOREVER
    assert cli("user", "unban", mine) == f"unbanned {mine}\n"
    assert until() == 0
    assert cli.json("user", "show", mine)["banned_until"] == ""
    now.client().email_login(email="person1@example.org", password="a password of mine")

    assert cli.fails("user", "ban", mine, "--for", "1d", "--until", "2999-01-01") == (
        "give either --for or --until"
    )
    for span in ("soon", "7", "d", "-1d", "1.5d"):
        assert "is no span of time" in cli.fails("user", "ban", mine, "--for", span)
    for moment in ("soon", "2026-13-01", "25:00"):
        assert "is no moment" in cli.fails("user", "ban", mine, "--until", moment)
    for span in ("9999y", "99999999999999999999y"):
        cli.fails("user", "ban", mine, "--for", span)
    assert until() == 0
    assert cli.fails("user", "ban", "7000009") == "该用户不存在"
    assert cli.fails("user", "unban", "7000009") == "该用户不存在"
    banned = notes(now, "banned")
    assert {note.actor for note in banned} == {f"operator:{getpass.getuser()}"}
    assert json.loads(banned[0].detail)["reason"] == "垃圾信息"
    assert len(notes(now, "unbanned")) == 1


def test_who_is_banned_for_good_can_be_shown(cli: Cli, house: House) -> None:
    """For good is a moment, too, which no zone may push out of the calendar."""
    mine = house.person()
    cli("user", "ban", mine)
    assert cli.json("user", "show", mine)["banned_until"]


def test_vip_is_given_and_ended(cli: Cli, now: House) -> None:
    """The moment is printed as the zone writes it."""
    mine = now.person()
    me = now.client(now.token(mine))
    assert cli("user", "vip", mine, "--until", "2999-12-31") == (
        f"vip {mine}: 2999-12-31 00:00:00\n"
    )
    assert me.info().is_vip == 1
    assert cli("user", "vip", mine, "--end") == f"vip {mine}: ended\n"
    assert (me.info().is_vip, me.info().vip_expired_time) == (0, 0)
    cli("user", "vip", mine, "--for", "1y")
    assert abs(me.info().vip_expired_time - time.time() - 365 * DAY) < 60
    assert cli.fails("user", "vip", mine) == "give --for, --until or --end"
    cli.fails("user", "vip", mine, "--for", "999999y")
    assert me.info().is_vip == 1
    assert [json.loads(note.detail)["until"] for note in notes(now, "vip")][1] == 0
    assert {note.actor for note in notes(now, "vip")} == {f"operator:{getpass.getuser()}"}


def test_coins_are_added_and_taken(cli: Cli, now: House) -> None:
    """In coins with two decimals; a key posts once; no balance goes below nothing."""
    mine = now.person()
    me = now.client(now.token(mine))
    told = cli.json("user", "coin", mine, "12.34", "--reason", "活动")
    assert told["coins"] == "12.34"
    assert cli("user", "coin", mine, "-2.3").endswith("coins    10.04\n")
    assert cli.json("user", "coin", mine, "+1")["coins"] == "11.04"
    first = cli.json("user", "coin", mine, "5", "--key", "k1")
    assert cli.json("user", "coin", mine, "5", "--key", "k1") == first
    assert first["coins"] == "16.04"
    assert cli.fails("user", "coin", mine, "6", "--key", "k1") == (
        "同一幂等键不能用于不同的金币操作"
    )
    assert cli.fails("user", "coin", mine, "-16.05") == "金币不足"
    for amount in ("x", "1.234", "NaN", "Infinity", "", "1,5", "0x10", "1e-3"):
        assert "is no amount of coins" in cli.fails("user", "coin", mine, "--", amount)
    for amount in ("0", "0.00", "1e30", "-1e30", "10000000000.01"):
        assert cli.fails("user", "coin", mine, amount) == "金币数量不正确"
    assert cli.fails("user", "coin", "7000009", "1") == "该用户不存在"
    records = me.gold_coin_increase_decrease_record(size=10, page=1).gold_coin_record
    assert [(one.change_amount, one.typ, one.reason) for one in records] == [
        (5.0, 1, "管理员调整"),
        (1.0, 1, "管理员调整"),
        (-2.3, 1, "管理员调整"),
        (12.34, 1, "活动"),
    ]
    assert me.info().coin == 16.04
    assert {note.actor for note in notes(now, "coins")} == {f"operator:{getpass.getuser()}"}
    assert cli("coins", "verify") == "the coin book holds\n"


@pytest.mark.timeout(20)
def test_an_amount_out_of_all_bounds_is_refused(cli: Cli, now: House) -> None:
    """Neither a traceback nor a number of a million digits."""
    mine = now.person()
    for amount in ("1e999999", "-1e999999", "1e9999", "9" * 400):
        cli.fails("user", "coin", mine, amount)


def test_medals_are_given_and_taken(cli: Cli, now: House) -> None:
    """A medal is made on demand only, for a slip in its name would make another."""
    mine = now.person()
    me = now.client(now.token(mine))
    assert cli.fails("user", "medal", mine, "创作者") == "该勋章不存在"
    given = cli("user", "medal", mine, "创作者", "--define", "--sort", "20")
    assert given == f"{mine}: 创作者\n"
    assert (
        cli("user", "medal", mine, "内测", "--define", "--sort", "10") == f"{mine}: 内测, 创作者\n"
    )
    assert cli("user", "medal", mine, "内测") == f"{mine}: 内测, 创作者\n"
    # Defining it again changes nothing of it.
    cli("user", "medal", mine, "内测", "--define", "--sort", "99")
    assert [(one.name, one.sort) for one in me.medal().medal] == [("内测", 10), ("创作者", 20)]
    assert cli.json("user", "show", mine)["medals"] == "内测, 创作者"
    assert cli("user", "medal", mine, "内测", "--take") == f"{mine}: 创作者\n"
    assert cli("user", "medal", mine, "创作者", "--take") == f"{mine}: no medals\n"
    assert cli.fails("user", "medal", mine, "没有", "--take") == "该勋章不存在"
    assert [len(notes(now, f"medal-{what}")) for what in ("defined", "granted", "taken")] == [
        2,
        2,
        2,
    ]


def test_a_password_comes_from_a_pipe_or_by_a_link(cli: Cli, now: House) -> None:
    """P4, P6: the same rules as on the wire; sessions end, contacts are told; never an argument."""
    mine = now.person()
    token = now.token(mine)
    for weak, reason in (
        ("short\n", "密码至少需要 8 个字符"),
        ("", "密码至少需要 8 个字符"),
        ("password123\n", "密码过于常见，容易被猜到，请换一个"),
        ("person1@example.org\n", "密码不能与手机号、邮箱或昵称相同"),
    ):
        assert cli.fails("user", "set-password", mine, given=weak) == reason
    assert now.client(token).info().id == str(mine)
    said = cli("user", "set-password", mine, given="湖畔 passphrase one\n")
    assert said == f"password of {mine} is set, its sessions have ended\n"
    with pytest.raises(Refused):
        now.client(token).info()
    login = now.client().email_login
    token = login(email="person1@example.org", password="湖畔 passphrase one").token
    told = {(letter.channel, letter.purpose) for letter in now.letters()}
    assert told == {("sms", "password-changed"), ("email", "password-changed")}

    link = cli("user", "set-password", mine, "--link").strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:8791/account/link#\S{40,}", link)
    # Until it is used, everything stays as it is; a newer link puts the older one out of use.
    assert now.client(token).info().id == str(mine)
    newer = cli("user", "set-password", mine, "--link").strip()
    for secret, code in ((link, -1), (newer, 1), (newer, -1)):
        body = {"secret": secret.partition("#")[2], "password": "a second passphrase"}
        assert now.web.post("/account/link", json=body).json()["code"] == code
    with pytest.raises(Refused):
        now.client(token).info()
    login(email="person1@example.org", password="a second passphrase")
    assert cli.fails("user", "set-password", "7000009", given="x\n") == "该用户不存在"
    assert "passphrase" not in str([dict(note._mapping) for note in notes(now, "password-changed")])


def test_an_operator_lets_a_locked_person_try_again(cli: Cli, now: House) -> None:
    """P5: wrong passwords add up to a wait, which `user unlock` forgets."""
    mine = now.person(password="a password of mine")
    login = now.client().email_login
    for _ in range(5):
        with pytest.raises(Refused):
            login(email="person1@example.org", password="wrong")
    with pytest.raises(Refused, match="错误次数过多"):
        login(email="person1@example.org", password="a password of mine")
    assert cli("user", "unlock", mine) == f"unlocked {mine}\n"
    assert login(email="person1@example.org", password="a password of mine").token
    assert notes(now, "unlocked")[0].actor == f"operator:{getpass.getuser()}"


# ---------------------------------------------------------------- looking after the books


def tamper(house: House, *statements: str) -> None:
    """Change what the database itself refuses to change, as its owner can."""
    engine = house.world.database.engine  # type: ignore[attr-defined]  # It is the real one.
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            for table in ("audit", "entry", "posting"):
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_update"))
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_delete"))
        else:
            connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount == 1
        if engine.dialect.name != "sqlite":
            connection.execute(text("SET session_replication_role = origin"))


def test_audit_verify_finds_what_was_changed(cli: Cli, now: House) -> None:
    """A1: exit code 1 and the row, for a changed row and for a cut tail."""
    for number in (1, 2, 3):
        now.person(number)
    assert cli("audit", "verify") == "the audit holds\n"
    tamper(now, "UPDATE audit SET account_id = account_id + 1 WHERE seq = 2")
    assert cli.fails("audit", "verify") == "the audit does not hold: row 2 was changed"
    tamper(now, "UPDATE audit SET account_id = account_id - 1 WHERE seq = 2")
    assert cli("audit", "verify") == "the audit holds\n"
    tamper(now, "DELETE FROM audit WHERE seq = 3")
    assert "ends at row 2" in cli.fails("audit", "verify")


def test_coins_verify_finds_what_was_changed(cli: Cli, now: House) -> None:
    """Exit code 1 and what does not hold, for a balance and for a line."""
    mine = now.person()
    cli("user", "coin", mine, "10")
    assert cli("coins", "verify") == "the coin book holds\n"
    tamper(now, f"UPDATE wallet SET balance = balance + 1 WHERE account_id = {mine}")
    code, out, err = cli.invoke("coins", "verify")
    assert (code, out) == (1, "")
    assert "the wallets sum up to 1 instead of 0" in err
    assert "Traceback" not in err
    tamper(now, f"UPDATE wallet SET balance = balance - 1 WHERE account_id = {mine}")
    assert cli("coins", "verify") == "the coin book holds\n"
    tamper(now, "UPDATE entry SET reason = 'x' WHERE wallet_id > 1")
    assert "was changed" in cli.invoke("coins", "verify")[2]


# ---------------------------------------------------------------- schema and protocol


def test_migrate_makes_and_checks_the_schema(outside: Cli, tmp_path: Path) -> None:
    """`--check` changes nothing; without it a folder that is not there yet is made."""
    folder = tmp_path / "new" / "folder"
    missing = f"the schema is missing, this version needs {HEAD}"
    assert missing in outside.fails("migrate", "--check", "--data", folder)
    assert outside("migrate", "--data", folder) == f"the schema is {HEAD} (was missing)\n"
    assert outside("migrate", "--data", folder) == f"the schema is {HEAD} (was {HEAD})\n"
    assert outside("migrate", "--check", "--data", folder) == f"the schema is {HEAD}, as needed\n"
    assert (folder / "hupan.db").is_file()


def test_the_protocol_is_printed_in_every_form(outside: Cli, tmp_path: Path) -> None:
    """The listing, the rows, the quirks, the messages, the OpenAPI document; and as files."""
    listing = outside("protocol").splitlines()
    assert len(listing) == len(rows())
    table = json.loads(outside("protocol", "--json"))
    assert [row["path"] for row in table] == [row.path for row in rows()]
    assert {row["certainty"] for row in table} <= {"documented", "observed", "assumed"}
    quirks = outside("protocol", "--quirks")
    for name in ("misspelt_path", "skipped_field_11", "device_key_spelling", "data_in_data"):
        assert f"  {name}: " in quirks
    assert outside("protocol", "--proto").startswith("//") or "proto3" in outside(
        "protocol", "--proto"
    )
    document = json.loads(outside("protocol", "--openapi"))
    assert document["openapi"].startswith("3.")
    assert len(document["paths"]) >= 30
    outside("protocol", "--write", tmp_path / "derived")
    assert (tmp_path / "derived" / "proto" / "hupan.proto").read_text() == outside(
        "protocol", "--proto"
    )


# ---------------------------------------------------------------- what is wrong around it


def test_what_is_wrong_around_it_is_one_line(
    outside: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No schema, no database, no folder, no such setting: each is told, none is a traceback."""
    assert outside.fails("user", "list") == "the schema is not up to date; run `hupan migrate`"
    monkeypatch.setenv("HUPAN_DATA_DIRR", "x")
    assert "did you mean data_dir?" in outside.fails("user", "list")
    monkeypatch.delenv("HUPAN_DATA_DIRR")
    outside("migrate")
    with monkeypatch.context() as context:
        (tmp_path / "bad.key").write_text("no key")
        context.setenv("HUPAN_SECRET_FILE", str(tmp_path / "bad.key"))
        assert "bad.key" in outside.fails("user", "list")


@pytest.mark.parametrize(
    "command",
    [
        ["user", "list"],
        ["audit", "verify"],
        ["migrate"],
        ["migrate", "--check"],
    ],
)
def test_a_database_that_is_away_is_one_line(
    outside: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Which says nothing of the password in its address."""
    monkeypatch.setenv("HUPAN_DATABASE_URL", "postgresql://user:canary@127.0.0.1:1/x")
    assert "canary" not in outside.fails(*command)


@pytest.mark.parametrize("command", ["user list", "migrate", "serve"])
def test_a_folder_that_is_none_is_one_line(
    outside: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A file stands where the data folder should be made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUPAN_DATA_DIR", str(tmp_path / "file"))
    # As a process, since a server takes the log of its process over.
    done = subprocess.run([HUPAN, *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr


def test_an_operator_without_a_name_is_an_operator(
    cli: Cli, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers run as numbers that no list of users knows."""
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    mine = house.person()
    assert cli("user", "ban", mine, "--for", "1d") == f"banned {mine}\n"
    assert notes(house, "banned")[0].actor.startswith("operator")


# ---------------------------------------------------------------- beside a running server


def test_what_an_operator_does_holds_on_a_running_server_at_once(
    cli: Cli,
    now: House,
    processes: Callable[..., list[Process]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T5: after the command has ended, no token works that it ended; and the SDK's commands."""
    (one,) = processes(1, argon2_memory_kib=8, argon2_time=1)
    monkeypatch.setenv("HUPAN_SERVER", one.url)
    monkeypatch.setenv("HUPAN_WEB_SERVER", one.web_url)
    banned, changed = now.person(1), now.person(2)
    for who, command, given in (
        (banned, ["ban", banned], ""),
        (changed, ["set-password", changed], "a passphrase of theirs\n"),
    ):
        with Client(one.url, token=now.token(who)) as client:
            assert client.info().id == str(who)
            cli("user", *command, given=given)
            with pytest.raises(Refused) as refused:
                client.info()
            assert (refused.value.code, refused.value.msg) == (-101, "未登录")
    with Client(one.url) as client:
        token = client.email_login(
            email="person2@example.org", password="a passphrase of theirs"
        ).token
    with Client(one.url, token=token) as client:
        cli("user", "vip", changed, "--for", "1d")
        cli("user", "coin", changed, "3.5")
        assert (client.info().is_vip, client.info().coin) == (1, 3.5)

    # The same from the person's side: log in once, then call.
    said = cli("login", "--email", "person2@example.org", given="a passphrase of theirs\n")
    assert said.startswith(f"logged in at {one.url}")
    kept = tmp_path / "config" / "hupan" / "tokens.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert cli.json("call", "info")["id"] == str(changed)
    assert cli.json("call", "edit-nickname", "--name", "命令行") == {"code": 1, "msg": "success"}
    assert cli.json("call", "homepage", "--user-id", changed)["user"]["nickname"] == "命令行"
    assert "昵称" in cli.fails("call", "edit-nickname", "--name", "")
    cli("logout")
    assert "-101" in cli.fails("call", "info")
    assert one.stop() == 0
    assert "cannot be reached" in cli.fails("call", "info")
