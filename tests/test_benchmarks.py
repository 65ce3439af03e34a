"""The load generator of the benchmark finds answers that are wrong, old, or refused in silence."""

from __future__ import annotations

import os
import shutil
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import Kind, Prepared

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


class Names(socketserver.ThreadingTCPServer):
    """A server of one name, which GET reads and POST writes, with a fault of one kind."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, fault: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault = fault
        self.name = b"u7.000000"


class Handler(socketserver.StreamRequestHandler):
    """Answers on one connection until it ends."""

    server: Names

    def handle(self) -> None:
        while first := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = self.rfile.read(length)
            if first.startswith(b"POST"):
                if self.server.fault != "old":
                    self.server.name = body
                self.answer(b"done")
            elif self.server.fault == "silent refusal":
                self.answer(b"later")
            elif self.server.fault == "refusal":
                self.answer(b"later", b"Retry-After: 2\r\n")
            else:
                name = b"u8.000000" if self.server.fault == "wrong" else self.server.name
                self.answer(b"name " + name)

    def answer(self, body: bytes, more: bytes = b"") -> None:
        head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (more, len(body))
        self.wfile.write(head + body)


@contextmanager
def names(fault: str) -> Iterator[int]:
    with Names(fault) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("", "answered"),
        ("old", "stale"),
        ("wrong", "wrong"),
        ("refusal", "refused"),
        ("silent refusal", "refused_silently"),
    ],
)
def test_the_generator_finds_faults(fault: str, found: str, tmp_path: Path) -> None:
    requests = [
        Prepared(load.http("POST", "/", None, b"u7.000000"), b"done", Kind.RENAME),
        *[Prepared(load.http("GET", "/"), b"name u7.", Kind.READ)] * 3,
    ]
    file = load.write(tmp_path / "requests", requests)
    cores = os.sched_getaffinity(0)
    with names(fault) as port:
        told = load.run(
            port, file, cores=cores, connections=3, seconds=0.3, refusals="refusal" in fault
        )
    assert getattr(told, found) > 10
    faulty = found in ("stale", "wrong", "refused_silently")
    assert bool(told.faults) == faulty == bool(told.example)
    assert 0 < told.p50 <= told.p99 <= told.max


def test_an_open_loop_keeps_its_rate(tmp_path: Path) -> None:
    file = load.write(tmp_path / "requests", [Prepared(load.http("GET", "/"), b"name u7.")])
    with names("") as port:
        told = load.run(
            port, file, cores=os.sched_getaffinity(0), connections=4, seconds=1, rate=200
        )
    assert 190 <= told.requests <= 201
    assert not told.faults
