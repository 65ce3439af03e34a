"""Servers with one guard taken away.

A test of a race or of a limit counts only when it fails on the server that lacks the guard. Run as
a module, this starts a server like `hupan serve`, after taking away the guard that is named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(take_away: Callable[[], None]) -> Callable[[], None]:
    """Register a mutant under its function's name."""
    MUTANTS[take_away.__name__] = take_away
    return take_away


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
