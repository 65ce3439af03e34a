"""Plain and awaitable calls, mixed up, and what does not fit in."""

import httpx2

from hupan import AsyncClient, Client, Question


async def asked(question: Question) -> str:
    return question.kind


def told(question: Question) -> int:
    return len(question.to)


def forgotten(client: AsyncClient) -> None:
    client.info().name.upper()  # wrong: attribute
    name: str = client.login_with_password("a", "b")  # wrong: assign
    print(name)
    for record in client.iter_coin_records():  # wrong: loop
        print(record)
    with client:  # wrong: with
        pass


async def too_much(client: Client) -> None:
    await client.info()  # wrong: await
    await client.login_with_password("a", "b")  # wrong: await
    async for group in client.iter_groups():  # wrong: loop
        print(group)
    async with client:  # wrong: with
        pass


def people(client: Client) -> None:
    client.login_with_phone("1", asked)  # wrong: type
    client.login_with_phone("1", told)  # wrong: type
    client.login_with_phone("1", lambda: "x")  # wrong: type


def kinds(question: Question) -> None:
    question.kind = "code"  # wrong: read-only


def inside() -> None:
    Client("http://127.0.0.1", http=httpx2.AsyncClient())  # wrong: type
    AsyncClient("http://127.0.0.1", http=httpx2.Client())  # wrong: type
