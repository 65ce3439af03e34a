"""Passwords: what may be one, how it is kept and guessed at, how it is reset (P1-P6, A2).

A check of a limit is a function of its own, so that it can also be run on a server without the
guard: there it must fail.
"""

from __future__ import annotations

import bisect
import json
import os
import random
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select
from starlette.testclient import TestClient

from hupan.accounts import captchas, codes, limits, links, passwords, people
from hupan.accounts.context import Context
from hupan.accounts.operation import aside
from hupan.accounts.refusals import (
    BadLink,
    BadParameters,
    Busy,
    Locked,
    NotLoggedIn,
    PasswordFromContact,
    PasswordTooCommon,
    PasswordTooLong,
    PasswordTooShort,
    Refusal,
    TooManyTries,
    UnknownUser,
    WrongCode,
    WrongPassword,
)
from hupan.accounts.tables import account, link
from hupan.outside.database import SqlTransaction
from hupan.server import door
from hupan.settings import Settings
from tests.house import DAY, House

Build = Callable[..., House]
TakeAway = Callable[[pytest.MonkeyPatch], None]

#: A check that fails on a mutant says nothing about databases, so that one of them is enough.
ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)

MAIL = "person1@example.org"
RIGHT = "sieben graue Gänse"
OTHER = "achtzehn rote Hühner"
CORES = os.cpu_count() or 1


class Said(NamedTuple):
    """An answer: its code, its reason, its Retry-After, and all of it that a client receives."""

    code: int
    msg: str
    wait: int | None
    whole: tuple[bytes, tuple[tuple[str, str], ...]]


def say(
    face: TestClient, path: str, body: dict[str, object], headers: dict[str, str] | None = None
) -> Said:
    """Post JSON and read the envelope."""
    reply = face.post(path, content=json.dumps(body), headers=headers)
    assert reply.status_code == 200
    envelope = reply.json()
    wait = reply.headers.get("retry-after")
    return Said(
        envelope["code"],
        envelope["msg"],
        int(wait) if wait else None,
        (reply.content, tuple(sorted(reply.headers.items()))),
    )


def login(
    house: House,
    password: str,
    mail: str = MAIL,
    device: str = "",
    face: TestClient | None = None,
) -> Said:
    """Log in with a password over the wire."""
    body: dict[str, object] = {"email": mail, "password": password, "deviceId": device}
    return say(face or house.api, "/v1/user/email-login", body)


def sent_code(house: House, to: str = MAIL, typ: str = "forget_password") -> str:
    """Ask for a code over the wire, past every interval, and read it where it was sent."""
    house.clock.advance(301)
    with house.rules() as ctx:
        puzzle = captchas.new(ctx)
    body: dict[str, object] = {
        "email": to,
        "typ": typ,
        "id": puzzle,
        "code": captchas.solution(house.world, puzzle) or "",
    }
    said = say(house.api, "/v1/verification/get-email-verification-code", body)
    assert said.code == 1, said.msg
    return house.letters(to)[0].code


def reset(house: House, password: str, mail: str = MAIL, code: str = "") -> Said:
    """Set a password by a code from the mail."""
    body: dict[str, object] = {
        "email": mail,
        "captcha": code or sent_code(house, mail),
        "password": password,
    }
    return say(house.api, "/v1/user/forget-password", body)


def stored(house: House, mail: str = MAIL) -> str:
    """The hash in the database."""
    with house.rules() as ctx:
        found: str = ctx.tx.value(select(account.c.password_hash).where(account.c.email == mail))
    return found


def assert_refused(
    said: Said, why: type[Refusal], wait: int | None = None, **words: object
) -> None:
    """The reason in the very words of the refusal, and the seconds where they are told."""
    expected = why(retry_after=wait, **words).text("zh")
    assert (said.code, said.msg, said.wait) == (why.code, expected, wait)


# ---------------------------------------------------------------- P1: argon2id


def test_cost_of_a_hash(build: Build) -> None:
    """P1: argon2id with 19 MiB, 2 passes and 1 lane, and a salt of its own for every password."""
    defaults = Settings()
    assert (defaults.argon2_memory_kib, defaults.argon2_time) == (19 * 1024, 2)
    house = build(argon2_memory_kib=defaults.argon2_memory_kib, argon2_time=defaults.argon2_time)
    for number in (1, 2):
        house.person(number)
        assert reset(house, RIGHT, f"person{number}@example.org").code == 1
    first, second = stored(house), stored(house, "person2@example.org")
    for one in (first, second):
        kind, version, cost, salt, digest = one.lstrip("$").split("$")
        assert (kind, version, cost) == ("argon2id", "v=19", "m=19456,t=2,p=1")
        assert len(salt) * 3 // 4 >= 16
        assert len(digest) * 3 // 4 >= 32
    assert first.split("$")[4:] != second.split("$")[4:]
    assert login(house, RIGHT).code == 1


def check_raised(build: Build) -> None:
    house = build(argon2_memory_kib=8, argon2_time=1)
    house.person(1, password=RIGHT)
    before = stored(house)
    assert login(house, RIGHT).code == 1
    assert stored(house) == before, "nothing is hashed anew while the cost is the same"
    for memory, passes in ((16, 1), (16, 2)):
        again = build(argon2_memory_kib=memory, argon2_time=passes)
        assert login(again, OTHER).code == -1
        assert stored(again) == before, "a wrong password raises nothing"
        assert login(again, RIGHT).code == 1
        before = stored(again)
        assert before.startswith(f"$argon2id$v=19$m={memory},t={passes},p=1$")
        assert login(again, RIGHT).code == 1
        assert stored(again) == before
        assert login(again, OTHER).code == -1


def test_hashes_are_raised(build: Build) -> None:
    """P1: the next good login hashes anew where memory or passes have grown."""
    check_raised(build)


# ---------------------------------------------------------------- P2: hashing is bounded


@dataclass
class Hashing:
    """What happens inside argon2 while a test looks on."""

    #: For every hash that was made or compared: its name, and whether a transaction was writing.
    seen: list[tuple[str, bool]] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.local = field(default_factory=threading.local)

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        with self.lock:
            self.seen.append((name, getattr(self.writing, "now", False)))
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
        try:
            assert self.gate.wait(30)
            yield
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    """Look on at every hash, and hold them all back while the gate is shut."""
    watch = Hashing()
    watch.gate.set()
    verify, make = PasswordHasher.verify, PasswordHasher.hash
    begin, done = SqlTransaction.begin, SqlTransaction._done

    def watched_verify(self: PasswordHasher, *given: Any) -> bool:
        with watch.one("verify"):
            return bool(verify(self, *given))

    def watched_hash(self: PasswordHasher, *given: Any, **more: Any) -> str:
        with watch.one("hash"):
            return make(self, *given, **more)

    def watched_begin(self: SqlTransaction) -> None:
        begin(self)
        watch.writing.now = True

    def watched_done(self: SqlTransaction) -> None:
        watch.writing.now = False
        done(self)

    monkeypatch.setattr(PasswordHasher, "verify", watched_verify)
    monkeypatch.setattr(PasswordHasher, "hash", watched_hash)
    monkeypatch.setattr(SqlTransaction, "begin", watched_begin)
    monkeypatch.setattr(SqlTransaction, "_done", watched_done)
    return watch


def setup_link(house: House, account_id: int, kind: str = "setup") -> str:
    """The secret of a fresh one-time link."""
    with house.rules() as ctx:
        ctx.tx.begin()
        return links.text(ctx, links.create(ctx, account_id, kind))


def open_link(house: House, secret: str, password: str = "", *, look: bool = False) -> Said:
    """What the page of the web host sends."""
    body: dict[str, object] = {"secret": secret, "password": password, "look": look}
    return say(house.web, "/account/link", body)


def check_no_lock(build: Build, hashing: Hashing) -> None:
    house = build(argon2_memory_kib=16)
    me = house.person(1)
    assert reset(house, RIGHT).code == 1
    assert login(house, RIGHT).code == 1
    assert login(house, OTHER).code == -1
    assert login(house, OTHER, "nobody@example.org").code == -1
    assert open_link(house, setup_link(house, me), OTHER).code == 1
    raised = build(argon2_memory_kib=24)
    assert login(raised, OTHER).code == 1
    assert {name for name, _ in hashing.seen} == {"hash", "verify"}
    assert len(hashing.seen) >= 7
    assert not any(writing for _, writing in hashing.seen)


def test_no_hash_under_the_write_lock(build: Build, hashing: Hashing) -> None:
    """P2: while a password is hashed or compared, its call holds no transaction open."""
    check_no_lock(build, hashing)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for a condition; whether it came about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True


@contextmanager
def storm(house: House, hashing: Hashing, count: int) -> Iterator[list[Future[Said]]]:
    """So many logins at once, all of them held back inside or before argon2."""
    hashing.gate.clear()
    faces = [TestClient(house.hosts.api, base_url="http://api.test") for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        try:
            logins = [pool.submit(login, house, RIGHT, MAIL, "", face) for face in faces]
            assert wait_until(lambda: house.hosts.lanes.waiting == count)
            yield logins
        finally:
            hashing.gate.set()


def check_bounded(build: Build, hashing: Hashing) -> None:
    house = build()
    reader = house.client(house.token(house.person(2)))
    house.person(1, password=RIGHT)
    with storm(house, hashing, CORES + 8) as logins:
        assert wait_until(lambda: hashing.inside >= CORES)
        # Meanwhile the others read, and write too, on a database with a single writer as well.
        reader.edit_nickname(name="unbeirrt")
        assert reader.info().name == "unbeirrt"
        wait_until(lambda: hashing.inside > CORES, 0.2)
        assert hashing.inside == CORES
    assert all(one.result().code == 1 for one in logins)
    assert hashing.most_inside == CORES
    assert house.hosts.lanes.waiting == 0


def test_hashes_at_once(build: Build, hashing: Hashing) -> None:
    """P2: as many hashes at once as there are cores; nobody else waits for them."""
    check_bounded(build, hashing)


def test_hashes_behind_links_are_bounded(build: Build, hashing: Hashing) -> None:
    """P2: passwords chosen by link are hashed in the same lane."""
    house = build()
    secrets = [setup_link(house, house.person(number)) for number in range(CORES + 4)]
    faces = [TestClient(house.hosts.web, base_url="http://web.test") for _ in secrets]
    hashing.gate.clear()
    with ThreadPoolExecutor(len(secrets)) as pool:
        opened = [
            pool.submit(say, face, "/account/link", {"secret": secret, "password": RIGHT})
            for face, secret in zip(faces, secrets, strict=True)
        ]
        try:
            assert wait_until(lambda: hashing.inside >= CORES)
            wait_until(lambda: hashing.inside > CORES, 0.2)
        finally:
            hashing.gate.set()
    assert all(one.result().code == 1 for one in opened)
    assert hashing.most_inside == CORES


def check_full(
    build: Build, hashing: Hashing, patch: pytest.MonkeyPatch, patience: float = 10.0
) -> None:
    house = build()
    house.person(1, password=RIGHT)
    reader = house.client(house.token(house.person(2)))
    lanes = house.hosts.lanes
    lanes.most_waiting = CORES + 2
    with storm(house, hashing, CORES + 2) as logins:
        for _ in range(3):
            late = ThreadPoolExecutor(1)
            refused = late.submit(login, house, RIGHT)
            late.shutdown(wait=False)
            assert wait_until(refused.done, patience), "a full queue answers at once"
            assert_refused(refused.result(), Busy, 2)
        assert reader.info().id
        assert wait_until(lambda: hashing.inside == CORES)
        # Those that have not had their turn by now have waited for too long.
        patch.setattr(door, "LONGEST_QUEUE", 0.0)
    answers = [one.result() for one in logins]
    assert sorted(said.code for said in answers) == [-1] * 2 + [1] * CORES
    for said in answers:
        if said.code == -1:
            assert_refused(said, Busy, 2)
    patch.undo()
    assert login(house, RIGHT).code == 1
    assert lanes.waiting == 0


def test_a_full_queue_refuses(
    build: Build, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a full queue, and one that took too long, is a polite refusal with `Retry-After`."""
    # So many hashes of 50 ms have their turn within the two seconds.
    assert door.LONGEST_QUEUE == 2
    assert build().hosts.lanes.most_waiting == CORES * 40
    check_full(build, hashing, monkeypatch)


def test_links_do_not_wait_in_a_full_queue(house: House, hashing: Hashing) -> None:
    """P2: where a login would be sent away, a password by link is as well."""
    house.person(1, password=RIGHT)
    secret = setup_link(house, house.person(2))
    house.hosts.lanes.most_waiting = CORES + 2
    with storm(house, hashing, CORES + 2):
        late = ThreadPoolExecutor(1)
        chosen = late.submit(open_link, house, secret, RIGHT)
        late.shutdown(wait=False)
        assert wait_until(chosen.done, 3)
        assert_refused(chosen.result(), Busy, 2)


# ---------------------------------------------------------------- P3: unknown accounts


def check_same_answers(build: Build, hashing: Hashing) -> None:
    house = build()
    # A server does so when it starts, so that its first stranger does not wait longer.
    passwords.warm(house.world.settings)
    house.person(1, password=RIGHT)
    house.person(2)
    cases = {"wrong": MAIL, "none set": "person2@example.org", "unknown": "nobody@example.org"}
    told: dict[str, list[object]] = {}
    for name, mail in cases.items():
        told[name] = []
        for password in (*["falsch geraten"] * 4, "ü" * 500, "", "x"):
            hashing.seen.clear()
            said = login(house, password, mail)
            told[name] += [said.whole, [one for one, _ in hashing.seen]]
    assert told["wrong"] == told["none set"] == told["unknown"]
    assert told["wrong"][1] == ["verify"], "one comparison each"
    # The seventh was refused for the fifth, again without a difference.
    assert told["wrong"][-1] == []


def test_unknown_accounts_answer_alike(build: Build, hashing: Hashing) -> None:
    """P3: an unknown account, and one without a password, gets the same bytes and the same work."""
    check_same_answers(build, hashing)


@ON_SQLITE
def test_the_same_cost_for_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: what an unknown account's password is compared with has the configured cost."""
    compared: list[str] = []
    verify = PasswordHasher.verify

    def watched(self: PasswordHasher, known: str, password: str) -> bool:
        compared.append(known)
        return bool(verify(self, known, password))

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    house.person(1)
    assert reset(house, RIGHT).code == 1
    for mail in (MAIL, "nobody@example.org"):
        assert login(house, OTHER, mail).code == -1
    mine, nobodys = (known.split("$")[:4] for known in compared)
    assert mine == nobodys == ["", "argon2id", "v=19", "m=8,t=1,p=1"]


def auc(ones: list[float], others: list[float]) -> float:
    """The chance that one of the first is larger than one of the second."""
    ordered = sorted(others)
    below = sum(
        bisect.bisect_left(ordered, one) + bisect.bisect_right(ordered, one) for one in ones
    )
    return below / 2 / len(ones) / len(others)


def check_timing(build: Build, patch: pytest.MonkeyPatch, rounds: int = 10) -> None:
    house = build(argon2_memory_kib=4096)
    house.person(1)
    assert reset(house, RIGHT).code == 1
    # No back-off is to hide what comparing costs.
    patch.setattr(passwords, "FREE_FAILURES", 10**9)
    patch.setattr(limits, "OFF", 10**9)
    seed = 7
    print(f"seed {seed}")
    source = random.Random(seed)
    known: list[float] = []
    unknown: list[float] = []

    def measure(mail: str, into: list[float]) -> None:
        started = time.perf_counter()
        assert login(house, OTHER, mail).code == -1
        into.append(time.perf_counter() - started)

    measure(MAIL, [])
    measure("nobody@example.org", [])
    # A figure from few samples may stray; more of them are taken until it has settled.
    found = 0.0
    for _ in range(rounds):
        for _ in range(80):
            pair = [(MAIL, known), ("nobody@example.org", unknown)]
            source.shuffle(pair)
            for mail, into in pair:
                measure(mail, into)
        found = auc(known, unknown)
        print(f"AUC {found:.3f} of {len(known)} pairs")
        if 0.45 <= found <= 0.55:
            break
    assert 0.45 <= found <= 0.55


def test_time_tells_nothing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: how long a refusal takes does not tell whether the account exists: AUC 0.45-0.55."""
    check_timing(build, monkeypatch)


def test_a_reset_does_not_tell_who_exists(house: House) -> None:
    """P3: a reset without the right code answers alike for every address."""
    house.person(1, password=RIGHT)
    answers = {reset(house, OTHER, mail, "000000").whole for mail in (MAIL, "nobody@example.org")}
    assert len(answers) == 1
    # With the right code the owner of the address learns that there is no account.
    code = sent_code(house, "nobody@example.org", "")
    assert_refused(reset(house, OTHER, "nobody@example.org", code), UnknownUser)


def test_a_reset_does_not_tell_whose_number_it_is(house: House) -> None:
    """P3, I2: without the code nobody learns an account's number or name from a refusal."""
    house.person(1, password=RIGHT)
    tried = ("13900000001", "13999999999", MAIL)
    assert len({reset(house, text, MAIL, "000000").msg for text in tried}) == 1


# ---------------------------------------------------------------- P4: rules


GOOD_8 = "xK9#vQ2m"
GOOD_14 = "xK9#vQ2m-tR4wL"
#: 128 different characters of three bytes each.
GOOD_128 = "".join(chr(0x4E00 + 61 * index) for index in range(128))


@pytest.mark.parametrize("profile", ["compat", "strict"])
def test_length_of_a_password(build: Build, profile: str) -> None:
    """P4: from 8 characters (15 in the strict profile) to 128, counted in code points."""
    house = build(profile=profile, code_day_limit=1000)
    house.person(1)
    least = 8 if profile == "compat" else 15
    shortest = (GOOD_8 if profile == "compat" else GOOD_14 + "!")[:least]
    assert len(shortest) == least
    for short in (shortest[:-1], "", "Ж" * (least - 1)):
        assert_refused(reset(house, short), PasswordTooShort, least=least)
    assert_refused(reset(house, GOOD_128 + "一"), PasswordTooLong, most=128)
    for good in (shortest, GOOD_128):
        assert reset(house, good).code == 1
        assert login(house, good).code == 1


def test_the_whole_password_counts(build: Build) -> None:
    """P4: no character is cut off, trimmed or folded, neither at the ends nor beyond 72 bytes."""
    house = build(code_day_limit=1000)
    house.person(1)
    for good in (GOOD_128, f"  {RIGHT} ", "Straße ohne Wiederkehr"):
        assert reset(house, good).code == 1
        near = {
            good[:-1],
            good[1:],
            good + " ",
            good.strip(),
            good.swapcase(),
            good[:72],
            good[:24],
        }
        for wrong in sorted(near - {good}):
            assert login(house, wrong).code == -1
            house.clock.advance(3600)
        assert login(house, good).code == 1


def test_a_password_is_the_same_on_every_keyboard(build: Build) -> None:
    """P4: NFKC makes one password of what two keyboards write differently."""
    house = build(code_day_limit=1000)
    house.person(1)
    pairs = [
        ("Möwen über Köln", "Mo\u0308wen u\u0308ber Ko\u0308ln"),
        ("xK9#vQ2m", "ｘＫ９＃ｖＱ２ｍ"),
        (GOOD_128[:120] + "\u00fc", GOOD_128[:120] + "u\u0308"),
    ]
    for chosen, typed in (*pairs, *(pair[::-1] for pair in pairs)):
        assert reset(house, chosen).code == 1
        assert login(house, typed).code == 1
        assert login(house, chosen).code == 1


def test_a_long_password_is_the_same_when_decomposed(house: House) -> None:
    """P4: what is accepted as a password of at most 128 characters also logs in, as it was typed.

    Keyboards of some systems write a letter and its marks as several code points.
    """
    house.person(1)
    composed = "".join(chr(0xAC00 + 97 * index) for index in range(60))
    typed = unicodedata.normalize("NFD", composed)
    assert len(composed) < 128 < len(typed)
    assert reset(house, typed).code == 1
    assert login(house, composed).code == 1
    assert login(house, typed).code == 1


def test_common_passwords_are_refused(build: Build) -> None:
    """P4: what is guessed first is refused, with the reason; the old password stays."""
    house = build(code_day_limit=1000)
    house.person(1, password=RIGHT)
    for common in ("password", "12345678", "qwertyuiop", "PassWord1", "ｐａｓｓｗｏｒｄ", "a" * 16):
        assert_refused(reset(house, common), PasswordTooCommon)
    assert login(house, RIGHT).code == 1


def test_no_rules_of_composition(build: Build) -> None:
    """P4: a password needs neither digits nor signs nor large letters."""
    house = build(code_day_limit=1000)
    house.person(1)
    for plain in (
        "lauter kleine Wörter",
        "84629 17305 92841",
        "ÆÐŊŦŁØÞß",
        "🦆🦢🦩🐓🦚🦜🐧🦉",
        "湖畔的灰色大雁七只",
    ):
        assert reset(house, plain).code == 1
        assert login(house, plain).code == 1


def test_a_password_is_no_contact(build: Build) -> None:
    """P4: neither the number, the address, its first part nor the name, in any case."""
    house = build(code_day_limit=1000)
    with house.rules() as ctx:
        people.create(
            ctx, phone="13900000001", email="grauegans@example.org", name="Siebenschläfer"
        )
    for own in ("13900000001", "GrauEgans@example.org", "grauegans", "siebenSCHLÄFER"):
        assert_refused(reset(house, own, "grauegans@example.org"), PasswordFromContact)
    assert reset(house, "grauegans und mehr", "grauegans@example.org").code == 1


# ---------------------------------------------------------------- P5: guessing


def check_guesses(build: Build) -> None:
    house = build()
    house.person(1, password=RIGHT)
    for _ in range(5):
        assert_refused(login(house, OTHER), WrongPassword)
    for wait in (30, 60):
        assert_refused(login(house, RIGHT), TooManyTries, wait)
        house.clock.advance(wait - 1)
        # Another server on the same database knows as much.
        assert_refused(login(build(), RIGHT), TooManyTries, 1)
        house.clock.advance(1)
        assert_refused(login(house, OTHER), WrongPassword)
    house.clock.advance(120)
    assert login(house, RIGHT).code == 1
    # A success forgets the failures.
    for _ in range(4):
        assert_refused(login(house, OTHER), WrongPassword)
    assert login(house, RIGHT).code == 1


def test_wrong_passwords_cost_time(build: Build) -> None:
    """P5: five are free, then each costs a wait; a restart does not shorten it."""
    check_guesses(build)


def check_lock(build: Build) -> None:
    house = build(code_day_limit=1000)
    house.person(1, password=RIGHT)
    waits = []
    for _ in range(5):
        assert_refused(login(house, OTHER), WrongPassword)
    for _ in range(9):
        wait = login(house, RIGHT).wait
        assert wait is not None
        waits.append(wait)
        house.clock.advance(wait)
        assert_refused(login(house, OTHER), WrongPassword)
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    house.clock.advance(3600)
    house.fail(f"password:{MAIL}:", passwords.FREE_FAILURES, 99 - 14)
    assert_refused(login(house, RIGHT), TooManyTries, 3600)
    house.clock.advance(3600)
    assert_refused(login(house, OTHER), WrongPassword)
    for later in (0, 3600, 400 * DAY):
        house.clock.advance(later)
        assert_refused(login(house, RIGHT), Locked)
    # Only a code from the mail opens it again.
    assert reset(house, OTHER).code == 1
    assert login(house, OTHER).code == 1
    for _ in range(4):
        assert_refused(login(house, RIGHT), WrongPassword)
    assert login(house, OTHER).code == 1


def test_a_hundred_wrong_passwords(build: Build) -> None:
    """P5: 30 s doubling to 1 h, off at 100 until the password is reset by code."""
    check_lock(build)


def check_known_device(build: Build) -> None:
    house = build()
    house.person(1, password=RIGHT)
    assert login(house, RIGHT, device="mine").code == 1
    for device in ("", "another", "", "another", ""):
        assert_refused(login(house, OTHER, device=device), WrongPassword)
    assert_refused(login(house, RIGHT, device="another"), TooManyTries, 30)
    for _ in range(16):
        assert login(house, RIGHT, device="mine").code == 1
    for _ in range(5):
        assert_refused(login(house, OTHER, device="mine"), WrongPassword)
    assert_refused(login(house, RIGHT, device="mine"), TooManyTries, 30)


def test_a_stranger_does_not_lock_out_the_owner(build: Build) -> None:
    """C12, P5: a known device has failures of its own; devices nobody knows share theirs."""
    check_known_device(build)


@ON_POSTGRESQL
def test_the_longest_keys_are_counted(house: House) -> None:
    """P5: the longest address on the longest device is counted like any other."""
    mail = f"{'a' * 64}@{'.'.join(['b' * 60] * 3)}.org"
    assert 245 < len(mail) <= 254
    device = "设" * 400
    with house.rules() as ctx:
        people.create(ctx, email=mail)
    assert reset(house, RIGHT, mail).code == 1
    assert login(house, RIGHT, mail, device).code == 1
    for _ in range(5):
        assert_refused(login(house, OTHER, mail, device), WrongPassword)
    assert_refused(login(house, RIGHT, mail, device), TooManyTries, 30)


# ---------------------------------------------------------------- P6: reset


def check_reset(build: Build) -> None:
    house = build()
    me, other = house.person(1, password=RIGHT), house.person(2)
    mine = [house.client(house.token(me, device)) for device in ("a", "b", "")]
    theirs = house.client(house.token(other))
    code = sent_code(house)
    body: dict[str, object] = {"email": MAIL, "captcha": code, "password": OTHER}
    # Whoever presents a token while resetting loses it like every other.
    assert say(house.api, "/v1/user/forget-password", body, {"token": mine[0].token}).code == 1
    for client in mine:
        said = say(house.api, "/v1/user/get-user-data", {}, {"token": client.token})
        assert_refused(said, NotLoggedIn)
    assert theirs.info().id == str(other)
    told = {
        (letter.channel, letter.destination)
        for letter in house.letters()
        if letter.purpose == "password-changed"
    }
    assert told == {("sms", "13900000001"), ("email", MAIL)}
    assert login(house, RIGHT).code == -1
    assert login(house, OTHER).code == 1
    assert_refused(reset(house, RIGHT, MAIL, code), WrongCode)


def test_a_reset_ends_every_session(build: Build) -> None:
    """P6: every session of the account ends, every contact is told, the code is spent."""
    check_reset(build)


def test_a_refused_reset_changes_nothing(house: House) -> None:
    """P6: a wrong code, or a bad password with the right one, leaves all as it was."""
    me = house.person(1, password=RIGHT)
    client, code = house.client(house.token(me)), sent_code(house)
    before = stored(house)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    assert_refused(reset(house, OTHER, MAIL, wrong), WrongCode)
    assert_refused(reset(house, "password", MAIL, code), PasswordTooCommon)
    assert client.info().id == str(me)
    assert stored(house) == before
    assert {letter.purpose for letter in house.letters()} == {"code-reset"}
    assert reset(house, OTHER, MAIL, code).code == 1


# ---------------------------------------------------------------- A2: setup links


def check_setup_link(build: Build) -> None:
    house = build()
    me = house.person(1)
    client, secret = house.client(house.token(me)), setup_link(house, me)
    for _ in range(3):
        assert open_link(house, secret, look=True).code == 1
    assert_refused(open_link(house, secret, "kurz"), PasswordTooShort, least=8)
    assert_refused(open_link(house, secret), PasswordTooShort, least=8)
    assert client.info().id == str(me), "so far nothing has happened"
    assert open_link(house, secret, RIGHT).code == 1
    said = say(house.api, "/v1/user/get-user-data", {}, {"token": client.token})
    assert_refused(said, NotLoggedIn)
    assert login(house, RIGHT).code == 1
    assert_refused(open_link(house, secret, OTHER), BadLink)
    assert_refused(open_link(house, secret, look=True), BadLink)
    assert login(house, RIGHT).code == 1


def test_a_setup_link_works_once(build: Build) -> None:
    """A2: looking spends nothing, neither does a bad password; choosing one does."""
    check_setup_link(build)


def test_life_of_a_setup_link(house: House) -> None:
    """A2: 72 hours, to the second."""
    first, second = (setup_link(house, house.person(number)) for number in (1, 2))
    house.clock.advance(72 * 3600 - 1)
    assert open_link(house, first, RIGHT).code == 1
    house.clock.advance(1)
    assert_refused(open_link(house, second, look=True), BadLink)
    assert_refused(open_link(house, second, RIGHT), BadLink)


def test_a_setup_link_dies_with_the_account(house: House) -> None:
    """A2: a link to a deleted account opens nothing."""
    me = house.person(1)
    secret = setup_link(house, me)
    with house.rules() as ctx:
        people.erase(ctx, people.get(ctx, me))
    assert_refused(open_link(house, secret, RIGHT), BadLink)


def test_links_cannot_be_made_up(house: House) -> None:
    """A2, I1: junk is refused alike and never breaks anything; the secret is long and kept out."""
    secret = setup_link(house, house.person(1))
    number, _, key = secret.partition("-")
    assert len(key) >= 32
    with house.rules() as ctx:
        kept = ctx.tx.all(select(link))
        odd = links.text(ctx, links.create(ctx, house.person(2), "strange"))
    assert all(key.encode() not in str(tuple(row)).encode() for row in kept)
    junk = (
        "", "-", number, f"{number}-", f"{number}-{key[:-1]}", f"{number}-{key}0", f"-{key}",
        f"0{secret}x", f"{number}-{'0' * len(key)}", f"{number}-ü", "９-x", f"{'9' * 15}-{key}",
        f"{'9' * 400}-{key}", f"{number}\u0000-{key}", odd,
    )  # fmt: skip
    for one in junk:
        assert_refused(open_link(house, one, RIGHT), BadLink)
    for raw in (b"", b"[]", b"{", b'{"secret":1}', b'{"secret":"1-\\ud800"}', b"\xff", b"[" * 9999,
                b'{"secret":"' + b"1" * 70_000 + b'"}'):  # fmt: skip
        reply = house.web.post("/account/link", content=raw)
        assert (reply.status_code, reply.json()["code"]) == (200, BadParameters.code), raw[:20]
    assert open_link(house, secret, RIGHT).code == 1


# ---------------------------------------------------------------- the checks fail without a guard


def _never_raised(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(passwords, "renewed", lambda *_: None)


def _raised_before_the_comparison(patch: pytest.MonkeyPatch) -> None:
    real = passwords.verify

    def verify(ctx: Context, known: str | None, password: str) -> bool:
        if passwords.renewed(ctx, known, password):
            hashed = passwords.make_hash(ctx.settings, RIGHT)
            with aside(ctx):
                ctx.tx.run(account.update().values(password_hash=hashed))
        return real(ctx, known, password)

    patch.setattr(passwords, "verify", verify)


def _hash_under_lock(patch: pytest.MonkeyPatch) -> None:
    real = codes.prove

    def prove(ctx: Context, *given: Any, **more: Any) -> codes.Proof:
        proof = real(ctx, *given, **more)
        ctx.tx.begin()
        return proof

    patch.setattr(codes, "prove", prove)


def _verify_under_lock(patch: pytest.MonkeyPatch) -> None:
    real = limits.check_failures

    def check(ctx: Context, key: str) -> None:
        real(ctx, key)
        ctx.tx.begin()

    patch.setattr(limits, "check_failures", check)


def _many_lanes(patch: pytest.MonkeyPatch) -> None:
    real = door.Lanes.__init__

    def init(self: door.Lanes, *given: Any, **more: Any) -> None:
        real(self, *given, **more)
        self.hashes.shutdown()
        self.hashes = ThreadPoolExecutor(64)

    patch.setattr(door.Lanes, "__init__", init)


def _endless_queue(patch: pytest.MonkeyPatch) -> None:
    endless = property(lambda _: 10**9, lambda _self, _value: None)
    patch.setattr(door.Lanes, "most_waiting", endless, raising=False)


def _never_too_late(patch: pytest.MonkeyPatch) -> None:
    class Patient:
        """A clock for the queue on which nobody waits for long."""

        @staticmethod
        def perf_counter() -> float:
            return 0.0

    patch.setattr(door, "time", Patient)


def _nobody_is_quick(patch: pytest.MonkeyPatch) -> None:
    real = passwords.verify
    patch.setattr(
        passwords,
        "verify",
        lambda ctx, known, password: known is not None and real(ctx, known, password),
    )


def _unknown_user_is_told(patch: pytest.MonkeyPatch) -> None:
    real = passwords.verify

    def verify(ctx: Context, known: str | None, password: str) -> bool:
        right = real(ctx, known, password)
        if known is None:
            raise UnknownUser()
        return right

    patch.setattr(passwords, "verify", verify)


def _failures_only_of_the_known(patch: pytest.MonkeyPatch) -> None:
    real = limits.count_failure

    def count(ctx: Context, key: str, free: int) -> None:
        if "nobody" not in key:
            real(ctx, key, free)

    patch.setattr(limits, "count_failure", count)


def _four_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(passwords, "FREE_FAILURES", 4)


def _six_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(passwords, "FREE_FAILURES", 6)


def _wait_29(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "FIRST_WAIT", 29)


def _never_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "OFF", 101)


def _endless_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "LONGEST_WAIT", 7200)


def _nothing_is_forgiven(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "forget", lambda *_: None)


def _one_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.devices.budget", lambda *_: "")


def _a_budget_for_every_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.devices.budget", lambda _ctx, _account, device: device)


def _sessions_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.sessions.end_all", lambda ctx, _: ctx.tx.begin())


def _nobody_is_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.outbox.tell", lambda *_: None)


def _links_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "use", lambda *_: None)
    patch.setattr(links, "revoke", lambda *_: None)


@ON_SQLITE
@pytest.mark.parametrize(
    ("check", "take_away"),
    [
        (check_raised, _never_raised),
        (check_raised, _raised_before_the_comparison),
        (check_no_lock, _hash_under_lock),
        (check_no_lock, _verify_under_lock),
        (check_bounded, _many_lanes),
        (check_full, _endless_queue),
        (check_full, _never_too_late),
        (check_same_answers, _nobody_is_quick),
        (check_same_answers, _unknown_user_is_told),
        (check_same_answers, _failures_only_of_the_known),
        (check_timing, _nobody_is_quick),
        (check_guesses, _four_free),
        (check_guesses, _six_free),
        (check_guesses, _wait_29),
        (check_guesses, _nothing_is_forgiven),
        (check_lock, _never_off),
        (check_lock, _endless_waits),
        (check_lock, _nothing_is_forgiven),
        (check_known_device, _one_budget),
        (check_known_device, _a_budget_for_every_name),
        (check_reset, _sessions_stay),
        (check_reset, _nobody_is_told),
        (check_setup_link, _links_stay),
        (check_setup_link, _sessions_stay),
    ],
)
def test_checks_fail_on_mutants(
    build: Build,
    hashing: Hashing,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[..., None],
    take_away: TakeAway,
) -> None:
    """P1-P6: each check fails where its limit is off by one or its guard is gone."""
    take_away(monkeypatch)
    extra = {
        check_no_lock: (hashing,),
        check_bounded: (hashing,),
        check_same_answers: (hashing,),
        check_timing: (monkeypatch, 1),
        check_full: (hashing, monkeypatch, 1.0),
    }
    with pytest.raises(AssertionError):
        check(build, *extra.get(check, ()))
