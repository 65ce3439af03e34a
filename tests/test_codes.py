"""Codes, captchas and the limits of sending (C1-C10, C13).

A check of a limit is a function of its own, so that it can also be run on a server whose limit is
off by one or whose guard is gone: there it must fail.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import logging
import math
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from pydantic import ValidationError
from sqlalchemy import select
from starlette.testclient import TestClient

from hupan.accounts import captchas, codes, limits, links, outbox, people
from hupan.accounts.context import Context, Source
from hupan.accounts.operation import aside
from hupan.accounts.refusals import (
    CodeClosed,
    Locked,
    Refusal,
    SentTooOften,
    TooManyRequests,
    TooManyTries,
    WrongCaptcha,
    WrongCode,
)
from hupan.accounts.tables import audit, code, metadata, rate, session
from hupan.client import Client
from hupan.server import logs
from hupan.server.door import Ask, Door
from hupan.server.run import run
from hupan.settings import Settings, SettingsError
from tests.house import DAY, NOON, House, Process, png_of

Build = Callable[..., House]
Check = Callable[[Build], None]
TakeAway = Callable[[pytest.MonkeyPatch], None]

#: A check that fails on a mutant says nothing about databases, so that one of them is enough.
ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


class Said(NamedTuple):
    """An answer: its code, its reason, its Retry-After, and all of it that a client receives."""

    code: int
    msg: str
    wait: int | None
    whole: tuple[bytes, tuple[tuple[str, str], ...]]


def say(
    house: House,
    path: str,
    body: dict[str, str],
    *,
    face: TestClient | None = None,
    headers: dict[str, str] | None = None,
) -> Said:
    """Post JSON and read the envelope."""
    reply = (face or house.api).post(path, content=json.dumps(body), headers=headers)
    assert reply.status_code == 200
    envelope = reply.json()
    wait = reply.headers.get("retry-after")
    return Said(
        envelope["code"],
        envelope["msg"],
        int(wait) if wait else None,
        (reply.content, tuple(sorted(reply.headers.items()))),
    )


def captcha(house: House) -> tuple[str, str]:
    """A puzzle and its solution, without the cost of drawing it."""
    with house.rules() as ctx:
        made = captchas.new(ctx)
    return made, captchas.solution(house.world, made) or ""


def send(
    house: House,
    to: str,
    *,
    typ: str = "",
    puzzle: tuple[str, str] | None = None,
    face: TestClient | None = None,
    headers: dict[str, str] | None = None,
) -> Said:
    """Ask for a code over the wire."""
    puzzle_id, solution = puzzle or captcha(house)
    body = {"id": puzzle_id, "code": solution}
    if "@" in to:
        path, body = "get-email-verification-code", {**body, "email": to, "typ": typ}
    else:
        path, body = "get-verification-code", {**body, "mobile": to}
    return say(house, f"/v1/verification/{path}", body, face=face, headers=headers)


def sent_code(house: House, to: str, typ: str = "") -> str:
    """Ask for a code and read it where it was sent."""
    assert send(house, to, typ=typ).code == 1
    return house.letters(to)[0].code


def redeem(house: House, phone: str, guess: str) -> Said:
    """Log in by a code, from no device that the account knows."""
    return say(house, "/v1/user/verification-login", {"mobile": phone, "captcha": guess})


def wrong(right: str) -> str:
    """Another code than the right one."""
    return f"{(int(right) + 1) % 1_000_000:06d}"


def assert_refused(said: Said, why: type[Refusal], wait: int | None = None) -> None:
    """The reason in the very words of the refusal, and the seconds where they are told."""
    expected = why(retry_after=wait).text("zh")
    assert (said.code, said.msg, said.wait) == (why.code, expected, wait)


def number(index: int) -> str:
    """A phone number for each index."""
    return f"137{index:08d}"


# ---------------------------------------------------------------- C1: uniform digits


def chi_square(counts: Counter[str], cells: int) -> float:
    """How far counts are from equal, in standard deviations of what chance does."""
    expected = counts.total() / cells
    seen = sum((count - expected) ** 2 for count in counts.values()) / expected
    seen += (cells - len(counts)) * expected
    return (seen - (cells - 1)) / math.sqrt(2 * (cells - 1))


def worst_deviation(texts: Iterable[str]) -> float:
    """The largest deviation over each single digit, the first three and the last three."""
    texts = list(texts)
    views: list[tuple[Callable[[str], str], int]] = [
        *((lambda text, place=place: text[place], 10) for place in range(6)),
        (lambda text: text[:3], 1000),
        (lambda text: text[3:], 1000),
    ]
    return max(chi_square(Counter(map(view, texts)), cells) for view, cells in views)


@ON_SQLITE
def test_codes_are_uniform(house: House) -> None:
    """C1: six digits, none of the million likelier than another."""
    seed = 20260302
    print(f"seed {seed}")
    source = random.Random(seed)
    made = [
        outbox.code_text(house.world, number, "13900000001", source.randbytes(16))
        for number in range(60_000)
    ]
    assert all(re.fullmatch(r"\d{6}", text, re.ASCII) for text in made)
    assert worst_deviation(made) < 5
    # The same measure sees two ways to get it wrong: no leading zero, and too few bits.
    never_small = [f"{100_000 + int(text) % 900_000}" for text in made]
    too_few_bits = [f"{int(text) % 2**19:06d}" for text in made]
    assert worst_deviation(never_small) > 5
    assert worst_deviation(too_few_bits) > 5


def test_codes_come_from_the_csprng(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: what a code is derived from is the operating system's randomness."""
    drawn: list[bytes] = []

    def recorded(count: int | None = None) -> bytes:
        drawn.append(secrets.SystemRandom().randbytes(count or 32))
        return drawn[-1]

    monkeypatch.setattr(secrets, "token_bytes", recorded)
    for index in range(3):
        assert send(house, number(index)).code == 1
    with house.rules() as ctx:
        nonces = [bytes(row.nonce) for row in ctx.tx.all(select(code.c.nonce))]
    assert len(set(nonces)) == 3
    assert all(len(nonce) == 16 and nonce in drawn for nonce in nonces)


# ---------------------------------------------------------------- C2: life


def check_life(build: Build, **more: Any) -> None:
    house = build(**more)
    first, second = number(1), number(2)
    codes_at_start = {to: sent_code(house, to) for to in (first, second)}
    house.clock.advance(60)
    for to, text in codes_at_start.items():
        assert sent_code(house, to) == text, "a re-send inside the life sends the same code"
    house.clock.advance(239)
    assert redeem(house, first, codes_at_start[first]).code == 1
    house.clock.advance(1)
    assert_refused(redeem(house, second, codes_at_start[second]), WrongCode)
    # What is sent now is another code: it has a life of its own.
    fresh = sent_code(house, second)
    with house.rules() as ctx:
        ends = ctx.tx.all(select(code.c.expires_at).order_by(code.c.id))
    assert [row.expires_at - NOON for row in ends] == [300, 300, 600]
    assert redeem(house, second, fresh).code == 1


def test_life_of_a_code(build: Build) -> None:
    """C2: 300 s to the second; a re-send sends the same code and does not lengthen its life."""
    check_life(build)


def test_life_is_never_long() -> None:
    """C2: no setting makes a code live for more than 600 s."""
    assert Settings(code_seconds=600).code_seconds == 600
    with pytest.raises(ValidationError):
        Settings(code_seconds=601)


# ---------------------------------------------------------------- C3, C4: use and tries


def check_used_once(build: Build) -> None:
    house = build()
    text = sent_code(house, number(1))
    assert redeem(house, number(1), text).code == 1
    assert_refused(redeem(house, number(1), text), WrongCode)
    with house.rules() as ctx:
        assert len(ctx.tx.all(select(session.c.id))) == 1


def test_a_code_is_used_once(build: Build) -> None:
    """C3: a code that opened a session opens no second one."""
    check_used_once(build)


def test_a_code_serves_one_purpose_only_once(house: House) -> None:
    """C3: a code that bound a number does not log in with it as well."""
    text = sent_code(house, number(1))
    house.login(2).bind_phone(phone=number(1), captcha=text)
    assert_refused(redeem(house, number(1), text), WrongCode)


def check_tries(build: Build, **more: Any) -> None:
    house = build(**more)
    text = sent_code(house, number(1))
    for _ in range(4):
        assert_refused(redeem(house, number(1), wrong(text)), WrongCode)
    assert redeem(house, number(1), text).code == 1, "four wrong tries leave a fifth"
    text = sent_code(house, number(2))
    for _ in range(5):
        assert_refused(redeem(house, number(2), wrong(text)), WrongCode)
    for _ in range(3):
        assert redeem(house, number(2), text).msg == CodeClosed.zh
    # Asking again makes another code; the closed one stays closed.
    house.clock.advance(60)
    fresh = sent_code(house, number(2))
    assert redeem(house, number(2), fresh).code == 1
    assert redeem(house, number(2), text).code != 1


def test_tries_of_a_code(build: Build) -> None:
    """C4: five tries a code, which the rollback of a refusal does not give back."""
    check_tries(build)


# ---------------------------------------------------------------- C5: failures of an address


#: Nothing but the failures is to limit these checks.
GENEROUS = {
    "code_interval_seconds": 1,
    "code_day_limit": 10_000,
    "code_tries": 10,
    "code_seconds": 600,
}


def check_back_off(build: Build) -> None:
    house, to = build(**GENEROUS), number(1)
    text = sent_code(house, to)
    for _ in range(9):
        assert_refused(redeem(house, to, wrong(text)), WrongCode)
    # The tenth starts the back-off, for the right code as well.
    assert_refused(redeem(house, to, wrong(text)), WrongCode)
    assert_refused(redeem(house, to, text), TooManyTries, 30)
    house.clock.advance(1)
    fresh = sent_code(house, to)
    assert_refused(redeem(house, to, fresh), TooManyTries, 29)
    again = build(**GENEROUS)
    assert_refused(redeem(again, to, fresh), TooManyTries, 29)
    again.clock.advance(28)
    assert_refused(redeem(again, to, fresh), TooManyTries, 1)
    again.clock.advance(1)
    assert_refused(redeem(again, to, wrong(fresh)), WrongCode)
    assert_refused(redeem(again, to, fresh), TooManyTries, 60)
    again.clock.advance(60)
    assert redeem(again, to, fresh).code == 1
    # A success forgets the failures: the next one has nine free ones before it again.
    text = sent_code(again, to)
    for _ in range(9):
        assert_refused(redeem(again, to, wrong(text)), WrongCode)
    assert redeem(again, to, text).code == 1


def test_back_off_outlives_codes_and_servers(build: Build) -> None:
    """C5: from the 10th consecutive failure on; neither a new code nor a restart resets it."""
    check_back_off(build)


def test_back_off_doubles_and_ends_in_a_lock(build: Build) -> None:
    """C5, C10: 30 s doubling to 1 h, off at 100; then nothing is sent, and nothing tells so."""
    house, to = build(**GENEROUS), number(1)
    usual = send(house, number(2)).whole

    def fail_and_wait() -> int | None:
        """One wrong guess at a fresh code; how long the right one has to wait after it."""
        assert send(house, to).whole == usual
        text = house.letters(to)[0].code
        assert_refused(redeem(house, to, wrong(text)), WrongCode)
        wait = redeem(house, to, text).wait
        house.clock.advance(wait or 1)
        return wait

    text = sent_code(house, to)
    for _ in range(9):
        assert_refused(redeem(house, to, wrong(text)), WrongCode)
    house.clock.advance(1)
    assert [fail_and_wait() for _ in range(9)] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    house.fail(f"code:{to}:", codes.FREE_FAILURES, 80)
    house.clock.advance(3600)
    assert fail_and_wait() == 3600, "the 99th"
    text = sent_code(house, to)
    assert_refused(redeem(house, to, wrong(text)), WrongCode)
    house.clock.advance(1)
    queued = len(house.letters(to))
    for later in (0, DAY, 365 * DAY):
        house.clock.advance(later)
        assert send(house, to).whole == usual
        assert_refused(redeem(house, to, text), Locked)
        house.clock.advance(1)
    assert len(house.letters(to)) == queued
    assert redeem(house, number(2), sent_code(house, number(2))).code == 1


@ON_POSTGRESQL
def test_the_longest_device_keeps_its_budget(house: House) -> None:
    """C4, C12: a known device of the longest id is counted like any other: the column holds it."""
    body = {"mobile": number(1), "deviceId": "d" * 400, "platform": "test"}
    for _ in range(2):
        text = sent_code(house, number(1))
        assert say(house, "/v1/user/verification-login", {**body, "captcha": text}).code == 1
        house.clock.advance(60)


def test_the_owner_still_gets_codes(house: House) -> None:
    """C10, C12: what strangers locked is silent to them, not to the owner's device."""
    me = house.person(1)
    to, usual = "13900000001", send(house, number(2)).whole
    house.token(me, "mine")
    house.fail(f"code:{to}:", codes.FREE_FAILURES, limits.OFF)
    assert send(house, to).whole == usual
    text = house.letters(to)[0].code
    assert_refused(redeem(house, to, text), Locked)
    body = {"mobile": to, "captcha": text, "deviceId": "theirs"}
    assert_refused(say(house, "/v1/user/verification-login", body), Locked)
    assert say(house, "/v1/user/verification-login", {**body, "deviceId": "mine"}).code == 1


# ---------------------------------------------------------------- C6: re-sending


def check_interval(build: Build, **more: Any) -> None:
    house = build(**more)
    to = number(1)
    assert send(house, to).code == 1
    assert_refused(send(house, to), SentTooOften, 60)
    # One number has one limit, however it is written.
    assert_refused(send(house, f"+86 {to}"), SentTooOften, 60)
    house.clock.advance(59)
    assert_refused(send(house, to), SentTooOften, 1)
    house.clock.advance(1)
    assert send(house, to).code == 1
    assert_refused(send(house, to), SentTooOften, 60)
    assert len(house.letters(to)) == 2


def test_interval_between_sends(build: Build) -> None:
    """C6: refused 59 s after the last send, done at 60 s; a refusal does not prolong the wait."""
    check_interval(build)


def check_day_limit(build: Build, **more: Any) -> None:
    house, to = build(**more), "person1@example.org"
    for _ in range(10):
        assert send(house, to).code == 1
        house.clock.advance(60)
    assert_refused(send(house, to.upper()), SentTooOften, DAY - 600)
    house.clock.advance(DAY - 600 - 1)
    assert_refused(send(house, to), SentTooOften, 1)
    house.clock.advance(1)
    assert send(house, to).code == 1
    assert len(house.letters(to)) == 11


def test_sends_in_a_day(build: Build) -> None:
    """C6: ten in a day, counted from the first; the eleventh leaves exactly a day after it."""
    check_day_limit(build)


# ---------------------------------------------------------------- C7: sources


SOURCES = {"limit_sources": True}


def face_from(house: House, peer: str) -> TestClient:
    """The API host as a connection from this address reaches it."""
    return TestClient(house.hosts.api, base_url="http://api.test", client=(peer, 40_000))


def numbers() -> Iterator[str]:
    """Phone numbers nobody has asked for yet."""
    return (number(index) for index in range(1, 10_000))


def send_from(house: House, peer: str, to: str, forwarded: str = "", typ: str = "") -> Said:
    headers = {"x-forwarded-for": forwarded} if forwarded else None
    return send(house, to, face=face_from(house, peer), headers=headers, typ=typ)


def check_source_limit(build: Build, **more: Any) -> None:
    house, fresh = build(**SOURCES | more), numbers()
    for _ in range(5):
        assert send_from(house, "203.0.113.7", next(fresh)).code == 1
    blocked = next(fresh)
    assert_refused(send_from(house, "203.0.113.7", blocked), TooManyRequests, 600)
    assert_refused(send_from(house, "::ffff:203.0.113.7", blocked), TooManyRequests, 600)
    # What was refused is not held against the number that was named.
    assert send_from(house, "203.0.113.8", blocked).code == 1
    house.clock.advance(599)
    assert_refused(send_from(house, "203.0.113.7", next(fresh)), TooManyRequests, 1)
    house.clock.advance(1)
    assert send_from(house, "203.0.113.7", next(fresh)).code == 1


def test_sends_of_one_source(build: Build) -> None:
    """C7: five in ten minutes an address."""
    check_source_limit(build)


def check_network_limit(build: Build, **more: Any) -> None:
    house, fresh = build(**SOURCES | more), numbers()
    for host in range(4):
        for _ in range(5):
            assert send_from(house, f"203.0.113.{host}", next(fresh)).code == 1
    assert_refused(send_from(house, "203.0.113.200", next(fresh)), TooManyRequests, 3600)
    assert send_from(house, "203.0.114.1", next(fresh)).code == 1
    house.clock.advance(3599)
    assert_refused(send_from(house, "203.0.113.200", next(fresh)), TooManyRequests, 1)
    house.clock.advance(1)
    assert send_from(house, "203.0.113.200", next(fresh)).code == 1


def test_sends_of_one_network(build: Build) -> None:
    """C7: twenty in an hour a /24."""
    check_network_limit(build)


def check_ipv6(build: Build, **more: Any) -> None:
    house, fresh = build(**SOURCES | more), numbers()
    for window in range(4):
        for host in range(5):
            peer = f"2001:db8:1:2:{host:x}::{window:x}"
            assert send_from(house, peer, next(fresh)).code == 1
        if window < 3:
            said = send_from(house, "2001:db8:1:2:ffff::1", next(fresh))
            assert_refused(said, TooManyRequests, 600)
        assert send_from(house, f"2001:db8:1:{window + 3:x}::1", next(fresh)).code == 1
        house.clock.advance(600)
    said = send_from(house, "2001:db8:1:2:ffff::1", next(fresh))
    assert_refused(said, TooManyRequests, 3600 - 4 * 600)


def test_sends_of_one_ipv6_network(build: Build) -> None:
    """C7: a /64 is one source, with five in ten minutes and twenty in an hour."""
    check_ipv6(build)


def check_forwarded_is_not_believed(build: Build, **more: Any) -> None:
    house, fresh = build(**SOURCES | more), numbers()
    for index in range(5):
        assert send_from(house, "203.0.113.7", next(fresh), f"198.51.{index}.1").code == 1
    said = send_from(house, "203.0.113.7", next(fresh), "198.51.200.1")
    assert_refused(said, TooManyRequests, 600)


def test_a_stranger_cannot_name_his_source(build: Build) -> None:
    """C7: without a listed proxy `X-Forwarded-For` says nothing."""
    check_forwarded_is_not_believed(build)


def check_proxy(build: Build, **more: Any) -> None:
    house = build(**SOURCES | {"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]} | more)
    fresh = numbers()
    # What the client itself wrote stands in front of what the proxies appended.
    for index in range(5):
        written = f"192.0.2.{index}, 203.0.113.7, 10.9.9.9"
        assert send_from(house, "10.0.0.1", next(fresh), written).code == 1
    for peer in ("10.0.0.1", "10.0.0.2", "fd00::1"):
        for written in ("192.0.2.99, 203.0.113.7", "203.0.113.7:5555", "::ffff:203.0.113.7"):
            said = send_from(house, peer, next(fresh), written)
            assert_refused(said, TooManyRequests, 600)
    assert send_from(house, "10.0.0.1", next(fresh), "203.0.113.8").code == 1
    # Somebody who is no proxy is not helped by naming one.
    for _ in range(5):
        assert send_from(house, "198.51.100.1", next(fresh), "203.0.113.50, 10.0.0.1").code == 1
    said = send_from(house, "198.51.100.1", next(fresh), "203.0.113.51, 10.0.0.1")
    assert_refused(said, TooManyRequests, 600)


def test_a_listed_proxy_is_believed(build: Build) -> None:
    """C7: the nearest address that no listed proxy has is the source."""
    check_proxy(build)


def check_budget(build: Build, **more: Any) -> None:
    house, fresh = build(**SOURCES | {"site_send_limit": 10} | more), numbers()

    def alarms() -> int:
        with house.rules() as ctx:
            noted = ctx.tx.all(select(audit).where(audit.c.action == "send-budget-alarm"))
            return len(noted)

    for count in range(1, 11):
        assert send_from(house, f"198.51.{count}.1", next(fresh)).code == 1
        assert alarms() == (1 if count >= 8 else 0)
        house.clock.advance(10)
    assert_refused(send_from(house, "198.51.77.1", next(fresh)), TooManyRequests, DAY - 100)
    house.clock.advance(DAY - 100 - 1)
    assert_refused(send_from(house, "198.51.77.1", next(fresh)), TooManyRequests, 1)
    house.clock.advance(1)
    assert send_from(house, "198.51.77.1", next(fresh)).code == 1


def test_budget_of_the_site(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    """C7: the whole site has a budget; one alarm, in the log and the audit, at 80 %."""
    with caplog.at_level(logging.WARNING):
        check_budget(build)
    assert len([line for line in caplog.records if "send-budget" in line.message]) == 1


# ---------------------------------------------------------------- C8: nothing kept, nothing logged


def cells(house: House) -> list[bytes]:
    """Every value of every table as bytes; what is bytes also as hexadecimal and base64 text."""
    found = []
    with house.rules() as ctx:
        for table in metadata.sorted_tables:
            for row in ctx.tx.all(select(table)):
                for value in row:
                    if isinstance(value, bytes | memoryview):
                        plain = bytes(value)
                        found += [plain, plain.hex().encode(), base64.b64encode(plain)]
                    elif value is not None:
                        found.append(str(value).encode())
    return found


def log_lines(folder: Path) -> list[bytes]:
    """The log without what counts and times: six digits in a row are chance there."""
    lines = []
    for line in (folder / "server.log").read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            for key in ("timestamp", "number", "ms"):
                said.pop(key, None)
            line = json.dumps(said, ensure_ascii=False)
        lines.append(line.encode())
    return lines


class Canaries:
    """Secrets that were really used, to look for where none may be."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.others: list[str] = []

    def found(self, places: Iterable[bytes]) -> list[str]:
        """Which of them stand in these places; a code only where no further digit touches it."""
        whole = b"\n".join(places)
        hits = [text for text in self.others if text.encode() in whole]
        for text in self.codes:
            if re.search(rb"(?<!\d)%b(?!\d)" % text.encode(), whole):
                hits.append(text)
        return hits


def live_a_little(house: House, server: Process, client: Client) -> Canaries:
    """Use every kind of secret on a real server, rightly and wrongly."""
    planted = Canaries()

    def code_to(to: str, typ: str = "") -> str:
        made = client.captcha()
        solution = captchas.solution(house.world, made.id) or ""
        if "@" in to:
            client.get_email_verification_code(email=to, id=made.id, code=solution, typ=typ)
        else:
            client.get_verification_code(mobile=to, id=made.id, code=solution)
        planted.codes.append(house.letters(to)[0].code)
        return planted.codes[-1]

    def open_link(secret: str, **more: str) -> None:
        planted.others.append(secret.partition("-")[2])
        reply = client.http.post(server.web_url + "/account/link", json={"secret": secret, **more})
        assert reply.json()["code"] == 1, reply.text

    def raw(path: str, body: str = "", **headers: str) -> None:
        client.http.post(server.url + path, content=body, headers=headers)

    text = code_to(number(1))
    raw("/v1/user/verification-login", json.dumps({"mobile": number(1), "captcha": wrong(text)}))
    client.token = client.verification_login(
        mobile=number(1), captcha=text, device_id="d", platform="p"
    ).token
    planted.others.append(client.token)
    me = int(client.info().id)
    client.bind_email(email="first@example.org", captcha=code_to("first@example.org"))

    with house.rules() as ctx:
        ctx.tx.begin()
        setup = links.text(ctx, links.create(ctx, me, "setup"))
    planted.others += ["canary-Zwölf-Möwen-1", "canary-wrong-Möwen-2", "canary-Möwen-drei-3"]
    open_link(setup, password="canary-Zwölf-Möwen-1")
    login = {"email": "first@example.org", "deviceId": "d", "platform": "p"}
    raw("/v1/user/email-login", json.dumps({**login, "password": "canary-wrong-Möwen-2"}))
    # A password spliced in unescaped breaks the JSON around it.
    raw("/v1/user/email-login", '{"password":"canary-wrong-Möwen-2"","email":"x"}')
    client.token = client.email_login(
        email="first@example.org", password="canary-Zwölf-Möwen-1", device_id="d", platform="p"
    ).token
    planted.others.append(client.token)

    client.change_email(email="second@example.org", captcha=code_to("second@example.org"))
    undo = house.letters("first@example.org")[0].text.partition("#")[2]
    assert undo
    open_link(undo)

    # A token where none belongs: it is not accepted, and not written down either.
    token = house.token(me)
    planted.others.append(token)
    for url in (server.url + "/v1/user/info", server.web_url + "/v1/user/homepage"):
        client.http.get(url, params={"token": token, "userId": "1"})
    client.http.get(server.url + "/v1/user/no-such-thing", headers={"token": token})
    client.http.put(server.url + "/v1/user/info", headers={"authorization": f"Bearer {token}"})
    client.http.get(server.url + "/v1/user/info", headers={"cookie": f"token={token}"})
    refused = client.http.get(
        server.url + "/v1/user/info",
        params={"token": token},
        headers={"accept": "application/json"},
    )
    assert refused.json()["code"] == -101

    made = code_to("person2@example.org", "forget_password")
    client.forget_password(
        email="person2@example.org", captcha=made, password="canary-Möwen-drei-3"
    )
    return planted


# The process that writes the log gets a file that this one does not close in so many words.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_secret_is_kept_or_logged(
    build: Build, processes: Callable[..., list[Process]], tmp_path: Path
) -> None:
    """C8, T2: no code, token, password or link in the database, in the log, or in an address."""
    (tmp_path / "secret.key").write_text((b"k" * 32).hex())
    house = build()
    # The real server has the machine's clock, and the two share links and sessions.
    house.clock.time = int(time.time())
    house.person(2)
    [server] = processes(1, log_level="debug", argon2_memory_kib=8, argon2_time=1)
    with Client(server.url, web_url=server.web_url) as client:
        planted = live_a_little(house, server, client)
    assert server.stop() == 0

    kept, logged = cells(house), log_lines(tmp_path)
    # What may stand there is found, so that the search is known to see.
    seen = Canaries()
    seen.others = [number(1), "contact-restored", "code-wrong"]
    assert seen.found(kept) == seen.others
    seen.others = ["/v1/user/forget-password", "/v1/user/email-login"]
    assert seen.found(logged) == seen.others

    assert planted.found(kept) == []
    assert planted.found(logged) == []
    with house.rules() as ctx:
        assert all(len(row.nonce) == 16 for row in ctx.tx.all(select(code.c.nonce)))

    files = list(tmp_path.glob("hupan.db*"))
    raw = [file.read_bytes() for file in files]
    assert all(text.encode() not in one for one in raw for text in planted.others)
    # Six digits in a row may be chance among so many bytes; all of the codes there are not.
    whole = b"".join(raw)
    assert sum(text.encode() in whole for text in planted.codes) < len(planted.codes) / 2


@ON_SQLITE
def test_the_database_alone_tells_no_code(house: House) -> None:
    """C8: without the key, which is no part of the database, its rows lead to no code."""
    codes_sent = {number(index): sent_code(house, number(index)) for index in range(20)}
    elsewhere = dataclasses.replace(house.world, key=b"x" * 32)
    with house.rules() as ctx:
        rows = ctx.tx.all(select(code))
    right = other = 0
    for row in rows:
        made = (row.id, row.destination, row.nonce)
        right += outbox.code_text(house.world, *made) == codes_sent[row.destination]
        other += outbox.code_text(elsewhere, *made) == codes_sent[row.destination]
    # One of twenty may be the same by chance, once in fifty thousand runs.
    assert right == 20
    assert other <= 1


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(log_format: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """C8, T2: an error's lines name places in the code, and no value that stood there."""

    def fail(password: str) -> None:
        raise ValueError(f"a reason of {len(password)} letters")

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(Settings(log_format=log_format))
        for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
            try:
                fail("canary-Möwe")
            except ValueError:
                log.exception("it broke")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert written.count("it broke") == 2
    # The line of the code that holds the canary may be shown; the value in a local may not.
    assert "password = 'canary-Möwe'" not in written


# ---------------------------------------------------------------- C9: captchas


def check_captcha_used_once(build: Build) -> None:
    house = build()
    right = captcha(house)
    assert send(house, number(1), puzzle=right).code == 1
    assert_refused(send(house, number(2), puzzle=right), WrongCaptcha)
    # A wrong answer spends it as well, and so does an answer whose send is refused.
    spoilt = captcha(house)
    bad = (spoilt[0], "2222" if spoilt[1] != "2222" else "3333")
    assert_refused(send(house, number(3), puzzle=bad), WrongCaptcha)
    assert_refused(send(house, number(3), puzzle=spoilt), WrongCaptcha)
    too_early = captcha(house)
    assert_refused(send(house, number(1), puzzle=too_early), SentTooOften, 60)
    assert_refused(send(house, number(4), puzzle=too_early), WrongCaptcha)
    assert {letter.destination for letter in house.letters()} == {number(1)}


def test_a_captcha_is_used_once(build: Build) -> None:
    """C9: single use, spent by a wrong answer too."""
    check_captcha_used_once(build)


def check_captcha_life(build: Build, **more: Any) -> None:
    house = build(**more)
    first, second = captcha(house), captcha(house)
    house.clock.advance(119)
    assert send(house, number(1), puzzle=first).code == 1
    house.clock.advance(1)
    assert_refused(send(house, number(2), puzzle=second), WrongCaptcha)


def test_life_of_a_captcha(build: Build) -> None:
    """C9: 120 s, to the second."""
    check_captcha_life(build)


@ON_SQLITE
def test_a_captcha_cannot_be_made_up(house: House) -> None:
    """C9: only this server's own puzzles count, with the end they were given."""
    puzzle_id, solution = captcha(house)
    assert len(solution) == captchas.LENGTH == 4
    assert set(solution) <= set(captchas.ALPHABET)
    assert not set(captchas.ALPHABET) & set("01OIl7")
    expires, _, rest = puzzle_id.partition("-")
    later = f"{int(expires, 16) + 3600:x}-{rest}"
    made_up = (later, puzzle_id[:-1], puzzle_id + "0", "", "-", "1-2-3", "é" * 40, "7" * 4096)
    for one in made_up:
        assert_refused(send(house, number(1), puzzle=(one, solution)), WrongCaptcha)
    for answer in ("", solution[:3], solution + "2", "é" * 4, solution[::-1] + "x"):
        assert_refused(send(house, number(1), puzzle=(puzzle_id, answer)), WrongCaptcha)
        puzzle_id, solution = captcha(house)
    assert house.letters() == []
    assert send(house, number(1), puzzle=(puzzle_id, f" {solution} ")).code == 1


def test_a_captcha_is_a_picture(house: House) -> None:
    """C9: what a client gets is a PNG, another one each time, and nothing that tells it."""
    first, second = house.client().captcha(), house.client().captcha()
    assert png_of(first.b64s) != png_of(second.b64s)
    solution = captchas.solution(house.world, first.id)
    assert solution is not None
    assert solution not in first.id.rpartition("-")[2]


# ---------------------------------------------------------------- C10: silence


def check_captcha_first(build: Build) -> None:
    house = build()
    for _ in range(12):
        puzzle_id, solution = captcha(house)
        spoilt = "2222" if solution != "2222" else "3333"
        assert_refused(send(house, number(1), puzzle=(puzzle_id, spoilt)), WrongCaptcha)
    assert house.letters() == []
    # Nor did the wrong answers use up what the owner of the number may ask for.
    assert send(house, number(1)).code == 1
    assert len(house.letters()) == 1


def test_nothing_is_sent_before_the_captcha(build: Build) -> None:
    """C10: a wrong answer sends nothing and counts against nobody's number."""
    check_captcha_first(build)


def test_silence_looks_like_sending(house: House) -> None:
    """C10: nothing leaves to a banned or locked address, or to a stranger's for a reset."""
    banned, other = house.person(1), house.person(2)
    for name in (number(7), "locked@example.org"):
        house.fail(f"code:{name}:", codes.FREE_FAILURES, limits.OFF)
    with house.rules() as ctx:
        people.ban(ctx, banned, house.clock.now() + 100)
        people.ban(ctx, other, house.clock.now() - 1)
    usual = send(house, number(1)).whole
    assert usual[0] == b'{"code":1,"msg":"success"}'
    cases = [
        ("13900000001", ""),
        ("person1@example.org", ""),
        ("person1@example.org", "forget_password"),
        (number(7), ""),
        ("locked@example.org", ""),
        ("stranger@example.org", "forget_password"),
    ]
    for to, typ in cases:
        house.clock.advance(10)
        said = send(house, to, typ=typ)
        if typ and to.startswith("person1"):
            # The interval counts as it does for an address that was written to.
            assert_refused(said, SentTooOften, 50)
        else:
            assert said.whole == usual, to
    assert [letter.destination for letter in house.letters()] == [number(1)]
    # Each of the three again, where it is not silent.
    for to, typ in (("13900000002", ""), ("person2@example.org", "forget_password")):
        assert send(house, to, typ=typ).whole == usual
    assert send(house, "somebody@example.org").whole == usual
    house.clock.advance(60)
    assert send(house, "13900000001").whole == usual
    assert {letter.destination for letter in house.letters()} == {
        number(1),
        "13900000002",
        "person2@example.org",
        "somebody@example.org",
        "13900000001",
    }


# ---------------------------------------------------------------- purposes


def test_a_typed_code_serves_the_reset_only(house: House) -> None:
    """A code for `forget_password` resets, and does nothing else."""
    house.person(1)
    text = sent_code(house, "person1@example.org", "forget_password")
    stranger = house.login(2)
    for path, body in (
        ("bing-email", {"email": "person1@example.org"}),
        ("change-email-check", {"email": "person1@example.org"}),
    ):
        said = say(
            house, f"/v1/user/{path}", {**body, "captcha": text}, headers={"token": stranger.token}
        )
        assert_refused(said, WrongCode)
    owner = house.token(house.person(3))
    assert send(house, "person3@example.org", typ="forget_password").code == 1
    theirs = house.letters("person3@example.org")[0]
    assert theirs.purpose == "code-reset"
    said = say(
        house,
        "/v1/user/cancel-user",
        {"email": "person3@example.org", "captcha": theirs.code},
        headers={"token": owner},
    )
    assert_refused(said, WrongCode)
    new = {"email": "person1@example.org", "captcha": text, "password": "sieben graue Gänse"}
    assert say(house, "/v1/user/forget-password", new).code == 1


def test_an_untyped_code_serves_everything(house: House) -> None:
    """A code asked for without `typ` binds, changes, deletes, resets and logs in."""
    calls = [
        ("bing-email", {"email": "new1@example.org"}),
        ("change-email-check", {"email": "new2@example.org"}),
        ("cancel-user", {"email": "person3@example.org"}),
        ("forget-password", {"email": "person4@example.org", "password": "sieben graue Gänse"}),
        ("verification-login", {"mobile": "13900000005"}),
        ("bing-phone", {"phone": number(6)}),
        ("change-phone-check", {"phone": number(7)}),
        ("cancel-user", {"phone": "13900000008"}),
    ]
    for index, (path, body) in enumerate(calls, start=1):
        me, to = house.login(index), next(iter(body.values()))
        text = sent_code(house, to)
        # One for the reset, sent after it, does not stand in its way.
        if path == "cancel-user" and "@" in to:
            house.clock.advance(60)
            assert send(house, to, typ="forget_password").code == 1
            assert house.letters(to)[0].purpose == "code-reset"
        headers = {"token": me.token}
        said = say(house, f"/v1/user/{path}", {**body, "captcha": text}, headers=headers)
        assert said.code == 1, (path, said.msg)


# ---------------------------------------------------------------- C13: fixed codes


FIXED: dict[str, Any] = {
    "test_codes": {"13800000001": "135790"},
    "test_codes_until": date(2026, 3, 2),
}


@pytest.mark.parametrize(
    ("numbers", "until"),
    [
        ({"13912345678": "123456"}, date(2099, 1, 1)),
        ({"somebody@gmail.com": "123456"}, date(2099, 1, 1)),
        ({"x@y@example.com": "123456"}, date(2099, 1, 1)),
        ({"13800000001": "12345"}, date(2099, 1, 1)),
        ({"13800000001": "abcdef"}, date(2099, 1, 1)),
        ({"13800000001": "123456"}, None),
    ],
)
def test_fixed_codes_are_for_reserved_numbers(numbers: dict[str, str], until: date | None) -> None:
    """C13: reserved test numbers and domains only, six digits, and never without an end."""
    with pytest.raises(ValidationError):
        Settings(test_codes=numbers, test_codes_until=until)


def test_fixed_codes_end(build: Build) -> None:
    """C13: good until the end of their last local day, to the second."""
    house, to = build(**FIXED), "13800000001"
    assert sent_code(house, to) == "135790"
    assert redeem(house, to, "135790").code == 1
    last_second = NOON + DAY // 2 - 1
    house.clock.time = last_second - 60
    assert sent_code(house, to) == "135790"
    house.clock.time = last_second
    assert redeem(house, to, "135790").code == 1
    house.clock.time = last_second + 1
    text = sent_code(house, to)
    assert text != "135790"
    assert_refused(redeem(house, to, "135790"), WrongCode)
    assert redeem(house, to, text).code == 1
    assert sent_code(house, "13800000002") != "135790"


def test_fixed_codes_are_no_production(tmp_path: Path) -> None:
    """C13: `hupan serve` does not start with them, however long they have been over."""
    for until in (date(2000, 1, 1), date(2099, 1, 1)):
        settings = Settings(
            data_dir=tmp_path, test_codes=FIXED["test_codes"], test_codes_until=until
        )
        with pytest.raises(SettingsError, match="test_codes"):
            run(settings)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the checks fail without a guard


def _always_another_code(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(codes, "_alive", lambda *_: None)


def _resend_lengthens(patch: pytest.MonkeyPatch) -> None:
    real = codes._alive

    def alive(ctx: Context, destination: str, purposes: Any) -> int | None:
        found = real(ctx, destination, purposes)
        ctx.tx.run(code.update().where(code.c.id == found).values(expires_at=ctx.now + 300))
        return found

    patch.setattr(codes, "_alive", alive)


def _use_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(codes, "use", lambda ctx, proof: ctx.tx.begin())


def _tries_are_rolled_back(patch: pytest.MonkeyPatch) -> None:
    for module in (codes, limits):
        patch.setattr(module, "aside", lambda _: contextlib.nullcontext())


def _no_failures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "count_failure", lambda *_: None)


def _new_code_forgives(patch: pytest.MonkeyPatch) -> None:
    real = codes._issue

    def issue(ctx: Context, channel: str, destination: str, purpose: str) -> int:
        limits.forget(ctx, f"code:{destination}:")
        return real(ctx, channel, destination, purpose)

    patch.setattr(codes, "_issue", issue)


def _failures_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Failures that only one server knows."""
    real = limits.check_failures

    def check(ctx: Context, key: str) -> None:
        first = seen.setdefault(key, ctx.world)
        if first is ctx.world:
            real(ctx, key)

    seen: dict[str, object] = {}
    patch.setattr(limits, "check_failures", check)


def _every_address_is_a_source(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Door, "_source", lambda _, ask: Source(ask.peer, ask.peer))


def _first_hop_is_believed(patch: pytest.MonkeyPatch) -> None:
    def source(_: Door, ask: Ask) -> Source:
        first = ask.headers.get("x-forwarded-for", ask.peer).partition(",")[0]
        return Source(first, first)

    patch.setattr(Door, "_source", source)


def _refused_sends_count(patch: pytest.MonkeyPatch) -> None:
    """The number is counted in a transaction of its own before its source is looked at."""
    real = codes._count_send

    def count(ctx: Context, destination: str) -> None:
        with aside(ctx):
            limits.take(ctx, f"send:{destination}", 1, 60, SentTooOften)
        with aside(ctx):
            ctx.tx.run(rate.delete().where(rate.c.key == f"send:{destination}"))
        try:
            real(ctx, destination)
        except TooManyRequests:
            with aside(ctx):
                limits.take(ctx, f"send:{destination}", 1, 60, SentTooOften)
            raise

    patch.setattr(codes, "_count_send", count)


def _wrong_answer_spends_nothing(patch: pytest.MonkeyPatch) -> None:
    real = captchas.spend

    def spend(ctx: Context, captcha_id: str, answer: str) -> None:
        if captchas.solution(ctx.world, captcha_id) != answer:
            raise WrongCaptcha()
        real(ctx, captcha_id, answer)

    patch.setattr(captchas, "spend", spend)


def _captcha_spent_with_the_send(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(captchas, "aside", lambda _: contextlib.nullcontext())
    patch.setattr(codes, "_count_send", lambda *_: None)


def _captcha_last(patch: pytest.MonkeyPatch) -> None:
    spend = captchas.spend
    real = codes._count_send
    later: list[tuple[str, str]] = []
    patch.setattr(captchas, "spend", lambda _, *given: later.append(given))

    def count(ctx: Context, destination: str) -> None:
        real(ctx, destination)
        spend(ctx, *later.pop())

    patch.setattr(codes, "_count_send", count)


def _nothing(_: pytest.MonkeyPatch) -> None:
    """The settings alone are the mutant."""


@ON_SQLITE
@pytest.mark.parametrize(
    ("check", "take_away", "settings"),
    [
        (check_life, _nothing, {"code_seconds": 299}),
        (check_life, _nothing, {"code_seconds": 301}),
        (check_life, _always_another_code, {}),
        (check_life, _resend_lengthens, {}),
        (check_used_once, _use_does_nothing, {}),
        (check_tries, _nothing, {"code_tries": 4}),
        (check_tries, _nothing, {"code_tries": 6}),
        (check_tries, _tries_are_rolled_back, {}),
        (check_back_off, _no_failures, {}),
        (check_back_off, _new_code_forgives, {}),
        (check_back_off, _failures_in_memory, {}),
        (check_interval, _nothing, {"code_interval_seconds": 59}),
        (check_interval, _nothing, {"code_interval_seconds": 61}),
        (check_day_limit, _nothing, {"code_day_limit": 9}),
        (check_day_limit, _nothing, {"code_day_limit": 11}),
        (check_source_limit, _nothing, {"source_send_limit": 4}),
        (check_source_limit, _nothing, {"source_send_limit": 6}),
        (check_source_limit, _nothing, {"limit_sources": False}),
        (check_source_limit, _refused_sends_count, {}),
        (check_network_limit, _nothing, {"network_send_limit": 19}),
        (check_network_limit, _nothing, {"network_send_limit": 21}),
        (check_ipv6, _every_address_is_a_source, {}),
        (check_ipv6, _nothing, {"network_send_limit": 21}),
        (check_forwarded_is_not_believed, _nothing, {"trusted_proxies": ["0.0.0.0/0"]}),
        (check_proxy, _first_hop_is_believed, {}),
        (check_proxy, _nothing, {"trusted_proxies": []}),
        (check_budget, _nothing, {"site_send_limit": 11}),
        (check_captcha_used_once, _wrong_answer_spends_nothing, {}),
        (check_captcha_used_once, _captcha_spent_with_the_send, {}),
        (check_captcha_life, _nothing, {"captcha_seconds": 119}),
        (check_captcha_life, _nothing, {"captcha_seconds": 121}),
        (check_captcha_first, _captcha_last, {}),
    ],
)
def test_checks_fail_on_mutants(
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[..., None],
    take_away: TakeAway,
    settings: dict[str, Any],
) -> None:
    """C2-C10: each check fails where its limit is off by one or its guard is gone."""
    take_away(monkeypatch)
    with pytest.raises(AssertionError):
        check(build, **settings)
