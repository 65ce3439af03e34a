"""Answers that belong to no module."""

from __future__ import annotations

from hupan.accounts.context import Context
from hupan.protocol.message import Nothing
from hupan.protocol.misc import Distribution, Misc
from hupan.server.answers import answers


@answers(Misc.configure_distribution)
def configure_distribution(ctx: Context, ask: Nothing) -> Distribution:
    settings = ctx.settings
    return Distribution(
        audio_url=settings.audio_url,
        file_url=settings.file_url,
        image_url=settings.image_url,
        server_url=settings.api_url or f"http://{settings.host}:{settings.port}",
        share_url=settings.share_url,
        video_url=settings.video_url,
        websocket_url=settings.websocket_url,
    )
