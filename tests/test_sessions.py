"""Tokens and sessions: their shape, their number, their life and their end (T1-T6).

A check of a limit is a function of its own, so that it can also be run on a server whose limit is
off by one or whose guard is gone: there it must fail.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select

from hupan.accounts import captchas, links, passwords, people, sessions
from hupan.accounts.tables import session
from hupan.outside.database import SqlDatabase, SqlTransaction
from tests.house import DAY, House, shaped_like_token

Build = Callable[..., House]
TakeAway = Callable[[pytest.MonkeyPatch], None]

#: A check that fails on a mutant says nothing about databases, so that one of them is enough.
ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

NOT_LOGGED_IN = (-101, "未登录")
RIGHT = "sieben graue Gänse"


def answer(house: House, path: str, token: str | bytes, **body: str) -> tuple[int, str]:
    """Call with a token and read the envelope."""
    reply = house.api.post(path, content=json.dumps(body), headers={b"token": _bytes(token)})
    assert reply.status_code == 200
    assert "data" not in reply.json() or reply.json()["code"] == 1
    return reply.json()["code"], reply.json()["msg"]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def alive(house: House, token: str) -> bool:
    """Whether a token is still good; anything but a clear answer is an error."""
    said = answer(house, "/v1/user/get-user-data", token)
    assert said in ((1, "success"), NOT_LOGGED_IN)
    return said[0] == 1


def count(house: House) -> int:
    """How many sessions are stored."""
    with house.rules() as ctx:
        return int(ctx.tx.value(select(func.count()).select_from(session)))


@contextmanager
def statements(house: House) -> Iterator[list[str]]:
    """Every statement that reaches the database."""
    assert isinstance(house.world.database, SqlDatabase)
    engine, seen = house.world.database.engine, list[str]()

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        seen.append(text)

    run = SqlTransaction._run_compiled

    def note_compiled(tx: SqlTransaction, statement: Any, values: Any) -> Any:
        seen.append(tx.database.compiled[statement].sql)
        return run(tx, statement, values)

    event.listen(engine, "before_cursor_execute", note)
    with pytest.MonkeyPatch.context() as patch:
        # These are run by the driver without SQLAlchemy's events.
        patch.setattr(SqlTransaction, "_run_compiled", note_compiled)
        yield seen
    event.remove(engine, "before_cursor_execute", note)


# ---------------------------------------------------------------- T1: tokens


@ON_SQLITE
def test_tokens_are_random(house: House) -> None:
    """T1: base62 in `8-4-4-12`, every character of the random part as likely as every other."""
    with house.rules() as ctx:
        made = [sessions.new_token(ctx) for _ in range(4000)]
    assert len(set(made)) == len(made)
    assert all(shaped_like_token(token) and sessions.well_formed(token) for token in made)
    characters = Counter("".join(token.replace("-", "")[:22] for token in made))
    assert len(characters) == 62
    expected = characters.total() / 62
    seen = sum((found - expected) ** 2 for found in characters.values()) / expected
    # Six standard deviations: chance goes there once in a thousand million runs.
    assert abs(seen - 61) < 6 * math.sqrt(2 * 61)


def check_entropy(build: Build, patch: pytest.MonkeyPatch) -> None:
    house, bits = build(), 0.0
    me = house.person(1)
    real = secrets.randbelow

    def counted(limit: int) -> int:
        nonlocal bits
        bits += math.log2(limit)
        return real(limit)

    patch.setattr(secrets, "randbelow", counted)
    first = house.token(me)
    assert bits >= 128
    patch.setattr(secrets, "randbelow", real)
    assert house.token(me) != first


def test_bits_of_a_token(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """T1: at least 128 bits of the operating system's randomness go into one token."""
    check_entropy(build, monkeypatch)


@ON_SQLITE
def test_a_misread_token_is_no_token(house: House) -> None:
    """T1: the checksum sees every wrong character, and every two that changed places."""
    token = house.token(house.person(1))
    for place, char in enumerate(token):
        others = set(sessions.ALPHABET + "-_ ") - {char}
        for other in sorted(others):
            assert not sessions.well_formed(token[:place] + other + token[place + 1 :])
        swapped = token[:place] + token[place : place + 2][::-1] + token[place + 2 :]
        assert swapped == token or not sessions.well_formed(swapped)


def check_junk(build: Build) -> None:
    house = build()
    token = house.token(house.person(1))
    other = "0" if token[-1] != "0" else "1"
    junk: list[str | bytes] = [
        token[:-1] + other,
        other + token[1:] if token[0] != other else "z" + token[1:],
        token[:-1],
        token + "0",
        token.replace("-", ""),
        token.replace("-", "_"),
        token.swapcase(),
        f"{token}, {token}",
        "00000000-0000-0000-000000000000",
        "null",
        "undefined",
        "' OR 1=1 --",
        "é" * 31,
        "éééééééé-éééé-éééé-éééééééééééé".encode("latin-1"),
        "１２３４５６７８-1234-1234-123456789012",
        "x" * 8000,
        "-" * 31,
        b"\xff\xfe",
    ]
    alive(house, token)
    with statements(house) as seen:
        for one in junk:
            assert answer(house, "/v1/user/get-user-data", one) == NOT_LOGGED_IN, one
    assert seen == []
    # One that could be a token costs one look, and a live one is found by it.
    with house.rules() as ctx:
        unknown = sessions.new_token(ctx)
    with statements(house) as seen:
        assert not alive(house, unknown)
    assert len(seen) == 1
    assert alive(house, f" {token} ")


def test_junk_does_not_reach_the_database(build: Build) -> None:
    """T1: what has no valid checksum is refused without a single statement."""
    check_junk(build)


def test_junk_on_a_public_row_is_ignored(house: House) -> None:
    """T1: where any token will do, junk is looked up no more than elsewhere."""
    me = house.person(1)
    with statements(house) as seen:
        reply = house.post("/v1/user/get-user", json.dumps({"id": str(me)}), token="whatever")
    assert reply.json()["code"] == 1
    assert seen
    assert not any(re.search(r"\bsession\b", text) for text in seen)


# ---------------------------------------------------------------- T2: what is stored


def test_only_the_hash_is_stored(house: House) -> None:
    """T2: the database has the SHA-256 of a token; the token opens, its hash does not."""
    me = house.person(1)
    tokens = [house.token(me, device) for device in ("a", "b")]
    with house.rules() as ctx:
        rows = ctx.tx.all(select(session).order_by(session.c.id))
    assert [bytes(row.token_hash) for row in rows] == [
        hashlib.sha256(token.encode()).digest() for token in tokens
    ]
    for row, token in zip(rows, tokens, strict=True):
        kept = repr(tuple(row))
        assert token not in kept
        assert token.replace("-", "")[:22] not in kept
        assert not alive(house, bytes(row.token_hash).hex())
        assert alive(house, token)


def test_a_token_in_an_address_is_no_login(house: House) -> None:
    """T2: neither the query nor a cookie carries a token, only the two headers do."""
    token = house.token(house.person(1))
    path, json_only = "/v1/user/info", {"accept": "application/json"}
    for reply in (
        house.api.get(path, params={"token": token}, headers=json_only),
        house.api.get(path, headers={**json_only, "cookie": f"token={token}"}),
        house.web.get(path, params={"token": token}),
    ):
        assert (reply.json()["code"], reply.json()["msg"]) == NOT_LOGGED_IN
    for headers in ({"Token": token}, {"authorization": f"bearer {token}"}):
        assert house.api.get(path, headers={**json_only, **headers}).json()["code"] == 1


# ---------------------------------------------------------------- T3: how many


def check_most(build: Build, **more: Any) -> None:
    house = build(**more)
    me, other = house.person(1), house.person(2, password=RIGHT)
    theirs = house.token(other)
    tokens = []
    for index in range(20):
        tokens.append(house.token(me, f"device {index}"))
        house.clock.advance(600)
    assert count(house) == 21, "parallel sessions live on"
    # The oldest has been used meanwhile, so that the second is idle for longest.
    assert alive(house, tokens[0])
    house.clock.advance(600)
    tokens.append(house.token(me, "one more"))
    assert [alive(house, token) for token in tokens] == [True, False, *([True] * 19)]
    assert alive(house, theirs)
    # A login over the wire makes room in the same way, of its own account only.
    login = {"email": "person2@example.org", "password": RIGHT, "deviceId": "constant"}
    newest = ""
    for _ in range(25):
        house.clock.advance(1)
        reply = house.post("/v1/user/email-login", json.dumps(login))
        newest = reply.json()["data"]["token"]
    assert count(house) == 40
    assert alive(house, newest)
    assert not alive(house, theirs)
    assert alive(house, tokens[0])


def test_twenty_sessions(build: Build) -> None:
    """T3: twenty live side by side; at the next the longest idle leaves, not the oldest."""
    check_most(build)


# ---------------------------------------------------------------- T4: how long


def check_idle(build: Build, **more: Any) -> None:
    house = build(**more)
    me = house.person(1)
    used, idle = house.token(me, "a"), house.token(me, "b")
    house.clock.advance(30 * DAY - 1)
    assert alive(house, used)
    house.clock.advance(1)
    assert not alive(house, idle)
    assert alive(house, used)
    house.clock.advance(30 * DAY - 2)
    assert alive(house, used), "what was used has thirty more days"
    assert not alive(house, idle)


def test_idle_life(build: Build) -> None:
    """T4: 30 days without a call, to the second."""
    check_idle(build)


def check_absolute(build: Build, **more: Any) -> None:
    house = build(**more)
    token = house.token(house.person(1))
    for _ in range(6):
        house.clock.advance(29 * DAY)
        assert alive(house, token)
    house.clock.advance(6 * DAY - 1)
    assert alive(house, token)
    house.clock.advance(1)
    assert not alive(house, token), "180 days are the end, however busy they were"


def test_absolute_life(build: Build) -> None:
    """T4: 180 days from the login, to the second, for a session in daily use too."""
    check_absolute(build)


def test_sweeping_takes_only_what_is_over(house: House) -> None:
    """T4: the sweep drops a session at the second it ends, not before."""
    me = house.person(1)
    token = house.token(me)
    for advance, left in ((30 * DAY - 1, 1), (1, 0)):
        house.clock.advance(advance)
        with house.rules() as ctx:
            sessions.sweep(ctx)
        assert count(house) == left
    assert not alive(house, token)


# ---------------------------------------------------------------- T5: how it ends


End = Callable[[House, int, str], None]


def code_for(house: House, to: str) -> str:
    """A code without the pictures."""
    house.clock.advance(60)
    with house.rules() as ctx:
        puzzle = captchas.new(ctx)
    solution = captchas.solution(house.world, puzzle) or ""
    house.client().get_email_verification_code(email=to, id=puzzle, code=solution)
    return house.letters(to)[0].code


def by_ban(house: House, me: int, _: str) -> None:
    with house.rules() as ctx:
        people.ban(ctx, me, house.clock.now() + 3600)


def by_deletion(house: House, me: int, token: str) -> None:
    mail = house.client(token).info().email
    house.client(token).cancel_user(email=mail, captcha=code_for(house, mail))


def by_reset(house: House, me: int, token: str) -> None:
    mail = house.client(token).info().email
    house.client().forget_password(email=mail, captcha=code_for(house, mail), password=RIGHT)


def by_setup_link(house: House, me: int, _: str) -> None:
    with house.rules() as ctx:
        ctx.tx.begin()
        secret = links.text(ctx, links.create(ctx, me, "setup"))
    body = {"secret": secret, "password": RIGHT}
    assert house.web.post("/account/link", json=body).json()["code"] == 1


def by_operator(house: House, me: int, _: str) -> None:
    with house.rules("operator") as ctx:
        passwords.store(ctx, me, passwords.make_hash(ctx.settings, RIGHT))


def by_undo(house: House, me: int, token: str) -> None:
    mail = house.client(token).info().email
    house.client(token).change_email(
        email="thief@example.net", captcha=code_for(house, "thief@example.net")
    )
    secret = house.letters(mail)[0].text.partition("#")[2]
    assert house.web.post("/account/link", json={"secret": secret}).json()["code"] == 1


EVERY_SESSION: list[End] = [by_ban, by_deletion, by_reset, by_setup_link, by_operator, by_undo]


def check_end_of_all(build: Build, ends: list[End]) -> None:
    house = build()
    second = build()
    bystander = house.token(house.person(99))
    for number, end in enumerate(ends, start=1):
        me = house.person(number)
        tokens = [house.token(me, device) for device in ("a", "b", "", "b")]
        assert all(alive(server, token) for server in (house, second) for token in tokens)
        end(house, me, tokens[0])
        # Not on the server that did it and not on another, with no time in between.
        assert not any(alive(server, token) for server in (second, house) for token in tokens), end
        # And not when the reason is over: the ban has run out by now.
        house.clock.advance(3600)
        assert not any(alive(second, token) for token in tokens), end
        assert alive(house, bystander)


def test_every_session_ends(build: Build) -> None:
    """T5: ban, deletion, reset, a password by link or operator, and an undone contact change."""
    check_end_of_all(build, EVERY_SESSION)


def check_logout(build: Build) -> None:
    house, second = build(), build()
    me = house.person(1)
    first, other = house.token(me, "same"), house.token(me, "same")
    # The device that is named there is often another; it is the token that counts.
    assert answer(house, "/v1/user/logout", first, **{"device-id": "no such device"})[0] == 1
    assert not alive(second, first)
    assert not alive(house, first)
    assert alive(second, other)
    assert answer(house, "/v1/user/logout", first) == NOT_LOGGED_IN
    assert count(house) == 1


def test_a_logout_ends_one_session(build: Build) -> None:
    """T5: exactly the presented one, at once and everywhere."""
    check_logout(build)


def check_device_offline(build: Build) -> None:
    house, second = build(), build()
    me, other = house.person(1), house.person(2)
    tokens = {name: house.token(me, name) for name in ("a", "b", "c")}
    again, theirs = house.token(me, "b"), house.token(other, "b")
    assert answer(house, "/v1/user/device-offline", tokens["a"], deviceId="none of them")[0] == -1
    assert count(house) == 5
    assert answer(house, "/v1/user/device-offline", tokens["a"], deviceId="b")[0] == 1
    for server in (second, house):
        assert not alive(server, tokens["b"])
        assert not alive(server, again)
        assert alive(server, tokens["a"])
        assert alive(server, tokens["c"])
        assert alive(server, theirs), "the device of the same name is somebody else's"
    # One's own device goes as well, with the session that asked.
    assert answer(house, "/v1/user/device-offline", tokens["a"], deviceId="a")[0] == 1
    assert not alive(second, tokens["a"])


def test_device_offline_ends_its_sessions(build: Build) -> None:
    """T5: all sessions of that device of that account, at once and everywhere."""
    check_device_offline(build)


def test_a_dead_token_is_dead_everywhere(house: House) -> None:
    """T5: every row that needs a token refuses it, in the format it always answers in."""
    from hupan.protocol.row import Auth, Host
    from hupan.protocol.table import rows
    from hupan.protocol.wire import Format, Refused, decode_answer

    me = house.person(1)
    token = house.token(me)
    answer(house, "/v1/user/logout", token)
    needing = [row for row in rows() if row.auth is Auth.LIVE]
    assert len(needing) > 20
    for row in needing:
        face = house.api if row.host is Host.API else house.web
        reply = face.request(row.methods[0], row.path, headers={"token": token})
        assert reply.status_code == 200
        if reply.headers["content-type"].startswith(Format.JSON.value):
            assert reply.json() == {"code": -101, "msg": "未登录"}
        else:
            with pytest.raises(Refused) as refused:
                decode_answer(row, reply.content)
            assert (refused.value.code, refused.value.msg) == NOT_LOGGED_IN


# ---------------------------------------------------------------- T6: reads stay reads


def check_touch(build: Build) -> None:
    house = build()
    token = house.token(house.person(1))

    def written(calls: int = 1) -> list[str]:
        with statements(house) as seen:
            for _ in range(calls):
                assert alive(house, token)
        assert seen
        return [text for text in seen if not text.lstrip().startswith("SELECT")]

    def last_seen() -> int:
        with house.rules() as ctx:
            return int(ctx.tx.value(select(session.c.seen_at)))

    opened = house.clock.now()
    assert written(20) == []
    house.clock.advance(299)
    assert written(20) == []
    assert last_seen() == opened
    house.clock.advance(1)
    assert [text.split()[1] for text in written() if text.startswith("UPDATE")].count(
        "session"
    ) == 1
    assert last_seen() == opened + 300
    assert written(20) == []
    house.clock.advance(299)
    assert written(20) == []
    house.clock.advance(1)
    assert written()


def test_last_seen_is_rarely_written(build: Build) -> None:
    """T6: once in five minutes; the reads in between take no lock and write nothing."""
    check_touch(build)


# ---------------------------------------------------------------- the checks fail without a guard


def _nothing(_: pytest.MonkeyPatch) -> None:
    """The settings alone are the mutant."""


def _short_tokens(patch: pytest.MonkeyPatch) -> None:
    # The rest is padding that nobody has to guess.
    patch.setattr(sessions, "RANDOM", 21)


def _no_checksum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "well_formed", lambda token: True)


def _oldest_leaves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "TOUCH", 10**9)


def _end_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "end", lambda ctx, who: ctx.note("logout", who.account_id))


def _logout_ends_the_device(patch: pytest.MonkeyPatch) -> None:
    def end(ctx: Any, who: Any) -> None:
        ctx.tx.run(session.delete().where(session.c.device_id == who.device_id))

    patch.setattr(sessions, "end", end)


def _offline_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.devices.offline", lambda *_: None)


def _sessions_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "end_all", lambda ctx, _: ctx.tx.begin())


def _remembered_sessions(patch: pytest.MonkeyPatch) -> None:
    """A server that trusts what it saw before, as a cache without a check would."""
    real, known = sessions.admit, dict[tuple[int, str], Any]()

    def admit(ctx: Any, token: str) -> Any:
        key = id(ctx.world), token
        if key not in known:
            known[key] = real(ctx, token)
        return known[key]

    patch.setattr(sessions, "admit", admit)


def _touch_always(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "TOUCH", 0)


def _touch_a_second_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "TOUCH", 299)


def _touch_a_second_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sessions, "TOUCH", 301)


@ON_SQLITE
@pytest.mark.parametrize(
    ("check", "take_away", "settings"),
    [
        (check_entropy, _short_tokens, {}),
        (check_junk, _no_checksum, {}),
        (check_most, _nothing, {"max_sessions": 19}),
        (check_most, _nothing, {"max_sessions": 21}),
        (check_most, _oldest_leaves, {}),
        (check_idle, _nothing, {"session_idle_days": 29}),
        (check_idle, _nothing, {"session_idle_days": 31}),
        (check_absolute, _nothing, {"session_life_days": 179}),
        (check_absolute, _nothing, {"session_life_days": 181}),
        (check_logout, _end_does_nothing, {}),
        (check_logout, _logout_ends_the_device, {}),
        (check_logout, _remembered_sessions, {}),
        (check_device_offline, _offline_does_nothing, {}),
        (check_device_offline, _remembered_sessions, {}),
        (check_touch, _touch_always, {}),
        (check_touch, _touch_a_second_early, {}),
        (check_touch, _touch_a_second_late, {}),
    ],
)
def test_checks_fail_on_mutants(
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[..., None],
    take_away: TakeAway,
    settings: dict[str, Any],
) -> None:
    """T1-T6: each check fails where its limit is off by one or its guard is gone."""
    take_away(monkeypatch)
    more = (monkeypatch,) if check is check_entropy else ()
    with pytest.raises(AssertionError):
        check(build, *more, **settings)


@ON_SQLITE
@pytest.mark.parametrize("take_away", [_sessions_stay, _remembered_sessions])
@pytest.mark.parametrize("end", [by_ban, by_reset, by_setup_link, by_operator, by_undo])
def test_ends_are_seen_to_be_missing(
    build: Build, monkeypatch: pytest.MonkeyPatch, take_away: TakeAway, end: End
) -> None:
    """T5: the check of every kind of end fails where sessions stay or are remembered."""
    take_away(monkeypatch)
    with pytest.raises(AssertionError):
        check_end_of_all(build, [end])
