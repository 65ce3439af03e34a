"""The two books that nobody may rewrite: coins and audit (R6, A1).

Sixteen writers post at random, with overdrafts, repeated keys, cut connections and crossing
reversals, and keep books of their own; afterwards both books must be the same. Then somebody with
a pen sits down at the database itself.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, select, text, true
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from hupan.accounts import audit, coins, refusals
from hupan.accounts.context import Actor, Context, Source
from hupan.accounts.operation import operation
from hupan.accounts.tables import audit as audit_table
from hupan.accounts.tables import audit_head, entry, posting, wallet
from hupan.client import Client
from hupan.outside.database import SqlTransaction
from tests.house import House

#: The same in every run, so that a red build stays red; the nightly run draws its own.
SEED = int(os.environ.get("TEST_SEED", "20260302"))

WRITERS = 16
PEOPLE = 6


# ---------------------------------------------------------------- sixteen writers


@dataclass
class Effect:
    """What a posting did to an account."""

    who: int
    change: int


@dataclass
class OwnBook:
    """What the writers know to have happened, kept apart from the database."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Every posting by its key, as soon as its commit is known.
    done: dict[str, Effect] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    reversed: set[int] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)

    def balance(self, who: int) -> int:
        undone = {self.ids[posting_id] for posting_id in self.reversed}
        return sum(
            effect.change
            for key, effect in self.done.items()
            if effect.who == who and key not in undone
        )


class Cuts(threading.local):
    """Where the next commit of this thread loses its connection: before, after, or nowhere."""

    where = ""


CUTS = Cuts()


@pytest.fixture
def cut_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commits lose their connection where `CUTS` says so."""
    commit = SqlTransaction.commit

    def fragile(tx: SqlTransaction) -> None:
        where, CUTS.where = CUTS.where, ""
        lost = OperationalError("COMMIT", None, OSError("cut"), connection_invalidated=True)
        if where == "before":
            raise lost
        commit(tx)
        if where == "after":
            raise lost

    monkeypatch.setattr(SqlTransaction, "commit", fragile)


def shared_effect(seed: int, number: int, people: list[int]) -> Effect:
    """The one posting that belongs to a key which several writers use."""
    chance = random.Random(f"{seed}-shared-{number}")
    return Effect(chance.choice(people), chance.randint(-3_000, 4_000) or 1)


def one_writer(
    house: House, book: OwnBook, people: list[int], seed: int, number: int, count: int
) -> None:
    """Post so many times, at random, and tell the book what must have happened."""
    chance = random.Random(f"{seed}-{number}")
    mine: list[str] = []

    def act(rule: Callable[[Context], int]) -> tuple[str, int | None, bool]:
        """Run a rule until it is answered. Returns the outcome, and whether a cut hid a commit."""
        hidden = False
        while True:
            cut = chance.choices(("", "before", "after"), (90, 5, 5))[0]
            CUTS.where = cut
            try:
                with house.rules(f"writer-{number}") as ctx:
                    done = rule(ctx)
            except refusals.Busy:
                # The caller cannot tell whether it happened; whoever cut the line can.
                hidden = hidden or cut == "after"
                continue
            except refusals.Refusal as refusal:
                CUTS.where = ""
                return type(refusal).__name__, None, hidden
            return "done", done, hidden

    def post(key: str, effect: Effect) -> tuple[str, int | None]:
        outcome, posting_id, _ = act(
            lambda ctx: coins.post(
                ctx, effect.who, effect.change, typ=8, reason="抽奖", key=key, remark=key
            )
        )
        if posting_id is not None:
            with book.lock:
                book.done.setdefault(key, effect)
                assert book.ids.setdefault(posting_id, key) == key
                if key not in book.keys:
                    book.order.append(posting_id)
                assert book.keys.setdefault(key, posting_id) == posting_id
        return outcome, posting_id

    for turn in range(count):
        kind = chance.choices(
            ("own", "shared", "repeat", "stolen", "overdraft", "reverse"), (40, 20, 15, 5, 5, 15)
        )[0]
        if kind == "own":
            mine.append(f"{number}:{turn}")
            effect = Effect(chance.choice(people), chance.randint(-3_000, 4_000) or 1)
            outcome, _ = post(mine[-1], effect)
            assert outcome in ("done", "CoinsShort"), outcome
        elif kind == "shared":
            shared = chance.randrange(count * 2)
            outcome, _ = post(f"shared:{shared}", shared_effect(seed, shared, people))
            assert outcome in ("done", "CoinsShort"), outcome
        elif kind == "overdraft":
            outcome, _ = post(f"{number}:{turn}", Effect(chance.choice(people), -coins.LARGEST))
            assert outcome == "CoinsShort", outcome
        elif kind in ("repeat", "stolen"):
            with book.lock:
                key = chance.choice(mine) if mine else ""
                known, first = book.done.get(key), book.keys.get(key)
            if known is None:
                # Its first attempt was refused.
                continue
            if kind == "repeat":
                outcome, again = post(key, known)
                assert (outcome, again) == ("done", first)
            else:
                outcome, _ = post(key, Effect(known.who, known.change + 9_000))
                assert outcome == "KeyReused", outcome
        else:
            with book.lock:
                posting_id = chance.choice(book.order) if book.order else 0
            if not posting_id:
                continue
            outcome, _, hidden = act(partial(coins.reverse, posting_id=posting_id, reason="更正"))
            assert outcome in ("done", "AlreadyReversed", "CoinsShort"), outcome
            if outcome == "done" or hidden:
                with book.lock:
                    assert posting_id not in book.reversed, f"{posting_id} was reversed twice"
                    book.reversed.add(posting_id)
        with book.lock:
            book.outcomes[f"{kind}: {outcome}"] += 1


def all_write(houses: list[House], seed: int, count: int) -> OwnBook:
    """Let all writers write, spread over the houses, which stand for nodes of one database."""
    people = [houses[0].person(number) for number in range(1, PEOPLE + 1)]
    book = OwnBook()
    with ThreadPoolExecutor(WRITERS) as threads:
        futures = [
            threads.submit(
                one_writer, houses[number % len(houses)], book, people, seed, number, count
            )
            for number in range(WRITERS)
        ]
        for future in futures:
            future.result()
    compare_books(houses[0], book, people)
    return book


def compare_books(house: House, book: OwnBook, people: list[int]) -> None:
    """The database's book against the writers' own, by queries that the rules do not use."""
    with house.rules() as ctx:
        assert coins.verify(ctx) == []
        assert audit.verify(ctx) == []
        assert ctx.tx.value(select(func.sum(entry.c.change))) == 0
        assert ctx.tx.value(select(func.sum(wallet.c.balance))) == 0
        mine = {
            row.account_id: row
            for row in ctx.tx.all(select(wallet).where(wallet.c.account_id.is_not(None)))
        }
        postings = {row.key: row for row in ctx.tx.all(select(posting))}
        entries = ctx.tx.all(select(entry).order_by(entry.c.wallet_id, entry.c.seq))
    assert {who: book.balance(who) for who in people} == {who: mine[who].balance for who in people}

    # Each effect once: every posting known to have happened has its two entries, no other has any.
    reversals = {f"reverse:{posting_id}" for posting_id in book.reversed}
    assert set(postings) == set(book.done) | reversals
    parts: dict[int, list[tuple[int, int]]] = {}
    for row in entries:
        parts.setdefault(row.posting_id, []).append((row.wallet_id, row.change))
    for key, effect in book.done.items():
        expected = [(coins.COUNTERPART, -effect.change), (mine[effect.who].id, effect.change)]
        assert sorted(parts.pop(postings[key].id)) == expected
    for posting_id in book.reversed:
        effect = book.done[book.ids[posting_id]]
        row = postings[f"reverse:{posting_id}"]
        assert row.reverses == posting_id
        expected = [(coins.COUNTERPART, effect.change), (mine[effect.who].id, -effect.change)]
        assert sorted(parts.pop(row.id)) == expected
    assert parts == {}

    # The chains: numbered without gaps, each line beginning where the last one ended.
    last: dict[int, tuple[int, int]] = {}
    for row in entries:
        seq, amount = last.get(row.wallet_id, (0, 0))
        assert (row.seq, row.before) == (seq + 1, amount)
        assert row.after == row.before + row.change
        last[row.wallet_id] = row.seq, row.after
    for who in people:
        me = house.client(house.token(who))
        page = me.gold_coin_increase_decrease_record(size=1)
        newest = page.gold_coin_record[0].after_amount if page.gold_coin_record else 0
        assert me.info().coin == newest == mine[who].balance / 100
        assert page.total == mine[who].entries


def test_sixteen_writers_leave_one_whole_book(
    build: Callable[..., House], cut_connections: None, kind: str
) -> None:
    """R6: 16 × 150 postings at two nodes; sum 0, chains whole, each effect once."""
    print(f"TEST_SEED={SEED}")
    book = all_write([build(threads=16), build(threads=16)], SEED, 150)
    print(sorted(book.outcomes.items()))
    # All that may go wrong has gone wrong, or the run would prove little.
    for outcome in ("own: CoinsShort", "stolen: KeyReused", "reverse: AlreadyReversed"):
        assert book.outcomes[outcome] > 0, book.outcomes


@pytest.mark.nightly
def test_sixteen_writers_write_all_night(
    build: Callable[..., House], cut_connections: None, kind: str
) -> None:
    """R6: the same with 16 × 10,000 postings."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"TEST_SEED={seed}")
    book = all_write([build(threads=16), build(threads=16)], seed, 10_000)
    print(sorted(book.outcomes.items()))


# ---------------------------------------------------------------- mutants: rules without a guard


def look_first_write_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the conditional UPDATE: the balance is read before the write lock is held."""
    post = coins.post
    seen = threading.local()

    def hasty_post(ctx: Context, account_id: int, change: int, **more: Any) -> int:
        seen.rows = {row.id: row for row in ctx.tx.all(select(wallet))}
        time.sleep(0.001)
        return post(ctx, account_id, change, **more)

    def move(ctx: Context, made: Any, wallet_id: int, change: int, typ: int, *words: str) -> None:
        row = seen.rows[wallet_id]
        balance, entries = row.balance + change, row.entries + 1
        if row.account_id is not None and balance < 0:
            raise refusals.CoinsShort()
        values = {
            "posting_id": made.id,
            "wallet_id": wallet_id,
            "seq": entries,
            "typ": typ,
            "before": row.balance,
            "change": change,
            "after": balance,
            "reason": words[0],
            "remark": words[1],
            "created_at": ctx.now,
        }
        ctx.tx.run(entry.insert().values(**values, hash=bytes(32)))
        ctx.tx.run(
            wallet.update()
            .where(wallet.c.id == wallet_id)
            .values(balance=balance, entries=entries, head=bytes(32))
        )

    monkeypatch.setattr(coins, "post", hasty_post)
    monkeypatch.setattr(coins, "_move", move)


def every_key_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away idempotency: a repeated key is a posting of its own."""
    claim, numbers = coins._claim, iter(range(10**9))

    def forgetful(ctx: Context, key: str, digest: bytes) -> tuple[int, bool]:
        return claim(ctx, f"{key}#{next(numbers)}", digest)

    monkeypatch.setattr(coins, "_claim", forgetful)


@pytest.mark.parametrize("mutate", [look_first_write_later, every_key_is_new])
def test_the_writers_find_a_missing_guard(
    build: Callable[..., House],
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """R6: the same writers fail where balances are read first, or keys are forgotten."""
    mutate(monkeypatch)
    # A lost update breaks the numbering as well, which the database itself refuses.
    with pytest.raises((AssertionError, IntegrityError)):
        all_write([build(threads=16)], SEED, 20)


# ---------------------------------------------------------------- reversals


def test_a_posting_is_reversed_once_and_a_reversal_never(house: House) -> None:
    """A correction is a posting of its own, made once; what was spent cannot be taken back."""
    who = house.person()
    with house.rules() as ctx:
        earned = coins.post(ctx, who, 500, typ=9, reason="邀请用户", key="earned")
        spent = coins.post(ctx, who, -300, typ=6, reason="兑换", key="spent")
    with pytest.raises(refusals.CoinsShort), house.rules() as ctx:
        coins.reverse(ctx, earned, "更正")
    with house.rules() as ctx:
        back = coins.reverse(ctx, spent, "退款")
    for again in (spent, back, 999_999):
        with pytest.raises(refusals.AlreadyReversed), house.rules() as ctx:
            coins.reverse(ctx, again, "更正")
    with house.rules() as ctx:
        coins.reverse(ctx, earned, "更正")
        assert coins.verify(ctx) == []
    book = house.client(house.token(who)).gold_coin_increase_decrease_record()
    lines = [(one.typ, one.change_amount, one.after_amount) for one in book.gold_coin_record]
    assert lines == [(1, -5, 0), (1, 3, 5), (6, -3, 2), (9, 5, 5)]
    assert book.gold_coin_record[1].remark == f"#{spent}"


def two_at_once(house: House, rounds: int) -> list[int]:
    """Reverse each of so many postings twice at once; how often each succeeded."""
    who = house.person()
    with house.rules() as ctx:
        # So much that a second reversal would not fail for want of coins.
        coins.post(ctx, who, 10_000, typ=8, reason="抽奖", key="plenty")
        ids = [
            coins.post(ctx, who, 100, typ=8, reason="抽奖", key=f"round:{number}")
            for number in range(rounds)
        ]
    start = threading.Barrier(2)

    def reverse(posting_id: int) -> int:
        start.wait(10)
        try:
            with house.rules() as ctx:
                coins.reverse(ctx, posting_id, "更正")
        except refusals.AlreadyReversed:
            return 0
        return 1

    with ThreadPoolExecutor(2) as threads:
        return [sum(threads.map(reverse, (posting_id, posting_id))) for posting_id in ids]


def test_of_two_reversals_at_once_one_wins(house: House) -> None:
    """R6: each effect once."""
    assert two_at_once(house, 25) == [1] * 25
    with house.rules() as ctx:
        assert coins.verify(ctx) == []


def test_two_reversals_at_once_need_their_guard(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R6: without the unique key, both find the posting not yet reversed, and both reverse it."""
    numbers = iter(range(10**9))

    def look_then_act(ctx: Context, posting_id: int, reason: str) -> int:
        done = ctx.tx.value(select(entry.c.id).where(entry.c.remark == f"#{posting_id}"))
        if done is not None:
            raise refusals.AlreadyReversed()
        time.sleep(0.02)
        who = ctx.tx.value(select(wallet.c.account_id).where(wallet.c.account_id.is_not(None)))
        key = f"careless:{next(numbers)}"
        remark = f"#{posting_id}"
        return coins.post(ctx, who, -100, typ=1, reason=reason, key=key, remark=remark)

    monkeypatch.setattr(coins, "reverse", look_then_act)
    assert max(two_at_once(house, 10)) == 2


# ---------------------------------------------------------------- keys


def same_key_at_once(house: House, racers: int) -> tuple[set[int], int]:
    """Post the same thing so many times at once; the ids that were told, and the balance."""
    who = house.person()
    start = threading.Barrier(racers)

    def post(_: int) -> int:
        start.wait(20)
        with house.rules() as ctx:
            return coins.post(ctx, who, 250, typ=7, reason="广告", key="advert:1")

    with ThreadPoolExecutor(racers) as threads:
        told = set(threads.map(post, range(racers)))
    with house.rules() as ctx:
        assert coins.verify(ctx) == []
        return told, coins.balance(ctx, who)


def test_a_key_is_one_posting_however_many_use_it(build: Callable[..., House]) -> None:
    """The idempotency key is unique: 32 at once make one posting and all learn its id."""
    house = build(threads=16)
    told, balance = same_key_at_once(house, 32)
    assert len(told) == 1
    assert balance == 250
    who = house.person(2)
    for body in ({"change": 251}, {"typ": 8}, {"reason": "其他"}, {"remark": "x"}, {}):
        values: dict[str, Any] = {"change": 250, "typ": 7, "reason": "广告", "key": "advert:1"}
        with pytest.raises(refusals.KeyReused), house.rules() as ctx:
            # The last one differs by whose it is.
            coins.post(ctx, who, **(values | body))


def test_a_key_needs_its_guard(
    build: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same race without the claim of the key pays several times."""
    every_key_is_new(monkeypatch)
    told, balance = same_key_at_once(build(threads=16), 8)
    assert len(told) == 8
    assert balance == 8 * 250


@pytest.mark.parametrize("amount", [0, coins.LARGEST + 1, -coins.LARGEST - 1, 2**63, -(2**63)])
def test_amounts_that_cannot_be_counted_are_refused(house: House, amount: int) -> None:
    """Amounts stay inside what a double shows to two decimals."""
    who = house.person()
    with pytest.raises(refusals.BadAmount), house.rules() as ctx:
        coins.post(ctx, who, amount, typ=8, reason="抽奖", key="k")
    with pytest.raises(refusals.UnknownUser), house.rules() as ctx:
        coins.post(ctx, 1, 100, typ=8, reason="抽奖", key="k")


# ---------------------------------------------------------------- what the database refuses


def a_lived_in_house(house: House) -> list[int]:
    """Some people with some coins and some history; returns their ids."""
    people = [house.person(number) for number in (1, 2, 3)]
    chance = random.Random(SEED)
    for turn in range(20):
        source = Source("192.0.2.7", "192.0.2.0/24")
        with operation(house.world, Actor("operator", "root"), source) as ctx:
            coins.post(
                ctx,
                chance.choice(people),
                chance.randint(1, 5_000),
                typ=chance.choice((2, 3, 8, 9)),
                reason=chance.choice(("抽奖金币", "tip", "邀请用户")),
                remark=chance.choice(("", "note")),
                key=f"turn:{turn}",
            )
    for who in people:
        house.token(who)
    return people


@contextmanager
def raw(house: House) -> Iterator[Connection]:
    """The database itself, past all rules."""
    engine = house.world.database.engine  # type: ignore[attr-defined]  # It is the real one.
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("table", ["posting", "entry", "audit"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET {column} = {column}",
        "UPDATE {table} SET {column} = {column} + 1",
        "DELETE FROM {table}",
        "DELETE FROM {table} WHERE {key} = (SELECT max({key}) FROM {table})",
    ],
)
def test_what_is_written_stays_written(house: House, table: str, statement: str) -> None:
    """A1: postings, entries and the audit are append-only, by triggers in the database."""
    a_lived_in_house(house)
    column = "at" if table == "audit" else "created_at"
    key = "seq" if table == "audit" else "id"
    count = text(f"SELECT count(*) FROM {table}")
    with raw(house) as connection:
        before = connection.scalar(count)
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement.format(table=table, column=column, key=key)))
        connection.rollback()
        assert connection.scalar(count) == before > 0
    with house.rules() as ctx:
        assert coins.verify(ctx) == audit.verify(ctx) == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("table", ["posting", "entry", "audit"])
def test_nothing_written_is_replaced(house: House, table: str) -> None:
    """A1: SQLite's third way to change a row is closed as well."""
    a_lived_in_house(house)
    column = "at" if table == "audit" else "created_at"
    with raw(house) as connection:
        connection.execute(text("PRAGMA foreign_keys = OFF"))
        names = [row.name for row in connection.execute(text(f"PRAGMA table_info({table})"))]
        new = ", ".join(f"{name} + 1" if name == column else f'"{name}"' for name in names)
        statement = text(f"INSERT OR REPLACE INTO {table} SELECT {new} FROM {table} LIMIT 1")
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(statement)
        connection.invalidate()


def test_the_database_itself_refuses_a_negative_balance(house: House) -> None:
    """No user's balance is negative, whatever is written and by whom."""
    people = a_lived_in_house(house)
    for statement in (
        f"UPDATE wallet SET balance = -1 WHERE account_id = {people[0]}",
        f"UPDATE wallet SET balance = balance - 100000000 WHERE account_id = {people[1]}",
        f"INSERT INTO wallet (account_id, balance, head) SELECT {people[0]}, -1, head FROM wallet",
        "INSERT INTO entry (posting_id, wallet_id, seq, typ, before, change, after, created_at,"
        " hash) SELECT posting_id, wallet_id, 9999, 8, 0, 100, 101, 0, hash FROM entry",
    ):
        with raw(house) as connection, pytest.raises(IntegrityError):
            connection.execute(text(statement))


# ---------------------------------------------------------------- somebody with a pen


@dataclass
class Pen:
    """Writes into append-only tables after taking every guard of the database away."""

    connection: Connection
    sqlite: bool
    chance: random.Random

    def run(self, statement: str, **values: Any) -> None:
        self.connection.execute(text(statement), values)

    def flip(self, table: Table, key: str, column: str) -> Callable[[], None] | None:
        """Flip one byte of a value of a random row. Returns what puts it back.

        None where the database cannot hold the outcome.
        """
        row = self.chance.choice(self.connection.execute(select(table)).all())._mapping
        old = row[column]
        new = self.flipped(old)
        if new is None:
            return None
        try:
            self.run(
                f"UPDATE {table.name} SET {column} = :new WHERE {key} = :key",
                new=new,
                key=row[key],
            )
        except IntegrityError:
            # Two rows with one key, which is found by itself.
            self.connection.rollback()
            return None
        where = new if key == column else row[key]
        back = f"UPDATE {table.name} SET {column} = :old WHERE {key} = :key"
        return lambda: self.run(back, old=old, key=where)

    def flipped(self, old: Any) -> Any:
        """The value with one byte changed; None where that leaves nothing of its type."""
        if old is None:
            return None
        if isinstance(old, int):
            data = bytearray(old.to_bytes(8, signed=True))
        else:
            data = bytearray(old.encode() if isinstance(old, str) else old)
        if not data:
            return None
        data[self.chance.randrange(len(data))] ^= self.chance.randrange(1, 256)
        if isinstance(old, int):
            return int.from_bytes(data, signed=True)
        if isinstance(old, bytes):
            return bytes(data)
        try:
            changed = data.decode()
        except UnicodeDecodeError:
            return None
        return None if "\0" in changed else changed


@pytest.fixture
def pen(house: House, kind: str) -> Iterator[Pen]:
    """A lived-in house, and a connection on which nothing guards the books."""
    a_lived_in_house(house)
    with raw(house) as connection:
        if kind == "sqlite":
            names = connection.scalars(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).all()
            for name in names:
                connection.execute(text(f"DROP TRIGGER {name}"))
            connection.execute(text("PRAGMA foreign_keys = OFF"))
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        else:
            # Neither triggers nor foreign keys are looked at by this connection any more.
            connection.execute(text("SET session_replication_role = replica"))
            connection.execute(text("ALTER TABLE entry DROP CONSTRAINT ck_entry_adds_up"))
        yield Pen(connection, kind == "sqlite", random.Random(f"{SEED}-{kind}"))
        if kind == "sqlite":
            connection.invalidate()


def flips(
    house: House,
    pen: Pen,
    table: Table,
    key: str,
    verify: Callable[[Context], list[str]],
    count: int,
    columns: tuple[str, ...] = (),
) -> list[str]:
    """Flip so many bytes, one at a time, in all columns by turns; returns what was not found."""
    missed = []
    names = columns or tuple(column.name for column in table.columns)
    for turn in range(count):
        column = names[turn % len(names)]
        back = next(filter(None, (pen.flip(table, key, column) for _ in range(1000))))
        with house.rules() as ctx:
            if not verify(ctx):
                missed.append(f"{table.name}.{column}")
        back()
    with house.rules() as ctx:
        assert verify(ctx) == [], "the pen did not put everything back"
    return missed


def test_one_flipped_byte_of_the_audit_is_found(house: House, pen: Pen) -> None:
    """A1: 300 of 300, in every column."""
    print(f"TEST_SEED={SEED}")
    assert flips(house, pen, audit_table, "seq", audit.verify, 300) == []


#: The database's own key, which nobody is ever shown.
UNCOVERED = ("id",)


def test_one_flipped_byte_of_an_entry_is_found(house: House, pen: Pen) -> None:
    """`hupan coins verify` finds one flipped byte of any value of an entry."""
    print(f"TEST_SEED={SEED}")
    columns = tuple(column.name for column in entry.columns if column.name not in UNCOVERED)
    assert flips(house, pen, entry, "id", coins.verify, 150, columns) == []


@pytest.mark.parametrize("column", ["key", "digest", "reverses", "created_at"])
def test_one_flipped_byte_of_a_posting_is_found(house: House, pen: Pen, column: str) -> None:
    """What keeps a posting from being made or undone twice is part of the book."""
    with house.rules() as ctx:
        coins.reverse(ctx, 1, "更正")
    assert flips(house, pen, posting, "id", coins.verify, 20, (column,)) == []


def test_a_wallet_that_changed_hands_is_found(house: House, pen: Pen) -> None:
    """Whose coins they are is as true as how many they are."""
    pen.run("UPDATE wallet SET account_id = account_id + 100000 WHERE account_id IS NOT NULL")
    pen.run(
        "UPDATE wallet SET account_id = (SELECT max(account_id) + min(account_id) FROM wallet)"
        " - account_id - 100000 WHERE account_id IS NOT NULL"
    )
    with house.rules() as ctx:
        assert coins.verify(ctx)


def test_one_flipped_byte_where_a_chain_ends_is_found(house: House, pen: Pen) -> None:
    """What says where a chain ends is part of it."""
    columns = ("seq", "hash")
    assert flips(house, pen, audit_head, "id", audit.verify, 30, columns) == []
    assert flips(house, pen, wallet, "id", coins.verify, 30, ("balance", "entries", "head")) == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("book", ["audit", "entry"])
def test_a_byte_that_makes_text_unreadable_is_found(house: House, pen: Pen, book: str) -> None:
    """A1: half of all flips leave no UTF-8, which only SQLite holds: found, not "busy"."""
    column = "detail" if book == "audit" else "reason"
    pen.run(f"UPDATE {book} SET {column} = CAST(x'e6b9ff' AS TEXT) WHERE {column} <> ''")
    with house.rules() as ctx:
        assert audit.verify(ctx) if book == "audit" else coins.verify(ctx)


def test_rows_that_go_or_trade_places_are_found(house: House, pen: Pen) -> None:
    """A1: a row that is removed, two rows that are swapped, a tail that is cut off."""
    for table, key, verify, chain in (
        (audit_table, "seq", audit.verify, true()),
        (entry, "id", coins.verify, entry.c.wallet_id == coins.COUNTERPART),
    ):

        def found(
            what: str, table: Table = table, verify: Callable[[Context], list[str]] = verify
        ) -> None:
            with house.rules() as ctx:
                assert verify(ctx), f"{table.name}: {what}, and nobody noticed"

        rows = pen.connection.execute(select(table).where(chain).order_by(table.c[key])).all()
        middle = len(rows) // 2
        for what, gone in (
            ("the first row is gone", rows[:1]),
            ("a row is gone", [rows[middle]]),
            ("the last row is gone", rows[-1:]),
            ("the tail is cut off", rows[-5:]),
            ("everything is gone", rows),
        ):
            for row in gone:
                pen.run(f"DELETE FROM {table.name} WHERE {key} = :key", key=row._mapping[key])
            found(what)
            for row in gone:
                pen.connection.execute(table.insert().values(**row._mapping))
        for one, other in ((0, 1), (middle, middle + 1), (0, -1)):
            for target, source in ((one, other), (other, one)):
                kept = {name: rows[target]._mapping[name] for name in {key, "seq"}}
                pen.connection.execute(
                    table.update()
                    .where(table.c[key] == kept[key])
                    .values(**(dict(rows[source]._mapping) | kept))
                )
            found(f"rows {one} and {other} were swapped")
            for place in (one, other):
                old = rows[place]._mapping
                pen.connection.execute(table.update().where(table.c[key] == old[key]).values(**old))
        with house.rules() as ctx:
            assert verify(ctx) == [], "the pen did not put everything back"


# ---------------------------------------------------------------- pages


def grow(house: House, who: int, count: int, name: str) -> None:
    with house.rules() as ctx:
        for number in range(count):
            coins.post(ctx, who, 100 + number, typ=8, reason="抽奖", key=f"{name}:{who}:{number}")


def read_while_it_grows(house: House, me: Client, who: int, size: int) -> tuple[list[int], int]:
    """All pages from the first to the empty one, with postings before each further page."""
    elsewhere = house.client(house.token(who))
    first = me.gold_coin_increase_decrease_record(page=1, size=size)
    total, ids = first.total, [one.id for one in first.gold_coin_record]
    for number in range(2, 100):
        grow(house, who, number % 4, f"between-{size}-{number}")
        # One's own reading elsewhere moves nothing either.
        elsewhere.gold_coin_increase_decrease_record(page=1, size=3)
        page = me.gold_coin_increase_decrease_record(page=number, size=size)
        assert page.total == total, "the total moved while pages were read"
        if not page.gold_coin_record:
            break
        ids += [one.id for one in page.gold_coin_record]
    return ids, total


@pytest.mark.parametrize("size", [1, 7, 20])
def test_pages_stand_still_while_postings_arrive(house: House, size: int) -> None:
    """Page 1, then postings, then the further pages: no record twice, none left out."""
    who, other = house.person(1), house.person(2)
    grow(house, who, 21, "before")
    grow(house, other, 5, "before")
    me = house.client(house.token(who))
    with house.rules() as ctx:
        mine = select(wallet.c.id).where(wallet.c.account_id == who).scalar_subquery()
        there = [
            row.posting_id
            for row in ctx.tx.all(
                select(entry.c.posting_id)
                .where(entry.c.wallet_id == mine)
                .order_by(entry.c.seq.desc())
            )
        ]
    ids, total = read_while_it_grows(house, me, who, size)
    assert ids == there
    assert total == 21
    # The next first page shows what came meanwhile, and counts it.
    now = me.gold_coin_increase_decrease_record(page=1, size=100)
    assert now.total == len(now.gold_coin_record) > 21
    assert [one.id for one in now.gold_coin_record[-21:]] == there
    assert now.gold_coin_record[0].after_amount == me.info().coin


def test_pages_need_their_anchor(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that count from what is newest now repeat records when postings arrive."""
    page = coins.page

    def unanchored(ctx: Context, who: Any, number: int, size: int) -> Any:
        return page(ctx, who._replace(coin_anchor=0), number, size)

    monkeypatch.setattr(coins, "page", unanchored)
    who = house.person(1)
    grow(house, who, 21, "before")
    with pytest.raises(AssertionError, match="total moved"):
        read_while_it_grows(house, house.client(house.token(who)), who, 7)


def test_pages_in_the_middle_of_a_storm(build: Callable[..., House]) -> None:
    """The same, with writers that do not wait for the reader."""
    house = build(threads=16)
    who = house.person(1)
    grow(house, who, 40, "before")
    stop = threading.Event()

    def storm(number: int) -> int:
        posted = 0
        while not stop.is_set():
            grow(house, who, 1, f"storm-{number}-{posted}")
            posted += 1
        return posted

    with ThreadPoolExecutor(3) as threads:
        storms = [threads.submit(storm, number) for number in range(3)]
        try:
            me = house.client(house.token(who))
            for _ in range(3):
                first = me.gold_coin_increase_decrease_record(page=1, size=9)
                lines = list(first.gold_coin_record)
                for number in range(2, 2 + first.total // 9 + 1):
                    page = me.gold_coin_increase_decrease_record(page=number, size=9)
                    assert page.total == first.total
                    lines += page.gold_coin_record
                assert len(lines) == len({one.id for one in lines}) == first.total
                # Each line ends where the next newer one begins.
                for newer, older in itertools.pairwise(lines):
                    assert round(newer.before_amount * 100) == round(older.after_amount * 100)
                assert lines[-1].before_amount == 0
        finally:
            stop.set()
        assert sum(one.result() for one in storms) > 0
