"""All user calls against a small model of what they ought to do (R5).

Hypothesis draws sequences of calls. Each goes to a real server through the SDK and to `Model`,
a few dictionaries that know the promises and nothing of the code; both must say the same, to the
last field, the last refusal and the last second. Three things are taken from the server because
nobody can foresee them: ids, tokens and the digits of a code.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hypothesis
import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from hupan.accounts import (
    audit,
    captchas,
    codes,
    coins,
    devices,
    discovery,
    limits,
    links,
    medals,
    outbox,
    people,
    refusals,
    sessions,
)
from hupan.accounts.context import World
from hupan.accounts.tables import bot, category, group_chat
from hupan.client import Client, Refused
from hupan.protocol.table import rows
from hupan.server import door as server_door
from tests.conftest import KINDS
from tests.house import DAY, HandClock, House, make_house

B = TypeVar("B")
A = TypeVar("A")

#: The same in every run, so that a red build stays red; the nightly run draws its own.
SEED = int(os.environ.get("TEST_SEED", "20260302"))

SHANGHAI = timezone(timedelta(hours=8))

PHONES = tuple(f"139{number:08d}" for number in (1, 2, 3, 4))
EMAILS = tuple(f"person{number}@example.org" for number in (1, 2, 3, 4))
DEVICES = ("", "phone", "tablet", "desk")
#: A stranger's platform text, told by the device so that a device has one.
PLATFORMS = {"": "", "phone": "android", "tablet": "ios", "desk": "windows 11"}
#: What is typed, and what a password of it is: None for a good one.
PASSWORDS: tuple[tuple[str, type[refusals.Refusal] | None], ...] = (
    ("correct horse 1", None),
    ("湖畔的清晨很安静呢", None),
    ("person1@example.org", None),
    ("1234567", refusals.PasswordTooShort),
    ("password1", refusals.PasswordTooCommon),
    ("x7" * 65, refusals.PasswordTooLong),
)
#: What is typed, and what becomes of it: None where it is refused.
NAMES: tuple[tuple[str, str | None], ...] = (
    ("新名", "新名"),
    ("  a\u200bb\u202e ", "ab"),
    ("x" * 32, "x" * 32),
    ("x" * 33, None),
    (" \u200b ", None),
    ("", None),
)
AVATARS: tuple[tuple[str, str | None], ...] = (
    ("https://pictures.example.org/1.png", "https://pictures.example.org/1.png"),
    (" http://pictures.example.org/2.png ", "http://pictures.example.org/2.png"),
    ("javascript:alert(1)", None),
    ("https://pictures.example.org/a b.png", None),
    ("", None),
)
INTRODUCTIONS = ("", "你好\n世界", "x" * 500)
OTHERS: tuple[tuple[str, str | None], ...] = (
    ("", ""),
    ('[{"key":"他是","value":"我的朋友"}]', '[{"key": "他是", "value": "我的朋友"}]'),
    ("[]", "[]"),
    ('{"key":"他是"}', None),
    ("[1]", None),
    ("no json", None),
)
#: Invitation codes that people wish for; the last three cannot be one.
WISHES = ("LAKE2026", "lake2026", " Boat ", "abc", "x" * 17, "湖畔湖畔")
MEDALS = ("早鸟", "船长", "渔夫")
GROUPS: tuple[tuple[str, str, str, int], ...] = (
    # Section, name, introduction, banned.
    ("精选", "湖畔茶馆", "喝茶", 0),
    ("精选", "钓鱼", "Lake Fishing", 0),
    ("游戏", "棋牌", "在湖畔下棋", 0),
    ("游戏", "被封的群", "湖畔", 1),
    ("地区", "100%_杭州", "", 0),
)
JUNK = ("", "junk", "00000000-0000-0000-000000000000", sessions.shape("A" * 22))

MAX_SESSIONS = 4
DAY_LIMIT = 6
TARGET_DAY, TARGET_TOTAL = 1, 2


class Divergence(AssertionError):
    """The server and the model disagree."""


class No(Exception):
    """The model's refusal: what the envelope must say."""

    def __init__(self, code: int, msg: str, retry_after: int | None = None) -> None:
        super().__init__(code, msg, retry_after)
        self.said = (code, msg, retry_after)


def no(kind: type[refusals.Refusal], retry_after: int | None = None, **words: object) -> No:
    """A refusal of this kind, with the code that the wire has for it."""
    said = kind(retry_after=retry_after, **words)
    return No(-1, said.text("zh"), retry_after)


NOT_LOGGED_IN = (-101, "未登录")
UNKNOWN_USER = (-1, "该用户不存在")
VIP_ONLY = (-1, "此功能仅限VIP用户使用")
BAD_PARAMETERS = (1002, "请求参数错误")


def day_of(seconds: int) -> int:
    """Days as Shanghai counts them; there is no summer time."""
    return (seconds + 8 * 3600) // DAY


def text_of(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


# ---------------------------------------------------------------- the model


@dataclass
class Line:
    """A line of a coin book, in hundredths."""

    typ: int
    before: int
    change: int
    reason: str
    remark: str
    at: int
    posting: int = 0


@dataclass
class Someone:
    """An account."""

    id: int
    name: str
    phone: str | None
    email: str | None
    invite_code: str
    registered_at: int
    password: str | None = None
    name_id: int = 1
    avatar_url: str = ""
    avatar_id: int = 0
    vip_until: int = 0
    banned_until: int = 0
    invited_by: int | None = None
    invited_at: int = 0
    gone: bool = False
    online: int = 0
    streak: int = 0
    last_day: int = 0
    last_login: int = 0
    last_seen: int = 0
    book: list[Line] = field(default_factory=list)
    data: dict[str, Any] | None = None
    data_at: int = 0
    data_id: int = 0
    known: set[str] = field(default_factory=set)
    medals: set[str] = field(default_factory=set)

    @property
    def coin(self) -> int:
        return sum(line.change for line in self.book)


@dataclass
class Seat:
    """A session."""

    who: Someone
    device: str
    platform: str
    created: int
    seen: int
    order: int
    token: str = ""
    anchor: int = 0


@dataclass
class Sent:
    """A code."""

    to: str
    purpose: str
    ends: int
    text: str = ""
    used: bool = False
    tries: Counter[str] = field(default_factory=Counter)


@dataclass
class Undo:
    """A link that gives an old contact back."""

    who: Someone
    kind: str
    value: str | None
    told: str
    ends: int
    used: bool = False
    secret: str = ""


@dataclass
class Row:
    """A stored row whose id is only known once it was read."""

    values: dict[str, Any]
    made: int
    changed: int
    id: int = 0


class Model:
    """What the promises say, in dictionaries."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.people: list[Someone] = []
        self.seats: list[Seat] = []
        self.codes: list[Sent] = []
        self.undos: list[Undo] = []
        self.windows: dict[tuple[str, str], tuple[int, int]] = {}
        self.failures: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.remarks: dict[tuple[int, int], tuple[str, str, str]] = {}
        self.registrations: dict[tuple[int, str, str], Row] = {}
        self.ignores: dict[tuple[int, str], Row] = {}
        self.letters: dict[str, list[tuple[str, str]]] = {}
        self.postings: dict[str, tuple[int, int]] = {}
        self.reversed: set[int] = set()
        self.orders = itertools.count()

    @property
    def now(self) -> int:
        return self.clock.time

    # -------------------------------------------------------- finding people

    def living(self) -> list[Someone]:
        return [who for who in self.people if not who.gone]

    def holder(self, contact: str) -> Someone | None:
        return next((who for who in self.living() if contact in (who.phone, who.email)), None)

    def by_text(self, text: str) -> Someone:
        found = next((who for who in self.living() if str(who.id) == text), None)
        if found is None:
            raise No(*UNKNOWN_USER)
        return found

    # -------------------------------------------------------- sessions

    def alive(self, seat: Seat) -> bool:
        return (
            self.now - seat.seen < 30 * DAY
            and self.now - seat.created < 180 * DAY
            and seat.who.banned_until <= self.now
            and not seat.who.gone
        )

    def find(self, token: str) -> Seat | None:
        """The live session of a token; its owner was here."""
        for seat in self.seats:
            if seat.token == token and self.alive(seat):
                if self.now - seat.seen >= 300 or day_of(seat.seen) != day_of(self.now):
                    seat.seen = self.now
                    self.count_day(seat.who)
                return seat
        return None

    def admit(self, token: str) -> Seat:
        seat = self.find(token)
        if seat is None:
            raise No(*NOT_LOGGED_IN)
        return seat

    def count_day(self, who: Someone) -> None:
        today = day_of(self.now)
        if who.last_day < today:
            who.online += 1
            who.streak = who.streak + 1 if who.last_day == today - 1 else 1
            who.last_day = today
        who.last_seen = self.now

    def open(self, who: Someone, device: str, platform: str = "") -> Seat:
        who.last_login = self.now
        platform = platform or PLATFORMS[device]
        seat = Seat(who, device, platform, self.now, self.now, next(self.orders))
        mine = [one for one in self.seats if one.who is who]
        mine.sort(key=lambda one: (one.seen, one.order), reverse=True)
        for idle in mine[MAX_SESSIONS - 1 :]:
            self.seats.remove(idle)
        self.seats.append(seat)
        if len(mine) >= MAX_SESSIONS:
            self.settle(who)
        if device:
            who.known.add(device)
        self.count_day(who)
        return seat

    def end(self, gone: Callable[[Seat], bool]) -> list[Seat]:
        """End sessions; what their devices were to be told goes with them."""
        ended = [seat for seat in self.seats if gone(seat)]
        self.seats = [seat for seat in self.seats if not gone(seat)]
        for seat in ended:
            self.settle(seat.who)
        return ended

    def settle(self, who: Someone) -> None:
        """A push registration lives as long as its device has a session.

        (That it needs one from the beginning is what the server does, and what
        `test_a_registration_outlives_the_sweep` complains of: both change together.)
        """
        held = {seat.device for seat in self.seats if seat.who is who}
        for key in [key for key in self.registrations if key[0] == who.id and key[1] not in held]:
            del self.registrations[key]

    def sweep(self) -> None:
        """What the server does every ten minutes: sessions that are over go."""
        self.end(
            lambda seat: self.now - seat.seen >= 30 * DAY or self.now - seat.created >= 180 * DAY
        )
        for who in self.people:
            self.settle(who)

    # -------------------------------------------------------- limits

    def take(
        self, key: tuple[str, str], most: int, seconds: int, kind: type[refusals.Refusal]
    ) -> None:
        opened, taken = self.windows.get(key, (self.now, 0))
        if opened + seconds <= self.now:
            opened, taken = self.now, 0
        if taken >= most:
            raise no(kind, opened + seconds - self.now)
        self.windows[key] = opened, taken + 1

    def check_failures(self, key: tuple[str, str, str]) -> None:
        count, until = self.failures.get(key, (0, 0))
        if count >= 100:
            raise no(refusals.Locked)
        if until > self.now:
            raise no(refusals.TooManyTries, until - self.now)

    def fail(self, key: tuple[str, str, str], free: int) -> None:
        count = self.failures.get(key, (0, 0))[0] + 1
        until = 0
        if count >= free:
            until = self.now + min(30 * 2 ** (count - free), 3600)
        self.failures[key] = count, until

    # -------------------------------------------------------- codes

    def open_code(self, to: str, purposes: tuple[str, ...]) -> Sent | None:
        usable = [
            sent
            for sent in self.codes
            if sent.to == to and sent.purpose in purposes and not sent.used and sent.ends > self.now
        ]
        return usable[-1] if usable else None

    def send(self, to: str, purpose: str) -> Sent | None:
        """Send a code; None where nothing leaves although the answer is "done"."""
        kept = dict(self.windows)
        try:
            self.take(("send", to), 1, 60, refusals.SentTooOften)
            self.take(("day", to), DAY_LIMIT, DAY, refusals.SentTooOften)
        except No:
            self.windows = kept
            raise
        who = self.holder(to)
        budgets = ["", *(who.known if who else ())]
        locked = all(self.failures.get(("code", to, one), (0, 0))[0] >= 100 for one in budgets)
        banned = who is not None and who.banned_until > self.now
        if locked or banned or (who is None and purpose == "reset"):
            return None
        sent = self.open_code(to, (purpose,))
        if sent is None or sent.tries[""] >= 5:
            sent = Sent(to, purpose, self.now + 300)
            self.codes.append(sent)
        return sent

    def prove(
        self, to: str, guess: str, purposes: tuple[str, ...] = ("any",), budget: str = ""
    ) -> Callable[[], None]:
        """Compare a guess; returns what uses the code up."""
        self.check_failures(("code", to, budget))
        found = [self.open_code(to, (purpose,)) for purpose in purposes]
        usable = [sent for sent in found if sent is not None]
        if not usable:
            raise no(refusals.WrongCode)
        guessable = [sent for sent in usable if sent.tries[budget] < 5]
        if not guessable:
            raise no(refusals.CodeClosed)
        for sent in guessable:
            sent.tries[budget] += 1
            if guess == sent.text:
                return lambda: self.use_up(to)
        self.fail(("code", to, budget), 10)
        raise no(refusals.WrongCode)

    def use_up(self, to: str) -> None:
        """A code was used: no other of its address is open any more, and no guess counts."""
        for sent in self.codes:
            sent.used = sent.used or sent.to == to
        self.forgive("code", to)

    def forgive(self, kind: str, to: str) -> None:
        for key in [key for key in self.failures if key[:2] == (kind, to)]:
            del self.failures[key]

    def tell(self, to: str | None, purpose: str, text: str = "") -> None:
        if to:
            self.letters.setdefault(to, []).append((purpose, text))

    # -------------------------------------------------------- coming in

    def login_by_code(
        self, phone: str, guess: str, device: str, invite: str
    ) -> tuple[Someone | None, Seat | None, Callable[[Someone], Seat]]:
        """Log in; where an account opens, its id has to be told before there is a seat."""
        who = self.holder(phone)
        budget = device if who is not None and device in who.known else ""
        use = self.prove(phone, guess, budget=budget)
        if who is not None:
            if who.banned_until > self.now:
                raise self.banned(who)
            use()
            return who, self.open(who, device), lambda _: pytest.fail("nobody new")
        inviter = self.inviter(invite) if invite else None

        def enter(new: Someone) -> Seat:
            use()
            self.people.append(new)
            if inviter is not None:
                self.invited(new, inviter)
            return self.open(new, device)

        return None, None, enter

    def banned(self, who: Someone) -> No:
        if who.banned_until == people.FOREVER:
            return no(refusals.BannedForGood)
        return no(refusals.Banned, until=text_of(who.banned_until))

    def login_by_password(self, email: str, password: str, device: str) -> Seat:
        who = self.holder(email)
        budget = device if who is not None and device in who.known else ""
        key = ("password", email, budget)
        self.check_failures(key)
        if who is None or who.password is None or who.password != password:
            self.fail(key, 5)
            raise no(refusals.WrongPassword)
        if who.banned_until > self.now:
            raise self.banned(who)
        self.forgive("password", email)
        return self.open(who, device)

    def reset(self, email: str, guess: str, password: str) -> None:
        who = self.holder(email)
        wrong = dict(PASSWORDS)[password]
        if wrong is refusals.PasswordTooShort:
            raise no(wrong, least=8)
        if wrong is refusals.PasswordTooLong:
            raise no(wrong, most=128)
        if wrong is not None:
            raise no(wrong)
        use = self.prove(email, guess, ("any", "reset"))
        # Whose address it is may be learnt by who has the code, and by nobody else.
        if who is None:
            raise No(*UNKNOWN_USER)
        if password in (who.phone, who.email, who.name):
            raise no(refusals.PasswordFromContact)
        use()
        who.password = password
        self.end(lambda seat: seat.who is who)
        self.settle(who)
        self.forgive("password", email)
        self.tell(who.phone, "password-changed")
        self.tell(who.email, "password-changed")

    # -------------------------------------------------------- contacts

    def bind(self, token: str, kind: str, to: str, guess: str) -> Undo | None:
        """Bind a contact. Returns the link that undoes it, unless there is nobody to tell."""
        who = self.admit(token).who
        old = getattr(who, kind)
        if old == to:
            raise no(refusals.SameContact)
        use = self.prove(to, guess)
        if self.holder(to) is not None:
            raise no(refusals.PhoneTaken if kind == "phone" else refusals.EmailTaken)
        use()
        # A first contact of a kind is told to the contact of the other kind.
        told = old or (who.email if kind == "phone" else who.phone)
        setattr(who, kind, to)
        if not told:
            return None
        link = Undo(who, kind, old, told, self.now + 72 * 3600)
        self.undos.append(link)
        self.tell(told, f"{kind}-changed")
        return link

    def undo(self, link: Undo) -> None:
        if link.used or link.ends <= self.now:
            raise no(refusals.BadLink)
        holder = self.holder(link.value) if link.value else None
        if holder is not None and holder is not link.who:
            raise no(refusals.PhoneTaken if link.kind == "phone" else refusals.EmailTaken)
        link.used = True
        setattr(link.who, link.kind, link.value)
        link.who.password = None
        # Later changes of this contact may have been a thief's, and so may be their links.
        for later in self.undos[self.undos.index(link) :]:
            later.used = later.used or (later.who is link.who and later.kind == link.kind)
        self.end(lambda seat: seat.who is link.who)
        self.settle(link.who)

    def cancel(self, token: str, contact: str, guess: str) -> None:
        who = self.admit(token).who
        if contact not in (who.phone, who.email):
            raise no(refusals.NotYourContact)
        self.prove(contact, guess)()
        for mine in (who.phone, who.email):
            if mine:
                self.letters.pop(mine, None)
                self.codes = [sent for sent in self.codes if sent.to != mine]
                self.forgive("code", mine)
                self.tell(mine, "account-deleted")
        self.end(lambda seat: seat.who is who)
        who.gone, who.phone, who.email, who.password = True, None, None, None
        for link in self.undos:
            link.used = link.used or link.who is who
        for pair in [pair for pair in self.remarks if who.id in pair]:
            del self.remarks[pair]
        for registration in [key for key in self.registrations if key[0] == who.id]:
            del self.registrations[registration]

    # -------------------------------------------------------- coins

    def post(self, who: Someone, change: int, typ: int, reason: str, remark: str = "") -> Line:
        if who.coin + change < 0:
            raise no(refusals.CoinsShort)
        line = Line(typ, who.coin, change, reason, remark, self.now)
        who.book.append(line)
        return line

    def reward_once(self, who: Someone, reason: str) -> None:
        """The first of its kind in an account's life pays one coin."""
        if not any(line.typ == 4 and line.reason == reason for line in who.book):
            self.post(who, 100, 4, reason)

    def page(self, token: str, page: int, size: int) -> tuple[list[Line], int, list[int]]:
        """A page, the total, and the positions of its lines."""
        seat = self.admit(token)
        if page < 0 or size < 0:
            raise No(*BAD_PARAMETERS)
        page, size = page or 1, min(size or 20, 100)
        book = seat.who.book
        if page == 1:
            seat.anchor = len(book)
        total = seat.anchor or len(book)
        positions = list(range(total))[::-1][(page - 1) * size : page * size]
        return [book[position] for position in positions], total, positions

    # -------------------------------------------------------- invitations

    def inviter(self, text: str) -> Someone:
        text = text.strip()
        if not re.fullmatch(r"[A-Za-z0-9]{4,16}", text):
            raise no(refusals.BadInviteCode)
        found = next((one for one in self.living() if one.invite_code == text), None)
        if found is None:
            raise no(refusals.BadInviteCode)
        return found

    def came_by(self, inviter: Someone) -> tuple[int, int]:
        came = [one for one in self.people if one.invited_by == inviter.id]
        today = [one for one in came if day_of(one.invited_at) == day_of(self.now)]
        return len(today), len(came)

    def invited(self, who: Someone, inviter: Someone) -> None:
        if inviter is who or inviter.invited_by == who.id:
            raise no(refusals.OwnInvitation)
        if who.invited_by is not None:
            raise no(refusals.AlreadyInvited)
        who.invited_by, who.invited_at = inviter.id, self.now
        today, total = self.came_by(inviter)
        if today <= TARGET_DAY and total <= TARGET_TOTAL:
            self.post(inviter, 500, 9, "邀请用户")

    def invite(self, token: str, text: str) -> None:
        who = self.admit(token).who
        if not re.fullmatch(r"[A-Za-z0-9]{4,16}", text.strip()):
            raise no(refusals.BadInviteCode)
        if any(one.invite_code == text.strip() for one in self.living()):
            self.invited(who, self.inviter(text))
        else:
            who.invite_code = text.strip()


# ---------------------------------------------------------------- the machine

PICK = st.integers(0, 11)
NUMBER = st.integers(0, 7)
MOSTLY = st.sampled_from((True, True, True, False))
#: The first two are held by somebody at the beginning.
SOME_EMAIL = st.sampled_from(EMAILS[:2] + EMAILS)
#: The steps by name, each as often as its weight says, and what each of them draws.
WEIGHTED: list[str] = []
ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}


def step(weight: int = 1, **arguments: st.SearchStrategy[Any]) -> Callable[[A], A]:
    """Make a method a step.

    Rules of Hypothesis would be switched off in groups, which with this many calls leaves most
    examples without the two or three that make the others interesting.
    """

    def register(function: A) -> A:
        name = function.__name__  # type: ignore[attr-defined]  # It is a function.
        WEIGHTED.extend([name] * weight)
        ARGUMENTS[name] = st.fixed_dictionaries(arguments)
        return function

    return register


STEP = st.deferred(
    lambda: st.sampled_from(WEIGHTED).flatmap(
        lambda name: st.tuples(st.just(name), ARGUMENTS[name])
    )
)


class UserCalls(RuleBasedStateMachine):
    """Draws calls, makes each of them twice, and compares."""

    #: Opens a house on a fresh database; set by `machine`.
    fresh: ClassVar[Callable[[], AbstractContextManager[House]]]
    #: How often which call had which outcome, over all examples.
    tally: ClassVar[Counter[tuple[str, str]]]
    steps: ClassVar[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.opened = type(self).fresh()
        self.house = self.opened.__enter__()
        self.model = Model(self.house.clock)
        self.tokens: list[str] = []
        self.captchas: list[tuple[str, int, bool]] = []
        self.keys = itertools.count()
        self.failed = False
        self.sdk = self.house.client()

    def teardown(self) -> None:
        try:
            if not self.failed:
                self.compare_everything()
        finally:
            self.opened.__exit__(None, None, None)

    # -------------------------------------------------------- comparing

    def both(
        self, name: str, believe: Callable[[], B], do: Callable[[], A]
    ) -> tuple[B, A] | tuple[None, None]:
        """Make a call of the model and of the server; both succeed or both say the same no."""
        type(self).steps[0] += 1
        believed: B | None = None
        really: A | None = None
        expected: tuple[int, str, int | None] | None = None
        said: tuple[int, str, int | None] | None = None
        try:
            believed = believe()
        except No as refusal:
            expected = refusal.said
        try:
            really = do()
        except Refused as refused:
            said = (refused.code, refused.msg, refused.retry_after)
        self.agree(f"outcome of {name}", expected, said)
        self.tally[name, said[1] if said else "done"] += 1
        if said is not None:
            return None, None
        return believed, really  # type: ignore[return-value]  # Both were set.

    def agree(self, what: str, expected: object, really: object) -> None:
        if expected != really:
            self.failed = True
            raise Divergence(f"{what}: the model says {expected!r}, the server says {really!r}")

    def as_user(self, token: str) -> Client:
        self.sdk.token = token
        return self.sdk

    # -------------------------------------------------------- choosing

    def token(self, pick: int) -> str:
        """A live token mostly, else a dead one or junk."""
        live = [seat.token for seat in self.model.seats]
        dead = [token for token in self.tokens if token not in live]
        if pick == 0:
            return JUNK[len(self.tokens) % len(JUNK)]
        if pick == 1 and dead:
            return dead[-1]
        if not live:
            self.somebody_comes_back(pick)
            live = [seat.token for seat in self.model.seats]
        return live[pick % len(live)] if live else JUNK[pick % len(JUNK)]

    def somebody_comes_back(self, pick: int) -> None:
        """Without a live session most calls would only be refused."""
        able = [who for who in self.model.living() if who.banned_until <= self.model.now]
        if able:
            who = able[pick % len(able)]
            self.come_in(who, "phone")

    def come_in(self, who: Someone, device: str) -> None:
        token = self.house.token(who.id, device)
        self.model.open(who, device, "test").token = token
        self.tokens.append(token)

    def someone(self, pick: int) -> Someone:
        return self.model.people[pick % len(self.model.people)]

    def id_text(self, pick: int) -> str:
        """An id mostly, else something that is none."""
        odd = ("", "0", "9999999", f"0{self.model.people[0].id}", "abc")
        return odd[len(self.tokens) % len(odd)] if pick == 0 else str(self.someone(pick).id)

    def guess(self, to: str, purposes: tuple[str, ...], pick: int) -> str:
        """The right code mostly, else a wrong one or one that is over."""
        usable = self.model.open_code(to, purposes)
        earlier = [sent.text for sent in self.model.codes if sent.to == to and sent is not usable]
        if earlier and (pick == 0 or usable is None):
            return earlier[-1]
        right = usable.text if usable else "000000"
        # Another last digit makes a guess that is surely wrong.
        return right[:5] + str((int(right[5]) + 1) % 10) if pick <= 2 else right

    # -------------------------------------------------------- the beginning

    @initialize(email=st.booleans())
    def two_people(self, email: bool) -> None:
        for number, has_email in ((1, True), (2, email)):
            password = PASSWORDS[0][0] if has_email else ""
            new_id = self.house.person(number, email=has_email, password=password)
            with self.house.rules() as ctx:
                code_text = people.get(ctx, new_id).invite_code
            self.model.people.append(
                Someone(
                    id=new_id,
                    name=f"人{number}",
                    phone=PHONES[number - 1],
                    email=EMAILS[number - 1] if has_email else None,
                    invite_code=code_text,
                    registered_at=self.model.now,
                    password=password or None,
                )
            )
            self.come_in(self.model.people[-1], "phone")
        with self.house.rules() as ctx:
            for sort, name in enumerate(dict.fromkeys(group[0] for group in GROUPS)):
                ctx.tx.run(category.insert().values(name=name, sort=sort))
            for section, name, introduction, banned in GROUPS:
                ctx.tx.run(
                    group_chat.insert().values(
                        category=section,
                        name=name,
                        introduction=introduction,
                        banned=banned,
                        created_at=ctx.now,
                    )
                )
            for name, banned, sort in (("甲", 0, 1), ("乙", 1, 2), ("丙", 0, 3)):
                ctx.tx.run(
                    bot.insert().values(name=name, banned=banned, sort=sort, created_at=ctx.now)
                )
            for sort, name in enumerate(MEDALS):
                medals.define(ctx, name, sort=len(MEDALS) - sort)
            discovery.save_advert(ctx, False, discovery.Advert("a", "i", 50, 1))

    @rule(drawn=STEP)
    def go(self, drawn: tuple[str, dict[str, Any]]) -> None:
        name, arguments = drawn
        getattr(self, name)(**arguments)

    # -------------------------------------------------------- time

    @step(
        how=st.sampled_from(
            (1, 59, 60, 61, 120, 299, 300, 301, 1800, 3600, 7200, DAY, 2 * DAY, 29 * DAY)
        )
    )
    def wait(self, how: int) -> None:
        self.advance(how)

    @step(late=st.integers(-1, 1), days=st.integers(0, 2))
    def wait_for_midnight(self, late: int, days: int) -> None:
        left = DAY - (self.model.now + 8 * 3600) % DAY
        self.advance(left + days * DAY + late)

    @step(7, late=st.sampled_from((0, 0, -1, 1)), pick=PICK)
    def wait_for_the_next_end(self, late: int, pick: int) -> None:
        """To the second at which something ends, just before it or just after it."""
        model = self.model
        ends = {ends for _, ends, _ in self.captchas}
        ends |= {sent.ends for sent in model.codes if not sent.used}
        ends |= {link.ends for link in model.undos}
        ends |= {until for _, until in model.failures.values()}
        ends |= {who.banned_until for who in model.living()}
        vips = {who.vip_until for who in model.living()}
        ends |= vips | {seat.seen + 30 * DAY for seat in model.seats[:1]}
        ends |= {opened + 60 for (kind, _), (opened, _) in model.windows.items() if kind == "send"}
        ends |= {opened + DAY for (kind, _), (opened, _) in model.windows.items() if kind == "day"}
        coming = sorted(end for end in ends if model.now < end < people.FOREVER)
        # Half of these waits are for the end of somebody's VIP, where there is one.
        coming += [end for end in coming if end in vips] * (len(coming) // 2)
        if coming:
            self.advance(coming[pick % len(coming)] + late - model.now)
            for seat in model.seats[:2]:
                self.compare_info(seat.token)
                self.compare_ignores(seat.token, "phone")

    def advance(self, seconds: int) -> None:
        self.house.clock.advance(max(0, seconds))
        # What a running server does every ten minutes, and nobody may notice.
        with self.house.rules() as ctx:
            captchas.sweep(ctx)
            limits.sweep(ctx)
            sessions.sweep(ctx)
        self.model.sweep()

    # -------------------------------------------------------- captchas and codes

    def a_captcha(self, pick: int) -> tuple[str, str, bool]:
        """An id, an answer, and whether that will do. Mostly it will."""
        now = self.model.now
        # Sometimes one that is over or spent; mostly one that is neither.
        fitting = [
            index
            for index, (_, ends, spent) in enumerate(self.captchas)
            if (spent or ends <= now) == (pick == 0)
        ]
        if not fitting:
            made = self.sdk.captcha(device_id="any")
            self.tally["captcha", "done"] += 1
            fitting.append(len(self.captchas))
            self.captchas.append((made.id, now + 120, False))
        captcha_id, ends, spent = self.captchas[fitting[-1]]
        solution = captchas.solution(self.house.world, captcha_id) or ""
        right = not spent and ends > now and pick != 1
        if ends > now:
            self.captchas[fitting[-1]] = (captcha_id, ends, True)
        return captcha_id, solution if pick != 1 else solution[::-1] + "2", right

    def ask_for(self, to: str, pick: int, typ: str = "") -> None:
        captcha_id, solution, right = self.a_captcha(pick)
        purpose = "reset" if typ else "any"

        def believe() -> Sent | None:
            if not right:
                raise no(refusals.WrongCaptcha)
            return self.model.send(to, purpose)

        if "@" in to:
            name = "get_email_verification_code"
            spelt = to.upper() if pick % 2 else to
            self.sdk.token = ""
            sent, done = self.both(
                name,
                believe,
                lambda: self.sdk.get_email_verification_code(
                    email=spelt, id=captcha_id, code=solution, typ=typ
                ),
            )
        else:
            name = "get_verification_code"
            spelt = self.spell(to, pick)
            sent, done = self.both(
                name,
                believe,
                lambda: self.sdk.get_verification_code(
                    mobile=spelt, id=captcha_id, code=solution, platform="any"
                ),
            )
        if done is not None and sent is not None:
            newest = self.house.letters(to)[0]
            if not sent.text:
                self.agree("a fresh code", True, re.fullmatch(r"\d{6}", newest.code) is not None)
                over = {one.text for one in self.model.codes if one.to == to and one.used}
                self.agree("a code that was used is sent again", False, newest.code in over)
                sent.text = newest.code
            self.model.tell(to, "code-reset" if purpose == "reset" else "code", sent.text)
        self.compare_letters(to)

    @staticmethod
    def spell(phone: str, pick: int) -> str:
        return (
            phone,
            f"+86{phone}",
            f"86 {phone[:3]} {phone[3:7]} {phone[7:]}",
            f"+86 {phone[:3]}-{phone[3:]}",
        )[pick % 4]

    def compare_letters(self, to: str) -> None:
        letters = self.house.letters(to)
        really = [(letter.purpose, letter.code) for letter in reversed(letters)]
        self.agree(f"letters to {to}", self.model.letters.get(to, [])[-50:], really)

    @step(to=st.sampled_from(PHONES), pick=PICK)
    def get_verification_code(self, to: str, pick: int) -> None:
        self.ask_for(to, pick)

    @step(to=st.sampled_from(EMAILS), pick=PICK, typ=st.sampled_from(("", "forget_password")))
    def get_email_verification_code(self, to: str, pick: int, typ: str) -> None:
        self.ask_for(to, pick, typ)

    def with_code(self, to: str, ask: bool) -> None:
        """Ask for a code first, where none is open and it is wished."""
        if ask and self.model.open_code(to, ("any",)) is None:
            opened, _ = self.model.windows.get(("send", to), (0, 0))
            self.advance(opened + 60 - self.model.now)
            self.ask_for(to, 3)

    # -------------------------------------------------------- logging in and out

    @step(
        4,
        to=st.sampled_from(PHONES),
        pick=PICK,
        device=st.sampled_from(DEVICES),
        ask=MOSTLY,
        invite=st.integers(0, 5),
    )
    def verification_login(self, to: str, pick: int, device: str, ask: bool, invite: int) -> None:
        self.with_code(to, ask)
        guess = self.guess(to, ("any",), pick)
        code_text = ("", "", "", "nobodys", "!", self.someone(pick).invite_code)[invite]
        believed, done = self.both(
            "verification_login",
            lambda: self.model.login_by_code(to, guess, device, code_text),
            lambda: self.as_user("").verification_login(
                mobile=self.spell(to, pick),
                captcha=guess,
                device_id=device,
                platform=PLATFORMS[device],
                invite_code=code_text,
            ),
        )
        if believed is None or done is None:
            return
        _, seat, enter = believed
        if seat is None:
            new = self.learn_newcomer(done.token, to)
            seat = enter(new)
        seat.token = done.token
        self.tokens.append(done.token)

    def learn_newcomer(self, token: str, phone: str) -> Someone:
        """Ids and first invitation codes are the server's to choose."""
        told = self.as_user(token).info()
        self.agree("a new id", True, int(told.id) > max(who.id for who in self.model.people))
        self.agree("a fresh name", f"用户{told.id}", told.name)
        return Someone(
            id=int(told.id),
            name=told.name,
            phone=phone,
            email=None,
            invite_code=told.invitation_code,
            registered_at=self.model.now,
        )

    @step(
        2,
        email=SOME_EMAIL,
        pick=PICK,
        device=st.sampled_from(DEVICES),
        tries=st.integers(1, 3),
    )
    def email_login(self, email: str, pick: int, device: str, tries: int) -> None:
        holder = self.model.holder(email)
        right = holder.password if holder is not None else None
        wrong = PASSWORDS[1 + pick % 2][0]
        password = wrong if pick <= 2 or right is None else right
        for _ in range(tries if password is wrong else 1):
            seat, done = self.both(
                "email_login",
                lambda: self.model.login_by_password(email, password, device),
                lambda: self.as_user("").email_login(
                    email=email, password=password, device_id=device, platform=PLATFORMS[device]
                ),
            )
            if seat is not None and done is not None:
                seat.token = done.token
                self.tokens.append(done.token)

    @step(pick=PICK, device=st.sampled_from(DEVICES))
    def logout(self, pick: int, device: str) -> None:
        token = self.token(pick)

        def believe() -> None:
            seat = self.model.admit(token)
            self.model.end(lambda one: one is seat)

        self.both("logout", believe, lambda: self.as_user(token).logout(device_id=device))

    @step(2, pick=PICK, which=PICK)
    def device_offline(self, pick: int, which: int) -> None:
        token = self.token(pick)
        mine = [seat.device for seat in self.model.seats if seat.token == token]
        device = (*DEVICES, *mine * 4)[which % (len(DEVICES) + 4 * len(mine))]

        def believe() -> None:
            who = self.model.admit(token).who
            if not device:
                raise no(refusals.BadDevice)
            if not self.model.end(lambda one: one.who is who and one.device == device):
                raise no(refusals.UnknownDevice)

        self.both(
            "device_offline", believe, lambda: self.as_user(token).device_offline(device_id=device)
        )

    @step(
        3,
        email=SOME_EMAIL,
        password=st.sampled_from(PASSWORDS[:3] + PASSWORDS),
        pick=PICK,
        ask=MOSTLY,
    )
    def forget_password(
        self,
        email: str,
        password: tuple[str, type[refusals.Refusal] | None],
        pick: int,
        ask: bool,
    ) -> None:
        self.with_code(email, ask)
        token, guess = self.token(pick), self.guess(email, ("any", "reset"), pick)
        self.both(
            "forget_password",
            lambda: self.model.reset(email, guess, password[0]),
            lambda: self.as_user(token).forget_password(
                email=email, captcha=guess, password=password[0]
            ),
        )

    # -------------------------------------------------------- contacts

    @step(
        5,
        pick=PICK,
        right=PICK,
        which=PICK,
        contacts=st.sampled_from((PHONES, EMAILS)),
        free=MOSTLY,
        bind=st.booleans(),
        ask=MOSTLY,
    )
    def change_contact(
        self,
        pick: int,
        right: int,
        which: int,
        contacts: tuple[str, ...],
        free: bool,
        bind: bool,
        ask: bool,
    ) -> None:
        fitting = [one for one in contacts if not free or self.model.holder(one) is None]
        to = (fitting or contacts)[which % len(fitting or contacts)]
        self.with_code(to, ask)
        token, guess = self.token(pick), self.guess(to, ("any",), right)
        kind = "email" if "@" in to else "phone"
        name = f"{'bind' if bind else 'change'}_{kind}"
        link, done = self.both(
            name,
            lambda: self.model.bind(token, kind, to, guess),
            lambda: getattr(self.as_user(token), name)(**{kind: to, "captcha": guess}),
        )
        if done is not None and link is not None:
            self.compare_letters(link.told)
            link.secret = self.house.letters(link.told)[0].text.rpartition("#")[2]

    @step(2, pick=PICK)
    def undo_contact(self, pick: int) -> None:
        """The link is opened as a person does, from the letter, in the page of the web host."""
        if not self.model.undos:
            return
        link = self.model.undos[pick % len(self.model.undos)]
        secret = link.secret

        def do() -> None:
            said = self.house.web.post("/account/link", json={"secret": secret}).json()
            if said["code"] != 1:
                raise Refused(said["code"], said["msg"])

        self.both("undo", lambda: self.model.undo(link), do)

    @step(3, pick=PICK, right=PICK, ask=MOSTLY, other=st.sampled_from(PHONES + EMAILS))
    def cancel_user(self, pick: int, right: int, ask: bool, other: str) -> None:
        token = self.token(pick)
        seat = next((one for one in self.model.seats if one.token == token), None)
        # Deleting is rare in life, and would leave nobody to test with.
        mine = (seat.who.phone or seat.who.email) if seat and right > 8 else None
        to = mine or other
        self.with_code(to, ask and mine is not None)
        guess = self.guess(to, ("any",), right)
        kind = "email" if "@" in to else "phone"
        self.both(
            "cancel_user",
            lambda: self.model.cancel(token, to, guess),
            lambda: self.as_user(token).cancel_user(**{kind: to, "captcha": guess}),
        )

    # -------------------------------------------------------- who one is

    @step(2, pick=PICK)
    def info(self, pick: int) -> None:
        self.compare_info(self.token(pick))

    def compare_info(self, token: str) -> None:
        seat, told = self.both(
            "info", lambda: self.model.admit(token), lambda: self.as_user(token).info()
        )
        if seat is None or told is None:
            return
        who, now = seat.who, self.model.now
        self.agree(
            "info",
            (
                str(who.id),
                who.name,
                who.avatar_url,
                who.avatar_id,
                who.phone or "",
                who.email or "",
                who.coin / 100,
                int(who.vip_until > now),
                who.vip_until,
                who.invite_code,
            ),
            (
                told.id,
                told.name,
                told.avatar_url,
                told.avatar_id,
                told.phone,
                told.email,
                told.coin,
                told.is_vip,
                told.vip_expired_time,
                told.invitation_code,
            ),
        )

    @step(pick=PICK)
    def web_info(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "web_info", lambda: self.model.admit(token), lambda: self.as_user(token).web_info()
        )
        if seat is None or told is None:
            return
        who, user = seat.who, told.user
        self.agree(
            "web info",
            (str(who.id), who.name, who.phone or "", str(who.avatar_id), who.coin / 100),
            (user.user_id, user.nickname, user.phone, user.avatar_id, user.gold_coin_amount),
        )

    def medals_of(self, who: Someone) -> list[tuple[str, int]]:
        ordered = sorted((len(MEDALS) - MEDALS.index(name), name) for name in who.medals)
        return [(name, sort) for sort, name in ordered]

    def streak_of(self, who: Someone) -> int:
        return who.streak if who.last_day >= day_of(self.model.now) - 1 else 0

    @step(2, pick=PICK, whose=PICK)
    def get_user(self, pick: int, whose: int) -> None:
        token, text = self.token(pick), self.id_text(whose)

        def believe() -> tuple[Someone, Seat | None]:
            if not token:
                raise No(*NOT_LOGGED_IN)
            seat = self.model.find(token)
            return self.model.by_text(text), seat

        found, told = self.both("get_user", believe, lambda: self.as_user(token).get_user(id=text))
        if found is None or told is None:
            return
        who, seat = found
        now, data = self.model.now, who.data or {}
        remark = self.model.remarks.get((seat.who.id, who.id)) if seat else None
        place = data.get("province", "") + data.get("city", "") + data.get("district", "")
        noted, shown = told.remark_info, told.profile_info
        self.agree(
            "get-user",
            (
                str(who.id),
                who.name,
                who.name_id,
                who.avatar_url,
                who.avatar_id,
                self.medals_of(who),
                text_of(who.registered_at),
                who.banned_until if who.banned_until > now else 0,
                who.online,
                self.streak_of(who),
                int(who.vip_until > now),
                who.vip_until,
                remark,
                text_of(who.last_seen) if who.last_seen else "",
                data.get("introduction", ""),
                data.get("gender", 3),
                max(0, data.get("birthday", 0)),
                data.get("city", ""),
                data.get("district", ""),
                place,
            ),
            (
                told.id,
                told.name,
                told.name_id,
                told.avatar_url,
                told.avatar_id,
                [(medal.name, medal.sort) for medal in told.medal],
                told.register_time,
                told.ban_time,
                told.online_day,
                told.continuous_online_day,
                told.is_vip,
                told.vip_expired_time,
                (noted.remark_name, noted.phone_number, noted.extra_remark) if noted else None,
                shown.last_active_time,  # type: ignore[union-attr]  # The server always sends it.
                shown.introduction,  # type: ignore[union-attr]  # The same.
                shown.gender,  # type: ignore[union-attr]  # The same.
                shown.birthday_timestamp,  # type: ignore[union-attr]  # The same.
                shown.city,  # type: ignore[union-attr]  # The same.
                shown.district,  # type: ignore[union-attr]  # The same.
                shown.address,  # type: ignore[union-attr]  # The same.
            ),
        )

    @step(pick=PICK, whose=PICK)
    def homepage(self, pick: int, whose: int) -> None:
        token, text = self.token(pick), self.id_text(whose)
        _, told = self.both(
            "homepage", lambda: None, lambda: self.as_user(token).homepage(user_id=text)
        )
        assert told is not None
        user = told.user
        really = (
            user.user_id,
            user.nickname,
            user.avatar_url,
            user.register_time,
            user.register_time_text,
            user.on_line_day,
            user.continuous_on_line_day,
            [(medal.name, medal.sort) for medal in user.medals],
            user.is_vip,
        )
        try:
            who = self.model.by_text(text)
        except No:
            self.agree("an empty homepage", ("", "", "", 0, "", 0, 0, [], 0), really)
            return
        self.agree(
            "homepage",
            (
                str(who.id),
                who.name,
                who.avatar_url,
                who.registered_at,
                text_of(who.registered_at),
                who.online,
                self.streak_of(who),
                self.medals_of(who),
                int(who.vip_until > self.model.now),
            ),
            really,
        )

    @step(pick=PICK)
    def medal(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "medal", lambda: self.model.admit(token), lambda: self.as_user(token).medal()
        )
        if seat is not None and told is not None:
            really = [(medal.name, medal.sort) for medal in told.medal]
            self.agree("medals", self.medals_of(seat.who), really)

    @step(2, pick=PICK, name=st.sampled_from(NAMES))
    def edit_nickname(self, pick: int, name: tuple[str, str | None]) -> None:
        token = self.token(pick)

        def believe() -> None:
            who = self.model.admit(token).who
            if name[1] is None:
                raise no(refusals.BadNickname, most=32)
            who.name, who.name_id = name[1], who.name_id + 1
            self.model.reward_once(who, "首次修改昵称")

        self.both("edit_nickname", believe, lambda: self.as_user(token).edit_nickname(name=name[0]))

    @step(2, pick=PICK, url=st.sampled_from(AVATARS))
    def edit_avatar(self, pick: int, url: tuple[str, str | None]) -> None:
        token = self.token(pick)

        def believe() -> None:
            who = self.model.admit(token).who
            if url[1] is None:
                raise no(refusals.BadAvatar, most=2048)
            who.avatar_url, who.avatar_id = url[1], who.avatar_id + 1
            self.model.reward_once(who, "首次修改头像")

        self.both("edit_avatar", believe, lambda: self.as_user(token).edit_avatar(url=url[0]))

    @step(
        2,
        pick=PICK,
        introduction=st.sampled_from((*INTRODUCTIONS, *INTRODUCTIONS, "x" * 501)),
        gender=st.sampled_from((1, 2, 3, 1, 2, 3, 0, 4)),
        birthday=st.sampled_from(
            (0, 1231231230, -1, 0, 1, -2208988800, -2208988801, 4102444800, 4102444801)
        ),
        city=st.sampled_from(("", "杭州", "湖州", "x" * 65)),
    )
    def save_user_data(
        self, pick: int, introduction: str, gender: int, birthday: int, city: str
    ) -> None:
        token = self.token(pick)
        values: dict[str, Any] = {
            "introduction": introduction,
            "gender": gender,
            "birthday": birthday,
            "province": "浙江",
            "city": city,
            "district": "西湖",
            "location_code": "330106",
        }

        def believe() -> None:
            who = self.model.admit(token).who
            if gender not in (1, 2, 3):
                raise no(refusals.BadGender)
            # The years 1900 up to 2100.
            if not -2208988800 <= birthday <= 4102444800:
                raise no(refusals.BadBirthday)
            if len(introduction) > 500:
                raise no(refusals.TooLong, field="简介", most=500)
            if len(city) > 64:
                raise no(refusals.TooLong, field="城市", most=64)
            who.data, who.data_at = values, self.model.now

        self.both("save_user_data", believe, lambda: self.as_user(token).save_user_data(**values))

    @step(pick=PICK)
    def get_user_data(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "get_user_data",
            lambda: self.model.admit(token),
            lambda: self.as_user(token).get_user_data(),
        )
        if seat is None or told is None:
            return
        who, data = seat.who, told.data
        never = {"introduction": "", "gender": 3, "birthday": 0} | dict.fromkeys(
            ("province", "city", "district", "location_code"), ""
        )
        expected = who.data or never
        self.agree("personal data", expected, {name: getattr(data, name) for name in expected})
        self.agree(
            "personal times",
            (str(who.id), who.last_login, who.data_at),
            (data.user_id, data.last_login_time, data.update_time),
        )
        self.agree("personal id", who.data is not None, data.id > 0)
        self.agree("a steady id", who.data_id or data.id, data.id)
        who.data_id = data.id

    @step(pick=PICK, whose=PICK, name=st.sampled_from(("", "老王", "x" * 65)), others=NUMBER)
    def save_user_remarks(self, pick: int, whose: int, name: str, others: int) -> None:
        token, text = self.token(pick), self.id_text(whose)
        typed, stored = OTHERS[others % len(OTHERS)]

        def believe() -> None:
            who = self.model.admit(token).who
            friend = self.model.by_text(text)
            if len(name) > 64:
                raise no(refusals.TooLong, field="备注名", most=64)
            if stored is None:
                raise no(refusals.BadRemarks)
            self.model.remarks[who.id, friend.id] = name, "12345", stored

        self.both(
            "save_user_remarks",
            believe,
            lambda: self.as_user(token).save_user_remarks(
                friend_id=text, name=name, phone="12345", others=typed
            ),
        )

    # -------------------------------------------------------- devices

    @step(pick=PICK)
    def clients(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "clients", lambda: self.model.admit(token), lambda: self.as_user(token).clients()
        )
        if seat is None or told is None:
            return
        who = seat.who
        # One line for each device and platform, since clients share constant device ids.
        newest: dict[tuple[str, str], int] = {}
        mine = [one for one in self.model.seats if one.who is who]
        for one in sorted(mine, key=lambda one: (one.created, one.order), reverse=True):
            newest.setdefault((one.platform, one.device), one.created)
        self.agree(
            "devices",
            [(str(who.id), *key, at) for key, at in newest.items()],
            [
                (one.user_id, one.platform, one.device_id, one.login_timestamp)
                for one in told.clients
            ],
        )

    @step(
        pick=PICK,
        device=st.sampled_from(DEVICES),
        registration=st.sampled_from(("r1", "r2")),
        is_open=st.integers(0, 2),
        kind=st.integers(0, 2),
    )
    def notification_info(
        self, pick: int, device: str, registration: str, is_open: int, kind: int
    ) -> None:
        token = self.token(pick)

        def believe() -> None:
            who = self.model.admit(token).who
            if not device:
                raise no(refusals.BadDevice)
            if is_open not in (0, 1):
                raise no(refusals.BadSwitch)
            key, now = (who.id, device, registration), self.model.now
            row = self.model.registrations.setdefault(key, Row({}, now, now))
            row.values, row.changed = {"is_open": is_open, "type": kind}, now

        self.both(
            "notification_info",
            believe,
            lambda: self.as_user(token).notification_info(
                device_id=device, registration_id=registration, is_open=is_open, type=kind
            ),
        )

    @step(2, pick=PICK, device=st.sampled_from(DEVICES), registration=st.sampled_from(("r1", "r2")))
    def notification_status(self, pick: int, device: str, registration: str) -> None:
        token = self.token(pick)

        def believe() -> tuple[Someone, Row | None]:
            who = self.model.admit(token).who
            if not device:
                raise no(refusals.BadDevice)
            return who, self.model.registrations.get((who.id, device, registration))

        found, told = self.both(
            "notification_status",
            believe,
            lambda: self.as_user(token).notification_status(
                device_id=device, registration_id=registration
            ),
        )
        if found is None or told is None:
            return
        who, row = found
        read = told.notification
        stored = row or Row({"is_open": 0, "type": 0}, 0, 0)
        self.agree(
            "registration",
            (str(who.id), device, registration, stored.values, stored.made, stored.changed, 0),
            (
                read.user_id,
                read.device_id,
                read.registration_id,
                {"is_open": read.is_open, "type": read.type},
                read.create_time,
                read.update_time,
                read.del_flag,
            ),
        )
        self.agree("registration id", row is not None, read.id > 0)
        if row is not None:
            self.agree("a steady id", row.id or read.id, read.id)
            row.id = read.id

    @step(
        2,
        pick=PICK,
        device=st.sampled_from(DEVICES),
        ignore=st.sampled_from(("", ",30,20,10", "10", "all", "x" * 256)),
    )
    def module_ignore(self, pick: int, device: str, ignore: str) -> None:
        token = self.token(pick)

        def believe() -> None:
            who = self.model.admit(token).who
            if who.vip_until <= self.model.now:
                raise No(*VIP_ONLY)
            if not device:
                raise no(refusals.BadDevice)
            if "x" in ignore or "all" in ignore:
                raise no(refusals.BadIgnore)
            now = self.model.now
            row = self.model.ignores.setdefault((who.id, device), Row({}, now, now))
            row.values, row.changed = {"ignore": ignore}, now

        self.both(
            "module_ignore",
            believe,
            lambda: self.as_user(token).module_ignore(device_id=device, ignore=ignore),
        )

    @step(2, pick=PICK, device=st.sampled_from(DEVICES))
    def module_ignore_info(self, pick: int, device: str) -> None:
        self.compare_ignores(self.token(pick), device)

    def compare_ignores(self, token: str, device: str) -> None:
        def believe() -> tuple[Someone, Row | None]:
            who = self.model.admit(token).who
            if who.vip_until <= self.model.now:
                raise No(*VIP_ONLY)
            return who, self.model.ignores.get((who.id, device))

        found, told = self.both(
            "module_ignore_info",
            believe,
            lambda: self.as_user(token).module_ignore_info(device_id=device),
        )
        if found is None or told is None:
            return
        who, row = found
        read = told.ignore
        self.agree(
            "what is hidden",
            (str(who.id), device, row.values["ignore"] if row else "", row.changed if row else 0),
            (read.user_id, read.device_id, read.ignore, read.update_time),
        )
        self.agree("ignore id", row is not None, read.id > 0)

    # -------------------------------------------------------- discovery

    @step(
        2,
        pick=PICK,
        section=st.sampled_from(("", "精选", "游戏", "无")),
        keyword=st.sampled_from(("", "湖畔", " LAKE ", "%", "_", "\\")),
        page=st.sampled_from((1, 1, 1, 2, 3, 0, -1)),
        size=st.sampled_from((30, 1, 1, 2, 0, -1)),
    )
    def recommend_list(self, pick: int, section: str, keyword: str, page: int, size: int) -> None:
        token = self.token(pick)

        def believe() -> list[tuple[str, str]]:
            self.model.admit(token)
            if page < 0 or size < 0:
                raise No(*BAD_PARAMETERS)
            wanted = keyword.strip().lower()
            found = [
                (name, introduction)
                for one_section, name, introduction, banned in GROUPS
                if not banned
                and section in ("", one_section)
                and (wanted in name.lower() or wanted in introduction.lower())
            ]
            start = ((page or 1) - 1) * (size or 30)
            return found[start : start + (size or 30)]

        found, told = self.both(
            "recommend_list",
            believe,
            lambda: self.as_user(token).recommend_list(
                category=section, keyword=keyword, page=page, size=size
            ),
        )
        if told is not None:
            really = [(group.nickname, group.introduction) for group in told.group_list]
            self.agree("groups", found, really)

    @step(pick=PICK)
    def discovery_that_stands_still(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "recommend_category_list",
            lambda: self.model.admit(token),
            lambda: self.as_user(token).recommend_category_list(app_channel="default"),
        )
        if told is not None:
            self.agree("sections", ["精选", "游戏", "地区"], told.categories)
        seat, bots = self.both(
            "recommend", lambda: self.model.admit(token), lambda: self.as_user(token).recommend()
        )
        if bots is not None:
            self.agree("bots", ["丙", "甲"], [one.nickname for one in bots.bot_list])
        seat, advert = self.both(
            "get_user_show_adv",
            lambda: self.model.admit(token),
            lambda: self.as_user(token).get_user_show_adv(),
        )
        if seat is not None and advert is not None:
            vip = seat.who.vip_until > self.model.now
            really = (advert.android_code_id, advert.bottom_height, advert.is_show)
            self.agree("advertisement", ("", 0, 0) if vip else ("a", 50, 1), really)
        _, places = self.both(
            "configure_distribution",
            lambda: None,
            lambda: self.as_user(token).configure_distribution(),
        )
        assert places is not None
        self.agree("places", ("", True), (places.audio_url, bool(places.server_url)))

    # -------------------------------------------------------- coins and invitations

    @step(
        2,
        pick=PICK,
        page=st.sampled_from((1, 1, 2, 3, 0, -1)),
        size=st.sampled_from((1, 2, 3, 20, 0, -1)),
    )
    def coin_records(self, pick: int, page: int, size: int) -> None:
        self.compare_coins(self.token(pick), page, size)

    def compare_coins(self, token: str, page: int, size: int) -> None:
        found, told = self.both(
            "gold_coin_increase_decrease_record",
            lambda: (self.model.admit(token), self.model.page(token, page, size)),
            lambda: self.as_user(token).gold_coin_increase_decrease_record(page=page, size=size),
        )
        if found is None or told is None:
            return
        seat, (lines, total, _) = found
        self.agree("coins in all", total, told.total)
        self.agree(
            "coin records",
            [
                (
                    str(seat.who.id),
                    line.typ,
                    line.before / 100,
                    (line.before + line.change) / 100,
                    line.change / 100,
                    line.reason,
                    line.remark,
                    line.at,
                )
                for line in lines
            ],
            [
                (
                    one.user_id,
                    one.typ,
                    one.before_amount,
                    one.after_amount,
                    one.change_amount,
                    one.reason,
                    one.remark,
                    one.create_time,
                )
                for one in told.gold_coin_record
            ],
        )

    @step(pick=PICK)
    def invite_progress(self, pick: int) -> None:
        token = self.token(pick)
        seat, told = self.both(
            "invite_progress",
            lambda: self.model.admit(token),
            lambda: self.as_user(token).invite_progress(),
        )
        if seat is None or told is None:
            return
        self.agree(
            "invitations",
            (*self.model.came_by(seat.who), TARGET_DAY, TARGET_TOTAL),
            (
                told.current_number_day,
                told.current_number_total,
                told.target_number_day,
                told.target_number_total,
            ),
        )

    @step(2, pick=PICK, whose=PICK, wish=NUMBER)
    def change_user_invite_code(self, pick: int, whose: int, wish: int) -> None:
        token = self.token(pick)
        text = WISHES[wish] if wish < len(WISHES) else self.someone(whose).invite_code
        self.both(
            "change_user_invite_code",
            lambda: self.model.invite(token, text),
            lambda: self.as_user(token).change_user_invite_code(code=text),
        )

    # -------------------------------------------------------- the operator

    @step(
        3,
        whose=PICK,
        change=st.sampled_from((1, 250, 1000, -1, -250, -1000)),
        repeat=st.booleans(),
    )
    def operator_posts(self, whose: int, change: int, repeat: bool) -> None:
        who = self.someone(whose)
        key = f"model:{next(self.keys)}"

        def do() -> int:
            try:
                with self.house.rules("operator") as ctx:
                    return coins.post(ctx, who.id, change, typ=8, reason="抽奖", key=key)
            except refusals.Refusal as refusal:
                raise Refused(refusal.code, refusal.text("zh")) from refusal

        line, posting = self.both("post", lambda: self.model.post(who, change, 8, "抽奖"), do)
        if line is not None and posting is not None:
            line.posting = posting
            if repeat:
                self.agree("the same key again", posting, do())

    @step(whose=PICK, which=PICK)
    def operator_reverses(self, whose: int, which: int) -> None:
        who = self.someone(whose)
        known = [line for line in who.book if line.posting]
        if not known:
            return
        line = known[which % len(known)]

        def believe() -> Line:
            if line.posting in self.model.reversed or line.typ == 1:
                raise no(refusals.AlreadyReversed)
            made = self.model.post(who, -line.change, 1, "更正", f"#{line.posting}")
            self.model.reversed.add(line.posting)
            return made

        def do() -> int:
            try:
                with self.house.rules("operator") as ctx:
                    return coins.reverse(ctx, line.posting, "更正")
            except refusals.Refusal as refusal:
                raise Refused(refusal.code, refusal.text("zh")) from refusal

        made, posting = self.both("reverse", believe, do)
        if made is not None and posting is not None:
            made.posting = posting

    @step(
        whose=PICK,
        seconds=st.sampled_from((60, 3600, DAY, people.FOREVER)),
        sure=st.integers(0, 3),
    )
    def operator_bans(self, whose: int, seconds: int, sure: int) -> None:
        who = self.someone(whose)
        if who.gone or (sure and who.banned_until <= self.model.now):
            return
        if who.banned_until > self.model.now:
            with self.house.rules("operator") as ctx:
                people.unban(ctx, who.id)
            who.banned_until = 0
            return
        until = min(self.model.now + seconds, people.FOREVER)
        with self.house.rules("operator") as ctx:
            people.ban(ctx, who.id, until, "")
        who.banned_until = until
        self.model.end(lambda seat: seat.who is who)
        self.model.settle(who)

    @step(
        3, whose=PICK, seconds=st.sampled_from((0, 1, 3600, 40 * DAY)), name=st.sampled_from(MEDALS)
    )
    def operator_grants(self, whose: int, seconds: int, name: str) -> None:
        who = self.someone(whose)
        if who.gone:
            return
        until = self.model.now + seconds if seconds else 0
        with self.house.rules("operator") as ctx:
            people.make_vip(ctx, who.id, until)
            if name in who.medals and not seconds:
                medals.take(ctx, who.id, name)
                who.medals.remove(name)
            else:
                medals.grant(ctx, who.id, name)
                who.medals.add(name)
        who.vip_until = until

    # -------------------------------------------------------- the end

    def compare_everything(self) -> None:
        """Look at everybody who can still be looked at, and at both books."""
        for pick in range(2, 2 + min(len(self.model.seats), 3)):
            self.info(pick)
            self.get_user_data(pick)
            self.clients(pick)
            self.compare_coins(self.token(pick), 1, 100)
        for who in range(1, len(self.model.people) + 1):
            self.homepage(0, who)
        for to in PHONES + EMAILS:
            self.compare_letters(to)
        with self.house.rules() as ctx:
            self.agree("the coin book", [], coins.verify(ctx))
            self.agree("the audit", [], audit.verify(ctx))


# ---------------------------------------------------------------- running it

Fresh = Callable[[], AbstractContextManager[House]]
_numbers = itertools.count(1)


@pytest.fixture
def fresh(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Fresh:
    """Opens houses, each on a database of its own that goes with it."""
    # A line for each of thousands of calls would take longer than many of the calls.
    loud_only = structlog.make_filtering_bound_logger(logging.ERROR)
    loud = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=loud_only)
    monkeypatch.setattr(server_door, "log", loud)

    @contextmanager
    def opened() -> Iterator[House]:
        name = f"model_{next(_numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        if kind == "sqlite":
            address = maintenance = ""
            url = f"sqlite:///{folder / 'hupan.db'}"
            shutil.copyfile(sqlite_template, folder / "hupan.db")
        else:
            maintenance = request.getfixturevalue("postgres")
            address = maintenance.replace("/postgres?", f"/{name}?")
            url = address
            with psycopg.connect(maintenance, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE template_hupan")
        house = make_house(
            url,
            folder,
            max_sessions=MAX_SESSIONS,
            code_day_limit=DAY_LIMIT,
            invite_target_day=TARGET_DAY,
            invite_target_total=TARGET_TOTAL,
        )
        try:
            yield house
        finally:
            house.close()
            shutil.rmtree(folder)
            if kind != "sqlite":
                with psycopg.connect(maintenance, autocommit=True) as connection:
                    connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    return opened


def campaign(fresh: Fresh, examples: int, seed: int) -> tuple[int, Counter[tuple[str, str]]]:
    """Run so many sequences of 50 steps; returns how many calls were compared, and their outcomes.

    Shrinking a failure takes minutes; TEST_SHRINK=1 asks for it.

    Raises:
        Divergence: the server and the model disagreed.
    """
    made: type[UserCalls] = type(
        "UserCalls",
        (UserCalls,),
        {"fresh": staticmethod(fresh), "tally": Counter(), "steps": [0]},
    )
    phases = [Phase.generate]
    if os.environ.get("TEST_SHRINK"):
        phases.append(Phase.shrink)
    run_state_machine_as_test(
        hypothesis.seed(seed)(made),
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return made.steps[0], made.tally


def never_done(tally: Counter[tuple[str, str]]) -> set[str]:
    """The rows that never succeeded: a campaign that compares only refusals proves little."""
    done = {name for name, outcome in tally if outcome == "done"}
    return {row.name for row in rows()} - done


def test_the_server_does_what_the_model_does(fresh: Fresh, kind: str) -> None:
    """R5: 1,000 drawn steps on each database, 2,000 in all, without a divergence."""
    print(f"TEST_SEED={SEED}")
    compared, tally = campaign(fresh, 20, SEED + KINDS.index(kind))
    print(f"{compared} calls compared on {kind}")
    for (name, outcome), count in sorted(tally.items()):
        print(f"{count:6} {name}: {outcome}")
    assert compared >= 1000
    assert len(never_done(tally)) <= 6


@pytest.mark.nightly
def test_the_server_does_what_the_model_does_all_night(fresh: Fresh, kind: str) -> None:
    """R5: 25,000 drawn steps on each database, 50,000 in all."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"TEST_SEED={seed}")
    compared, tally = campaign(fresh, 500, seed)
    print(f"{compared} calls compared on {kind}")
    assert never_done(tally) == set()


# ---------------------------------------------------------------- mutants


def codes_are_not_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: a code may be used again."""
    monkeypatch.setattr(codes, "use", lambda ctx, proof: ctx.tx.begin())


def sends_wait_a_second_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """C6: the interval is not exact at its boundary."""
    take = limits.take

    def late(ctx: Any, key: str, most: int, seconds: int, refusal: Any) -> int:
        return take(ctx, key, most, seconds + 1 if key.startswith("send:") else seconds, refusal)

    monkeypatch.setattr(limits, "take", late)


def days_begin_at_greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days are counted by another midnight."""
    monkeypatch.setattr(World, "day", lambda self, seconds: seconds // DAY)


def vip_ends_a_second_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """VIP does not hold to the second."""

    def check(ctx: Any, who: Any) -> None:
        if who.vip_until < ctx.now:
            raise refusals.VipOnly()

    monkeypatch.setattr(devices, "_check_vip", check)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "mutate",
    [
        codes_are_not_used_up,
        sends_wait_a_second_longer,
        days_begin_at_greenwich,
        vip_ends_a_second_late,
    ],
)
def test_the_machine_finds_a_broken_rule(
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """R5: the same machine, with the same seed, diverges where one rule is changed a little."""
    mutate(monkeypatch)
    with pytest.raises(Divergence):
        campaign(fresh, 60, SEED)


# ---------------------------------------------------------------- what the machine led to


def test_a_registration_outlives_the_sweep(house: House) -> None:
    """A client that logs in under one device name and registers another keeps its registration."""
    me = house.client(house.token(house.person(), device="installation"))
    me.notification_info(device_id="handset", registration_id="r", is_open=1, type=2)
    with house.rules() as ctx:
        sessions.sweep(ctx)
    status = me.notification_status(device_id="handset", registration_id="r")
    assert status.notification.is_open == 1


def test_a_session_that_is_over_is_no_device(house: House) -> None:
    """T4: what the list of devices shows does not depend on when the sweeper last came by."""
    who = house.person()
    house.token(who, device="old")
    house.clock.advance(30 * DAY)
    me = house.client(house.token(who, device="new"))
    assert [one.device_id for one in me.clients().clients] == ["new"]
    with pytest.raises(Refused):
        me.device_offline(device_id="old")


def test_the_sweep_survives_a_letter_that_never_left(house: House) -> None:
    """A link may be forgotten before the letter that carries it has left or been given up."""
    me = house.login(1)
    me.change_phone(phone="13700000001", captcha=house.code_for("13700000001"))
    house.clock.advance(40 * DAY)
    with house.rules() as ctx:
        for room in (captchas, limits, sessions, outbox, codes, links):
            room.sweep(ctx)
