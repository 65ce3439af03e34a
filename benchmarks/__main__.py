"""`python -m benchmarks`: measure us beside the others, and beside what is possible."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data, load, report
from benchmarks.report import Measurement
from benchmarks.servers import (
    Ceiling,
    FastapiUsers,
    Hupan,
    PocketBase,
    Server,
    interface_of_ours,
    machine_seconds,
)

RESULTS = Path(__file__).parent / "results"
#: Where the folders of a run are; on a disk, because commits are what is measured.
ROOMS = data.CACHE
SMALL = 1_000
READERS, WRITERS = 64, 32
#: So many different tokens are asked for while answers are kept; fewer where people are few.
WARM_SET, SMALL_WARM_SET = 20_000, 2_000
MANY = 200_000
#: So many prepared requests are gone through, again and again.
DRAWS = 100_000
#: So many tokens are kept when the memory is looked at.
KEPT_TOKENS = 200_000
STORM_RATE = 500
#: Logins are few and slow; all that were begun are waited for.
LEAST_LOGIN_SECONDS = 2.0
#: Waiting logins hold a connection each.
STORM_CONNECTIONS = 256


# ---------------------------------------------------------------- whose requests


def readers(people: int) -> list[int]:
    """Sessions that reads are made with, all over the table; nobody else logs in as them."""
    wanted = WARM_SET if people >= MANY else SMALL_WARM_SET
    step = max(1, people * data.SESSIONS_EACH // wanted)
    login = range(int(people * 0.4), int(people * 0.7))
    return [
        number
        for number in range(0, people * data.SESSIONS_EACH, step)
        if data.owner(number) not in login
    ]


def callers(row: str, numbers: Sequence[int]) -> list[int]:
    """Sessions whose tokens the requests carry; `get-user` is asked by a neighbour."""
    return sorted({*numbers, *(number ^ 2 for number in numbers if row == "get-user")})


def _zipf(people: int, round_: int) -> list[int]:
    # The popular ones are spread over the table as well.
    pool = readers(people)
    scattered = [pool[place * 7919 % len(pool)] for place in range(len(pool))]
    return load.zipf(scattered, DRAWS, seed=round_)


def _writers(people: int, round_: int) -> list[int]:  # noqa: ARG001
    return [person * data.SESSIONS_EACH for person in range(min(int(people * 0.3), 2_000))]


def _logins(people: int, round_: int) -> list[int]:
    chosen = range(int(people * 0.4), int(people * 0.7))
    count = min(len(chosen), 3_000)
    return [
        chosen[(round_ * count + place) % len(chosen)] * data.SESSIONS_EACH
        for place in range(count)
    ]


def _firsts(people: int, round_: int, rounds: int) -> list[int]:
    """People who have never changed their picture, others in each round."""
    chosen = range(int(people * 0.7), people)
    share = min(len(chosen) // rounds, 40_000)
    return [person * data.SESSIONS_EACH for person in chosen[round_ * share : (round_ + 1) * share]]


def _cold(people: int, round_: int, count: int) -> list[int]:
    """Sessions in no order, none of which comes twice in all rounds."""
    sessions = people * data.SESSIONS_EACH
    # A step that shares no factor with the count visits all; the warm set is left out.
    step, warm = 1_000_003, set(readers(people))
    places = range(round_ * count, min((round_ + 1) * count, sessions))
    return [number for place in places if (number := place * step % sessions) not in warm]


@dataclass(frozen=True)
class Case:
    """A row of ours, how it is asked, and what of others stands beside it."""

    connections: int
    #: What the others call it.
    rival: str
    once: bool = False
    refusals: bool = False


CASES = {
    "info": Case(READERS, "read"),
    "get-user": Case(READERS, "read"),
    "info-cold": Case(READERS, "read", once=True),
    "mixed": Case(READERS, ""),
    "edit-nickname": Case(WRITERS, "update"),
    "save-user-data": Case(WRITERS, "update"),
    "edit-avatar": Case(WRITERS, "update", once=True),
    "email-login": Case(WRITERS, "login", refusals=True),
}
#: What a quick look asks of all our servers, and not of one only.
QUICK_ROWS = ("info", "info-cold", "edit-nickname")
#: What is asked in the lane that no target means.
UNPINNED_ROWS = ("info", "get-user", "edit-nickname", "save-user-data", "email-login")
LATER = ("latency", "storm", "start", "memory")
#: What is compared is measured in turns of so many seconds, one after the other: the machine is
#: faster at one moment than at another.
TURN = 0.75
SERVERS = (
    "hupan-sqlite",
    "hupan-sqlite-small",
    "hupan-postgres",
    "hupan-sqlite-2w",
    "hupan-postgres-2w",
    "ceiling-rsgi",
    "ceiling-asgi",
    "ceiling-loop",
    "pocketbase",
    "fastapi-users",
    "bare",
)
GROUPS = {
    "hupan": [name for name in SERVERS if name.startswith("hupan")],
    "ceiling": [name for name in SERVERS if name.startswith("ceiling")],
}


# ---------------------------------------------------------------- a run


@dataclass
class Run:
    """One run of the benchmark: its options, its servers, what it has found."""

    options: argparse.Namespace
    folder: Path
    stack: contextlib.ExitStack
    found: list[Measurement] = field(default_factory=list)
    servers: dict[str, Server] = field(default_factory=dict)
    #: One more of ours, which does not run unless it is what is measured.
    spare: Hupan | None = None
    lane: str = ""
    server_cores: set[int] = field(default_factory=set)
    load_cores: set[int] = field(default_factory=set)
    calls: int = 0

    @property
    def turns(self) -> int:
        """In so many turns what is compared is measured in a round."""
        return max(1, round(self.options.seconds / TURN))

    def say(self, made: Measurement) -> None:
        """Keep a finding, and show it."""
        self.found.append(made)
        print(report.line(made), flush=True)

    def file(self, requests: Sequence[load.Prepared]) -> Path:
        """A file of requests, for one start of the generator."""
        self.calls += 1
        return load.write(self.folder / f"requests-{self.calls}", requests)

    def begin(self, server: Server, file: Path, **more: Any) -> load.Load:
        """Start the generator."""
        return load.Load(
            server.port,
            file,
            cores=self.load_cores,
            # A renaming in one run is later than all in the runs before.
            first_version=self.calls * 1_500,
            **more,
        )

    def measure(
        self, server: Server, row: str, round_: int, requests: Sequence[load.Prepared], **more: Any
    ) -> Measurement:
        """Run the generator once, with the kernel's accounts before and after."""
        file = self.file(requests)
        before = self.accounts(server)
        result = self.begin(server, file, **more).end()
        file.unlink()
        return self.account(server, row, round_, result, before)

    def accounts(self, server: Server) -> tuple[float, ...]:
        """CPU seconds of a server, of its database, of the whole machine; and the time."""
        return server.cpu(), server.database_cpu(), machine_seconds(), time.monotonic()

    def account(
        self,
        server: Server,
        row: str,
        round_: int,
        result: load.Result,
        before: tuple[float, ...],
    ) -> Measurement:
        """What a result and the accounts say."""
        each = 1e6 / max(result.finished, 1)
        mine, database, all_, began = (
            now - then for now, then in zip(self.accounts(server), before, strict=True)
        )
        return Measurement(
            lane=self.lane,
            server=server.name,
            row=row,
            round=round_,
            rate=result.rate,
            cpu=mine * each,
            database_cpu=database * each,
            others=max(0.0, all_ - mine - database - result.cpu) / began,
            p50=result.p50,
            p99=result.p99,
            generator=result.cpu / result.seconds if result.seconds else 0,
            requests=result.finished,
            refused=result.refused,
            faults=result.faults,
            example=result.example,
        )


def _people(server: Server) -> int:
    return server.people if isinstance(server, Hupan | PocketBase | FastapiUsers) else SMALL


def in_turns(run: Run, jobs: Sequence[Sequence[Callable[[], Measurement]]]) -> None:
    """Measure what is compared side by side, a turn of each after the other."""
    made: list[list[Measurement]] = [[] for _ in jobs]
    for turn in range(max(map(len, jobs))):
        for job, parts in zip(jobs, made, strict=True):
            if turn < len(job):
                parts.append(job[turn]())
    for parts in made:
        run.say(report.joined(parts))


def of_ours(
    run: Run, server: Hupan, rows: Sequence[str], round_: int
) -> list[list[Callable[[], Measurement]]]:
    """Rows on one of our servers, ready to be measured in turns."""
    people, seconds, turns = server.people, run.options.seconds, run.turns
    choices: dict[str, Callable[[int, int], list[int]]] = {
        "info": _zipf,
        "get-user": _zipf,
        "mixed": _zipf,
        "edit-nickname": _writers,
        "save-user-data": _writers,
        "email-login": _logins,
        "edit-avatar": lambda people, round_: _firsts(people, round_, run.options.rounds),
        "info-cold": lambda people, round_: _cold(people, round_, int(seconds * 15_000)),
    }
    chosen = {row: numbers for row in rows if (numbers := choices[row](people, round_))}
    if not chosen:
        return []
    # What is noted in the database makes stale what was kept; so all of it is noted first.
    server.freshen(
        sorted({one for row in chosen if row != "email-login" for one in callers(row, chosen[row])})
    )
    jobs = []
    for row, numbers in chosen.items():
        case = CASES[row]
        # What is under way at the end of a short turn is waited for and counted.
        more: dict[str, Any] = {
            "connections": case.connections, "refusals": case.refusals, "drain": True,
        }  # fmt: skip
        if row == "email-login":
            long = max(seconds, LEAST_LOGIN_SECONDS)
            parts, more = [server.ask(row, numbers)], more | {"seconds": long}
        elif case.once:
            each = -(-len(numbers) // turns)
            parts = [
                server.ask(row, numbers[first : first + each])
                for first in range(0, len(numbers), each)
            ]
            more |= {"once": True, "seconds": seconds / turns}
        else:
            warm(run, server, row, numbers)
            parts, more = [server.ask(row, numbers)] * turns, more | {"seconds": seconds / turns}
            run.measure(server, row, -1, parts[0], **more)
        jobs.append([partial(run.measure, server, row, round_, part, **more) for part in parts])
    return jobs


def warm(run: Run, server: Hupan, row: str, numbers: Sequence[int]) -> None:
    """Every token once: answers are kept, first names are rewarded."""
    each = server.ask(row, sorted(set(numbers)) if row != "mixed" else numbers[:20_000])
    # Each worker keeps its own, and a token comes to only one of them at a time.
    for _ in range(1 if server.workers == 1 else 2 * server.workers):
        run.measure(
            server, row, -1, each, connections=CASES[row].connections, seconds=30, once=True
        )


def _measure_cold_small(run: Run, server: Hupan, round_: int) -> None:
    """With few tokens, each can be new only to a server that has just started."""
    sessions, spare = server.people * data.SESSIONS_EACH, 200
    made = []
    for _ in range(run.options.passes):
        server.stop()
        server.start()
        server.freshen(range(sessions))
        run.measure(
            server, "info-cold", -1, server.ask("info", range(sessions - spare, sessions)),
            connections=READERS, seconds=10, once=True,
        )  # fmt: skip
        numbers = [place * 7919 % (sessions - spare) for place in range(sessions - spare)]
        requests = server.ask("info", numbers)
        made.append(
            run.measure(
                server, "info-cold", round_, requests, connections=READERS, seconds=10, once=True
            )
        )
    run.say(report.joined(made))


def of_other(run: Run, server: Server, row: str, round_: int) -> list[Callable[[], Measurement]]:
    """One row of another server, ready to be measured in turns."""
    people = _people(server)
    numbers = {"read": _zipf, "post": _zipf, "update": _writers, "login": _logins}[row](
        people, round_
    )
    requests = server.ask(row, numbers)
    # One that takes a third of a second for an answer has no use for short turns.
    turns = 1 if isinstance(server, FastapiUsers) else run.turns
    seconds = run.options.seconds / turns
    connections = READERS if row in ("read", "post") else WRITERS
    more: dict[str, Any] = {"connections": connections, "drain": True}
    if row == "login":
        more["connections"] = server.logins
        seconds, turns = max(run.options.seconds, LEAST_LOGIN_SECONDS), 1
    else:
        run.measure(server, row, -1, requests, seconds=seconds, **more)
    return [
        partial(run.measure, server, row, round_, requests, seconds=seconds, **more)
        for _ in range(turns)
    ]


def bare(run: Run, loop: str, round_: int, seconds: float) -> Measurement:
    """A loop with nothing around it, on a server's cores."""
    file = run.folder / "bare.db"
    if loop == "group-commit" and not file.exists():
        shutil.copyfile(data.sqlite_file(run.options.people), file)
        os.sync()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("bare.py")), loop, str(seconds), str(file)],
        check=True, capture_output=True, text=True, timeout=seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, run.server_cores),
    )  # fmt: skip
    told = json.loads(done.stdout)
    return Measurement(
        run.lane, "bare", loop, round_, **told, requests=max(1, int(told["rate"] * seconds))
    )


def measure_latency(run: Run, server: Hupan, round_: int) -> None:
    """Latencies at 70 % of the rate that this round has just seen."""
    for row in ("info", "get-user"):
        peak = [
            made.rate
            for made in run.found
            if (made.lane, made.server, made.row, made.round)
            == (run.lane, server.name, row, round_)
        ]
        if not peak:
            continue
        numbers = _zipf(server.people, round_)
        server.freshen(callers(row, numbers))
        warm(run, server, row, numbers)
        made = run.measure(
            server, f"{row}@70%", round_, server.ask(row, numbers),
            connections=READERS, seconds=run.options.seconds, rate=0.7 * peak[0],
        )  # fmt: skip
        run.say(made)


def measure_storm(run: Run, server: Hupan) -> None:
    """Reads alone, and reads while many more people log in than can be let in."""
    seconds, numbers = run.options.storm_seconds, _zipf(server.people, 0)
    requests, logins = server.ask("info", numbers), server.ask("email-login", _logins(
        server.people, run.options.rounds))  # fmt: skip
    server.freshen(callers("info", numbers))
    warm(run, server, "info", numbers)
    # Before and after, because the machine is not as fast at one moment as at another.
    calm = {"connections": READERS, "seconds": min(seconds, 10)}
    alone = [run.measure(server, "calm", 0, requests, **calm)]
    before = run.accounts(server)
    storm = run.begin(
        server, run.file(logins), connections=STORM_CONNECTIONS, seconds=seconds, rate=STORM_RATE,
        refusals=True,
    )  # fmt: skip
    reading = run.begin(server, run.file(requests), connections=READERS, seconds=seconds)
    try:
        result = reading.end()
    finally:
        stormed = storm.end()
    # What a read costs cannot be told from what a login costs here.
    run.say(run.account(server, "storm", 0, result, before))
    run.say(run.account(server, "storm-logins", 0, stormed, before))
    alone.append(run.measure(server, "calm", 0, requests, **calm))
    run.say(report.joined(alone))


def measure_start(run: Run, round_: int) -> None:
    """From the start of the process to the first good answer."""
    if run.spare is None:
        return
    try:
        run.spare.start()
        run.say(Measurement(run.lane, "hupan-sqlite", "start", round_, run.spare.start_seconds))
    finally:
        run.spare.stop()


def measure_memory(run: Run) -> None:
    """What it holds when nothing has happened, and with many tokens kept."""
    if run.spare is None:
        return
    try:
        run.spare.start()
        time.sleep(2)
        run.say(Measurement(run.lane, "hupan-sqlite", "memory-idle", 0, run.spare.memory()))
        numbers = range(min(KEPT_TOKENS, run.spare.people * data.SESSIONS_EACH))
        run.spare.freshen(numbers)
        requests = run.spare.ask("info", numbers)
        made = run.measure(
            run.spare, "memory", 0, requests, connections=READERS, seconds=240, once=True
        )
        now = run.spare.memory()
        run.say(replace(made, server="hupan-sqlite", row="memory-kept", rate=now, cpu=0, p50=0))
    finally:
        run.spare.stop()


# ---------------------------------------------------------------- lanes


@contextlib.contextmanager
def lane(run: Run, name: str, postgres: data.Postgres | None) -> Iterator[None]:
    """Start the servers of a lane, and end them."""
    cores = sorted(os.sched_getaffinity(0))
    run.lane = name
    if name == "pinned":
        run.server_cores, run.load_cores = {cores[0]}, set(cores[1:]) or {cores[0]}
    else:
        run.server_cores = run.load_cores = set(cores)
    # Two workers need two cores of their own, and the generator a third.
    two = name == "unpinned"
    folder, mine, people = run.folder / name, run.server_cores, run.options.people
    makers: dict[str, Callable[[str], Server]] = {
        "hupan-sqlite": lambda name: Hupan(name, folder, mine, people=people),
        "hupan-sqlite-small": lambda name: Hupan(name, folder, mine, people=SMALL),
    }
    if postgres is not None:
        makers["hupan-postgres"] = lambda name: Hupan(
            name, folder, mine, people=people, postgres=postgres
        )
    if two:
        makers["hupan-sqlite-2w"] = lambda name: Hupan(name, folder, mine, people=people, workers=2)
        if postgres is not None:
            makers["hupan-postgres-2w"] = lambda name: Hupan(
                name, folder, mine, people=people, workers=2, postgres=postgres
            )
    for interface in ("rsgi", "asgi", "loop"):
        makers[f"ceiling-{interface}"] = lambda name: Ceiling(
            name, folder, mine, interface=name.rpartition("-")[2], like=model
        )
    makers["pocketbase"] = lambda name: PocketBase(name, folder, mine)
    makers["fastapi-users"] = lambda name: FastapiUsers(name, folder, mine)
    wanted = [key for key in makers if key in run.options.servers]
    with contextlib.ExitStack() as stack:

        def begin(server: Server) -> Server:
            stack.callback(server.close)
            server.prepare()
            server.start()
            server.furnish()
            return server

        # The ceiling repeats an answer of ours, and needs one of ours to ask for it.
        model: Any = None
        if any(key.startswith("ceiling") for key in wanted):
            model = begin(Hupan("hupan-model", folder, mine, people=SMALL))
        run.servers = {key: begin(makers[key](key)) for key in wanted}
        if model is not None:
            model.stop()
        if "hupan-sqlite" in wanted and name == "pinned":
            run.spare = Hupan("hupan-spare", folder, mine, people=people)
            stack.callback(run.spare.close)
            run.spare.prepare()
        # What was copied is on the disk before the first commit is measured.
        os.sync()
        yield
    run.servers, run.spare = {}, None


def _is_asked(run: Run, server: Hupan, row: str) -> bool:
    """The small one shows what grows with the data, and has too few people for the rest."""
    few = server.people <= SMALL and row in ("mixed", "edit-avatar", "email-login")
    return not few and not (
        run.options.short and server.name != "hupan-sqlite" and row not in QUICK_ROWS
    )


def one_round(run: Run, round_: int) -> None:
    """Everything once, what is compared with each other side by side."""
    for rival in dict.fromkeys(case.rival for case in CASES.values()):
        rows = [row for row in CASES if row in run.options.only and CASES[row].rival == rival]
        if run.lane == "unpinned":
            rows = [row for row in rows if row in UNPINNED_ROWS]
        if not rows:
            continue
        jobs: list[list[Callable[[], Measurement]]] = []
        small = []
        for server in run.servers.values():
            if isinstance(server, Hupan):
                asked = [row for row in rows if _is_asked(run, server, row)]
                if "info-cold" in asked and server.people <= SMALL:
                    asked.remove("info-cold")
                    small.append(server)
                jobs += of_ours(run, server, asked, round_)
            elif rival == "read" or (rival and not isinstance(server, Ceiling)):
                jobs.append(of_other(run, server, rival, round_))
                if isinstance(server, Ceiling) and "get-user" in rows:
                    jobs.append(of_other(run, server, "post", round_))
        loops = {"update": ("group-commit", run.turns), "login": ("argon2id", 1)}
        if rival in loops and "bare" in run.options.servers:
            loop, turns = loops[rival]
            one = partial(bare, run, loop, round_, run.options.seconds / turns)
            jobs.append([one] * turns)
        if jobs:
            in_turns(run, jobs)
        for server in small:
            _measure_cold_small(run, server, round_)
    main = run.servers.get("hupan-sqlite")
    if isinstance(main, Hupan) and run.lane == "pinned":
        if "latency" in run.options.only:
            measure_latency(run, main, round_)
        if "start" in run.options.only:
            measure_start(run, round_)


def after_rounds(run: Run) -> None:
    """What is measured once."""
    main = run.servers.get("hupan-sqlite")
    if isinstance(main, Hupan) and run.lane == "pinned":
        if "storm" in run.options.only:
            measure_storm(run, main)
        if "memory" in run.options.only:
            measure_memory(run)


# ---------------------------------------------------------------- the command


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        chosen = [one for word in text.split(",") for one in GROUPS.get(word, [word])]
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word} is none of {', '.join(known)}")
        return chosen

    return read


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    rows = [*CASES, *LATER]
    add = parser.add_argument
    add("--quick", action="store_true", help="Little data and short runs: a smoke test.")
    add("--only", type=_words(rows), default=rows, help=f"Rows, of {', '.join(rows)}.")
    add("--servers", type=_words(SERVERS), default=list(SERVERS), help=f"{', '.join(SERVERS)}.")
    lanes = ("pinned", "unpinned")
    add("--lanes", type=_words(lanes), default=list(lanes), help="pinned, unpinned.")
    add("--seconds", type=float, help="Length of one measurement.")
    add("--rounds", type=int, help="How often everything is measured.")
    add("--people", type=int, help="How many people the large database has.")
    add("--storm-seconds", type=float, help="Length of the storm of logins.")
    add("--results", type=Path, default=RESULTS, help="Folder of the results.")
    chosen = parser.parse_args()
    quick = chosen.quick
    chosen.seconds = chosen.seconds or (0.7 if quick else 3.0)
    chosen.rounds = chosen.rounds or (1 if quick else 3)
    chosen.people = chosen.people or (20_000 if quick else 1_000_000)
    chosen.storm_seconds = chosen.storm_seconds or (3.0 if quick else 60.0)
    # Whoever names rows gets them from every server.
    chosen.short = quick and chosen.only == rows
    chosen.passes = 2 if quick else 4
    if quick and chosen.lanes == list(lanes):
        chosen.lanes = ["pinned"]
    return chosen


def about() -> dict[str, Any]:
    """On what it was measured."""
    model = ""
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                model = text.partition(":")[2].strip()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607  # Whichever git there is.
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "interface": interface_of_ours(),
    }


def main() -> int:
    """Measure, and tell. 1 where an answer was wrong, old or missing."""
    # Whoever ends this ends what it started: the servers are in sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = options()
    surroundings = about()
    begun = time.monotonic()
    data.CACHE.mkdir(exist_ok=True)
    load.generator()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=ROOMS)))
        run = Run(chosen, folder, stack)
        postgres = None
        if any("postgres" in name for name in chosen.servers):
            postgres = stack.enter_context(data.postgres())
        for name in chosen.lanes:
            with lane(run, name, postgres):
                for round_ in range(chosen.rounds if name == "pinned" else -(-chosen.rounds // 3)):
                    one_round(run, round_)
                after_rounds(run)
    surroundings["seconds"] = round(time.monotonic() - begun)
    told = {
        "about": surroundings,
        "options": {key: str(value) for key, value in vars(chosen).items()},
        "measurements": [asdict(made) for made in run.found],
    }
    verdict = report.tell(run.found, surroundings)
    print(verdict)
    chosen.results.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("%Y%m%d-%H%M%S") + ("-quick" if chosen.quick else "")
    (chosen.results / f"{stem}.json").write_text(json.dumps(told, indent=1) + "\n")
    (chosen.results / f"{stem}.md").write_text(verdict + "\n")
    (chosen.results / f"{stem}.svg").write_text(report.chart(run.found))
    print(f"\nwritten to {chosen.results}/{stem}.json, .md and .svg")
    for made in run.found:
        if made.faults:
            print(f"WRONG {made.lane} {made.server} {made.row}: {made.faults} × {made.example}")
    # What others answer wrongly under load is told, and is not our fault.
    return int(any(made.faults and made.server.startswith("hupan") for made in run.found))


if __name__ == "__main__":
    sys.exit(main())
