"""Two loops with nothing around them: what the hashes and the commits alone cost.

Each prints how often it got round in a second. They run in a process of their own, on the cores
that a server would have.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from argon2 import PasswordHasher

#: So many changes share a transaction, as many as the load has connections.
TOGETHER = 32

#: How often a second, and CPU microseconds for each.
Told = dict[str, float]


def told(count: int, begun: float, used: float) -> Told:
    """What a loop did since a moment, without the start of its interpreter."""
    return {
        "rate": count / (time.monotonic() - begun),
        "cpu": (time.process_time() - used) * 1e6 / max(count, 1),
    }


def argon2id(seconds: float) -> Told:
    """Verifications of a password, with as many threads as cores are given."""
    hasher = PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1)
    known = hasher.hash("benchmark-password-1")
    counts = [0] * len(os.sched_getaffinity(0))
    end = time.monotonic() + seconds

    def turn(place: int) -> None:
        while time.monotonic() < end:
            hasher.verify(known, "benchmark-password-1")
            counts[place] += 1

    threads = [threading.Thread(target=turn, args=(place,)) for place in range(len(counts))]
    begun, used = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told(sum(counts), begun, used)


def group_commit(seconds: float, file: Path) -> Told:
    """Changes, each what `save-user-data` must do, 32 of them in each transaction.

    The account is found by the token's hash, its row is written (which its trigger announces),
    and so is the row of its personal data.
    """
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON"
    )
    hashes = [row[0] for row in connection.execute("SELECT token_hash FROM session LIMIT 1000")]
    done, begun, used = 0, time.monotonic(), time.process_time()
    while time.monotonic() - begun < seconds:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(TOGETHER):
            done += 1
            who = connection.execute(
                "SELECT session.account_id FROM session JOIN account"
                " ON account.id = session.account_id WHERE session.token_hash = ?",
                (hashes[done % len(hashes)],),
            ).fetchone()[0]
            connection.execute("UPDATE account SET name = name WHERE id = ?", (who,))
            connection.execute(
                "INSERT INTO profile (account_id, introduction, updated_at) VALUES (?, ?, ?)"
                " ON CONFLICT (account_id) DO UPDATE SET introduction = excluded.introduction,"
                " updated_at = excluded.updated_at",
                (who, f"n {done}", int(time.time())),
            )
        connection.execute("COMMIT")
    return told(done, begun, used)


if __name__ == "__main__":
    if sys.argv[1] == "argon2id":
        found = argon2id(float(sys.argv[2]))
    else:
        found = group_commit(float(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps(found))
