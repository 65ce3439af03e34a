"""What people say about themselves and note about each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import bindparam, select, update

from hupan.accounts import coins, locks, people
from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import (
    BadAvatar,
    BadBirthday,
    BadGender,
    BadNickname,
    BadRemarks,
    TooLong,
    UnknownUser,
)
from hupan.accounts.tables import account, profile, remark
from hupan.accounts.texts import clean, short

__all__ = [
    "PersonalData",
    "Remark",
    "data",
    "remark_about",
    "rename",
    "save_data",
    "save_remark",
    "set_avatar",
    "streak",
]

LONGEST_NAME = 32
LONGEST_URL = 2048
#: 1900-01-01 and 2100-01-01; 0 is "never told".
EARLIEST_BIRTHDAY, LATEST_BIRTHDAY = -2_208_988_800, 4_102_444_800


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Personal data; id and updated_at are 0 where nothing was ever saved."""

    id: int = 0
    updated_at: int = 0
    introduction: str = ""
    gender: int = 3
    birthday: int = 0
    province: str = ""
    city: str = ""
    district: str = ""
    location_code: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """What one person noted about another; `others` is JSON as text."""

    name: str
    phone: str
    others: str


# ---------------------------------------------------------------- name and picture


_MINE = update(account).where(account.c.id == bindparam("which"), account.c.deleted_at == 0)
_RENAME = _MINE.values(name=bindparam("new"), name_id=account.c.name_id + 1).returning(
    account.c.name_id
)
_REPAINT = _MINE.values(avatar_url=bindparam("new"), avatar_id=account.c.avatar_id + 1).returning(
    account.c.avatar_id
)
# Numbers count changes: everybody begins with a name, 1, and without a picture, 0.
_FIRST_NAME, _FIRST_AVATAR = 2, 1


def rename(ctx: Context, account_id: int, name: str) -> None:
    """Change the nickname; the first change is rewarded, once."""
    name = clean(name)
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadNickname(most=LONGEST_NAME)
    number = ctx.tx.value(_RENAME, which=account_id, new=name)
    if number is None:
        raise UnknownUser()
    if number == _FIRST_NAME:
        amount = ctx.settings.reward_first_name
        coins.reward(ctx, account_id, amount, 4, "first-name", "首次修改昵称")


def set_avatar(ctx: Context, account_id: int, url: str) -> None:
    """Change the picture; the first change is rewarded, once. The address is never fetched."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    plain = clean(url) == url and not any(char.isspace() for char in url)
    if not usable or not plain or len(url) > LONGEST_URL:
        raise BadAvatar(most=LONGEST_URL)
    number = ctx.tx.value(_REPAINT, which=account_id, new=url)
    if number is None:
        raise UnknownUser()
    if number == _FIRST_AVATAR:
        amount = ctx.settings.reward_first_avatar
        coins.reward(ctx, account_id, amount, 4, "first-avatar", "首次修改头像")


def streak(ctx: Context, who: people.Account) -> int:
    """How many days in a row, up to today or yesterday; a longer gap has ended the row."""
    ctx.ahead(ctx.world.midnight(ctx.now))
    return who.streak_days if who.last_day >= ctx.world.day(ctx.now) - 1 else 0


# ---------------------------------------------------------------- personal data


_DATA = select(
    profile.c.id,
    profile.c.updated_at,
    profile.c.introduction,
    profile.c.gender,
    profile.c.birthday,
    profile.c.province,
    profile.c.city,
    profile.c.district,
    profile.c.location_code,
).where(profile.c.account_id == bindparam("which"))


def data(ctx: Context, account_id: int) -> PersonalData:
    """Read personal data; defaults where nothing was saved."""
    row = ctx.tx.one(_DATA, which=account_id)
    return PersonalData() if row is None else PersonalData(*row)


_SAVED: dict[str, Any] = {
    column.name: bindparam(column.name)
    for column in profile.c
    if column.name not in ("id", "account_id")
}
_CHANGE_DATA = update(profile).where(profile.c.account_id == bindparam("which")).values(_SAVED)
_FIRST_DATA = profile.insert().values(account_id=bindparam("which"), **_SAVED)


def save_data(
    ctx: Context,
    account_id: int,
    *,
    introduction: str,
    gender: int,
    birthday: int,
    province: str,
    city: str,
    district: str,
    location_code: str,
) -> None:
    """Replace all seven personal data."""
    if gender not in (1, 2, 3):
        raise BadGender()
    if not EARLIEST_BIRTHDAY <= birthday <= LATEST_BIRTHDAY:
        raise BadBirthday()
    values = {
        "introduction": short(introduction, 500, "简介", lines=True),
        "gender": gender,
        "birthday": birthday,
        "province": short(province, 64, "省份"),
        "city": short(city, 64, "城市"),
        "district": short(district, 64, "地区"),
        "location_code": short(location_code, 16, "地区代码"),
        "updated_at": ctx.now,
    }
    locks.accounts(ctx, account_id)
    # Under the account's lock nobody comes between these two.
    if not ctx.tx.run(_CHANGE_DATA, which=account_id, **values):
        ctx.tx.run(_FIRST_DATA, which=account_id, **values)


# ---------------------------------------------------------------- remarks


def save_remark(
    ctx: Context, who: Caller, friend_id: str, name: str, phone: str, others: str
) -> None:
    """Note something down about a person; only the writer ever reads it."""
    friend = people.by_text(ctx, friend_id)
    if friend is None:
        raise UnknownUser()
    values = {
        "name": short(name, 64, "备注名"),
        "phone": short(phone, 64, "电话"),
        "others": _pairs(others),
    }
    locks.accounts(ctx, who.account_id, friend.id)
    insert = ctx.tx.insert(remark).values(owner_id=who.account_id, friend_id=friend.id, **values)
    ctx.tx.run(insert.on_conflict_do_update(index_elements=["owner_id", "friend_id"], set_=values))


def _pairs(text: str) -> str:
    """Check that the text is a JSON list of keys and values, since readers parse it again."""
    if not text:
        return ""
    try:
        pairs = json.loads(text)
        usable = isinstance(pairs, list) and all(
            isinstance(pair, dict)
            and isinstance(pair.get("key"), str)
            and isinstance(pair.get("value"), str)
            for pair in pairs
        )
    except (ValueError, RecursionError):
        usable = False
    if not usable:
        raise BadRemarks()
    try:
        text.encode()
        tidy = json.dumps(
            [{"key": clean(pair["key"]), "value": clean(pair["value"])} for pair in pairs],
            ensure_ascii=False,
        )
        tidy.encode()
    except UnicodeEncodeError as error:
        raise BadRemarks() from error
    if len(tidy) > 4096:
        raise TooLong(field="备注", most=4096)
    return tidy


_REMARK = select(remark.c.name, remark.c.phone, remark.c.others).where(
    remark.c.owner_id == bindparam("owner"), remark.c.friend_id == bindparam("friend")
)


def remark_about(ctx: Context, who: Caller, friend_id: int) -> Remark | None:
    """What the caller noted about a person."""
    row = ctx.tx.one(_REMARK, owner=who.account_id, friend=friend_id)
    return None if row is None else Remark(*row)
