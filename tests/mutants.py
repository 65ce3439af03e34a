"""Servers with one guard taken away.

A test of a race or of a limit counts only when it fails on the server that lacks the guard. Run as
a module, this starts a server like `hupan serve`, after taking away the guard that is named.

Most mutants are one edit of a rule's own text. An edit that does not find its text stops the
server: a mutant cannot quietly become the real thing when the rule is written anew.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

if TYPE_CHECKING:
    from hupan.accounts.context import Context, World

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(take_away: Callable[[], None]) -> Callable[[], None]:
    """Register a mutant under its function's name."""
    MUTANTS[take_away.__name__] = take_away
    return take_away


_originals: list[tuple[ModuleType, str, Any]] = []


@contextmanager
def taken_away(name: str) -> Iterator[None]:
    """Be a mutant in this very process for a while; for those of `edit` and `replace`."""
    MUTANTS[name]()
    try:
        yield
    finally:
        while _originals:
            module, function, original = _originals.pop()
            setattr(module, function, original)


def replace(module: ModuleType, name: str, other: Any) -> None:
    """Put something else in the place of a module's statement."""
    _originals.append((module, name, getattr(module, name)))
    setattr(module, name, other)


def edit(module: ModuleType, name: str, *changes: tuple[str, str]) -> None:
    """Write a function of a module anew, with each old text, which stands there once, changed.

    An old text is short and may leave lines out with `...`, so that it outlives small rewrites.
    """
    original = getattr(module, name)
    text = inspect.getsource(original)
    for old, new in changes:
        pattern = ".*?".join(re.escape(part) for part in old.split("..."))
        found = re.findall(pattern, text, re.DOTALL)
        assert len(found) == 1, f"{module.__name__}.{name} has {len(found)} times: {old}"
        text = text.replace(found[0], new)
    _originals.append((module, name, original))
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
    from sqlalchemy import select

    from hupan.accounts import limits
    from hupan.accounts.operation import aside
    from hupan.accounts.refusals import CodeClosed, Refusal
    from hupan.accounts.tables import rate

    take, tried = limits.take, threading.local()

    def look(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
        if not key.startswith("try:"):
            return take(ctx, key, most, seconds, refusal)
        tried.key = key
        taken = ctx.tx.value(select(rate.c.taken).where(rate.c.key == key)) or 0
        if taken >= most:
            raise refusal(retry_after=1)
        return int(taken)

    def count(ctx: Context, key: str, free: int) -> None:
        with aside(ctx):
            take(ctx, tried.key, 2**31, 86_400, CodeClosed)

    limits.take, limits.count_failure = look, count


@mutant
def tries_given_back() -> None:
    """R2, C4: a refusal gives the try back, as the rollback of one transaction for all would."""
    from sqlalchemy import update

    from hupan.accounts import limits
    from hupan.accounts.operation import aside
    from hupan.accounts.refusals import Refusal
    from hupan.accounts.tables import rate

    take, tried = limits.take, threading.local()

    def remember(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
        tried.key = key
        return take(ctx, key, most, seconds, refusal)

    def give_back(ctx: Context, key: str, free: int) -> None:
        with aside(ctx):
            mine = rate.c.key == tried.key
            ctx.tx.run(update(rate).where(mine).values(taken=rate.c.taken - 1))

    limits.take, limits.count_failure = remember, give_back


@mutant
def captcha_spent_twice() -> None:
    """C9: a captcha's use is written, and nobody looks whether it was the first."""
    from hupan.accounts import captchas

    edit(captchas, "spend", ("not first or ", ""))


@mutant
def rate_read_then_written() -> None:
    """C11: what was taken is read, compared, and written back."""
    from sqlalchemy import select

    from hupan.accounts import limits
    from hupan.accounts.refusals import Refusal
    from hupan.accounts.tables import rate

    def take(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
        row = ctx.tx.one(select(rate).where(rate.c.key == key))
        taken, opened = 0, ctx.now
        if row is not None and row.opened_at > ctx.now - seconds:
            taken, opened = row.taken, row.opened_at
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
def every_login_is_a_failure() -> None:
    """C12: passwords are counted before they are compared, and right ones are not taken back."""
    from hupan.accounts import limits, passwords

    check_failures = limits.check_failures

    def check_and_count(ctx: Context, key: str) -> None:
        check_failures(ctx, key)
        if key.startswith("password:") and not ctx.tx.begun:
            limits.count_failure(ctx, key, passwords.FREE_FAILURES)

    limits.check_failures = check_and_count
    limits.forget = lambda ctx, prefix: None


@mutant
def one_budget_for_all() -> None:
    """C12: a device that the owner has used shares its tries with strangers."""
    from hupan.accounts import devices

    devices.budget = lambda ctx, account_id, device_id: ""


@mutant
def failures_counted_blindly() -> None:
    """P5: a failure is counted without asking whether others have started the back-off."""
    from hupan.accounts import limits

    slow_comparing()
    edit(limits, "_failing", ("            where=...OFF),\n", ""))


@mutant
def right_password_rests() -> None:
    """No guard is missing here: there is only more time after a right password was compared."""
    from hupan.accounts import passwords

    verify = passwords.verify

    def verify_and_rest(ctx: Context, known: str | None, password: str) -> bool:
        right = verify(ctx, known, password)
        time.sleep(1.5 if right else 0)
        return right

    passwords.verify = verify_and_rest


@mutant
def right_password_not_looked_at_again() -> None:
    """P5: a right guess does not ask how many wrong ones came with it."""
    from hupan.accounts import login

    right_password_rests()
    edit(
        login,
        "by_password",
        ("limits.check_failures(ctx, failures)\n    limits.forget", "limits.forget"),
    )


@mutant
def slow_comparing() -> None:
    """No guard is missing here: there is only more time between comparing and what follows."""
    from hupan.accounts import passwords

    verify = passwords.verify

    def verify_and_rest(ctx: Context, known: str | None, password: str) -> bool:
        right = verify(ctx, known, password)
        time.sleep(0.2)
        return right

    passwords.verify = verify_and_rest


@mutant
def password_compared_once() -> None:
    """T5: nobody asks whether the compared password still is the password."""
    from sqlalchemy import bindparam, update

    from hupan.accounts import login
    from hupan.accounts.tables import account

    slow_comparing()
    mine = update(account).where(account.c.id == bindparam("which"))
    replace(login, "_STILL_SO", mine.values(password_hash=bindparam("hash")))


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
def news_unheard() -> None:
    """R4, T5: what is kept is told without asking what changed."""
    from hupan.outside import database

    for watch in (database.SqliteWatch, database.PostgresWatch):
        watch.news = lambda self: ()


@mutant
def room_made_before_the_login() -> None:
    """T3: the longest idle session leaves before the login, in a transaction of its own."""
    from sqlalchemy import delete, select

    from hupan.accounts import login, people, sessions
    from hupan.accounts.operation import aside
    from hupan.accounts.tables import session

    by_password = login.by_password
    edit(sessions, "open_session", ("most=ctx.settings.max_sessions", "most=10**6"))

    def make_room(ctx: Context, email: str, password: str, device_id: str, platform: str) -> str:
        who = people.by_email(ctx, email)
        assert who is not None
        staying = (
            select(session.c.id)
            .where(session.c.account_id == who.id)
            .order_by(session.c.seen_at.desc(), session.c.id.desc())
            .limit(ctx.settings.max_sessions - 1)
        )
        with aside(ctx):
            ctx.tx.run(
                delete(session).where(
                    session.c.account_id == who.id,
                    session.c.id.not_in(staying.scalar_subquery()),
                )
            )
        time.sleep(0.05)
        return by_password(ctx, email, password, device_id, platform)

    login.by_password = make_room


@mutant
def banned_person_let_in() -> None:
    """T5: a session is opened without asking again whether its owner was banned meanwhile."""
    from sqlalchemy import bindparam, update

    from hupan.accounts import sessions
    from hupan.accounts.tables import account

    mine = update(account).where(account.c.id == bindparam("which"), account.c.deleted_at == 0)
    come = mine.values(last_seen_at=bindparam("now"), last_login_at=bindparam("now"))
    replace(sessions, "_COME", come.returning(account.c.last_login_at))


@mutant
def sessions_locked_before_the_account() -> None:
    """A ban ends the sessions first, while a visit counts its day at the account first."""
    from hupan.accounts import people

    edit(
        people,
        "ban",
        ("    ctx.tx.run(...update(", "    sessions.end_all(ctx, who.id)\n    ctx.tx.run(update("),
    )


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
        ("    who = people.by_phone(ctx, phone)\n    if who is", "    if who is"),
    )


@mutant
def deleted_account_changed() -> None:
    """T5: a name is written without asking whether the account was deleted."""
    from sqlalchemy import bindparam, update

    from hupan.accounts import profile
    from hupan.accounts.tables import account

    replace(
        profile,
        "_RENAME",
        update(account)
        .where(account.c.id == bindparam("which"))
        .values(name=bindparam("new"), name_id=account.c.name_id + 1)
        .returning(account.c.name_id),
    )


# ---------------------------------------------------------------- coins and rewards


@mutant
def every_change_is_the_first() -> None:
    """Each change is taken for the first and rewarded under a key that never repeats."""
    from hupan.accounts import coins, profile

    replace(profile, "_FIRST_NAME", ANY)
    replace(profile, "_FIRST_AVATAR", ANY)

    def reward(ctx: Context, account_id: int, amount: int, typ: int, key: str, reason: str) -> None:
        key += ctx.world.random.bytes(8).hex()
        coins.post(ctx, account_id, amount, typ=typ, reason=reason, key=key)

    coins.reward = reward


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
def invitations_unlocked() -> None:
    """Invitations are judged and counted without waiting for those that are being answered."""
    from hupan.accounts import invites

    edit(
        invites,
        "answer",
        ("    locks.accounts(ctx, inviter, account_id)\n", ""),
        ("    changed = ", "    _pause(0.02)\n    changed = "),
        (
            "    so_far = progress(ctx, inviter)\n",
            "    so_far = progress(ctx, inviter)\n    _pause(0.02)\n",
        ),
    )


@mutant
def inviters_locked_as_they_come() -> None:
    """Two answers lock each its own account first, and then wait for each other's."""
    from hupan.accounts import invites

    edit(
        invites,
        "answer",
        (
            "    locks.accounts(ctx, inviter, account_id)\n",
            "    locks.accounts(ctx, account_id)\n    locks.accounts(ctx, inviter)\n",
        ),
    )


@mutant
def coins_without_condition() -> None:
    """Coins are taken without asking whether they are there; the table still asks."""
    from sqlalchemy import bindparam, update

    from hupan.accounts import coins
    from hupan.accounts.tables import wallet

    moved = {"balance": wallet.c.balance + bindparam("change"), "entries": wallet.c.entries + 1}
    replace(
        coins,
        "_MOVE",
        update(wallet)
        .where(wallet.c.id == bindparam("which"))
        .values(moved)
        .returning(*coins._MOVE.exported_columns),
    )


@mutant
def coins_read_then_written() -> None:
    """The balance is read, compared, and written back."""
    from sqlalchemy import bindparam, update

    from hupan.accounts import coins
    from hupan.accounts.tables import wallet

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
    coins._WRITE_BACK = (  # type: ignore[attr-defined]  # The mutant's own.
        update(wallet)
        .where(wallet.c.id == bindparam("which"))
        .values(balance=bindparam("change"), entries=wallet.c.entries + 1)
        .returning(*coins._MOVE.exported_columns)
    )
    edit(
        coins,
        "_move",
        (
            "ctx.tx.one(_MOVE, which=wallet_id, change=change)",
            "ctx.tx.one(_MOVE, which=wallet_id, change=change) if wallet_id == COUNTERPART"
            " else ctx.tx.one(_WRITE_BACK, which=wallet_id, change=ctx.held + change)",
        ),
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
        ("reverses=posting_id, ", ""),
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


def race_coins(
    rule: str, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]], racers: Sequence[int]
) -> list[tuple[int, str]]:
    """Run one rule of the coin book in a thread for each racer, all at once in all processes.

    The racers make these calls in turn; `{n}` in an argument is the racer's number. Returns which
    call each made, and its result or the name of what was raised.
    """
    from hupan.accounts import coins
    from hupan.accounts.operation import operation

    heard: list[tuple[int, str]] = []
    together = threading.Barrier(len(racers) + 1)

    def run(number: int) -> None:
        place = number % len(calls)
        given, named = calls[place]
        own = {
            key: value.replace("{n}", str(number)) if isinstance(value, str) else value
            for key, value in named.items()
        }
        together.wait()
        try:
            with operation(_world) as ctx:
                result = str(getattr(coins, rule)(ctx, *given, **own))
        except Exception as error:
            result = type(error).__name__
        heard.append((place, result))

    threads = [threading.Thread(target=run, args=(number,)) for number in racers]
    for thread in threads:
        thread.start()
    _barrier.wait()
    together.wait()
    for thread in threads:
        thread.join()
    return heard


def main(name: str) -> int:
    from hupan.server import logs
    from hupan.server.run import run
    from hupan.settings import load

    if name:
        MUTANTS[name]()
    settings = load()
    logs.configure(settings)
    return run(settings)


def serve(name: str, environment: dict[str, str], folder: Path) -> None:
    """Do the same in a process that was forked for it."""
    os.chdir(folder)
    with (folder / "server.log").open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(environment)
    sys.exit(main(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
