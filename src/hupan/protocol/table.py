"""The table: every endpoint is one `Row`, and everything else is derived by walking the rows."""

from __future__ import annotations

from typing import Any

from hupan.protocol.misc import Misc
from hupan.protocol.row import Module, Row
from hupan.protocol.user import Invite, User
from hupan.protocol.verification import Verification
from hupan.protocol.web import Web

__all__ = ["MODULES", "rows"]

MODULES: tuple[type[Module], ...] = (User, Verification, Invite, Misc, Web)


def rows() -> tuple[Row[..., Any, Any], ...]:
    """All rows, in the order they are declared."""
    return tuple(row for module in MODULES for row in vars(module).values() if isinstance(row, Row))
