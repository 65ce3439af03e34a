"""What people discover: sections, groups, bots; and the advertisement they are shown."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select

from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import BadParameters
from hupan.accounts.tables import advert, bot, category, group_chat

__all__ = [
    "Advert",
    "Bot",
    "Group",
    "bots",
    "categories",
    "groups",
    "page_bounds",
    "save_advert",
    "shown_advert",
]

LARGEST_PAGE = 1_000_000
LARGEST_SIZE = 100


@dataclass(frozen=True, slots=True)
class Group:
    """A group that is shown."""

    id: int
    name: str
    introduction: str
    avatar_url: str
    headcount: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot that is shown; the last three are 0 or 1."""

    id: int
    name: str
    introduction: str
    avatar_url: str
    headcount: int
    is_add: int
    is_apply: int
    always_agree: int


@dataclass(frozen=True, slots=True)
class Advert:
    """What advertisement is shown."""

    android_code_id: str = ""
    ios_code_id: str = ""
    bottom_height: int = 0
    is_show: int = 0


def page_bounds(page: int, size: int, default: int) -> tuple[int, int]:
    """Make page and size usable: 0 stands for the default, a larger size for the largest.

    Raises:
        BadParameters: negative, or a page that no list has.
    """
    if page < 0 or size < 0 or page > LARGEST_PAGE:
        raise BadParameters()
    return page or 1, min(size or default, LARGEST_SIZE)


def categories(ctx: Context) -> list[str]:
    """The names of the sections, in their order."""
    rows = ctx.tx.all(select(category.c.name).order_by(category.c.sort, category.c.id))
    return [row.name for row in rows]


def groups(ctx: Context, section: str, keyword: str, page: int, size: int) -> list[Group]:
    """One page of groups; what is banned is hidden.

    The order never depends on what changes by itself (such as the headcount), so that pages do
    not shift while somebody reads them.
    """
    statement = select(
        group_chat.c.id,
        group_chat.c.name,
        group_chat.c.introduction,
        group_chat.c.avatar_url,
        group_chat.c.headcount,
        group_chat.c.created_at,
    ).where(group_chat.c.banned == 0)
    if section:
        statement = statement.where(group_chat.c.category == section)
    keyword = keyword.strip()
    if keyword:
        statement = statement.where(
            or_(
                group_chat.c.name.icontains(keyword, autoescape=True),
                group_chat.c.introduction.icontains(keyword, autoescape=True),
            )
        )
    ordered = statement.order_by(group_chat.c.sort.desc(), group_chat.c.id)
    rows = ctx.tx.all(ordered.limit(size).offset((page - 1) * size))
    return [Group(*row) for row in rows]


def bots(ctx: Context) -> list[Bot]:
    """The recommended bots."""
    rows = ctx.tx.all(
        select(
            bot.c.id,
            bot.c.name,
            bot.c.introduction,
            bot.c.avatar_url,
            bot.c.headcount,
            bot.c.is_add,
            bot.c.is_apply,
            bot.c.always_agree,
        )
        .where(bot.c.banned == 0)
        .order_by(bot.c.sort.desc(), bot.c.id)
        .limit(LARGEST_SIZE)
    )
    return [Bot(*row) for row in rows]


def shown_advert(ctx: Context, who: Caller) -> Advert:
    """What this person is shown; VIPs have settings of their own, which say "nothing" at first."""
    for_vip = int(who.vip_until > ctx.now)
    row = ctx.tx.one(
        select(
            advert.c.android_code_id,
            advert.c.ios_code_id,
            advert.c.bottom_height,
            advert.c.is_show,
        ).where(advert.c.for_vip == for_vip)
    )
    return Advert() if row is None else Advert(*row)


def save_advert(ctx: Context, for_vip: bool, shown: Advert) -> None:
    """Set what is shown to VIPs or to everybody else."""
    values = {
        "android_code_id": shown.android_code_id,
        "ios_code_id": shown.ios_code_id,
        "bottom_height": shown.bottom_height,
        "is_show": shown.is_show,
    }
    insert = ctx.tx.insert(advert).values(for_vip=int(for_vip), **values)
    ctx.tx.run(insert.on_conflict_do_update(index_elements=["for_vip"], set_=values))
    ctx.note("advert", for_vip=int(for_vip))
