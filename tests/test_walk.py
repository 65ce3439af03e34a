"""The walk that every client takes, on both databases."""

from __future__ import annotations

import pytest

from hupan.client import Refused
from tests.house import House, png_of, shaped_like_token


def test_from_the_captcha_to_the_logout(house: House) -> None:
    stranger = house.client()
    assert png_of(stranger.captcha().b64s).startswith(b"\x89PNG\r\n")
    code = house.code_for("13912345678")
    token = stranger.verification_login(
        mobile="+86 139 1234 5678", captcha=code, device_id="d", platform="test"
    ).token
    assert shaped_like_token(token)

    me = house.client(token)
    assert me.info().phone == "13912345678"
    me.edit_nickname(name="新名")
    assert me.info().name == "新名"
    assert stranger.homepage(user_id=me.info().id).user.nickname == "新名"

    me.logout(device_id="another")
    with pytest.raises(Refused) as refused:
        me.info()
    assert (refused.value.code, refused.value.msg) == (-101, "未登录")
