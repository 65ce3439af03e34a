"""Invitations: one's own code, whose invitation one answers, and what the inviter is paid."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from hupan.accounts import coins, invites
from hupan.accounts.context import Context
from hupan.accounts.refusals import AlreadyInvited
from hupan.accounts.tables import account
from hupan.client import Client, Refused
from tests.house import DAY, HandClock, House

BAD = (-1, "邀请码需要 4 到 16 位字母或数字")
OWN = (-1, "不能使用自己的邀请码")
TWICE = (-1, "已经使用过邀请码")


def refusal_of(client: Client, code: str) -> tuple[int, str]:
    """What answering or choosing this code is refused with."""
    with pytest.raises(Refused) as refused:
        client.change_user_invite_code(code=code)
    return refused.value.code, refused.value.msg


def code_of(client: Client) -> str:
    return client.info().invitation_code


def counted(client: Client) -> tuple[int, int]:
    told = client.invite_progress()
    return told.current_number_day, told.current_number_total


def paid(client: Client) -> list[tuple[int, float, str]]:
    page = client.gold_coin_increase_decrease_record(size=100, page=1)
    return [(one.typ, one.change_amount, one.reason) for one in page.gold_coin_record]


def test_everybody_has_a_code_of_their_own(house: House) -> None:
    """Eight characters that cannot be taken for one another, and no two alike."""
    codes = {code_of(house.login(number)) for number in range(1, 9)}
    assert len(codes) == 8
    for code in codes:
        assert re.fullmatch(r"[A-HJ-NP-Z2-9]{8}", code)


def test_an_answered_invitation_pays_the_inviter_once(house: House) -> None:
    """Wire: type 9 is an invited user; an account answers one invitation in its life."""
    inviter, me, other = (house.login(number) for number in (1, 2, 3))
    assert (counted(inviter), paid(inviter)) == ((0, 0), [])
    me.change_user_invite_code(code=f" {code_of(inviter)} ")
    assert counted(inviter) == (1, 1)
    assert paid(inviter) == [(9, 5.0, "邀请用户")]
    assert paid(me) == []
    # One's own code is still one's own.
    assert code_of(me) != code_of(inviter)
    assert refusal_of(me, code_of(inviter)) == TWICE
    assert refusal_of(me, code_of(other)) == TWICE
    assert counted(inviter) == (1, 1)
    assert counted(other) == (0, 0)
    other.change_user_invite_code(code=code_of(inviter))
    assert counted(inviter) == (2, 2)
    assert inviter.info().coin == 10
    answer = house.post("/v1/user/invite/invite-progress", token=inviter.token).json()
    assert answer["data"] == {
        "currentNumberDay": 2,
        "currentNumberTotal": 2,
        "targetNumberDay": 10,
        "targetNumberTotal": 100,
    }


def test_nobody_invites_themselves_nor_their_inviter(house: House) -> None:
    """Refused with nothing written, so that the right code can still be given."""
    first, second, third = (house.login(number) for number in (1, 2, 3))
    assert refusal_of(first, code_of(first)) == OWN
    second.change_user_invite_code(code=code_of(first))
    assert refusal_of(first, code_of(second)) == OWN
    assert counted(second) == (0, 0)
    first.change_user_invite_code(code=code_of(third))
    assert counted(third) == (1, 1)


def test_a_free_code_becomes_ones_own(house: House) -> None:
    """Wire §4.8: the endpoint is named after changing; others then answer the new code."""
    me, other = house.login(1), house.login(2)
    old = code_of(me)
    me.change_user_invite_code(code="Hupan2026")
    assert code_of(me) == "Hupan2026"
    assert refusal_of(me, "Hupan2026") == OWN
    other.change_user_invite_code(code="Hupan2026")
    assert counted(me) == (1, 1)
    assert other.info().invitation_code != "Hupan2026"
    # The old code is free again.
    other.change_user_invite_code(code=old)
    assert code_of(other) == old
    for code in (
        "",
        "abc",
        "a" * 17,
        "with space",
        "湖畔湖畔",
        "a-b-c",
        "-1000001",
        "ab\ncd",
        "１２３４",
    ):
        assert refusal_of(me, code) == BAD, code
    assert code_of(me) == "Hupan2026"
    for code in ("abcd", "A" * 16, "1234"):
        me.change_user_invite_code(code=code)
        assert code_of(me) == code


def test_the_targets_cap_the_pay_and_not_the_count(
    build: Callable[..., House], clock: HandClock
) -> None:
    """So many a day and so many in all are paid; the day begins at the zone's midnight."""
    house = build(invite_target_day=2, invite_target_total=3, reward_invitation=120)
    inviter = house.login(1)
    code = code_of(inviter)
    for number, lines in ((2, 1), (3, 2), (4, 2)):
        house.login(number).change_user_invite_code(code=code)
        assert counted(inviter) == (number - 1, number - 1)
        assert len(paid(inviter)) == lines
    # Twelve hours later it is midnight; a second before, it is not.
    clock.advance(DAY // 2 - 1)
    assert counted(inviter) == (3, 3)
    clock.advance(1)
    assert counted(inviter) == (0, 3)
    for number in (5, 6):
        house.login(number).change_user_invite_code(code=code)
    # Neither is more than a day's two, yet three in all had come before them.
    assert counted(inviter) == (2, 5)
    assert paid(inviter) == [(9, 1.2, "邀请用户")] * 2
    told = inviter.invite_progress()
    assert (told.target_number_day, told.target_number_total) == (2, 3)


def test_an_invitation_of_zero_pays_nothing(build: Callable[..., House]) -> None:
    """A setting of 0 is no reward; the count goes on."""
    house = build(reward_invitation=0)
    inviter, me = house.login(1), house.login(2)
    me.change_user_invite_code(code=code_of(inviter))
    assert (counted(inviter), paid(inviter)) == ((1, 1), [])


def test_a_first_login_answers_an_invitation(house: House) -> None:
    """Ours: `inviteCode` beside the code; a wrong one refuses the login and spends nothing."""
    inviter = house.login(1)
    phone = "13912345678"
    code = house.code_for(phone)
    stranger = house.client()
    with pytest.raises(Refused) as refused:
        stranger.verification_login(mobile=phone, captcha=code, invite_code="nobody")
    assert (refused.value.code, refused.value.msg) == BAD
    with house.rules() as ctx:
        assert ctx.tx.value(select(account.c.id).where(account.c.phone == phone)) is None
    answer = house.post(
        "/v1/user/verification-login",
        f'{{"mobile":"{phone}","captcha":"{code}","inviteCode":"{code_of(inviter)}"}}',
    ).json()
    assert answer["code"] == 1
    assert counted(inviter) == (1, 1)
    assert len(paid(inviter)) == 1
    assert refusal_of(house.client(answer["data"]["token"]), code_of(inviter)) == TWICE


# ---------------------------------------------------------------- at once


def at_once(house: House, *works: Callable[[Context], None]) -> list[str]:
    """Begin the works in turn, each before the one before has committed; their refusals.

    The first holds its transaction open until the others are at work, which is the worst order
    there is: whatever they read, they read before the first was committed.
    """
    outcomes: list[str] = [""] * len(works)
    begun = threading.Barrier(len(works))

    def run(place: int) -> None:
        try:
            with house.rules() as ctx:
                works[place](ctx)
        except Exception as error:  # Whatever ends a work is its outcome.
            outcomes[place] = type(error).__name__

    def others(place: int) -> None:
        begun.wait()
        run(place)

    threads = [threading.Thread(target=others, args=(place,)) for place in range(1, len(works))]
    for thread in threads:
        thread.start()
    with house.rules() as ctx:
        works[0](ctx)
        begun.wait()
        # They end by themselves or wait for this transaction; both are over soon.
        for thread in threads:
            thread.join(0.3)
    for thread in threads:
        thread.join()
    return outcomes


def test_two_people_do_not_invite_each_other_at_once(house: House) -> None:
    """The circle is looked for where nobody can close it in between."""
    first, second = house.person(1), house.person(2)
    codes = [code_of(house.client(house.token(one))) for one in (first, second)]
    outcomes = at_once(
        house,
        lambda ctx: invites.answer(ctx, first, codes[1]),
        lambda ctx: invites.answer(ctx, second, codes[0]),
    )
    with house.rules() as ctx:
        inviters = ctx.tx.all(select(account.c.invited_by).order_by(account.c.id))
        assert coins.verify(ctx) == []
    assert [row.invited_by for row in inviters] == [second, None]
    assert outcomes == ["", "OwnInvitation"]


def answer_two_at_once(house: House) -> list[Any]:
    """One account answers two invitations at once; who was paid."""
    me, *inviters = (house.person(number) for number in (1, 2, 3))
    clients = [house.client(house.token(one)) for one in inviters]
    codes = [code_of(client) for client in clients]
    outcomes = at_once(
        house, *(lambda ctx, code=code: invites.answer(ctx, me, code) for code in codes)
    )
    return [*outcomes, *(len(paid(client)) for client in clients)]


def test_two_answers_at_once_count_as_one(house: House) -> None:
    """The second finds the first, and pays nobody."""
    assert answer_two_at_once(house) == ["", "AlreadyInvited", 1, 0]


def test_the_race_finds_an_answer_without_its_guard(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: it looks first and writes later, without a condition."""

    def careless(ctx: Context, account_id: int, text: str) -> None:
        mine = account.c.id == account_id
        if ctx.tx.value(select(account.c.invited_by).where(mine)) is not None:
            raise AlreadyInvited()
        inviter = ctx.tx.value(select(account.c.id).where(account.c.invite_code == text))
        ctx.tx.run(update(account).where(mine).values(invited_by=inviter, invited_at=ctx.now))
        coins.post(ctx, inviter, 500, typ=9, reason="邀请用户", key=f"careless:{inviter}")

    monkeypatch.setattr(invites, "answer", careless)
    assert answer_two_at_once(house) == ["", "", 1, 1]
