"""Answers of the web host."""

from __future__ import annotations

from hupan.accounts import medals, people, profile
from hupan.accounts.context import Context
from hupan.protocol import web as said
from hupan.protocol.message import Nothing
from hupan.protocol.web import Web
from hupan.server.answers import answers
from hupan.server.answers.user import in_coins, me


@answers(Web.web_info)
def web_info(ctx: Context, ask: Nothing) -> said.WebMeAnswer:
    mine = people.get(ctx, me(ctx).account_id)
    return said.WebMeAnswer(
        user=said.WebMe(
            user_id=str(mine.id),
            nickname=mine.name,
            phone=mine.phone or "",
            avatar_id=str(mine.avatar_id),
            avatar_url=mine.avatar_url,
            gold_coin_amount=in_coins(mine.balance),
        )
    )


@answers(Web.homepage)
def homepage(ctx: Context, ask: said.AskHomepage) -> said.HomepageAnswer:
    who = people.by_text(ctx, ask.user_id)
    if who is None:
        return said.HomepageAnswer(user=said.Homepage())
    return said.HomepageAnswer(
        user=said.Homepage(
            user_id=str(who.id),
            nickname=who.name,
            avatar_url=who.avatar_url,
            register_time=who.registered_at,
            register_time_text=ctx.world.local_text(who.registered_at),
            on_line_day=who.online_days,
            continuous_on_line_day=profile.streak(ctx, who),
            medals=[
                said.WebMedal(
                    id=one.id,
                    name=one.name,
                    desc=one.description,
                    image_url=one.image_url,
                    sort=one.sort,
                )
                for one in medals.held(ctx, who.id)
            ],
            is_vip=int(who.vip_until > ctx.now),
        )
    )
