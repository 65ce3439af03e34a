"""What users may get wrong. Each marked line has to be an error of the named kind, and no other."""

from collections.abc import Iterator

import hupan
from hupan import AsyncClient, Client


def fields(client: Client) -> None:
    client.edit_nickname(nam="x")  # wrong: name
    client.edit_nickname(name=1)  # wrong: type
    client.edit_nickname("x", "y")  # wrong: many
    client.recommend_list(page="1")  # wrong: type
    client.recommend_list(Page=1)  # wrong: name
    client.get_user(id=None)  # wrong: type
    client.homepage(userId="1")  # wrong: name


def answers(client: Client) -> str:
    client.info().nickname.upper()  # wrong: attribute
    client.info().isVip.bit_count()  # wrong: attribute
    name: int = client.info().name  # wrong: assign
    print(name)
    for group in client.recommend_list().group_list:
        group.headcount.upper()  # wrong: attribute
    return client.recommend_list().group_list  # wrong: return


def names(client: Client) -> None:
    client.edit_nick()  # wrong: attribute
    client.safe()  # wrong: attribute
    hupan.Clinet("http://127.0.0.1")  # wrong: attribute


def made() -> Iterator[object]:
    yield Client()  # wrong: missing
    yield Client("http://127.0.0.1", 5)  # wrong: many
    yield Client("http://127.0.0.1", timeout="5")  # wrong: type
    yield Client("http://127.0.0.1", time_out=5)  # wrong: name
    yield Client("http://127.0.0.1", store="tokens.json")  # wrong: type
    yield AsyncClient(url=1)  # wrong: type
