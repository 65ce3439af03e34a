"""Magic identities: numbers and addresses that lead to one branch, always.

They stand beside the rules rather than in them: the sandbox answers for them before the server is
asked, or changes what the server has just made. Only asking for a code and logging in are touched;
everywhere else, such as in binding one of these numbers, they are ordinary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hupan.accounts.refusals import (
    BannedForGood,
    Busy,
    Refusal,
    RegistrationClosed,
    SentTooOften,
    TooManyTries,
    WrongPassword,
)

__all__ = ["ENTERS", "IDENTITIES", "SENDS", "Identity", "SendFailed", "find"]

#: The rows that ask for a code, and those that log in.
SENDS = ("get_verification_code", "get_email_verification_code")
ENTERS = ("verification_login", "email_login")


class SendFailed(Busy):
    """What a gateway that sends nothing leads to.

    It is a kind of `Busy`, so that the list of a real server's refusals does not have it.
    """

    zh = "验证码发送失败，请稍后再试"
    en = "The code could not be sent; try again later"


@dataclass(frozen=True, slots=True)
class Identity:
    """One branch. `refuses` has what a row says to this identity instead of asking the server."""

    name: str
    phone: str
    email: str
    note: str
    refuses: dict[str, Refusal] = field(default_factory=dict)
    #: The code is sent, and has ended by the time it is used.
    expired: bool = False


IDENTITIES = (
    Identity(
        "refused",
        "19900000002",
        "refused@example.com",
        "网关拒绝发送 the gateway refuses to send",
        dict.fromkeys(SENDS, SendFailed()),
    ),
    Identity(
        "expired",
        "19900000003",
        "expired@example.com",
        "验证码送达时已过期 the code has expired already",
        expired=True,
    ),
    Identity(
        "banned",
        "19900000004",
        "banned@example.com",
        "账号已被永久封禁 the account is banned for good",
        dict.fromkeys(ENTERS, BannedForGood()),
    ),
    Identity(
        "limited",
        "19900000005",
        "limited@example.com",
        "请求过于频繁，60 秒 asked too often, 60 seconds",
        dict.fromkeys(SENDS, SentTooOften(retry_after=60))
        | dict.fromkeys(ENTERS, TooManyTries(retry_after=60)),
    ),
    Identity(
        "unregistered",
        "19900000006",
        "unregistered@example.com",
        "未注册且不开放注册 no account, and none may be opened",
        # By e-mail nobody is told whether an address has an account.
        {"verification_login": RegistrationClosed(), "email_login": WrongPassword()},
    ),
)

_BY_ADDRESS = {address: one for one in IDENTITIES for address in (one.phone, one.email)}


def find(address: str) -> Identity | None:
    """The identity of a normalised number or address."""
    return _BY_ADDRESS.get(address)
