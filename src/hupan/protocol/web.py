"""The web host: two reads of the user module in JSON, for pages in a browser."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hupan.protocol.message import Coin, Int, Message, Nothing, Quirk, Text, quirk
from hupan.protocol.row import Auth, Certainty, Host, Module, Row


class WebMe(Message, rename="camel"):
    """The caller's own account, for the web."""

    user_id: Text = ""
    nickname: Text = ""
    phone: Text = ""
    avatar_id: Annotated[
        Text, quirk("number_as_text", "The web host writes the picture's number as text.")
    ] = ""
    avatar_url: Text = ""
    gold_coin_amount: Coin = 0.0


class WebMeAnswer(Message):
    """The wrapper in which pages look."""

    user: WebMe


class AskHomepage(Message, rename="camel"):
    """Whose page."""

    user_id: Text = ""


class WebMedal(Message, rename="camel"):
    """A medal with its picture."""

    id: Int
    name: Text
    desc: Text = ""
    image_url: Text = ""
    sort: Int = 0


class Homepage(Message, rename="camel"):
    """A person's public page; times are Unix seconds and local text."""

    user_id: Text = ""
    nickname: Text = ""
    avatar_url: Text = ""
    register_time: Int = 0
    register_time_text: Text = ""
    on_line_day: Annotated[
        Int, quirk("odd_camel_case", "`onLineDay` is how the key is really written.")
    ] = 0
    continuous_on_line_day: Int = 0
    medals: list[WebMedal] = msgspec.field(default_factory=list)
    is_vip: Int = 0


class HomepageAnswer(Message):
    """The wrapper in which pages look."""

    user: Homepage


class Web(Module):
    """The two rows of the web host."""

    web_info = Row(
        "GET",
        "/v1/user/info",
        Nothing,
        WebMeAnswer,
        "Read one's own account from a page.",
        host=Host.WEB,
        safe=True,
        certainty=Certainty.OBSERVED,
    )
    homepage = Row(
        "GET",
        "/v1/user/homepage",
        AskHomepage,
        HomepageAnswer,
        "Read anybody's public page.",
        host=Host.WEB,
        auth=Auth.PUBLIC,
        safe=True,
        certainty=Certainty.OBSERVED,
        quirks=(Quirk("empty_stranger", "An unknown person is a success with empty values."),),
    )
