"""The user module: people, their sessions, their contacts, what they discover and what they own.

Field numbers, keys and paths are facts of the wire. JSON keys are camel case and protobuf names
snake case, which is what the two kinds of endpoint really use.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from hupan.protocol.message import (
    Coin,
    Int,
    Int32,
    Message,
    Nothing,
    Quirk,
    Text,
    UInt64,
    at,
    quirk,
)
from hupan.protocol.row import Auth, Certainty, Module, Row, Wire

MIRRORED = Quirk(
    "mirrored_format",
    "Documented as protobuf, but some clients send JSON here and read JSON back.",
)
MISSPELT = Quirk("misspelt_path", "`bing` is how the path is really written, for `bind`.")
NUMBER_AS_TEXT = quirk(
    "number_as_text", "This list carries its numbers as text, while its sister list does not."
)

# ---------------------------------------------------------------- logging in and out


class Captcha(Message):
    """A picture that a person reads: `b64s` is a data URL of a PNG, `id` names the puzzle."""

    b64s: Text
    id: Text


class AskCaptcha(Message, rename="camel"):
    """Some clients name their device when they ask for a picture; nothing depends on it."""

    device_id: Text = ""


class LoginByCode(Message, rename="camel"):
    """`captcha` is the six-digit code from the short message."""

    mobile: Annotated[
        Text, quirk("loose_phone", "Clients send spaces, `+86` and `86` in front of the number.")
    ] = ""
    captcha: Text = ""
    device_id: Text = ""
    platform: Text = ""
    invite_code: Annotated[
        Text, quirk("our_extra_key", "Ours: whose invitation a first login answers; optional.")
    ] = ""


class LoginByPassword(Message, rename="camel"):
    """`platform` and `device_id` are free text."""

    email: Text = ""
    password: Text = ""
    device_id: Text = ""
    platform: Text = ""


class Token(Message):
    """An opaque token, shaped `8-4-4-12`."""

    token: Text


class Logout(Message):
    """The device is read and not acted on: exactly the presented session ends."""

    device_id: Annotated[
        Text,
        quirk(
            "device_key_spelling",
            "The document writes `device-id`, clients also write `deviceId`, and it is often"
            " not the device of the login.",
            also="deviceId",
        ),
    ] = msgspec.field(default="", name="device-id")


# ---------------------------------------------------------------- who one is


class Me(Message):
    """The caller's own account. Times are Unix seconds, 0 for never."""

    id: Annotated[Text, at(1)]
    name: Annotated[Text, at(2)]
    avatar_url: Annotated[Text, at(4)] = ""
    avatar_id: Annotated[UInt64, at(5)] = 0
    phone: Annotated[Text, at(6)] = ""
    email: Annotated[Text, at(7)] = ""
    coin: Annotated[Coin, at(8)] = 0.0
    is_vip: Annotated[Int32, at(9)] = 0
    vip_expired_time: Annotated[UInt64, at(10)] = 0
    invitation_code: Annotated[
        Text,
        at(12),
        quirk(
            "skipped_field_11",
            "Field 11 is a varint in production; strict readers break on"
            " anything else there, so it is never sent.",
        ),
    ] = ""


class Medal(Message):
    """A medal; lists of them are ordered by `sort`."""

    id: Annotated[UInt64, at(1)]
    name: Annotated[Text, at(2)]
    sort: Annotated[UInt64, at(5)] = 0


class Medals(Message):
    """The caller's medals."""

    medal: Annotated[list[Medal], at(2)] = msgspec.field(default_factory=list)


class Remark(Message):
    """What the caller noted down about a person; `extra_remark` is JSON as text."""

    remark_name: Annotated[Text, at(1)] = ""
    phone_number: Annotated[Text, at(2)] = ""
    extra_remark: Annotated[Text, at(3)] = ""


class Profile(Message):
    """What a person tells about themself. `gender`: 1 male, 2 female, 3 other."""

    last_active_time: Annotated[Text, at(1)] = ""
    introduction: Annotated[Text, at(2)] = ""
    gender: Annotated[Int32, at(3)] = 3
    birthday_timestamp: Annotated[UInt64, at(4)] = 0
    city: Annotated[Text, at(5)] = ""
    district: Annotated[Text, at(6)] = ""
    address: Annotated[Text, at(7)] = ""


class UserId(Message):
    """Names the account that is asked for."""

    id: Annotated[Text, at(2)] = ""


class Person(Message):
    """An account as others see it. `register_time` is local text, the other times Unix seconds."""

    id: Annotated[Text, at(1)]
    name: Annotated[Text, at(2)]
    name_id: Annotated[UInt64, at(3)] = 0
    avatar_url: Annotated[Text, at(4)] = ""
    avatar_id: Annotated[UInt64, at(5)] = 0
    medal: Annotated[list[Medal], at(6)] = msgspec.field(default_factory=list)
    register_time: Annotated[Text, at(7)] = ""
    ban_time: Annotated[UInt64, at(10)] = 0
    online_day: Annotated[UInt64, at(11)] = 0
    continuous_online_day: Annotated[UInt64, at(12)] = 0
    is_vip: Annotated[Int32, at(13)] = 0
    vip_expired_time: Annotated[UInt64, at(14)] = 0
    remark_info: Annotated[Remark | msgspec.UnsetType, at(18)] = msgspec.UNSET
    profile_info: Annotated[Profile | msgspec.UnsetType, at(19)] = msgspec.UNSET
    ip_geo: Annotated[Text, at(20)] = ""


class NewName(Message):
    """The new nickname, 1 to 32 code points."""

    name: Annotated[Text, at(3)] = ""


class NewAvatar(Message):
    """The address of the new picture; it is stored and never fetched."""

    url: Annotated[Text, at(2)] = ""


class PersonalData(Message, rename="camel"):
    """The caller's personal data; what was never set is 0, empty, or gender 3."""

    id: Int = 0
    user_id: Text = ""
    last_login_time: Int = 0
    update_time: Annotated[
        Int, quirk("snake_case_key", "The one snake-case key among camel-case ones.")
    ] = msgspec.field(default=0, name="update_time")
    introduction: Text = ""
    gender: Int = 3
    birthday: Int = 0
    province: Text = ""
    city: Text = ""
    district: Text = ""
    location_code: Text = ""


class DataInData(Message):
    """The personal data stand one level deeper than elsewhere."""

    data: Annotated[PersonalData, quirk("data_in_data", "Clients read `data.data`.")]


class SavePersonalData(Message, rename="camel"):
    """All seven keys are always sent, and all seven are replaced."""

    introduction: Text = ""
    gender: Int = 3
    birthday: Int = 0
    province: Text = ""
    city: Text = ""
    district: Text = ""
    location_code: Text = ""


class SaveRemark(Message, rename="camel"):
    """`others` is JSON as text: a list of `{"key", "value"}`."""

    friend_id: Text = ""
    name: Text = ""
    phone: Text = ""
    others: Annotated[
        Text, quirk("json_in_text", "Clients send and expect a JSON list inside a string.")
    ] = ""


# ---------------------------------------------------------------- contacts


class PhoneProof(Message):
    """The code was sent to the new number."""

    phone: Text = ""
    captcha: Text = ""


class EmailProof(Message):
    """The code was sent to the new address."""

    email: Text = ""
    captcha: Text = ""


class ResetPassword(Message):
    """The code from the mail authorises; a token may be there or not."""

    email: Text = ""
    captcha: Text = ""
    password: Text = ""


class Cancel(Message):
    """One of the two contacts, with a code that was sent to it."""

    phone: Text = ""
    email: Text = ""
    captcha: Text = ""


# ---------------------------------------------------------------- devices


class Device(Message):
    """A place where the account is logged in; the time is in Unix seconds."""

    user_id: Annotated[Text, at(1)]
    platform: Annotated[Text, at(3)] = ""
    device_id: Annotated[Text, at(4)] = ""
    login_timestamp: Annotated[UInt64, at(5)] = 0


class Devices(Message):
    """The caller's devices, newest login first."""

    clients: Annotated[list[Device], at(2)] = msgspec.field(default_factory=list)


class DeviceId(Message, rename="camel"):
    """Names a device."""

    device_id: Annotated[
        Text,
        quirk(
            "device_key_spelling",
            "The document writes `device-id` at the logout, and some clients everywhere.",
            also="device-id",
        ),
    ] = ""


class SaveModuleIgnore(Message, rename="camel"):
    """`ignore` lists what the device hides, such as `",30,20,10"`."""

    device_id: Text = ""
    ignore: Text = ""


class Ignored(Message, rename="camel"):
    """What a device hides: 10 community, 20 discovery, 30 all but a plain own page."""

    id: Int = 0
    user_id: Text = ""
    update_time: Int = 0
    device_id: Text = ""
    ignore: Text = ""


class ModuleIgnore(Message):
    """The wrapper in which clients look for the row."""

    ignore: Ignored


class Registration(Message, rename="camel"):
    """A push registration of a device."""

    device_id: Text = ""
    registration_id: Text = ""


class SaveNotification(Message, rename="camel"):
    """`is_open`: 1 on, 0 off; `type` is the client's own number."""

    device_id: Text = ""
    registration_id: Text = ""
    is_open: Int = 1
    type: Int = 0


class Notification(Message, rename="camel"):
    """A stored registration; `id` 0 means that nothing is stored."""

    id: Int = 0
    user_id: Text = ""
    device_id: Text = ""
    registration_id: Text = ""
    is_open: Int = 0
    type: Int = 0
    del_flag: Int = 0
    create_time: Int = 0
    update_time: Int = 0


class NotificationStatus(Message):
    """The wrapper in which clients look for the row."""

    notification: Notification


# ---------------------------------------------------------------- discovery


class Channel(Message, rename="camel"):
    """Where the app was got from; nothing depends on it."""

    app_channel: Text = ""


class Categories(Message):
    """Names of the sections, in their order."""

    categories: list[Text]


class AskGroups(Message):
    """`category` empty means all; `page` counts from 1."""

    category: Text = ""
    keyword: Text = ""
    size: Int = 30
    page: Int = 1


class Group(Message, rename="camel"):
    """A group that discovery shows."""

    chat_id: Text
    ban_id: Int = 0
    nickname: Text = ""
    introduction: Text = ""
    avatar_url: Text = ""
    headcount: Int = 0
    create_time: Int = 0


class Groups(Message, rename="camel"):
    """One page of groups; an empty list past the end."""

    group_list: list[Group]


class Bot(Message, rename="camel"):
    """A bot that discovery shows."""

    chat_id: Text
    chat_type: Annotated[Text, NUMBER_AS_TEXT] = "3"
    headcount: Annotated[Text, NUMBER_AS_TEXT] = "0"
    nickname: Text = ""
    introduction: Text = ""
    introductions: Annotated[
        Text, quirk("empty_plural", "Always empty in production; clients require the key.")
    ] = ""
    instructions: Annotated[
        Text, quirk("second_plural", "One client reads this key where others read the empty one.")
    ] = ""
    avatar_url: Text = ""
    is_add: Int = 1
    is_apply: Int = 0
    always_agree: Int = 0


class Bots(Message, rename="camel"):
    """All recommended bots."""

    bot_list: list[Bot]


class Advert(Message, rename="camel"):
    """What advertisement an app shows: `is_show` 0 or 1, `bottom_height` in the app's pixels."""

    android_code_id: Text = ""
    bottom_height: Int = 0
    ios_code_id: Text = ""
    is_show: Int = 0


# ---------------------------------------------------------------- coins and invitations


class Page(Message):
    """`page` counts from 1."""

    size: Int = 20
    page: Int = 1


class CoinRecord(Message, rename="camel"):
    """One line of the coin book; amounts are coins with two decimals."""

    id: Int
    user_id: Text
    typ: Int
    before_amount: Coin
    after_amount: Coin
    change_amount: Coin
    reason: Text = ""
    remark: Text = ""
    create_time: Int = 0


class CoinRecords(Message, rename="camel"):
    """One page, newest first; `total` counts all lines."""

    gold_coin_record: list[CoinRecord]
    total: Int


class InviteProgress(Message, rename="camel"):
    """How many people came by the caller's invitation, and how many are paid for."""

    current_number_day: Int
    current_number_total: Int
    target_number_day: Int
    target_number_total: Int


class InviteCode(Message):
    """Somebody's code, or the code one wishes to have."""

    code: Text = ""


# ---------------------------------------------------------------- the rows

_OBSERVED: dict[str, Any] = {"certainty": Certainty.OBSERVED}


class User(Module):
    """`/v1/user/…`"""

    captcha = Row(
        "POST",
        "/v1/user/captcha",
        AskCaptcha,
        Captcha,
        "Draw a picture with four characters that only a person can read.",
        auth=Auth.PUBLIC,
    )
    verification_login = Row(
        "POST",
        "/v1/user/verification-login",
        LoginByCode,
        Token,
        "Log in with a code that was sent by short message; a first login opens the account.",
        auth=Auth.PUBLIC,
    )
    info = Row(
        "GET",
        "/v1/user/info",
        Nothing,
        Me,
        "Read one's own account.",
        wire=Wire.ACCEPT,
        safe=True,
        quirks=(Quirk("json_by_accept", "Answers JSON when `Accept` names it and nothing wider."),),
    )
    get_user = Row(
        "POST",
        "/v1/user/get-user",
        UserId,
        Person,
        "Read another account as everybody sees it, with one's own remark.",
        wire=Wire.MIRROR,
        auth=Auth.NAMED,
        safe=True,
        quirks=(MIRRORED,),
    )
    medal = Row(
        "POST",
        "/v1/user/medal",
        Nothing,
        Medals,
        "List one's own medals.",
        wire=Wire.PROTOBUF,
        safe=True,
        beside=True,
    )
    edit_nickname = Row(
        "POST",
        "/v1/user/edit-nickname",
        NewName,
        Nothing,
        "Change one's nickname.",
        wire=Wire.MIRROR,
        quirks=(MIRRORED,),
    )
    edit_avatar = Row(
        "POST",
        "/v1/user/edit-avatar",
        NewAvatar,
        Nothing,
        "Change one's picture.",
        wire=Wire.MIRROR,
        quirks=(MIRRORED,),
    )
    email_login = Row(
        "POST",
        "/v1/user/email-login",
        LoginByPassword,
        Token,
        "Log in with an e-mail address and a password.",
        auth=Auth.PUBLIC,
    )
    logout = Row(
        "POST",
        "/v1/user/logout",
        Logout,
        Nothing,
        "End the session whose token is presented.",
    )
    recommend_category_list = Row(
        "POST",
        "/v1/user/recommend-category-list",
        Channel,
        Categories,
        "List the sections of discovery.",
        safe=True,
    )
    recommend_list = Row(
        "POST",
        "/v1/user/recommend-list",
        AskGroups,
        Groups,
        "List groups of a section, or search them.",
        safe=True,
    )
    recommend = Row(
        "POST",
        "/v1/user/recommend",
        Nothing,
        Bots,
        "List recommended bots.",
        safe=True,
    )
    module_ignore_info = Row(
        "POST",
        "/v1/user/module-ignore-info",
        DeviceId,
        ModuleIgnore,
        "Read what a device hides; for VIPs.",
        safe=True,
    )
    notification_status = Row(
        "POST",
        "/v1/user/notification-status",
        Registration,
        NotificationStatus,
        "Read a device's push registration.",
        safe=True,
        quirks=(Quirk("crossed_names", "*status* reads what *info* stores."),),
    )
    notification_info = Row(
        "POST",
        "/v1/user/notification-info",
        SaveNotification,
        Nothing,
        "Store a device's push registration.",
        quirks=(Quirk("crossed_names", "*info* stores what *status* reads."),),
    )
    gold_coin_increase_decrease_record = Row(
        "POST GET",
        "/v1/user/gold-coin-increase-decrease-record",
        Page,
        CoinRecords,
        "Page through one's own coin book, newest first.",
        safe=True,
        quirks=(Quirk("get_as_well", "Some clients ask with GET and a query."),),
    )
    bind_phone = Row(
        "POST",
        "/v1/user/bing-phone",
        PhoneProof,
        Nothing,
        "Bind a phone number that one has proved to hold.",
        quirks=(MISSPELT,),
    )
    bind_email = Row(
        "POST",
        "/v1/user/bing-email",
        EmailProof,
        Nothing,
        "Bind an e-mail address that one has proved to hold.",
        quirks=(MISSPELT,),
    )
    change_phone = Row(
        "POST",
        "/v1/user/change-phone-check",
        PhoneProof,
        Nothing,
        "Change to a phone number that one has proved to hold.",
    )
    change_email = Row(
        "POST",
        "/v1/user/change-email-check",
        EmailProof,
        Nothing,
        "Change to an e-mail address that one has proved to hold.",
    )
    forget_password = Row(
        "POST",
        "/v1/user/forget-password",
        ResetPassword,
        Nothing,
        "Set a new password with a code from a mail; every session ends.",
        auth=Auth.PUBLIC,
    )
    save_user_data = Row(
        "POST",
        "/v1/user/save-user-data",
        SavePersonalData,
        Nothing,
        "Replace one's personal data.",
    )
    get_user_data = Row(
        "POST",
        "/v1/user/get-user-data",
        Nothing,
        DataInData,
        "Read one's personal data.",
        safe=True,
    )
    get_user_show_adv = Row(
        "POST",
        "/v1/user/get-user-show-adv",
        Nothing,
        Advert,
        "Read what advertisement to show; none for VIPs.",
        safe=True,
    )
    clients = Row(
        "GET",
        "/v1/user/clients",
        Nothing,
        Devices,
        "List the devices on which one is logged in.",
        wire=Wire.PROTOBUF,
        safe=True,
        beside=True,
        **_OBSERVED,
    )
    device_offline = Row(
        "POST",
        "/v1/user/device-offline",
        DeviceId,
        Nothing,
        "End all sessions of one's own device.",
        **_OBSERVED,
    )
    save_user_remarks = Row(
        "POST",
        "/v1/user/save-user-remarks",
        SaveRemark,
        Nothing,
        "Note something down about a person; only oneself sees it.",
        **_OBSERVED,
    )
    module_ignore = Row(
        "POST",
        "/v1/user/module-ignore",
        SaveModuleIgnore,
        Nothing,
        "Store what a device hides; for VIPs.",
        **_OBSERVED,
    )
    cancel_user = Row(
        "POST",
        "/v1/user/cancel-user",
        Cancel,
        Nothing,
        "Delete one's account, with a code sent to one of its contacts.",
        **_OBSERVED,
    )


class Invite(Module):
    """`/v1/user/invite/…`"""

    invite_progress = Row(
        "POST",
        "/v1/user/invite/invite-progress",
        Nothing,
        InviteProgress,
        "Count the people whom one has invited, today and in all.",
        safe=True,
        **_OBSERVED,
    )
    change_user_invite_code = Row(
        "POST",
        "/v1/user/invite/change-user-invite-code",
        InviteCode,
        Nothing,
        "Answer somebody's invitation by their code, or take a free code for oneself.",
        **_OBSERVED,
    )
