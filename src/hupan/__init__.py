"""Hupan (湖畔): the Yunhu user module, as a server, an SDK and a command line.

The SDK's names can be had from here. They are loaded when one is asked for, so that neither the
server nor `hupan --help` loads an HTTP client that it never uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hupan.client import (
        AsyncClient,
        Client,
        KeyringStore,
        Question,
        Refused,
        TokenFile,
        TokenStore,
        Unreadable,
    )
    from hupan.version import __version__

__all__ = [
    "AsyncClient",
    "Client",
    "KeyringStore",
    "Question",
    "Refused",
    "TokenFile",
    "TokenStore",
    "Unreadable",
    "__version__",
]


if not TYPE_CHECKING:
    # Out of sight of the type checkers, which would let every misspelt name pass.
    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module("hupan.version" if name == "__version__" else "hupan.client")
        # Kept, so that a name is looked for once; and importing a submodule has just bound its
        # own name here.
        value = globals()[name] = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
