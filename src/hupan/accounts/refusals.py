"""Every reason for which a rule says no.

A refusal is raised anywhere and rendered once, at the door. It carries the code of the envelope
and its words in two languages; `{name}` in the words is filled from the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

__all__ = ["Refusal", "every_refusal"]


class Refusal(Exception):
    """The base of all refusals.

    Attributes:
        code: what the envelope says; never 0 or 1.
        retry_after: seconds after which it is worth asking again, where that is known.
    """

    code: ClassVar[int] = -1
    zh: ClassVar[str] = ""
    en: ClassVar[str] = ""

    def __init__(self, retry_after: int | None = None, **words: object) -> None:
        self.retry_after = retry_after
        self.words = words if retry_after is None else {"seconds": retry_after, **words}
        super().__init__(self.text("en"))

    def text(self, language: str) -> str:
        """The reason in `zh` or `en`."""
        return (self.en if language == "en" else self.zh).format(**self.words)


def every_refusal() -> Iterator[type[Refusal]]:
    """Walk all refusals, in the order they are declared."""
    yield from Refusal.__subclasses__()


class NotLoggedIn(Refusal):
    code = -101
    # Clients compare this very text.
    zh = "未登录"
    en = "Not logged in"


class BadParameters(Refusal):
    code = 1002
    zh = "请求参数错误"
    en = "The parameters cannot be read"


class Busy(Refusal):
    zh = "服务器繁忙，请 {seconds} 秒后再试"
    en = "The server is busy; try again in {seconds} seconds"


class UnknownUser(Refusal):
    zh = "该用户不存在"
    en = "There is no such user"


class VipOnly(Refusal):
    # Clients compare this text too.
    zh = "此功能仅限VIP用户使用"
    en = "This is for VIP users only"


class Banned(Refusal):
    zh = "账号已被封禁，解封时间：{until}"
    en = "This account is banned until {until}"


class BannedForGood(Refusal):
    zh = "账号已被永久封禁"
    en = "This account is banned for good"


class RegistrationClosed(Refusal):
    zh = "本站暂不开放注册"
    en = "This server does not accept new accounts"


class WrongCaptcha(Refusal):
    zh = "图形验证码错误或已过期，请重新获取"
    en = "The captcha is wrong or has expired; get a new one"


class WrongCode(Refusal):
    zh = "验证码错误或已过期"
    en = "The code is wrong or has expired"


class CodeClosed(Refusal):
    zh = "验证码错误次数过多，请重新获取"
    en = "Too many wrong tries; ask for a new code"


class TooManyTries(Refusal):
    zh = "错误次数过多，请 {seconds} 秒后再试"
    en = "Too many wrong tries; try again in {seconds} seconds"


class Locked(Refusal):
    zh = "错误次数过多，已被锁定，请通过验证码重置密码或联系管理员"
    en = "Locked after too many wrong tries; reset the password by code or ask the operator"


class SentTooOften(Refusal):
    zh = "发送过于频繁，请 {seconds} 秒后再试"
    en = "Sent too often; try again in {seconds} seconds"


class TooManyRequests(Refusal):
    zh = "请求过于频繁，请 {seconds} 秒后再试"
    en = "Too many requests; try again in {seconds} seconds"


class WrongPassword(Refusal):
    zh = "邮箱或密码错误"
    en = "The e-mail address or the password is wrong"


class BadPhone(Refusal):
    zh = "手机号格式不正确"
    en = "This is not a mobile number"


class BadEmail(Refusal):
    zh = "邮箱格式不正确"
    en = "This is not an e-mail address"


class PhoneTaken(Refusal):
    zh = "该手机号已被其他账号绑定"
    en = "Another account holds this number"


class EmailTaken(Refusal):
    zh = "该邮箱已被其他账号绑定"
    en = "Another account holds this address"


class SameContact(Refusal):
    zh = "与当前绑定的相同"
    en = "This is bound already"


class NotYourContact(Refusal):
    zh = "请使用当前账号绑定的手机号或邮箱"
    en = "Use the number or the address that this account holds"


class PasswordTooShort(Refusal):
    zh = "密码至少需要 {least} 个字符"
    en = "A password needs at least {least} characters"


class PasswordTooLong(Refusal):
    zh = "密码最多 {most} 个字符"
    en = "A password has at most {most} characters"


class PasswordTooCommon(Refusal):
    zh = "密码过于常见，容易被猜到，请换一个"
    en = "This password is among those that are guessed first; choose another"


class PasswordFromContact(Refusal):
    zh = "密码不能与手机号、邮箱或昵称相同"
    en = "The password must not be the number, the address or the nickname"


class BadNickname(Refusal):
    zh = "昵称需要 1 到 {most} 个字符"
    en = "A nickname has 1 to {most} characters"


class BadAvatar(Refusal):
    zh = "头像地址必须是 http 或 https 链接，最长 {most} 个字符"
    en = "A picture's address is an http or https link of at most {most} characters"


class BadGender(Refusal):
    zh = "性别只能是 1（男）、2（女）或 3（其他）"
    en = "Gender is 1 (male), 2 (female) or 3 (other)"


class BadBirthday(Refusal):
    zh = "生日不正确"
    en = "This is no birthday"


class TooLong(Refusal):
    zh = "{field}过长，最多 {most} 个字符"
    en = "{field} has at most {most} characters"


class BadRemarks(Refusal):
    zh = "备注格式不正确"
    en = "The notes are not a list of keys and values"


class BadDevice(Refusal):
    zh = "缺少设备标识"
    en = "The device is not named"


class UnknownDevice(Refusal):
    zh = "该设备不存在或已下线"
    en = "There is no such device"


class BadIgnore(Refusal):
    zh = "忽略设置格式不正确"
    en = "This is no list of modules to hide"


class BadSwitch(Refusal):
    zh = "开关只能是 0 或 1"
    en = "A switch is 0 or 1"


class BadInviteCode(Refusal):
    zh = "邀请码需要 4 到 16 位字母或数字"
    en = "An invitation code has 4 to 16 letters or digits"


class OwnInvitation(Refusal):
    zh = "不能使用自己的邀请码"
    en = "This is your own code"


class AlreadyInvited(Refusal):
    zh = "已经使用过邀请码"
    en = "An invitation has been answered already"


class CoinsShort(Refusal):
    zh = "金币不足"
    en = "Not enough coins"


class KeyReused(Refusal):
    zh = "同一幂等键不能用于不同的金币操作"
    en = "This idempotency key belongs to another posting"


class AlreadyReversed(Refusal):
    zh = "该笔金币记录已冲正或不存在"
    en = "This posting has been reversed already or does not exist"


class BadAmount(Refusal):
    zh = "金币数量不正确"
    en = "This is no amount of coins"


class UnknownMedal(Refusal):
    zh = "该勋章不存在"
    en = "There is no such medal"


class BadLink(Refusal):
    zh = "链接无效或已过期"
    en = "The link is not valid or has expired"
