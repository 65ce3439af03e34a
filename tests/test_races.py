"""Races on three real server processes that share one database.

Each race is a function that plays once and raises `Broken` where a promise does not hold. It is
played on the real server, where it must hold, and on servers that lack one guard each (mutants),
where it must break: a race that holds everywhere would prove nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import httpx2
import psycopg
import pytest
from sqlalchemy import func, select, text, update

from hupan.accounts import (
    captchas,
    coins,
    contact,
    invites,
    login,
    passwords,
    people,
    sessions,
)
from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import Busy, Refusal, every_refusal
from hupan.accounts.tables import (
    account,
    audit,
    code,
    entry,
    known_device,
    module_ignore,
    notification,
    outbox,
    posting,
    profile,
    rate,
    remark,
    session,
    wallet,
)
from hupan.client import AsyncClient, Refused
from hupan.outside.database import SqlDatabase, SqlTransaction
from tests.conftest import KINDS
from tests.house import HandClock, House, free_ports, make_house, start_processes
from tests.mutants import race_coins, serve, take_part, taken_away

PASSWORD = "a lake at dusk 7"
#: Passwords cost nothing here, so that what races is what comes before and after them. Each
#: racer has an address of its own unless a test gives it one.
SETTINGS = {
    "argon2_memory_kib": 8,
    "argon2_time": 1,
    "limit_sources": True,
    "trusted_proxies": "127.0.0.1",
}


class Broken(AssertionError):
    """A promise did not hold."""


def promise(held: bool, otherwise: str) -> None:
    if not held:
        raise Broken(otherwise)


# ---------------------------------------------------------------- the site, and who races on it


class RealClock(HandClock):
    """The clock that the server processes have."""

    def now(self) -> int:
        return int(time.time())


class Line:
    """Kept connections of one racer; stands under the SDK in place of a whole HTTP client.

    It is opened before the race and costs a tenth of the processor time, so that the servers
    are busy with each other rather than waiting for the racers.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.open: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def dial(self, base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if base not in self.open:
            host, _, port = base.removeprefix("http://").partition(":")
            self.open[base] = await asyncio.open_connection(host, int(port))
        return self.open[base]

    async def request(
        self,
        *,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes = b"",
        params: dict[str, str] | None = None,
    ) -> httpx2.Response:
        at = url.index("/", len("http://"))
        path = url[at:] + ("?" + urlencode(params) if params else "")
        reader, writer = await self.dial(url[:at])
        given = {
            **headers,
            "host": "test",
            "x-forwarded-for": self.address,
            "content-length": str(len(content)),
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {said}" for name, said in given.items())]
        writer.write("\r\n".join((*lines, "", "")).encode() + content)
        status, *head = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in head)
        body = await reader.readexactly(int(named["content-length"]))
        asked = httpx2.Request(method, url)
        return httpx2.Response(int(status.split()[1]), headers=named, content=body, request=asked)

    async def close(self) -> None:
        for _, writer in self.open.values():
            writer.close()
            await writer.wait_closed()


_addresses = itertools.count(1)


@dataclass
class Site:
    """Server processes on one database, and that database from inside."""

    house: House
    places: list[tuple[str, str]]
    url: str
    folder: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @asynccontextmanager
    async def racers(
        self, count: int, tokens: Sequence[str] = ("",), address: str = ""
    ) -> AsyncIterator[list[AsyncClient]]:
        """Clients with open connections, dealt out to the processes in turn."""
        made, lines = [], []
        for number in range(count):
            place, web_place = self.places[number % len(self.places)]
            # An address in a network of its own, so that no limit of sources is in the way.
            own = next(_addresses)
            line = Line(address or f"10.{own >> 8 & 255}.{own & 255}.1")
            token = tokens[number // len(self.places) % len(tokens)]
            lines.append(line)
            http: Any = line
            made.append(AsyncClient(place, web_url=web_place, token=token, http=http))
            await line.dial(place)
        try:
            yield made
        finally:
            for line in lines:
                await line.close()

    def person(self, *, password: str = "") -> tuple[int, str, str]:
        """A new account: its id, phone and e-mail address."""
        number = next(self.numbers)
        made = self.house.person(number, password=password)
        return made, f"139{number:08d}", f"person{number}@example.org"

    def token(self, device: str = "device") -> str:
        """A token of a new account."""
        return self.house.token(self.person()[0], device)

    def phone(self) -> str:
        """A number that nobody has."""
        return f"137{next(self.numbers):08d}"

    def captcha(self) -> dict[str, str]:
        """A captcha and its solution, as the calls for codes take them."""
        with self.house.rules() as ctx:
            made = captchas.new(ctx)
        return {"id": made, "code": captchas.solution(self.house.world, made) or ""}

    def value(self, statement: Any) -> Any:
        """One value from the database."""
        with self.house.rules() as ctx:
            return ctx.tx.value(statement)

    def all(self, statement: Any) -> list[Any]:
        """The first column of all rows."""
        with self.house.rules() as ctx:
            return [row[0] for row in ctx.tx.all(statement)]


@contextmanager
def open_site(url: str, folder: Path) -> Iterator[Site]:
    """Start three processes of the real server."""
    # The same key here as in the processes, so that captchas and codes can be read here.
    (folder / "secret.key").write_text((b"k" * 32).hex())
    running = start_processes(url, folder, 3, **SETTINGS)
    house = make_house(url, folder, RealClock())
    try:
        yield Site(house, [(one.url, one.web_url) for one in running], url, folder)
    finally:
        for one in running:
            one.process.kill()
            one.process.wait()
        house.close()


#: Where mutants are born: a process that has imported everything already, and only forks.
NURSERY = multiprocessing.get_context("forkserver")
NURSERY.set_forkserver_preload(["tests.mutants", "hupan.server.run"])


@contextmanager
def open_mutants(url: str, folder: Path, count: int, mutant: str) -> Iterator[Site]:
    """Start server processes that lack a guard."""
    (folder / "secret.key").write_text((b"k" * 32).hex())
    places, running = [], []
    for _ in range(count):
        port, web_port = free_ports(2)
        settings = {
            "data_dir": folder,
            "database_url": url,
            "log_level": "warning",
            "deliver_sms": "file",
            "deliver_email": "file",
            "port": port,
            "web_port": web_port,
            **SETTINGS,
        }
        environment = {f"HUPAN_{name.upper()}": str(value) for name, value in settings.items()}
        running.append(NURSERY.Process(target=serve, args=(mutant, environment, folder)))
        places.append((f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}"))
    house = make_house(url, folder, RealClock())
    try:
        for one in running:
            one.start()
        for one, (place, _) in zip(running, places, strict=True):
            _await_ready(one, place)
        yield Site(house, places, url, folder)
    finally:
        for one in running:
            one.kill()
            one.join()
        house.close()


def _await_ready(one: BaseProcess, place: str) -> None:
    for _ in range(600):
        with suppress(OSError), urlopen(place + "/readyz"):
            return
        one.join(0.05)
        assert one.is_alive(), "a mutant did not start; see server.log"
    raise AssertionError("a mutant is not ready; see server.log")


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[Site]:
    """Three processes of the real server. Every race has people and numbers of its own."""
    folder = tmp_path_factory.mktemp("races")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in list(os.environ):
            if name.startswith("HUPAN_"):
                patch.delenv(name)
        if request.param == "sqlite":
            shutil.copyfile(sqlite_template, folder / "hupan.db")
            url = f"sqlite:///{folder / 'hupan.db'}"
        else:
            address = request.getfixturevalue("postgres")
            url = address.replace("/postgres?", "/races?")
            database = psycopg.connect(address, autocommit=True)
            stack.callback(database.close)
            database.execute("CREATE DATABASE races TEMPLATE template_hupan")
            stack.callback(database.execute, "DROP DATABASE races WITH (FORCE)")
        yield stack.enter_context(open_site(url, folder))


Without = Callable[..., Site]


@pytest.fixture
def without(database_url: str, tmp_path: Path) -> Iterator[Without]:
    """Start servers that lack a guard, on a database of their own.

    The threads of one process race each other already; `processes` are more where the guard is
    what stands between processes.
    """

    def start(mutant: str, processes: int = 1) -> Site:
        return stack.enter_context(open_mutants(database_url, tmp_path, processes, mutant))

    with ExitStack() as stack:
        yield start


def on(*kinds: str) -> pytest.MarkDecorator:
    """The databases on which a mutant is played; the one that shows the race is enough."""
    return pytest.mark.parametrize("kind", kinds, indirect=True)


# ---------------------------------------------------------------- what racers hear

_REFUSALS = {
    refusal.__name__: re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(refusal.zh)))
    for refusal in every_refusal()
}


def told(refused: Refused) -> str:
    """The name of the refusal whose words these are."""
    return next(name for name, words in _REFUSALS.items() if words.fullmatch(refused.msg))


async def hear(call: Awaitable[Any]) -> Any:
    """What a call answers, or the name of its refusal."""
    try:
        return await call
    except Refused as refused:
        return told(refused)


async def at_once(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Start all calls before any of them can be answered."""
    tasks = [asyncio.ensure_future(hear(call)) for call in calls]
    await asyncio.wait(tasks, timeout=100)
    return [task.result() for task in tasks]


def play(race: Callable[..., Any], *given: Any, times: int = 1) -> None:
    """Play a race so many times, or until it breaks."""
    for _ in range(times):
        played = race(*given)
        if played is not None:
            asyncio.run(played)


def tally(heard: Iterable[Any]) -> Counter[str]:
    """How often each refusal was heard, and how often the call was `done`."""
    return Counter(one if isinstance(one, str) else "done" for one in heard)


# ---------------------------------------------------------------- R1: one code


async def race_one_code(site: Site, old: bool = False) -> None:
    phone = site.person()[1] if old else site.phone()
    right = site.house.code_for(phone)
    async with site.racers(64) as racers:
        heard = tally(
            await at_once(
                one.verification_login(mobile=phone, captcha=right, device_id="d", platform="race")
                for one in racers
            )
        )
    promise(heard["done"] == 1, f"one code logged in {heard['done']} times")
    assert heard["WrongCode"] + heard["CodeClosed"] == 63, heard
    owners = site.all(select(account.c.id).where(account.c.phone == phone))
    assert len(owners) == 1
    opened = site.value(select(func.count()).where(session.c.account_id == owners[0]))
    assert opened == 1


def test_of_64_racers_one_redeems_the_code(site: Site) -> None:
    """R1, C3: 64 racers, 3 processes, several rounds: exactly one session."""
    play(race_one_code, site, False, times=2)
    play(race_one_code, site, True, times=2)


@on("postgresql")
def test_a_code_without_its_condition_is_redeemed_more_than_once(without: Without) -> None:
    """R1 on the mutant."""
    site = without("code_used_twice")
    with pytest.raises(Broken, match="one code logged in"):
        play(race_one_code, site, times=5)


# ---------------------------------------------------------------- R2: many guesses


async def race_wrong_guesses(site: Site, guesses: int = 500) -> None:
    phone = site.phone()
    right = site.house.code_for(phone)
    wrong = [f"{(int(right) + step) % 1_000_000:06d}" for step in range(1, guesses + 1)]
    async with site.racers(guesses) as racers:
        heard = tally(
            await at_once(
                one.verification_login(mobile=phone, captcha=guess)
                for one, guess in zip(racers, wrong, strict=True)
            )
        )
        last = await hear(racers[0].verification_login(mobile=phone, captcha=right))
    # Each word of "wrong" is one comparison whose result somebody learnt.
    promise(heard["WrongCode"] <= 5, f"compared {heard['WrongCode']} times")
    promise(last == "CodeClosed", f"the right code was answered {tally([last])}")
    number = site.value(select(code.c.id).where(code.c.destination == phone))
    assert heard == {"WrongCode": 5, "CodeClosed": guesses - 5}
    assert site.value(select(rate.c.taken).where(rate.c.key == f"try:{number}:")) == 5
    noted = select(func.count()).where(audit.c.action == "code-wrong")
    assert site.value(noted.where(audit.c.detail == f'{{"code":{number}}}')) == 5


def test_of_500_guesses_five_are_compared(site: Site) -> None:
    """R2, C4: compared at most 5 times; then the right code is refused too."""
    play(race_wrong_guesses, site)


@on("postgresql")
@pytest.mark.parametrize("mutant", ["tries_counted_after_comparing", "tries_given_back"])
def test_tries_counted_late_or_given_back_are_no_limit(without: Without, mutant: str) -> None:
    """R2 on the mutants."""
    site = without(mutant)
    with pytest.raises(Broken, match="compared"):
        play(race_wrong_guesses, site, 100, times=3)


# ---------------------------------------------------------------- R3: one contact, two takers


async def race_for_a_phone(site: Site) -> None:
    phone = site.phone()
    right = site.house.code_for(phone)
    async with (
        site.racers(2) as strangers,
        site.racers(2, [site.token()]) as one,
        site.racers(2, [site.token()]) as two,
    ):
        # Among racers are two processes or three: the takers are spread over them.
        heard = await at_once(
            [
                *(it.verification_login(mobile=phone, captcha=right) for it in strangers),
                one[0].bind_phone(phone=phone, captcha=right),
                two[1].change_phone(phone=phone, captcha=right),
            ]
        )
    _one_owner(site, account.c.phone == phone, tally(heard), "PhoneTaken")


async def race_for_an_address(site: Site) -> None:
    address = f"race{next(site.numbers)}@example.org"
    right = site.house.code_for(address)
    async with site.racers(2, [site.token()]) as one, site.racers(2, [site.token()]) as two:
        heard = await at_once(
            [
                one[0].bind_email(email=address, captcha=right),
                two[1].change_email(email=address, captcha=right),
            ]
        )
    _one_owner(site, account.c.email == address, tally(heard), "EmailTaken")


def _one_owner(site: Site, where: Any, heard: Counter[str], taken: str) -> None:
    owners = site.value(select(func.count()).where(where))
    promise(owners == 1, f"{owners} accounts hold one contact")
    assert heard["done"] >= 1
    # What the losers are told is one of two plain reasons, and nothing else.
    assert heard.keys() <= {"done", "WrongCode", taken}, heard


def test_one_contact_has_one_owner(site: Site) -> None:
    """R3: first logins and binds of one phone, binds of one address: one owner, clear answers."""
    play(race_for_a_phone, site, times=4)
    play(race_for_an_address, site, times=4)


@on("postgresql")
def test_uniqueness_in_the_table_is_the_last_guard_of_a_contact(without: Without) -> None:
    """R3 on the mutant: with every rule's guard gone the table still holds; without it, nothing."""
    site = without("contact_not_looked_up_again", 2)
    play(race_for_a_phone, site, times=3)
    play(race_for_an_address, site, times=3)
    with psycopg.connect(site.url, autocommit=True) as database:
        database.execute("ALTER TABLE account DROP CONSTRAINT uq_account_phone")
        database.execute("ALTER TABLE account DROP CONSTRAINT uq_account_email")
    for race in (race_for_a_phone, race_for_an_address):
        with pytest.raises(Broken, match="accounts hold one contact"):
            play(race, site, times=10)


# ---------------------------------------------------------------- R4, T5: the end of a session

CALLS: list[Callable[[AsyncClient], Awaitable[Any]]] = [
    lambda one: one.info(),
    lambda one: one.medal(),
    lambda one: one.web_info(),
    lambda one: one.recommend_category_list(),
    lambda one: one.clients(),
    lambda one: one.get_user_data(),
    lambda one: one.invite_progress(),
    lambda one: one.edit_nickname(name="在途"),
]
ENDINGS = ("logout", "device-offline", "ban", "reset", "deletion")


async def race_an_ending(site: Site, ending: str, calls: int = 1000) -> None:
    who, _, email = site.person()
    dying = [site.house.token(who, "dying") for _ in range(1 if ending == "logout" else 4)]
    other = site.house.token(who, "other")
    right = site.house.code_for(email) if ending in ("reset", "deletion") else ""
    heard: list[tuple[float, Any]] = []
    warm, acknowledged = asyncio.Event(), float("inf")

    async def keep_calling(one: AsyncClient, turn: int) -> None:
        late = 0
        while late < 6 or len(heard) < calls:
            started = time.perf_counter()
            late += started >= acknowledged
            heard.append((started, await hear(CALLS[turn % len(CALLS)](one))))
            turn += 1
            if len(heard) >= calls * 2 // 5:
                warm.set()

    def ban() -> float:
        with site.house.rules() as ctx:
            people.ban(ctx, who, people.FOREVER)
        return time.perf_counter()

    async with (
        site.racers(24, dying) as racers,
        site.racers(1, [dying[0]]) as (doomed,),
        site.racers(1, [other]) as (elsewhere,),
        asyncio.timeout(100),
        asyncio.TaskGroup() as group,
    ):
        for turn, one in enumerate(racers):
            group.create_task(keep_calling(one, turn))
        await warm.wait()
        if ending == "logout":
            await doomed.logout()
        elif ending == "device-offline":
            await elsewhere.device_offline(device_id="dying")
        elif ending == "ban":
            acknowledged = await asyncio.to_thread(ban)
        elif ending == "reset":
            await elsewhere.forget_password(email=email, captcha=right, password=PASSWORD)
        elif ending == "deletion":
            await elsewhere.cancel_user(email=email, captcha=right)
        acknowledged = min(acknowledged, time.perf_counter())
    async with site.racers(1, [other]) as (elsewhere,):
        still = await hear(elsewhere.info())
    before = tally(what for started, what in heard if started < acknowledged)
    after = tally(what for started, what in heard if started >= acknowledged)
    print(ending, "before:", dict(before), "after:", dict(after))
    assert before["done"] >= calls * 2 // 5
    promise(after["done"] == 0, f"{after['done']} calls that began after the {ending} succeeded")
    assert after.keys() == {"NotLoggedIn"}, after
    lives_on = ending in ("logout", "device-offline")
    assert (still == "NotLoggedIn") is not lives_on


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_call_that_began_after_the_ending_succeeds(site: Site, ending: str) -> None:
    """R4, T5: 1,000 calls on 3 processes race the end of their sessions."""
    play(race_an_ending, site, ending)


@on("sqlite")
def test_a_process_that_remembers_sessions_serves_the_dead(without: Without) -> None:
    """R4 on the mutant: each ending breaks where a process hears only of its own."""
    site = without("sessions_of_one_process", 2)
    for ending in ENDINGS:
        with pytest.raises(Broken, match=f"began after the {ending} succeeded"):
            play(race_an_ending, site, ending, 200)


@on("sqlite", "postgresql")
def test_a_process_that_asks_for_no_news_serves_the_dead(without: Without) -> None:
    """R4 on the mutant: what is kept outlives its session where nobody asks what changed."""
    site = without("news_unheard", 2)
    for ending in ("logout", "ban"):
        with pytest.raises(Broken, match=f"began after the {ending} succeeded"):
            play(race_an_ending, site, ending, 200)


async def race_renames(site: Site, times: int = 100) -> None:
    """One process renames; all others are asked who that is as soon as it has answered."""
    who, _, _ = site.person()
    token, friend = site.house.token(who), site.house.token(site.person()[0])
    stale = 0
    async with (
        site.racers(1, [token]) as (writer,),
        site.racers(6, [token]) as mine,
        site.racers(6, [friend]) as friends,
    ):
        for turn in range(times):
            await writer.edit_nickname(name=f"名{turn}")
            told = await asyncio.gather(
                *(one.info() for one in mine), *(one.get_user(id=str(who)) for one in friends)
            )
            stale += sum(one.name != f"名{turn}" for one in told)
    promise(stale == 0, f"{stale} of {times * 12} answers were older than the last rename")


def test_no_answer_is_older_than_what_was_acknowledged(site: Site) -> None:
    """R4: what one process has acknowledged, no other one forgets."""
    play(race_renames, site)


@on("sqlite", "postgresql")
def test_a_process_that_asks_for_no_news_tells_old_names(without: Without) -> None:
    """R4 on the mutant."""
    with pytest.raises(Broken, match="older than the last rename"):
        play(race_renames, without("news_unheard", 2), 20)


async def race_a_reset(site: Site) -> None:
    """Logins with the old password are being compared while the password changes."""
    who, _, email = site.person(password="the old one 5")
    right = site.house.code_for(email)
    async with site.racers(16) as racers:
        owner, elsewhere = racers[0], racers[1::2]
        # The first password that a process is asked to judge waits for its lists to be read.
        nobody = owner.forget_password(email="nobody@example.org", captcha="0", password=PASSWORD)
        assert await hear(nobody) == "WrongCode"
        changed, *heard = await at_once(
            [
                owner.forget_password(email=email, captcha=right, password=PASSWORD),
                *(
                    one.email_login(email=email, password="the old one 5", device_id=f"d{number}")
                    for number, one in enumerate(elsewhere)
                ),
            ]
        )
        assert not isinstance(changed, str), changed
        for answer in heard:
            if not isinstance(answer, str):
                owner.token = answer.token
                alive = await hear(owner.info())
                promise(alive == "NotLoggedIn", "the old password opened a session that lives")
    # Those that come after the reset are wrong, and too many wrong ones have to wait.
    assert tally(heard).keys() <= {"done", "WrongPassword", "TooManyTries"}
    assert site.value(select(func.count()).where(session.c.account_id == who)) == 0


@on("sqlite", "postgresql")
def test_a_reset_ends_logins_that_are_being_compared(without: Without) -> None:
    """P6, T5: a session opened with the old password does not outlive the reset.

    The mutant lacks no guard: it only holds the moment open in which a reset can come between.
    """
    site = without("slow_comparing", 2)
    play(race_a_reset, site)


@on("sqlite")
def test_a_password_compared_once_outlives_its_reset(without: Without) -> None:
    """T5 on the mutant."""
    site = without("password_compared_once", 2)
    with pytest.raises(Broken, match="opened a session that lives"):
        play(race_a_reset, site, times=3)


# ---------------------------------------------------------------- C9, C11: captchas and limits


async def race_a_captcha(site: Site) -> None:
    puzzle = site.captcha()
    phones = [site.phone() for _ in range(64)]
    async with site.racers(64) as racers:
        heard = tally(
            await at_once(
                one.get_verification_code(mobile=phone, **puzzle)
                for one, phone in zip(racers, phones, strict=True)
            )
        )
    promise(heard["done"] == 1, f"one captcha served {heard['done']} times")
    assert heard["WrongCaptcha"] == 63
    assert _sent(site, phones) == 1


def _sent(site: Site, phones: list[str]) -> int:
    where = outbox.c.destination.in_(phones)
    return int(site.value(select(func.count()).where(where)))


def test_a_captcha_serves_one_of_64(site: Site) -> None:
    """C9: a replayed captcha sends nothing."""
    play(race_a_captcha, site)


@on("sqlite")
def test_a_captcha_without_its_mark_serves_many(without: Without) -> None:
    """C9 on the mutant."""
    site = without("captcha_spent_twice")
    with pytest.raises(Broken, match="one captcha served"):
        play(race_a_captcha, site)


async def race_sends(site: Site, what: str, count: int = 200) -> None:
    """So many sends at once to one destination, from one address, or from one network."""
    own = next(_addresses)
    network = f"11.{own >> 8 & 255}.{own & 255}"
    alike = [site.phone()] * count
    phones = alike if what == "destination" else [site.phone() for _ in alike]
    most, refusal = {
        "destination": (1, "SentTooOften"),
        "address": (5, "TooManyRequests"),
        "network": (20, "TooManyRequests"),
    }[what]
    puzzles = [site.captcha() for _ in phones]
    async with site.racers(count, address=f"{network}.1") as racers:
        if what == "network":
            for number, one in enumerate(racers):
                one.http.address = f"{network}.{number + 1}"  # type: ignore[attr-defined]
        heard = tally(
            await at_once(
                one.get_verification_code(mobile=phone, **puzzle)
                for one, phone, puzzle in zip(racers, phones, puzzles, strict=True)
            )
        )
    promise(heard["done"] == most, f"{heard['done']} instead of {most} sends by one {what}")
    assert heard[refusal] == count - most, heard
    assert _sent(site, phones) == most
    # A send that one limit refuses is not counted against the others.
    days = rate.c.key.in_([f"send-day:{phone}" for phone in phones])
    assert site.value(select(func.sum(rate.c.taken)).where(days)) == most


@pytest.mark.parametrize("what", ["destination", "address", "network"])
def test_200_sends_at_once_overshoot_no_limit(site: Site, what: str) -> None:
    """C6, C7, C11: 0 overshoot at 200 parallel requests on 3 nodes."""
    play(race_sends, site, what)


@on("postgresql")
def test_limits_read_and_then_written_overshoot(without: Without) -> None:
    """C11 on the mutant. SQLite has one writer at a time, which hides it there."""
    site = without("rate_read_then_written")
    for what in ("destination", "address", "network"):
        with pytest.raises(Broken, match="instead of"):
            play(race_sends, site, what, 60, times=3)


# ---------------------------------------------------------------- C12: the owner and the strangers


async def race_right_passwords(site: Site, older: bool = False) -> None:
    who, _, email = site.person(password=PASSWORD)
    if older:
        from argon2 import PasswordHasher

        weak = PasswordHasher(memory_cost=16, time_cost=1, parallelism=1).hash(PASSWORD)
        with site.house.rules() as ctx:
            ctx.tx.run(update(account).where(account.c.id == who).values(password_hash=weak))
    async with site.racers(16) as racers:
        heard = tally(
            await at_once(
                one.email_login(email=email, password=PASSWORD, device_id=f"d{number}")
                for number, one in enumerate(racers)
            )
        )
    promise(heard["done"] == 16, f"{dict(heard)} of 16 right passwords")


def test_16_right_passwords_at_once_all_log_in(site: Site) -> None:
    """C12: 16 of 16."""
    play(race_right_passwords, site, times=3)


@on("sqlite", "postgresql")
def test_right_passwords_all_log_in_while_their_hash_is_renewed(without: Without) -> None:
    """C12, P1: the first good login renews the hash; the others were right all the same.

    The mutant lacks no guard: it only holds the moment between comparing and renewing open.
    """
    site = without("slow_comparing", 2)
    play(race_right_passwords, site, True)


@on("sqlite")
def test_right_passwords_that_count_as_failures_crowd_each_other_out(without: Without) -> None:
    """C12 on the mutant."""
    site = without("every_login_is_a_failure")
    with pytest.raises(Broken, match="of 16 right passwords"):
        play(race_right_passwords, site, times=5)


async def race_strangers_and_the_owner(site: Site) -> None:
    who, phone, email = site.person(password=PASSWORD)
    site.house.token(who, "mine")
    right = site.house.code_for(phone)
    wrong = f"{(int(right) + 1) % 1_000_000:06d}"
    async with site.racers(30) as strangers, site.racers(1) as (owner,):
        for _ in range(2):
            await at_once(
                it.email_login(email=email, password="guess", device_id=f"not mine {number}")
                for number, it in enumerate(strangers)
            )
        await at_once(
            it.verification_login(mobile=phone, captcha=wrong, device_id="not mine")
            for it in strangers
        )
        # The limit is there for strangers, even with what is right.
        stranger = strangers[0]
        assert await hear(stranger.email_login(email=email, password=PASSWORD)) == "TooManyTries"
        assert await hear(stranger.verification_login(mobile=phone, captcha=right)) == "CodeClosed"
        heard = await hear(owner.email_login(email=email, password=PASSWORD, device_id="mine"))
        promise(not isinstance(heard, str), f"the owner's device heard {heard}")
        heard = await hear(owner.verification_login(mobile=phone, captcha=right, device_id="mine"))
        promise(not isinstance(heard, str), f"the owner's device heard {heard}")


def test_strangers_do_not_lock_the_owner_out(site: Site) -> None:
    """C12: 30 strangers fail; the device that the owner has used logs in, either way."""
    play(race_strangers_and_the_owner, site)


@on("sqlite")
def test_one_budget_for_all_locks_the_owner_out(without: Without) -> None:
    """C12 on the mutant."""
    site = without("one_budget_for_all")
    with pytest.raises(Broken, match="the owner's device heard TooManyTries"):
        play(race_strangers_and_the_owner, site)


# ---------------------------------------------------------------- T3: twenty sessions


async def race_logins(site: Site) -> None:
    who, _, email = site.person(password=PASSWORD)
    idle = [site.house.token(who, "idle") for _ in range(5)]
    with site.house.rules() as ctx:
        # Long enough ago to leave first, and not so long that the next call counts as a visit.
        mine = session.c.account_id == who
        ctx.tx.run(update(session).where(mine).values(seen_at=ctx.now - 100))
    async with site.racers(30) as racers:
        heard = await at_once(
            one.email_login(email=email, password=PASSWORD, device_id=f"d{number}")
            for number, one in enumerate(racers)
        )
        assert tally(heard) == {"done": 30}
        stay = site.all(select(session.c.id).where(mine).order_by(session.c.id))
        promise(len(stay) == 20, f"{len(stay)} sessions stay")
        for one, answer in zip(racers, heard, strict=True):
            one.token = answer.token
        alive = tally(await at_once(one.info() for one in racers))
        for one, token in zip(racers, idle, strict=False):
            one.token = token
        long_gone = tally(await at_once(one.info() for one in racers[:5]))
    assert alive == {"done": 20, "NotLoggedIn": 10}
    assert long_gone == {"NotLoggedIn": 5}
    # Sessions are numbered in the order of the logins: the latest stay.
    assert stay == list(range(stay[-1] - 19, stay[-1] + 1))


def test_30_logins_at_once_leave_the_20_newest(site: Site) -> None:
    """T3: exactly 20 sessions of one account, the longest idle left."""
    play(race_logins, site)


@on("sqlite")
def test_room_made_before_the_login_is_not_enough(without: Without) -> None:
    """T3 on the mutant."""
    site = without("room_made_before_the_login")
    with pytest.raises(Broken, match="sessions stay"):
        play(race_logins, site, times=3)


# ---------------------------------------------------------------- rewards, once


async def race_first_changes(site: Site) -> None:
    token = site.token()
    async with site.racers(64, [token]) as racers:
        heard = await at_once(
            one.edit_nickname(name=f"名{number}")
            if number % 2
            else one.edit_avatar(url=f"https://example.org/{number}.png")
            for number, one in enumerate(racers)
        )
        assert tally(heard) == {"done": 64}
        book = await racers[0].gold_coin_increase_decrease_record(size=100, page=1)
        coin = (await racers[0].info()).coin
    reasons = Counter(one.reason for one in book.gold_coin_record)
    promise(set(reasons.values()) == {1}, f"rewarded {dict(reasons)}")
    assert (len(reasons), book.total, coin) == (2, 2, 2.0)


def test_first_changes_are_rewarded_once(site: Site) -> None:
    """Coins: 32 first nicknames and 32 first pictures at once: one posting each."""
    play(race_first_changes, site)
    _book_holds(site)


def _book_holds(site: Site) -> None:
    with site.house.rules() as ctx:
        assert coins.verify(ctx) == []


@on("sqlite")
def test_a_reward_for_every_change_is_paid_again(without: Without) -> None:
    """Coins on the mutant."""
    site = without("every_change_is_the_first")
    with pytest.raises(Broken, match="rewarded"):
        play(race_first_changes, site)


async def race_an_invitation(site: Site) -> None:
    inviter = site.token()
    async with (
        site.racers(1, [inviter]) as (host,),
        site.racers(32, [site.token()]) as guests,
    ):
        invitation = (await host.info()).invitation_code
        heard = tally(await at_once(one.change_user_invite_code(code=invitation) for one in guests))
        book = await host.gold_coin_increase_decrease_record(size=100, page=1)
        progress = await host.invite_progress()
    promise(book.total == 1, f"one guest was paid for {book.total} times")
    assert heard == {"done": 1, "AlreadyInvited": 31}
    assert (progress.current_number_day, book.gold_coin_record[0].change_amount) == (1, 5.0)


def test_an_invitation_is_answered_once(site: Site) -> None:
    """Coins: 32 answers of one guest at once: one posting to the inviter."""
    play(race_an_invitation, site)


@on("sqlite")
def test_an_invitation_without_its_condition_is_paid_again(without: Without) -> None:
    """Coins on the mutant."""
    site = without("invitation_answered_twice")
    with pytest.raises(Broken, match="one guest was paid for"):
        play(race_an_invitation, site)


async def race_guests(site: Site) -> None:
    inviter = site.token()
    tokens = [site.token() for _ in range(32)]
    async with site.racers(1, [inviter]) as (host,), site.racers(32) as guests:
        for guest, token in zip(guests, tokens, strict=True):
            guest.token = token
        invitation = (await host.info()).invitation_code
        heard = await at_once(one.change_user_invite_code(code=invitation) for one in guests)
        book = await host.gold_coin_increase_decrease_record(size=100, page=1)
        progress = await host.invite_progress()
    assert tally(heard) == {"done": 32}
    promise(book.total == 10, f"{book.total} guests were paid for, of 10 a day")
    assert progress.current_number_total == 32


def test_invitations_are_paid_up_to_the_target(site: Site) -> None:
    """Coins: 32 guests at once, 10 of them are paid for."""
    play(race_guests, site)
    _book_holds(site)


async def race_crossing_invitations(site: Site) -> None:
    pairs = 16
    tokens = [site.token() for _ in range(2 * pairs)]
    async with site.racers(2 * pairs) as racers:
        for one, token in zip(racers, tokens, strict=True):
            one.token = token
        invitations = [(await one.info()).invitation_code for one in racers]
        # Each answers the other's: 0 that of 1, and 1 that of 0.
        heard = await at_once(
            one.change_user_invite_code(code=invitations[number ^ 1])
            for number, one in enumerate(racers)
        )
    crossed = sum(
        tally(heard[number : number + 2])["done"] == 2 for number in range(0, 2 * pairs, 2)
    )
    promise(crossed == 0, f"{crossed} of {pairs} pairs invited each other")
    assert tally(heard) == {"done": pairs, "OwnInvitation": pairs}


def test_two_people_cannot_invite_each_other(site: Site) -> None:
    """Coins: the second of two crossing answers is refused, also when both come at once."""
    play(race_crossing_invitations, site)


@on("postgresql")
@pytest.mark.parametrize(
    ("race", "broken"),
    [
        (race_guests, "guests were paid for"),
        (race_crossing_invitations, "pairs invited each other"),
    ],
)
def test_invitations_that_do_not_wait_for_each_other(
    without: Without, race: Callable[[Site], Awaitable[None]], broken: str
) -> None:
    """Coins on the mutant. SQLite has one writer at a time, which hides it there."""
    site = without("invitations_unlocked")
    with pytest.raises(Broken, match=broken):
        play(race, site, times=3)


# ---------------------------------------------------------------- coins

Crew = Callable[..., list[list[str]]]


@contextmanager
def open_crew(site: Site, mutant: str = "", processes: int = 3) -> Iterator[Crew]:
    """Processes that race rules of the coin book, which no call of the wire reaches."""
    started = (mutant, site.url, site.folder, NURSERY.Barrier(processes))
    with ProcessPoolExecutor(processes, NURSERY, take_part, started) as pool:

        def race(rule: str, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> list[list[str]]:
            """Play 64 racers; they make these calls in turn. Returns what each call brought."""
            jobs = [
                pool.submit(race_coins, rule, calls, range(number, 64, processes))
                for number in range(processes)
            ]
            heard = [one for job in jobs for one in job.result(60)]
            return [[what for at, what in heard if at == place] for place in range(len(calls))]

        yield race


def _wealthy(site: Site, hundredths: int) -> tuple[int, int]:
    """An account with so much, and the posting that gave it."""
    who = site.person()[0]
    with site.house.rules() as ctx:
        given = coins.post(
            ctx, who, hundredths, typ=1, reason="gift", key=f"gift:{next(site.numbers)}"
        )
    return who, given


def _held(site: Site, who: int) -> int:
    with site.house.rules() as ctx:
        return coins.balance(ctx, who)


def race_last_coins(site: Site, crew: Crew) -> None:
    who, _ = _wealthy(site, 1050)
    heard = crew("post", ((who, -100), {"typ": 6, "reason": "shop", "key": f"spend:{who}:{{n}}"}))
    got = tally("done" if one.isdigit() else one for part in heard for one in part)
    assert _held(site, who) >= 0
    promise(got["done"] == 10, f"{got['done']} of 10 amounts were spent")
    promise(got == {"done": 10, "CoinsShort": 54}, f"racers heard {dict(got)}")
    assert _held(site, who) == 50


def race_one_key(site: Site, crew: Crew) -> None:
    who, _ = _wealthy(site, 100)
    key = f"once:{who}"
    heard = crew(
        "post",
        ((who, 300), {"typ": 2, "reason": "tip", "key": key}),
        ((who, 400), {"typ": 2, "reason": "another body", "key": key}),
    )
    mine = select(wallet.c.id).where(wallet.c.account_id == who).scalar_subquery()
    postings = site.value(select(func.count()).where(entry.c.wallet_id == mine)) - 1
    promise(postings == 1, f"one key made {postings} postings")
    first = site.value(select(posting.c.id).where(posting.c.key == key))
    # Whichever body came first has the key, and the other is told so.
    known, other = {str(first)}, {"KeyReused"}
    assert [set(part) for part in heard] in ([known, other], [other, known])
    assert _held(site, who) == (400 if set(heard[0]) == known else 500)


def race_one_reversal(site: Site, crew: Crew) -> None:
    # So many other coins that a second reversal would find enough to take.
    who, given = _wealthy(site, 700)
    _more(site, who, 64 * 700)
    heard = crew("reverse", ((given,), {"reason": "by mistake"}))
    got = tally("done" if one.isdigit() else one for part in heard for one in part)
    promise(got["done"] == 1, f"one posting was reversed {got['done']} times")
    assert got["AlreadyReversed"] == 63, got
    assert _held(site, who) == 64 * 700


def _more(site: Site, who: int, hundredths: int) -> None:
    with site.house.rules() as ctx:
        coins.post(ctx, who, hundredths, typ=1, reason="gift", key=f"more:{who}")


def test_the_last_coins_are_spent_once(site: Site) -> None:
    """Coins: 64 racers in 3 processes; no balance below zero, each key and each reversal once."""
    with open_crew(site) as crew:
        race_last_coins(site, crew)
        race_one_key(site, crew)
        race_one_reversal(site, crew)
    _book_holds(site)


@pytest.fixture
def quiet(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A site on which no server runs."""
    house = make_house(database_url, tmp_path, RealClock())
    yield Site(house, [], database_url, tmp_path)
    house.close()


@on("sqlite")
@pytest.mark.parametrize(
    ("mutant", "race", "broken"),
    [
        ("coins_without_condition", race_last_coins, "'IntegrityError'"),
        ("coins_read_then_written", race_last_coins, "of 10 amounts were spent"),
        ("key_read_then_written", race_one_key, "one key made"),
        ("reversal_looked_for", race_one_reversal, "one posting was reversed"),
    ],
)
def test_the_coin_book_without_its_guards(
    quiet: Site, mutant: str, race: Callable[[Site, Crew], None], broken: str
) -> None:
    """Coins on the mutants. Without its condition, the table's own check still holds zero."""
    with open_crew(quiet, mutant, 1) as crew, pytest.raises(Broken, match=broken):
        play(race, quiet, crew, times=3)


# ---------------------------------------------------------------- a call overtaken by a deletion

#: Each call, and how many transactions it has begun when it begins to write: a bind counts its
#: try of the code in one before.
LATE = [
    pytest.param("bind_phone", {"phone": "13700000001"}, 2),
    pytest.param("bind_email", {"email": "late@example.org"}, 2),
    pytest.param("edit_nickname", {"name": "晚了"}, 1),
    pytest.param("edit_avatar", {"url": "https://example.org/late.png"}, 1),
    pytest.param("save_user_data", {"introduction": "晚了"}, 1),
    pytest.param("save_user_remarks", {"friend_id": "1000002", "name": "晚了"}, 1),
    pytest.param("notification_info", {"device_id": "d", "registration_id": "r"}, 1),
    pytest.param("module_ignore", {"device_id": "d", "ignore": ",10"}, 1),
    pytest.param("change_user_invite_code", {"code": "LATECODE"}, 1),
]


def _late_call(
    house: House, monkeypatch: pytest.MonkeyPatch, call: str, arguments: dict[str, str], begins: int
) -> None:
    who = house.person(1)
    house.person(2)
    with house.rules() as ctx:
        people.make_vip(ctx, who, people.FOREVER)
    one = house.client(house.token(who))
    if call.startswith("bind"):
        (address,) = arguments.values()
        arguments = {**arguments, "captcha": house.code_for(address)}
    database = house.world.database
    assert isinstance(database, SqlDatabase)
    if database.is_sqlite:
        # From the first time on, nobody else writes until the commit.
        begins = 1
    begin, count = SqlTransaction.begin, itertools.count(1)

    def overtaken(tx: SqlTransaction) -> None:
        if not tx.begun and next(count) == begins:
            with house.rules() as other:
                people.erase(other, people.get(other, who))
        begin(tx)

    with monkeypatch.context() as patch, suppress(Refused):
        patch.setattr(SqlTransaction, "begin", overtaken)
        getattr(one, call)(**arguments)
    with house.rules() as ctx:
        left = ctx.tx.one(select(account).where(account.c.id == who))
        assert left is not None
        assert left.deleted_at > 0
        kept = (left.phone, left.email, left.name, left.avatar_url, left.invite_code)
        promise(kept == (None, None, "", "", f"-{who}"), f"the account has {kept} again")
        for table in (profile, notification, module_ignore, session, known_device, remark):
            owner = table.c.owner_id if table is remark else table.c.account_id
            rows = ctx.tx.all(select(table).where(owner == who))
            promise(not rows, f"{table.name} has {rows} again")


@pytest.mark.parametrize(("call", "arguments", "begins"), LATE)
def test_a_late_call_gives_a_deleted_account_nothing_back(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    arguments: dict[str, str],
    begins: int,
) -> None:
    """T5: a call that was under way when its account was deleted leaves no trace of the person."""
    _late_call(house, monkeypatch, call, arguments, begins)


@on("sqlite")
def test_a_deleted_account_that_can_be_changed_gets_a_name_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5 on the mutant."""
    with taken_away("deleted_account_changed"), pytest.raises(Broken, match="again"):
        _late_call(house, monkeypatch, "edit_nickname", {"name": "晚了"}, 1)


def test_a_late_logout_ends_nobody_elses_session(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: a logout that comes after the end of its session ends nobody else's."""
    one = house.client(house.token(house.person(1)))
    other = house.person(2)
    rule = sessions.end
    tokens: list[str] = []

    def overtaken(ctx: Context, who: Caller) -> None:
        with house.rules() as before:
            sessions.end_all(before, who.account_id)
        tokens.append(house.token(other))
        rule(ctx, who)

    monkeypatch.setattr(sessions, "end", overtaken)
    with suppress(Refused):
        one.logout()
    assert house.client(tokens[0]).info().id == str(other)


def test_a_new_code_does_not_begin_with_the_tries_of_a_forgotten_one(house: House) -> None:
    """C4: tries belong to a code, also when the number of its row is handed out again."""
    one = house.client(house.token(house.person(1)))
    right = house.code_for("13900000001")
    for _ in range(6):
        with pytest.raises(Refused):
            house.client().verification_login(mobile="13900000001", captcha="no")
    one.cancel_user(email="person1@example.org", captcha=house.code_for("person1@example.org"))
    right = house.code_for("13700000001")
    assert house.client().verification_login(mobile="13700000001", captcha=right).token


# ---------------------------------------------------------------- two writers that meet


_WAITING = text(
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def _meet(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[Context], Any],
    after: str,
    second: Callable[[Context], Any],
    until: str,
) -> list[Any]:
    """Run two calls at once, so that they meet in the worst moment.

    The first one, once a writer, rests after its statement that begins with `after`, until the
    second has run the one that begins with `until`, or has ended, or waits for a lock. Returns
    the results, or what was raised.
    """
    rests, runs = threading.Event(), threading.Event()
    execute, run_compiled = SqlTransaction._execute, SqlTransaction._run_compiled

    def at_the_mark(tx: SqlTransaction, statement: Any, *values: Any) -> Any:
        result = (run_compiled if values else execute)(tx, statement, *values)
        said, name = str(statement), threading.current_thread().name
        if name == "first" and tx.begun and said.startswith(after) and not rests.is_set():
            rests.set()
            while not runs.wait(0.02):
                with house.rules() as aside:
                    if aside.tx.value(_WAITING):
                        break
        if name == "second" and said.startswith(until):
            runs.set()
        return result

    monkeypatch.setattr(SqlTransaction, "_execute", at_the_mark)
    monkeypatch.setattr(SqlTransaction, "_run_compiled", at_the_mark)
    results: list[Any] = [None, None]

    def run(place: int, call: Callable[[Context], Any]) -> None:
        try:
            with house.rules() as ctx:
                results[place] = call(ctx)
        except Refusal as refusal:
            results[place] = refusal
        runs.set() if place else rests.set()

    threads = [
        threading.Thread(target=run, args=(0, first), name="first"),
        threading.Thread(target=run, args=(1, second), name="second"),
    ]
    threads[0].start()
    assert rests.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    monkeypatch.undo()
    return results


Meeting = tuple[Callable[[Context], Any], str, Callable[[Context], Any], str]


#: How the statement begins that locks accounts.
_LOCKED = "SELECT account.id \nFROM account \nWHERE account.id "


def _visit_and_erasure(house: House) -> Meeting:
    who = house.person(1)
    token = house.token(who)
    house.clock.advance(400)
    return (
        lambda ctx: sessions.admit(ctx, token),
        "UPDATE account SET last_seen_at",
        lambda ctx: people.erase(ctx, people.get(ctx, who)),
        "DELETE FROM session",
    )


def _visit_and_ban(house: House) -> Meeting:
    who = house.person(1)
    token = house.token(who)
    house.clock.advance(400)
    return (
        lambda ctx: sessions.admit(ctx, token),
        "UPDATE account SET last_seen_at",
        lambda ctx: people.ban(ctx, who, people.FOREVER),
        "DELETE FROM session",
    )


def _login_and_reset(house: House) -> Meeting:
    house.person(1, password=PASSWORD)
    email = "person1@example.org"
    right = house.code_for(email)
    with pytest.raises(Refused):
        # A failure is remembered, so that the login has something to forget.
        house.client().email_login(email=email, password="guess")
    return (
        lambda ctx: login.by_password(ctx, email, PASSWORD, "", ""),
        "DELETE FROM failure",
        lambda ctx: passwords.reset(ctx, email, right, "another lake 7"),
        "UPDATE account",
    )


def _bind_and_reset(house: House) -> Meeting:
    house.person(1)
    with house.rules() as ctx:
        token = house.token(house.person(2))
        who = sessions.admit(ctx, token)
    assert who is not None
    email = "person1@example.org"
    any_code = house.code_for(email)
    house.clock.advance(61)
    reset_code = house.code_for(email, "forget_password")
    return (
        lambda ctx: contact.change_email(ctx, who, email, any_code),
        "UPDATE code",
        lambda ctx: passwords.reset(ctx, email, reset_code, "another lake 7"),
        "UPDATE code",
    )


def _erasures_of_two_friends(house: House) -> Meeting:
    one, two = house.person(1), house.person(2)
    for me, friend in ((one, two), (two, one)):
        house.client(house.token(me)).save_user_remarks(friend_id=str(friend), name="友")
    return (
        lambda ctx: people.erase(ctx, people.get(ctx, one)),
        "DELETE FROM remark",
        lambda ctx: people.erase(ctx, people.get(ctx, two)),
        "DELETE FROM remark",
    )


def _crossing_invitations(house: House) -> Meeting:
    one, two = house.person(1), house.person(2)
    with house.rules() as ctx:
        of_one, of_two = (people.get(ctx, who).invite_code for who in (one, two))
    return (
        lambda ctx: invites.answer(ctx, one, of_two),
        _LOCKED,
        lambda ctx: invites.answer(ctx, two, of_one),
        _LOCKED,
    )


@on("postgresql")
@pytest.mark.parametrize(
    "meeting",
    [
        _visit_and_erasure,
        _visit_and_ban,
        _login_and_reset,
        _bind_and_reset,
        _erasures_of_two_friends,
        _crossing_invitations,
    ],
    ids=lambda meeting: meeting.__name__.strip("_"),
)
def test_two_writers_that_meet_do_not_stop_each_other(
    house: House, monkeypatch: pytest.MonkeyPatch, meeting: Callable[[House], Meeting]
) -> None:
    """Rows are locked in one order, so that no call is sent away because of another one."""
    _nobody_busy(_meet(house, monkeypatch, *meeting(house)))


def _nobody_busy(results: list[Any]) -> None:
    busy = sum(isinstance(one, Busy) for one in results)
    promise(busy == 0, f"{busy} of two calls were sent away as busy")


@on("postgresql")
@pytest.mark.parametrize(
    ("mutant", "meeting"),
    [
        ("sessions_locked_before_the_account", _visit_and_ban),
        ("inviters_locked_as_they_come", _crossing_invitations),
    ],
)
def test_two_writers_that_lock_crosswise_stop_each_other(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    mutant: str,
    meeting: Callable[[House], Meeting],
) -> None:
    """The same on the mutants. SQLite has one writer at a time."""
    with taken_away(mutant), pytest.raises(Broken, match="sent away"):
        _nobody_busy(_meet(house, monkeypatch, *meeting(house)))


def _banned_login(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    who = house.person(1)
    right = house.code_for("13900000001")
    _meet(
        house,
        monkeypatch,
        lambda ctx: login.by_code(ctx, "13900000001", right, "d", ""),
        # It has looked for a ban by then.
        "SELECT account",
        lambda ctx: people.ban(ctx, who, people.FOREVER),
        "nothing, so that the whole ban comes between",
    )
    with house.rules() as ctx:
        opened = ctx.tx.all(select(session.c.id))
        promise(not opened, f"{len(opened)} sessions of a banned person")


@on("postgresql")
def test_a_login_overtaken_by_a_ban_opens_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: a code that is being redeemed while its owner is banned opens no session."""
    _banned_login(house, monkeypatch)


@on("postgresql")
def test_a_login_that_does_not_look_again_lets_a_banned_person_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5 on the mutant."""
    with taken_away("banned_person_let_in"), pytest.raises(Broken, match="of a banned person"):
        _banned_login(house, monkeypatch)


async def race_wrong_passwords(site: Site) -> None:
    email = site.person(password=PASSWORD)[2]
    async with site.racers(32) as racers:
        heard = tally(
            await at_once(
                one.email_login(email=email, password="guess", device_id=f"d{number}")
                for number, one in enumerate(racers)
            )
        )
    told_wrong = heard["WrongPassword"]
    promise(told_wrong <= 5, f"{told_wrong} passwords were compared at once, of 5")


async def race_one_right_among_wrong(site: Site) -> None:
    """The right guess is sent first and is compared last, as its comparing is held open."""
    email = site.person(password=PASSWORD)[2]
    async with site.racers(17) as racers:
        heard = tally(
            await at_once(
                one.email_login(
                    email=email, password="guess" if number else PASSWORD, device_id=f"d{number}"
                )
                for number, one in enumerate(racers)
            )
        )
    assert heard["WrongPassword"] == 5, heard
    promise(heard["done"] == 0, "a right guess was told from sixteen wrong ones")


@on("sqlite", "postgresql")
def test_wrong_passwords_at_once_are_compared_five_times(without: Without) -> None:
    """P5: many guesses at once learn no more than five.

    The mutant lacks no guard: it only holds the moment between comparing and counting open.
    """
    play(race_wrong_passwords, without("slow_comparing", 2))


@on("sqlite")
def test_failures_that_are_counted_blindly_are_no_limit(without: Without) -> None:
    """P5 on the mutant."""
    with pytest.raises(Broken, match="were compared"):
        play(race_wrong_passwords, without("failures_counted_blindly", 2), times=3)


@on("sqlite", "postgresql")
def test_a_right_guess_among_many_wrong_ones_is_not_told(without: Without) -> None:
    """P5: whoever tries many at once does not learn which one was right.

    The mutant lacks no guard: it only holds the moment after comparing open.
    """
    play(race_one_right_among_wrong, without("right_password_rests"))


@on("sqlite")
def test_a_right_guess_that_is_not_looked_at_again_is_told(without: Without) -> None:
    """P5 on the mutant."""
    with pytest.raises(Broken, match="was told"):
        play(race_one_right_among_wrong, without("right_password_not_looked_at_again"), times=3)
