"""The verification module: asking for codes."""

from __future__ import annotations

from hupan.protocol.message import Message, Nothing, Quirk, Text
from hupan.protocol.row import Auth, Certainty, Module, Row

CAPTCHA_AS_CODE = Quirk(
    "captcha_as_code", "`id` and `code` are the picture and what a person read in it."
)


class AskPhoneCode(Message):
    """`id` names the captcha, `code` is its solution."""

    mobile: Text = ""
    code: Text = ""
    id: Text = ""
    platform: Text = ""


class AskEmailCode(Message):
    """`typ` is `forget_password` for a code that serves the reset only, else empty."""

    email: Text = ""
    code: Text = ""
    id: Text = ""
    typ: Text = ""


class Verification(Module):
    """`/v1/verification/…`"""

    get_verification_code = Row(
        "POST",
        "/v1/verification/get-verification-code",
        AskPhoneCode,
        Nothing,
        "Send a code by short message.",
        auth=Auth.PUBLIC,
        certainty=Certainty.OBSERVED,
        quirks=(CAPTCHA_AS_CODE,),
    )
    get_email_verification_code = Row(
        "POST",
        "/v1/verification/get-email-verification-code",
        AskEmailCode,
        Nothing,
        "Send a code by mail.",
        auth=Auth.PUBLIC,
        certainty=Certainty.OBSERVED,
        quirks=(CAPTCHA_AS_CODE,),
    )
