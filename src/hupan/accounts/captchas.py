"""Captchas: a puzzle that only its picture tells.

Nothing is written when one is made, so that nobody can fill the database by asking. The id holds
the end of its life and a nonce, sealed with the key; the solution is derived from the id under the
same key. Only the use is written, which is what makes it single.
"""

from __future__ import annotations

import hmac

from sqlalchemy import delete

from hupan.accounts.context import Context, World
from hupan.accounts.operation import aside
from hupan.accounts.refusals import WrongCaptcha
from hupan.accounts.tables import spent_captcha

__all__ = ["ALPHABET", "LENGTH", "new", "solution", "spend", "sweep"]

#: No glyph here can be taken for another.
ALPHABET = "2345689"
LENGTH = 4


def new(ctx: Context) -> str:
    """Make a puzzle; returns its id."""
    expires = ctx.now + ctx.settings.captcha_seconds
    body = f"{expires:x}-{ctx.world.random.bytes(12).hex()}"
    return f"{body}-{_seal(ctx.world, body)}"


def solution(world: World, captcha_id: str) -> str | None:
    """What the picture of this id shows, or None where the id is not ours."""
    body, _, seal = captcha_id.rpartition("-")
    if not hmac.compare_digest(seal.encode(), _seal(world, body).encode()):
        return None
    digits = int.from_bytes(world.derive("captcha-solution", captcha_id))
    letters = ""
    for _ in range(LENGTH):
        digits, place = divmod(digits, len(ALPHABET))
        letters += ALPHABET[place]
    return letters


def spend(ctx: Context, captcha_id: str, answer: str) -> None:
    """Use up a puzzle, whether or not the answer is right.

    Raises:
        WrongCaptcha: it is not ours, over, spent, or the answer is wrong.
    """
    expected = solution(ctx.world, captcha_id)
    if expected is None:
        raise WrongCaptcha()
    expires = int(captcha_id.partition("-")[0], 16)
    if expires <= ctx.now:
        raise WrongCaptcha()
    insert = ctx.tx.insert(spent_captcha).values(id=captcha_id, expires_at=expires)
    with aside(ctx):
        first = ctx.tx.run(insert.on_conflict_do_nothing())
    if not first or not hmac.compare_digest(answer.strip().encode(), expected.encode()):
        raise WrongCaptcha()


def sweep(ctx: Context) -> None:
    """Drop the uses of puzzles that are over anyway."""
    ctx.tx.run(delete(spent_captcha).where(spent_captcha.c.expires_at <= ctx.now))


def _seal(world: World, body: str) -> str:
    return world.derive("captcha", body).hex()[:16]
