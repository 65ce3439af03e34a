"""Codes that prove a phone number or an address.

A code is sent after a captcha and within limits, lives five minutes, is compared a few times and
used once. Proving and using are two steps, so that slow work (a password hash) can stand between
them without holding the write lock.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from hupan.accounts import captchas, devices, limits, outbox, people
from hupan.accounts.context import Context, Found
from hupan.accounts.operation import aside
from hupan.accounts.refusals import CodeClosed, SentTooOften, TooManyRequests, WrongCode
from hupan.accounts.tables import code, rate
from hupan.accounts.tables import outbox as letter_box

__all__ = ["ANY", "RESET", "Proof", "forget", "prove", "send", "sweep", "use"]

log = logging.getLogger(__name__)

#: A code for logging in, binding, changing, deleting, and for a reset as well.
ANY = "any"
#: A code that serves a reset only.
RESET = "reset"

#: So many consecutive wrong guesses at an address start its back-off.
FREE_FAILURES = 10
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Proof:
    """A code that was guessed right and is not used yet."""

    code_id: int
    destination: str


def send(
    ctx: Context, channel: str, destination: str, captcha_id: str, solution: str, purpose: str = ANY
) -> None:
    """Send a code. The answer does not tell whether anything left, nor whose the address is."""
    captchas.spend(ctx, captcha_id, solution)
    _count_send(ctx, destination)
    find = people.by_phone if channel == "sms" else people.by_email
    who = find(ctx, destination)
    silent = (
        _locked(ctx, destination, who)
        or (who is not None and who.banned_until > ctx.now)
        or (who is None and purpose == RESET)
    )
    if silent:
        return
    ctx.tx.begin()
    code_id = _alive(ctx, destination, purpose) or _issue(ctx, channel, destination, purpose)
    outbox.queue(
        ctx, channel, destination, "code-reset" if purpose == RESET else "code", code_id=code_id
    )
    ctx.note("code-sent", who.id if who else 0, channel=channel, purpose=purpose)


def _locked(ctx: Context, destination: str, who: people.Account | None) -> bool:
    """Whether guesses at an address are over, so that a code would be of no use to anybody.

    A stranger may have spent the common tries; a device that the owner has used has its own, and
    while one of those is open the owner still gets codes.
    """
    if not limits.locked(ctx, f"code:{destination}:"):
        return False
    own = devices.known(ctx, who.id) if who else []
    return all(limits.locked(ctx, f"code:{destination}:{device}") for device in own)


def _count_send(ctx: Context, destination: str) -> None:
    """Count the send against every limit, or against none of them."""
    settings, source = ctx.settings, ctx.source
    with aside(ctx):
        limits.take(ctx, f"send:{destination}", 1, settings.code_interval_seconds, SentTooOften)
        limits.take(ctx, f"send-day:{destination}", settings.code_day_limit, DAY, SentTooOften)
        if not settings.limit_sources:
            return
        if source.address:
            limits.take(
                ctx, f"send-ip:{source.address}", settings.source_send_limit, 600, TooManyRequests
            )
            limits.take(
                ctx, f"send-net:{source.network}", settings.network_send_limit, 3600,
                TooManyRequests,
            )  # fmt: skip
        taken = limits.take(ctx, "send-site", settings.site_send_limit, DAY, TooManyRequests)
        if taken == settings.site_send_limit * 4 // 5:
            log.warning("send-budget: 80 percent of today's sends are used")
            ctx.note("send-budget-alarm", taken=taken, limit=settings.site_send_limit)


def _newest(ctx: Context, destination: str, purpose: str) -> Found | None:
    """The newest code of an address and a purpose that is neither used nor over."""
    return ctx.tx.one(
        select(code.c.id, code.c.nonce)
        .where(
            code.c.destination == destination,
            code.c.purpose == purpose,
            code.c.used_at == 0,
            code.c.expires_at > ctx.now,
        )
        .order_by(code.c.id.desc())
        .limit(1)
    )


def _alive(ctx: Context, destination: str, purpose: str) -> int | None:
    """The code to send again: the newest one, unless strangers have guessed at it too often."""
    row = _newest(ctx, destination, purpose)
    if row is None:
        return None
    taken = ctx.tx.value(select(rate.c.taken).where(rate.c.key == _tries(row.id, "")))
    return None if (taken or 0) >= ctx.settings.code_tries else int(row.id)


def _tries(code_id: int, budget: str) -> str:
    return f"try:{code_id}:{budget}"


def _issue(ctx: Context, channel: str, destination: str, purpose: str) -> int:
    return int(
        ctx.tx.value(
            code.insert()
            .values(
                channel=channel,
                destination=destination,
                purpose=purpose,
                nonce=ctx.world.random.bytes(16),
                created_at=ctx.now,
                expires_at=ctx.now + ctx.settings.code_seconds,
            )
            .returning(code.c.id)
        )
    )


def prove(
    ctx: Context,
    destination: str,
    guess: str,
    purposes: tuple[str, ...] = (ANY,),
    budget: str = "",
) -> Proof:
    """Compare a guess with the newest code of each purpose of an address.

    Args:
        destination: a normalised number or address.
        guess: what the person typed.
        purposes: the purposes of which a code may be.
        budget: the known device whose tries these are; empty for everybody else. A stranger who
            spends the common tries does not spend those of a device that the owner has used.

    Raises:
        WrongCode: no code is open, or the guess is wrong.
        CodeClosed: this code was guessed at too often.
        TooManyTries, Locked: so was this address.
    """
    failures = f"code:{destination}:{budget}"
    limits.check_failures(ctx, failures)
    rows = [row for purpose in purposes if (row := _newest(ctx, destination, purpose))]
    if not rows:
        with aside(ctx):
            ctx.note("code-missing")
        raise WrongCode()
    closed = 0
    for row in rows:
        # Counted before comparing, and not undone by the refusal: of many guesses at once, only
        # so many are compared.
        try:
            with aside(ctx):
                limits.take(ctx, _tries(row.id, budget), ctx.settings.code_tries, DAY, CodeClosed)
        except CodeClosed:
            closed += 1
            continue
        right = outbox.code_text(ctx.world, row.id, destination, row.nonce)
        if hmac.compare_digest(right.encode(), guess.strip().encode()):
            return Proof(row.id, destination)
    if closed == len(rows):
        # Without a time to wait: a new code helps at once.
        raise CodeClosed()
    ctx.note("code-wrong", code=rows[0].id)
    limits.count_failure(ctx, failures, FREE_FAILURES)
    raise WrongCode()


def sweep(ctx: Context) -> None:
    """Forget codes that ended a month ago; no letter speaks of them any more."""
    ctx.tx.run(
        delete(code).where(
            code.c.expires_at <= ctx.now - 31 * DAY,
            code.c.id.not_in(select(letter_box.c.code_id).where(letter_box.c.code_id.is_not(None))),
        )
    )


def forget(ctx: Context, destination: str) -> None:
    """Forget the codes and the failures of an address whose holder has gone."""
    outbox.forget(ctx, destination)
    ctx.tx.run(delete(code).where(code.c.destination == destination))
    limits.forget(ctx, f"code:{destination}:")


def use(ctx: Context, proof: Proof) -> None:
    """Use a proved code up. Of many at once, one succeeds.

    Raises:
        WrongCode: somebody was faster, or the code has ended meanwhile.
    """
    ctx.tx.begin()
    # All open codes of the address go with it: an older one must not become the newest again.
    # They are locked in one order, since another call may be using another one of them.
    rows = ctx.tx.all(
        select(code.c.id, code.c.expires_at)
        .where(code.c.used_at == 0, code.c.destination == proof.destination)
        .order_by(code.c.id)
        .with_for_update()
    )
    if proof.code_id not in [row.id for row in rows if row.expires_at > ctx.now]:
        raise WrongCode()
    ctx.tx.run(update(code).where(code.c.id.in_([row.id for row in rows])).values(used_at=ctx.now))
    limits.forget(ctx, f"code:{proof.destination}:")
    ctx.note("code-used", code=proof.code_id)
