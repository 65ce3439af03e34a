"""Every endpoint there is, typed by hand from the specification.

The table of the server is compared with this list; neither is derived from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.oracle import Shape

__all__ = ["ENDPOINTS", "Endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    Attributes:
        methods: HTTP methods, separated by a space.
        path: the exact path.
        token: "no" where anybody may call, "any" where any token will do, else "live".
        speaks: "json", "protobuf", "mirror" (the format of the request) or "accept" (of `Accept`).
        asks: keys of the request with the types they stand for; None where there is no request.
        tells: the shape of a JSON answer's `data`; None where there is none.
        message: names in yunhu.proto of the request ("" for none) and of the answer.
        sure: "documented" or "observed"; "assumed" for what is ours.
        host: "api" or "web".
    """

    methods: str
    path: str
    token: str = "live"
    speaks: str = "json"
    asks: dict[str, type] | None = None
    tells: Shape = None
    message: tuple[str, str] | None = None
    sure: str = "documented"
    host: str = "api"

    @property
    def key(self) -> str:
        """What tells endpoints apart: the two hosts share one path."""
        return self.path if self.host == "api" else f"{self.host}:{self.path}"


_PROOF = {"captcha": str}
_PERSONAL = {
    "introduction": str,
    "gender": int,
    "birthday": int,
    "province": str,
    "city": str,
    "district": str,
    "locationCode": str,
}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST",
        "/v1/user/captcha",
        token="no",
        asks={"deviceId": str},
        tells={"b64s": str, "id": str},
    ),
    Endpoint(
        "POST",
        "/v1/user/verification-login",
        token="no",
        asks={"mobile": str, "captcha": str, "deviceId": str, "platform": str},
        tells={"token": str},
    ),
    Endpoint("GET", "/v1/user/info", speaks="accept", message=("", "OwnAccount")),
    Endpoint(
        "POST",
        "/v1/user/get-user",
        token="any",
        speaks="mirror",
        asks={"id": str},
        message=("WhichAccount", "AnyAccount"),
    ),
    Endpoint("POST", "/v1/user/medal", speaks="protobuf", message=("", "MedalList")),
    Endpoint(
        "POST",
        "/v1/user/edit-nickname",
        speaks="mirror",
        asks={"name": str},
        message=("RenameTo", "StatusOnly"),
    ),
    Endpoint(
        "POST",
        "/v1/user/edit-avatar",
        speaks="mirror",
        asks={"url": str},
        message=("PictureAt", "StatusOnly"),
    ),
    Endpoint(
        "POST",
        "/v1/user/email-login",
        token="no",
        asks={"email": str, "password": str, "deviceId": str, "platform": str},
        tells={"token": str},
    ),
    # The second spelling of the key is looked at in the tests of the wire.
    Endpoint("POST", "/v1/user/logout", asks={"device-id": str}),
    Endpoint(
        "POST",
        "/v1/user/recommend-category-list",
        asks={"appChannel": str},
        tells={"categories": [str]},
    ),
    Endpoint(
        "POST",
        "/v1/user/recommend-list",
        asks={"category": str, "keyword": str, "size": int, "page": int},
        tells={
            "groupList": [
                {
                    "chatId": str,
                    "banId": int,
                    "nickname": str,
                    "introduction": str,
                    "avatarUrl": str,
                    "headcount": int,
                    "createTime": int,
                }
            ]
        },
    ),
    Endpoint(
        "POST",
        "/v1/user/recommend",
        tells={
            "botList": [
                {
                    "chatId": str,
                    "chatType": str,
                    "headcount": str,
                    "nickname": str,
                    "introduction": str,
                    "introductions": str,
                    "instructions": str,
                    "avatarUrl": str,
                    "isAdd": int,
                    "isApply": int,
                    "alwaysAgree": int,
                }
            ]
        },
    ),
    Endpoint(
        "POST",
        "/v1/user/module-ignore-info",
        asks={"deviceId": str},
        tells={
            "ignore": {
                "id": int,
                "userId": str,
                "updateTime": int,
                "deviceId": str,
                "ignore": str,
            }
        },
    ),
    Endpoint(
        "POST",
        "/v1/user/notification-status",
        asks={"deviceId": str, "registrationId": str},
        tells={
            "notification": {
                "id": int,
                "userId": str,
                "deviceId": str,
                "registrationId": str,
                "isOpen": int,
                "type": int,
                "delFlag": int,
                "createTime": int,
                "updateTime": int,
            }
        },
    ),
    Endpoint(
        "POST",
        "/v1/user/notification-info",
        asks={"deviceId": str, "registrationId": str, "isOpen": int, "type": int},
    ),
    Endpoint(
        "POST GET",
        "/v1/user/gold-coin-increase-decrease-record",
        asks={"size": int, "page": int},
        tells={
            "goldCoinRecord": [
                {
                    "id": int,
                    "userId": str,
                    "typ": int,
                    "beforeAmount": float,
                    "afterAmount": float,
                    "changeAmount": float,
                    "reason": str,
                    "remark": str,
                    "createTime": int,
                }
            ],
            "total": int,
        },
    ),
    Endpoint("POST", "/v1/user/bing-phone", asks={"phone": str, **_PROOF}),
    Endpoint("POST", "/v1/user/bing-email", asks={"email": str, **_PROOF}),
    Endpoint("POST", "/v1/user/change-phone-check", asks={"phone": str, **_PROOF}),
    Endpoint("POST", "/v1/user/change-email-check", asks={"email": str, **_PROOF}),
    Endpoint(
        "POST",
        "/v1/user/forget-password",
        token="no",
        asks={"email": str, "password": str, **_PROOF},
    ),
    Endpoint("POST", "/v1/user/save-user-data", asks=_PERSONAL),
    Endpoint(
        "POST",
        "/v1/user/get-user-data",
        tells={
            "data": {
                "id": int,
                "userId": str,
                "lastLoginTime": int,
                "update_time": int,
                **_PERSONAL,
            }
        },
    ),
    Endpoint(
        "POST",
        "/v1/user/get-user-show-adv",
        tells={"androidCodeId": str, "bottomHeight": int, "iosCodeId": str, "isShow": int},
    ),
    # Below stands what the document lacks and clients call all the same.
    Endpoint(
        "POST",
        "/v1/verification/get-verification-code",
        token="no",
        asks={"mobile": str, "code": str, "id": str, "platform": str},
        sure="observed",
    ),
    Endpoint(
        "POST",
        "/v1/verification/get-email-verification-code",
        token="no",
        asks={"email": str, "code": str, "id": str, "typ": str},
        sure="observed",
    ),
    Endpoint(
        "GET", "/v1/user/clients", speaks="protobuf", message=("", "DeviceList"), sure="observed"
    ),
    Endpoint("POST", "/v1/user/device-offline", asks={"deviceId": str}, sure="observed"),
    Endpoint(
        "POST",
        "/v1/user/save-user-remarks",
        asks={"friendId": str, "name": str, "phone": str, "others": str},
        sure="observed",
    ),
    Endpoint(
        "POST",
        "/v1/user/module-ignore",
        asks={"deviceId": str, "ignore": str},
        sure="observed",
    ),
    Endpoint(
        "POST",
        "/v1/user/cancel-user",
        asks={"phone": str, "email": str, **_PROOF},
        sure="observed",
    ),
    Endpoint(
        "POST",
        "/v1/user/invite/invite-progress",
        tells={
            "currentNumberDay": int,
            "currentNumberTotal": int,
            "targetNumberDay": int,
            "targetNumberTotal": int,
        },
        sure="observed",
    ),
    Endpoint(
        "POST", "/v1/user/invite/change-user-invite-code", asks={"code": str}, sure="observed"
    ),
    Endpoint(
        "GET",
        "/v1/misc/configure-distribution",
        token="no",
        tells={
            "audioUrl": str,
            "fileUrl": str,
            "imageUrl": str,
            "serverUrl": str,
            "shareUrl": str,
            "videoUrl": str,
            "websocketUrl": str,
        },
        sure="observed",
    ),
    Endpoint(
        "GET",
        "/v1/user/info",
        tells={
            "user": {
                "userId": str,
                "nickname": str,
                "phone": str,
                "avatarId": str,
                "avatarUrl": str,
                "goldCoinAmount": float,
            }
        },
        sure="observed",
        host="web",
    ),
    Endpoint(
        "GET",
        "/v1/user/homepage",
        token="no",
        asks={"userId": str},
        tells={
            "user": {
                "userId": str,
                "nickname": str,
                "avatarUrl": str,
                "registerTime": int,
                "registerTimeText": str,
                "onLineDay": int,
                "continuousOnLineDay": int,
                "medals": [{"id": int, "name": str, "desc": str, "imageUrl": str, "sort": int}],
                "isVip": int,
            }
        },
        sure="observed",
        host="web",
    ),
)
