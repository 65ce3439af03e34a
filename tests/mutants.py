"""Servers with one guard taken away.

A test of a race or of a limit counts only when it fails on the server that lacks the guard. Run as
a module, this starts a server like `hupan serve`, after taking away the guard that is named.

Most mutants are one edit of a rule's own text. An edit that does not find its text stops the
server: a mutant cannot quietly become the real thing when the rule is written anew.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hupan.accounts.context import Context, World

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(take_away: Callable[[], None]) -> Callable[[], None]:
    """Register a mutant under its function's name."""
    MUTANTS[take_away.__name__] = take_away
    return take_away


def edit(module: ModuleType, name: str, *changes: tuple[str, str]) -> None:
    """Write a function of a module anew, with each old text, which stands there once, changed."""
    text = inspect.getsource(getattr(module, name))
    for old, new in changes:
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        text = text.replace(old, new)
    space = vars(module)
    space.setdefault("_pause", time.sleep)
    future = "from __future__ import annotations\n"
    exec(compile(future + text, f"<mutant of {name}>", "exec"), space)


# ---------------------------------------------------------------- codes and captchas


@mutant
def code_used_twice() -> None:
    """R1, C3: a code is marked as used, whether or not it was."""
    from hupan.accounts import codes

    edit(codes, "use", ("code.c.used_at == 0, ", ""))


@mutant
def tries_counted_after_comparing() -> None:
    """R2, C4: the number of tries is read, the guess compared, and the try counted in the end."""
    from hupan.accounts import codes

    edit(
        codes,
        "prove",
        (
            "    with aside(ctx):\n"
            '        limits.take(ctx, f"try:{row.id}:{budget}", ctx.settings.code_tries, DAY,'
            " CodeClosed)\n",
            '    tries = select(rate.c.taken).where(rate.c.key == f"try:{row.id}:{budget}")\n'
            "    if (ctx.tx.value(tries) or 0) >= ctx.settings.code_tries:\n"
            "        raise CodeClosed()\n",
        ),
        (
            "        limits.count_failure(ctx, failures, FREE_FAILURES)\n",
            "        with aside(ctx):\n"
            '            limits.take(ctx, f"try:{row.id}:{budget}", 2**31, DAY, CodeClosed)\n',
        ),
    )


@mutant
def tries_counted_in_the_call() -> None:
    """R2, C4: tries are counted in the call's own transaction, which a refusal rolls back."""
    from hupan.accounts import codes

    edit(
        codes,
        "prove",
        ("    with aside(ctx):\n", "    if True:\n"),
        ("        limits.count_failure(ctx, failures, FREE_FAILURES)\n", ""),
    )


@mutant
def captcha_spent_twice() -> None:
    """C9: a captcha's use is written, and nobody looks whether it was the first."""
    from hupan.accounts import captchas

    edit(captchas, "spend", ("not first or ", ""))


@mutant
def rate_read_then_written() -> None:
    """C11: what was taken is read, compared, and written back."""
    from hupan.accounts import limits
    from hupan.accounts.refusals import Refusal
    from hupan.accounts.tables import rate

    def take(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
        row = ctx.tx.one(limits.select(rate).where(rate.c.key == key))
        fresh = row is None or row.opened_at <= ctx.now - seconds
        taken, opened = (0, ctx.now) if fresh else (row.taken, row.opened_at)
        if taken >= most:
            raise refusal(retry_after=max(1, opened + seconds - ctx.now))
        time.sleep(0.01)
        values = {"opened_at": opened, "taken": taken + 1}
        insert = ctx.tx.insert(rate).values(key=key, **values)
        ctx.tx.run(insert.on_conflict_do_update(index_elements=[rate.c.key], set_=values))
        return int(taken + 1)

    limits.take = take


# ---------------------------------------------------------------- passwords and sessions


@mutant
def tries_of_passwords_counted_first() -> None:
    """C12: every password counts as wrong until it was compared, so that right ones crowd out."""
    from hupan.accounts import login

    edit(
        login,
        "by_password",
        (
            "    limits.check_failures(ctx, failures)\n",
            "    limits.check_failures(ctx, failures)\n"
            "    limits.count_failure(ctx, failures, passwords.FREE_FAILURES)\n",
        ),
    )


@mutant
def one_budget_for_all() -> None:
    """C12: a device that the owner has used shares its tries with strangers."""
    from hupan.accounts import devices

    devices.budget = lambda ctx, account_id, device_id: ""


@mutant
def slow_comparing() -> None:
    """No guard is missing here: there is only more time between a right password and its use."""
    from hupan.accounts import login

    edit(
        login,
        "by_password",
        ("    ctx.tx.begin()\n", "    _pause(0.3)\n    ctx.tx.begin()\n"),
    )


@mutant
def password_compared_once() -> None:
    """T5: nobody asks whether the compared password still is the password."""
    from hupan.accounts import login

    edit(
        login,
        "by_password",
        ("    ctx.tx.begin()\n", "    _pause(0.3)\n    ctx.tx.begin()\n"),
        (", account.c.password_hash == who.password_hash)", ")"),
    )


@mutant
def sessions_of_one_process() -> None:
    """R4, T5: a process remembers sessions, and hears only of its own endings."""
    from hupan.accounts import devices, people, sessions

    known: dict[str, Any] = {}
    admit = sessions.admit

    def remember(ctx: Context, token: str) -> Any:
        if token not in known:
            found = admit(ctx, token)
            if found is None:
                return None
            known[token] = found
        return known[token]

    def forgetting(rule: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            known.clear()
            return rule(*args, **more)

        return run

    sessions.admit = remember
    for module, name in (
        (sessions, "end"),
        (sessions, "end_all"),
        (devices, "offline"),
        (people, "ban"),
        (people, "erase"),
    ):
        setattr(module, name, forgetting(getattr(module, name)))


@mutant
def room_made_before_the_login() -> None:
    """T3: the longest idle session leaves before the login, in a transaction of its own."""
    from hupan.accounts import login, sessions
    from hupan.accounts.operation import aside

    by_password = login.by_password
    edit(
        sessions,
        "open_session",
        (
            "    ctx.tx.run(\n        delete(session).where(\n"
            "            session.c.account_id == account_id,\n"
            "            session.c.id.not_in("
            "staying.limit(ctx.settings.max_sessions).scalar_subquery()),\n        )\n    )\n",
            "",
        ),
    )

    def make_room(ctx: Context, email: str, *more: str) -> str:
        from hupan.accounts import people
        from hupan.accounts.tables import session

        who = people.by_email(ctx, email)
        assert who is not None
        staying = (
            sessions.select(session.c.id)
            .where(session.c.account_id == who.id)
            .order_by(session.c.seen_at.desc(), session.c.id.desc())
            .limit(ctx.settings.max_sessions - 1)
        )
        with aside(ctx):
            ctx.tx.run(
                sessions.delete(session).where(
                    session.c.account_id == who.id,
                    session.c.id.not_in(staying.scalar_subquery()),
                )
            )
        return by_password(ctx, email, *more)

    login.by_password = make_room


# ---------------------------------------------------------------- contacts


@mutant
def contact_not_looked_up_again() -> None:
    """R3: a code serves twice, and a first login trusts what it read before it was a writer.

    The database's own uniqueness is left; a test takes that away by itself.
    """
    from hupan.accounts import login

    code_used_twice()
    edit(
        login,
        "by_code",
        (
            "    who = people.by_phone(ctx, phone)\n    if who is None:\n",
            "    if who is None:\n",
        ),
    )


# ---------------------------------------------------------------- coins and rewards


@mutant
def reward_without_key() -> None:
    """A first change is rewarded under a key that never repeats."""
    from hupan.accounts import coins

    edit(
        coins,
        "reward",
        ('key=f"{key}:{account_id}"', 'key=f"{key}:{ctx.world.random.bytes(8).hex()}"'),
    )


@mutant
def invitation_answered_twice() -> None:
    """An invitation is answered and paid without looking whether one was answered before."""
    from hupan.accounts import invites

    edit(
        invites,
        "answer",
        (
            "account.c.id == account_id, account.c.invited_by.is_(None)",
            "account.c.id == account_id",
        ),
        (
            'key=f"invitation:{account_id}"',
            'key=f"invitation:{ctx.world.random.bytes(8).hex()}"',
        ),
    )


@mutant
def invitations_counted_at_once() -> None:
    """Paid invitations are counted without waiting for those that are being answered."""
    from hupan.accounts import invites

    edit(
        invites,
        "answer",
        ("for account_to_lock in sorted((inviter, account_id)):", "for account_to_lock in ():"),
    )


@mutant
def coins_without_condition() -> None:
    """Coins are taken without asking whether they are there; the table still asks."""
    from hupan.accounts import coins

    edit(
        coins,
        "_move",
        (
            "            wallet.c.id == wallet_id,\n"
            "            (wallet.c.account_id.is_(None)) | (wallet.c.balance + change >= 0),\n",
            "            wallet.c.id == wallet_id,\n",
        ),
    )


@mutant
def coins_read_then_written() -> None:
    """The balance is read, compared, and written back."""
    from hupan.accounts import coins

    edit(
        coins,
        "post",
        (
            "    ctx.tx.begin()\n",
            "    ctx.held = balance(ctx, account_id)\n"
            "    if ctx.held + change < 0:\n"
            "        raise CoinsShort()\n"
            "    _pause(0.05)\n"
            "    ctx.tx.begin()\n",
        ),
    )
    edit(
        coins,
        "_move",
        (
            ".values(balance=wallet.c.balance + change, ",
            ".values(balance=wallet.c.balance + change if wallet_id == COUNTERPART"
            " else ctx.held + change, ",
        ),
        (" | (wallet.c.balance + change >= 0)", " | (wallet.c.balance >= 0)"),
    )


@mutant
def key_read_then_written() -> None:
    """Whether an idempotency key is known is read first, and the posting written under another."""
    from hupan.accounts import coins

    edit(
        coins,
        "post",
        (
            "    ctx.tx.begin()\n",
            "    known = ctx.tx.value(select(posting.c.id).where(posting.c.key.startswith(key)))\n"
            "    if known is not None:\n"
            "        return int(known)\n"
            "    _pause(0.05)\n"
            '    key = f"{key}:{ctx.world.random.bytes(8).hex()}"\n'
            "    ctx.tx.begin()\n",
        ),
    )


@mutant
def reversal_looked_for() -> None:
    """Whether a posting was reversed is read first; the reversal then stands beside others."""
    from hupan.accounts import coins

    edit(
        coins,
        "reverse",
        (
            "    ctx.tx.begin()\n",
            "    if ctx.tx.value(select(posting.c.id).where("
            'posting.c.key.startswith(f"reverse:{posting_id}:"))):\n'
            "        raise AlreadyReversed()\n"
            "    _pause(0.05)\n"
            "    ctx.tx.begin()\n",
        ),
        (
            'key = f"reverse:{posting_id}"',
            'key = f"reverse:{posting_id}:{ctx.world.random.bytes(8).hex()}"',
        ),
        ("        reverses=posting_id,\n", ""),
    )


# ---------------------------------------------------------------- rules raced without a wire


_world: World
_barrier: Barrier


def take_part(name: str, url: str, folder: Path, barrier: Barrier) -> None:
    """Make this process one that races rules: coins are spent by no call of the wire."""
    global _world, _barrier
    from hupan.server.app import build_world
    from hupan.settings import Settings

    if name:
        MUTANTS[name]()
    # Few connections a process: a PostgreSQL of the tests serves a hundred in all.
    options: dict[str, Any] = {"data_dir": folder, "database_url": url, "threads": 4}
    _world, _ = build_world(Settings(**options))
    _barrier = barrier


def race_coins(count: int, rule: str, *args: Any, **more: Any) -> list[str]:
    """Run one rule of the coin book in so many threads, all at once in all processes.

    Returns what each got: the result, or the name of what was raised.
    """
    from hupan.accounts import coins
    from hupan.accounts.operation import operation

    got: list[str] = []
    together = threading.Barrier(count + 1)

    def run(number: int) -> None:
        # A key with `{n}` in it is each racer's own.
        own = f"{os.getpid()}-{number}"
        given = {
            key: value.replace("{n}", own) if isinstance(value, str) else value
            for key, value in more.items()
        }
        together.wait()
        try:
            with operation(_world) as ctx:
                result = str(getattr(coins, rule)(ctx, *args, **given))
        except Exception as error:
            result = type(error).__name__
        got.append(result)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    _barrier.wait()
    together.wait()
    for thread in threads:
        thread.join()
    return got


def main(name: str) -> int:
    from hupan.server import logs
    from hupan.server.run import run
    from hupan.settings import load

    if name:
        MUTANTS[name]()
    settings = load()
    logs.configure(settings)
    return run(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
