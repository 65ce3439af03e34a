"""Phone numbers and e-mail addresses: what they look like, whose they are, how they change."""

from __future__ import annotations

import re

from sqlalchemy import update

from hupan.accounts import codes, links, locks, outbox, people, sessions
from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import (
    BadEmail,
    BadLink,
    BadPhone,
    EmailTaken,
    NotYourContact,
    PhoneTaken,
    SameContact,
)
from hupan.accounts.tables import account

__all__ = ["cancel", "change_email", "change_phone", "email", "phone", "undo"]

#: What a mobile number of mainland China looks like, also in ranges too new for any table.
_MAINLAND = re.compile(r"1[3-9]\d{9}")


def phone(text: str) -> str:
    """Normalise a number: eleven digits for mainland China, `+…` for everywhere else.

    Raises:
        BadPhone: it is no mobile number.
    """
    bare = re.sub(r"[\s\-()]", "", text)
    inland = re.fullmatch(rf"(?:\+?86|0086)?({_MAINLAND.pattern})", bare, re.ASCII)
    if inland:
        return inland[1]
    # The tables of the world's numbers are read when a number from there first comes.
    import phonenumbers

    try:
        number = phonenumbers.parse(bare, "CN")
    except phonenumbers.NumberParseException as error:
        raise BadPhone() from error
    if number.country_code == 86 or not phonenumbers.is_valid_number(number):
        raise BadPhone()
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def email(text: str) -> str:
    """Normalise an address; case does not distinguish.

    Raises:
        BadEmail: it is no address.
    """
    if len(text) > 254:
        raise BadEmail()
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise BadEmail() from error
    return str(found.normalized).lower()


def change_phone(ctx: Context, who: Caller, text: str, guess: str) -> None:
    """Bind a number that the code proves; the old number is told and may undo it."""
    new = phone(text)
    mine = people.get(ctx, who.account_id)
    if mine.phone == new:
        raise SameContact()
    codes.use(ctx, codes.prove(ctx, new, guess))
    locks.accounts(ctx, mine.id)
    with ctx.tx.unique(PhoneTaken()):
        ctx.tx.run(update(account).where(account.c.id == mine.id).values(phone=new))
    _tell(ctx, mine, "phone", mine.phone)
    ctx.note("phone-changed", mine.id)


def change_email(ctx: Context, who: Caller, text: str, guess: str) -> None:
    """Bind an address that the code proves; the old address is told and may undo it."""
    new = email(text)
    mine = people.get(ctx, who.account_id)
    if mine.email == new:
        raise SameContact()
    codes.use(ctx, codes.prove(ctx, new, guess))
    locks.accounts(ctx, mine.id)
    with ctx.tx.unique(EmailTaken()):
        ctx.tx.run(update(account).where(account.c.id == mine.id).values(email=new))
    _tell(ctx, mine, "email", mine.email)
    ctx.note("email-changed", mine.id)


def _tell(ctx: Context, mine: people.Account, changed: str, former: str | None) -> None:
    """Tell the former contact, or the other one where there was none, how to undo the change."""
    link_id = links.create(ctx, mine.id, f"undo-{changed}", former or "")
    to_phone = mine.phone if changed == "phone" or not former else None
    to_email = mine.email if changed == "email" or not former else None
    if to_phone:
        outbox.queue(ctx, "sms", to_phone, f"{changed}-changed", link_id=link_id)
    if to_email:
        outbox.queue(ctx, "email", to_email, f"{changed}-changed", link_id=link_id)


def undo(ctx: Context, text: str) -> None:
    """Give an account its old contact back, and take from a thief whatever else a thief may have.

    Every session ends, the password is dropped (a code sets a new one), and so are the links of
    later changes of this contact, which may have gone to the thief. Earlier ones stay: whoever
    was told first is likeliest to be the owner.

    Raises:
        BadLink: the link cannot be used.
        PhoneTaken, EmailTaken: the old contact has another owner by now.
    """
    ctx.tx.begin()
    found = links.look(ctx, text)
    if found.kind not in ("undo-phone", "undo-email"):
        raise BadLink()
    links.use(ctx, found)
    column = found.kind.removeprefix("undo-")
    with ctx.tx.unique(PhoneTaken() if column == "phone" else EmailTaken()):
        ctx.tx.run(
            update(account)
            .where(account.c.id == found.account_id)
            .values(
                {
                    column: found.value or None,
                    "password_hash": None,
                    "password_version": account.c.password_version + 1,
                }
            )
        )
    links.revoke(ctx, found.account_id, found.kind, after=found.id)
    sessions.end_all(ctx, found.account_id)
    ctx.note("contact-restored", found.account_id, contact=column)


def cancel(ctx: Context, who: Caller, phone_text: str, email_text: str, guess: str) -> None:
    """Delete one's own account, proved by a code to a contact it holds."""
    mine = people.get(ctx, who.account_id)
    if phone_text:
        given, held = phone(phone_text), mine.phone
    else:
        given, held = email(email_text), mine.email
    if given != held:
        raise NotYourContact()
    codes.use(ctx, codes.prove(ctx, given, guess))
    for address in (mine.phone, mine.email):
        if address:
            codes.forget(ctx, address)
    people.erase(ctx, mine)
