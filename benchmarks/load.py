"""The load: prepares files of requests for `load.c`, compiles it and runs it."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import CACHE

__all__ = ["DIGITS", "Kind", "Prepared", "Result", "generator", "http", "run", "write", "zipf"]

SOURCE = Path(__file__).with_name("load.c")
#: Six digits of a name or text that the generator writes anew for every request.
DIGITS = "000000"


class Kind(IntEnum):
    """What the generator does with a request; the same numbers as in `load.c`."""

    PLAIN = 0
    RENAME = 1
    READ = 2
    NUMBERED = 3


class Prepared(NamedTuple):
    """A request, and what its answer must hold.

    RENAME and READ have a slot: whose name it is. The digits behind what is expected of a READ
    must be those of the last acknowledged RENAME of that slot, or later ones.
    """

    request: bytes
    expect: bytes
    kind: Kind = Kind.PLAIN
    slot: int = 0


@dataclass(frozen=True)
class Result:
    """What one run of the generator found. Latencies are in microseconds."""

    seconds: float
    requests: int
    finished: int
    answered: int
    wrong: int
    stale: int
    refused: int
    refused_silently: int
    lost: int
    cpu: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    example: str

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def faults(self) -> int:
        """Answers that were wrong, old, or never came."""
        return self.wrong + self.stale + self.refused_silently + self.lost


def generator() -> Path:
    """The compiled generator."""
    CACHE.mkdir(exist_ok=True)
    made = CACHE / "load"
    if not made.exists() or made.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("a C compiler is missing: apt-get install gcc libc6-dev")
        subprocess.run([compiler, "-O2", "-Wall", "-o", made, SOURCE], check=True)
    return made


def http(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """The bytes of a request, with as few headers as a plain client sends."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def write(file: Path, requests: Iterable[Prepared]) -> Path:
    """Write a file of requests."""
    with file.open("wb") as out:
        for request, expect, kind, slot in requests:
            patch = request.rfind(b"." + DIGITS.encode()) + 1
            size = len(request) + len(expect)
            out.write(struct.pack("=5I", len(request), len(expect), kind, slot, patch))
            out.write(request + expect + bytes(-size % 4))
    return file


def zipf(population: Sequence[int], count: int, seed: int) -> list[int]:
    """So many draws from a population, the n-th of which comes with a weight of 1/n."""
    weights = list(accumulate(1 / rank for rank in range(1, len(population) + 1)))
    return random.Random(seed).choices(population, cum_weights=weights, k=count)  # noqa: S311  # Repeatable on purpose.


class Load:
    """A run of the generator that has begun."""

    def __init__(
        self,
        port: int,
        file: Path,
        *,
        cores: set[int],
        connections: int,
        seconds: float,
        rate: float = 0,
        once: bool = False,
        refusals: bool = False,
        drain: bool = False,
        first_version: int = 0,
    ) -> None:
        command = [str(generator()), "-p", str(port), "-c", str(connections)]
        command += ["-s", str(seconds), "-r", str(rate), "-v", str(first_version)]
        command += ["-o"] * once + ["-f"] * refusals + ["-d"] * drain + [str(file)]
        self.limit = seconds + 60
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def end(self) -> Result:
        """Wait for the end of the run.

        Raises:
            RuntimeError: it could not run to its end.
        """
        try:
            out, _ = self.process.communicate(timeout=self.limit)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        if self.process.returncode:
            raise RuntimeError("the load generator gave up")
        values = json.loads(out)
        return Result(**{field.name: values[field.name] for field in fields(Result)})


def run(port: int, file: Path, **more: object) -> Result:
    """Run the generator to its end."""
    return Load(port, file, **more).end()  # type: ignore[arg-type]
