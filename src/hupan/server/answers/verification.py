"""Answers of the verification module."""

from __future__ import annotations

from hupan.accounts import codes, contact
from hupan.accounts.context import Context
from hupan.protocol.message import Nothing
from hupan.protocol.verification import AskEmailCode, AskPhoneCode, Verification
from hupan.server.answers import answers


@answers(Verification.get_verification_code)
def get_verification_code(ctx: Context, ask: AskPhoneCode) -> Nothing:
    codes.send(ctx, "sms", contact.phone(ask.mobile), ask.id, ask.code)
    return Nothing()


@answers(Verification.get_email_verification_code)
def get_email_verification_code(ctx: Context, ask: AskEmailCode) -> Nothing:
    purpose = codes.RESET if ask.typ == "forget_password" else codes.ANY
    codes.send(ctx, "email", contact.email(ask.email), ask.id, ask.code, purpose)
    return Nothing()
