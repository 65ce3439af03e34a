"""Kept answers are never older than the database, and writers that share a commit share no fate."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from hupan.accounts import coins, devices, medals, people, profile, sessions
from hupan.accounts.context import Context
from hupan.accounts.operation import operation
from hupan.accounts.refusals import Busy
from hupan.accounts.tables import account
from hupan.outside import database as outside
from hupan.outside.database import EVERYBODY, SqlDatabase
from hupan.protocol import Host
from hupan.server import memory as memory_room
from hupan.server.app import App
from hupan.server.door import MOST_TOGETHER, Ask, Door
from hupan.server.face import Face
from hupan.server.memory import Memory
from tests.house import DAY, NOON, House

INFO, GET_USER = "/v1/user/info", "/v1/user/get-user"
FRIEND = 2


@dataclass
class Exchange:
    """What a face is given to answer by; the body is `sent`."""

    sent: bytes
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    async def __call__(self) -> bytes:
        return self.sent

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, headers


class Wire:
    """Calls a face as granian does, each call in a turn of its own."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.face = Face(house.hosts.api)
        self.runner = asyncio.Runner()
        # The same rows and rules, without anything kept.
        plain = Door(house.world, Host.API, house.hosts.lanes)
        self.plain = Face(App(plain, house.hosts.api.other))

    def ask(self, face: Face, path: str, token: str, body: bytes = b"", **headers: str) -> bytes:
        exchange = Exchange(body)
        self.runner.run(called(face, path, token, exchange, **headers))
        assert exchange.status == 200
        return exchange.body

    def both(self, token: str, about: int) -> tuple[bytes, bytes]:
        """What one is told of oneself and of somebody, by the face that keeps; agreed by the
        one that does not.
        """
        told = []
        for path, body in ((INFO, b""), (GET_USER, person(about))):
            kept = unnumbered(self.ask(self.face, path, token, body))
            fresh = unnumbered(self.ask(self.plain, path, token, body))
            assert kept == fresh, f"{path} tells what is no longer so"
            told.append(kept)
        return told[0], told[1]

    def quiet(self, token: str, about: int) -> bool:
        """Whether both are answered without a statement."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.house.world.database, "compiled", defaultdict(unwanted))
            try:
                self.ask(self.face, INFO, token)
                self.ask(self.face, GET_USER, token, person(about))
            except AssertionError:
                return False
        return True


def called(
    face: Face, path: str, token: str, exchange: Exchange, **headers: str
) -> Coroutine[Any, Any, None]:
    """A call of a face, as granian makes it."""
    body = exchange.sent
    scope = SimpleNamespace(
        proto="http", method="POST" if body else "GET", path=path, query_string="", scheme="http",
        client="127.0.0.1:5000",
        headers={"token": token, "content-length": str(len(body)), **headers},
    )  # fmt: skip
    return face.__rsgi__(cast(Any, scope), cast(Any, exchange))


def unwanted(*_: Any) -> Any:
    raise AssertionError("a statement was run")


def person(account_id: int) -> bytes:
    text_of = str(account_id).encode()
    return b"\x12" + bytes([len(text_of)]) + text_of


def unnumbered(answer: bytes) -> bytes:
    """An answer but for the number of its request, which stands behind the first two tags."""
    assert answer[0] == 0x0A
    place = 3
    while answer[place] & 128:
        place += 1
    return answer[:1] + answer[place + 1 :]


@pytest.fixture
def wire(house: House) -> Iterator[Wire]:
    made = Wire(house)
    yield made
    made.runner.close()


@dataclass
class Scene:
    """Two people, both VIPs with medals, coins and data; the first has a session to lose."""

    house: House
    me: int
    friend: int
    token: str

    def rules(self) -> Any:
        """Change something as another process would, on connections of its own."""
        return self.house.rules()


def lived_in(house: House) -> Scene:
    me, friend = house.person(1), house.person(2)
    with house.rules() as ctx:
        medals.define(ctx, "银杏", sort=1)
        for who in (me, friend):
            people.make_vip(ctx, who, NOON + 100 * DAY)
            medals.grant(ctx, who, "银杏")
            profile.save_data(
                ctx, who, introduction="在", gender=1, birthday=0, province="", city="",
                district="", location_code="",
            )  # fmt: skip
            coins.post(ctx, who, 500, typ=8, reason="抽奖", key=f"first-{who}")
    return Scene(house, me, friend, house.token(me))


def by_rule(rule: Callable[..., Any], *given: Any, of: str = "friend", **more: Any) -> Any:
    def change(scene: Scene) -> None:
        with scene.rules() as ctx:
            rule(ctx, getattr(scene, of), *given, **more)

    return change


def note_about_friend(scene: Scene) -> None:
    with scene.rules() as ctx:
        caller = sessions.admit(ctx, scene.token)
        assert caller is not None
        profile.save_remark(ctx, caller, str(scene.friend), "友", "", "")


def end_by(ending: Callable[[Context, Any], Any]) -> Any:
    def change(scene: Scene) -> None:
        with scene.rules() as ctx:
            ending(ctx, sessions.admit(ctx, scene.token))

    return change


def by_hand(statement: str) -> Any:
    """A change that no rule made: an operator with a pen."""

    def change(scene: Scene) -> None:
        with scene.rules() as ctx:
            ctx.tx.begin()
            ctx.tx.connection.execute(text(statement.format(**vars(scene))))

    return change


def later(seconds: int) -> Any:
    return lambda scene: scene.house.clock.advance(seconds)


DATA = {"introduction": "走了", "gender": 2, "birthday": 1, "province": "京", "city": "海",
        "district": "淀", "location_code": "1"}  # fmt: skip
#: A deletion touches all of them.
PERSONAL = "account session profile account_medal remark"
#: What changes → (how, the tables whose triggers tell of it; none where time alone does).
CHANGES: dict[str, tuple[Any, str]] = {
    "my name": (by_rule(profile.rename, "新名", of="me"), "account wallet"),
    "a friend's name": (by_rule(profile.rename, "新名"), "account wallet"),
    "a friend's picture": (by_rule(profile.set_avatar, "https://e.org/a.png"), "account wallet"),
    "my VIP": (by_rule(people.make_vip, 0, of="me"), "account"),
    "a friend's ban": (by_rule(people.ban, NOON + DAY), "account"),
    "my ban": (by_rule(people.ban, NOON + DAY, of="me"), "account"),
    "a name, by hand": (by_hand("UPDATE account SET name = '手' WHERE id = {friend}"), "account"),
    "my coins": (
        by_rule(coins.post, 250, of="me", typ=8, reason="抽奖", key="second"), "wallet",
    ),
    "a friend's data": (by_rule(profile.save_data, **DATA), "profile"),
    "a friend's medal": (by_rule(medals.take, "银杏"), "account_medal"),
    "every medal": (by_hand("UPDATE medal SET name = '枫叶'"), "medal"),
    "my note": (note_about_friend, "remark"),
    "logging out": (end_by(sessions.end), "session"),
    "a device that goes offline": (
        end_by(lambda ctx, who: devices.offline(ctx, who, "device")), "session",
    ),
    "every session": (by_rule(sessions.end_all, of="me"), "session"),
    "my deletion": (lambda scene: erase(scene.house, scene.me), PERSONAL),
    "a friend's deletion": (lambda scene: erase(scene.house, scene.friend), PERSONAL),
    "the end of a VIP": (later(100 * DAY), ""),
    "the last second of a VIP": (later(100 * DAY - 1), ""),
    "a midnight": (later(DAY // 2), ""),
    "five minutes": (later(300), ""),
    "a month": (later(31 * DAY), ""),
}  # fmt: skip


def erase(house: House, who: int) -> None:
    with house.rules() as ctx:
        people.erase(ctx, people.get(ctx, who))


def tell_it(wire: Wire, change: Any) -> None:
    """Keep both answers, change something, and compare with those of a door that keeps nothing."""
    scene = lived_in(wire.house)
    before = wire.both(scene.token, scene.friend)
    assert wire.both(scene.token, scene.friend) == before
    assert wire.quiet(scene.token, scene.friend), "nothing was kept"
    change(scene)
    wire.both(scene.token, scene.friend)
    wire.both(scene.token, scene.friend)


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_told_at_once(wire: Wire, name: str) -> None:
    """T5, I2: a kept answer equals a fresh one, after each change of what it is made of."""
    tell_it(wire, CHANGES[name][0])


@pytest.mark.parametrize("name", [name for name, (_, table) in CHANGES.items() if table])
def test_a_change_that_nobody_announces_is_not_seen(wire: Wire, kind: str, name: str) -> None:
    """The same on mutants: each change is missed without the triggers of its table."""
    change, tables = CHANGES[name]
    with wire.house.rules() as ctx:
        ctx.tx.begin()
        for table in tables.split():
            if kind == "postgresql":
                ctx.tx.connection.execute(text(f"DROP TRIGGER {table}_changed ON {table}"))
                continue
            pattern = f"{table}_changed_%"
            found = text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE :p")
            for trigger in ctx.tx.connection.scalars(found, {"p": pattern}).all():
                ctx.tx.connection.execute(text(f"DROP TRIGGER {trigger}"))
    if name == "my ban":
        # It ends the sessions as well, which their own triggers tell.
        tell_it(wire, change)
        return
    with pytest.raises(AssertionError, match="no longer so"):
        tell_it(wire, change)


def test_a_moment_that_is_not_minded_is_not_seen(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on a mutant whose answers do not end by themselves."""
    monkeypatch.setattr(Context, "ahead", lambda ctx, moment: moment > ctx.now)
    with pytest.raises(AssertionError, match="no longer so"):
        tell_it(wire, CHANGES["the end of a VIP"][0])


# ---------------------------------------------------------------- a change while an answer is made


def overtaken(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rename somebody after their answer was read and before it is kept."""
    scene = lived_in(wire.house)
    keep, once = Memory.keep, [True]

    def late(memory: Memory, *given: Any, **more: Any) -> None:
        if once and once.pop():
            with scene.rules() as ctx:
                profile.rename(ctx, scene.me, "途中")
        keep(memory, *given, **more)

    monkeypatch.setattr(Memory, "keep", late)
    wire.ask(wire.face, INFO, scene.token)
    wire.both(scene.token, scene.friend)


def test_an_answer_overtaken_by_a_change_is_stale_from_its_first_moment(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken(wire, monkeypatch)


def test_an_answer_stamped_when_it_is_kept_outlives_a_change(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on the mutant: the stamp is taken, and the news are read, after the making."""
    keep = Memory.keep

    def hasty(memory: Memory, *given: Any) -> None:
        memory._learn(memory.watch.news())
        keep(memory, *given[:-1], memory.news)

    monkeypatch.setattr(Memory, "keep", hasty)
    with pytest.raises(AssertionError, match="no longer so"):
        overtaken(wire, monkeypatch)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_requests_that_come_while_one_question_is_under_way_wait_for_the_next(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before a change says nothing of it to a request that comes after."""
    scene = lived_in(wire.house)
    wire.both(scene.token, scene.friend)
    memory = wire.face.door.memory
    assert memory is not None
    news, asked, let = memory.watch.news, threading.Event(), threading.Event()

    def slow() -> Any:
        found = news()
        if not asked.is_set():
            asked.set()
            let.wait(10)
        return found

    monkeypatch.setattr(memory.watch, "news", slow)

    async def meet() -> tuple[bytes, bytes]:
        def info() -> Any:
            exchange = Exchange(b"")
            return asyncio.ensure_future(called(wire.face, INFO, scene.token, exchange)), exchange

        first, early = info()
        await asyncio.to_thread(asked.wait, 10)
        with scene.rules() as ctx:
            profile.rename(ctx, scene.me, "之后")
        second, late = info()
        await asyncio.sleep(0.05)
        let.set()
        await asyncio.gather(first, second)
        return early.body, late.body

    early, late = wire.runner.run(meet())
    assert "之后".encode() in late
    assert "之后".encode() not in early


# ---------------------------------------------------------------- what is not kept yet


def at_once(wire: Wire, token: str, count: int) -> list[Exchange]:
    """Ask so often at the same moment."""
    exchanges = [Exchange(b"") for _ in range(count)]

    async def ask() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(called(wire.face, INFO, token, one) for one in exchanges))

    wire.runner.run(ask())
    return exchanges


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_came_together_is_read_together(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """In transactions of a length that lets others come to their turn on the event loop."""
    token, begun = wire.house.token(wire.house.person()), []
    reading = SqlDatabase.reading

    def counted(database: SqlDatabase) -> Any:
        begun.append(database)
        return reading(database)

    monkeypatch.setattr(SqlDatabase, "reading", counted)
    exchanges = at_once(wire, token, 130)
    assert len({unnumbered(one.body) for one in exchanges}) == 1
    assert len({one.body for one in exchanges}) == 130
    assert len(begun) == -(-130 // MOST_TOGETHER)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_reader_that_cannot_be_opened_leaves_nobody_waiting(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = wire.house.token(wire.house.person())
    right = unnumbered(wire.ask(wire.plain, INFO, token))

    def no_more(_: SqlDatabase) -> Any:
        raise OperationalError("PRAGMA", {}, sqlite3.OperationalError("unable to open"))

    with monkeypatch.context() as patch:
        patch.setattr(SqlDatabase, "keep", no_more)
        assert {unnumbered(one.body) for one in at_once(wire, token, 5)} == {right}
    assert {unnumbered(one.body) for one in at_once(wire, token, 5)} == {right}


def test_one_question_has_one_name(wire: Wire) -> None:
    """Fields that nobody knows make no further entry."""
    scene = lived_in(wire.house)
    memory = wire.face.door.memory
    assert memory is not None
    plain = person(scene.friend)
    right = unnumbered(wire.ask(wire.face, GET_USER, scene.token, plain))
    for number in range(20):
        odd = plain + bytes([0x28, number])
        assert unnumbered(wire.ask(wire.face, GET_USER, scene.token, odd)) == right
    assert list(memory.answers[GET_USER]) == [plain]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_database_that_cannot_be_asked_is_waited_for_once(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = lived_in(wire.house)
    asked = []

    def nothing_left(_: SqlDatabase) -> Any:
        asked.append(1)
        raise Busy(retry_after=1)

    monkeypatch.setattr(SqlDatabase, "transaction", nothing_left)
    answer = wire.ask(wire.face, GET_USER, scene.token, person(scene.friend))
    assert len(asked) == 1
    assert Busy(retry_after=1).text("zh").encode() in answer


def test_a_filler_is_no_name(wire: Wire) -> None:
    """A body where there are no parameters does not stand for the answer about somebody."""
    token = wire.house.token(wire.house.person())
    wire.ask(wire.face, INFO, token)
    assert wire.runner.run(wire.face.door.fresh(INFO, token, b"")) is not None
    assert wire.runner.run(wire.face.door.fresh(INFO, token, b"{}")) is None
    assert wire.runner.run(wire.face.door.fresh(INFO, token, b"x")) is None


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("where", ["BEGIN", "SELECT", "ROLLBACK"])
def test_a_reader_that_fails_leaves_nobody_waiting(wire: Wire, where: str) -> None:
    """The long way answers, and the next ones are read together again."""
    token = wire.house.token(wire.house.person())
    right = unnumbered(wire.ask(wire.plain, INFO, token))
    database = wire.house.world.database
    assert isinstance(database, SqlDatabase)
    with database.reading() as reader:
        cursor = cast(Any, reader).cursor

    class Failing:
        def execute(self, sql: str, *values: Any) -> Any:
            if sql.startswith(where):
                raise sqlite3.OperationalError("disk I/O error")
            return cursor.execute(sql, *values)

    cast(Any, reader).cursor = Failing()
    assert {unnumbered(one.body) for one in at_once(wire, token, 5)} == {right}
    cast(Any, reader).cursor = cursor
    memory = wire.face.door.memory
    assert memory is not None
    memory.answers[INFO].clear()
    assert {unnumbered(one.body) for one in at_once(wire, token, 5)} == {right}


# ---------------------------------------------------------------- when nothing can be known


def test_nothing_is_trusted_while_the_database_cannot_be_asked(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = lived_in(wire.house)
    wire.both(scene.token, scene.friend)
    memory = wire.face.door.memory
    assert memory is not None

    def deaf() -> Any:
        raise Busy(retry_after=1)

    news = memory.watch.news
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory.watch, "news", deaf)
        with scene.rules() as ctx:
            profile.rename(ctx, scene.me, "听不见")
        wire.both(scene.token, scene.friend)
        assert not wire.quiet(scene.token, scene.friend)
    assert memory.watch.news == news
    wire.both(scene.token, scene.friend)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_lost_connection_of_the_watch_is_made_anew(wire: Wire) -> None:
    scene = lived_in(wire.house)
    wire.both(scene.token, scene.friend)
    with scene.rules() as ctx:
        ctx.tx.begin()
        profile.rename(ctx, scene.me, "断线")
        ctx.tx.connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    wire.ask(wire.face, INFO, scene.token)
    wire.both(scene.token, scene.friend)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_transaction_that_began_early_and_ends_late_is_heard(house: House) -> None:
    """Its row has a smaller id than rows that were read long before it was there to be read."""
    assert isinstance(house.world.database, SqlDatabase)
    watch = house.world.database.watch()
    one, two = house.person(1), house.person(2)
    assert watch.news() == [EVERYBODY]
    assert watch.news() == []
    with house.rules() as early:
        people.make_vip(early, one, 1)
        with house.rules() as late:
            people.make_vip(late, two, 1)
        assert set(watch.news()) == {two}
        assert watch.news() == []
    assert set(watch.news()) == {one}
    assert watch.news() == []


def test_a_log_that_was_shortened_says_that_everybody_changed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "MOST_CHANGES", 3)
    assert isinstance(house.world.database, SqlDatabase)
    slow = house.world.database.watch()
    slow.news()
    who = house.person(1)
    for number in range(5):
        with house.rules() as ctx:
            profile.rename(ctx, who, f"名{number}")
    with house.rules() as ctx:
        ctx.tx.trim_changes()
    assert EVERYBODY in slow.news()
    assert slow.news() in ([], ())
    with house.rules() as ctx:
        ctx.tx.trim_changes()
    assert slow.news() in ([], ()), "a short log is left alone"


def test_what_is_kept_has_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_room, "MOST", 10)
    monkeypatch.setattr(memory_room, "MOST_CHANGED", 5)
    wire = Wire(house)
    memory = wire.face.door.memory
    assert memory is not None
    people_of = [house.person(number) for number in range(1, 16)]
    tokens = [house.token(who) for who in people_of]
    for token in tokens:
        wire.ask(wire.face, INFO, token)
    assert len(memory.tokens) <= 10
    assert len(memory.answers[INFO]) <= 10
    for who, token in zip(people_of, tokens, strict=True):
        wire.both(token, who)
        with house.rules() as ctx:
            profile.rename(ctx, who, "改")
        wire.both(token, who)
    assert len(memory.changed) <= 6
    wire.runner.close()


def test_pages_and_json_readers_are_not_given_what_is_kept_for_others(wire: Wire) -> None:
    scene = lived_in(wire.house)
    wire.both(scene.token, scene.friend)
    told = wire.ask(wire.face, INFO, scene.token, accept="application/json")
    assert told.startswith(b'{"code":1,"data":{"id":')
    exchange = Exchange(b"")
    scope = SimpleNamespace(
        method="GET", path=INFO, query_string="", client="127.0.0.1:1", scheme="http",
        headers={"token": scene.token, "origin": "https://page.example"},
    )  # fmt: skip
    wire.runner.run(wire.face.__rsgi__(cast(Any, scope), cast(Any, exchange)))
    assert ("access-control-allow-origin", "*") in exchange.headers


def test_what_was_asked_is_a_short_name_or_none(wire: Wire) -> None:
    """Unknown fields make endless ways to ask the same, of which none is kept."""
    scene = lived_in(wire.house)
    memory = wire.face.door.memory
    assert memory is not None
    for number in range(50):
        filler = b"\x7a\x40" + bytes([65 + number % 26]) * 64
        wire.ask(wire.face, GET_USER, scene.token, person(scene.friend) + filler)
    assert len(memory.answers[GET_USER]) <= 1


# ---------------------------------------------------------------- writers that share a commit


def rename_all(house: House, names: list[str]) -> list[bytes]:
    """Let so many people rename themselves at once; what each is told."""
    tokens = [house.token(house.person(number)) for number in range(1, len(names) + 1)]
    door = house.hosts.api.door

    async def at_once() -> list[Any]:
        calls = [
            door.handle(
                Ask("POST", "/v1/user/edit-nickname", "", {"token": token},
                    b"\x1a" + bytes([len(name.encode())]) + name.encode(), "127.0.0.1")
            )
            for token, name in zip(tokens, names, strict=True)
        ]  # fmt: skip
        return await asyncio.gather(*calls)

    return [reply.body for reply in asyncio.run(at_once())]


def names_of(house: House) -> list[str]:
    with house.rules() as ctx:
        return [row.name for row in ctx.tx.all(select(account.c.name).order_by(account.c.id))]


DONE = b"\x10\x01\x1a\x07success"


def test_one_refusal_of_a_group_does_not_touch_the_others(house: House) -> None:
    names = [f"名{number}" if number % 3 else "" for number in range(12)]
    told = rename_all(house, names)
    assert [one.endswith(DONE) for one in told] == [bool(name) for name in names]
    assert names_of(house) == [
        name or f"人{number}" for number, name in enumerate(names, 1)
    ]  # fmt: skip


def count_commits(house: House, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each commit of a group had."""
    sizes: list[int] = []
    group = outside._Group.commit
    member, members = outside._Member.commit, [0]

    def counted(tx: Any) -> None:
        members[0] += tx.begun
        member(tx)

    def committed(tx: Any) -> None:
        if tx.begun:
            sizes.append(members[0])
            members[0] = 0
        group(tx)

    monkeypatch.setattr(outside._Member, "commit", counted)
    monkeypatch.setattr(outside._Group, "commit", committed)
    return sizes


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_queued_up_goes_into_one_commit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_commits(house, monkeypatch)
    told = rename_all(house, [f"名{number}" for number in range(20)])
    assert all(one.endswith(DONE) for one in told)
    assert sum(sizes) == 20
    assert len(sizes) <= 3
    with house.rules() as ctx:
        assert coins.verify(ctx) == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_nobody_is_told_before_the_commit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the commit loses only what nobody was told of."""
    commit, told, seen = outside._Group.commit, [0], list[int]()

    def slow(tx: Any) -> None:
        if tx.begun:
            threading.Event().wait(0.05)
            seen.append(told[0])
        commit(tx)

    monkeypatch.setattr(outside._Group, "commit", slow)
    token = house.token(house.person(1))
    door = house.hosts.api.door

    async def one() -> None:
        ask = Ask("POST", "/v1/user/edit-nickname", "", {"token": token}, b"\x1a\x01a", "")
        reply = await door.handle(ask)
        assert reply.body.endswith(DONE)
        told[0] += 1

    asyncio.run(one())
    assert seen == [0]
    assert told == [1]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("when", ["commit", "member"])
def test_a_full_disk_is_told_to_all_of_a_group(
    house: House, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """SQLite gives the whole transaction up when the disk is full; nobody is told of a success."""
    full = type("Full", (Exception,), {"sqlite_errorcode": 13})()

    def broken(tx: Any) -> None:
        if tx.begun:
            tx.connection.exec_driver_sql("ROLLBACK")
            if when == "commit":
                tx._done()
            raise OperationalError("COMMIT", None, full)

    target = outside._Group if when == "commit" else outside._Member
    with monkeypatch.context() as patch:
        patch.setattr(target, "commit", broken)
        told = rename_all(house, [f"名{number}" for number in range(6)])
    assert not any(one.endswith(DONE) for one in told)
    assert all("服务器繁忙".encode() in one for one in told)
    assert names_of(house) == [f"人{number}" for number in range(1, 7)]
    with house.rules() as ctx:
        profile.rename(ctx, people.search(ctx)[0].id, "又能写了")


def test_letters_wake_the_post_after_the_commit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that is woken before would find nothing, and sleep."""
    database = house.world.database
    assert isinstance(database, SqlDatabase)
    rung: list[int] = []

    def wake() -> None:
        with suppress(Busy), operation(house.world) as ctx:
            rung.append(len(ctx.tx.all(select(account.c.id).where(account.c.name == "醒"))))

    monkeypatch.setitem(vars(house.world), "wake", wake)
    with database.together():
        who = house.person(1)
        with house.rules() as ctx:
            profile.rename(ctx, who, "醒")
            ctx.posted = True
        if database.is_sqlite:
            assert rung == []
    assert rung == [1]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_sqlite_rolled_back_by_itself_is_nobodys_success(house: House) -> None:
    """A failing disk undoes the whole group, also where only a reader met it."""
    database = house.world.database
    assert isinstance(database, SqlDatabase)
    who = [house.person(number) for number in (1, 2, 3)]

    def group() -> None:
        with database.together():
            with house.rules() as ctx:
                profile.rename(ctx, who[0], "前")
            with house.rules() as ctx:
                # What SQLite does on an error of the disk.
                ctx.tx.driver.execute("ROLLBACK")
            with suppress(Busy), house.rules() as ctx:
                profile.rename(ctx, who[2], "后")

    with pytest.raises(Busy):
        group()
    assert names_of(house) == ["人1", "人2", "人3"]
    with house.rules() as ctx:
        profile.rename(ctx, who[0], "好了")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_whoever_waited_too_long_for_the_writer_is_sent_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that holds the database does not make the queue longer and longer."""
    monkeypatch.setattr("hupan.server.door.PATIENCE", 0.2)
    monkeypatch.setattr("hupan.server.door.MOST_TOGETHER", 1)
    monkeypatch.setattr(outside, "PATIENCE", 0.2)
    database = house.world.database
    assert isinstance(database, SqlDatabase)
    assert database.turn is not None
    lanes = house.hosts.lanes

    async def many() -> list[Any]:
        works = [lanes.write(lambda: rename_one(house)) for _ in range(12)]
        return await asyncio.gather(*works, return_exceptions=True)

    who = house.person(1)

    def rename_one(house: House) -> None:
        with house.rules() as ctx:
            profile.rename(ctx, who, "等")

    started = time.monotonic()
    with database.turn:
        told = asyncio.run(many())
    assert all(isinstance(one, Busy) for one in told)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_connection_lost_in_a_transaction_is_busy_and_no_bug(house: House) -> None:
    who = house.person(1)
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def lose(write: Callable[[Context], Any]) -> None:
        with house.rules() as ctx:
            ctx.tx.begin()
            with house.rules() as other:
                other.tx.begin()
                other.tx.connection.execute(text(kill))
            write(ctx)

    for write in (
        lambda ctx: profile.rename(ctx, who, "断"),
        lambda ctx: ctx.tx.run(account.update().values(name="断")),
    ):
        with pytest.raises(Busy):
            lose(write)
        with house.rules() as ctx:
            profile.rename(ctx, who, "又好了")
