"""Contacts, what may be written and who sees what, and the audit of it all (P6, I1, I2, A1).

A check of a limit is a function of its own, so that it can also be run on a server without the
guard: there it must fail.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from hupan.accounts import audit as book
from hupan.accounts import captchas, chains, coins, links, people
from hupan.accounts.refusals import (
    BadAvatar,
    BadEmail,
    BadLink,
    BadNickname,
    BadPhone,
    CoinsShort,
    EmailTaken,
    NotLoggedIn,
    NotYourContact,
    PhoneTaken,
    Refusal,
    SameContact,
    UnknownUser,
    WrongCode,
    WrongPassword,
)
from hupan.accounts.tables import account, audit, audit_head
from hupan.accounts.texts import clean
from tests.house import House, hupan

Build = Callable[..., House]
TakeAway = Callable[[pytest.MonkeyPatch], None]

#: A check that fails on a mutant says nothing about databases, so that one of them is enough.
ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

RIGHT = "sieben graue Gänse"
PHONE, MAIL = "13900000001", "person1@example.org"
Said = tuple[int, str]


def say(house: House, path: str, token: str = "", **body: str) -> Said:
    """Call a row of the user module in JSON and read the envelope."""
    headers = {"token": token} if token else {}
    reply = house.api.post(f"/v1/user/{path}", content=json.dumps(body), headers=headers)
    assert reply.status_code == 200
    return reply.json()["code"], reply.json()["msg"]


def open_link(house: House, secret: str, *, look: bool = False) -> Said:
    """What the page of the web host sends."""
    reply = house.web.post("/account/link", json={"secret": secret, "look": look})
    assert reply.status_code == 200
    return reply.json()["code"], reply.json()["msg"]


DONE = (1, "success")


def no(why: type[Refusal], **words: Any) -> Said:
    """How a refusal reads."""
    return why.code, why(**words).text("zh")


def ask(house: House, to: str) -> Said:
    """Ask for a code over the wire, past the interval."""
    house.clock.advance(60)
    with house.rules() as ctx:
        puzzle = captchas.new(ctx)
    body = {"id": puzzle, "code": captchas.solution(house.world, puzzle) or ""}
    if "@" in to:
        return say(house, "../verification/get-email-verification-code", **body, email=to)
    return say(house, "../verification/get-verification-code", **body, mobile=to)


def code_for(house: House, to: str, written: str = "") -> str:
    """A code, read where it was sent; `written` is how the person wrote the address."""
    assert ask(house, written or to) == DONE
    return house.letters(to)[0].code


def undo_link(house: House, to: str) -> str:
    """The secret of the link in the newest letter to an address."""
    letter = house.letters(to)[0]
    assert "/account/link#" in letter.text, letter.text
    return letter.text.partition("#")[2].strip()


def contacts(house: House, account_id: int) -> tuple[str | None, str | None]:
    with house.rules() as ctx:
        mine = people.get(ctx, account_id)
    return mine.phone, mine.email


# ---------------------------------------------------------------- what a contact looks like


def test_a_number_is_one_number_however_written(build: Build) -> None:
    """Spaces, hyphens, `86`, `+86` and `0086` lead to the same account."""
    house = build(code_day_limit=1000)
    written = [
        "13912345678",
        "+8613912345678",
        "8613912345678",
        "008613912345678",
        "+86 139 1234 5678",
        " 86 139-1234-5678 ",
        "(+86) 139 1234 5678",
        "139\u00a01234\u00a05678",
    ]
    for index, mobile in enumerate(written):
        code = code_for(house, "13912345678", written[-1 - index])
        assert say(house, "verification-login", mobile=mobile, captcha=code) == DONE, mobile
    with house.rules() as ctx:
        assert [one.phone for one in people.search(ctx)] == ["13912345678"]


@ON_SQLITE
def test_foreign_numbers(house: House) -> None:
    """Numbers of other countries are kept in their international form, and shown so."""
    for written, kept in (
        ("+1 (415) 555-2671", "+14155552671"),
        ("+852 9123 4567", "+85291234567"),
        ("+44 7911 123456", "+447911123456"),
        ("0081 90 1234 5678", "+819012345678"),
    ):
        token = (
            house.client()
            .verification_login(mobile=written, captcha=code_for(house, kept, written))
            .token
        )
        assert house.client(token).info().phone == kept


@ON_SQLITE
def test_what_is_no_number(house: House) -> None:
    """A text that is no mobile number is refused, and nothing is sent to it."""
    bad = (
        "", " ", "1", "1391234567", "139123456789", "12912345678", "23912345678", "010-12345678",
        "+86 010 1234 5678", "+1 1", "+999 12345678", "abc", "1391234567x", "139 1234 5678;",
        "+", "13912345678,13912345679", "é" * 30, "1" * 4000,
    )  # fmt: skip
    me = house.login(1)
    for one in bad:
        assert ask(house, one) == no(BadPhone), one
        assert say(house, "verification-login", mobile=one, captcha="1") == no(BadPhone)
        assert say(house, "bing-phone", me.token, phone=one, captcha="1") == no(BadPhone)
    assert house.letters() == []


@ON_SQLITE
def test_what_is_no_address(house: House) -> None:
    """An address has two parts; case does not distinguish, and neither do spaces around it."""
    bad = (
        "@", "a@", "@b.org", "a@b", "a b@example.org", "a@@example.org", "a@exa mple.org",
        "a@-x.org", "a@example..org", f"a@{'b' * 250}.org",
        "a@example.org\r\nBcc: b@example.org", "a@example.org,b@example.org", "<a@example.org>",
    )  # fmt: skip
    me = house.login(1)
    for one in bad:
        assert ask(house, one) == no(BadEmail), one
        assert say(house, "bing-email", me.token, email=one, captcha="1") == no(BadEmail)
        assert say(house, "email-login", email=one, password="x") == no(BadEmail)
    assert house.letters() == []
    code = code_for(house, "new.name+tag@example.org", " New.Name+Tag@EXAMPLE.org ")
    assert (
        say(house, "bing-email", me.token, email="NEW.name+TAG@example.org", captcha=code) == DONE
    )
    assert me.info().email == "new.name+tag@example.org"


# ---------------------------------------------------------------- binding and changing


@pytest.mark.parametrize(
    ("path", "key", "new", "written"),
    [
        ("bing-phone", "phone", "13700000001", "+86 137 0000 0001"),
        ("change-phone-check", "phone", "+85291234567", "+852 9123-4567"),
        ("bing-email", "email", "new@example.org", "New@Example.org"),
        ("change-email-check", "email", "new@example.org", " new@example.org"),
    ],
)
def test_changing_a_contact(house: House, path: str, key: str, new: str, written: str) -> None:
    """P6: the code goes to the new contact; the old one is told and gets a link, the new is not."""
    me = house.login(1)
    old = {"phone": PHONE, "email": MAIL}[key]
    code = code_for(house, new, written)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    elsewhere = code_for(house, {"phone": "13700000009", "email": "other@example.org"}[key])
    for guess in (wrong, "", elsewhere if elsewhere != code else wrong):
        assert say(house, path, me.token, **{key: written, "captcha": guess}) == no(WrongCode)
    before = len(house.letters())
    assert say(house, path, me.token, **{key: written, "captcha": code}) == DONE
    assert getattr(me.info(), key) == new
    assert len(house.letters()) == before + 1
    letter = house.letters()[0]
    assert (letter.destination, letter.purpose) == (old, f"{key}-changed")
    assert letter.channel == {"phone": "sms", "email": "email"}[key]
    assert new not in letter.text
    assert undo_link(house, old)
    # The code is spent, and what is bound already cannot be bound again, however it is written.
    assert say(house, path, me.token, **{key: written, "captcha": code}) == no(SameContact)
    # The old contact is free for others.
    other = house.login(2)
    assert say(house, path, other.token, **{key: old, "captcha": code_for(house, old)}) == DONE


def test_a_first_contact(house: House) -> None:
    """P6: binding where nothing was bound works by either name; nothing that was proved is told."""
    with house.rules() as ctx:
        with_mail = people.create(ctx, email="only@example.org")
        with_phone = people.create(ctx, phone="13600000001")
    mail, phone = (house.client(house.token(one)) for one in (with_mail, with_phone))
    code = code_for(house, "13700000001")
    assert say(house, "change-phone-check", mail.token, phone="13700000001", captcha=code) == DONE
    code = code_for(house, "new@example.org")
    assert (
        say(house, "change-email-check", phone.token, email="new@example.org", captcha=code) == DONE
    )
    assert contacts(house, with_mail) == ("13700000001", "only@example.org")
    assert contacts(house, with_phone) == ("13600000001", "new@example.org")
    assert "changed" not in house.letters("13700000001")[0].purpose
    assert "changed" not in house.letters("new@example.org")[0].purpose


@pytest.mark.parametrize(
    ("path", "key", "taken", "why"),
    [
        ("bing-phone", "phone", "13900000002", PhoneTaken),
        ("change-email-check", "email", "person2@example.org", EmailTaken),
    ],
)
def test_a_contact_has_one_owner(
    house: House, path: str, key: str, taken: str, why: type[Refusal]
) -> None:
    """Whose a contact is, is told only to those who have proved to hold it; nothing changes."""
    me, other = house.login(1), house.person(2)
    assert say(house, path, me.token, **{key: taken, "captcha": "000000"}) == no(WrongCode)
    code = code_for(house, taken)
    assert say(house, path, me.token, **{key: taken, "captcha": code}) == no(why)
    assert contacts(house, other) == ("13900000002", "person2@example.org")
    assert (me.info().phone, me.info().email) == (PHONE, MAIL)
    assert not any("changed" in letter.purpose for letter in house.letters())


# ---------------------------------------------------------------- undoing


def change(house: House, token: str, new: str) -> None:
    """Change a contact over the wire."""
    key, path = ("email", "change-email-check") if "@" in new else ("phone", "change-phone-check")
    assert say(house, path, token, **{key: new, "captcha": code_for(house, new)}) == DONE


def check_undo(build: Build) -> None:
    house = build()
    for number, (old, thiefs) in enumerate(
        ((MAIL, "thief@example.net"), ("13900000002", "13666666666")), start=1
    ):
        me = house.person(number)
        before = contacts(house, me)
        mine, theirs = house.token(me, "mine"), house.token(me, "thief's")
        change(house, theirs, thiefs)
        secret = undo_link(house, old)
        for _ in range(2):
            assert open_link(house, secret, look=True) == DONE
        assert contacts(house, me) != before
        assert open_link(house, secret) == DONE
        assert contacts(house, me) == before
        for token in (mine, theirs):
            assert say(house, "get-user-data", token) == no(NotLoggedIn)
        # Used once, it undoes nothing any more, whatever is bound later.
        change(house, house.token(me), thiefs)
        assert open_link(house, secret) == no(BadLink)
        assert open_link(house, secret, look=True) == no(BadLink)
        assert contacts(house, me) != before


def test_undoing_a_change(build: Build) -> None:
    """P6: the link in the letter to the old contact gives it back, once, and ends every session."""
    check_undo(build)


def check_undo_ends(build: Build) -> None:
    house = build()
    both, secrets = [house.person(1), house.person(2)], []
    for number, me in enumerate(both, start=1):
        change(house, house.token(me), f"new{number}@example.org")
        secrets.append((undo_link(house, f"person{number}@example.org"), house.clock.now()))
    for (secret, changed_at), late in zip(secrets, (False, True), strict=True):
        house.clock.time = changed_at + 72 * 3600 - (0 if late else 1)
        wanted = no(BadLink) if late else DONE
        assert open_link(house, secret, look=True) == wanted
        assert open_link(house, secret) == wanted
    assert [contacts(house, me)[1] for me in both] == [MAIL, "new2@example.org"]


def test_undo_ends_after_72_hours(build: Build) -> None:
    """P6: good until the last second of the 72 hours, and over with it."""
    check_undo_ends(build)


def test_undo_when_somebody_else_has_it(house: House) -> None:
    """P6: a contact that has another owner by now stays theirs; the reason is told."""
    me = house.person(1)
    change(house, house.token(me), "new@example.org")
    secret = undo_link(house, MAIL)
    other = house.person(2)
    change(house, house.token(other), MAIL)
    assert open_link(house, secret) == no(EmailTaken)
    assert contacts(house, me) == (PHONE, "new@example.org")
    assert contacts(house, other) == ("13900000002", MAIL)


def check_thief_is_out(build: Build) -> None:
    house = build(code_interval_seconds=1)
    me = house.person(1, password=RIGHT)
    thief = house.token(me)
    change(house, thief, "first@thief.example.net")
    change(house, thief, "second@thief.example.net")
    owners, thiefs = undo_link(house, MAIL), undo_link(house, "first@thief.example.net")
    code = code_for(house, "second@thief.example.net")
    stolen = {"email": "second@thief.example.net", "captcha": code, "password": "nur meines, ha"}
    assert say(house, "forget-password", **stolen) == DONE
    assert open_link(house, owners) == DONE
    assert contacts(house, me) == (PHONE, MAIL)
    # Neither the thief's own undo link nor the thief's password leads back in.
    assert open_link(house, thiefs) == no(BadLink)
    assert contacts(house, me) == (PHONE, MAIL)
    assert say(house, "email-login", email=MAIL, password="nur meines, ha") == no(WrongPassword)
    reset = {"email": MAIL, "captcha": code_for(house, MAIL), "password": RIGHT}
    assert say(house, "forget-password", **reset) == DONE
    assert say(house, "email-login", email=MAIL, password=RIGHT) == DONE


def test_a_thief_is_out_after_the_undo(build: Build) -> None:
    """P6: what a thief got while the account was stolen is worth nothing after the undo."""
    check_thief_is_out(build)


def test_a_thief_cannot_undo_the_owners_undo(house: House) -> None:
    """P6: by using the link of a later change nobody takes the owner's own links away."""
    me = house.person(1)
    thief = house.token(me)
    for new in ("first@thief.example.net", "second@thief.example.net", "13666666666"):
        change(house, thief, new)
    owners, by_phone = undo_link(house, MAIL), undo_link(house, PHONE)
    assert open_link(house, undo_link(house, "first@thief.example.net")) == DONE
    assert contacts(house, me) == ("13666666666", "first@thief.example.net")
    assert open_link(house, owners) == DONE
    assert contacts(house, me) == ("13666666666", MAIL)
    assert open_link(house, by_phone) == DONE
    assert contacts(house, me) == (PHONE, MAIL)


def test_the_link_leads_to_the_web_host(build: Build) -> None:
    """P6: the link names the public web host, and its secret stays behind the `#`."""
    house = build(web_url="https://chat.example.org")
    me = house.login(1)
    change(house, me.token, "new@example.org")
    found = re.search(r"https?://\S+", house.letters(MAIL)[0].text)
    assert found
    assert found[0].startswith("https://chat.example.org/account/link#")
    assert open_link(house, found[0].partition("#")[2]) == DONE
    page = house.web.get("/account/link")
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"


# ---------------------------------------------------------------- deleting


def test_deleting_an_account(house: House) -> None:
    """A code to one of one's own contacts deletes; both contacts are told and free again."""
    for number, key in ((1, "phone"), (2, "email")):
        me = house.person(number, password=RIGHT)
        client = house.client(house.token(me))
        own = dict(zip(("phone", "email"), contacts(house, me), strict=True))
        proof = {key: own[key] or ""}
        stranger = {"phone": "13711111111", "email": "stranger@example.org"}[key]
        code = code_for(house, stranger)
        for bad, why in (
            ({key: stranger, "captcha": code}, NotYourContact),
            ({**proof, "captcha": "x"}, WrongCode),
            ({**proof, "captcha": ""}, WrongCode),
            ({"captcha": code}, BadEmail),
        ):
            assert say(house, "cancel-user", client.token, **bad) == no(why)
        assert client.info().id == str(me)
        code = code_for(house, own[key] or "")
        assert say(house, "cancel-user", client.token, **proof, captcha=code) == DONE

        assert say(house, "get-user-data", client.token) == no(NotLoggedIn)
        assert say(house, "get-user", "any", id=str(me)) == no(UnknownUser)
        assert say(house, "email-login", email=own["email"] or "", password=RIGHT) == no(
            WrongPassword
        )
        told = {
            letter.destination for letter in house.letters() if letter.purpose == "account-deleted"
        }
        assert set(own.values()) <= told
        # Whoever has the number now opens another account with it.
        code = code_for(house, own["phone"] or "")
        token = house.client().verification_login(mobile=own["phone"] or "", captcha=code).token
        fresh = house.client(token).info()
        assert (fresh.phone, fresh.email, fresh.coin) == (own["phone"], "", 0)
        assert int(fresh.id) > me
    with house.rules() as ctx:
        assert book.verify(ctx) == []


# ---------------------------------------------------------------- I1: what is displayed


#: What must not stand in a displayed text, by its kind.
UNSEEN = {
    "control": [chr(code) for code in (*range(1, 32), *range(0x7F, 0xA0))],
    "bidi": [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"],
    "zero width": [*"\u00ad\u034f\u180e\u200b\u200c\u200d\u2060\u2061\u2064\ufeff\u206a"],
    "line": ["\u2028", "\u2029", "\u0085"],
    "selectors": ["\ufe00", "\ufe0d", "\ufe0e", "\ufe0f", "\U000e0100", "\u180b"],
    "fillers": ["\u115f", "\u1160", "\u3164", "\uffa0", "\u17b4"],
    "tags": ["\U000e0001", "\U000e0041", "\ufff9"],
    "no characters": ["\ue000", "\uffff", "\U0010ffff"],
}


@ON_SQLITE
@pytest.mark.parametrize("kind_of", UNSEEN)
def test_unseen_characters_are_lost(house: House, kind_of: str) -> None:
    """I1: control, bidirectional and zero-width characters vanish from every displayed text."""
    for char in UNSEEN[kind_of]:
        for dirty in (f"湖{char}畔", f"{char}湖畔", f"湖畔{char}", f"{char} 湖畔{char}{char}"):
            assert clean(dirty) == "湖畔", ascii(dirty)
    junk = "".join(UNSEEN[kind_of])
    me, friend = house.login(1), house.login(2)
    me.edit_nickname(name=f"湖{junk}畔")
    me.save_user_data(
        introduction=f"湖{junk}畔", gender=1, birthday=0, province=f"湖{junk}畔",
        city=f"湖{junk}畔", district=f"湖{junk}畔", location_code=f"湖{junk}畔",
    )  # fmt: skip
    pairs = json.dumps([{"key": f"湖{junk}畔", "value": f"湖{junk}畔"}])
    friend.save_user_remarks(
        friend_id=me.info().id, name=f"湖{junk}畔", phone=f"湖{junk}畔", others=pairs
    )
    seen: Any = friend.get_user(id=me.info().id)
    told = me.get_user_data().data
    wanted = {"湖畔", "湖\n畔"} if kind_of == "control" else {"湖畔"}
    assert {
        seen.name, seen.remark_info.remark_name, seen.remark_info.phone_number,
        told.province, told.city, told.district, told.location_code,
    } == {"湖畔"}  # fmt: skip
    assert told.introduction in wanted
    assert json.loads(seen.remark_info.extra_remark) == [{"key": "湖畔", "value": "湖畔"}]
    # Nothing but such characters is nothing.
    assert say(house, "edit-nickname", me.token, name=junk) == no(BadNickname, most=32)


@ON_SQLITE
def test_what_is_seen_stays(house: House) -> None:
    """I1: emoji sequences, combining marks and scripts of all kinds are left whole."""
    me = house.login(1)
    for name in (
        "👩‍👩‍👧‍👦",
        "❤️‍🔥",
        "🏳️‍🌈",
        "é́̂",
        "ไทย",
        "हिन्दी",
        "العربية",
        "한국어",
        "A B",
        "𠮷野家",
        "🇨🇳",
    ):
        me.edit_nickname(name=name)
        assert me.info().name == name


@ON_SQLITE
def test_keycaps_stay(house: House) -> None:
    """I1: the digits and signs of keycaps keep what makes an emoji of them."""
    me = house.login(1)
    for name in ("1\ufe0f\u20e3", "#\ufe0f\u20e3", "*\ufe0f\u20e3"):
        me.edit_nickname(name=name)
        assert me.info().name == name


def test_length_of_a_nickname(house: House) -> None:
    """I1: 1 to 32 code points after cleaning; an empty or too long one changes nothing."""
    me = house.login(1)
    for good in (
        "湖",
        "湖" * 32,
        "🦢" * 32,
        "e\u0301" * 16,
        f"\u200b{'湖' * 32}\u202e",
        f" {'a' * 32} ",
    ):
        me.edit_nickname(name=good)
        assert me.info().name == clean(good)
        assert 1 <= len(me.info().name) <= 32
    name = me.info().name
    for bad in (
        "",
        " ",
        "\u3000",
        "湖" * 33,
        "🦢" * 33,
        "e\u0301" * 17,
        "\u200b\u200d",
        "\ufe0f" * 3,
    ):
        assert say(house, "edit-nickname", me.token, name=bad) == no(BadNickname, most=32)
        assert me.info().name == name
    for body in (b"", b"{}", b'{"name":null}'):
        assert house.post("/v1/user/edit-nickname", body, token=me.token).status_code == 200
    assert me.info().name == name


def test_address_of_a_picture(house: House) -> None:
    """I1: `http:` and `https:` only, at most 2048 characters; it is kept and never fetched."""
    me = house.login(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        good = (
            f"http://127.0.0.1:{port}/a.png",
            "https://img.example.org/a.png?x=1#y",
            "HTTPS://IMG.example.org/",
            "https://例子.example.org/图.png",
            "https://example.org/" + "a" * (2048 - len("https://example.org/")),
        )
        for url in good:
            me.edit_avatar(url=url)
            assert me.info().avatar_url == url
            assert house.client("any").get_user(id=me.info().id).avatar_url == url
        with pytest.raises(BlockingIOError):
            listener.accept()
    for bad in (
        "", "x", "javascript:alert(1)", "data:image/png;base64,AAAA", "ftp://example.org/a",
        "file://example.org/a.png", "//example.org/a.png", "https:", "https://", "https:///a.png",
        "http:example.org", " javascript:alert(1)", "java\nscript:alert(1)", "https://exa mple.org",
        "https://example.org/\u202egnp.exe", "https://example.org/a\u200bb", "https://[::1",
        "https://example.org/" + "a" * 2048, "vbscript:x", "https\u200b://example.org",
    ):  # fmt: skip
        assert say(house, "edit-avatar", me.token, url=bad) == no(BadAvatar, most=2048), bad
    assert me.info().avatar_url == good[-1]


# ---------------------------------------------------------------- I2: who writes and sees what


def test_only_listed_fields_are_writable(house: House) -> None:
    """I2: whatever else a body names stays as it is."""
    me = house.person(1)
    token, other = house.token(me), house.person(2)
    more = {
        "id": str(other), "userId": str(other), "account_id": other, "phone": "13711111111",
        "email": "x@example.org", "coin": 999, "balance": 999, "isVip": 1, "is_vip": 1,
        "vip_until": 9_999_999_999, "vipExpiredTime": 9_999_999_999, "inviteCode": "ADMIN",
        "invitation_code": "ADMIN", "password": RIGHT, "password_hash": "x", "banned_until": 1,
        "medal": [{"id": 1}], "registerTime": 1, "lastLoginTime": 1, "update_time": 1,
        "online_days": 999, "avatarId": 999, "nameId": 999, "admin": True, "deleted_at": 1,
    }  # fmt: skip

    def whole(account_id: int) -> dict[str, Any]:
        with house.rules() as ctx:
            row = ctx.tx.one(select(account).where(account.c.id == account_id))
        assert row is not None
        return dict(row._mapping)

    before, others = whole(me), whole(other)
    data = {
        "introduction": "i", "gender": 1, "birthday": 1, "province": "p", "city": "c",
        "district": "d", "locationCode": "l",
    }  # fmt: skip
    for path, body in (
        ("edit-nickname", {"name": "neu"}),
        ("edit-avatar", {"url": "https://example.org/a"}),
        ("save-user-data", data),
        ("save-user-remarks", {"friendId": str(other), "name": "n"}),
        ("notification-info", {"deviceId": "device", "registrationId": "r"}),
        ("logout", {"deviceId": "x"}),
    ):
        reply = house.post(f"/v1/user/{path}", json.dumps({**more, **body}), token=token)
        assert reply.json() == {"code": 1, "msg": "success"}, path
    changed = {key for key, value in whole(me).items() if value != before[key]}
    assert changed == {"name", "name_id", "avatar_url", "avatar_id"}
    assert (whole(me)["name"], whole(me)["avatar_id"]) == ("neu", before["avatar_id"] + 1)
    assert whole(other) == others


def test_contacts_are_shown_to_their_owner_only(house: House) -> None:
    """I2: `info` shows the whole number and address; nothing shows them to anybody else."""
    me, friend = house.login(1), house.login(2)
    assert (me.info().phone, me.info().email) == (PHONE, MAIL)
    assert me.web_info().user.phone == PHONE
    my_id = me.info().id
    friend.save_user_remarks(friend_id=my_id, name="Nachbar", phone="", others="")
    for token in (friend.token, "any", me.token):
        replies = [
            house.post("/v1/user/get-user", json.dumps({"id": my_id}), token=token),
            house.post("/v1/user/get-user", b"\x12\x07" + my_id.encode(), token=token),
            house.web.get("/v1/user/homepage", params={"userId": my_id}, headers={"token": token}),
        ]
        for reply in replies:
            assert "人1".encode() in reply.content
            for part in (PHONE, PHONE[3:], MAIL, "person1"):
                assert part.encode() not in reply.content


# ---------------------------------------------------------------- A1: the audit


def noted(house: House) -> list[Any]:
    """Every row of the audit."""
    with house.rules() as ctx:
        return list(ctx.tx.all(select(audit).order_by(audit.c.seq)))


@contextlib.contextmanager
def adds(house: House, *actions: str) -> Iterator[list[Any]]:
    """What is done inside adds rows with these actions, among others perhaps."""
    before = len(noted(house))
    rows: list[Any] = []
    yield rows
    rows += noted(house)[before:]
    missing = Counter(actions) - Counter(row.action for row in rows)
    assert not missing, f"{missing} of {[row.action for row in rows]}"


def test_every_act_is_in_the_audit(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """A1: logins, codes, contacts and coins leave rows that name who did it and tell no secret."""
    house = build()
    secrets: list[str] = []

    def code(to: str) -> str:
        with adds(house, "code-sent"):
            secrets.append(code_for(house, to))
        return secrets[-1]

    right = code(PHONE)
    with adds(house, "code-wrong"):
        wrong = f"{(int(right) + 1) % 1_000_000:06d}"
        say(house, "verification-login", mobile=PHONE, captcha=wrong)
    with adds(house, "code-used", "account-opened", "login") as rows:
        token = house.client().verification_login(mobile=PHONE, captcha=right, platform="x").token
    me = house.client(token)
    my_id = int(me.info().id)
    secrets.append(token)
    assert {row.account_id for row in rows if row.action == "login"} == {my_id}

    with adds(house, "code-used", "email-changed") as rows:
        me.bind_email(email=MAIL, captcha=code(MAIL))
    assert {row.actor for row in rows if row.action == "email-changed"} == {f"user:{my_id}"}
    with adds(house, "code-used", "phone-changed"):
        me.change_phone(phone="13711111111", captcha=code("13711111111"))
    secrets.append(undo_link(house, PHONE))
    with adds(house, "link-used", "contact-restored", "all-sessions-ended") as rows:
        assert open_link(house, secrets[-1]) == DONE
    assert {row.account_id for row in rows} == {my_id}

    secrets += [RIGHT, "ein ganz falsches"]
    with adds(house, "code-used", "password-changed", "all-sessions-ended"):
        house.client().forget_password(email=MAIL, captcha=code(MAIL), password=RIGHT)
    for mail, whose in ((MAIL, my_id), ("nobody@example.org", 0)):
        with adds(house, "login-wrong") as rows:
            say(house, "email-login", email=mail, password="ein ganz falsches")
        assert [row.account_id for row in rows if row.action == "login-wrong"] == [whose]
    with adds(house, "login"):
        me.token = house.client().email_login(email=MAIL, password=RIGHT).token
    secrets.append(me.token)
    with adds(house, "coins"):
        me.edit_nickname(name="neu")
    with adds(house, "logout"):
        me.logout()
    me.token = house.token(my_id, "one")
    other = house.token(my_id, "other")
    with adds(house, "device-offline"):
        assert say(house, "device-offline", other, deviceId="one") == DONE
    with adds(house, "code-used", "account-deleted"):
        house.client(other).cancel_user(email=MAIL, captcha=code(MAIL))

    whole = "\n".join(repr(tuple(row)) for row in noted(house))
    for secret in secrets:
        # Six digits may be chance inside a hash, but not where no further digit touches them.
        assert not re.search(rf"(?<![0-9a-f]){re.escape(secret)}(?![0-9a-f])", whole), secret
    with house.rules() as ctx:
        assert book.verify(ctx) == []


def test_a_source_is_in_the_audit(house: House) -> None:
    """A1: a row says where the call came from, as far as limits know it."""
    from starlette.testclient import TestClient

    house.person(1, password=RIGHT)
    face = TestClient(house.hosts.api, base_url="http://api.test", client=("203.0.113.9", 1))
    face.post("/v1/user/email-login", json={"email": MAIL, "password": RIGHT})
    assert [row.source for row in noted(house) if row.action == "login"] == ["203.0.113.9"]


def test_every_operator_act_is_in_the_audit(
    house: House, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1: each command that changes something leaves rows with the operator as their actor."""
    (tmp_path / "secret.key").write_text((b"k" * 32).hex())
    monkeypatch.setenv("HUPAN_DATABASE_URL", database_url)
    monkeypatch.setenv("HUPAN_DATA_DIR", str(tmp_path))
    me = str(house.person(1))
    commands = {
        "account-opened": ["create", "--email", "made@example.org"],
        "banned": ["ban", me, "--for", "1h", "--reason", "Lärm"],
        "unbanned": ["unban", me],
        "vip": ["vip", me, "--for", "1d"],
        "coins": ["coin", me, "12.34"],
        "medal-granted": ["medal", me, "Erste", "--define"],
        "medal-taken": ["medal", me, "Erste", "--take"],
        "password-changed": ["set-password", me],
        "link-made": ["set-password", me, "--link"],
        "unlocked": ["unlock", me],
    }
    printed = ""
    for action, arguments in commands.items():
        with adds(house, action) as rows:
            done = hupan("user", *arguments, given=f"{RIGHT}\n")
            assert done.exit_code == 0, (arguments, done.output)
        printed += done.output
        assert rows
        assert all(row.actor.startswith("operator:") for row in rows), arguments
    whole = "\n".join(repr(tuple(row)) for row in noted(house))
    found = re.findall(r"/account/link#(\S+?)[\"\s]", printed + "\n")
    assert found
    for secret in (RIGHT, *found):
        assert secret not in whole
    # Looking changes nothing and leaves nothing.
    before = len(noted(house))
    for looking in (["show", me], ["list"]):
        assert hupan("user", *looking).exit_code == 0
    assert len(noted(house)) == before


def check_same_transaction(build: Build, patch: pytest.MonkeyPatch) -> None:
    house = build()
    me = house.person(1)
    before = len(noted(house))

    def spend() -> None:
        with house.rules() as ctx:
            coins.post(ctx, me, 100, typ=8, reason="r", key="k")
            coins.post(ctx, me, -500, typ=2, reason="r", key="l")

    with pytest.raises(CoinsShort):
        spend()
    assert len(noted(house)) == before, "what did not happen is not told"

    class Broken(Exception):
        """The audit cannot be written."""

    def broken(*_: object) -> None:
        raise Broken

    real = book.flush
    patch.setattr(book, "flush", broken)
    with pytest.raises(Broken), house.rules() as ctx:
        coins.post(ctx, me, 100, typ=8, reason="r", key="k")
    patch.setattr(book, "flush", real)
    with house.rules() as ctx:
        assert coins.balance(ctx, me) == 0, "what cannot be told does not happen"
        assert book.verify(ctx) == []


def test_audit_and_act_are_one(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: an act and its rows are in the same transaction."""
    check_same_transaction(build, monkeypatch)


def test_the_audit_is_append_only(house: House) -> None:
    """A1: the database itself refuses to change or to delete a row of the audit."""
    house.login(1)
    before = noted(house)
    for statement in (audit.update().values(action="x"), audit.delete()):
        with pytest.raises(Exception, match="append-only"), house.rules() as ctx:
            ctx.tx.run(statement)
    assert noted(house) == before


class Undone(Exception):
    """Ends a transaction whose changes are to be forgotten."""


def connection(ctx: Any) -> Any:
    """The database's own connection, for what no rule ever does."""
    return ctx.tx.connection


def without_triggers(ctx: Any, kind: str) -> None:
    """What somebody can do who owns the database's files or its superuser."""
    ctx.tx.begin()
    if kind == "postgresql":
        ctx.tx.one(text("SELECT set_config('session_replication_role', 'replica', true)"))
        return
    names = text("SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='audit'")
    for row in ctx.tx.all(names):
        connection(ctx).exec_driver_sql(f"DROP TRIGGER {row.name}")


def flipped(value: Any, source: random.Random) -> Any:
    """The value with one bit of one byte changed."""
    if isinstance(value, int):
        return value ^ (1 << source.randrange(31))
    if isinstance(value, str):
        if not value:
            return "x"
        place = source.randrange(len(value))
        return value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
    raw = bytearray(value)
    raw[source.randrange(len(raw))] ^= 1 << source.randrange(8)
    return bytes(raw)


def check_flips(build: Build, kind: str) -> None:
    house = build()
    for number in range(1, 5):
        house.login(number).edit_nickname(name=f"neu {number}")
    rows, seed = noted(house), 300
    print(f"seed {seed}")
    source = random.Random(seed)
    columns = [column.name for column in audit.columns]
    found = 0
    with contextlib.suppress(Undone), house.rules() as ctx:
        without_triggers(ctx, kind)
        for turn in range(300):
            row, column = source.choice(rows), columns[turn % len(columns)]
            good = row._mapping[column]
            bad = flipped(good, source)
            if column == "seq":
                bad = row.seq + 1000 + turn
            this = audit.c.seq == row.seq
            assert ctx.tx.run(update(audit).where(this).values({column: bad})) == 1
            found += bool(book.verify(ctx))
            that = audit.c.seq == (bad if column == "seq" else row.seq)
            assert ctx.tx.run(update(audit).where(that).values({column: good})) == 1
        assert book.verify(ctx) == []
        # A changed row whose own hash was made anew breaks the chain behind it.
        forged = {**rows[2]._mapping, "action": "forged"}
        del forged["hash"]
        hashed = chains.link(bytes(rows[1].hash), forged)
        # Further: a cut tail, a hole, a row too many, and a head that was moved.
        for breaking in (
            audit.update().where(audit.c.seq == 3).values(**forged, hash=hashed),
            audit.delete().where(audit.c.seq == len(rows)),
            audit.delete().where(audit.c.seq == 3),
            audit.delete(),
            audit.insert().values({**rows[-1]._mapping, "seq": len(rows) + 1}),
            audit_head.update().values(seq=audit_head.c.seq - 1),
            audit_head.update().values(hash=bytes(32)),
        ):
            nested = connection(ctx)
            nested.exec_driver_sql("SAVEPOINT broken")
            ctx.tx.run(breaking)
            assert book.verify(ctx), breaking
            nested.exec_driver_sql("ROLLBACK TO broken")
        raise Undone
    assert found == 300
    with house.rules() as ctx:
        assert book.verify(ctx) == []


def test_a_flipped_byte_is_found(build: Build, kind: str) -> None:
    """A1: `verify` finds 300 of 300 flipped bits, in every column, and every missing row."""
    check_flips(build, kind)


# ---------------------------------------------------------------- the checks fail without a guard


def _links_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "use", lambda *_: None)
    patch.setattr(links, "revoke", lambda *_, **__: None)


def _links_live_longer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "LIFE", 72 * 3600 + 1)


def _links_live_shorter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "LIFE", 72 * 3600 - 1)


def _sessions_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hupan.accounts.sessions.end_all", lambda ctx, _: ctx.tx.begin())


def _other_links_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "revoke", lambda *_, **__: None)


def _hash_of_the_row_alone(patch: pytest.MonkeyPatch) -> None:
    real = chains.link
    patch.setattr(chains, "link", lambda _, row: real(bytes(32), row))


def _detail_is_not_hashed(patch: pytest.MonkeyPatch) -> None:
    real = chains.link
    patch.setattr(chains, "link", lambda last, row: real(last, {**row, "detail": ""}))


def _audit_before(patch: pytest.MonkeyPatch) -> None:
    """Rows that are written at once, in a transaction of their own."""
    from hupan.accounts.context import Actor, Context
    from hupan.accounts.operation import operation

    def note(ctx: Context, action: str, account_id: int = 0, **detail: object) -> None:
        ctx.tx.commit()  # type: ignore[attr-defined]
        with operation(ctx.world, Actor("note")) as other:
            other.notes.append((action, account_id, detail))
        ctx.tx.begin()

    patch.setattr(Context, "note", note)


@ON_SQLITE
@pytest.mark.parametrize(
    ("check", "take_away"),
    [
        (check_undo, _links_stay),
        (check_undo_ends, _links_live_shorter),
        (check_undo, _sessions_stay),
        (check_undo_ends, _links_live_longer),
        (check_thief_is_out, _other_links_stay),
        (check_flips, _hash_of_the_row_alone),
        (check_flips, _detail_is_not_hashed),
        (check_same_transaction, _audit_before),
    ],
)
def test_checks_fail_on_mutants(
    build: Build,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[..., None],
    take_away: TakeAway,
) -> None:
    """P6, A1: each check fails where its limit is off by one or its guard is gone."""
    take_away(monkeypatch)
    extra: dict[Any, tuple[Any, ...]] = {
        check_flips: (kind,),
        check_same_transaction: (monkeypatch,),
    }
    with pytest.raises(AssertionError):
        check(build, *extra.get(check, ()))
