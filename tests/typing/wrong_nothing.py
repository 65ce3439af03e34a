"""Calls without parameters take none."""

from hupan import Client


def given(client: Client) -> None:
    client.info(id="7000001")  # wrong: name
    client.medal(1)  # wrong: many
