"""Magic identities: numbers and addresses that lead to one branch, always.

They stand beside the rules rather than in them: the sandbox answers for them before the server is
asked, or changes what the server has just made.
"""

from __future__ import annotations

from dataclasses import dataclass

from hupan.accounts.refusals import (
    BannedForGood,
    Refusal,
    RegistrationClosed,
    SentTooOften,
    UnknownUser,
    WrongPassword,
)

__all__ = ["IDENTITIES", "Identity", "SendFailed", "find", "refusal"]


class SendFailed(Refusal):
    zh = "验证码发送失败，请稍后再试"
    en = "The code could not be sent; try again later"


@dataclass(frozen=True, slots=True)
class Identity:
    """One branch. `sends` and `enters` are refusals of asking for a code and of using one."""

    name: str
    phone: str
    email: str
    note: str
    sends: Refusal | None = None
    enters: Refusal | None = None
    #: The code is sent, and has ended by the time it is used.
    expired: bool = False


IDENTITIES = (
    Identity(
        "refused", "19900000002", "refused@example.com",
        "the gateway refuses to send", sends=SendFailed(),
    ),
    Identity(
        "expired", "19900000003", "expired@example.com",
        "the code has expired already", expired=True,
    ),
    Identity(
        "banned", "19900000004", "banned@example.com",
        "the account is banned for good", enters=BannedForGood(),
    ),
    Identity(
        "limited", "19900000005", "limited@example.com",
        "too many codes were asked for", sends=SentTooOften(retry_after=60),
    ),
    Identity(
        "unregistered", "19900000006", "unregistered@example.com",
        "no account, and none may be opened", enters=RegistrationClosed(),
    ),
)  # fmt: skip

_BY_ADDRESS = {address: one for one in IDENTITIES for address in (one.phone, one.email)}
#: How the rows of logging in and resetting say that nobody has this address.
_STRANGER = {"email_login": WrongPassword(), "forget_password": UnknownUser()}


def find(address: str) -> Identity | None:
    """The identity of a normalised number or address."""
    return _BY_ADDRESS.get(address)


def refusal(one: Identity, row: str) -> Refusal | None:
    """What a row says to this identity, where the server is not asked."""
    if row in ("get_verification_code", "get_email_verification_code"):
        return one.sends
    if one.name == "unregistered":
        return _STRANGER.get(row, one.enters)
    return one.enters
