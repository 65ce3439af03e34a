"""Answers of the user module."""

from __future__ import annotations

import base64

import msgspec

from hupan.accounts import (
    captchas,
    coins,
    contact,
    devices,
    discovery,
    invites,
    login,
    medals,
    passwords,
    people,
    profile,
    sessions,
)
from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import NotLoggedIn, UnknownUser
from hupan.protocol import user as said
from hupan.protocol.message import Nothing
from hupan.protocol.user import Invite, User
from hupan.server.answers import Lane, answers

__all__ = ["coin_records", "in_coins", "me"]

DONE = Nothing()


def me(ctx: Context) -> Caller:
    """The caller of a row that needs one."""
    if ctx.caller is None:
        raise NotLoggedIn()
    return ctx.caller


def in_coins(hundredths: int) -> float:
    """Hundredths as the wire shows them: two decimals, and `2` rather than `2.0`.

    Some clients read whole amounts into whole numbers.
    """
    return hundredths // 100 if hundredths % 100 == 0 else hundredths / 100


# ---------------------------------------------------------------- logging in and out


@answers(User.captcha, lane=Lane.READ)
def captcha(ctx: Context, ask: said.AskCaptcha) -> said.Captcha:
    # The painter takes as long to load as half of the rules, and is loaded beside the start.
    from hupan.outside import picture

    captcha_id = captchas.new(ctx)
    png = picture.draw(
        captchas.solution(ctx.world, captcha_id) or "",
        ctx.world.derive("captcha-picture", captcha_id),
    )
    return said.Captcha(
        b64s="data:image/png;base64," + base64.b64encode(png).decode(), id=captcha_id
    )


@answers(User.verification_login)
def verification_login(ctx: Context, ask: said.LoginByCode) -> said.Token:
    token = login.by_code(
        ctx, ask.mobile, ask.captcha, ask.device_id, ask.platform, ask.invite_code
    )
    return said.Token(token=token)


@answers(User.email_login, lane=Lane.HASH)
def email_login(ctx: Context, ask: said.LoginByPassword) -> said.Token:
    token = login.by_password(ctx, ask.email, ask.password, ask.device_id, ask.platform)
    return said.Token(token=token)


@answers(User.logout)
def logout(ctx: Context, ask: said.Logout) -> Nothing:
    sessions.end(ctx, me(ctx))
    return DONE


# ---------------------------------------------------------------- who one is


@answers(User.info, about=lambda mine: int(mine.id))
def info(ctx: Context, ask: Nothing) -> said.Me:
    mine = me(ctx).account
    return said.Me(
        id=str(mine.id),
        name=mine.name,
        avatar_url=mine.avatar_url,
        avatar_id=mine.avatar_id,
        phone=mine.phone or "",
        email=mine.email or "",
        coin=in_coins(mine.balance),
        is_vip=int(ctx.ahead(mine.vip_until)),
        vip_expired_time=mine.vip_until,
        invitation_code=mine.invite_code,
    )


def _medals(held: list[medals.Medal]) -> list[said.Medal]:
    return [said.Medal(id=one.id, name=one.name, sort=one.sort) for one in held]


@answers(User.get_user, about=lambda person: int(person.id))
def get_user(ctx: Context, ask: said.UserId) -> said.Person:
    who = people.by_text(ctx, ask.id)
    if who is None:
        raise UnknownUser()
    told = profile.data(ctx, who.id)
    writes = ctx.caller is not None and ctx.caller.has_remarks
    noted = profile.remark_about(ctx, me(ctx), who.id) if writes else None
    return said.Person(
        id=str(who.id),
        name=who.name,
        name_id=who.name_id,
        avatar_url=who.avatar_url,
        avatar_id=who.avatar_id,
        medal=_medals(medals.held(ctx, who.id)),
        register_time=ctx.world.local_text(who.registered_at),
        ban_time=who.banned_until if ctx.ahead(who.banned_until) else 0,
        online_day=who.online_days,
        continuous_online_day=profile.streak(ctx, who),
        is_vip=int(ctx.ahead(who.vip_until)),
        vip_expired_time=who.vip_until,
        remark_info=said.Remark(
            remark_name=noted.name, phone_number=noted.phone, extra_remark=noted.others
        )
        if noted
        else msgspec.UNSET,
        profile_info=said.Profile(
            last_active_time=ctx.world.local_text(who.last_seen_at),
            introduction=told.introduction,
            gender=told.gender,
            # The field is unsigned on this wire; a birthday before 1970 cannot be shown here.
            birthday_timestamp=max(0, told.birthday),
            city=told.city,
            district=told.district,
            address="".join((told.province, told.city, told.district)),
        ),
    )


@answers(User.medal)
def medal(ctx: Context, ask: Nothing) -> said.Medals:
    return said.Medals(medal=_medals(medals.held(ctx, me(ctx).account_id)))


@answers(User.edit_nickname)
def edit_nickname(ctx: Context, ask: said.NewName) -> Nothing:
    profile.rename(ctx, me(ctx).account_id, ask.name)
    return DONE


@answers(User.edit_avatar)
def edit_avatar(ctx: Context, ask: said.NewAvatar) -> Nothing:
    profile.set_avatar(ctx, me(ctx).account_id, ask.url)
    return DONE


@answers(User.save_user_data)
def save_user_data(ctx: Context, ask: said.SavePersonalData) -> Nothing:
    profile.save_data(ctx, me(ctx).account_id, **msgspec.structs.asdict(ask))
    return DONE


@answers(User.get_user_data)
def get_user_data(ctx: Context, ask: Nothing) -> said.DataInData:
    mine = people.get(ctx, me(ctx).account_id)
    told = profile.data(ctx, mine.id)
    return said.DataInData(
        data=said.PersonalData(
            id=told.id,
            user_id=str(mine.id),
            last_login_time=mine.last_login_at,
            update_time=told.updated_at,
            introduction=told.introduction,
            gender=told.gender,
            birthday=told.birthday,
            province=told.province,
            city=told.city,
            district=told.district,
            location_code=told.location_code,
        )
    )


@answers(User.save_user_remarks)
def save_user_remarks(ctx: Context, ask: said.SaveRemark) -> Nothing:
    profile.save_remark(ctx, me(ctx), ask.friend_id, ask.name, ask.phone, ask.others)
    return DONE


# ---------------------------------------------------------------- contacts


@answers(User.bind_phone)
def bind_phone(ctx: Context, ask: said.PhoneProof) -> Nothing:
    contact.change_phone(ctx, me(ctx), ask.phone, ask.captcha)
    return DONE


@answers(User.change_phone)
def change_phone(ctx: Context, ask: said.PhoneProof) -> Nothing:
    contact.change_phone(ctx, me(ctx), ask.phone, ask.captcha)
    return DONE


@answers(User.bind_email)
def bind_email(ctx: Context, ask: said.EmailProof) -> Nothing:
    contact.change_email(ctx, me(ctx), ask.email, ask.captcha)
    return DONE


@answers(User.change_email)
def change_email(ctx: Context, ask: said.EmailProof) -> Nothing:
    contact.change_email(ctx, me(ctx), ask.email, ask.captcha)
    return DONE


@answers(User.forget_password, lane=Lane.HASH)
def forget_password(ctx: Context, ask: said.ResetPassword) -> Nothing:
    passwords.reset(ctx, ask.email, ask.captcha, ask.password)
    return DONE


@answers(User.cancel_user)
def cancel_user(ctx: Context, ask: said.Cancel) -> Nothing:
    contact.cancel(ctx, me(ctx), ask.phone, ask.email, ask.captcha)
    return DONE


# ---------------------------------------------------------------- devices


@answers(User.clients)
def clients(ctx: Context, ask: Nothing) -> said.Devices:
    who = me(ctx)
    return said.Devices(
        clients=[
            said.Device(
                user_id=str(who.account_id),
                platform=one.platform,
                device_id=one.device_id,
                login_timestamp=one.login_at,
            )
            for one in devices.listing(ctx, who)
        ]
    )


@answers(User.device_offline)
def device_offline(ctx: Context, ask: said.DeviceId) -> Nothing:
    devices.offline(ctx, me(ctx), ask.device_id)
    return DONE


@answers(User.module_ignore)
def module_ignore(ctx: Context, ask: said.SaveModuleIgnore) -> Nothing:
    devices.hide(ctx, me(ctx), ask.device_id, ask.ignore)
    return DONE


@answers(User.module_ignore_info)
def module_ignore_info(ctx: Context, ask: said.DeviceId) -> said.ModuleIgnore:
    who = me(ctx)
    found = devices.hidden(ctx, who, ask.device_id)
    return said.ModuleIgnore(
        ignore=said.Ignored(
            id=found.id,
            user_id=str(who.account_id),
            update_time=found.updated_at,
            device_id=ask.device_id,
            ignore=found.ignore,
        )
    )


@answers(User.notification_info)
def notification_info(ctx: Context, ask: said.SaveNotification) -> Nothing:
    devices.register(ctx, me(ctx), ask.device_id, ask.registration_id, ask.is_open, ask.type)
    return DONE


@answers(User.notification_status)
def notification_status(ctx: Context, ask: said.Registration) -> said.NotificationStatus:
    who = me(ctx)
    found = devices.registration(ctx, who, ask.device_id, ask.registration_id)
    return said.NotificationStatus(
        notification=said.Notification(
            id=found.id,
            user_id=str(who.account_id),
            device_id=ask.device_id,
            registration_id=ask.registration_id,
            is_open=found.is_open,
            type=found.type,
            create_time=found.created_at,
            update_time=found.updated_at,
        )
    )


# ---------------------------------------------------------------- discovery


@answers(User.recommend_category_list)
def recommend_category_list(ctx: Context, ask: said.Channel) -> said.Categories:
    return said.Categories(categories=discovery.categories(ctx))


@answers(User.recommend_list)
def recommend_list(ctx: Context, ask: said.AskGroups) -> said.Groups:
    page, size = discovery.page_bounds(ask.page, ask.size, 30)
    return said.Groups(
        group_list=[
            said.Group(
                chat_id=str(one.id),
                nickname=one.name,
                introduction=one.introduction,
                avatar_url=one.avatar_url,
                headcount=one.headcount,
                create_time=one.created_at,
            )
            for one in discovery.groups(ctx, ask.category, ask.keyword, page, size)
        ]
    )


@answers(User.recommend)
def recommend(ctx: Context, ask: Nothing) -> said.Bots:
    return said.Bots(
        bot_list=[
            said.Bot(
                chat_id=str(one.id),
                headcount=str(one.headcount),
                nickname=one.name,
                introduction=one.introduction,
                avatar_url=one.avatar_url,
                is_add=one.is_add,
                is_apply=one.is_apply,
                always_agree=one.always_agree,
            )
            for one in discovery.bots(ctx)
        ]
    )


@answers(User.get_user_show_adv)
def get_user_show_adv(ctx: Context, ask: Nothing) -> said.Advert:
    shown = discovery.shown_advert(ctx, me(ctx))
    return said.Advert(
        android_code_id=shown.android_code_id,
        bottom_height=shown.bottom_height,
        ios_code_id=shown.ios_code_id,
        is_show=shown.is_show,
    )


# ---------------------------------------------------------------- coins and invitations


@answers(User.gold_coin_increase_decrease_record)
def coin_records(ctx: Context, ask: said.Page) -> said.CoinRecords:
    who = me(ctx)
    page, size = discovery.page_bounds(ask.page, ask.size, 20)
    records, total = coins.page(ctx, who, page, size)
    return said.CoinRecords(
        gold_coin_record=[
            said.CoinRecord(
                id=one.id,
                user_id=str(who.account_id),
                typ=one.typ,
                before_amount=in_coins(one.before),
                after_amount=in_coins(one.after),
                change_amount=in_coins(one.change),
                reason=one.reason,
                remark=one.remark,
                create_time=one.created_at,
            )
            for one in records
        ],
        total=total,
    )


@answers(Invite.invite_progress)
def invite_progress(ctx: Context, ask: Nothing) -> said.InviteProgress:
    so_far = invites.progress(ctx, me(ctx).account_id)
    return said.InviteProgress(
        current_number_day=so_far.today,
        current_number_total=so_far.total,
        target_number_day=ctx.settings.invite_target_day,
        target_number_total=ctx.settings.invite_target_total,
    )


@answers(Invite.change_user_invite_code)
def change_user_invite_code(ctx: Context, ask: said.InviteCode) -> Nothing:
    invites.answer_or_choose(ctx, me(ctx).account_id, ask.code)
    return DONE
