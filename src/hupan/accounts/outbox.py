"""The outbox: what has to leave, written in the transaction that causes it.

A row names the code or the link it carries; the text is made when it leaves, so that the database
never holds a secret. Sending is at-least-once: a row is claimed for a while, and comes back when
its sender died.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update

from hupan.accounts import links
from hupan.accounts.context import Context, Found, World
from hupan.accounts.tables import code, link, outbox

__all__ = [
    "Letter",
    "claim",
    "code_text",
    "failed",
    "forget",
    "letters",
    "queue",
    "sent",
    "sweep",
    "tell",
]

#: Seconds a sender has before others may take over.
CLAIM = 120
#: After so many attempts a letter is dropped; the waits between them double from 5 seconds.
ATTEMPTS = 8
MONTH = 30 * 86_400

#: Purpose → (subject zh, text zh, subject en, text en).
_TEXTS: dict[str, tuple[str, str, str, str]] = {
    "code": (
        "验证码",
        "您的验证码是 {code}，{minutes} 分钟内有效。请勿告诉他人。",
        "Your code",
        "Your code is {code}. It is valid for {minutes} minutes. Tell it to nobody.",
    ),
    "code-reset": (
        "重置密码验证码",
        "您正在重置登录密码，验证码是 {code}，{minutes} 分钟内有效。如非本人操作请忽略。",
        "Your code to reset the password",
        "Your code to reset the password is {code}, valid for {minutes} minutes."
        " If you did not ask for it, ignore this.",
    ),
    "password-changed": (
        "登录密码已更改",
        "您账号的登录密码已更改，所有设备均已下线。如非本人操作，请立即重置密码。",
        "Your password was changed",
        "The password of your account was changed and every device was logged out."
        " If this was not you, reset the password at once.",
    ),
    "phone-changed": (
        "绑定的手机号已更改",
        "您账号绑定的手机号已更改。如非本人操作，请在 72 小时内打开此链接撤销：{link}",
        "Your number was changed",
        "The number of your account was changed."
        " If this was not you, undo it within 72 hours: {link}",
    ),
    "email-changed": (
        "绑定的邮箱已更改",
        "您账号绑定的邮箱已更改。如非本人操作，请在 72 小时内打开此链接撤销：{link}",
        "Your address was changed",
        "The e-mail address of your account was changed."
        " If this was not you, undo it within 72 hours: {link}",
    ),
    "account-deleted": (
        "账号已注销",
        "您的账号已注销，个人资料已删除。",
        "Your account was deleted",
        "Your account and its personal data were deleted.",
    ),
}


@dataclass(frozen=True, slots=True)
class Letter:
    """Something to send, with its text. `code` is set where it carries one.

    `ended` says that the code is over, so that sending it would only confuse.
    """

    id: int
    channel: str
    destination: str
    purpose: str
    subject: str
    text: str
    code: str
    created_at: int
    attempts: int
    ended: bool


def queue(
    ctx: Context,
    channel: str,
    destination: str,
    purpose: str,
    *,
    code_id: int | None = None,
    link_id: int | None = None,
) -> None:
    """Put a letter into the outbox, in this transaction."""
    assert purpose in _TEXTS
    ctx.tx.run(
        outbox.insert().values(
            channel=channel,
            destination=destination,
            purpose=purpose,
            code_id=code_id,
            link_id=link_id,
            created_at=ctx.now,
            due_at=ctx.now,
        )
    )
    ctx.posted = True


def tell(ctx: Context, phone: str | None, email: str | None, purpose: str) -> None:
    """Tell every contact of an account."""
    if phone:
        queue(ctx, "sms", phone, purpose)
    if email:
        queue(ctx, "email", email, purpose)


def code_text(world: World, code_id: int, destination: str, nonce: bytes) -> str:
    """The six digits of a code: uniform, and known only to the holder of the key."""
    fixed = world.settings.test_codes.get(destination)
    until = world.settings.test_codes_until
    if fixed and until and world.local(world.clock.now()).date() <= until:
        return fixed
    digest = world.derive("code", code_id, destination, nonce)
    # 256 bits modulo a million: no code is likelier than another by more than 2**-236.
    return f"{int.from_bytes(digest) % 1_000_000:06d}"


def _letters(ctx: Context, *where: Any, newest_first: bool, most: int) -> list[Letter]:
    statement = (
        select(
            outbox,
            code.c.nonce.label("code_nonce"),
            code.c.expires_at.label("code_ends"),
            link.c.nonce.label("link_nonce"),
        )
        .outerjoin(code, code.c.id == outbox.c.code_id)
        .outerjoin(link, link.c.id == outbox.c.link_id)
        .where(*where)
        .order_by(outbox.c.id.desc() if newest_first else outbox.c.id)
        .limit(most)
    )
    return [_letter(ctx.world, row) for row in ctx.tx.all(statement)]


def _letter(world: World, row: Found) -> Letter:
    words = {"code": "", "link": "", "minutes": world.settings.code_seconds // 60}
    if row.code_nonce is not None:
        words["code"] = code_text(world, row.code_id, row.destination, row.code_nonce)
    if row.link_nonce is not None:
        # Behind a `#`, because what stands there never reaches a server's or a proxy's log.
        base = world.settings.web_url or f"http://{world.settings.host}:{world.settings.web_port}"
        words["link"] = f"{base}/account/link#{links.secret(world, row.link_id, row.link_nonce)}"
    texts = _TEXTS[row.purpose]
    subject, text = texts[2:] if world.settings.language == "en" else texts[:2]
    return Letter(
        id=row.id,
        channel=row.channel,
        destination=row.destination,
        purpose=row.purpose,
        subject=subject,
        text=text.format(**words),
        code=str(words["code"]),
        created_at=row.created_at,
        attempts=row.attempts,
        ended=row.code_ends is not None and row.code_ends <= world.clock.now(),
    )


def letters(ctx: Context, destination: str = "", most: int = 50) -> list[Letter]:
    """What was queued, newest first; for the sandbox's look-up."""
    where = [outbox.c.destination == destination] if destination else []
    return _letters(ctx, *where, newest_first=True, most=most)


def claim(ctx: Context, most: int = 16) -> list[Letter]:
    """Take letters that are due; nobody else gets them until the claim runs out."""
    due = (outbox.c.sent_at == 0, outbox.c.dropped_at == 0, outbox.c.due_at <= ctx.now)
    if ctx.tx.value(select(outbox.c.id).where(*due).limit(1)) is None:
        return []
    ctx.tx.begin()
    taken = ctx.tx.all(
        update(outbox)
        .where(outbox.c.id.in_(select(outbox.c.id).where(*due).order_by(outbox.c.id).limit(most)))
        # Asked again, because two senders may have chosen the same rows.
        .where(*due)
        .values(due_at=ctx.now + CLAIM, attempts=outbox.c.attempts + 1)
        .returning(outbox.c.id)
    )
    ids = [row.id for row in taken]
    return _letters(ctx, outbox.c.id.in_(ids), newest_first=False, most=most)


def sent(ctx: Context, letter: Letter) -> None:
    """It left."""
    ctx.tx.run(update(outbox).where(outbox.c.id == letter.id).values(sent_at=ctx.now, error=""))


def sweep(ctx: Context) -> None:
    """Forget what left, or was given up, a month ago."""
    old = ctx.now - MONTH
    ctx.tx.run(
        delete(outbox).where(
            outbox.c.created_at <= old, (outbox.c.sent_at > 0) | (outbox.c.dropped_at > 0)
        )
    )


def forget(ctx: Context, destination: str) -> None:
    """Forget what was sent to an address whose holder has gone."""
    ctx.tx.run(delete(outbox).where(outbox.c.destination == destination))


def failed(ctx: Context, letter: Letter, error: str) -> None:
    """It did not leave; try again later, or give up."""
    values: dict[str, Any] = {"error": error[:255]}
    if letter.attempts >= ATTEMPTS or letter.ended:
        values["dropped_at"] = ctx.now
        ctx.note("letter-dropped", purpose=letter.purpose, error=error[:255])
    else:
        values["due_at"] = ctx.now + (5 << (letter.attempts - 1))
    ctx.tx.run(
        update(outbox).where(outbox.c.id == letter.id, outbox.c.sent_at == 0).values(**values)
    )
