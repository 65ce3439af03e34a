"""The fixed people and data of dev mode: the same in every start, described in the docs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from argon2 import PasswordHasher
from sqlalchemy import delete, insert, select, update

from hupan.accounts import coins, devices, discovery, invites, medals, people, profile, sessions
from hupan.accounts.context import Caller, Context
from hupan.accounts.discovery import Advert
from hupan.accounts.tables import account, bot, category, group_chat, outbox
from hupan.sandbox.chance import SeededRandom

__all__ = ["COUNT", "FIRST", "Person", "everybody", "seed"]

FIRST = 7_000_001
COUNT = 20
#: How many more a seed makes.
MORE = 30
DAY = 86_400
#: 2024-01-01 08:00:00 in Shanghai; person n registered n days later.
BEGINNING = 1_704_067_200

CATEGORIES = ("精选", "粉丝群", "地区", "IT/互联网", "玩机", "游戏", "资讯订阅")
NOTES = {
    1: "勋章和金币记录 medals and coin records",
    2: "长期 VIP for years",
    11: "VIP 已过期 has ended",
    12: "VIP 一小时内到期 ends within the hour",
    13: "封禁一周，令牌已失效 banned for a week, token dead",
    14: "未绑定邮箱 no e-mail",
    15: "未绑定手机 no phone",
    16: "已注销，令牌已失效 deleted, token dead",
    17: "完整资料、多设备 everything filled in",
    18: "完整资料、多设备 everything filled in",
    19: "完整资料、多设备 everything filled in",
    20: "完整资料、多设备 everything filled in",
}


@dataclass(frozen=True, slots=True)
class Person:
    """One of the fixed people, with everything needed to be them."""

    id: int
    phone: str
    email: str
    password: str
    token: str
    note: str


def everybody() -> list[Person]:
    """All twenty, in the order of their ids."""
    return [_person(number) for number in range(1, COUNT + 1)]


def _person(number: int) -> Person:
    return Person(
        id=FIRST + number - 1,
        phone="" if number == 15 else f"138000000{number:02d}",
        email="" if number == 14 else f"user{number}@example.com",
        password=f"password-{number}",
        # Those of the banned and of the deleted one are dead, which is good to have at hand.
        token=_token(number),
        note=NOTES.get(number, ""),
    )


def _token(number: int, device: int = 0) -> str:
    """A token that is the same in every start."""
    digits = int.from_bytes(hashlib.sha256(f"hupan dev {number} {device}".encode()).digest())
    secret = ""
    for _ in range(sessions.RANDOM):
        digits, place = divmod(digits, 62)
        secret += sessions.ALPHABET[place]
    return sessions.shape(secret)


def seed(ctx: Context, more: str = "") -> bool:
    """Put everything in, unless it is there already. Returns whether it was put in.

    `more` is a seed from which thirty further people are made, the same for the same seed.
    """
    if ctx.tx.value(select(account.c.id).where(account.c.id == FIRST)) is not None:
        return False
    ctx.tx.begin()
    # Strong hashes of known passwords protect nobody and would cost a second at each start.
    weak = PasswordHasher(memory_cost=8, time_cost=1, parallelism=1)
    for number, person in enumerate(everybody(), start=1):
        _open(ctx, number, person, weak)
    _discovery(ctx)
    _stories(ctx)
    if more:
        _strangers(ctx, SeededRandom(more))
    ctx.tx.renumber(account)
    return True


def _open(ctx: Context, number: int, person: Person, weak: PasswordHasher) -> None:
    people.create(
        ctx,
        phone=person.phone or None,
        email=person.email or None,
        name=f"测试用户{number}"
        if number <= 16
        else f"名字很长很长的测试用户·The Longest {number}",
        account_id=person.id,
    )
    ctx.tx.run(
        update(account)
        .where(account.c.id == person.id)
        .values(
            password_hash=weak.hash(person.password),
            avatar_url=f"https://img.example.com/avatar/{number}.png",
            avatar_id=1,
            invite_code=f"HUPAN{number:02d}",
            registered_at=BEGINNING + number * DAY,
        )
    )
    sessions.open_session(
        ctx, person.id, f"device-{number}", "sandbox", by="seed", token=person.token
    )


def _discovery(ctx: Context) -> None:
    ctx.tx.run(
        insert(category).values(
            [{"name": name, "sort": place} for place, name in enumerate(CATEGORIES)]
        )
    )
    groups = []
    for place, name in enumerate(CATEGORIES):
        for number in range(1, 13):
            groups.append(
                {
                    "category": name,
                    "name": f"{name}群 {number}",
                    "introduction": f"{name}的第 {number} 个群，用于测试",
                    "avatar_url": f"https://img.example.com/group/{place}-{number}.png",
                    "headcount": 10 * number + place,
                    "created_at": BEGINNING + number * DAY,
                    "sort": 13 - number,
                    "banned": 0,
                }
            )
    groups.append(
        {
            "category": CATEGORIES[0],
            "name": "被封禁的群",
            "introduction": "列表中不会出现",
            "avatar_url": "",
            "headcount": 999,
            "created_at": BEGINNING,
            "sort": 99,
            "banned": 1,
        }
    )
    ctx.tx.run(insert(group_chat).values(groups))
    ctx.tx.run(
        insert(bot).values(
            [
                {
                    "name": f"测试机器人 {number}",
                    "introduction": f"第 {number} 个测试机器人",
                    "avatar_url": f"https://img.example.com/bot/{number}.png",
                    "headcount": 100 * number,
                    "created_at": BEGINNING + number * DAY,
                    "sort": 6 - number,
                    "banned": int(number == 5),
                    "always_agree": int(number == 1),
                }
                for number in range(1, 6)
            ]
        )
    )
    discovery.save_advert(ctx, False, Advert("android-ad-1", "ios-ad-1", 50, 1))
    discovery.save_advert(ctx, True, Advert())


def _stories(ctx: Context) -> None:
    """What makes the people different from each other."""

    def who(number: int) -> int:
        return FIRST + number - 1

    for sort, name in ((10, "内测用户"), (20, "创作者"), (30, "一周年")):
        medals.define(ctx, name, f"{name}勋章", f"https://img.example.com/medal/{sort}.png", sort)
        medals.grant(ctx, who(1), name)
    for number in range(1, 46):
        amount, typ, reason = ((200, 8, "抽奖金币"), (-50, 2, "打赏"), (100, 7, "观看广告"))[
            number % 3
        ]
        coins.post(ctx, who(1), amount if number > 1 else 5000, typ=typ if number > 1 else 8,
                   reason=reason, key=f"sandbox:{number}")  # fmt: skip
    people.make_vip(ctx, who(2), ctx.now + 10 * 365 * DAY)
    people.make_vip(ctx, who(11), ctx.now - 3 * DAY)
    people.make_vip(ctx, who(12), ctx.now + 1800)
    people.ban(ctx, who(13), ctx.now + 7 * DAY, "sandbox")
    invites.answer(ctx, who(4), "HUPAN03")
    _fill_in(ctx, [who(number) for number in range(17, 21)])
    erased = people.by_id(ctx, who(16))
    assert erased is not None
    people.erase(ctx, erased)
    # Nothing of the above is post that anybody waits for.
    ctx.tx.run(delete(outbox))


def _strangers(ctx: Context, random: SeededRandom) -> None:
    """Further people, with whatever the seed gives them."""
    syllables = "湖畔云山星河风雨晴雪竹松梅兰"

    def pick(text: str, count: int) -> str:
        return "".join(text[random.below(len(text))] for _ in range(count))

    for number in range(COUNT + 1, COUNT + MORE + 1):
        account_id = people.create(
            ctx,
            phone=f"138000001{number:02d}",
            email=f"user{number}@example.com",
            name=pick(syllables, 2 + random.below(3)),
            account_id=FIRST + number - 1,
        )
        if random.below(3) == 0:
            people.make_vip(ctx, account_id, ctx.now + random.below(400 * DAY))
        for turn in range(random.below(6)):
            coins.post(
                ctx,
                account_id,
                10 + random.below(500),
                typ=7,
                reason="观看广告",
                key=f"sandbox:{number}:{turn}",
            )


def _fill_in(ctx: Context, ids: list[int]) -> None:
    for number, mine in enumerate(ids, start=17):
        profile.save_data(
            ctx,
            mine,
            introduction=f"我是 {number} 号测试用户。\n第二行简介。",
            gender=number % 3 + 1,
            birthday=946_684_800 + number * DAY,
            province="北京市",
            city="北京城区",
            district="东城区",
            location_code="110101",
        )
        for device in range(1, 6):
            sessions.open_session(
                ctx, mine, f"device-{number}-{device}", ("windows", "android", "ios", "web",
                "linux")[device - 1], by="seed", token=_token(number, device),
            )  # fmt: skip
        me = Caller(0, f"device-{number}", 0, True, people.get(ctx, mine))
        devices.register(ctx, me, f"device-{number}", f"registration-{number}", 1, 2)
        pairs = json.dumps([{"key": "他是", "value": "我的朋友"}], ensure_ascii=False)
        for friend in ids:
            if friend != mine:
                profile.save_remark(ctx, me, str(friend), f"备注 {friend}", "13800000000", pairs)
