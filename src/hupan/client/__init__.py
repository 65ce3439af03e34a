"""Who asks: the SDK. Every row is a typed call; what is odd about the wire stays behind it.

`Client` makes plain calls and `AsyncClient` awaitable ones. A refusal of the server is `Refused`,
an answer that makes no sense is `Unreadable`, and what went wrong on the way keeps httpx2's names.
"""

from hupan.client.calls import AsyncClient, Client
from hupan.client.login import Question
from hupan.client.tokens import KeyringStore, TokenFile, TokenStore
from hupan.protocol.wire import Refused, Unreadable

__all__ = [
    "AsyncClient",
    "Client",
    "KeyringStore",
    "Question",
    "Refused",
    "TokenFile",
    "TokenStore",
    "Unreadable",
]
