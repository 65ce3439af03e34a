"""What belongs to no module and is asked for at start-up."""

from __future__ import annotations

from hupan.protocol.message import Message, Nothing, Text
from hupan.protocol.row import Auth, Certainty, Module, Row


class Distribution(Message, rename="camel"):
    """Where a client finds the other services; empty where there is none."""

    audio_url: Text = ""
    file_url: Text = ""
    image_url: Text = ""
    server_url: Text = ""
    share_url: Text = ""
    video_url: Text = ""
    websocket_url: Text = ""


class Misc(Module):
    """`/v1/misc/…`"""

    configure_distribution = Row(
        "GET",
        "/v1/misc/configure-distribution",
        Nothing,
        Distribution,
        "Read where the other services are.",
        auth=Auth.PUBLIC,
        safe=True,
        certainty=Certainty.OBSERVED,
    )
