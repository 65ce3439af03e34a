"""`hupan user …`: what an operator does with accounts."""

from __future__ import annotations

import sys
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hupan.cli.common import fail, find, moment, operator, say

if TYPE_CHECKING:
    from hupan.accounts.context import Context
    from hupan.accounts.people import Account

app = typer.Typer(help="Create, find, ban and reward people.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(help="An id, a phone number or an e-mail address.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
For = Annotated[str | None, typer.Option("--for", help="How long: 30m, 12h, 7d, 2w, 1y.")]
Until = Annotated[str | None, typer.Option("--until", help="Until when: 2027-01-01 [08:00].")]


def _told(ctx: Context, one: Account) -> dict[str, Any]:
    from hupan.accounts import coins, medals

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
        "coins": f"{Decimal(coins.balance(ctx, one.id)) / 100:.2f}",
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


@app.command()
def create(
    phone: Annotated[str | None, typer.Option(help="Mobile number.")] = None,
    email: Annotated[str | None, typer.Option(help="E-mail address.")] = None,
    name: Annotated[str, typer.Option(help="Nickname.")] = "",
    as_json: Json = False,
) -> None:
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


@app.command()
def show(who: Who, as_json: Json = False) -> None:
    """Show one account."""
    with operator() as ctx:
        told = _told(ctx, find(ctx, who))
    say(told, as_json=as_json)


@app.command("list")
def list_(
    search: Annotated[str, typer.Option(help="Part of a name or a contact.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    after: Annotated[int, typer.Option(help="Continue behind this id.")] = 0,
    as_json: Json = False,
) -> None:
    """List accounts in the order of their ids."""
    from hupan.accounts import people

    with operator() as ctx:
        told = [
            {"id": str(one.id), "phone": one.phone or "-", "email": one.email or "-",
             "name": one.name}
            for one in people.search(ctx, search, most=limit, after=after)
        ]  # fmt: skip
    say(told, as_json=as_json)


@app.command()
def ban(
    who: Who,
    span: For = None,
    until: Until = None,
    reason: Annotated[str, typer.Option(help="For the audit and the operator.")] = "",
) -> None:
    """Ban an account, for good unless --for or --until is given; its sessions end at once."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        end = moment(ctx, span, until)
        people.ban(ctx, one.id, people.FOREVER if end is None else end, reason[:255])
    print(f"banned {one.id}")


@app.command()
def unban(who: Who) -> None:
    """End a ban."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        people.unban(ctx, one.id)
    print(f"unbanned {one.id}")


@app.command()
def unlock(who: Who) -> None:
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


@app.command()
def vip(
    who: Who,
    span: For = None,
    until: Until = None,
    end: Annotated[bool, typer.Option("--end", help="End it now.")] = False,
) -> None:
    """Make an account VIP, or end it."""
    from hupan.accounts import people

    with operator() as ctx:
        one = find(ctx, who)
        when = 0 if end else moment(ctx, span, until)
        if when is None:
            fail("give --for, --until or --end")
        people.make_vip(ctx, one.id, when)
    print(f"vip {one.id}: {ctx.world.local_text(when) or 'ended'}")


@app.command(context_settings={"ignore_unknown_options": True})
def coin(
    who: Who,
    amount: Annotated[str, typer.Argument(help="Coins to add, or to take with a minus.")],
    reason: Annotated[str, typer.Option(help="Shown to the person.")] = "",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key posts once.")
    ] = None,
    as_json: Json = False,
) -> None:
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


@app.command()
def medal(
    who: Who,
    name: Annotated[str, typer.Argument(help="The medal's name.")],
    take: Annotated[bool, typer.Option("--take", help="Take it back.")] = False,
    define: Annotated[
        bool, typer.Option("--define", help="Make the medal where there is none.")
    ] = False,
    sort: Annotated[int, typer.Option(help="Its place, with --define.")] = 0,
) -> None:
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


@app.command("set-password")
def set_password(
    who: Who,
    link: Annotated[
        bool, typer.Option("--link", help="Print a one-time link instead of asking.")
    ] = False,
) -> None:
    """Set a password, asked for here or read from a pipe. Every session of the account ends."""
    from hupan.accounts import passwords

    password = ""
    if not link:
        # Never an argument: those can be read in the list of processes.
        password = (
            typer.prompt("New password", hide_input=True, confirmation_prompt=True)
            if sys.stdin.isatty()
            else sys.stdin.readline().rstrip("\n")
        )
    with operator() as ctx:
        one = find(ctx, who)
        if link:
            print(_link(ctx, one.id))
        else:
            passwords.check(ctx.settings, password, one)
            passwords.store(ctx, one.id, passwords.make_hash(ctx.settings, password))
            print(f"password of {one.id} is set, its sessions have ended")
