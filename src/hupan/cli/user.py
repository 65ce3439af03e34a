"""`hupan user …`: what an operator does with accounts."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from hupan.cli.common import Parser, between, fail, find, json_option, moment, operator, say, secret

if TYPE_CHECKING:
    from hupan.accounts.context import Context
    from hupan.accounts.people import Account

__all__ = ["register"]


def register(hupan: Parser) -> None:
    """Add the group."""
    hupan.group("user", "Create, find, ban and reward people.", _commands)


def _commands(user: Parser) -> None:
    command = user.command(create, extra="server")
    command.add_argument("--phone", help="Mobile number; give this, --email or both.")
    command.add_argument("--email", help="E-mail address.")
    command.add_argument("--name", default="", help="Nickname.")
    json_option(command)

    command = user.command(show, extra="server")
    _who(command)
    json_option(command)

    command = user.command(list_, "list", extra="server")
    command.add_argument("--search", default="", help="Part of a name or a contact.")
    command.add_argument(
        "--limit", type=between(1, 10_000), default=100, help="At most so many; else 100."
    )
    command.add_argument("--after", type=int, default=0, help="Continue behind this id.")
    json_option(command)

    command = user.command(ban, extra="server")
    _who(command)
    _until(command)
    command.add_argument("--reason", default="", help="For the audit and the operator.")

    _who(user.command(unban, extra="server"))
    _who(user.command(unlock, extra="server"))

    command = user.command(vip, extra="server")
    _who(command)
    _until(command)
    command.add_argument("--end", action="store_true", help="End it now.")

    command = user.command(coin, extra="server")
    _who(command)
    command.add_argument("amount", metavar="AMOUNT", help="Coins to add, or to take with a minus.")
    command.add_argument("--reason", default="", help="Shown to the person.")
    command.add_argument("--key", help="Idempotency key: the same key posts once.")
    json_option(command)

    command = user.command(medal, extra="server")
    _who(command)
    command.add_argument("name", metavar="NAME", help="The medal's name.")
    command.add_argument("--take", action="store_true", help="Take it back.")
    command.add_argument(
        "--define", action="store_true", help="Make the medal where there is none."
    )
    command.add_argument("--sort", type=int, default=0, help="Its place, with --define.")

    command = user.command(set_password, "set-password", extra="server")
    _who(command)
    command.add_argument(
        "--link", action="store_true", help="Print a one-time link instead of asking."
    )


def _who(command: Parser) -> None:
    command.add_argument("who", metavar="WHO", help="An id, a phone number or an e-mail address.")


def _until(command: Parser) -> None:
    command.add_argument(
        "--for", dest="span", metavar="SPAN", help="How long: 30m, 12h, 7d, 2w, 1y."
    )
    command.add_argument("--until", metavar="MOMENT", help="Until when: 2027-01-01 [08:00].")


def _told(ctx: Context, one: Account) -> dict[str, Any]:
    from hupan.accounts import medals

    return {
        "id": str(one.id),
        "name": one.name,
        "phone": one.phone or "",
        "email": one.email or "",
        "has_password": one.password_hash is not None,
        "registered": ctx.world.local_text(one.registered_at),
        "last_seen": ctx.world.local_text(one.last_seen_at),
        "vip_until": ctx.world.local_text(one.vip_until),
        "banned_until": ctx.world.local_text(one.banned_until),
        "ban_reason": one.ban_reason,
        "coins": f"{Decimal(one.balance) / 100:.2f}",
        "medals": ", ".join(medal.name for medal in medals.held(ctx, one.id)),
        "invite_code": one.invite_code,
    }


def _link(ctx: Context, account_id: int) -> str:
    from hupan.accounts import links

    ctx.tx.begin()
    links.revoke(ctx, account_id, "setup")
    settings = ctx.settings
    base = settings.web_url or f"http://{settings.host}:{settings.web_port}"
    return f"{base}/account/link#{links.text(ctx, links.create(ctx, account_id, 'setup'))}"


def create(*, phone: str | None, email: str | None, name: str, as_json: bool) -> None:
    """Open an account. With an e-mail address, print a one-time link to choose a password."""
    from hupan.accounts import contact, people
    from hupan.accounts.refusals import EmailTaken, PhoneTaken
    from hupan.accounts.texts import clean

    if not phone and not email:
        fail("give --phone or --email")
    with operator() as ctx:
        number = contact.phone(phone) if phone else None
        address = contact.email(email) if email else None
        if number and people.by_phone(ctx, number):
            raise PhoneTaken()
        if address and people.by_email(ctx, address):
            raise EmailTaken()
        made = people.create(ctx, phone=number, email=address, name=clean(name)[:32])
        told = {"id": str(made)}
        if address:
            told["setup_link"] = _link(ctx, made)
    say(told, as_json=as_json)


def show(*, who: str, as_json: bool) -> None:
    """Show one account."""
    with operator() as ctx:
        told = _told(ctx, find(ctx, who))
    say(told, as_json=as_json)


def list_(*, search: str, limit: int, after: int, as_json: bool) -> None:
    """List accounts in the order of their ids."""
    from hupan.accounts import people

    with operator() as ctx:
        told = [
            {"id": str(one.id), "phone": one.phone or "-", "email": one.email or "-",
             "name": one.name}
            for one in people.search(ctx, search, most=limit, after=after)
        ]  # fmt: skip
    say(told, as_json=as_json)


def ban(*, who: str, span: str | None, until: str | None, reason: str) -> None:
    """Ban an account, for good unless --for or --until is given; its sessions end at once."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        end = moment(ctx, span, until)
        people.ban(ctx, one.id, people.FOREVER if end is None else end, reason[:255])
    print(f"banned {one.id}")


def unban(*, who: str) -> None:
    """End a ban."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        people.unban(ctx, one.id)
    print(f"unbanned {one.id}")


def unlock(*, who: str) -> None:
    """Forget an account's wrong passwords and codes, so that it may try again at once."""
    from hupan.accounts import limits

    with operator() as ctx:
        one = find(ctx, who)
        ctx.tx.begin()
        for address in (one.phone, one.email):
            if address:
                limits.forget(ctx, f"code:{address}:")
                limits.forget(ctx, f"password:{address}:")
        ctx.note("unlocked", one.id)
    print(f"unlocked {one.id}")


def vip(*, who: str, span: str | None, until: str | None, end: bool) -> None:
    """Make an account VIP, or end it."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        when = 0 if end else moment(ctx, span, until)
        if when is None:
            fail("give --for, --until or --end")
        people.make_vip(ctx, one.id, when)
    print(f"vip {one.id}: {ctx.world.local_text(when) or 'ended'}")


def coin(*, who: str, amount: str, reason: str, key: str | None, as_json: bool) -> None:
    """Add or take coins."""
    from hupan.accounts import coins

    with operator() as ctx:
        one = find(ctx, who)
        posting = coins.post(
            ctx,
            one.id,
            _hundredths(amount),
            typ=coins.CORRECTION,
            reason=(reason or "管理员调整")[:255],
            key=f"operator:{key or ctx.world.random.bytes(12).hex()}"[:200],
        )
        told = {
            "posting": posting,
            "coins": f"{Decimal(coins.balance(ctx, one.id)) / 100:.2f}",
        }
    say(told, as_json=as_json)


def _hundredths(amount: str) -> int:
    try:
        exact = Decimal(amount) * 100
        if exact != exact.to_integral_value():
            raise InvalidOperation
        return int(exact)
    except (ArithmeticError, ValueError):
        fail(f"{amount!r} is no amount of coins with at most two decimals")


def medal(*, who: str, name: str, take: bool, define: bool, sort: int) -> None:
    """Give a medal, or take it back."""
    from hupan.accounts import medals

    with operator() as ctx:
        one = find(ctx, who)
        if define and name not in {each.name for each in medals.listing(ctx)}:
            medals.define(ctx, name[:64], sort=sort)
        (medals.take if take else medals.grant)(ctx, one.id, name)
    print(f"{one.id}: {', '.join(_names(one.id)) or 'no medals'}")


def _names(account_id: int) -> list[str]:
    from hupan.accounts import medals

    with operator() as ctx:
        return [one.name for one in medals.held(ctx, account_id)]


def set_password(*, who: str, link: bool) -> None:
    """Set a password, asked for here or read from a pipe. Every session of the account ends."""
    from hupan.accounts import passwords

    password = "" if link else secret("New password", twice=True)
    with operator() as ctx:
        one = find(ctx, who)
        if link:
            print(_link(ctx, one.id))
        else:
            passwords.check(ctx.settings, password, one)
            passwords.store(ctx, one.id, passwords.make_hash(ctx.settings, password))
            print(f"password of {one.id} is set, its sessions have ended")
