"""Callbacks, stores and HTTP clients of one's own fit in by their shape."""

import httpx2

from hupan import AsyncClient, Client, KeyringStore, Question, TokenFile, TokenStore


def reads(question: Question) -> str:
    if question.kind == "captcha":
        return input(f"{len(question.picture)} bytes to look at: ")
    return input(f"Sent to {question.to}: ")


async def awaits(question: Question) -> str:
    return reads(question)


class Memory:
    """A store of one's own."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def load(self, url: str) -> str:
        return self.kept.get(url, "")

    def save(self, url: str, token: str) -> None:
        self.kept[url] = token


def plain() -> str:
    own = httpx2.Client(verify=False)
    client = Client("http://127.0.0.1:8790", store=Memory(), http=own)
    return client.login_with_phone("13800000001", reads, device_id="laptop")


async def awaited() -> str:
    own = httpx2.AsyncClient(timeout=httpx2.Timeout(5, read=60))
    client = AsyncClient("http://127.0.0.1:8790", store=KeyringStore(), http=own)
    await client.login_with_phone("13800000001", reads)
    return await client.login_with_phone("13800000001", awaits, tries=1)


def choose(desktop: bool) -> TokenStore:
    return KeyringStore("my bot") if desktop else TokenFile()
